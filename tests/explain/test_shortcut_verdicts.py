"""Whether a shortcut is shown, ruled out or not known."""

import json

import numpy as np
import pandas as pd
import pytest

from xray_helpers.explain import shortcut_verdicts, shortcuts


def entry(value, low, high):
    return {"value": value, "ci_low": low, "ci_high": high}


@pytest.mark.parametrize(
    ("value", "low", "high", "state"),
    [
        (0.67, 0.29, 0.91, "not known"),
        (0.91, 0.81, 0.96, "shown"),
        (0.51, 0.48, 0.54, "ruled out"),
        (0.60, 0.52, 0.68, "not known"),
        (0.50, 0.44, 0.56, "not known"),
        (0.4, None, None, "not known"),
    ],
)
def test_the_verdict_on_the_border_has_three_answers(value, low, high, state):
    from xray_helpers.reports.text import describe_border

    found = shortcut_verdicts.assess_border(entry(value, low, high) | {"reason": "x"})
    assert found.state == state
    text = describe_border("only", entry(value, low, high) | {"reason": "x"})
    assert found.sentence in text
    assert "Control study" in text
    assert ("not known" in text) == (state == "not known")
    assert "no shortcut was found" not in text
    assert ("hold a shortcut" in text) == (state == "shown")
    assert (f"by more than {shortcut_verdicts.MARGIN:g} above chance" in text) == (state == "ruled out")


def draw_predictions(rng, strength, count=160, *, noise=None):
    y = np.arange(count) % 2
    z = strength * (y - 0.5) + (rng.normal(size=count) if noise is None else noise)
    return pd.DataFrame(
        {
            "path": [f"{i}" for i in range(count)],
            "group": [f"g{i}" for i in range(count)],
            "y_true": y,
            "y_prob": 1 / (1 + np.exp(-z)),
            "fold": np.arange(count) % 5,
        }
    )


NOTHING = pd.DataFrame(columns=["measure", "kind", "words", "auroc", "low", "high", "n", "n_groups"])


@pytest.mark.parametrize(
    ("whole", "border", "state", "banner"),
    [
        (1.2, 1.2, "shown", True),
        (0.6, 1.5, "shown", True),
        (4.0, 1.2, "shown", False),
        (1.2, 0.0, "not known", False),
    ],
)
def test_a_model_is_compared_with_its_border(whole, border, state, banner):
    rng = np.random.default_rng(5)
    one, other = draw_predictions(rng, whole), draw_predictions(rng, border)
    found = shortcut_verdicts.assess_shortcuts("Net", one, other, pd.DataFrame(), NOTHING)
    assert found.border.state == state
    assert bool(found.banner) == banner
    assert found.surface.state == "not known"
    record = shortcut_verdicts.shortcut_record(found)
    assert record["border"] == state
    assert (json.loads(json.dumps(record)))["banner"] == found.banner
    table = found.table
    assert table["what"].tolist() == ["whole picture", "border and corners alone"]
    difference = table["auroc"][0] - table["auroc"][1]
    assert table["difference"][1] == pytest.approx(difference)
    assert table["difference_low"][1] < difference < table["difference_high"][1]
    if banner:
        for word in ("Net", "out of fold", f"{table['auroc'][0]:.2f} (", f"{table['auroc'][1]:.2f} ("):
            assert word in found.banner
    words = (
        "predicts better"
        if table["difference_low"][1] > 0
        else "not shown that the whole picture predicts better"
    )
    if table["difference_high"][1] >= shortcut_verdicts.MARGIN:
        assert words in found.border.sentence


