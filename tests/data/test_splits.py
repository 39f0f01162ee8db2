import itertools

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from manifests import plain, table_of, with_copies

from xray_helpers.data.leaks import compare_leaks
from xray_helpers.data.parts import check_parts, class_balance
from xray_helpers.data.splits import assign_folds, assign_splits, hold_out
from xray_helpers.settings import NEGATIVE, POSITIVE, SPLITS, InputError, build_settings


def test_shares_and_strata():
    split = assign_splits(plain(1000), build_settings(use_subset=1))
    balance = class_balance(split).set_index("split")
    assert balance["n"].to_dict() == pytest.approx({"train": 680, "validation": 120, "test": 200}, abs=8)
    assert balance["prevalence"].to_numpy() == pytest.approx([0.4] * 3, abs=0.02)
    assert balance["majority_accuracy"].to_numpy() == pytest.approx(1 - balance["prevalence"].to_numpy())


def test_the_same_seed_gives_the_same_split_whatever_the_order_of_rows():
    table = table_of([(3, 1.0), (2, 0.0)] * 40)
    one = assign_splits(table, build_settings(use_subset=1))
    again = assign_splits(table.sample(frac=1, random_state=3), build_settings(use_subset=1))
    other = assign_splits(table, build_settings(use_subset=1, seed=1))
    assert one.equals(again.sort_index())
    assert not one["split"].equals(other["split"])


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 12), st.sampled_from([0.0, 0.5, 1.0])), min_size=6, max_size=60),
    st.integers(0, 1000),
)
def test_no_group_is_ever_on_two_sides(groups, seed):
    table = table_of(groups)
    try:
        split = assign_splits(table, build_settings(use_subset=1, seed=seed))
    except InputError as error:
        assume("oo few independent images" not in str(error))
        raise
    assert split.groupby("group")["split"].nunique().max() == 1
    assert set(split["split"]) == set(SPLITS)
    check_parts(split)
    largest = table.groupby("group").size().max()
    test = (split["split"] == "test").sum()
    assert abs(test - 0.2 * len(table)) <= max(2 * largest, 0.35 * len(table))


def test_a_subset_keeps_a_hundred_of_each_class_and_whole_groups():
    table = table_of([(4, 1.0)] * 100 + [(3, 0.0)] * 20)
    split = assign_splits(table, build_settings(use_subset=0.02))
    used = split[split["status"] == "used"]
    counts = used["label"].value_counts()
    assert 100 <= counts[POSITIVE] <= 103
    assert counts[NEGATIVE] == 60  # all there are
    assert split.groupby("group")["status"].nunique().max() == 1
    assert split.loc[split["status"] == "not sampled", "split"].isna().all()


def test_folders_are_taken_as_they_are():
    table = plain(300)
    table["folder_split"] = np.where(np.arange(300) % 3 == 0, "test", "train")
    split = assign_splits(table, build_settings(use_subset=1, split="folders"))
    assert ((split["split"] == "test") == (table["folder_split"] == "test")).all()
    assert (split["split"] == "validation").sum() == pytest.approx(30, abs=3)
    table.loc[0, "folder_split"] = pd.NA
    with pytest.raises(InputError, match="use split = grouped"):
        assign_splits(table, build_settings(use_subset=1, split="folders"))


def test_too_few_groups():
    with pytest.raises(InputError, match="Too few independent images of class Fractured"):
        assign_splits(table_of([(50, 1.0)] + [(1, 0.0)] * 50), build_settings(use_subset=1))


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 8), st.sampled_from([0.0, 0.5, 1.0])), min_size=4, max_size=50),
    st.integers(2, 8),
)
def test_folds_keep_groups_whole(groups, folds):
    table = table_of(groups).assign(status="used")
    assume(table.groupby("label")["group"].nunique().min() >= 2 and table["label"].nunique() == 2)
    fold = assign_folds(table, folds, 0)
    assert fold.notna().all()
    assert fold.groupby(table["group"]).nunique().max() == 1
    assert fold.nunique() <= folds


