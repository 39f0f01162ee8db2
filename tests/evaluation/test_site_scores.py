"""Who gains and who loses by training together: scores by site, paired differences, verdicts."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from xray_helpers.evaluation.site_scores import (
    ALL,
    FEDERATED,
    LOCAL,
    compare_sites,
    describe_gains,
    gains_table,
    judge_gain,
    score_sites,
    sites_table,
)


def predict(site, n, quality, rng):
    """Predictions of a site by two ways, each as good as its number of standard deviations."""
    y = np.arange(n) % 2
    common = {
        "site": site,
        "path": [f"{site}/{i:03d}" for i in range(n)],
        "group": [f"{site}/{i}" for i in range(n)],
    }
    tables = []
    for way, shift in quality.items():
        p = 1 / (1 + np.exp(-(rng.normal(size=n) + shift * (y - 0.5))))
        tables.append(
            pd.DataFrame({**common, "way": way, "y_true": y, "y_prob": p, "y_pred": (p > 0.5).astype(int)})
        )
    return pd.concat(tables).assign(threshold=0.5)


@pytest.fixture
def predictions():
    """One site gains much, one loses much, one is too small to tell."""
    rng = np.random.default_rng(4)
    better, worse = {LOCAL: 0.2, FEDERATED: 4.0}, {LOCAL: 4.0, FEDERATED: 0.2}
    drawn = [predict("a", 120, better, rng), predict("b", 120, worse, rng), predict("c", 6, better, rng)]
    return pd.concat(drawn, ignore_index=True)


def test_scores_are_those_of_each_site_and_of_all(predictions):
    scores = score_sites(predictions)
    assert scores["site"].drop_duplicates().tolist() == ["a", "b", "c", ALL]
    for site, way in (("a", LOCAL), ("b", FEDERATED), (ALL, FEDERATED)):
        part = predictions[(predictions["way"] == way) & ((predictions["site"] == site) | (site == ALL))]
        row = scores[(scores["site"] == site) & (scores["way"] == way)].iloc[0]
        assert row["auroc"] == pytest.approx(roc_auc_score(part["y_true"], part["y_prob"]))
        assert row["recall"] == pytest.approx(part.loc[part["y_true"] == 1, "y_pred"].mean())
        assert row["n"] == len(part)
    assert "no interval" in sites_table(scores)[4]["AUROC"]


def test_who_gains_who_loses_and_what_is_not_known(predictions):
    gains = compare_sites(predictions)
    states = gains[gains["score"] == "auroc"].set_index("site")["state"]
    assert states["a"] == "gains: shown"
    assert states["b"] == "loses: shown"
    assert states["c"] == "not known"
    scores = score_sites(predictions).set_index(["site", "way"])
    for row in gains.itertuples():
        expected = scores.loc[(row.site, FEDERATED), row.score] - scores.loc[(row.site, LOCAL), row.score]
        assert row.difference == pytest.approx(expected)
    assert (gains["p_holm"].dropna() >= gains["p"].dropna()).all()
    told = describe_gains(gains)
    assert "gains: shown for a" in told
    assert "loses: shown for b" in told
    assert len(gains_table(gains)) == 4


def test_a_site_of_one_class_or_without_a_difference_stops_nothing(predictions):
    one = predictions[(predictions["site"] == "c") & (predictions["y_true"] == 1)].assign(site="d", y_pred=1)
    gains = compare_sites(pd.concat([predictions, one]))
    rows = gains[gains["site"] == "d"].set_index("score")
    assert rows.loc["auroc", "reason"] == "one class only"
    assert rows.loc["recall", "reason"] == "both call every fractured image alike"
    assert set(rows["state"]) == {"not known"}


@pytest.mark.parametrize(
    ("low", "high", "state"),
    [
        (0.01, 0.2, "gains: shown"),
        (-0.2, -0.01, "loses: shown"),
        (-0.04, 0.04, "gain or loss of 0.05 or more: ruled out"),
        (-0.04, 0.06, "not known"),
        (np.nan, np.nan, "not known"),
    ],
)
def test_verdicts_follow_from_intervals(low, high, state):
    assert judge_gain({"ci_low": low, "ci_high": high}) == state
