import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xray_helpers.data.labels import label_cells, label_paths, read_label
from xray_helpers.settings import NEGATIVE, POSITIVE, InputError


@pytest.mark.parametrize(
    "word", ["-1", "-1.0", -1, "2", "0.5", "nan", "inf", "Fractured?", "?", "+-1", "1e300", "uncertain"]
)
def test_what_is_no_class_is_none(word):
    assert read_label(word) is None


@given(st.integers() | st.floats(allow_nan=False))
def test_of_all_numbers_only_0_and_1_are_classes(number):
    assert read_label(number) == {0: NEGATIVE, 1: POSITIVE}.get(number)


@pytest.mark.parametrize(
    ("paths", "labels"),
    [
        (["Fractured/p/0/a", "Normal/p/1/a"], "PN"),  # series
        (["Fractured/0/a", "Fractured/1/a", "Normal/0/a", "Normal/1/a"], "PPNN"),  # patients
        (["0/Fractured/a", "1/Normal/a"], "PN"),
        (["fracture/train/not fractured/a", "fracture/train/fractured/b"], "NP"),  # the set's own name
        (["train/0/a", "test/1/a"], "NP"),
        (["train/no/a", "train/yes/a"], "NP"),
        (["0/p1/a", "1/p2/a"], "NP"),
        (["p1/0/s/a", "p2/1/s/a"], "NP"),
        (["Fractured/a", "0/b"], "P-"),  # a numeral is no class beside a name
        (["0/a", "1/b", "2/c"], "---"),  # three series or patients
        (["0/a", "1/b", "c"], "---"),
        (["Fractured/a"], "P"),
        (["x/a", "y/b"], "--"),
    ],
)
def test_folders_name_classes(paths, labels):
    assert label_paths(paths) == [{"P": POSITIVE, "N": NEGATIVE, "-": None}[letter] for letter in labels]


def test_contradictory_folders_are_refused_by_name_and_left_without_a_class_in_an_audit():
    paths = ["Fractured/p1/normal limb/a", "Fractured/p1/Normal/a", "Healthy/p2/b"]
    with pytest.raises(
        InputError, match=r"1 of 3 paths .* its folder 'Fractured' says Fractured, its folder 'Normal' says"
    ):
        label_paths(paths)
    assert label_paths(paths, strict=False) == [POSITIVE, None, NEGATIVE]


def test_numerals_at_two_levels_are_refused():
    with pytest.raises(InputError, match=r"level 1 .* and level 2"):
        label_paths(["0/0/a", "0/1/b", "1/0/c"])


def test_cells_that_are_no_class_are_counted_and_named():
    cells = pd.Series(
        ["1", "0", "-1", "-1.0", None, "uncertain", "2", " Fractured ", "Unknown", "fracture?"],
        dtype="string",
    )
    labels, (note,) = label_cells(cells, "t.csv")
    assert labels.fillna("-").tolist() == [POSITIVE, NEGATIVE, *"-----", POSITIVE, *"--"]
    assert "7 rows" in note
    for word in ("-1", "-1.0", "blank", "uncertain", "2", "Unknown", "fracture?"):
        assert f" {word} (1)" in note


def test_a_misspelt_class_is_refused_with_its_line():
    with pytest.raises(InputError, match="the label 'fracturd' in line 7 is not understood"):
        label_cells(pd.Series(["1", "fracturd"], index=[3, 7]), "t.csv")


@pytest.mark.parametrize(
    ("word", "label"),
    [
        ("Fractured", POSITIVE),
        ("fractured", POSITIVE),
        ("FRACTURE", POSITIVE),
        ("positive", POSITIVE),
        (1, POSITIVE),
        ("1.0", POSITIVE),
        (True, POSITIVE),
        ("Non-Fractured", NEGATIVE),
        ("not fractured", NEGATIVE),
        ("Non_fractured", NEGATIVE),
        ("normal", NEGATIVE),
        (0, NEGATIVE),
        ("false", NEGATIVE),
        ("negative", NEGATIVE),
        ("images", None),
        ("fracture types", None),
        ("", None),
        ("2", None),
    ],
)
def test_labels(word, label):
    assert read_label(word) == label
