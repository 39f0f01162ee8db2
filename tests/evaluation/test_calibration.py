import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, logit
from scipy.stats import norm
from sklearn.metrics import brier_score_loss, log_loss

from xray_helpers.evaluation.calibration import (
    calibration_error,
    calibration_table,
    describe_calibration,
    evaluate_calibration,
    evaluate_calibration_error,
    fit_slope,
    fit_temperature,
    fit_temperature_interval,
    reliability_table,
    scale_probabilities,
)
from xray_helpers.evaluation.decision_curve import compute_decision_curve


def drawn(n, temperature=1.0, seed=0):
    """Labels drawn from probabilities, which are then made too sharp by a temperature."""
    rng = np.random.default_rng(seed)
    z = rng.normal(0, 1.5, n)
    y = (rng.random(n) < expit(z)).astype(int)
    return pd.DataFrame({"y_true": y, "y_prob": expit(z * temperature), "group": np.arange(n) // 2})


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_temperature_is_found_again(temperature):
    table = drawn(20_000, temperature)
    assert fit_temperature(table["y_true"], table["y_prob"]) == pytest.approx(temperature, rel=0.06)


def test_scaling_by_hand():
    assert scale_probabilities([0.8], 2.0)[0] == pytest.approx(1 / (1 + np.exp(-logit(0.8) / 2)))
    assert scale_probabilities([0.0, 0.5, 1.0], 1.0) == pytest.approx([0, 0.5, 1], abs=1e-6)
    assert fit_temperature([1, 1], [0.3, 0.9]) == 1.0


def test_too_sure_models_are_mended():
    scores, tables = evaluate_calibration(drawn(4000, 3.0, seed=1), drawn(4000, 3.0, seed=2))
    assert scores["before"]["calibration_error"] > 0.08
    assert scores["after"]["calibration_error"] < 0.04
    assert scores["after"]["log_loss"] < scores["before"]["log_loss"]
    assert set(tables["scaling"]) == {"before", "after"}
    test = drawn(4000, 3.0, seed=2)
    assert scores["before"]["brier"] == pytest.approx(brier_score_loss(test["y_true"], test["y_prob"]))
    assert scores["before"]["log_loss"] == pytest.approx(log_loss(test["y_true"], test["y_prob"]), rel=1e-4)
    text = describe_calibration(scores, compute_decision_curve(test))
    assert "too sure of itself" in text
    assert "worth more than treating all" in text


def test_reliability_by_hand():
    table = pd.DataFrame(
        {"y_true": [0, 0, 1, 1, 1, 1], "y_prob": [0.1, 0.2, 0.3, 0.7, 0.8, 0.9], "group": range(6)}
    )
    found = reliability_table(table, bins=2)
    assert found["n"].tolist() == [3, 3]
    assert found["mean_probability"].tolist() == pytest.approx([0.2, 0.8])
    assert found["fractured"].tolist() == pytest.approx([1 / 3, 1])
    assert calibration_error(found) == pytest.approx((0.4 / 3 + 0.2) / 2)
    assert np.isnan(found["ci_low"][0])  # three groups are too few for an interval
    assert found["ci_low"][1] <= found["ci_high"][1] == 1  # but not for a bound where all are fractured


def test_decision_curve_by_hand():
    table = pd.DataFrame({"y_true": [1, 1, 0, 0], "y_prob": [0.9, 0.4, 0.6, 0.1]})
    curve = compute_decision_curve(table, points=3).set_index("threshold")
    assert curve.loc[0.5, "model"] == pytest.approx(1 / 4 - 1 / 4)
    assert curve.loc[0.25, "model"] == pytest.approx(2 / 4 - 1 / 4 / 3)
    assert curve.loc[0.75, "treat_all"] == pytest.approx(0.5 - 0.5 * 3)
    assert (curve["treat_none"] == 0).all()


def test_a_model_that_knows_nothing_is_worth_nothing():
    table = pd.DataFrame({"y_true": [0, 1] * 10, "y_prob": 0.5, "group": range(20)})
    scores, tables = evaluate_calibration(table, table)
    assert len(tables) == 2
    assert scores["before"]["calibration_error"] == pytest.approx(0)
    assert "At no threshold" in describe_calibration(scores, compute_decision_curve(table))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 10), st.integers(0, 4)), min_size=1, max_size=50))
def test_any_predictions_give_bins_that_hold_all_images(rows):
    table = pd.DataFrame(rows, columns=["y_true", "y_prob", "group"]).assign(
        y_prob=lambda t: t["y_prob"] / 10
    )
    found = reliability_table(table)
    assert found["n"].sum() == len(table)
    assert np.average(found["fractured"], weights=found["n"]) == pytest.approx(table["y_true"].mean())
    assert 0 <= calibration_error(found) <= 1
    assert np.isfinite(fit_temperature(table["y_true"], table["y_prob"]))


