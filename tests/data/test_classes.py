import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xray_helpers.data.classes import Question, ask, choose_reader, label_folders
from xray_helpers.data.listing import list_data
from xray_helpers.data.parts import count_classes, training_target, used_part
from xray_helpers.data.splits import assign_splits
from xray_helpers.settings import NEGATIVE, POSITIVE, Classes, InputError, build_settings, set_classes


@pytest.fixture(autouse=True)
def _two_classes_afterwards():
    yield
    set_classes(Classes())


def paths(**folders):
    return [f"{name.replace('_', '/')}/{i}.png" for name, count in folders.items() for i in range(count)]


def folder(tmp_path, make_images, **counts):
    for seed, (name, count) in enumerate(counts.items()):
        make_images(tmp_path / name, count, seed=seed)
    return str(tmp_path)


def test_three_folders_without_a_setting_are_three_classes(tmp_path, make_images):
    data = folder(tmp_path, make_images, simple=12, none=14, comminuted=11)
    listing = list_data(data)
    assert listing.classes.names == ("none", "comminuted", "simple")
    assert listing.classes.positives == ("comminuted", "simple")
    assert listing.class_names == (NEGATIVE, POSITIVE)
    assert listing.table["label"].value_counts().to_dict() == {POSITIVE: 23, NEGATIVE: 14}
    assert "none (14 files)" in listing.notes[-1]
    assert "assumed that none means no fracture" in listing.notes[-1]


@pytest.mark.parametrize(
    ("counts", "names"),
    [
        ({"train_a": 12, "train_b": 12, "test_c": 12, "test_a": 3}, ["a", "b", "c"]),
        ({"a_p1": 12, "b_p2": 12, "c_p3": 12}, ["a", "b", "c"]),  # patients below
        ({"Fractured": 12, "Normal": 12, "implant": 12}, ["Fractured", "Non-Fractured", "implant"]),
        ({"Fractured": 12, "Normal": 12, "implant": 9}, ["Fractured", "Non-Fractured"]),  # a stray folder
        ({"Fractured": 12, "none": 12}, ["Fractured", "none"]),
        ({"images_Fractured": 12, "images_Normal": 12, "masks": 12}, ["Fractured", "Non-Fractured"]),
        ({"0": 12, "1": 12, "2": 12}, []),  # series, as far as can be known
        ({"p1": 12, "p2": 12, "p3": 12}, []),  # patients
        ({"a": 12, "b": 12}, []),  # which of the two is positive cannot be known
    ],
)
def test_which_folders_are_classes(counts, names):
    found = label_folders(paths(**counts), Question(), [], strict=True)
    assert sorted({name for name in found if name}) == names


def test_two_levels_that_could_be_classes_are_refused_unless_one_tells():
    both = paths(hand_simple=12, foot_simple=12, hand_old=12, foot_old=12)
    with pytest.raises(InputError, match="The classes may be foot, hand, or old, simple"):
        label_folders(both, Question(), [], strict=True)
    telling = paths(hand_simple=12, foot_simple=12, hand_none=12, foot_old=12)
    assert set(label_folders(telling, Question(), [], strict=True)) == {"simple", "none", "old"}


def test_more_than_fifty_classes_are_a_mistake():
    many = [f"{chr(97 + i // 26)}{chr(97 + i % 26)}/{j}.png" for i in range(51) for j in range(2)]
    with pytest.raises(InputError, match="51 folders would be classes"):
        label_folders(many, Question(), [], strict=True)
    with pytest.raises(InputError, match="more than 50 classes"):
        build_settings(classes=[str(number) for number in range(51)])


def test_given_names_set_order_and_are_looked_for(tmp_path, make_images):
    data = folder(tmp_path, make_images, A=12, B=12, C=12, spare=12)
    question = Question(("A", "B", "C"))
    listing = list_data(data, question=question)
    assert listing.classes.names == ("A", "B", "C") and listing.classes.ordered
    assert listing.class_names == ("not C", "C")  # no class says that there is no fracture
    assert listing.table["label"].isna().sum() == 12
    with pytest.raises(InputError, match="No image is of class 'D'"):
        list_data(data, question=Question(("A", "D")))
    with pytest.raises(InputError, match="positive = 'D' is none of the classes"):
        list_data(data, question=question._replace(positive="D"))
    assert list_data(data, question=question._replace(positive="b")).class_names == ("not B", "B")


