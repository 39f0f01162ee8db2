"""The contract of a study on disk: where it lies, how its files are written and read, where it came from."""

import hashlib
import json
import os
import platform
import re
import shutil
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from xray_helpers.provenance import provenance
from xray_helpers.settings import CLASS_NAMES, InputError, Settings, call_classes

if TYPE_CHECKING:
    import pandas as pd  # a second that a command with nothing to do should not pay for

_PACKAGE_ROOT = Path(__file__).resolve().parents[1]
PHANTOMS = "phantoms"  # the value of `data` that means the embedded synthetic radiographs
_HERE = hashlib.sha256(platform.node().encode()).hexdigest()[:8]  # this machine, unnamed
_BLOCKS, _BLOCK = 64, 4096  # of a file: what its seal looks at
ANSWERS = "study.yaml"  # what a person tells of a study
RUN = ".run.json"  # in a study while a command runs it: whose run it is; touched as a sign of life
SWEEP = "sweep.json"  # in the folder of a sweep: its points and studies
CLASSES = "classes.json"  # in a study: what its data call the classes
LAB = "lab"  # in a study: notebooks of a person's own
_NOISE = re.compile(r"WARNING: All log messages before absl::|[IW]\d{4} \d\d:\d\d:[\d.]+ +\d+ \w+\.cc:")
LOCAL = "local"  # the value of `data` or `weights` that means: where local.json says


def root() -> Path:
    """Return the folder relative paths are meant from: the repository, or ``$XRAY_HELPERS_ROOT``."""
    return Path(os.environ.get("XRAY_HELPERS_ROOT") or _PACKAGE_ROOT)


def notebooks_folder() -> Path:
    """Return the folder of the numbered notebooks: the repository's, or ``$XRAY_HELPERS_NOTEBOOKS`` with your own."""
    return Path(os.environ.get("XRAY_HELPERS_NOTEBOOKS") or _PACKAGE_ROOT / "notebooks")


def from_root(path: str | Path) -> Path:
    """Return `path` as it is when absolute, else from the repository's root."""
    return Path(os.path.normpath(root() / Path(path).expanduser()))


def study_folder(name: str) -> Path:
    """Return the folder of the study `name`, existing or not."""
    return root() / "reports" / name


def find_study(name: str) -> Path:
    """Return the folder of a study that exists, by its name or its folder.

    Raises
    ------
    InputError
        When there is none.
    """
    for folder in (study_folder(name), Path(name)):
        if (folder / "study.json").exists():
            return folder
    known = [study.relative_to(root() / "reports").as_posix() for study in list_folders()]
    raise InputError(
        f"There is no study {name!r} under reports/" + (f": there are {', '.join(known)}." if known else ".")
    )


def list_folders() -> list[Path]:
    """Return the folders of all studies under reports/, also those within a sweep."""
    place = root() / "reports"
    return sorted(path.parent for pattern in ("*/study.json", "*/*/study.json") for path in place.glob(pattern))


def open_study(settings: Settings) -> Path:
    """Return the folder of a study, made where it is missing, with the settings on record.

    Where data and weights lie on this machine goes to ``local.json``, which is never shared;
    ``study.json`` holds the rest. A notebook that is run alone adds to what is there.
    """
    folder = study_folder(settings.name)
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "study.json").exists():
        write_json(folder / "study.json", {"settings": shareable(settings), **provenance()})
    call_classes(read_class_names(folder))
    local = read_json(folder / "local.json", default={})
    for key in ("data", "weights"):
        value = getattr(settings, key)
        if value != LOCAL and key in settings.model_fields_set:
            local[key] = place_of(key, value)
    if local:
        write_json(folder / "local.json", local)
    return folder


def read_class_names(folder: Path) -> tuple[str, str]:
    """Return how a study's data call the negative and the positive class; ``classes.json`` says it, written by 01."""
    names = read_json(folder / CLASSES, default={})
    return names.get("negative", CLASS_NAMES[0]), names.get("positive", CLASS_NAMES[1])


def write_class_names(folder: Path, names: tuple[str, str]) -> None:
    """Write ``classes.json``, and call the classes so from here on."""
    write_json(folder / CLASSES, {"negative": names[0], "positive": names[1]})
    call_classes(names)


def is_private(key: str, value: str) -> bool:
    """Return whether the value of `data` or `weights` is a place on this machine rather than a word."""
    words = {"data": (PHANTOMS,), "weights": ("imagenet", "random", "auto")}[key]
    return value not in words


def place_of(key: str, value: str) -> str:
    """Return the absolute path that `data` or `weights` names, or its word."""
    return str(from_root(value)) if is_private(key, value) else value


def weights_word(weights: str) -> str:
    """Return ``imagenet``, ``random`` or, for a place on this machine, ``local``."""
    return LOCAL if is_private("weights", weights) else weights


def shareable(settings: Settings) -> dict[str, Any]:
    """Return the settings as plain values, places on this machine replaced by the word 'local'."""
    values = settings.model_dump(mode="json")
    for key in ("data", "weights"):
        if is_private(key, values[key]):
            values[key] = LOCAL
    return values


def local_path(folder: Path, key: str, value: str) -> str:
    """Return the value of `data` or `weights`, looked up in the study's ``local.json`` if 'local'.

    Raises
    ------
    InputError
        When the study has no such record: its images or weights were left on another machine.
    """
    if value != LOCAL:
        return value
    local = read_json(folder / "local.json", default={})
    if key not in local:
        raise InputError(
            f"The study {folder.name} does not know where its {key} lies on this machine: give -p {key}=PATH."
        )
    return local[key]


