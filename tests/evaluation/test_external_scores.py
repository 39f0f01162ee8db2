import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit
from sklearn.metrics import roc_auc_score

from xray_helpers.evaluation import external
from xray_helpers.evaluation.elsewhere import test_elsewhere as score_elsewhere
from xray_helpers.evaluation.verdict import RULED_OUT, SHOWN, UNKNOWN

RULE = {"threshold": 0.5, "rule": "youden", "target_sensitivity": 0.95}


def draw(seed, n=300, *, signal=2.0, shift=0.0, prevalence=0.4, per_group=2):
    """Predictions whose log-odds are calibrated but for a shift; a signal of less is less ordered."""
    rng = np.random.default_rng(seed)
    groups = np.arange(n) // per_group
    y = (rng.random(groups.max() + 1) < prevalence)[groups].astype(int)
    z = signal * (y - 0.5) + 0.4 * rng.normal(size=groups.max() + 1)[groups] + rng.normal(size=n) + shift
    paths = [f"{i}.png" for i in range(n)]
    columns = {"path": paths, "group": groups.astype(str), "y_true": y, "y_prob": expit(z)}
    return pd.DataFrame(columns | {"excluded": False})


def test_a_difference_of_sets_is_that_of_their_scores():
    here, there = draw(1), draw(2, signal=1.0)
    gaps = external.compare_sets(here, there, 0.5).set_index("score")
    aurocs = [roc_auc_score(part["y_true"], part["y_prob"]) for part in (there, here)]
    assert gaps.loc["auroc", "gap"] == pytest.approx(aurocs[0] - aurocs[1])
    assert gaps.loc["auroc", "ci_high"] < 0
    called = [(part["y_prob"] >= 0.5)[part["y_true"] == 1].mean() for part in (there, here)]
    assert gaps.loc["recall", "gap"] == pytest.approx(called[0] - called[1])


def test_the_same_group_name_in_both_sets_is_not_one_group():
    here = draw(1, 80)
    one = external.compare_sets(here, draw(2, 80), 0.5)
    renamed = external.compare_sets(here, draw(2, 80).assign(group=lambda t: "x" + t["group"]), 0.5)
    pd.testing.assert_frame_equal(one, renamed)


def test_intervals_of_the_difference_cover_the_truth():
    """Of no difference, in 200 pairs of sets; the standard error is 0.015."""
    covered = []
    for seed in range(200):
        gap = external.compare_sets(draw(2 * seed, 160), draw(2 * seed + 1, 160), 0.5).iloc[0]
        covered.append(gap["ci_low"] <= 0 <= gap["ci_high"])
    assert 0.9 <= np.mean(covered) <= 1


def test_a_shifted_threshold_is_told_from_a_worse_order():
    here = draw(1, 600)
    moved = external.split_loss(here, draw(2, 600, shift=1.5), RULE).set_index("what")
    worse = external.split_loss(here, draw(2, 600, signal=1.0), RULE).set_index("what")
    by_threshold, by_order = "lost by the threshold", "lost by the order"
    assert moved.loc[by_threshold, "balanced_accuracy_low"] > 0.05
    assert moved.loc[by_order, "balanced_accuracy_low"] < 0 < moved.loc[by_order, "balanced_accuracy_high"]
    assert worse.loc[by_order, "balanced_accuracy_low"] > 0.05
    assert abs(worse.loc[by_threshold, "balanced_accuracy"]) < 0.03
    for loss in (moved, worse):
        parts = loss.loc[[by_threshold, by_order], "balanced_accuracy"].sum()
        assert parts == pytest.approx(loss.loc["lost", "balanced_accuracy"])
    assert "the threshold loses" in external.describe_loss(moved.reset_index())
    assert "not shown to be above 0 (no threshold can)" in external.describe_loss(moved.reset_index())


