"""Files of a study: written completely or not at all, and read back with an error that a user understands."""

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
from xray_helpers.study.tables import column_types, decode_predictions, encode_predictions

if TYPE_CHECKING:
    import pandas as pd
_HOST = hashlib.sha256(platform.node().encode()).hexdigest()[:8]  # this machine, without its name
_DAY = 86_400  # seconds
_BLOCKS, _BLOCK_SIZE = 64, 4096  # of a file: what its sample checksum reads


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a temporary file beside `path`, renamed to `path` if the block succeeds, deleted otherwise."""
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
    """Return an unused name beside `path` that tells machine and process, for `sweep_partials`."""
    return path.with_name(f".{_HOST}-{os.getpid()}-{uuid4().hex[:12]}.partial{''.join(path.suffixes[-1:])}")


def sweep_partials(folder: Path) -> None:
    """Delete temporary files below a folder that were left by processes which no longer run.

    Files of running processes on this machine are kept, and files of other machines for a day.
    """
    for path in folder.rglob(".*.partial*"):
        host, pid, _ = (*path.name[1:].split("-", 2), "", "")[:3]
        with suppress(OSError):  # another process may sweep too
            modified = path.stat().st_mtime
            if host == _HOST and pid.isdigit():
                in_use = _is_running_since(int(pid), modified)
            else:
                in_use = time.time() - modified < _DAY
            if not in_use:
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def _is_running_since(pid: int, moment: float) -> bool:
    """Return whether a process runs that was started before `moment`; its number may have been reused."""
    import psutil

    try:
        process = psutil.Process(pid)
        started = process.create_time() - 60  # the clock may have been set in between
        return process.status() != psutil.STATUS_ZOMBIE and started < moment
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:
        return True


def list_complete_files(folder: Path, *patterns: str) -> list[Path]:
    """Return the files of a folder that match a pattern, sorted, without hidden and temporary ones."""
    found = {path for pattern in patterns for path in folder.glob(pattern)}
    return sorted(path for path in found if not path.name.startswith("."))


def write_text(path: Path, text: str) -> Path:
    """Write `text` as UTF-8."""
    with atomic_write(path) as partial:
        partial.write_text(text, encoding="utf-8")
    return path


def write_json(path: Path, value: Any) -> Path:
    """Write `value` as indented JSON; NaN is refused."""
    return write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_csv(path: Path, table: "pd.DataFrame") -> Path:
    """Write `table` without its index; floats keep all their digits; see `tables.encode_predictions`."""
    with atomic_write(path) as partial:
        encode_predictions(table).to_csv(partial, index=False, lineterminator="\n")
    return path


def read_json(path: Path, *, default: Any = None) -> Any:
    """Read JSON; a missing file gives `default`, or `InputError` where there is none."""
    if not path.exists() and default is not None:
        return default
    return _read(path, lambda: json.loads(path.read_text(encoding="utf-8")))


def read_csv(path: Path) -> "pd.DataFrame":
    """Read a table that `write_csv` wrote, with the types that `study.tables` declares for its columns.

    Of predictions of three or more classes, y_true and y_pred are those of the binary question, and the
    classes stand in class_true and class_pred.

    Raises
    ------
    InputError
        When the step that writes the table has not run, or the file cannot be read.
    """
    import pandas as pd

    types = column_types(path.name, _read(path, lambda: pd.read_csv(path, nrows=0)).columns)
    table = _read(path, lambda: pd.read_csv(path, dtype=types, keep_default_na=False, na_values=[""]))
    return decode_predictions(_set_types(table, types))


def build_table(rows: Any, types: dict[str, str] | Iterable[str]) -> "pd.DataFrame":
    """Return rows as a table whose columns have the same types whether or not there are rows.

    Parameters
    ----------
    rows : list of dict
    types : dict, or iterable of str
        The columns with their types; or their names only, for columns of text that `study.tables`
        declares and columns of numbers.
    """
    import pandas as pd

    table = pd.DataFrame(rows, columns=list(types))
    return _set_types(table, types if isinstance(types, dict) else column_types(""))


def _set_types(table: "pd.DataFrame", types: dict[str, str]) -> "pd.DataFrame":
    undeclared = {} if len(table) else dict.fromkeys(table.columns, "float64")
    return table.astype(undeclared | {name: types[name] for name in table.columns if name in types})


def _read(path: Path, read: Callable[[], Any]) -> Any:
    name = f"{path.parent.name}/{path.name}"
    if not path.exists():
        raise InputError(f"{name} is missing: run the notebook that writes it first.")
    try:
        return read()
    except ValueError as error:  # also the base of pandas' ParserError
        raise InputError(f"{name} cannot be read ({error}): delete it, run again.") from None


def hash_of(*parts: Any) -> str:
    """Return a short hexadecimal hash of JSON-able values, used as a key of the cache."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:20]


def sample_checksum(path: Path) -> bytes:
    """Return a hash of a file's length and of 64 blocks spread over it.

    Another file of the same length is detected; a change of a few bytes in a large file may not be.
    """
    size = path.stat().st_size
    last = max(size - _BLOCK_SIZE, 0)
    digest = hashlib.sha256(str(size).encode())
    with open(path, "rb") as handle:
        for start in sorted({int(part * (last / (_BLOCKS - 1))) for part in range(_BLOCKS - 1)} | {last}):
            handle.seek(start)
            digest.update(handle.read(_BLOCK_SIZE))
    return digest.digest()
