from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from xray_helpers.evaluation.delong import auroc_covariance, compare_auroc, delong_interval

REFERENCE = Path(__file__).parents[1] / "reference"


def test_intervals_and_paired_tests_agree_with_the_reference():
    scores = pd.read_csv(REFERENCE / "auc_scores.csv")
    for row in pd.read_csv(REFERENCE / "auc_delong_proc.csv", skipinitialspace=True).itertuples():
        case = scores[scores["case"] == row.case]
        y = case["y_true"].to_numpy()
        both = case[["score_a", "score_b"]].to_numpy().T
        assert auroc_covariance(y, both)[0] == pytest.approx([row.auc_a, row.auc_b], abs=1e-8)
        for score, low, high in (
            (both[0], row.auc_a_low, row.auc_a_high),
            (both[1], row.auc_b_low, row.auc_b_high),
        ):
            assert delong_interval(y, score) == pytest.approx((max(low, 0), min(high, 1)), abs=1e-8)
        found = compare_auroc(y, *both)
        assert (found.z, found.p) == pytest.approx((row.z, row.p_value), abs=1e-8)


def test_by_hand():
    """Positives 3, 1, negatives 2, 0: AUROC 3/4; placements 1, 1/2 and 1/2, 1; variance 1/8/2 + 1/8/2."""
    y, score = np.array([1, 1, 0, 0]), np.array([3.0, 1.0, 2.0, 0.0])
    auroc, covariance = auroc_covariance(y, score[None])
    assert auroc[0] == 0.75
    assert covariance[0, 0] == pytest.approx(0.125)
    assert delong_interval(y, score) == (pytest.approx(0.75 - 1.959964 * 0.125**0.5, abs=1e-6), 1.0)


def test_degenerate_cases():
    one = np.array([1, 0, 0]), np.array([0.5, 0.2, 0.6])
    assert np.isnan(delong_interval(*one)).all()
    alike = compare_auroc(np.array([1, 0, 1, 0]), np.ones(4), np.ones(4))
    assert (alike.difference, alike.p) == (0, 1)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31), st.integers(4, 60), st.integers(1, 8))
def test_auroc_is_that_of_scikit_learn_and_order_does_not_matter(seed, n, levels):
    rng = np.random.default_rng(seed)
    y = rng.permutation(np.arange(n) % 2)
    scores = rng.integers(0, levels, (2, n)).astype(float)
    auroc, covariance = auroc_covariance(y, scores)
    assert auroc == pytest.approx([roc_auc_score(y, score) for score in scores])
    assert np.linalg.eigvalsh(covariance).min() > -1e-12
    order = rng.permutation(n)
    assert auroc_covariance(y[order], scores[:, order])[1] == pytest.approx(covariance)
    swapped, straight = compare_auroc(y, scores[1], scores[0]), compare_auroc(y, *scores)
    assert swapped.p == pytest.approx(straight.p, nan_ok=True)
