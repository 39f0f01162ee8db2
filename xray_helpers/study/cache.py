"""data/cache: derived arrays that are whole or absent, checked on reading, bounded in size, safe to
delete.
"""

import mmap
import os
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from filelock import FileLock, Timeout

from xray_helpers.settings import InputError
from xray_helpers.study.files import atomic_write, hash_of
from xray_helpers.study.folders import root

_MARK = b"XRAY"  # begins a seal: the last bytes of a file that lost it are not taken for one
_SEAL = len(_MARK) + 4
_used: set[Path] = set()  # by this process: never dropped by it
_checked: dict[Path, tuple[int, int, int]] = {}  # what this process found whole, as `_state` was then


def cache_folder() -> Path:
    """Return (and make) the folder of derived files, safe to delete."""
    folder = root() / "data" / "cache"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def cache_limit() -> int:
    """Return the most bytes the cache may hold: ``$XRAY_HELPERS_CACHE_GIB`` GiB, 50 by default.

    Raises
    ------
    InputError
        When the variable is no positive number.
    """
    text = os.environ.get("XRAY_HELPERS_CACHE_GIB", "50")
    try:
        gib = float(text)
    except ValueError:
        gib = 0.0
    if not gib > 0:
        raise InputError(
            f"XRAY_HELPERS_CACHE_GIB is {text!r}: set it to a number of GiB above 0, such as 50."
        )
    return int(gib * 2**30)


@contextmanager
def new_array(name: str, shape: tuple[int, ...], dtype: type) -> Iterator[np.memmap]:
    """Give an array on disk to fill; when the block ends without an error, it is sealed and takes its name.

    Parameters
    ----------
    name : str
        Of the file in `cache_folder`, without its ending; names what it holds and a hash of what it depends
        on.
    shape, dtype
        Of the array.
    """
    path = cache_folder() / f"{name}.npy"
    with atomic_write(path) as partial:
        store = np.lib.format.open_memmap(partial, mode="w+", dtype=dtype, shape=shape)
        _reserve(partial)
        yield store
        store.flush()
        with open(partial, "ab") as handle:
            handle.write(_seal(partial, partial.stat().st_size))
    with suppress(FileNotFoundError):  # another process cleared the cache this moment
        _checked[path] = _state(path)
    _used.add(path)
    shrink_cache()


def _reserve(path: Path) -> None:
    """Take the disk's blocks now: a disk that is full is an error here, and a killed process at a page's
    first writing.
    """
    if hasattr(os, "posix_fallocate"):
        with open(path, "r+b") as handle:
            os.posix_fallocate(handle.fileno(), 0, path.stat().st_size)


def _seal(path: Path, size: int) -> bytes:
    """Return what the first `size` bytes of a file are sealed with: a checksum of all of them (CRC-32)."""
    checksum = 0
    with open(path, "rb") as handle:
        while size > 0 and (block := handle.read(min(size, 2**22))):
            checksum, size = zlib.crc32(block, checksum), size - len(block)
    return _MARK + checksum.to_bytes(4, "big")


def _state(path: Path) -> tuple[int, int, int]:
    stat = path.stat()
    return stat.st_ino, stat.st_size, stat.st_mtime_ns


def read_array(name: str) -> np.memmap | None:
    """Return an array of the cache, memory-mapped, or None; one that is not as it was written is deleted.

    All of it is read and compared with its checksum the first time a process asks, and again where the file
    was touched since: less than a second a GB in memory, else what the disk takes. CRC-32 finds every change
    within 32 bits, and all but one in four billion of the others.
    """
    path = cache_folder() / f"{name}.npy"
    try:
        return _read_sealed(path)
    except FileNotFoundError:  # never there, or dropped this moment by another process
        return None


def _read_sealed(path: Path) -> np.memmap | None:
    if _checked.get(path) != _state(path):
        size = path.stat().st_size - _SEAL
        with open(path, "rb") as handle:
            handle.seek(max(size, 0))
            if size <= 0 or handle.read() != _seal(path, size):
                path.unlink(missing_ok=True)
                return None
    os.utime(path)  # what is used last is dropped last
    _checked[path] = _state(path)
    _used.add(path)
    return np.load(path, mmap_mode="r")


class RowView:
    """Some rows of an array on disk, in an order, without a copy of them all; `np.asarray` makes one."""

    def __init__(self, array: np.ndarray, rows: np.ndarray) -> None:
        self.array, self.rows = array, rows
        self.shape, self.dtype = (len(rows), *array.shape[1:]), array.dtype

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, at: Any) -> np.ndarray:
        return np.array(self.array[self.rows[at]])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self[:], dtype=dtype)  # a copy already


def read_rows(kind: str, ids: Sequence[str]) -> RowView | None:
    """Return the cached row of each content (sha256), in this order, or None; see `new_rows`."""
    known, rows = np.unique(np.asarray(ids, "S64"), return_inverse=True)
    array = read_array(f"{kind}-{hash_of(known.tolist())}")
    return None if array is None else RowView(array, rows)