def test_balanced_accuracy_is_split_by_hand():
    """8 groups of one image a class: 6 of 8 found, 8 of 8 right; there 8 of 8 are called."""
    y = np.repeat([1, 0], 8)
    paths = [f"{i}" for i in range(16)]
    p = np.r_[np.full(6, 0.9), 0.1, 0.1, np.full(8, 0.2)]
    here = pd.DataFrame({"path": paths, "group": paths, "y_true": y, "y_prob": p})
    there = here.assign(y_prob=np.r_[np.full(8, 0.9), np.full(8, 0.8)])
    loss = external.split_loss(here, there, RULE).set_index("what")["balanced_accuracy"]
    assert loss[external.HERE] == pytest.approx(0.875)
    assert loss[external.THERE] == pytest.approx(0.5)
    assert loss[external.OWN] == pytest.approx(1)
    assert loss[["lost", "lost by the threshold", "lost by the order"]].tolist() == pytest.approx(
        [0.375, 0.5, -0.125]
    )


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from(["youden", "sensitivity", "fixed"]))
def test_no_image_is_judged_at_a_threshold_that_its_group_chose(seed, rule):
    table = draw(seed, 60)
    chosen = RULE | {"rule": rule}
    before = external.choose_own_thresholds(table, chosen, seed)
    group = table["group"].iloc[seed % 60]
    mine = (table["group"] == group).to_numpy()
    changed = table.assign(y_prob=np.where(mine, 1 - table["y_prob"], table["y_prob"]))
    after = external.choose_own_thresholds(changed, chosen, seed)
    assert (before[mine] == after[mine]).all()


def test_shared_images_are_left_out_unless_asked_for():
    table = draw(3, 100)
    table.loc[:19, "excluded"] = True
    table.loc[:19, "y_prob"] = table.loc[:19, "y_true"].clip(0.01, 0.99)  # known by heart
    scores = external.score_sets(table, 0.5)
    assert scores["images"].tolist() == [external.LEFT_OUT, external.INCLUDED, external.ALONE]
    assert scores["n"].tolist() == [80, 100, 20]
    assert scores["auroc"].is_monotonic_increasing
    kept = external.score_sets(table, 0.5, keep_shared=True)
    assert kept["images"].iloc[0] == external.INCLUDED


def test_all_models_stand_beside_their_own_test_part_and_without_labels_nothing_does():
    class Found:
        predictions = draw(2)

    options = {"rules": {"A": RULE, "B": RULE}}
    internal = {"A": draw(1), "B": draw(1)}
    result = score_elsewhere({"A": Found, "B": Found}, internal, **options)
    assert [row["model"] for row in result.table()] == ["A", "A", "B", "B"]
    assert list(result.rows("A")) == [external.HERE, "there"]
    assert len(result.difference_table()) == 2
    told = external.describe_difference("A", result.gaps("A"), result.of("A"))
    assert told.startswith("A has AUROC 0.9")
    blind = score_elsewhere({"A": Found}, internal, **options, labelled=False)
    assert (len(blind.scores), len(blind.differences), blind.judged) == (0, 0, {})
    assert blind.of("A").empty


@pytest.mark.parametrize(
    ("low", "high", "state"),
    [(-0.2, -0.01, SHOWN), (-0.04, 0.1, RULED_OUT), (-0.2, 0.1, UNKNOWN), (None, None, UNKNOWN)],
)
def test_a_fall_has_three_answers(low, high, state):
    assert external.judge_difference({"ci_low": low, "ci_high": high}) == state


def test_predictive_values_follow_the_prevalence_by_bayes():
    scores = external.score_sets(draw(4, 400, prevalence=0.3), 0.5)
    rows = external.transport_predictive_values(scores, 0.5)
    sensitivity, specificity = scores["recall"].iloc[0], scores["specificity"].iloc[0]
    expected = sensitivity / (sensitivity + 1 - specificity)
    assert rows[1]["PPV"].startswith(f"{expected:.2f} (")
    assert rows[0]["PPV"].startswith(f"{scores['precision'].iloc[0]:.2f} (")
