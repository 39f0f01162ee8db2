import numpy as np
import pandas as pd
import pytest
from manifests import table_of

from xray_helpers.data.leaks import check_leak_gate, compare_leaks, measure_leak
from xray_helpers.data.splits import assign_splits
from xray_helpers.settings import InputError, build_settings


def split_table():
    table = table_of([(2, 1.0), (2, 0.0)] * 30)
    return assign_splits(table, build_settings(use_subset=1))


def test_leak_is_counted_by_hand():
    table = pd.DataFrame({"path": list("abcdef"), "group": ["1", "1", "2", "3", "3", "4"]})
    leak = measure_leak(table, pd.Series(["train", "test", "test", "train", "validation", None]))
    assert (leak["test"], leak["test_leaked"], leak["groups"]) == (2, 1, 2)
    assert leak["share"] == 0.5
    assert leak["examples"][0] == ["test: b", "train: a"]
    assert measure_leak(table, pd.Series(["train"] * 6))["share"] is None


def test_the_gate_stops_a_leaky_split_unless_it_is_accepted():
    table = split_table()
    assert check_leak_gate(table)["groups"] == 0
    table.loc[table["group"] == "g0000", "split"] = ["train", "test"]
    with pytest.raises(InputError, match=r"The split leaks: 1 of \d+ test images.*g0000/.*accept_leak=true"):
        check_leak_gate(table)
    assert check_leak_gate(table, accept_leak=True)["groups"] == 1


def test_random_files_leak_where_the_study_does_not():
    table = split_table().assign(folder_split=pd.NA)
    leaks = compare_leaks(table, 42).set_index("split")
    assert leaks.loc["this study", "leak"] == 0
    assert leaks.loc["random files", "leak"] > 0.5
    assert "the set's own folders" not in leaks.index
    table["folder_split"] = np.where(np.arange(len(table)) % 2, "train", "test")
    assert compare_leaks(table, 42).set_index("split").loc["the set's own folders", "leak"] == 1