def test_parts_take_several_sources_of_each_class_where_there_are_enough():
    """A few large sources beside many small ones: two large ones would be as many images, and say far
    less.
    """
    one = [source for source, size in enumerate([8, 8, 8, *[1] * 40]) for _ in range(size)]
    table = pd.DataFrame({"label": np.repeat(["Fractured", "Non-Fractured"], len(one)), "group": one * 2})
    table["group"] = table["label"] + table["group"].astype(str)
    for seed in range(6):
        part = table.loc[hold_out(table, 0.15, seed)].groupby("label")
        assert part["group"].nunique().min() >= 5
        assert part.size().between(0.12 * 64, 0.18 * 64).all()


@pytest.mark.parametrize("action", ["join", "separate"])
def test_a_correction_moves_no_other_image_and_takes_none_out_of_test(action):
    """Patients of two sources with two files each; a correction changes sources and, through them, groups."""
    rows = []
    for p, s, f in itertools.product(range(120), (0, 1), (0, 1)):
        names = {"path": f"p{p:03d}/s{s}/{f}", "source_group": f"p{p:03d}/s{s}", "group": f"p{p:03d}"}
        rows.append(names | {"label": POSITIVE if p % 2 else NEGATIVE, "status": "readable"})
    table, rng = pd.DataFrame(rows), np.random.default_rng(0)
    for seed in range(8):
        settings = build_settings(use_subset=1, seed=seed)
        before, after = assign_splits(table, settings, table), table.copy()
        chosen = rng.choice(120, 2, replace=False)
        mine = table["group"].isin([f"p{number:03d}" for number in chosen])
        if action == "join":
            after.loc[mine, ["source_group", "group"]] = (
                after.loc[mine, ["source_group", "group"]].min().to_numpy()
            )
        else:
            after.loc[mine, "source_group"] = after.loc[mine, "path"]
        split = assign_splits(after, settings, table)
        assert split.loc[~mine, "split"].equals(before.loc[~mine, "split"])
        assert split.loc[before["split"] == "test", "split"].eq("test").all()
        assert split.groupby("group")["split"].nunique().max() == 1
        assert split.groupby("group")["fold"].nunique().max() == 1
        assert split[["source_group", "group"]].equals(after[["source_group", "group"]])


@pytest.mark.parametrize("seed", [0, 4_294_967, 2**32 - 1])
def test_every_seed_that_the_settings_allow_splits(seed):
    table = table_of([(3, 1.0), (2, 0.0)] * 60)
    table["folder_split"] = pd.array([pd.NA] * len(table), dtype="string")
    split = assign_splits(table, build_settings(use_subset=0.5, seed=seed))
    assert class_balance(split)["n"].gt(0).all()
    assert split.equals(assign_splits(table, build_settings(use_subset=0.5, seed=seed)))
    assert len(compare_leaks(split, seed)) == 2


def test_parts_and_folds_are_drawn_by_sources_not_by_files():
    """One picture with 190 copies is one source: it neither fills a part nor empties the others."""
    giant = with_copies(1, 190, POSITIVE).replace({"source_group": "F000", "group": "F000"}, "giant")
    table = pd.concat(
        [giant, with_copies(100, 0, POSITIVE).iloc[1:], with_copies(100, 0, NEGATIVE)], ignore_index=True
    )
    for seed in range(5):
        split = assign_splits(table, build_settings(use_subset=1, seed=seed))
        sources = split.drop_duplicates("source_group")
        assert sources["split"].value_counts().to_dict() == pytest.approx(
            {"train": 136, "validation": 24, "test": 40}, abs=4
        )
        assert sources.groupby("fold").size().between(36, 44).all()
    few = assign_splits(table, build_settings(use_subset=0.02))
    assert few[few["status"] == "used"].drop_duplicates("source_group")["label"].value_counts().min() == 100


def test_a_giant_patient_leaves_others_of_its_class_on_each_side():
    """One patient has 190 of 220 true images of a class: they are in one part, and each part still has
    others.
    """
    table = pd.concat(
        [table_of([(190, 1.0)] + [(1, 1.0)] * 30), table_of([(1, 0.0)] * 100)], ignore_index=True
    )
    table["group"] = table["label"] + table["group"]
    for seed in range(6):
        split = assign_splits(table, build_settings(use_subset=1, seed=seed))
        groups = split[split["label"] == POSITIVE].groupby("split")["group"].nunique()
        assert groups.min() >= 2
