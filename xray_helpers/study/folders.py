"""Folders of the repository and its studies, and where a study finds its data and weights."""

import os
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

from xray_helpers.settings import Classes, InputError, Settings, set_classes
from xray_helpers.study.files import read_json, write_json
from xray_helpers.study.machine import provenance

_PACKAGE_ROOT = Path(__file__).resolve().parents[2]
_INSTALLED = Path(__file__).resolve().parents[1] / "notebooks"  # there is one unless this is a checkout
MARK = ".xray-helpers"  # in a folder that `xray-helpers new` has laid out
PHANTOMS = "phantoms"  # the value of `data` that means the embedded synthetic radiographs
FEDERATED = "federated"  # in a study: a folder for each federation of sites
EXTERNAL = "external"  # in a study: a folder for each set from elsewhere that it was tested on
ANSWERS = "study.yaml"  # what a user states about a study
RUN = ".run.json"  # in a study while a command runs it: which process; touched as its heartbeat
SWEEP = "sweep.json"  # in the folder of a sweep: its points and studies
CLASSES = "classes.json"  # in a study: the names of the classes in its data
LAB = "lab"  # in a study: the user's own notebooks
LOCAL = "local"  # the value of `data` or `weights` that means: the path in local.json


def root() -> Path:
    """Return the folder that paths are relative to.

    ``$XRAY_HELPERS_ROOT``; else the nearest folder above the working folder, or that itself, which
    ``xray-helpers new`` has laid out; else the repository, or where the package is installed without it, the
    working folder.
    """
    if os.environ.get("XRAY_HELPERS_ROOT"):
        return Path(os.environ["XRAY_HELPERS_ROOT"])
    here = Path.cwd()
    own = next((folder for folder in (here, *here.parents) if (folder / MARK).exists()), None)
    return own or (here if _INSTALLED.is_dir() else _PACKAGE_ROOT)


def notebooks_folder() -> Path:
    """Return the folder of the numbered notebooks: ``$XRAY_HELPERS_NOTEBOOKS``, one's own, or those given."""
    if os.environ.get("XRAY_HELPERS_NOTEBOOKS"):
        return Path(os.environ["XRAY_HELPERS_NOTEBOOKS"])
    own = root() / "notebooks"
    if (root() / MARK).exists() and own.is_dir():
        return own
    return _INSTALLED if _INSTALLED.is_dir() else _PACKAGE_ROOT / "notebooks"


def from_root(path: str | Path) -> Path:
    """Return the absolute path of `path`, which may be relative to `root`."""
    return Path(os.path.normpath(root() / Path(path).expanduser()))


def study_folder(name: str) -> Path:
    """Return the folder of the study `name`, existing or not."""
    return root() / "reports" / name


def find_study(name: str) -> Path:
    """Return the folder of an existing study, given its name or its folder.

    Raises
    ------
    InputError
        When there is no such study.
    """
    for folder in (study_folder(name), Path(name)):
        if (folder / "study.json").exists():
            return folder
    known = ", ".join(study.relative_to(root() / "reports").as_posix() for study in list_folders())
    hint = f": there are {known}" if known else ""
    raise InputError(f"There is no study {name!r} under reports/{hint}.")


def list_folders() -> list[Path]:
    """Return the folders of all studies under reports/, also those in a sweep."""
    patterns = ("*/study.json", "*/*/study.json")
    return sorted(path.parent for pattern in patterns for path in (root() / "reports").glob(pattern))


def open_study(settings: Settings) -> Path:
    """Return the folder of a study, created if missing, with its settings in ``study.json``.

    Paths of data and weights on this machine go to ``local.json``, which is never shared.
    """
    folder = study_folder(settings.name)
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "study.json").exists():
        write_json(folder / "study.json", {"settings": shareable(settings), **provenance()})
    set_classes(read_classes(folder))
    local = read_json(folder / "local.json", default={})
    for key in ("data", "weights"):
        value = getattr(settings, key)
        if value != LOCAL and key in settings.model_fields_set:
            local[key] = resolve_path(key, value)
    if "localizer" in settings.model_fields_set and is_private_source(settings.localizer):
        local["localizer"] = settings.localizer
    private = {name: place for name, place in settings.sources.items() if is_private_source(place)}
    if private:
        local["sources"] = local.get("sources", {}) | private
    if local:
        write_json(folder / "local.json", local)
    return folder


def read_classes(folder: Path) -> Classes:
    """Return the classes of a study, from its ``classes.json``."""
    found = read_json(folder / CLASSES, default={})
    return Classes(**{key: tuple(v) if isinstance(v, list) else v for key, v in found.items()})


def read_class_names(folder: Path) -> tuple[str, str]:
    """Return a study's names of the negative and the positive class, from its ``classes.json``."""
    return read_classes(folder)[:2]


