"""data/cache: derived arrays that are whole or absent, checked on reading, bounded in size, safe to delete."""

import hashlib
import mmap
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from xray_helpers.settings import InputError
from xray_helpers.studies import root, writing

_BLOCKS, _BLOCK = 64, 4096  # of a file: what its seal looks at
_SEAL = hashlib.sha256().digest_size
_used: set[Path] = set()  # by this process: never dropped by it


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
        raise InputError(f"XRAY_HELPERS_CACHE_GIB is {text!r}: set it to a number of GiB above 0, such as 50.")
    return int(gib * 2**30)


@contextmanager
def new_array(name: str, shape: tuple[int, ...], dtype: type) -> Iterator[np.memmap]:
    """Give an array on disk to fill; when the block ends without an error, it is sealed and takes its name.

    Parameters
    ----------
    name : str
        Of the file in `cache_folder`, without its ending; names what it holds and a hash of what it depends on.
    shape, dtype
        Of the array.
    """
    path = cache_folder() / f"{name}.npy"
    with writing(path) as partial:
        store = np.lib.format.open_memmap(partial, mode="w+", dtype=dtype, shape=shape)
        yield store
        store.flush()
        with open(partial, "ab") as handle:
            handle.write(_seal(partial, partial.stat().st_size))
    _used.add(path)
    shrink_cache()


def read_array(name: str) -> np.memmap | None:
    """Return an array of the cache, memory-mapped, or None; one that is not as it was written is deleted."""
    path = cache_folder() / f"{name}.npy"
    if not path.exists():
        return None
    size = path.stat().st_size - _SEAL
    with open(path, "rb") as handle:
        handle.seek(max(size, 0))
        if size <= 0 or handle.read() != _seal(path, size):
            path.unlink(missing_ok=True)
            return None
    os.utime(path)  # what is used last is dropped last
    _used.add(path)
    return np.load(path, mmap_mode="r")


def cached_array(name: str, shape: tuple[int, ...], dtype: type, fill: Callable[[np.ndarray], None]) -> np.memmap:
    """Return `read_array` of the name, after `fill` has filled a `new_array` where there is none."""
    known = read_array(name)
    if known is None:
        with new_array(name, shape, dtype) as store:
            fill(store)
        known = read_array(name)
    assert known is not None, "the cache was cleared this very moment"
    return known


class Rows:
    """Some rows of an array on disk, in an order, without a copy of them all."""

    def __init__(self, array: np.ndarray, rows: np.ndarray) -> None:
        self.array, self.rows = array, rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, i: int) -> np.ndarray:
        return np.array(self.array[self.rows[i]])


def release(array: np.ndarray) -> None:
    """Give the memory of the pages read so far of a memory-mapped array back; the array stays usable."""
    mapped = getattr(array, "_mmap", None)
    if mapped is not None and hasattr(mmap, "MADV_DONTNEED"):
        mapped.madvise(mmap.MADV_DONTNEED)


def _seal(path: Path, size: int) -> bytes:
    """Hash of the length and of blocks all over the file: a cut, or a stretch that never reached the disk, shows."""
    digest = hashlib.sha256(str(size).encode())
    with open(path, "rb") as handle:
        for start in sorted({int(at) for at in np.linspace(0, max(size - _BLOCK, 0), _BLOCKS)}):
            handle.seek(start)
            digest.update(handle.read(min(_BLOCK, size - start)))
    return digest.digest()


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
