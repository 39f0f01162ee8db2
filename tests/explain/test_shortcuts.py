"""What is no anatomy, and what it tells of the label: measured, judged in three answers, told on the first
page.
"""

import json

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from xray_helpers.explain import shortcut_verdicts, shortcuts
from xray_helpers.images.radiographs import ImageFolder
from xray_helpers.settings import InputError, Settings, build_settings


def write_set(folder, count=80, *, told_by="nothing", seed=0):
    """Write small pictures of noise whose size, format or marker tells the label, or nothing; return their
    manifest rows.
    """
    import hashlib

    rng, rows = np.random.default_rng(seed), []
    for number in range(count):
        y = number % 2
        side = (72 if y else 64) if told_by == "size" else 64
        picture = rng.integers(30, 200, (side, 64), np.uint8)
        if told_by == "marker" and y:
            picture[2:10, 2:10] = 255
        suffix = ".jpg" if told_by == "format" and y else ".png"
        path = f"{number:03d}{suffix}"
        Image.fromarray(picture).convert("RGB" if told_by == "mode" and y else "L").save(folder / path)
        mode = "RGB" if told_by == "mode" and y else "L"
        rows.append(
            {
                "path": path,
                "sha256": hashlib.sha256((folder / path).read_bytes()).hexdigest(),
                "mode": mode,
                "width": 64,
                "height": side,
                "group": f"g{number // 2 if number < 10 else number}",
                "y_true": y,
                "fold": number // 2 % 5,
            }
        )
    return pd.DataFrame(rows)


def test_the_surface_by_hand(root, tmp_path):
    picture = np.full((100, 50), 100, np.uint8)
    picture[:50] = 0
    picture[90:, 40:] = 255  # a marker in the lower right corner
    Image.fromarray(picture).save(tmp_path / "a.png")
    Image.fromarray(np.full((50, 50), 9, np.uint8)).save(tmp_path / "B.JPG")
    part = pd.DataFrame(
        {
            "path": ["a.png", "B.JPG", "a.png"],
            "sha256": "0" * 64,
            "mode": ["L", "RGB", "L"],
            "width": [50, 50, 50],
            "height": [100, 50, 100],
        }
    )
    from xray_helpers.images.radiographs import read_radiograph

    part["sha256"] = [read_radiograph(tmp_path / path).sha256 for path in part["path"]]
    told = shortcuts.measure_surface(part, ImageFolder(tmp_path))
    assert told["aspect"].tolist() == [0.5, 1, 0.5]
    assert told["other_size"].tolist() == [0, 1, 0]
    assert shortcuts.commonest_size(part) == "50 x 100"
    assert told["suffix"].tolist() == [".png", ".jpg", ".png"]
    assert told["bytes"].tolist()[:2] == [(tmp_path / name).stat().st_size for name in ("a.png", "B.JPG")]
    assert told["bytes_a_pixel"][0] == pytest.approx((tmp_path / "a.png").stat().st_size / 5000)
    assert told["black_share"][0] == pytest.approx(0.5, abs=0.01)
    assert told["mean_grey"][0] == pytest.approx(picture.mean(), abs=1)
    assert told["lower_right_brightest"][0] == 255
    assert told["lower_left_brightest"][0] == 100
    assert told["lower_right_edges"][0] > told["lower_left_edges"][0] == 0
    assert told["upper_left_mean"][0] == 0
    assert not told.isna().any(axis=None)


@pytest.mark.parametrize(
    ("told_by", "family", "single"),
    [
        ("size", "size and aspect ratio", "file is not 64 x"),
        ("format", "pixel mode, suffix and bytes", "suffix"),
        ("mode", "pixel mode, suffix and bytes", "pixel mode"),
        ("marker", "the four corners", ""),
    ],
)
def test_a_shortcut_in_the_files_is_shown_with_its_name_and_what_to_do(
    root, tmp_path, told_by, family, single
):
    part = write_set(tmp_path, told_by=told_by)
    scores = shortcuts.predict_by_surface(shortcuts.measure_surface(part, ImageFolder(tmp_path)), part)
    table = shortcuts.evaluate_surface(scores, shortcuts.commonest_size(part))
    assert table["measure"].iloc[0] == shortcuts.ALL
    assert table["auroc"].iloc[0] > 0.95
    assert (table.set_index("words").loc[family, ["auroc", "low"]] > 0.9).all()
    if single:
        best = table[table["words"].str.startswith(single)].iloc[0]
        assert best["auroc"] > 0.95
    found = shortcut_verdicts.evaluate_measures(table)
    assert found.state == shortcut_verdicts.SHOWN
    assert family in found.sentence
    assert "one size and one encoding" in found.sentence
    assert "crop" in found.sentence
    assert "match" in found.sentence


