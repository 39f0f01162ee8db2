import numpy as np
import pandas as pd
import pytest

from xray_helpers.reporting import escape, show_banner, show_table, study_banners


def test_text_is_shown_as_it_is():
    assert escape("<img src=x onerror=alert(1)> a_b*") == r"&lt;img src=x onerror=alert(1)&gt; a\_b\*"
    assert escape("one's [link](x)") == r"one's \[link\](x)"
    assert "<b>" not in show_table([{"path": "<b>x</b>"}]).data


@pytest.fixture
def leaky():
    return pd.DataFrame({"path": list("abcd"), "group": ["1", "1", "2", "3"], "label": ["Fractured", "Non-Fractured"] * 2,
                         "split": ["train", "test", "validation", "test"], "status": "used"})  # fmt: skip


def test_banners_tell_leaks_random_weights_and_failures(leaky):
    study = {"settings": {"weights": "random", "normalization": "unit"}, "steps": [{"name": "x", "state": "failed"}]}
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
    assert "Control study: &lt;x&gt;" in show_banner("imagenet", manifest=clean, control="Control study: <x>").data


def test_a_border_that_predicts_the_label_is_called_a_shortcut():
    from xray_helpers.reporting import describe_border

    assert describe_border("keep", {"ci_low": 0.7}) == ""
    assert "the images hold a shortcut" in describe_border("only", {"ci_low": 0.6})
    assert "not known" in describe_border("only", {"ci_low": 0.4, "ci_high": 0.6})
    assert "do not predict the label by more than 0.05" in describe_border("only", {"ci_low": 0.48, "ci_high": 0.54})
    assert "compare with a study that keeps them" in describe_border("blank", {"ci_low": 0.4})
    assert "not known" in describe_border("only", {"ci_low": None})
