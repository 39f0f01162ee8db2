import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, logit
from scipy.stats import norm
from sklearn.metrics import brier_score_loss, log_loss

from xray_helpers.evaluation.calibration import (
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


def draw(n, temperature=1.0, seed=0):
    """Labels drawn from probabilities, which are then made too sharp by a temperature."""
    rng = np.random.default_rng(seed)
    z = rng.normal(0, 1.5, n)
    y = (rng.random(n) < expit(z)).astype(int)
    return pd.DataFrame({"y_true": y, "y_prob": expit(z * temperature), "group": np.arange(n) // 2})


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_the_temperature_of_simulated_labels_is_estimated(temperature):
    table = draw(20_000, temperature)
    assert fit_temperature(table["y_true"], table["y_prob"]) == pytest.approx(temperature, rel=0.06)


def test_scaling_by_hand():
    assert scale_probabilities([0.8], 2.0)[0] == pytest.approx(1 / (1 + np.exp(-logit(0.8) / 2)))
    assert scale_probabilities([0.0, 0.5, 1.0], 1.0) == pytest.approx([0, 0.5, 1], abs=1e-6)
    assert fit_temperature([1, 1], [0.3, 0.9]) == 1.0


def test_scaling_improves_an_overconfident_model():
    scores, tables = evaluate_calibration(draw(4000, 3.0, seed=1), draw(4000, 3.0, seed=2))
    assert scores["before"]["calibration_error"] > 0.08
    assert scores["after"]["calibration_error"] < 0.04
    assert scores["after"]["log_loss"] < scores["before"]["log_loss"]
    assert set(tables["scaling"]) == {"before", "after"}
    test = draw(4000, 3.0, seed=2)
    assert scores["before"]["brier"] == pytest.approx(brier_score_loss(test["y_true"], test["y_prob"]))
    assert scores["before"]["log_loss"] == pytest.approx(log_loss(test["y_true"], test["y_prob"]), rel=1e-4)
    text = describe_calibration(scores, compute_decision_curve(test))
    assert "the model is overconfident (" in text
    assert "is better than treating all or none at" in text


def test_reliability_by_hand():
    table = pd.DataFrame(
        {"y_true": [0, 0, 1, 1, 1, 1], "y_prob": [0.1, 0.2, 0.3, 0.7, 0.8, 0.9], "group": range(6)}
    )
    found = reliability_table(table, bins=2)
    assert found["n"].tolist() == [3, 3]
    assert found["mean_probability"].tolist() == pytest.approx([0.2, 0.8])
    assert found["fractured"].tolist() == pytest.approx([1 / 3, 1])
    assert evaluate_calibration_error(table, bins=2)["value"] == pytest.approx((0.4 / 3 + 0.2) / 2)
    assert np.isnan(found["ci_low"][0])  # three groups are too few for an interval
    assert found["ci_low"][1] <= found["ci_high"][1] == 1  # but not for a bound where all are fractured


def test_decision_curve_by_hand():
    table = pd.DataFrame({"y_true": [1, 1, 0, 0], "y_prob": [0.9, 0.4, 0.6, 0.1]})
    curve = compute_decision_curve(table, points=3).set_index("threshold")
    assert curve.loc[0.5, "model"] == pytest.approx(1 / 4 - 1 / 4)
    assert curve.loc[0.25, "model"] == pytest.approx(2 / 4 - 1 / 4 / 3)
    assert curve.loc[0.75, "treat_all"] == pytest.approx(0.5 - 0.5 * 3)
    assert (curve["treat_none"] == 0).all()


def test_an_uninformative_model_has_no_net_benefit():
    table = pd.DataFrame({"y_true": [0, 1] * 10, "y_prob": 0.5, "group": range(20)})
    scores, tables = evaluate_calibration(table, table)
    assert tables["scaling"].tolist() == ["before"]  # no temperature fits, so that there is nothing after it
    assert [row["scaling"] for row in calibration_table(scores)] == ["before"]
    assert scores["before"]["calibration_error"] == pytest.approx(0)
    assert "At no threshold" in describe_calibration(scores, compute_decision_curve(table))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 10), st.integers(0, 4)), min_size=1, max_size=50))
def test_bins_contain_all_images_of_any_predictions(rows):
    table = pd.DataFrame(rows, columns=["y_true", "y_prob", "group"]).assign(
        y_prob=lambda t: t["y_prob"] / 10
    )
    found = reliability_table(table)
    assert found["n"].sum() == len(table)
    assert np.average(found["fractured"], weights=found["n"]) == pytest.approx(table["y_true"].mean())
    assert 0 <= evaluate_calibration_error(table)["value"] <= 1
    assert np.isfinite(fit_temperature(table["y_true"], table["y_prob"]))