def test_each_image_is_judged_by_what_saw_neither_it_nor_its_group(root, tmp_path):
    """Sizes that name the group and nothing else: whoever saw the group would know the label."""
    part = write_set(tmp_path, 120)
    rng = np.random.default_rng(0)
    group = rng.integers(0, 30, 120)
    part = part.assign(group=group, fold=group % 5, y_true=rng.integers(0, 2, 30)[group])
    surface = pd.DataFrame(
        {
            "width": 100.0 + group,
            "height": rng.permutation(30)[group],
            "aspect": group / 7,
            "other_size": 0.0,
            "mode": "L",
            "suffix": [f".{g}" for g in group],
        }
    )
    scores = shortcuts.predict_by_surface(surface, part)
    table = shortcuts.evaluate_surface(scores)
    assert table["auroc"].max() < 0.8
    again = shortcuts.predict_by_surface(surface, part)
    assert scores.equals(again)
    for at in range(5):  # labels of a fold change nothing of its own predictions
        turned = part.assign(y_true=np.where(part["fold"] == at, 1 - part["y_true"], part["y_true"]))
        other = shortcuts.predict_by_surface(surface, turned)
        assert np.array_equal(
            other.loc[other["fold"] == at, "size"], scores.loc[scores["fold"] == at, "size"]
        )


def test_too_few_images_folds_or_classes_are_not_known(root, tmp_path):
    part = write_set(tmp_path, 8)
    surface = shortcuts.measure_surface(part, ImageFolder(tmp_path))
    for table in (part.assign(fold=0), part.assign(y_true=1), part.head(0)):
        scores = shortcuts.predict_by_surface(surface.head(len(table)), table)
        judged = shortcuts.evaluate_surface(scores)
        assert judged.empty
        found = shortcut_verdicts.evaluate_measures(judged)
        assert found.state == shortcut_verdicts.UNKNOWN
        assert "not measured" in found.sentence
    few = shortcut_verdicts.evaluate_measures(
        shortcuts.evaluate_surface(shortcuts.predict_by_surface(surface, part))
    )
    assert few.state == shortcut_verdicts.UNKNOWN
    assert "not known" in few.sentence


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
def test_a_border_has_three_answers_and_no_all_clear_by_chance(value, low, high, state):
    from xray_helpers.reports.text import describe_border

    found = shortcut_verdicts.evaluate_border(entry(value, low, high) | {"reason": "x"})
    assert found.state == state
    told = describe_border("only", entry(value, low, high) | {"reason": "x"})
    assert found.sentence in told
    assert "Control study" in told
    assert ("not known" in told) == (state == "not known")
    assert "no shortcut was found" not in told
    assert ("hold a shortcut" in told) == (state == "shown")
    assert (f"by more than {shortcut_verdicts.MARGIN:g} above chance" in told) == (state == "ruled out")


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
def test_a_model_stands_beside_its_border(whole, border, state, banner):
    rng = np.random.default_rng(5)
    one, other = draw_predictions(rng, whole), draw_predictions(rng, border)
    found = shortcut_verdicts.assess_shortcuts("Net", one, other, pd.DataFrame(), NOTHING)
    assert found.border.state == state
    assert bool(found.banner) == banner
    assert found.surface.state == "not known"
    record = shortcut_verdicts.record_of(found)
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
    words = "tells more" if table["difference_low"][1] > 0 else "not shown that the whole picture tells more"
    if table["difference_high"][1] >= shortcut_verdicts.MARGIN:
        assert words in found.border.sentence


def test_a_border_as_good_as_the_picture_in_a_larger_set_says_so_within_the_margin():
    rng = np.random.default_rng(2)
    noise = rng.normal(size=1500)
    one = draw_predictions(rng, 1.5, 1500, noise=noise)
    other = draw_predictions(rng, 1.5, 1500, noise=noise + 0.05 * rng.normal(size=1500))
    found = shortcut_verdicts.assess_shortcuts("Net", one, other, pd.DataFrame(), NOTHING)
    assert f"tells no more than that, within {shortcut_verdicts.MARGIN:g}" in found.border.sentence
    ruled_out = shortcut_verdicts.assess_shortcuts(
        "Net", one, draw_predictions(rng, 0.0, 4000), pd.DataFrame(), NOTHING
    )
    assert ruled_out.table["n"].tolist() == [1500, 1500]  # on the same images