def test_merge_turns_types_into_two_classes(tmp_path, make_images):
    data = folder(tmp_path, make_images, simple=12, none=14, comminuted=11)
    merge = {"Fractured": ("simple", "comminuted"), "Non-Fractured": ("none",)}
    listing = list_data(data, question=Question(merge=merge))
    assert listing.classes == Classes()
    assert "class_name" not in listing.table
    assert listing.table["label"].value_counts().to_dict() == {POSITIVE: 23, NEGATIVE: 14}
    three = {"mild": ("simple",), "bad": ("comminuted",), "intact": ("none",)}
    assert list_data(data, question=Question(merge=three)).classes.names == ("mild", "bad", "intact")


def test_two_unknown_folders_are_two_classes_once_one_is_positive(tmp_path, make_images):
    data = folder(tmp_path, make_images, acute=12, old=12)
    with pytest.raises(InputError, match="acute, old"):
        list_data(data)
    listing = list_data(data, question=Question(positive="acute"))
    assert listing.class_names == ("old", "acute")
    assert listing.table["label"].value_counts().to_dict() == {POSITIVE: 12, NEGATIVE: 12}


def test_classes_of_a_table(tmp_path, make_images):
    table = make_images(tmp_path / "images", 36)
    table = table.assign(path="images/" + table["path"], label=["none", "Simple", "spiral"] * 12)
    table[["path", "label"]].to_csv(tmp_path / "set.csv", index=False)
    assert list_data(str(tmp_path / "set.csv")).classes.names == ("none", "Simple", "spiral")
    table.loc[0, "label"] = "spirall"
    table[["path", "label"]].to_csv(tmp_path / "set.csv", index=False)
    with pytest.raises(InputError, match="is not understood"):
        list_data(str(tmp_path / "set.csv"))


@pytest.mark.parametrize(
    ("cells", "word", "meaning"),
    [
        (["fractured"] * 12 + ["normal"] * 12, "fracturd", None),
        (["fractured"] * 12 + ["normal"] * 12 + ["fracturd"] * 12, "fracturd", None),  # misspelt often
        (["fractured"] * 12 + ["normal"] * 12 + ["implant"] * 12, "Implant", "implant"),
        (["a"] * 12 + ["b"] * 12 + ["unknown"] * 12, "a", None),  # two classes, neither known
        (["a"] * 12 + ["b"] * 12 + ["c"] * 12 + ["unknown"] * 12, "unknown", None),
    ],
)
def test_words_of_a_label_column(cells, word, meaning):
    assert choose_reader(pd.Series(cells), Question())(word) == meaning


@given(st.lists(st.sampled_from(["none", "simple", "spiral", None]), min_size=1, max_size=40))
def test_every_class_is_positive_or_not(labels):
    columns, classes = ask(pd.Series(labels, dtype="string"), Question())
    assert columns["label"].isna().tolist() == [label is None for label in labels]
    if classes.names:
        positive = columns["class_name"].isin(classes.positives)
        assert (columns["label"].eq(POSITIVE).fillna(False) == positive.fillna(False)).all()


def test_splits_are_stratified_by_class_and_a_rare_one_is_named():
    names = ["none"] * 40 + ["simple"] * 40 + ["spiral"] * 40 + ["rare"]
    table = pd.DataFrame({"path": [f"{i}.png" for i in range(len(names))], "class_name": names})
    table["label"] = np.where(table["class_name"] == "none", NEGATIVE, POSITIVE)
    table = table.assign(group=table["path"], source_group=table["path"], status="readable")
    set_classes(Classes(names=("none", "simple", "spiral", "rare"), positives=("simple", "spiral", "rare")))
    split = assign_splits(table, build_settings(use_subset=1.0))
    test = used_part(split, "test")
    assert test["class_name"].value_counts()[["none", "simple", "spiral"]].between(7, 9).all()
    assert set(training_target(test)) <= {0, 1, 2, 3}
    row = count_classes(split).set_index("class").loc["rare"]
    assert row["note"] == "no image in validation and test: too few sources to have one in each part"