def study(seed, kind, groups=60, images=4):
    """Predictions with groups: noise, or calibrated probabilities from which the labels are drawn."""
    rng = np.random.default_rng([3, seed])
    group = np.repeat(np.arange(groups), images)

    def shared():
        return rng.normal(size=groups)[group] * 0.9 + rng.normal(size=len(group)) * np.sqrt(0.19)

    p = expit(1.5 * shared())
    y = (rng.random(groups) < 0.5)[group] if kind == "noise" else norm.cdf(shared()) < p
    return pd.DataFrame({"y_true": y.astype(int), "y_prob": p, "group": group})


@pytest.mark.slow
@pytest.mark.parametrize(("groups", "images"), [(60, 4), (40, 1)])
def test_verdicts_on_perfect_and_on_noise_scores_are_wrong_in_at_most_five_percent(groups, images):
    """In 200 studies, 5 % are at most 19 (binomial, 99.9 %)."""
    wrong, worth, excess = 0, 0, 0
    for seed in range(200):
        perfect, noise = (study(seed, kind, groups, images) for kind in ("perfect", "noise"))
        scores, _ = evaluate_calibration(study(seed + 1000, "perfect", groups, images), perfect)
        text = describe_calibration(scores, compute_decision_curve(perfect, points=9))
        wrong += "the model is overconfident (" in text or "the model is underconfident" in text
        excess += scores["before"]["calibration_error_low"] > 0
        scores, _ = evaluate_calibration(noise, noise)
        text = describe_calibration(scores, compute_decision_curve(noise, points=9))
        worth += "Acting on the model is better" in text
    assert max(wrong, worth, excess) <= 19, (wrong, worth, excess)


def test_intervals_of_slope_and_temperature_contain_the_truth():
    table = draw(4000, 2.0)
    lines, temperature = fit_slope(table), fit_temperature_interval(table)
    for entry, truth in ((lines["slope"], 0.5), (lines["intercept"], 0.0), (temperature, 2.0)):
        assert entry["ci_low"] < truth < entry["ci_high"]
        assert entry["ci_high"] - entry["ci_low"] < 0.4
    scores, _ = evaluate_calibration(table, table)
    text = describe_calibration(scores, compute_decision_curve(table))
    assert "the model is overconfident (calibration slope 0.5" in text
    right = draw(20_000)
    scores, _ = evaluate_calibration(right, right)
    text = describe_calibration(scores, compute_decision_curve(right))
    assert "the model is neither overconfident nor underconfident" in text


def test_few_groups_and_one_class_have_no_verdict():
    separated = pd.DataFrame({"y_true": [0, 1] * 20, "y_prob": [0.2, 0.8] * 20, "group": range(40)})
    few = draw(100).assign(group=np.arange(100) % 6)
    one = draw(100).assign(y_true=1)
    scores, _ = evaluate_calibration(separated, separated)
    assert np.isfinite(scores["before"]["slope"])  # with Firth's score the fit converges
    for table in (few, one):
        scores, _ = evaluate_calibration(table, table)
        text = describe_calibration(scores, compute_decision_curve(table))
        assert "whether the model is overconfident is not known" in text
    assert "is not known: too few groups" in text


def test_a_good_model_is_worth_acting_on_at_thresholds_fixed_in_advance():
    table = draw(3000, 1.0)
    curve = compute_decision_curve(table)
    assert (curve["gain_low"] <= curve["gain"]).all()
    assert (curve["gain"] <= curve["gain_high"]).all()
    assert curve["claimed_low"].notna().sum() == 9
    better = curve["model"] - curve[["treat_all", "treat_none"]].max(axis=1)
    assert curve["gain"].to_numpy() == pytest.approx(better.to_numpy())
    scores, _ = evaluate_calibration(table, table)
    assert "at the threshold probabilities 0.2, 0.3" in describe_calibration(scores, curve)


def test_the_table_shows_slope_intercept_and_error_with_their_intervals():
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


def test_the_error_of_perfect_probabilities_in_small_bins_is_as_expected_by_chance():
    rng = np.random.default_rng(1)
    found = []
    for _ in range(400):
        p = rng.uniform(0.05, 0.95, 12)
        part = pd.DataFrame({"y_true": (rng.random(12) < p).astype(int), "y_prob": p, "group": np.arange(12)})
        found.append(evaluate_calibration_error(part))
    value, by_chance = (np.mean([error[key] for error in found]) for key in ("value", "by_chance"))
    assert by_chance == pytest.approx(value, rel=0.15)