def write_classes(folder: Path, classes: Classes) -> None:
    """Write ``classes.json``, and use these classes in this process from here on."""
    fields = classes._asdict()
    write_json(folder / CLASSES, {k: v for k, v in fields.items() if k in ("negative", "positive") or v})
    set_classes(classes)


def is_private(key: str, value: str) -> bool:
    """Return whether the value of `data` or `weights` is a path on this machine."""
    keywords = {"data": (PHANTOMS,), "weights": ("imagenet", "random", "auto", "own")}
    return value not in keywords[key] and not (key == "data" and is_phantoms(value))


def is_phantoms(data: str) -> bool:
    """Return whether the value of `data` means synthetic radiographs, such as ``phantoms:hospital-b``."""
    return data == PHANTOMS or data.startswith(f"{PHANTOMS}:")


def resolve_path(key: str, value: str) -> str:
    """Return the absolute path that `data` or `weights` names, or its keyword."""
    return str(from_root(value)) if is_private(key, value) else value


def weights_word(weights: str) -> str:
    """Return ``imagenet``, ``random``, ``auto`` or ``own``, or ``local`` for a path on this machine."""
    return LOCAL if is_private("weights", weights) else weights


def shareable(settings: Settings) -> dict[str, Any]:
    """Return the settings as plain values, with 'local' in place of paths on this machine."""
    values = settings.model_dump(mode="json")
    for key in ("data", "weights"):
        if is_private(key, values[key]):
            values[key] = LOCAL
    if is_private_source(settings.localizer):
        values["localizer"] = LOCAL
    values["sources"] = {
        name: LOCAL if is_private_source(place) else place for name, place in settings.sources.items()
    }
    return values


def is_private_source(source: str) -> bool:
    """Return whether a model comes from a path on this machine, not from a preset's name."""
    kind, _, place = source.partition(":")
    return kind == "file" or (
        kind == "hub" and "://" not in place and ("/" in place or from_root(place).is_dir())
    )


def local_sources(folder: Path, sources: dict[str, str]) -> dict[str, str]:
    """Return where models come from, with the places on this machine, of the study's ``local.json``.

    Raises
    ------
    InputError
        When the study has no such record: the network is on another machine.
    """
    local = read_json(folder / "local.json", default={}).get("sources", {})
    for name, place in sources.items():
        if place == LOCAL and name not in local:
            raise InputError(
                f"The study {folder.name} does not know where {name} lies on this machine: give --models "
                f"{name}=hub:FOLDER or {name}=file:PATH.keras."
            )
    return {name: local[name] if place == LOCAL else place for name, place in sources.items()}


def with_local_sources(folder: Path, settings: Settings) -> Settings:
    """Return settings with `local_sources`."""
    return settings.model_copy(update={"sources": local_sources(folder, settings.sources)})


def local_path(folder: Path, key: str, value: str) -> str:
    """Return the value of `data` or `weights`, looked up in the study's ``local.json`` if 'local'.

    Raises
    ------
    InputError
        When the study has no such record: its images or weights are on another machine.
    """
    if value != LOCAL:
        return value
    local = read_json(folder / "local.json", default={})
    if key not in local:
        raise InputError(
            f"The study {folder.name} does not know where its {key} lies on this machine: give -p {key}=PATH."
        )
    return local[key]


def resolve_source(source: str) -> tuple[str, str]:
    """Return the absolute path that a model comes from, and its options."""
    path, _, options = source.partition(":")[2].partition("?")
    return str(from_root(path)), options


def redact(text: str, study: Path | None = None) -> str:
    """Return `text` with paths of this machine replaced by words such as ``[home]``.

    Parameters
    ----------
    text : str
    study : Path, optional
        A study, to replace the paths of its data and weights as well.
    """
    local = read_json(study / "local.json", default={}) if study else {}
    sources = {
        f"source of {name}": resolve_source(place)[0] for name, place in local.get("sources", {}).items()
    }
    elsewhere = {f"external {name}": place for name, place in local.get(EXTERNAL, {}).items()}
    for places in local.get(FEDERATED, {}).values():
        elsewhere |= {f"site {name}": place for name, place in places.items()}
    texts = {key: path for key, path in local.items() if isinstance(path, str)}
    places = {key: path.removeprefix("hub:") for key, path in texts.items()} | sources | elsewhere
    names = {path: f"[{key}]" for key, path in places.items() if os.path.isabs(path)}
    names |= {
        str(root()): "[project]",
        str(_PACKAGE_ROOT): "[project]",
        sys.prefix: "[python]",
        sys.base_prefix: "[python]",
        tempfile.gettempdir(): "[temporary]",
        os.path.expanduser("~"): "[home]",
        str(Path(os.environ.get("KERAS_HOME") or "~/.keras").expanduser()): "[keras]",
    }
    for path in sorted(names, key=len, reverse=True):
        for form in dict.fromkeys((path, os.path.realpath(path))):
            if len(form) > 1:
                text = re.sub(rf"{re.escape(form)}(?![\w.-])", names[path], text)
    return text
