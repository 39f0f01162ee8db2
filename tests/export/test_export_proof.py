"""What an export costs: losses against hand-computed ones, and the three answers."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xray_helpers.evaluation.intervals import interval_entry, no_interval
from xray_helpers.evaluation.metrics import compute_metrics
from xray_helpers.export.proof import DO_NOT_USE, FINE, UNKNOWN, judge, measure_losses


def table(y_true, y_prob, group=None):
    y_true, y_prob = np.asarray(y_true), np.asarray(y_prob, float)
    group = np.arange(len(y_true)) if group is None else group
    return pd.DataFrame(
        {"y_true": y_true, "y_prob": y_prob, "y_pred": (y_prob >= 0.5).astype(int), "group": group}
    )


def test_losses_are_differences_of_the_scores_themselves():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 400)
    first = 1 / (1 + np.exp(-(2.0 * y - 1 + rng.normal(size=400))))
    second = 1 / (1 + np.exp(-(0.6 * y - 0.3 + rng.normal(size=400))))
    before, after = table(y, first), table(y, second)
    found = measure_losses(before, after)
    group = np.arange(400)
    scores = [compute_metrics(y, p, 0.5, group) for p in (first, second)]
    for score in ("auroc", "recall", "specificity"):
        loss = scores[0][score]["value"] - scores[1][score]["value"]
        assert found[score]["value"] == pytest.approx(loss, abs=1e-9), score
        assert 0 < found[score]["ci_low"] < loss < found[score]["ci_high"]
    assert judge(found, 0.5, 0.01)[0] == DO_NOT_USE


def test_a_rate_without_flips_has_an_end_that_grows_with_fewer_images():
    """With no flip in n images, a flip rate up to 1 - 0.025 ** (1 / n) is possible on either side."""
    for n in (20, 2000):
        y = np.repeat([0, 1], n)
        one = table(y, np.where(y == 1, 0.9, 0.1))
        found = measure_losses(one, one)["recall"]
        assert found["value"] == 0
        assert found["ci_high"] == pytest.approx(1 - 0.025 ** (1 / n))
        assert found["ci_low"] == pytest.approx(-found["ci_high"])


def test_copies_of_images_tell_no_more_than_the_images():
    rng = np.random.default_rng(1)
    y = np.repeat([0, 1], 30)
    p = np.clip(0.3 + 0.4 * y + rng.normal(0, 0.2, 60), 0.01, 0.99)
    q = np.clip(p + rng.normal(0, 0.1, 60), 0.01, 0.99)
    single = measure_losses(table(y, p), table(y, q))
    group = np.repeat(np.arange(60), 4)
    copied = measure_losses(*(table(np.repeat(y, 4), np.repeat(each, 4), group) for each in (p, q)))
    for score, entry in single.items():
        assert copied[score]["value"] == pytest.approx(entry["value"], abs=1e-9)
        width = entry["ci_high"] - entry["ci_low"]
        assert copied[score]["ci_high"] - copied[score]["ci_low"] == pytest.approx(width, rel=0.25)


def losses(value, low, high):
    entry = no_interval(value, "few") if low is None else interval_entry(value, low, high, "")
    return {"auroc": entry}


@pytest.mark.parametrize(
    ("found", "largest", "verdict"),
    [
        ((0.03, 0.02, 0.05), 0.2, DO_NOT_USE),  # shown to be more than the margin
        ((0.03, 0.005, 0.05), 0.2, DO_NOT_USE),  # measured to be more, and chance is ruled out
        ((0.03, -0.01, 0.07), 0.2, UNKNOWN),  # measured to be more, and chance may be why
        ((0.03, None, None), 0.2, DO_NOT_USE),  # all that is known is what was measured
        ((0.0, None, None), 0.2, UNKNOWN),
        ((0.005, 0.001, 0.009), 0.2, FINE),  # a loss, and less than the margin
        ((0.005, -0.01, 0.02), 0.2, UNKNOWN),
        ((0.0, -0.2, 0.2), 0.0009, FINE),  # the same numbers
        ((0.0, -0.2, 0.2), 0.0011, UNKNOWN),
        ((0.0, -0.001, 0.001), float("nan"), DO_NOT_USE),
    ],
)
def test_an_export_has_one_of_three_answers(found, largest, verdict):
    answer, why = judge(losses(*found), largest, 0.01)
    assert answer == verdict
    assert why.endswith(".")
    alone = answer == DO_NOT_USE and found[1] is None
    assert ("No interval could be computed for AUROC: the measured loss alone decides." in why) == alone


@given(st.floats(-0.5, 0.5), st.floats(0, 0.3), st.floats(0.001, 0.2))
def test_no_answer_contradicts_the_measured_loss(value, half, margin):
    answer, _ = judge(losses(value, value - half, value + half), 1.0, margin)
    if answer == DO_NOT_USE:
        assert value > margin
    if answer == FINE:
        assert value + half < margin


def test_a_test_part_of_one_class_shows_nothing():
    one = table(np.ones(40, int), np.linspace(0.2, 0.9, 40))
    found = measure_losses(one, one)
    assert found["auroc"]["value"] is None
    assert found["specificity"]["value"] is None
    assert judge(found, 0.3, 0.01)[0] == UNKNOWN
