"""Where things lie: the repository, its studies, and what a study calls its data and weights."""

import os
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

from xray_helpers.settings import CLASS_NAMES, InputError, Settings, call_classes
from xray_helpers.study.files import read_json, write_json
from xray_helpers.study.machine import provenance

_PACKAGE_ROOT = Path(__file__).resolve().parents[2]
PHANTOMS = "phantoms"  # the value of `data` that means the embedded synthetic radiographs
ANSWERS = "study.yaml"  # what a person tells of a study
RUN = ".run.json"  # in a study while a command runs it: whose run it is; touched as a sign of life
SWEEP = "sweep.json"  # in the folder of a sweep: its points and studies
CLASSES = "classes.json"  # in a study: what its data call the classes
LAB = "lab"  # in a study: notebooks of a person's own
LOCAL = "local"  # the value of `data` or `weights` that means: where local.json says


def root() -> Path:
    """Return the folder relative paths are meant from: the repository, or ``$XRAY_HELPERS_ROOT``."""
    return Path(os.environ.get("XRAY_HELPERS_ROOT") or _PACKAGE_ROOT)


def notebooks_folder() -> Path:
    """Return the folder of the numbered notebooks: the repository's, or ``$XRAY_HELPERS_NOTEBOOKS`` with your
    own.
    """
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
    return sorted(
        path.parent for pattern in ("*/study.json", "*/*/study.json") for path in place.glob(pattern)
    )


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
            local[key] = resolve_path(key, value)
    if local:
        write_json(folder / "local.json", local)
    return folder


def read_class_names(folder: Path) -> tuple[str, str]:
    """Return how a study's data call the negative and the positive class; ``classes.json`` says it, written
    by 01.
    """
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


def resolve_path(key: str, value: str) -> str:
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
    places |= {
        str(root()): "[project]",
        str(_PACKAGE_ROOT): "[project]",
        sys.prefix: "[python]",
        sys.base_prefix: "[python]",
        tempfile.gettempdir(): "[temporary]",
        os.path.expanduser("~"): "[home]",
    }
    places[str(Path(os.environ.get("KERAS_HOME") or "~/.keras").expanduser())] = "[keras]"
    for place in sorted(places, key=len, reverse=True):
        for form in dict.fromkeys((place, os.path.realpath(place))):
            if len(form) > 1:
                text = re.sub(rf"{re.escape(form)}(?![\w.-])", places[place], text)
    return text
