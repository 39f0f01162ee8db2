"""Derived arrays in data/cache: complete or absent, checked on reading, bounded in size, safe to delete."""

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

_MARK = b"XRAY"  # begins a seal, which ends a file: this and a checksum of all bytes before
_SEAL = len(_MARK) + 4
_used: set[Path] = set()  # files that this process reads or wrote, which it does not delete
_checked: dict[Path, tuple[int, int, int]] = {}  # `_state` of the files that this process found intact


def cache_folder() -> Path:
    """Return the folder of derived files, created if missing."""
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
    """Yield an array on disk to fill; it is sealed and takes its name when the block succeeds.

    Parameters
    ----------
    name : str
        Name of the file in `cache_folder`, without its ending: what it holds, and a hash of what that
        depends on.
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
    with suppress(FileNotFoundError):  # another process may have cleared the cache
        _checked[path] = _state(path)
    _used.add(path)
    shrink_cache()


def _reserve(path: Path) -> None:
    """Allocate a file's blocks now: on a full disk, writing to a memory map would kill the process."""
    if hasattr(os, "posix_fallocate"):
        with open(path, "r+b") as handle:
            os.posix_fallocate(handle.fileno(), 0, path.stat().st_size)


def _seal(path: Path, size: int) -> bytes:
    """Return the seal of the first `size` bytes of a file: a mark and their CRC-32."""
    checksum = 0
    with open(path, "rb") as handle:
        while size > 0 and (block := handle.read(min(size, 2**22))):
            checksum, size = zlib.crc32(block, checksum), size - len(block)
    return _MARK + checksum.to_bytes(4, "big")


def _state(path: Path) -> tuple[int, int, int]:
    stat = path.stat()
    return stat.st_ino, stat.st_size, stat.st_mtime_ns


def read_array(name: str) -> np.memmap | None:
    """Return an array of the cache, memory-mapped, or None; a damaged file is deleted.

    The whole file is compared with its checksum when a process first reads it, and again after it was
    touched: less than a second per GB that is in memory. CRC-32 detects every change within 32 bits, and all
    but one in four billion of the others.
    """
    path = cache_folder() / f"{name}.npy"
    try:
        if _checked.get(path) != _state(path) and not _is_intact(path):
            path.unlink(missing_ok=True)
            return None
        os.utime(path)  # the least recently used files are deleted first
        _checked[path] = _state(path)
        _used.add(path)
        return np.load(path, mmap_mode="r")
    except FileNotFoundError:  # never written, or just deleted by another process
        return None


def _is_intact(path: Path) -> bool:
    size = path.stat().st_size - _SEAL
    with open(path, "rb") as handle:
        handle.seek(max(size, 0))
        return size > 0 and handle.read() == _seal(path, size)


class RowView:
    """Selected rows of an array on disk, in a given order, copied only when they are read."""

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
    """Return the cached rows of these contents (sha256), in this order, or None; see `new_rows`."""
    unique, rows = np.unique(np.asarray(ids, "S64"), return_inverse=True)
    array = read_array(f"{kind}-{hash_of(unique.tolist())}")
    return None if array is None else RowView(array, rows)


@contextmanager
def new_rows(
    kind: str, ids: Sequence[str], shape: tuple[int, ...] | Callable[[], tuple[int, ...]], dtype: type
) -> Iterator[tuple[np.memmap, np.ndarray]]:
    r"""Yield an array on disk with one row per content, and which rows to fill; sealed like a `new_array`.

    Rows that other arrays of this kind hold are copied from them, so that another subset or split of the same
    images computes only what is new.

    Parameters
    ----------
    kind : str
        What a row is, with a hash of all it depends on besides the content.
    ids : sequence of str
        The sha256 of each content; rows are in their sorted order, without duplicates.
    shape : tuple of int, or callable that returns it
        Of a row; called only where no other array of this kind is cached.
    dtype

    Yields
    ------
    store : memmap of shape (unique contents, \*shape)
    missing : ndarray of int
        Rows of it to fill.
    """
    unique = np.unique(np.asarray(ids, "S64"))
    name = f"{kind}-{hash_of(unique.tolist())}"
    donors = _read_donors(kind)
    row_shape = donors[0][1].shape[1:] if donors else shape() if callable(shape) else shape
    with new_array(name, (len(unique), *row_shape), dtype) as store:
        missing = np.ones(len(unique), bool)
        for their_ids, array in donors:
            _, ours, theirs = np.intersect1d(
                unique[missing], their_ids, assume_unique=True, return_indices=True
            )
            ours = np.flatnonzero(missing)[ours]
            for start in range(0, len(ours), 1000):
                block = slice(start, start + 1000)
                store[ours[block]] = array[theirs[block]]
                release(store)
                release(array)
            missing[ours] = False
        yield store, np.flatnonzero(missing)
        with new_array(f"{name}.ids", unique.shape, unique.dtype) as index:
            index[:] = unique


