import numpy as np
import pandas as pd
import pytest

from xray_helpers.evaluation.failures import describe_failures, find_failures
from xray_helpers.evaluation.subgroups import describe_subgroups, evaluate_subgroups, subgroup_columns


def made(n=200):
    rng = np.random.default_rng(0)
    y = np.arange(n) % 2
    view = np.where(np.arange(n) < n * 0.7, "frontal", "lateral")
    strength = np.where(view == "frontal", 4.0, 0.0)
    p = 1 / (1 + np.exp(-(strength * (y - 0.5) + rng.normal(0, 1, n))))
    predictions = pd.DataFrame(
        {
            "path": [f"{i}.png" for i in range(n)],
            "group": [str(i // 2) for i in range(n)],
            "y_true": y,
            "y_prob": p,
            "y_pred": (p >= 0.5).astype(int),
        }
    )
    manifest = predictions[["path", "group"]].assign(
        view=view, mode="L", sha256="x", serial=range(n), hardware=None
    )
    manifest.loc[:9, "hardware"] = "cast"
    manifest.loc[5:6, "hardware"] = "pin"
    return predictions, manifest


def test_columns_with_few_values_make_subgroups():
    assert subgroup_columns(made()[1]) == ["view", "hardware"]


def test_a_worse_subgroup_is_named_with_its_interval():
    predictions, manifest = made()
    table = evaluate_subgroups(predictions, manifest, 0.5, ["view", "hardware"])
    by = table.set_index(["column", "value"]).sort_index()
    assert by.loc[("all", "all images"), "n"] == 200
    assert by.loc[("view", "frontal"), "n"] + by.loc[("view", "lateral"), "n"] == 200
    assert by.loc[("view", "lateral"), "auroc"] < by.loc[("all", "all images"), "auroc"]
    assert by.loc[("hardware", "not stated"), "n"] == 190
    known = table.dropna(subset=["auroc_low"])
    assert len(known) >= 4
    assert (known["auroc_low"] <= known["auroc"]).all()
    text = describe_subgroups(table)
    assert "hardware = pin, has 2 images of 2 groups" in text
    assert "view = lateral" in text


def test_a_subgroup_of_one_class_is_reported():
    predictions, manifest = made()
    manifest["side"] = np.where(predictions["y_true"] == 1, "left", "right")
    table = evaluate_subgroups(predictions, manifest, 0.5, ["side"])
    assert table["auroc"].isna().sum() == 2
    assert set(table["auroc_reason"].iloc[1:]) == {"one class only"}
    assert "In 2 of them AUROC is not defined" in describe_subgroups(table)
    assert "no column that makes subgroups" in describe_subgroups(table.head(1))


def test_failures_by_hand():
    table = pd.DataFrame(
        {
            "path": list("abcde"),
            "group": list("abcdd"),
            "y_true": [1, 0, 1, 0, 0],
            "y_prob": [0.1, 0.9, 0.45, 0.55, 0.2],
            "y_pred": [0, 1, 0, 1, 0],
        }
    )
    errors, unsure = find_failures(table, 0.5)
    assert errors["path"].tolist() == ["a", "b", "c", "d"]
    assert errors["certainty"].tolist() == pytest.approx([0.8, 0.8, 0.1, 0.1])
    assert unsure["path"].tolist() == ["c", "d", "a", "b"]  # one per group
    assert "4 of 5 test images are classified wrongly" in describe_failures(errors, table)
    assert "2 are missed fractures and 2 false alarms" in describe_failures(errors, table)
    right = table.assign(y_pred=table["y_true"])
    assert "None of 5" in describe_failures(find_failures(right, 0.5)[0], right)
    assert find_failures(table.assign(y_prob=1.0, y_pred=1), 1.0)[0]["certainty"].tolist() == [0.0, 0.0]


def test_continuous_values_make_no_subgroups():
    manifest = made(36)[1].assign(
        box_left=[str(float(i % 12)) for i in range(36)], few=[str(i % 11) for i in range(36)]
    )
    manifest.loc[30:, "box_left"] = None
    assert "box_left" not in subgroup_columns(manifest)
    assert "few" in subgroup_columns(manifest)


def test_few_sources_leave_open_whether_a_subgroup_is_worse():
    predictions, manifest = made()
    predictions["group"] = np.arange(200) % 7
    manifest["group"] = predictions["group"]
    text = describe_subgroups(evaluate_subgroups(predictions, manifest, 0.5, ["view"]))
    assert text.endswith("None has an interval of AUROC, so whether it is worse in one of them is not known.")
