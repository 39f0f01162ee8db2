"""Sets from elsewhere that a study's models are tested on: their names, places, and the history of tests."""

import re
from pathlib import Path
from typing import Any

from xray_helpers.settings import InputError
from xray_helpers.study.files import hash_of, read_json, write_json
from xray_helpers.study.folders import EXTERNAL, LOCAL, resolve_path
from xray_helpers.study.machine import now
from xray_helpers.study.records import sha256_of

HISTORY = "external.json"  # in the folder of a set: every test that was run, appended to
RESULTS = "results.json"  # in the folder of a set: what the pages of the study show
STATE = "state.json"  # in the folder of a set: how its last test by the series ended
NOTEBOOK = "06_external_test"
_LOCKED = ("model.keras", "threshold.json")  # of each model: what a test must not change
_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,59}", re.ASCII)


def check_set_name(name: str) -> str:
    """Return the name of an external set.

    Raises
    ------
    InputError
        When it cannot be that of a folder.
    """
    if not _NAME.fullmatch(name):
        raise InputError(
            f"An external set cannot be called {name!r}: name it by up to 60 letters, digits, points, dashes "
            "and underscores, as in --name hospital-b."
        )
    return name


def external_folder(study: Path, name: str) -> Path:
    """Return the folder of an external set in a study, existing or not."""
    return study / EXTERNAL / check_set_name(name)


def external_place(study: Path, name: str, data: str = LOCAL) -> str:
    """Return where an external set lies on this machine; what is given is kept in ``local.json``.

    Parameters
    ----------
    study : Path
    name : str
        Of the set.
    data : str
        A folder or CSV, ``phantoms:hospital-b``, or ``local``: as recorded.

    Raises
    ------
    InputError
        When nothing is recorded, or another place is.
    """
    local = read_json(study / "local.json", default={})
    known = local.get(EXTERNAL, {})
    if data == LOCAL:
        if name not in known:
            raise InputError(f"{study.name} knows no external set {name!r}: say where it lies with --data.")
        return known[name]
    place = resolve_path("data", data)
    if known.get(name, place) != place:
        raise InputError(
            f"{name!r} is another external set of {study.name} already: give this one another --name."
        )
    if name not in known:
        write_json(study / "local.json", local | {EXTERNAL: known | {name: place}})
    return place


def list_external(study: Path) -> list[Path]:
    """Return the folders of the sets on which a study was tested, in order of their names."""
    return sorted(path.parent for path in (study / EXTERNAL).glob(f"*/{RESULTS}"))


def lock_models(study: Path, models: list[str], manifest: str) -> dict[str, Any]:
    """Return what identifies the models that are tested.

    Parameters
    ----------
    study : Path
    models : list of str
    manifest : str
        `parts.manifest_key` of the study.

    Returns
    -------
    dict
        ``models``: of each model the SHA-256 of its files; ``study``: a key of these and of the study's
        images, labels and parts.
    """
    found = {model: {file: sha256_of(study / model / file) for file in _LOCKED} for model in models}
    return {"study": hash_of(manifest, found), "models": found}


def append_history(folder: Path, entry: dict[str, Any]) -> dict[str, Any]:
    """Add a test to the history of a set, with its date, and return the history; nothing is ever removed.

    Each entry holds a hash of the one before it, so that one which is taken out leaves a trace.
    """
    history = read_json(folder / HISTORY, default={"tests": []})
    tests = history["tests"]
    tests.append({"date": now(), "after": hash_of(tests[-1]) if tests else "", **entry})
    write_json(folder / HISTORY, history)
    return history


def read_history(study: Path, fingerprint: str = "", name: str = "") -> list[dict[str, Any]]:
    """Return the tests of a set, and those of the same images under other names, oldest first.

    Parameters
    ----------
    study : Path
    fingerprint : str
        Of the images.
    name : str
        Of the set.

    Returns
    -------
    list of dict
        The entries of `append_history`, with ``set``: its name, and ``intact``: whether it still follows the
        entry that it was written after.
    """
    found = []
    for path in sorted((study / EXTERNAL).glob(f"*/{HISTORY}")):
        before = None
        for entry in read_json(path)["tests"]:
            intact = entry["after"] == (hash_of(before) if before else "")
            before = entry
            if path.parent.name == name or entry.get("data") == fingerprint:
                found.append(entry | {"set": path.parent.name, "intact": intact})
    return sorted(found, key=lambda entry: entry["date"])
