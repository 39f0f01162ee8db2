import pandas as pd
import pytest
from manifests import plain, with_copies

from xray_helpers.data.parts import (
    check_made_with,
    class_balance,
    manifest_key,
    mark_counted,
    used_part,
    weigh_copies,
)
from xray_helpers.data.splits import assign_splits
from xray_helpers.settings import NEGATIVE, POSITIVE, InputError, build_settings
from xray_helpers.study.files import build_table, read_csv, write_csv
from xray_helpers.study.tables import MANIFEST


def test_used_part_is_in_path_order_with_positive_one():
    split = assign_splits(plain(100).sample(frac=1, random_state=0), build_settings(use_subset=1))
    part = used_part(split, "test")
    assert part["path"].is_monotonic_increasing
    assert ((part["y_true"] == 1) == (part["label"] == POSITIVE)).all()


def test_a_file_that_is_no_image_makes_no_other_manifest(tmp_path):
    split = assign_splits(plain(300), build_settings(use_subset=1)).assign(sha256="x")
    other = build_table([{"path": "notes.txt", "status": "no image"}], MANIFEST)
    both = pd.concat([split, other], ignore_index=True)
    tables = [read_csv(write_csv(tmp_path / "manifest.csv", table)) for table in (split, both)]
    assert {manifest_key(table) for table in tables} == {manifest_key(split)}


def test_results_of_another_manifest_are_refused():
    split = assign_splits(plain(300), build_settings(use_subset=1)).assign(sha256="x")
    record = {"manifest": manifest_key(split)}
    check_made_with(split.sample(frac=1, random_state=1), record, "VGG16")
    moved = split.copy()
    moved.loc[moved.index[moved["split"] == "test"][0], "split"] = "train"
    for manifest, other in ((moved, record), (split, {}), (split.assign(sha256="y"), record)):
        with pytest.raises(InputError, match="run 02 again for VGG16"):
            check_made_with(manifest, other, "VGG16")


def test_each_source_is_counted_once_by_the_picture_nearest_to_the_original():
    table = pd.concat([with_copies(60, 3, POSITIVE), with_copies(60, 3, NEGATIVE)], ignore_index=True)
    split = mark_counted(assign_splits(table, build_settings(use_subset=1)), table["corners"], "sources")
    test = used_part(split, "test")
    assert len(test) == test["source_group"].nunique() == 24
    assert set(test["path"].str[-5:]) == {
        "3.png"
    }  # neither the small nor the turned one, and of two the first by hash
    assert len(used_part(split, "test", copies=True)) == 4 * 24
    balance = class_balance(split).set_index("split")
    assert balance["n"].sum() == 120
    assert balance["files"].sum() == 480
    assert balance["effective"].tolist() == balance["n"].tolist()
    every = mark_counted(split, table["corners"], "files")
    assert len(used_part(every, "test")) == 4 * 24
    assert class_balance(every).set_index("split").loc["test", "effective"] == 24


def test_several_true_images_of_a_patient_stay_several():
    table = pd.concat([with_copies(40, 1, POSITIVE), with_copies(40, 1, NEGATIVE)], ignore_index=True)
    table["group"] = table["group"].str[0] + (table["group"].str[1:].astype(int) // 2).astype(
        str
    )  # two sources a patient
    split = mark_counted(assign_splits(table, build_settings(use_subset=1)), table["corners"], "sources")
    test = class_balance(split).set_index("split").loc["test"]
    assert (test["n"], test["groups"], test["files"]) == (16, 8, 32)


def test_files_that_are_copies_weigh_less_where_they_are_judged():
    table = pd.concat([with_copies(40, 2, POSITIVE), with_copies(40, 0, NEGATIVE)], ignore_index=True)
    split = assign_splits(table, build_settings(use_subset=1))
    assert weigh_copies(mark_counted(split, table["corners"], "sources"), "test") is None
    every = mark_counted(split, table["corners"], "files")
    weight = weigh_copies(every, "test")
    part = used_part(every, "test")
    assert weight[part["label"] == POSITIVE] == pytest.approx(1 / 3)
    assert weight[part["label"] == NEGATIVE] == pytest.approx(1)