def redact(text: str, study: Path | None = None) -> str:
    """Return `text` with the places of this machine replaced by words such as ``[home]``.

    Parameters
    ----------
    text : str
    study : Path, optional
        Whose data and weights lie where its ``local.json`` says.
    """
    local = read_json(study / "local.json", default={}) if study else {}
    places = {value: f"[{key}]" for key, value in local.items() if os.path.isabs(value)}
    places |= {str(root()): "[project]", str(_PACKAGE_ROOT): "[project]", sys.prefix: "[python]", sys.base_prefix: "[python]",
               tempfile.gettempdir(): "[temporary]", os.path.expanduser("~"): "[home]"}  # fmt: skip
    places[str(Path(os.environ.get("KERAS_HOME") or "~/.keras").expanduser())] = "[keras]"
    for place in sorted(places, key=len, reverse=True):
        for form in dict.fromkeys((place, os.path.realpath(place))):
            if len(form) > 1:
                text = re.sub(rf"{re.escape(form)}(?![\w.-])", places[place], text)
    return text


@contextmanager
def writing(path: Path) -> Iterator[Path]:
    """Give a temporary file beside `path` to fill; renamed when the block ends well: what exists is whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = partial_name(path)
    try:
        yield partial
        with open(partial, "rb") as handle:
            os.fsync(handle.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def partial_name(path: Path) -> Path:
    """Return a name beside `path` for what is not whole yet; it tells whose it is, so that leftovers can be swept."""
    return path.with_name(f".{_HERE}-{os.getpid()}-{uuid4().hex[:12]}.partial{''.join(path.suffixes[-1:])}")


def sweep_partials(folder: Path) -> None:
    """Delete what a process that was killed left half-written in a folder and the folders in it.

    What a living process of this machine writes stays, and so does for a day what another machine may be writing.
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

    One that ended but was not yet waited for by its parent does not run, nor does one whose number went to another.
    """
    import psutil

    try:
        process = psutil.Process(pid)
        return process.status() != psutil.STATUS_ZOMBIE and process.create_time() < moment + 60  # clocks are set
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:
        return True


def list_whole(folder: Path, *patterns: str) -> list[Path]:
    """Return the files of a folder that match a pattern, sorted, without those that are not whole yet, or hidden."""
    return sorted(path for pattern in patterns for path in folder.glob(pattern) if not path.name.startswith("."))


def write_whole(path: Path, write: Callable[[Path], Any]) -> Path:
    """Let `write` fill a temporary file beside `path`, then rename it."""
    with writing(path) as partial:
        write(partial)
    return path


def write_text(path: Path, text: str) -> Path:
    """Write `text` as UTF-8, whole or not at all."""
    return write_whole(path, lambda partial: partial.write_text(text, encoding="utf-8"))


def write_json(path: Path, value: Any) -> Path:
    """Write `value` as indented JSON, whole or not at all; NaN is refused."""
    return write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_csv(path: Path, table: "pd.DataFrame") -> Path:
    """Write `table` without its index, whole or not at all; floats keep all their digits."""
    return write_whole(path, lambda partial: table.to_csv(partial, index=False, lineterminator="\n"))


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
    return _type_empty(_read(path, lambda: pd.read_csv(path, dtype=text, keep_default_na=False, na_values=[""])))


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
    *("note", "path_a", "path_b", "sha256_a", "sha256_b", "kind", "decision", "transform", "action", "labels", "paths"),
    "boxes",
)


def _read(path: Path, read: Callable[[], Any]) -> Any:
    if not path.exists():
        raise InputError(f"{path.parent.name}/{path.name} is missing: run the notebook that writes it first.")
    try:
        return read()
    except ValueError as error:  # pandas' ParserError is one
        raise InputError(f"{path.parent.name}/{path.name} cannot be read ({error}): delete it, run again.") from None


def is_noise(line: str) -> bool:
    """Return whether a line is what TensorFlow says of itself at its start, whatever it is told to keep quiet."""
    return bool(_NOISE.match(line))


def hash_of(*parts: Any) -> str:
    """Return a short hexadecimal hash of JSON-able values: the key of a cache."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:20]


def derive_seed(seed: int, *keys: str | int) -> int:
    """Return the seed of a stream of its own, below 2**32, for each use of a study's seed.

    Parameters
    ----------
    seed : int
        Of the study, not below 0.
    *keys : str or int
        What is drawn, such as ``"folds"``, and which repeat of it. Streams of other keys or other seeds are independent
        (`numpy.random.SeedSequence`), which neighbouring sums of seed and number are not.
    """
    import numpy as np

    words = [zlib.crc32(str(key).encode()) for key in keys]
    return int(np.random.SeedSequence([seed, *words]).generate_state(1)[0])


def seal_of(path: Path, size: int | None = None) -> bytes:
    """Return a hash of the length and of blocks all over a file: another file of the same length shows, and so does a cut.

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


def cores() -> int:
    """Return how many threads this process should compute with: what its series allots, or the machine's cores."""
    allotted = os.environ.get("OMP_NUM_THREADS", "")
    return int(allotted) if allotted.isdigit() and int(allotted) else os.cpu_count() or 1
