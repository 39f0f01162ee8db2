import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import roc_auc_score

from xray_helpers.evaluation.paired import (
    compare_accuracies,
    compare_by_group,
    compare_decisions,
    compare_pairs,
    describe_accuracies,
    describe_pairs,
    holm,
    pairs_table,
)
from xray_helpers.evaluation.sign_flips import sign_flip_interval, sign_flip_p


def predictions(strength, seed, groups=60, images=4):
    """Simulated predictions: labels by group, a part of the score that models share and one of their own."""
    shared = np.random.default_rng(99)
    y = np.repeat(np.arange(groups) % 2, images)
    common = shared.normal(size=len(y))
    z = strength * (y - 0.5) + common + np.random.default_rng(seed).normal(0, 0.5, len(y))
    p = stats.norm.cdf(z / 2)
    return pd.DataFrame(
        {
            "path": range(len(y)),
            "group": np.repeat(np.arange(groups), images),
            "y_true": y,
            "y_prob": p,
            "y_pred": (p >= 0.5).astype(int),
        }
    )


def test_a_better_model_differs_and_an_equal_one_is_not_shown_to():
    models = {"good": predictions(3.0, 1), "same": predictions(3.0, 2), "poor": predictions(0.3, 3)}
    pairs = compare_pairs(models).set_index(["first", "second"])
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
    assert text == (
        "After correction for 3 comparisons, the AUROC of good differs from that of poor; "
        "the difference from same may be due to chance."
    )


def test_swapping_models_in_some_groups_flips_the_signs_of_their_contributions():
    """The AUROC difference after any swap is exactly the signed sum of contributions, on one scale."""
    rng = np.random.default_rng(3)
    y, group = rng.integers(0, 2, 40), np.repeat(np.arange(10), 4)
    first, second = (rng.permutation(40) / 40 + 0.01 for _ in range(2))  # the same values: one scale
    parts = compare_by_group(y, first, second, group)
    for _ in range(20):
        sign = rng.choice([-1, 1], 10)
        swap = (sign < 0)[group]
        one, two = np.where(swap, second, first), np.where(swap, first, second)
        assert parts @ sign == pytest.approx(roc_auc_score(y, one) - roc_auc_score(y, two), abs=1e-12)


def test_another_scale_of_one_model_changes_nothing():
    one, other = predictions(1.0, 1), predictions(1.2, 2)
    sharper = other.assign(y_prob=1 / (1 + (1 / other["y_prob"] - 1) ** 3 * 5))
    plain, scaled = (compare_pairs({"a": one, "b": b}).iloc[0] for b in (other, sharper))
    assert scaled["difference"] == pytest.approx(plain["difference"])
    assert scaled["p"] == pytest.approx(plain["p"], abs=0.03)


def enumerate_sign_flips(parts):
    """The exact p, with and without the sums that are as large as the observed one."""
    signs = 1 - 2 * ((np.arange(2 ** len(parts))[:, None] >> np.arange(len(parts))) & 1)
    sums, total = np.abs(signs @ parts), abs(parts.sum())
    return (sums >= total - 1e-9).mean(), (sums > total + 1e-9).mean()


def test_the_p_of_sign_flips_agrees_with_enumeration():
    rng = np.random.default_rng(0)
    for _ in range(300):
        parts = rng.normal(rng.uniform(0, 1), 1, rng.integers(8, 12))
        most, least = enumerate_sign_flips(parts)
        assert least / 1.5 - 0.06 <= sign_flip_p(parts) <= 1.5 * most + 0.06


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(-1, 1).map(lambda x: round(x, 3)), min_size=6, max_size=11))
@example([0.0, 0.0, 0.0, 0.002, -1.0, -1.0])  # p is 0.81 and not 0.5, as two groups make up the sum
def test_sign_flips_are_never_significant_where_enumeration_is_far_from_it(values):
    """Where a few groups make up the sum, the approximation is coarse, but it makes no false claim."""
    parts = np.array(values)
    p = sign_flip_p(parts)
    assert 0 < p <= 1
    assert p == sign_flip_p(-parts)
    assert p >= 0.05 or enumerate_sign_flips(parts)[0] <= 0.1


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.floats(-0.2, 0.2))
def test_the_interval_excludes_zero_exactly_where_p_is_below_five_percent(seed, shift):
    rng = np.random.default_rng(seed)
    shares = rng.dirichlet(np.ones(20))
    parts = shares * (shift + rng.normal(0, 0.3, 20))
    low, high, p = sign_flip_interval(parts, shares)
    assert low <= parts.sum() <= high
    assert (low > 0 or high < 0) == (p < 0.05)


