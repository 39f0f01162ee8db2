import numpy as np
import pandas as pd

from xray_helpers.inflation import describe_inflation, measure_inflation


def copies(n_sources=40, n_copies=6, signal=0.0, seed=0):
    """Features that tell the source, and the label only by `signal`; copies of a source differ by noise."""
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


def test_without_features_it_says_that_nothing_was_measured():
    from xray_helpers.plots import plot_inflation

    _, table = copies()
    nothing = measure_inflation(np.empty((0, 1)), table.head(0), seed=1)
    assert "was not measured" in describe_inflation(nothing)
    assert plot_inflation(nothing, model="no model").texts[0].get_text() == "not measured"


def test_copies_inflate_files_and_folders_but_not_groups():
    table = measure_inflation(*copies(), seed=1).set_index(["split", "labels"])["auroc"]
    assert table["random files", "true"] > 0.95
    assert table["the set's own folders", "true"] > 0.95
    assert abs(table["kept apart by group", "true"] - 0.5) < 0.25
    assert table["random files", "shuffled"] > 0.95  # labels that mean nothing: the source is learned
    assert abs(table["kept apart by group", "shuffled"] - 0.5) < 0.25


def test_without_copies_nothing_is_inflated():
    x, rows = copies(n_sources=200, n_copies=1, signal=6.0)
    rows["folder_split"] = None
    table = measure_inflation(x, rows, seed=1)
    assert "the set's own folders" not in set(table["split"])
    auroc = table.set_index(["split", "labels"])["auroc"]
    assert abs(auroc["random files", "true"] - auroc["kept apart by group", "true"]) < 0.05
    assert abs(auroc["random files", "shuffled"] - 0.5) < 0.15
    assert "little is to be gained" in describe_inflation(table)


def test_the_same_seed_gives_the_same_table():
    pd.testing.assert_frame_equal(measure_inflation(*copies(), seed=3), measure_inflation(*copies(), seed=3))


def test_the_largest_seed_is_as_good_as_any():
    rng = np.random.default_rng(0)
    y = np.repeat(rng.integers(0, 2, 30), 2)
    table = pd.DataFrame({"y_true": y, "group": np.repeat(np.arange(30), 2).astype(str), "folder_split": pd.NA})
    features = rng.normal(size=(60, 4)) + y[:, None]
    result = measure_inflation(features, table, seed=2**32 - 1, repeats=3)
    assert (result["folds"] == 15).any()
