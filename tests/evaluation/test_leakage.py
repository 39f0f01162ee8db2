import numpy as np
import pandas as pd
import pytest

from xray_helpers.evaluation.leakage import _shuffle_labels, describe_leakage, measure_leakage, source_p


def copies(n_sources=40, n_copies=6, signal=0.0, seed=0):
    """Features that give away the source, and by `signal` the label; copies of a source differ by noise."""
    rng = np.random.default_rng(seed)
    label = np.arange(n_sources) % 2
    centre = rng.normal(0, 1, (n_sources, 60))
    centre[:, 0] += signal * (label - 0.5)
    x = np.repeat(centre, n_copies, axis=0) + rng.normal(0, 0.2, (n_sources * n_copies, 60))
    table = pd.DataFrame(
        {"y_true": np.repeat(label, n_copies), "group": np.repeat(np.arange(n_sources), n_copies).astype(str)}
    )
    table["folder_split"] = np.where(np.arange(len(table)) % n_copies == 0, "test", "train")
    return x, table


def test_missing_features_are_reported():
    from xray_helpers.plots.scores import plot_leakage

    _, table = copies()
    nothing = measure_leakage(np.empty((0, 1)), table.head(0), seed=1)
    assert "was not measured" in describe_leakage(nothing)
    assert plot_leakage(nothing, model="no model").texts[0].get_text() == "not measured"


def test_copies_inflate_files_and_folders_but_not_groups():
    measured = measure_leakage(*copies(), seed=1)
    assert "what is learned there is the source" in describe_leakage(measured)
    table = measured.set_index(["split", "labels"])["auroc"]
    assert table["random files", "true"] > 0.95
    assert table["the set's own folders", "true"] > 0.95
    assert abs(table["kept apart by group", "true"] - 0.5) < 0.25
    assert table["random files", "shuffled"] > 0.9  # the source is learned
    assert abs(table["kept apart by group", "shuffled"] - 0.5) < 0.25


def test_without_copies_nothing_is_inflated():
    x, rows = copies(n_sources=200, n_copies=1, signal=6.0)
    rows["folder_split"] = None
    table = measure_leakage(x, rows, seed=1)
    assert "the set's own folders" not in set(table["split"])
    auroc = table.set_index(["split", "labels"])["auroc"]
    assert abs(auroc["random files", "true"] - auroc["kept apart by group", "true"]) < 0.05
    assert abs(auroc["random files", "shuffled"] - 0.5) < 0.15
    assert "it is not shown that sources are recognised" in describe_leakage(table)


def test_the_same_seed_gives_the_same_table():
    pd.testing.assert_frame_equal(measure_leakage(*copies(), seed=3), measure_leakage(*copies(), seed=3))


def test_the_largest_seed_works():
    rng = np.random.default_rng(0)
    y = np.repeat(rng.integers(0, 2, 30), 2)
    table = pd.DataFrame(
        {"y_true": y, "group": np.repeat(np.arange(30), 2).astype(str), "folder_split": pd.NA}
    )
    features = rng.normal(size=(60, 4)) + y[:, None]
    result = measure_leakage(features, table, seed=2**32 - 1, repeats=3)
    assert (result["folds"] == 15).any()


def test_groups_with_both_labels_are_measured():
    """All or half of the groups hold both labels, as patients with an injured and an intact limb do."""
    rng = np.random.default_rng(0)
    table = pd.DataFrame(
        {"y_true": np.arange(120) % 2, "group": np.repeat(np.arange(60), 2).astype(str), "folder_split": None}
    )
    x = rng.normal(0, 1, (120, 20)) + 2.0 * np.outer(table["y_true"], np.arange(20) == 0)
    for rows in (
        table,
        table.assign(group=np.where(np.arange(120) < 60, table["group"], np.arange(120).astype(str))),
    ):
        shuffled = _shuffle_labels(rows, np.random.default_rng(1))
        assert 0.4 < shuffled.mean() < 0.6
        measured = measure_leakage(x, rows, seed=1)
        assert set(measured["labels"]) == {"true", "shuffled"}
        assert "AUROC" in describe_leakage(measured)


def test_missing_rows_are_reported():
    measured = measure_leakage(*copies(), seed=1)
    assert "too few groups" in describe_leakage(measured[measured["split"] == "the set's own folders"])
    assert "was not tested" in describe_leakage(measured[measured["labels"] == "true"])
    few = measure_leakage(*copies(n_sources=2), seed=1)
    assert "was not measured" in describe_leakage(few) or "was not tested" in describe_leakage(few)


@pytest.mark.parametrize("copies_of_each", [pytest.param(1, marks=pytest.mark.slow), 3])
def test_the_source_is_recognised_in_at_most_five_percent_where_nothing_leaks(copies_of_each):
    """In 200 sets whose features depend on the label only, 5 % are at most 19 (binomial, 99.9 %)."""
    found = 0
    for study in range(200):
        rng = np.random.default_rng([8, study])
        y = np.repeat(np.arange(40) % 2, copies_of_each)
        x = rng.normal(0, 1, (len(y), 15)) + 1.5 * np.outer(y, np.arange(15) == 0)
        table = pd.DataFrame({"y_true": y, "group": np.repeat(np.arange(40), copies_of_each)})
        found += source_p(x, table, study) <= 0.05
    assert found <= 19