def test_what_was_not_measured_is_not_known_and_controls_are_judged_by_themselves():
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


def test_file_sizes_that_score_as_the_network_are_on_its_banner():
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
    table = shortcuts.evaluate_surface(scores, "224 x 224")
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
def test_noise_is_seldom_called_a_shortcut():
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
        table = shortcuts.evaluate_surface(shortcuts.predict_by_surface(surface, part, study))
        shown += shortcut_verdicts.evaluate_measures(table).state == shortcut_verdicts.SHOWN
    assert shown <= 2


def test_views_of_a_study_and_its_setting():
    views = shortcuts.list_views(Settings())
    assert [view.border for view in views] == ["keep", "only"]
    for off in ({"shortcuts": "off"}, {"border": "only"}, {"border": "blank"}, {"repeats": 0}):
        assert len(shortcuts.list_views(build_settings(**off))) == 1
    with pytest.raises(InputError, match="shortcuts = 'maybe'"):
        build_settings(shortcuts="maybe")


def test_the_border_is_predicted_from_features_of_the_border_alone(root, tmp_path, monkeypatch):
    part = write_set(tmp_path, 40, told_by="marker").assign(counted=True)
    opened = []

    def open_extractor(model, settings, weights, engine, folder):
        opened.append(settings.border)
        return None, "forward", settings.border

    def extract(table, folder, forward, key):
        y = table["y_true"].to_numpy()
        return [
            np.column_stack([y + 0.1 * np.random.default_rng(0).normal(size=len(y)), y]).astype(np.float32)
        ]

    monkeypatch.setattr(shortcuts, "open_extractor", open_extractor)
    monkeypatch.setattr(shortcuts, "extract_features", extract)
    monkeypatch.setattr(
        shortcuts,
        "cross_validate",
        lambda views, table, settings, schedule: table.assign(y_prob=views[0][:, 0]),
    )
    told = shortcuts.predict_border("MobileNetV2", Settings(), "random", None, ImageFolder(tmp_path), part)
    assert opened == ["only"]
    assert len(told) == 40
    off = shortcuts.predict_border(
        "MobileNetV2", Settings(shortcuts="off"), "random", None, ImageFolder(tmp_path), part
    )
    assert list(off.columns) == ["path", "group", "y_true", "y_prob", "fold"]
    assert off.empty
    assert opened == ["only"]


def test_a_large_set_is_measured_in_part():
    count = 12_000
    manifest = pd.DataFrame(
        {
            "path": [f"{i:05d}" for i in range(count)],
            "status": "used",
            "label": "Fractured",
            "split": "train",
            "counted": True,
        }
    )
    chosen = shortcuts.choose_measured(manifest, 1)
    assert len(chosen) == 10_000
    assert chosen["path"].is_monotonic_increasing
    assert shortcuts.choose_measured(manifest, 1).equals(chosen)
    copies = manifest.head(10).assign(counted=[True, False] * 5)
    assert len(shortcuts.choose_measured(copies)) == 5


# --- controls -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"border": "only"}, "border = only"),
        ({"border": "blank"}, "border = blank"),
        ({"normalization": "unit"}, "normalization = unit"),
        ({"weights": "random"}, "weights = random"),
        ({}, ""),
    ],
)
def test_controls_are_known_by_their_settings(given, words):
    from xray_helpers.reports.display import study_banners

    settings = build_settings(**given).model_dump()
    assert shortcut_verdicts.list_controls(settings) == ([words] if words else [])
    told = [text for _, text in study_banners({"settings": settings}, None)]
    assert any(text.startswith("Control study") and words in text for text in told) == bool(words)


