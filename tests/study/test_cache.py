import os

import numpy as np
import pytest

from xray_helpers.settings import InputError
from xray_helpers.study import cache
from xray_helpers.study.cache import (
    RowView,
    cache_folder,
    clear_cache,
    list_cache,
    new_array,
    new_rows,
    read_array,
    read_rows,
    release,
)


def write(name, value, n=200_000):
    with new_array(name, (n,), np.uint8) as store:
        store[:] = value


def fill_rows(ids, kind="squares-1"):
    """Fill what is missing with the square of the id; return the ids that were."""
    with new_rows(kind, ids, (2,), np.float32) as (store, missing):
        known = np.unique(ids)
        store[missing] = known[missing].astype(int)[:, None] ** 2
        return known[missing].tolist()


def test_rows_are_kept_by_content_and_computed_once(root):
    assert read_rows("squares-1", ["3", "1"]) is None
    assert fill_rows(["3", "1", "3"]) == ["1", "3"]
    rows = read_rows("squares-1", ["3", "1", "3"])
    assert rows.shape == (3, 2)
    assert np.asarray(rows)[:, 0].tolist() == [9, 1, 9]
    assert rows[1:].tolist() == [[1, 1], [9, 9]]
    assert (read_rows("squares-1", ["1", "3"])[0] == 1).all()  # another order is the same array
    assert fill_rows(["2", "3", "5", "1"]) == ["2", "5"]  # a larger set computes only what is new
    assert np.asarray(read_rows("squares-1", ["5", "3", "2", "1"]))[:, 0].tolist() == [25, 9, 4, 1]
    assert fill_rows(["3", "5"]) == []
    assert fill_rows(["3"], kind="squares-2") == ["3"]  # nothing of another kind


def test_rows_of_a_damaged_array_are_computed_again(root):
    fill_rows(["1", "2"])
    cut(next(path for path in cache_folder().glob("*.npy") if ".ids" not in path.name))
    assert read_rows("squares-1", ["1", "2"]) is None
    assert fill_rows(["1", "2", "4"]) == ["1", "2", "4"]


def test_the_cache_is_listed_and_cleared_by_kind(root):
    write("pixels-1", 1)
    write("features-1", 1)
    write("features-2", 1)
    table = list_cache().set_index("kind")
    assert table["files"].to_dict() == {"features": 2, "pixels": 1}
    assert table.loc["features", "mib"] == pytest.approx(0.4, abs=0.05)
    with pytest.raises(InputError, match="no 'feature'; it holds features, pixels"):
        clear_cache("feature")
    assert clear_cache("features") == 2
    assert read_array("pixels-1") is not None
    assert clear_cache() == 1
    assert list_cache().empty


def test_a_failure_leaves_nothing(root):
    with pytest.raises(RuntimeError), new_array("half", (10,), np.uint8) as store:
        store[:5] = 1
        raise RuntimeError
    assert read_array("half") is None
    assert not list(cache_folder().iterdir())


def cut(path):
    os.truncate(path, path.stat().st_size - 10)


def lose_a_stretch(path):  # as after a power loss: the length is right, the content never reached the disk
    with open(path, "r+b") as handle:
        handle.seek(60_000)
        handle.write(bytes(50_000))


def drop_the_seal(path):
    os.truncate(path, path.stat().st_size - cache._SEAL)


def empty(path):
    os.truncate(path, 0)


@pytest.mark.parametrize("place", [0, 7, 100, 127, 128, 60_000, 1_000_003, 2_500_000, -9, -8, -4, -1])
def test_one_flipped_byte_anywhere_is_found(root, monkeypatch, place):
    numbers = np.random.default_rng(0).integers(0, 256, 3_000_000, dtype=np.uint8)
    write("numbers", numbers, n=len(numbers))
    path = cache_folder() / "numbers.npy"
    stat = path.stat()
    with open(path, "r+b") as handle:
        handle.seek(place, os.SEEK_SET if place >= 0 else os.SEEK_END)
        byte = handle.read(1)[0]
        handle.seek(-1, os.SEEK_CUR)
        handle.write(bytes([byte ^ 1]))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # as a failing disk would: no time tells
    monkeypatch.setattr(cache, "_checked", {})  # another process
    assert read_array("numbers") is None
    assert not path.exists()


def test_an_array_is_read_whole_once_a_process_and_stays_memory_mapped(root, monkeypatch):
    write("numbers", 7)
    monkeypatch.setattr(cache, "_checked", {})
    sizes, seal = [], cache._seal
    monkeypatch.setattr(cache, "_seal", lambda path, size: sizes.append(size) or seal(path, size))
    for _ in range(3):
        assert isinstance(read_array("numbers"), np.memmap)
    assert sizes == [(cache_folder() / "numbers.npy").stat().st_size - cache._SEAL]
    os.utime(cache_folder() / "numbers.npy", (1e9, 1e9))  # touched by another
    assert (read_array("numbers") == 7).all()
    assert len(sizes) == 2


@pytest.mark.parametrize("damage", [cut, lose_a_stretch, drop_the_seal, empty])
def test_a_damaged_array_is_not_believed(root, damage):
    write("numbers", 7)
    assert (read_array("numbers") == 7).all()
    damage(cache_folder() / "numbers.npy")
    assert read_array("numbers") is None
    assert not (cache_folder() / "numbers.npy").exists()


def test_what_was_not_used_for_the_longest_goes_first(root, monkeypatch):
    for age, name in enumerate(("new", "middle", "old")):
        write(name, 1, n=400_000)
        os.utime(cache_folder() / f"{name}.npy", (1e9 - age, 1e9 - age))
    monkeypatch.setattr(cache, "_used", set())  # as another process sees them
    read_array("old")  # now the last that was used
    monkeypatch.setattr(cache, "_used", set())
    monkeypatch.setenv("XRAY_HELPERS_CACHE_GIB", str(1_300_000 / 2**30))
    write("newest", 1, n=400_000)
    assert {path.stem for path in cache_folder().iterdir()} == {"new", "old", "newest"}


def test_what_this_process_uses_is_kept(root, monkeypatch):
    monkeypatch.setenv("XRAY_HELPERS_CACHE_GIB", "1e-6")
    write("one", 1)
    write("two", 2)
    assert (read_array("one") == 1).all()


@pytest.mark.parametrize("limit", ["much", "0", "-1", "nan"])
def test_a_senseless_limit_is_refused(root, monkeypatch, limit):
    monkeypatch.setenv("XRAY_HELPERS_CACHE_GIB", limit)
    with pytest.raises(InputError, match="XRAY_HELPERS_CACHE_GIB"):
        cache.cache_limit()


def test_rows_of_a_released_array_can_still_be_read(root):
    with new_array("squares", (100, 8), np.float32) as store:
        store[:] = np.arange(100)[:, None] ** 2
    rows = RowView(read_array("squares"), np.array([30, 4]))
    release(rows.array)
    assert len(rows) == 2
    assert [row[0] for row in (rows[0], rows[1])] == [900, 16]
