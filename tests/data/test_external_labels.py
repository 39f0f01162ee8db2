import numpy as np
import pandas as pd
import pytest

from xray_helpers.data.classes import Question, ask, label_folders
from xray_helpers.data.external import describe_refusal, list_as_study
from xray_helpers.data.listing import list_data
from xray_helpers.settings import NEGATIVE, POSITIVE, Classes, InputError

TYPES = Classes(names=("none", "comminuted", "simple"), positives=("comminuted", "simple"))


def folder(tmp_path, make_images, **counts):
    for seed, (name, count) in enumerate(counts.items()):
        make_images(tmp_path / name, count, seed=seed)
    return str(tmp_path)


def labels(place, classes, **settings):
    table = list_as_study(place, settings, classes).table
    return table.groupby(table["path"].str.split("/").str[0])["label"].first().to_dict()


@pytest.mark.parametrize(
    ("classes", "settings", "expected"),
    [
        (Classes(), {}, {"none": NEGATIVE, "simple": POSITIVE, "comminuted": POSITIVE}),
        (TYPES, {}, {"none": NEGATIVE, "simple": POSITIVE, "comminuted": POSITIVE}),
        (
            Classes("not comminuted", "comminuted", TYPES.names, ("comminuted",)),
            {"positive": "comminuted"},
            {"none": NEGATIVE, "simple": NEGATIVE, "comminuted": POSITIVE},
        ),
        (
            Classes(),
            {"merge": {"Fractured": ("comminuted",), "Non-Fractured": ("none", "simple")}},
            {"none": NEGATIVE, "simple": NEGATIVE, "comminuted": POSITIVE},
        ),
        (
            Classes("not severe", "severe", ("intact", "light", "severe"), ("severe",)),
            {
                "positive": "severe",
                "merge": {"intact": ("none",), "light": ("simple",), "severe": ("comminuted",)},
            },
            {"none": NEGATIVE, "simple": NEGATIVE, "comminuted": POSITIVE},
        ),
    ],
)
def test_types_elsewhere_have_the_answer_that_the_study_gives_them(
    tmp_path, make_images, classes, settings, expected
):
    assert (
        labels(folder(tmp_path, make_images, none=12, simple=12, comminuted=12), classes, **settings)
        == expected
    )


def test_a_class_that_is_missing_there_changes_no_answer(tmp_path, make_images):
    place = folder(tmp_path, make_images, none=12, simple=12)
    asked = Classes("not comminuted", "comminuted", TYPES.names, ("comminuted",))
    found = list_as_study(place, {"positive": "comminuted"}, asked).table["label"]
    assert set(found) == {NEGATIVE}
    assert "No score is given" in describe_refusal(found)


def test_fractured_or_not_answers_no_question_of_types(tmp_path, make_images):
    place = folder(tmp_path, make_images, Fractured=12, normal=12)
    asked = Classes("not comminuted", "comminuted", TYPES.names, ("comminuted",))
    assert list_as_study(place, {"positive": "comminuted"}, asked).table["label"].isna().all()
    assert labels(place, TYPES) == {"Fractured": POSITIVE, "normal": NEGATIVE}  # it is the same question


@pytest.mark.parametrize("classes", [Classes(), TYPES])
def test_folders_of_body_parts_are_no_labels(tmp_path, make_images, classes):
    place = folder(tmp_path, make_images, hand=12, wrist=14, leg=11)
    assert list_as_study(place, {}, classes).table["label"].isna().all()


def test_a_table_from_elsewhere_may_have_other_classes_too(tmp_path, make_images):
    table = make_images(tmp_path / "images", 36)
    table = table.assign(path="images/" + table["path"], label=["none", "simple", "stress"] * 12)
    table[["path", "label"]].to_csv(tmp_path / "set.csv", index=False)
    found = list_as_study(str(tmp_path / "set.csv"), {}, TYPES).table["label"]
    assert found.value_counts().to_dict() == {NEGATIVE: 12, POSITIVE: 12}


def test_masks_beside_the_classes_are_no_class():
    paths = [f"{name}/{i}.png" for name in ("Fractured", "normal", "masks") for i in range(12)]
    assert label_folders(paths, Question(), [], strict=True)[-1] is None
    paths = [f"{name}/{i}.png" for name in ("none", "simple", "masks") for i in range(12)]
    found = label_folders(paths, Question(), [], strict=True)
    assert found[-1] is None and set(found[:24]) == {"none", "simple"}


def test_labels_of_a_table_go_before_folders_of_unknown_names(tmp_path, make_images):
    tables = [
        make_images(tmp_path / part, 12, seed=seed) for seed, part in enumerate(("hand", "wrist", "leg"))
    ]
    table = pd.concat(tables).rename(columns={"path": "image_id"})
    table.assign(fractured=np.arange(36) % 2)[["image_id", "fractured"]].to_csv(
        tmp_path / "dataset.csv", index=False
    )
    listing = list_data(str(tmp_path))
    assert listing.classes == Classes()
    assert listing.table["label"].value_counts().to_dict() == {POSITIVE: 18, NEGATIVE: 18}


def test_what_merge_does_not_name_is_told(tmp_path, make_images):
    place = folder(tmp_path, make_images, none=12, simple=13, comminuted=12)
    merge = {"Fractured": ("comminuted",), "Non-Fractured": ("none",)}
    listing = list_data(place, question=Question(merge=merge))
    assert "13 images do not count, in folders that are none of the classes: simple." in listing.notes


def test_grades_are_not_taken_for_yes_and_no(tmp_path, make_images):
    table = make_images(tmp_path / "images", 48)
    table = table.assign(path="images/" + table["path"], label=np.arange(48) % 4)
    table[["path", "label"]].to_csv(tmp_path / "set.csv", index=False)
    with pytest.raises(InputError, match=r"The labels are 0, 1, 2, 3: .*classes=\[0, 1, 2, 3\]"):
        list_data(str(tmp_path / "set.csv"))
    assert list_data(str(tmp_path / "set.csv"), question=Question(("0", "1", "2", "3"))).classes.names
    columns, _ = ask(pd.Series(["1", "0"], dtype="string"), Question(("0", "1")))
    assert columns["label"].tolist() == [POSITIVE, NEGATIVE]