def null_models(seed, groups=24, auroc=0.85, images=4):
    rng = np.random.default_rng(seed)
    y = np.repeat(rng.permutation(np.arange(groups) % 2), images)
    group, shift = np.repeat(np.arange(groups), images), np.sqrt(2) * stats.norm.ppf(auroc)
    shared = rng.normal(size=groups)[group] * np.sqrt(0.4) + rng.normal(size=len(y)) * np.sqrt(0.1)
    tables = {}
    for name in ("one", "two"):
        own = rng.normal(size=groups)[group] * np.sqrt(0.4) + rng.normal(size=len(y)) * np.sqrt(0.1)
        p = stats.logistic.cdf(shared + own + shift * y - shift / 2)
        tables[name] = pd.DataFrame(
            {"group": group, "y_true": y, "y_prob": p, "y_pred": (p >= 0.5).astype(int)}
        )
    return tables


@pytest.mark.parametrize("auroc", [0.85, 0.97])
def test_equal_models_differ_in_five_percent_of_studies(auroc):
    """In 300 studies, 5 % are between 2 and 9 % (binomial, 99.5 %)."""
    pairs = pd.concat([compare_pairs(null_models([9, study], auroc=auroc)) for study in range(300)])
    assert 0.02 <= (pairs["p"] < 0.05).mean() <= 0.09
    outside = (pairs["ci_low"] > 0) | (pairs["ci_high"] < 0)
    assert (outside == (pairs["p"] < 0.05)).all()
    together = [compare_accuracies(null_models([9, study], auroc=auroc)) for study in range(300)]
    assert np.mean([p is not None and p < 0.05 for p in together]) <= 0.09


def test_a_clear_difference_remains_significant_among_twelve_models():
    models = {"good": predictions(3.0, 0)} | {f"poor{i}": predictions(0.2, i) for i in range(1, 12)}
    pairs = compare_pairs(models)
    mine = pairs[pairs["first"] == "good"]
    assert len(pairs) == 66
    assert (mine["p_holm"] < 0.05).all()
    shown = pairs_table(mine)
    assert (shown["p, groups"] == "< 0.001").all()


def test_correlated_models_may_differ_though_their_intervals_overlap():
    from xray_helpers.evaluation.metrics import compute_metrics

    one = predictions(1.6, 1)
    worse = one.assign(y_prob=one["y_prob"] - 0.06 * (one["y_true"] - 0.5) + 0.0)
    worse["y_prob"] = worse["y_prob"].clip(0, 1)
    ends = [compute_metrics(t["y_true"], t["y_prob"], 0.5, t["group"])["auroc"] for t in (one, worse)]
    assert ends[1]["ci_high"] > ends[0]["ci_low"]
    pairs = compare_pairs({"one": one, "worse": worse})
    assert pairs["p"].iloc[0] < 0.001
    expected = "After correction for 1 comparison, the AUROC of one differs from that of worse."
    assert describe_pairs(pairs, "one") == expected


def test_models_that_differ_by_less_than_the_margin_are_called_equal():
    one = predictions(3.0, 1, groups=400)
    near = one.assign(
        y_prob=np.clip(one["y_prob"] + np.random.default_rng(0).normal(0, 0.002, len(one)), 0, 1)
    )
    assert describe_pairs(compare_pairs({"one": one, "near": near}), "one").endswith(
        "it differs from that of near by less than 0.01 either way."
    )


def test_decisions_of_single_images_are_mcnemars_exact_test():
    first, second = np.array([1] * 8 + [0] * 2 + [1] * 5, bool), np.array([0] * 8 + [1] * 2 + [1] * 5, bool)
    assert compare_decisions(first, second, np.arange(15)) == pytest.approx(stats.binomtest(2, 10).pvalue)
    assert compare_decisions(first, first, np.arange(15)) == 1.0


def test_decisions_of_groups_by_hand():
    """The groups count 2, 1 and -1: 2 squared over 4 + 1 + 1."""
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
    assert holm(np.array([0.01, 0.04, 0.03, np.nan])) == pytest.approx(
        [0.03, 0.06, 0.06, np.nan], nan_ok=True
    )
    alone = compare_pairs({"a": table})
    assert alone.empty
    assert pairs_table(alone).empty
    assert describe_pairs(alone, "a") == "There is one model only: there is nothing to compare."
    assert describe_accuracies({"a": table, "b": table}).endswith("by groups: p 1.000.")
    assert "was not tested" in describe_accuracies({"a": table})


def test_a_perfect_model_beside_one_without_any_skill():
    """Every group contributes exactly its share of the difference, up to rounding."""
    y = np.arange(160) % 2
    tables = {
        name: pd.DataFrame(
            {"y_true": y, "y_prob": p, "y_pred": (p > 0.5).astype(int), "group": np.arange(160)}
        )
        for name, p in (("perfect", np.where(y, 0.9, 0.1)), ("constant", np.full(160, 0.5)))
    }
    row = compare_pairs(tables).iloc[0]
    assert row["difference"] == pytest.approx(0.5)
    assert row["p"] < 0.001
    assert 0 < row["ci_low"] <= row["difference"] <= row["ci_high"]
