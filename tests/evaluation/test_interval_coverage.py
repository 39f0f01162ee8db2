"""A short form of benchmarks/interval_coverage.py: 200 studies per setting, with a tolerance for chance."""

import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

from interval_coverage import SETTINGS, coverage, measure_speed, simulate, type_one_error

STUDIES = 200
EQUAL, NEAR_ONE = "24 equal groups of 4", "24 equal groups of 4, AUROC .97"
COPIES, GIANT = "200 groups with many copies", "200 groups, one of 190 images"


@pytest.fixture(scope="module")
def covered():
    table = coverage(STUDIES, [EQUAL, NEAR_ONE, COPIES, GIANT], seed=1)
    return table.set_index(["setting", "metric"])


@pytest.mark.slow
@pytest.mark.parametrize("setting", [EQUAL, NEAR_ONE, COPIES])
@pytest.mark.parametrize("metric", ["auroc", "recall", "specificity", "accuracy"])
def test_intervals_contain_the_truth_in_at_least_ninety_three_percent_of_studies(covered, setting, metric):
    row = covered.loc[(setting, metric)]
    assert row["with"] > 0.8 * STUDIES
    assert row["coverage"] * row["with"] >= stats.binom.ppf(0.001, int(row["with"]), 0.93)
    assert row["width"] < 0.45  # and not by saying nothing


def test_intervals_are_not_wider_than_needed(covered):
    """With many equal groups coverage is at most 97 %, up to chance."""
    row = covered.loc[(COPIES, "auroc")]
    assert row["coverage"] * row["with"] <= stats.binom.ppf(0.999, int(row["with"]), 0.97)


def test_where_one_source_is_half_of_the_images_only_the_other_class_has_intervals(covered):
    assert covered.loc[(GIANT, "auroc"), "with"] == 0
    for metric in ("recall", "specificity"):  # that of the class without the giant
        row = covered.loc[(GIANT, metric)]
        assert 0.3 * STUDIES < row["with"] < 0.7 * STUDIES
        assert row["coverage"] * row["with"] >= stats.binom.ppf(0.001, int(row["with"]), 0.93)


def test_intervals_that_ignore_groups_cover_too_seldom():
    """With each image as its own group, copies make intervals far too narrow."""
    from xray_helpers.evaluation.metrics import compute_metrics

    held = 0
    for study in range(100):
        y, (p,), _, threshold = simulate(SETTINGS[COPIES], np.random.default_rng([2, study]))
        entry = compute_metrics(y, p, threshold)["auroc"]
        held += entry["ci_low"] <= 0.85 <= entry["ci_high"]
    assert held < 60


@pytest.mark.slow
def test_equal_models_with_many_copies_differ_in_about_five_percent_of_studies():
    row = type_one_error(STUDIES, [COPIES], seed=2).iloc[0]
    assert row["tested"] > 0.9 * STUDIES
    assert row["p < .05"] == row["interval excludes 0"]
    assert (
        stats.binom.ppf(0.001, STUDIES, 0.04)
        <= row["p < .05"] * row["tested"]
        <= stats.binom.ppf(0.999, STUDIES, 0.06)
    )
    assert row["DeLong"] > 0.5


@pytest.mark.slow
def test_a_hundred_thousand_images_take_seconds_and_little_memory():
    seconds = float(measure_speed().split("models ")[1].split(" s")[0])
    assert seconds < 60