def test_a_border_as_good_as_the_picture_in_a_larger_set_says_so_within_the_margin():
    rng = np.random.default_rng(2)
    noise = rng.normal(size=1500)
    one = draw_predictions(rng, 1.5, 1500, noise=noise)
    other = draw_predictions(rng, 1.5, 1500, noise=noise + 0.05 * rng.normal(size=1500))
    found = shortcut_verdicts.assess_shortcuts("Net", one, other, pd.DataFrame(), NOTHING)
    assert f"predicts no better than that, within {shortcut_verdicts.MARGIN:g}" in found.border.sentence
    ruled_out = shortcut_verdicts.assess_shortcuts(
        "Net", one, draw_predictions(rng, 0.0, 4000), pd.DataFrame(), NOTHING
    )
    assert ruled_out.table["n"].tolist() == [1500, 1500]  # on the same images


def test_what_was_not_measured_is_not_known_and_controls_are_assessed_by_themselves():
    rng = np.random.default_rng(5)
    one, nothing = draw_predictions(rng, 2.0), draw_predictions(rng, 1, 4).head(0)
    for whole, border in ((one, nothing), (nothing, nothing), (pd.DataFrame(), nothing)):
        found = shortcut_verdicts.assess_shortcuts("Net", whole, border, pd.DataFrame(), NOTHING)
        assert found.border.state == "not known"
        assert "not measured" in found.border.sentence
        assert found.banner == ""
    only = shortcut_verdicts.assess_shortcuts("Net", one, nothing, pd.DataFrame(), NOTHING, "only")
    assert only.border.state == "shown"
    blank = shortcut_verdicts.assess_shortcuts("Net", one, nothing, pd.DataFrame(), NOTHING, "blank")
    assert blank.border.state == "not known"
    assert "compare with a study that keeps them" in blank.border.sentence


def test_a_file_size_that_scores_as_high_as_the_network_is_on_its_banner():
    """The sample's own case: not 224 x 224 alone .78, the network .75."""
    rng = np.random.default_rng(1)
    whole = draw_predictions(rng, 0.95)
    y = whole["y_true"].to_numpy()
    flag = np.where(rng.random(len(y)) < 0.8, y, 1 - y)
    surface = pd.DataFrame(
        {
            "width": np.where(flag, 300.0, 224.0),
            "height": 224.0,
            "aspect": np.where(flag, 1.3, 1.0),
            "other_size": flag.astype(float),
            "mode": "L",
            "suffix": ".png",
        }
    )
    scores = shortcuts.predict_by_surface(surface, whole)
    table = shortcuts.score_surface(scores, "224 x 224")
    found = shortcut_verdicts.assess_shortcuts("Net", whole, whole.head(0), scores, table)
    single = table[table["measure"] == "other_size"].iloc[0]
    assert single["auroc"] == pytest.approx(0.8, abs=0.07)
    assert f"file is not 224 x 224 alone {single['auroc']:.2f} (" in found.banner
    better = shortcut_verdicts.assess_shortcuts(
        "Net", draw_predictions(rng, 8.0), whole.head(0), scores, table
    )
    assert better.banner == ""
    assert better.surface.state == "shown"


@pytest.mark.slow
def test_noise_is_rarely_called_a_shortcut():
    """Surfaces of noise, 40 studies, the whole way; the benchmark does 200."""
    shown = 0
    for study in range(40):
        rng = np.random.default_rng([study, 4])
        part = draw_predictions(rng, 0, 60 + 40 * (study % 3)).assign(
            y_true=lambda t, r=rng: r.permutation(t["y_true"])
        )
        numbers = [
            c for columns in shortcuts.FAMILIES.values() for c in columns if c not in ("mode", "suffix")
        ]
        surface = pd.DataFrame(rng.normal(size=(len(part), len(numbers))), columns=numbers)
        surface = surface.assign(
            mode=rng.choice(["L", "RGB"], len(part)), suffix=rng.choice([".png", ".jpg"], len(part))
        )
        table = shortcuts.score_surface(shortcuts.predict_by_surface(surface, part, study))
        shown += shortcut_verdicts.assess_surface(table).state == shortcut_verdicts.SHOWN
    assert shown <= 2
