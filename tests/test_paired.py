import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import roc_auc_score

from xray_helpers.paired import (
    bootstrap_auroc,
    bootstrap_p,
    compare_accuracies,
    compare_decisions,
    compare_pairs,
    describe_pairs,
    holm,
)


def predictions(strength, seed, groups=60, images=4):
    """Made predictions: labels by group, what the models share and what each sees alone."""
    shared = np.random.default_rng(99)
    y = np.repeat(np.arange(groups) % 2, images)
    common = shared.normal(size=len(y))
    z = strength * (y - 0.5) + common + np.random.default_rng(seed).normal(0, 0.5, len(y))
    p = stats.norm.cdf(z / 2)
    return pd.DataFrame({"path": range(len(y)), "group": np.repeat(np.arange(groups), images), "y_true": y, "y_prob": p,
                         "y_pred": (p >= 0.5).astype(int)})  # fmt: skip


def test_a_better_model_is_told_apart_and_an_equal_one_is_not():
    models = {"good": predictions(3.0, 1), "same": predictions(3.0, 2), "poor": predictions(0.3, 3)}
    pairs = compare_pairs(models, seed=0).set_index(["first", "second"])
    good, same = pairs.loc[("good", "poor")], pairs.loc[("good", "same")]
    assert good["difference"] == pytest.approx(
        roc_auc_score(models["good"]["y_true"], models["good"]["y_prob"])
        - roc_auc_score(models["poor"]["y_true"], models["poor"]["y_prob"])
    )
    assert 0 < good["ci_low"] < good["difference"] < good["ci_high"]
    assert good["p_holm"] < 0.01
    assert good["delong_p_holm"] < 0.01
    assert good["decisions_p_holm"] < 0.01
    assert same["ci_low"] < 0 < same["ci_high"]
    assert same["p_holm"] > 0.05
    assert good["only_first"] > good["only_second"]
    text = describe_pairs(pairs.reset_index(), "good")
    assert text == ("After correction for 3 comparisons, good is told apart from poor by AUROC; "
                    "between it and same the difference may be chance.")  # fmt: skip


def test_the_bootstrap_resamples_groups_for_all_models_alike():
    one = predictions(1.0, 1)
    found = bootstrap_auroc(one["y_true"].to_numpy(), {"a": one["y_prob"].to_numpy(), "b": one["y_prob"].to_numpy()},
                            one["group"].to_numpy(), 3)  # fmt: skip
    assert (found["a"][1] == found["b"][1]).all()
    assert len(found["a"][1]) == 2000
    rest = one[one["group"] != 7]
    assert found["a"][2][7] == pytest.approx(roc_auc_score(rest["y_true"], rest["y_prob"]))


def test_decisions_of_single_images_are_mcnemars_exact_test():
    first, second = np.array([1] * 8 + [0] * 2 + [1] * 5, bool), np.array([0] * 8 + [1] * 2 + [1] * 5, bool)
    assert compare_decisions(first, second, np.arange(15)) == pytest.approx(stats.binomtest(2, 10).pvalue)
    assert compare_decisions(first, first, np.arange(15)) == 1.0


def test_decisions_of_groups_by_hand():
    """Nets of three groups are 2, 1 and -1: 2 squared over 4 + 1 + 1."""
    first = np.array([1, 1, 1, 0, 0, 1], bool)
    second = np.array([0, 0, 0, 0, 1, 1], bool)
    codes = np.array([0, 0, 1, 1, 2, 2])
    assert compare_decisions(first, second, codes) == pytest.approx(stats.chi2.sf(4 / 6, 1))
    assert compare_decisions(first, first, codes) == 1.0


def test_copies_of_images_prove_nothing():
    rng = np.random.default_rng(0)
    first, second = rng.random(400) < 0.6, rng.random(400) < 0.55
    once = compare_decisions(first, second, np.arange(400))
    copied = compare_decisions(np.repeat(first, 6), np.repeat(second, 6), np.repeat(np.arange(400), 6))
    assert copied == pytest.approx(once, abs=0.1)


def test_cochrans_q_and_holm():
    table = predictions(1.0, 1)
    assert compare_accuracies({"a": table}) is None
    assert compare_accuracies({"a": table, "b": table}) == 1.0
    assert compare_accuracies({"a": table, "b": predictions(4.0, 2), "c": predictions(0.0, 3)}) < 0.001
    assert holm(np.array([0.01, 0.04, 0.03, np.nan])) == pytest.approx([0.03, 0.06, 0.06, np.nan], nan_ok=True)
    assert compare_pairs({"a": table}).empty


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-1, 1), min_size=1, max_size=200))
def test_bootstrap_p_is_a_probability_and_knows_no_direction(values):
    drawn = np.array(values)
    assert 0 < bootstrap_p(drawn) <= 1
    assert bootstrap_p(drawn) == bootstrap_p(-drawn)
