import numpy as np
import pandas as pd
import pytest

from xray_helpers.reports.banners import study_banners
from xray_helpers.reports.display import escape, show_banner, show_table


def test_text_is_shown_as_it_is():
    assert escape("<img src=x onerror=alert(1)> a_b*") == r"&lt;img src=x onerror=alert(1)&gt; a\_b\*"
    assert escape("one's [link](x)") == r"one's \[link\](x)"
    assert "<b>" not in show_table([{"path": "<b>x</b>"}]).data


@pytest.fixture
def leaky():
    return pd.DataFrame(
        {
            "path": list("abcd"),
            "group": ["1", "1", "2", "3"],
            "label": ["Fractured", "Non-Fractured"] * 2,
            "split": ["train", "test", "validation", "test"],
            "status": "used",
        }
    )


def test_banners_tell_leaks_random_weights_and_failures(leaky):
    study = {
        "settings": {"weights": "random", "normalization": "unit"},
        "steps": [{"name": "x", "state": "failed"}],
    }
    kinds = study_banners(study, leaky)
    words = " ".join(text for _, text in kinds)
    assert kinds[0][0] == "bad"
    for word in (
        "The split leaks: 1 of 2",
        "steps failed: x",
        "Random weights",
        "normalization = unit",
        "test part is small",
    ):
        assert word in words
    assert "The split leaks" in show_banner("imagenet", manifest=leaky).data
    clean = leaky.assign(group=np.arange(4).astype(str))
    assert show_banner("imagenet", manifest=clean) is None
    assert (
        "Control study: &lt;x&gt;"
        in show_banner("imagenet", manifest=clean, control="Control study: <x>").data
    )


def test_a_border_that_predicts_the_label_is_called_a_shortcut():
    from xray_helpers.reports.text import describe_border

    assert describe_border("keep", {"ci_low": 0.7}) == ""
    assert "the images hold a shortcut" in describe_border(
        "only", {"value": 0.7, "ci_low": 0.6, "ci_high": 0.8}
    )
    assert "not known" in describe_border("only", {"value": 0.5, "ci_low": 0.4, "ci_high": 0.6})
    assert "do not predict the label by more than 0.05" in describe_border(
        "only", {"value": 0.5, "ci_low": 0.48, "ci_high": 0.54}
    )
    assert "compare with a study that keeps them" in describe_border("blank", {"ci_low": 0.4})
    assert "not known" in describe_border("only", {"value": None, "ci_low": None, "ci_high": None})


def test_what_training_rests_on_is_told():
    from xray_helpers.reports.text import describe_training
    from xray_helpers.settings import build_settings

    history = pd.DataFrame({"epoch": [1, 2], "val_loss": [0.5, 0.6], "best": [False, True], "phase": "head"})
    chosen = {
        "threshold": 0.3,
        "rule": "youden",
        "target_sensitivity": 0.95,
        "sources": 80,
        "validation_sources": 14,
        "chosen_on": "train and validation, out of fold",
    }
    by = "The number of epochs, 2, is the median of the best ones over folds of train."
    text = describe_training("VGG16", history, build_settings(epochs=50), chosen, by)
    assert "trained for 2 of at most 50 epochs; epoch 2 is kept" in text
    assert by in text
    assert "from P = 0.300 upwards (Youden's J on train and validation, out of fold)" in text
    assert "on validation" not in text
    assert "on validation" in describe_training(
        "VGG16", history, build_settings(), chosen | {"chosen_on": "validation"}, by
    )


def test_few_effective_patients_are_told_though_there_are_many_images():
    """Ten patients of a class, one with most of the images: worth hardly more than one."""
    rows = [("giant" if i < 100 else f"p{i}", "Fractured") for i in range(110)] + [
        (f"n{i}", "Non-Fractured") for i in range(60)
    ]
    table = pd.DataFrame(rows, columns=["group", "label"]).assign(split="test", status="used")
    table["path"] = [f"{i}.png" for i in range(len(table))]
    told = [
        text
        for _, text in study_banners(
            {"settings": {"weights": "imagenet", "normalization": "imagenet"}}, table
        )
    ]
    assert any(
        "test part has few sources or patients (11 of Fractured, worth 1.2, 60 of Non-Fractured)" in text
        for text in told
    )
