import numpy as np
import pandas as pd
import pytest

from xray_helpers.evaluation.metrics import compute_metrics
from xray_helpers.evaluation.prevalence import (
    decisions_table,
    evaluate_decided,
    find_sensitivities,
    tabulate_prevalences,
)


def scores_of(seed, n=80, skill=1.2, per_group=1):
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 2, n // per_group).repeat(per_group)
    return pd.DataFrame(
        {
            "path": [f"{i}.png" for i in range(len(y))],
            "y_true": y,
            "group": np.arange(len(y)) // per_group,
            "y_prob": 1 / (1 + np.exp(-(skill * y + rng.normal(size=len(y))))),
        }
    )


def test_predictive_values_follow_bayes():
    test = scores_of(0)
    scores = compute_metrics(test["y_true"], test["y_prob"], 0.6, test["group"])
    table = tabulate_prevalences(scores, [0.1, 0.5])
    hit, false = scores["recall"]["value"], 1 - scores["specificity"]["value"]
    assert table["ppv"].tolist() == pytest.approx(
        [0.1 * hit / (0.1 * hit + 0.9 * false), hit / (hit + false)]
    )
    assert (table["ppv_low"] < table["ppv"]).all()
    assert (table["ppv"] < table["ppv_high"]).all()


def test_images_on_which_the_model_abstains_are_not_evaluated():
    test = pd.DataFrame(
        {"y_true": [0, 0, 1, 1] * 10, "y_prob": [0.1, 0.55, 0.45, 0.9] * 10, "group": range(40)}
    )
    decided = evaluate_decided(test, 0.5, (0.4, 0.6))
    assert decided["n"] == 20
    assert decided["abstained"]["value"] == 0.5
    assert decided["accuracy"]["value"] == 1.0
    assert decided["accuracy"]["ci_low"] < 0.9  # a bound, not certainty
    assert evaluate_decided(test, 0.5, (0.5, 0.5))["accuracy"]["value"] == 0.5
    nothing = evaluate_decided(test, 0.5, (0.0, 1.0))
    assert (nothing["n"], nothing["accuracy"]["value"]) == (0, None)


def test_sensitivity_at_a_specificity_by_hand():
    y = [0] * 10 + [1] * 4
    p = [0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.5, 0.7, 0.3, 0.45, 0.6, 0.9]
    test = pd.DataFrame({"y_true": y, "y_prob": p, "group": range(14)})
    found = find_sensitivities(test, (0.8, 0.9, 1.0))
    assert [entry["value"] for entry in found] == [0.75, 0.5, 0.25]
    assert found[0]["ci_low"] is None  # too few sources


def test_sensitivity_at_a_specificity_covers():
    held = 0
    for seed in range(120):
        entry = find_sensitivities(scores_of(seed, n=240, per_group=2), (0.9,), seed)[0]
        held += entry["ci_low"] <= 0.4678 <= entry["ci_high"]  # 1 - Phi(1.2816 - 1.2)
    assert held >= 106


def test_the_table_answers_all_questions():
    test = scores_of(3)
    scores = compute_metrics(test["y_true"], test["y_prob"], 0.6, test["group"])
    rows = decisions_table(
        tabulate_prevalences(scores), evaluate_decided(test, 0.6, (0.5, 0.7)), find_sensitivities(test)
    )
    assert len(rows) == 13
    assert all(row["answer"] for row in rows)