def study(seed, kind, groups=60, images=4):
    """A study with groups: scores that are noise, or from which the labels are drawn, so that they are
    calibrated.
    """
    rng = np.random.default_rng([3, seed])
    group = np.repeat(np.arange(groups), images)

    def shared():
        return rng.normal(size=groups)[group] * 0.9 + rng.normal(size=len(group)) * np.sqrt(0.19)

    p = expit(1.5 * shared())
    y = (rng.random(groups) < 0.5)[group] if kind == "noise" else norm.cdf(shared()) < p
    return pd.DataFrame({"y_true": y.astype(int), "y_prob": p, "group": group})


@pytest.mark.parametrize(("groups", "images"), [(60, 4), (40, 1)])
def test_verdicts_on_perfect_and_on_noise_scores_are_false_in_at_most_five_percent(groups, images):
    """200 studies each; 19 are what chance leaves of 5 % (binomial, 99.9 %)."""
    wrong, worth, excess = 0, 0, 0
    for seed in range(200):
        perfect, noise = (study(seed, kind, groups, images) for kind in ("perfect", "noise"))
        scores, _ = evaluate_calibration(study(seed + 1000, "perfect", groups, images), perfect)
        text = describe_calibration(scores, compute_decision_curve(perfect, points=9))
        wrong += "is too sure of itself (" in text or "is less sure than it could be" in text
        excess += scores["before"]["calibration_error_low"] > 0
        scores, _ = evaluate_calibration(noise, noise)
        worth += "acting on the model is worth more" in describe_calibration(
            scores, compute_decision_curve(noise, points=9)
        )
    assert max(wrong, worth, excess) <= 19, (wrong, worth, excess)


def test_slope_and_temperature_are_found_with_their_intervals():
    table = drawn(4000, 2.0)
    lines, temperature = fit_slope(table), fit_temperature_interval(table)
    for entry, truth in ((lines["slope"], 0.5), (lines["intercept"], 0.0), (temperature, 2.0)):
        assert entry["ci_low"] < truth < entry["ci_high"]
        assert entry["ci_high"] - entry["ci_low"] < 0.4
    scores, _ = evaluate_calibration(table, table)
    assert "is too sure of itself (calibration slope 0.5" in describe_calibration(
        scores, compute_decision_curve(table)
    )
    right = drawn(20_000)
    scores, _ = evaluate_calibration(right, right)
    assert "is as sure as it should be" in describe_calibration(scores, compute_decision_curve(right))


def test_few_groups_and_one_class_have_no_verdict():
    parted = pd.DataFrame({"y_true": [0, 1] * 20, "y_prob": [0.2, 0.8] * 20, "group": range(40)})
    few = drawn(100).assign(group=np.arange(100) % 6)
    one = drawn(100).assign(y_true=1)
    evaluate_calibration(parted, parted)  # Firth's score has an end there
    for table in (few, one):
        scores, _ = evaluate_calibration(table, table)
        text = describe_calibration(scores, compute_decision_curve(table))
        assert "whether the model is too sure of itself is not known" in text
    assert "is not known: too few groups" in text


def test_a_good_model_is_worth_acting_on_at_thresholds_fixed_in_advance():
    table = drawn(3000, 1.0)
    curve = compute_decision_curve(table)
    assert (curve["gain_low"] <= curve["gain"]).all()
    assert (curve["gain"] <= curve["gain_high"]).all()
    assert curve["claimed_low"].notna().sum() == 9
    better = curve["model"] - curve[["treat_all", "treat_none"]].max(axis=1)
    assert curve["gain"].to_numpy() == pytest.approx(better.to_numpy())
    scores, _ = evaluate_calibration(table, table)
    assert "fixed in advance, at 0.2, 0.3" in describe_calibration(scores, curve)


def test_the_table_tells_slope_intercept_and_error_with_their_intervals():
    rng = np.random.default_rng(0)
    y = np.arange(120) % 2
    p = 1 / (1 + np.exp(-(1.2 * (2 * y - 1) + rng.normal(0, 1.2, 120))))
    part = pd.DataFrame({"y_true": y, "y_prob": p, "group": np.arange(120)})
    scores, _ = evaluate_calibration(part, part)
    before, after = calibration_table(scores)
    assert before["scaling"] == "before"
    assert before["slope (1: perfect)"].startswith(f"{scores['before']['slope']:.2f} (")
    assert after["calibration error"].startswith(f"{scores['after']['calibration_error']:.2f} (")
    few = part.assign(group=0)
    assert "no interval" in calibration_table(evaluate_calibration(few, few)[0])[0]["calibration error"]


def test_the_error_of_perfect_probabilities_is_that_of_chance_in_bins_of_few_images():
    rng = np.random.default_rng(1)
    found = []
    for _ in range(400):
        p = rng.uniform(0.05, 0.95, 12)
        part = pd.DataFrame({"y_true": (rng.random(12) < p).astype(int), "y_prob": p, "group": np.arange(12)})
        found.append(evaluate_calibration_error(part))
    value, by_chance = (np.mean([error[key] for error in found]) for key in ("value", "by_chance"))
    assert by_chance == pytest.approx(value, rel=0.15)
