import numpy as np
import pandas as pd
import pytest

from xray_helpers.reports.banners import study_banners
from xray_helpers.reports.display import show_banner


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


def test_banners_warn_of_leaks_random_weights_and_failures(leaky):
    study = {
        "settings": {"weights": "random", "normalization": "unit"},
        "steps": [{"name": "x", "state": "failed"}],
    }
    kinds = study_banners(study, leaky)
    shown = " ".join(text for _, text in kinds)
    assert kinds[0][0] == "bad"
    for text in (
        "The split leaks: 1 of 2",
        "steps failed: x",
        "Random weights",
        "normalization = unit",
        "test part is small",
    ):
        assert text in shown
    assert "The split leaks" in show_banner("imagenet", manifest=leaky).data
    clean = leaky.assign(group=np.arange(4).astype(str))
    assert show_banner("imagenet", manifest=clean) is None
    assert (
        "Control study: &lt;x&gt;"
        in show_banner("imagenet", manifest=clean, control="Control study: <x>").data
    )


def test_few_effective_patients_give_a_warning_though_there_are_many_images():
    """Ten patients of a class, one with most of the images: worth hardly more than one."""
    rows = [("giant" if i < 100 else f"p{i}", "Fractured") for i in range(110)] + [
        (f"n{i}", "Non-Fractured") for i in range(60)
    ]
    table = pd.DataFrame(rows, columns=["group", "label"]).assign(split="test", status="used")
    table["path"] = [f"{i}.png" for i in range(len(table))]
    texts = [
        text
        for _, text in study_banners(
            {"settings": {"weights": "imagenet", "normalization": "imagenet"}}, table
        )
    ]
    assert any(
        "test part has few sources or patients (11 of Fractured, worth 1.2, 60 of Non-Fractured)" in text
        for text in texts
    )