def _read_donors(kind: str) -> list[tuple[np.memmap, np.memmap]]:
    """Return the ids and rows of all arrays of a kind."""
    indices = sorted(path.stem for path in cache_folder().glob(f"{kind}-*.ids.npy"))
    pairs = [(read_array(index), read_array(index.removesuffix(".ids"))) for index in indices]
    return [(ids, rows) for ids, rows in pairs if ids is not None and rows is not None]


@contextmanager
def compute_lock(name: str) -> Iterator[None]:
    """Let one process at a time compute what `name` stands for; the next one finds it in the cache."""
    folder = cache_folder() / "locks"
    folder.mkdir(exist_ok=True)
    lock = FileLock(folder / f"{name}.lock")
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
    """Free the memory of the pages of a memory-mapped array that were read; the array stays usable."""
    mapped = getattr(array, "_mmap", None)
    if mapped is not None and hasattr(mmap, "MADV_DONTNEED"):
        mapped.madvise(mmap.MADV_DONTNEED)


def _files() -> list[tuple[Path, os.stat_result]]:
    found = []
    for path in cache_folder().iterdir():
        with suppress(FileNotFoundError):  # another process may delete it
            if path.is_file():
                found.append((path, path.stat()))
    return found


def _kind(path: Path) -> str:
    return path.name.lstrip(".").split("-")[0]


def _is_partial(path: Path) -> bool:
    return ".partial" in path.name


def shrink_cache() -> None:
    """Delete the least recently used files until the cache is within `cache_limit`."""
    files = sorted(_files(), key=lambda item: item[1].st_mtime)
    excess = sum(stat.st_size for _, stat in files) - cache_limit()
    for path, stat in files:
        if excess <= 0:
            return
        if path not in _used and not _is_partial(path):
            path.unlink(missing_ok=True)
            excess -= stat.st_size


def list_cache() -> pd.DataFrame:
    """Return what the cache holds, one row per kind: kind, files, mib, last_used (local time)."""
    rows = [{"kind": _kind(path), "bytes": stat.st_size, "used": stat.st_mtime} for path, stat in _files()]
    kinds = (
        pd.DataFrame(rows, columns=["kind", "bytes", "used"])
        .groupby("kind", as_index=False)
        .agg(files=("used", "size"), mib=("bytes", "sum"), last_used=("used", "max"))
    )
    times = [datetime.fromtimestamp(used).strftime("%Y-%m-%d %H:%M") for used in kinds["last_used"]]
    return kinds.assign(mib=(kinds["mib"] / 2**20).round(1), last_used=times)


def clear_cache(kind: str = "") -> int:
    """Delete the files of one kind of `list_cache`, or all, and return how many.

    Processes that use them go on, and compute them again when they are needed.

    Raises
    ------
    InputError
        When there is no such kind.
    """
    files = [path for path, _ in _files() if not _is_partial(path)]
    chosen = [path for path in files if not kind or _kind(path) == kind]
    if kind and not chosen:
        known = ", ".join(sorted({_kind(path) for path in files})) or "nothing"
        raise InputError(f"data/cache holds no {kind!r}; it holds {known}.")
    for path in chosen:
        path.unlink(missing_ok=True)
    return len(chosen)
