import pandas as pd
import pytest

from xray_helpers.same_source.corrections import (
    list_corrections,
    read_corrections,
    remove_corrections,
    write_corrections,
)
from xray_helpers.settings import InputError


def pair(a, b):
    return pd.DataFrame({"sha256_a": [a], "sha256_b": [b]})


def test_a_correction_is_taken_back_whichever_file_is_named_first(root, tmp_path):
    file = tmp_path / "c.csv"
    file.write_text("action,sha256_a,sha256_b,why\njoin,a,b,seen\nseparate,b,c,\njoin,,b,\n")
    remove_corrections("c.csv", pair("c", "b"))
    assert file.read_text() == "action,sha256_a,sha256_b,why\njoin,a,b,seen\njoin,,b,\n"
    remove_corrections("c.csv", pair("a", "b"))
    assert file.read_text() == "action,sha256_a,sha256_b,why\njoin,,b,\n"
    assert read_corrections("c.csv", {"a", "b"}).empty
    file.write_text("action,sha256_a,sha256_b\njoin,a,b\n")
    remove_corrections("c.csv", pair("a", "b"))
    assert file.read_text() == "action,sha256_a,sha256_b\n"
    with pytest.raises(InputError, match="corrections is empty"):
        remove_corrections("", pair("a", "b"))
    file.write_text("sha256_a\nx\n")
    with pytest.raises(InputError, match="need the columns"):
        remove_corrections("c.csv", pair("a", "b"))
    assert file.read_text() == "sha256_a\nx\n"


def test_the_last_correction_of_a_pair_counts(root):
    write_corrections("data/c.csv", [("separate", "a", "b"), ("separate", "a", "c")])
    write_corrections("data/c.csv", [("join", "b", "a")])
    assert (root / "data" / "c.csv").exists()
    table = read_corrections("data/c.csv", {"a", "b", "c"})
    assert sorted(map(tuple, table.to_numpy())) == [("join", "b", "a"), ("separate", "a", "c")]
    first, second = list_corrections("data/c.csv", {"a", "b", "c"})
    assert (len(first), len(second)) == (2, 1)
    remove_corrections("data/c.csv", second)
    table = read_corrections("data/c.csv", {"a", "b", "c"})
    assert sorted(map(tuple, table.to_numpy())) == [("separate", "a", "b"), ("separate", "a", "c")]


def test_corrections_that_cannot_be_saved_are_refused(root):
    with pytest.raises(InputError, match="corrections is empty"):
        write_corrections("", [("separate", "a", "b")])
    assert not list(root.iterdir())
    (root / "c.csv").write_text("")
    with pytest.raises(InputError, match="need the columns"):
        write_corrections("c.csv", [("separate", "a", "b")])
    (root / "c.csv").write_text("action,sha256_a,sha256_b\njoin,,b\n")  # an unfinished row is kept as it is
    write_corrections("c.csv", [("separate", "a", "b")])
    assert len(pd.read_csv(root / "c.csv")) == 2
