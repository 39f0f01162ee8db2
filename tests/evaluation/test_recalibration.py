import numpy as np
import pandas as pd
import pytest
from scipy.special import expit

from xray_helpers.evaluation import recalibration
from xray_helpers.evaluation.log_odds import log_odds

RULE = {"threshold": 0.5, "rule": "youden", "target_sensitivity": 0.95}


def draw(seed, n=400, *, shift=0.0, slope=1.0):
    """Predictions that are right once `shift` is taken from their log-odds and these divided by `slope`."""
    rng = np.random.default_rng(seed)
    z = rng.normal(-0.5, 2, n // 2)[np.arange(n) // 2] + 0.3 * rng.normal(size=n)
    y = (rng.random(n) < expit(z)).astype(int)
    group = (np.arange(n) // 2).astype(str)
    return pd.DataFrame({"group": group, "y_true": y, "y_prob": expit(slope * z + shift)})


def test_what_is_wrong_is_what_mends_it():
    table, fitted = recalibration.compare_recalibrations(draw(1, shift=1.5), 1.0)
    gains = table.set_index("way")
    assert gains.loc["its own intercept", "gain_low"] > 0.05
    assert gains.loc["its own intercept", "intercept"] == pytest.approx(0, abs=0.15)
    assert gains.loc["its own temperature", "gain"] < 0.5 * gains.loc["its own intercept", "gain"]
    assert fitted["as it is"].equals(draw(1, shift=1.5)["y_prob"].rename("as it is"))
    steep, _ = recalibration.compare_recalibrations(draw(1, slope=2.5), 1.0)
    steep = steep.set_index("way")
    assert steep.loc["its own temperature", "gain_low"] > 0.02
    assert steep.loc["its own intercept and slope", "slope"] == pytest.approx(1, abs=0.15)


def test_the_gain_is_the_difference_of_mean_log_losses():
    predictions = draw(2, shift=1.0)
    table, fitted = recalibration.compare_recalibrations(predictions, 2.0)
    y = predictions["y_true"].to_numpy()
    for row in table.to_dict("records"):
        p = fitted[row["way"]].to_numpy()
        by_hand = -np.mean(np.where(y == 1, np.log(p), np.log(1 - p)))
        assert row["log_loss"] == pytest.approx(by_hand)
        assert row["gain"] == pytest.approx(table["log_loss"].iloc[0] - by_hand)
    halved = expit(log_odds(predictions["y_prob"]) / 2)
    assert fitted["the study's temperature"].to_numpy() == pytest.approx(halved)


def test_nothing_is_judged_on_what_fitted_it():
    """Labels of one group are turned: its own recalibrated probabilities stay."""
    predictions = draw(3, 120, shift=1.0)
    mine = (predictions["group"] == "7").to_numpy()
    folds = dict(enumerate(recalibration.split_groups(predictions, 5)))
    held = next(held for _, held in folds.values() if mine[held].any())
    assert mine[held].sum() == mine.sum()
    _, before = recalibration.compare_recalibrations(predictions, 1.0, 5)
    y = predictions["y_true"].to_numpy()
    rest = np.setdiff1d(np.arange(len(y)), held)
    way = "its own intercept and slope"
    p = predictions["y_prob"].to_numpy()
    by_hand = recalibration.WAYS[way](y[rest], p[rest])(p[held])
    assert before[way].to_numpy()[held] == pytest.approx(by_hand)


def test_probabilities_that_are_right_are_not_shown_to_gain():
    table, _ = recalibration.compare_recalibrations(draw(4, 800), 1.0)
    own = table[table["way"].isin(recalibration.WAYS)]
    assert not (own["gain_low"] > 0).any()
    assert "shown not to lower" in recalibration.describe_recalibration(table)


def test_more_local_images_gain_more_and_the_curve_says_from_when():
    predictions = draw(5, 700, shift=2.0)
    curve = recalibration.draw_local_curve(predictions, RULE)
    assert sorted(set(curve["images"])) == [20, 40, 80, 160, 320]
    line = curve[curve["way"] == "its own intercept and slope"].set_index("images")
    assert line.loc[320, "gain"] > line.loc[20, "gain"]
    assert (line["gain_low"] <= line["gain"]).all()
    assert line.loc[320, "helped"] == 1
    rates = curve[curve["sensitivity"].notna()].set_index("images")
    assert rates.loc[320, "better"] >= 0.95
    told = recalibration.describe_curve(curve, RULE)
    assert "pays on average from 20 local images on" in told
    assert "is better than the transferred one in 19 of 20 draws from" in told
    again = recalibration.draw_local_curve(predictions, RULE)
    pd.testing.assert_frame_equal(curve, again)


def test_for_a_target_sensitivity_the_target_decides():
    rule = RULE | {"rule": "sensitivity", "target_sensitivity": 0.8, "threshold": 0.9}
    curve = recalibration.draw_local_curve(draw(6, 700), rule)
    rates = curve[curve["sensitivity"].notna()].set_index("images")
    assert rates.loc[320, "reached"] >= 0.95
    assert "comes within 0.05 of the sensitivity of 0.8" in recalibration.describe_curve(curve, rule)


def test_few_images_are_told_to_be_few():
    curve = recalibration.draw_local_curve(draw(7, 20), RULE)
    assert curve.empty
    assert "too few" in recalibration.describe_curve(curve, RULE)
    empty, nothing = recalibration.recalibrate_elsewhere(None, RULE, 1.0)
    assert (len(empty), len(nothing)) == (0, 0)
    one_class = draw(8, 40).assign(y_true=0)
    table, _ = recalibration.compare_recalibrations(one_class, 1.0)
    assert "too few groups" in recalibration.describe_recalibration(table)


@pytest.mark.parametrize(
    ("holds", "first"),
    [([True] * 3, 20), ([False, True, True], 40), ([True, True, False], None), ([True, False, True], 80)],
)
def test_it_pays_from_where_it_pays_ever_after(holds, first):
    assert recalibration._first_lasting(pd.Series([20, 40, 80]), pd.Series(holds)) == first
