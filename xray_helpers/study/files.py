"""Files of a study: written completely or not at all, and read back with an error a person understands."""

import hashlib
import json
import os
import platform
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from xray_helpers.settings import InputError

if TYPE_CHECKING:
    import pandas as pd
_HERE = hashlib.sha256(platform.node().encode()).hexdigest()[:8]  # this machine, unnamed
_BLOCKS, _BLOCK = 64, 4096  # of a file: what its seal looks at


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Give a temporary file beside `path` to fill; renamed when the block ends well: what exists is whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = temporary_path(path)
    try:
        yield partial
        with open(partial, "rb") as handle:
            os.fsync(handle.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def temporary_path(path: Path) -> Path:
    """Return a name beside `path` for what is not whole yet; it tells whose it is, so that leftovers can be
    swept.
    """
    return path.with_name(f".{_HERE}-{os.getpid()}-{uuid4().hex[:12]}.partial{''.join(path.suffixes[-1:])}")


def sweep_partials(folder: Path) -> None:
    """Delete what a process that was killed left half-written in a folder and the folders in it.

    What a living process of this machine writes stays, and so does for a day what another machine may be
    writing.
    """
    for path in folder.rglob(".*.partial*"):
        host, pid, _ = (*path.name[1:].split("-", 2), "", "")[:3]
        with suppress(OSError):  # another process may sweep too
            touched = path.stat().st_mtime
            mine = host == _HERE and pid.isdigit()
            alive = _lives_since(int(pid), touched) if mine else time.time() - touched < 86_400
            if not alive:
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def _lives_since(pid: int, moment: float) -> bool:
    """Return whether a process runs that was there at a moment already.

    One that ended but was not yet waited for by its parent does not run, nor does one whose number went to
    another.
    """
    import psutil

    try:
        process = psutil.Process(pid)
        return (
            process.status() != psutil.STATUS_ZOMBIE and process.create_time() < moment + 60
        )  # clocks are set
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:
        return True


def list_complete_files(folder: Path, *patterns: str) -> list[Path]:
    """Return the files of a folder that match a pattern, sorted, without those that are not whole yet, or
    hidden.
    """
    return sorted(
        path for pattern in patterns for path in folder.glob(pattern) if not path.name.startswith(".")
    )


def write_text(path: Path, text: str) -> Path:
    """Write `text` as UTF-8, whole or not at all."""
    with atomic_write(path) as partial:
        partial.write_text(text, encoding="utf-8")
    return path


def write_json(path: Path, value: Any) -> Path:
    """Write `value` as indented JSON, whole or not at all; NaN is refused."""
    return write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_csv(path: Path, table: "pd.DataFrame") -> Path:
    """Write `table` without its index, whole or not at all; floats keep all their digits."""
    with atomic_write(path) as partial:
        table.to_csv(partial, index=False, lineterminator="\n")
    return path


def read_json(path: Path, *, default: Any = None) -> Any:
    """Read JSON; a missing file gives `default`, or `InputError` where there is none."""
    if not path.exists() and default is not None:
        return default
    return _read(path, lambda: json.loads(path.read_text(encoding="utf-8")))


def read_csv(path: Path) -> "pd.DataFrame":
    """Read a table that `write_csv` wrote; ``path``, ``group`` and the like stay text.

    Raises
    ------
    InputError
        When the step that writes the table has not run, or the file cannot be read.
    """
    import pandas as pd

    text = dict.fromkeys(TEXT_COLUMNS, "string")
    return _type_empty(
        _read(path, lambda: pd.read_csv(path, dtype=text, keep_default_na=False, na_values=[""]))
    )


def build_table(rows: Any, columns: Iterable[str]) -> "pd.DataFrame":
    """Return rows as a table whose columns have the same types whether or not there are rows.

    Those named in `TEXT_COLUMNS` hold text; without rows, all others hold floats.
    """
    import pandas as pd

    table = pd.DataFrame(rows, columns=list(columns))
    return _type_empty(table.astype({name: "string" for name in table.columns if name in TEXT_COLUMNS}))


def _type_empty(table: "pd.DataFrame") -> "pd.DataFrame":
    numbers = [name for name in table.columns if name not in TEXT_COLUMNS]
    return table if len(table) else table.astype(dict.fromkeys(numbers, "float64"))


TEXT_COLUMNS = (  # of all tables of a study
    *(
        "path",
        "label",
        "source_group",
        "patient",
        "group",
        "split",
        "folder_split",
        "sha256",
        "mode",
        "status",
        "reason",
    ),
    *(
        "note",
        "path_a",
        "path_b",
        "sha256_a",
        "sha256_b",
        "kind",
        "decision",
        "transform",
        "action",
        "labels",
        "paths",
    ),
    "boxes",
)


def _read(path: Path, read: Callable[[], Any]) -> Any:
    if not path.exists():
        raise InputError(f"{path.parent.name}/{path.name} is missing: run the notebook that writes it first.")
    try:
        return read()
    except ValueError as error:  # pandas' ParserError is one
        raise InputError(
            f"{path.parent.name}/{path.name} cannot be read ({error}): delete it, run again."
        ) from None


def hash_of(*parts: Any) -> str:
    """Return a short hexadecimal hash of JSON-able values: the key of a cache."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:20]


def sample_checksum(path: Path, size: int | None = None) -> bytes:
    """Return a hash of the length and of blocks all over a file: another file of the same length shows, and
    so does a cut.

    Not all of a large file is read: a change of a few bytes may go unseen.

    Parameters
    ----------
    path : Path
    size : int, optional
        How many of its first bytes are meant; by default all.
    """
    size = path.stat().st_size if size is None else size
    last = max(size - _BLOCK, 0)
    digest = hashlib.sha256(str(size).encode())
    with open(path, "rb") as handle:
        for start in sorted({int(part * (last / (_BLOCKS - 1))) for part in range(_BLOCKS - 1)} | {last}):
            handle.seek(start)
            digest.update(handle.read(min(_BLOCK, size - start)))
    return digest.digest()