@contextmanager
def new_rows(
    kind: str, ids: Sequence[str], shape: tuple[int, ...] | Callable[[], tuple[int, ...]], dtype: type
) -> Iterator[tuple[np.memmap, np.ndarray]]:
    r"""Give an array on disk with a row a content, and which rows have to be filled; sealed like a
    `new_array`.

    Rows that another array of this kind holds are there already: another subset or split of the same images
    computes only what is new.

    Parameters
    ----------
    kind : str
        What a row is, with a hash of all it depends on besides the content.
    ids : sequence of str
        A sha256 a row; rows are in their sorted order, each content once.
    shape : tuple of int, or callable that returns it
        Of a row; called only where no other array of this kind tells.
    dtype

    Yields
    ------
    store : memmap of shape (different contents, \*shape)
    missing : ndarray of int
        Rows of it that are not filled.
    """
    known = np.unique(np.asarray(ids, "S64"))
    name = f"{kind}-{hash_of(known.tolist())}"
    donors = [
        (read_array(path.stem), read_array(path.stem.removesuffix(".ids")))
        for path in sorted(cache_folder().glob(f"{kind}-*.ids.npy"))
    ]
    donors = [pair for pair in donors if pair[0] is not None and pair[1] is not None]
    row = donors[0][1].shape[1:] if donors else shape() if callable(shape) else shape
    with new_array(name, (len(known), *row), dtype) as store:
        missing = np.ones(len(known), bool)
        for theirs, array in donors:
            _, mine, rows = np.intersect1d(known[missing], theirs, assume_unique=True, return_indices=True)
            mine = np.flatnonzero(missing)[mine]
            for start in range(0, len(mine), 1000):
                store[mine[start : start + 1000]] = array[rows[start : start + 1000]]
                release(store)
                release(array)
            missing[mine] = False
        yield store, np.flatnonzero(missing)
        with new_array(f"{name}.ids", known.shape, known.dtype) as index:
            index[:] = known


@contextmanager
def compute_lock(name: str) -> Iterator[None]:
    """Let one process at a time compute what `name` stands for; the next finds it in the cache."""
    place = cache_folder() / "locks"
    place.mkdir(exist_ok=True)
    lock = FileLock(place / f"{name}.lock")
    try:
        lock.acquire(timeout=1)
    except Timeout:
        print("waiting for another step or study that computes the same …", flush=True)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def release(array: np.ndarray) -> None:
    """Give the memory of the pages read so far of a memory-mapped array back; the array stays usable."""
    mapped = getattr(array, "_mmap", None)
    if mapped is not None and hasattr(mmap, "MADV_DONTNEED"):
        mapped.madvise(mmap.MADV_DONTNEED)


def _files() -> list[tuple[Path, os.stat_result]]:
    found = []
    for path in cache_folder().iterdir():
        if path.is_file():
            try:
                found.append((path, path.stat()))
            except FileNotFoundError:  # another process dropped it
                continue
    return found


def shrink_cache() -> None:
    """Delete the files that were not used for the longest until the cache is within `cache_limit`."""
    files = sorted(_files(), key=lambda item: item[1].st_mtime)
    excess = sum(stat.st_size for _, stat in files) - cache_limit()
    for path, stat in files:
        if excess <= 0:
            return
        if path not in _used and ".partial" not in path.name:
            path.unlink(missing_ok=True)
            excess -= stat.st_size


def list_cache() -> pd.DataFrame:
    """Return what the cache holds: kind, files, mib, last_used (local time), a kind a row."""
    rows = [
        {"kind": path.name.lstrip(".").split("-")[0], "bytes": s.st_size, "used": s.st_mtime}
        for path, s in _files()
    ]
    table = pd.DataFrame(rows, columns=["kind", "bytes", "used"])
    kinds = (
        table.groupby("kind")
        .agg(files=("kind", "size"), bytes=("bytes", "sum"), used=("used", "max"))
        .reset_index()
    )
    kinds["mib"] = (kinds["bytes"] / 2**20).round(1)
    kinds["last_used"] = [datetime.fromtimestamp(used).strftime("%Y-%m-%d %H:%M") for used in kinds["used"]]
    return kinds[["kind", "files", "mib", "last_used"]]


def clear_cache(kind: str = "") -> int:
    """Delete the files of one kind of `list_cache`, or all; return how many. Runs that use them go on, and
    remake them.

    Raises
    ------
    InputError
        When there is no such kind.
    """
    files = [path for path, _ in _files() if ".partial" not in path.name]  # those are being written
    chosen = [path for path in files if not kind or path.name.lstrip(".").split("-")[0] == kind]
    if kind and not chosen:
        known = ", ".join(sorted({path.name.lstrip(".").split("-")[0] for path in files})) or "nothing"
        raise InputError(f"data/cache holds no {kind!r}; it holds {known}.")
    for path in chosen:
        path.unlink(missing_ok=True)
    return len(chosen)