@pytest.fixture
def reports(tmp_path, monkeypatch):
    """Three studies that were judged: pictures as they are, the border alone, and a sweep of both."""
    from xray_helpers.study.files import write_csv, write_json
    from xray_helpers.study.folders import shareable
    from xray_helpers.study.machine import provenance

    monkeypatch.setenv("XRAY_HELPERS_ROOT", str(tmp_path))
    scores = {
        "plain": (0.75, 0.70),
        "control": (0.84, 0.90),
        "sweep/border=keep": (0.75, 0.70),
        "sweep/border=only": (0.84, 0.90),
    }
    for name, (test, validation) in scores.items():
        folder = tmp_path / "reports" / name
        border = "only" if "only" in name or name == "control" else "keep"
        settings = shareable(build_settings(name=name, data="phantoms", models=["VGG16"], border=border))
        steps = [
            {"name": "VGG16/03_evaluate_model", "report": "x", "state": "done", "seconds": 1.0, "writes": []}
        ]
        write_json(
            folder / "study.json", {"settings": settings, **provenance(), "steps": steps, "state": "done"}
        )
        entry = {"value": validation, "ci_low": validation - 0.1, "ci_high": validation + 0.05, "method": "x"}
        judged = {"validation": {"auroc": entry, "n": 30}, "auroc": entry | {"value": test}, "n": 40}
        write_json(folder / "VGG16" / "metrics.json", judged)
        write_json(folder / "VGG16" / "training.json", {"epochs": 3})
        row = {"rank": 1, "model": "VGG16", "n": 40, "n_groups": 40, "validation_auroc": validation}
        for metric in ("auroc", "accuracy", "precision", "recall", "specificity", "f1"):
            row |= {metric: test, f"{metric}_low": test - 0.1, f"{metric}_high": test + 0.1}
        write_csv(folder / "comparison.csv", pd.DataFrame([row]))
    points = [{"border": "keep"}, {"border": "only"}]
    write_json(
        tmp_path / "reports" / "sweep" / "sweep.json",
        {"name": "sweep", "points": points, "studies": [f"sweep/border={p['border']}" for p in points]},
    )
    return tmp_path / "reports"


def test_no_page_of_studies_lists_a_control_as_a_candidate(reports):
    from xray_helpers.reports.overview import list_studies, write_studies
    from xray_helpers.reports.pages import write_index

    rows = {row["study"]: row for row in list_studies()}
    assert rows["control"]["control"] == "border = only"
    assert rows["plain"]["control"] == rows["sweep"]["control"] == ""
    assert "Control study, no candidate" in " ".join(rows["control"]["warnings"])
    page = write_studies().read_text()
    candidates, controls = page.split("<h2>Controls</h2>")
    assert "plain" in candidates
    assert "0.84" not in candidates
    assert "control: border = only" in controls
    assert "0.84" in controls
    page = write_index(reports / "control").read_text()
    assert "Control study, no candidate: border = only" in page
    assert "Control study" not in write_index(reports / "plain").read_text()


def test_a_sweep_ranks_no_control_among_candidates(reports):
    from xray_helpers.runner.ranking import describe_best, rank, tabulate
    from xray_helpers.runner.sweeps import write_sweep

    table, swept = tabulate(reports / "sweep")
    assert table["control"].tolist() == ["", "border = only"]
    ranking, best = rank(table, swept)
    assert ranking["border"].tolist() == ["keep"]
    assert best["study"].tolist() == ["sweep/border=keep"]
    assert "border = keep" in describe_best(ranking, best, reports / "sweep")
    ranking, best = rank(table[table["control"] != ""], swept)
    assert describe_best(ranking, best, reports / "sweep").startswith("All of these studies are controls")
    page = write_sweep(reports / "sweep").read_text()
    assert "Control study, no candidate" in page


def test_the_first_page_and_the_checklist_say_what_a_shortcut_reaches(reports):
    from xray_helpers.reports.overview import list_studies
    from xray_helpers.reports.pages import write_index
    from xray_helpers.study.files import write_json

    banner = "A shortcut reaches what VGG16 reaches: file is not 224 x 224 alone 0.78 (0.70 to 0.85)."
    told = {
        "border": "not known",
        "surface": "shown",
        "verdict": "Whether <b>it</b> is one.",
        "banner": banner,
    }
    write_json(reports / "plain" / "VGG16" / shortcut_verdicts.FILE, told)
    page = write_index(reports / "plain").read_text()
    assert f'<div class="banner bad" role="alert">{banner}</div>' in page
    assert page.index(banner) < page.index("Scores on the test part")
    assert "Could it be a shortcut?" in page
    assert "Whether &lt;b&gt;it&lt;/b&gt; is one." in page
    assert banner.split(":")[0] in next(row for row in list_studies() if row["study"] == "plain")["warnings"]
    record = json.loads((reports / "plain" / "study.json").read_text())
    steps = [{**record["steps"][0], "state": "waiting", "writes": [f"VGG16/{shortcut_verdicts.FILE}"]}]
    write_json(reports / "plain" / "study.json", record | {"steps": steps})
    assert banner not in write_index(reports / "plain").read_text()  # of an earlier run


def test_the_checklist_of_a_control_says_that_it_is_one(reports):
    from xray_helpers.reports.facts import collect_facts

    (reports / "control" / "VGG16" / "metrics.json").unlink()
    assert collect_facts(reports / "control")["approach"].startswith(
        "Control study, no candidate: border = only"
    )
