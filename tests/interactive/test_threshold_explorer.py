import re

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import confusion_matrix

from xray_helpers.evaluation.metrics import compute_metrics
from xray_helpers.interactive import curves
from xray_helpers.interactive.curves import OperatingPoints


@given(st.lists(st.tuples(st.integers(0, 1), st.floats(0, 1)), min_size=1, max_size=60), st.floats(0, 1))
def test_counts_at_any_threshold_are_those_of_scikit_learn(rows, threshold):
    y_true, y_prob = (np.array(column) for column in zip(*rows, strict=True))
    tn, fp, fn, tp = confusion_matrix(y_true, y_prob >= threshold, labels=[0, 1]).ravel()
    assert OperatingPoints(y_true, y_prob).count(threshold) == {"tp": tp, "fp": fp, "tn": tn, "fn": fn}


def test_ppv_at_a_prevalence_follows_bayes():
    y = np.array([1] * 10 + [0] * 10)
    p = np.array([0.9] * 8 + [0.1] * 2 + [0.9] * 1 + [0.1] * 9)  # sensitivity 0.8, specificity 0.9
    rates = {name: entry["value"] for name, entry in OperatingPoints(y, p).rates(0.5, 0.01).items()}
    assert rates["sensitivity"] == 0.8
    assert rates["specificity"] == 0.9
    assert rates["ppv"] == pytest.approx(0.008 / (0.008 + 0.099))
    assert rates["npv"] == pytest.approx(0.891 / (0.891 + 0.002))
    assert OperatingPoints(y, p).rates(1.0, 0.5)["ppv"]["value"] is None  # nothing is called fractured


def test_rates_at_another_threshold_have_the_intervals_of_the_report():
    rng = np.random.default_rng(0)
    y, group = rng.integers(0, 2, 200), rng.integers(0, 60, 200).astype(str)
    p = np.clip(rng.normal(0.3 + 0.4 * y, 0.2), 0, 1)
    for threshold in (0.2, 0.5, 1.0):
        found, scores = (
            OperatingPoints(y, p, group).rates(threshold, 0.5),
            compute_metrics(y, p, threshold, group),
        )
        for mine, theirs in (("sensitivity", "recall"), ("specificity", "specificity")):
            for key in ("value", "ci_low", "ci_high"):
                assert found[mine][key] == pytest.approx(scores[theirs][key])
    alone = OperatingPoints(np.ones(3), np.full(3, 0.5)).rates(0.5, 0.5)
    assert [alone[name]["value"] for name in ("specificity", "ppv", "npv")] == [None] * 3


def test_the_explorer_shows_rates_and_their_intervals_side_by_side():
    n = 10_000
    rng = np.random.default_rng(0)
    test = pd.DataFrame(
        {"y_true": rng.integers(0, 2, n), "y_prob": rng.random(n), "group": rng.integers(0, n // 2, n)}
    )
    explorer = curves._ThresholdExplorer(test.assign(group=test["group"].astype(str)), 0.5, "A")
    explorer.threshold.value = 0.0
    cells = re.findall(r"<td[^>]*class='(\w+)'>([^<]*)</td><td[^>]*>([^<]*)</td>", explorer.numbers.value)
    assert cells[0][:2] == ("sensitivity", "1.000")
    assert re.fullmatch(r"0\.99\d to 1\.000 \(95 %\)", cells[0][2])
    assert cells[1][:2] == ("specificity", "0.000")
    assert [name for name, _, _ in cells] == ["sensitivity", "specificity", "ppv", "npv"]
