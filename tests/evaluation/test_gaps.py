import numpy as np
import pandas as pd

from xray_helpers.evaluation.gaps import describe_gaps, gaps_table, measure_gaps


def study(seed, n=200, gap=0.0, per_group=2):
    """Predictions for two views; in the first, the classes are closer by `gap`."""
    rng = np.random.default_rng(seed)
    groups = np.arange(n) // per_group
    y = rng.integers(0, 2, n // per_group)[groups]
    view = np.where(np.arange(n) % 2 == 0, "AP", "LAT")  # each patient has both
    z = (
        (1.6 - gap * (view == "AP")) * y
        + 0.6 * rng.normal(size=n // per_group)[groups]
        + 0.8 * rng.normal(size=n)
    )
    paths = [f"{i}.png" for i in range(n)]
    test = pd.DataFrame({"path": paths, "y_true": y, "y_prob": 1 / (1 + np.exp(-z)), "group": groups})
    return test, pd.DataFrame({"path": paths, "view": view})


def test_a_gap_by_hand():
    test = pd.DataFrame(
        {
            "path": list("abcdef"),
            "y_true": [1, 1, 1, 1, 0, 0],
            "y_prob": [0.9, 0.1, 0.9, 0.9, 0.2, 0.8],
            "group": range(6),
        }
    )
    found = measure_gaps(test, pd.DataFrame({"path": list("abcdef"), "view": list("xxyyxy")}), ["view"], 0.5)
    gaps = found.set_index("score")["gap"]
    assert gaps["recall"] == -0.5
    assert gaps["specificity"] == 1.0
    assert set(found["value"]) == {"x"}  # with two values, one gap is enough
    assert found["ci_low"].isna().all()
    assert describe_gaps(found).startswith("There are too few groups to test any gap")


def test_gaps_are_claimed_in_few_studies_without_any_and_detected_where_they_exist():
    claimed = sum((measure_gaps(*study(seed), ["view"], 0.6)["p_holm"] < 0.05).any() for seed in range(200))
    assert claimed <= 19
    found = sum(
        (measure_gaps(*study(seed, n=800, gap=1.5), ["view"], 0.6)["p_holm"] < 0.05).any()
        for seed in range(10)
    )
    assert found >= 9


def test_the_interval_of_a_paired_gap_is_narrower():
    test, views = study(1, n=400)
    paired = measure_gaps(test, views, ["view"], 0.6).set_index("score").loc["recall"]
    alone = measure_gaps(test.assign(group=range(400)), views, ["view"], 0.6).set_index("score").loc["recall"]
    assert paired["gap"] == alone["gap"]
    assert paired["ci_high"] - paired["ci_low"] < alone["ci_high"] - alone["ci_low"]


def test_the_description_has_three_answers():
    found = measure_gaps(*study(2, n=800, gap=1.5), ["view"], 0.6)
    assert "shown are view = AP, AUROC -0." in describe_gaps(found)
    assert gaps_table(found)[0]["p, adjusted"] == "< 0.001"
    assert "none is shown; 3 are ruled out" in describe_gaps(found.assign(p_holm=0.5, ci_low=0, ci_high=0.01))
    assert "none is shown; 0 are ruled out within 0.05, 3 are not known" in describe_gaps(
        found.assign(p_holm=0.5)
    )
    assert "No column makes subgroups" in describe_gaps(found.iloc[:0])
