"""Whether a step is done: its key, what that is made of, and its record."""

import json
from pathlib import Path
from typing import Any

from xray_helpers.runner.fingerprints import (
    fingerprint_source,
    fingerprint_weight_set,
    hash_notebook,
    hash_package,
    hash_source,
)
from xray_helpers.runner.graph import Step, build_steps, notebook_parameters
from xray_helpers.settings import InputError, Settings
from xray_helpers.study.external import external_place
from xray_helpers.study.federations import federation_places
from xray_helpers.study.files import hash_of, read_json, write_json
from xray_helpers.study.folders import notebooks_folder, shareable, study_folder
from xray_helpers.study.records import is_as_written, read_done, sha256_of

READING = ("depth", "resize", "truncated", "other_modalities")


def record_path(step: Step, folder: Path) -> Path:
    """Return where the record of a step that is done lies."""
    return folder / f"{step.name}.done.json"


def read_record(step: Step, folder: Path) -> dict[str, Any]:
    """Return the record of a step that is done; an empty one where it is not, or cannot be read."""
    return read_done(record_path(step, folder))


def step_inputs(step: Step, steps: list[Step], settings: Settings, folder: Path) -> dict[str, Any]:
    """Return all that decides what a step writes; `hash_of` it is the step's key.

    Its notebook's cells, the package's source, its parameters but for the study's name, and the hashes of
    what it reads: the files of all steps before it that are done, and images, corrections and weights from
    outside.
    """
    reads = {
        file: entry["sha256"]
        for earlier in _ancestors(step, steps)
        if "shard" not in earlier.parameters
        for file, entry in read_record(earlier, folder).get("wrote", {}).items()
    }
    values = shareable(settings)
    parameters = {key: value for key, value in notebook_parameters(step, settings).items() if key != "name"}
    parameters |= {key: values[key] for key in READING}  # every step reads pictures as 01 does
    outside = {
        key: fingerprint_source(key, parameters[key], folder)
        for key in ("data", "weights", "sources", "corrections", "readers")
        if parameters.get(key)
    }
    if parameters.get("external"):
        place = external_place(folder, parameters["external"])
        outside["external_data"] = fingerprint_source("data", place, folder)
    if parameters.get("federated"):
        for site, place in federation_places(folder, parameters["federated"]).items():
            outside[f"site {site}"] = fingerprint_source("data", place, folder)
    if parameters.get("model") and "weights" in outside:
        outside["weights"] += fingerprint_weight_set(parameters["model"], parameters["weights"], folder)
    return {
        "notebook": hash_notebook(notebooks_folder() / f"{step.notebook}.ipynb"),
        "package": hash_package(),
        "parameters": json.loads(json.dumps(parameters)),
        "reads": reads | outside,
    }


def why_rerun(step: Step, steps: list[Step], settings: Settings, folder: Path) -> str:
    """Return why a step has to be done, in a few words; an empty string where its record and files still
    hold.
    """
    record = read_record(step, folder)
    if not record:
        return "not done yet"
    lost = [file for file, entry in record["wrote"].items() if not is_as_written(folder / file, entry)]
    lost += [end for end in (".ipynb", ".html") if not (folder / f"{step.name}{end}").exists()]
    if lost:
        return f"{lost[0].split('/')[-1]} is missing or was changed"
    return _compare(record["made_of"], step_inputs(step, steps, settings, folder))


def _compare(before: dict[str, Any], after: dict[str, Any]) -> str:
    if before == after:
        return ""
    for part, words in (("notebook", "its notebook changed"), ("package", "the package changed")):
        if before.get(part) != after[part]:
            return words
    for part in ("parameters", "reads"):
        old, new = before.get(part, {}), after[part]
        changed = sorted(key for key in old.keys() | new.keys() if old.get(key) != new.get(key))
        if changed and part == "parameters":
            return ", ".join(f"{key} was {old.get(key)!r}, is {new.get(key)!r}" for key in changed[:3])
        if changed:
            return f"{', '.join(changed[:3])} changed"
    return "its record is of another kind"


def find_change(what: dict[str, Any], notebook: Path) -> str:
    """Return a sentence if package or notebook changed since the step was requested, else an empty one."""
    for part, words, now in (
        ("package", "The package", hash_source()),
        ("notebook", "The notebook", hash_notebook(notebook)),
    ):
        if what.get(part, now) != now:
            return f"{words} is not what it was when the step was asked for: run the same command again."
    return ""


def write_record(
    name: str, folder: Path, writes: list[str], what: dict[str, Any], facts: dict[str, Any]
) -> None:
    """Write ``<step>.done.json``, the last thing a step does: its key, what that is made of, and hashes of
    its files.
    """
    wrote = {}
    for file in writes:
        stat = (folder / file).stat()
        wrote[file] = {
            "sha256": sha256_of(folder / file),
            "bytes": stat.st_size,
            "mtime_ns": stat.st_mtime_ns,
        }
    write_json(folder / f"{name}.done.json", {"key": hash_of(what), "made_of": what, "wrote": wrote, **facts})


def find_complete(settings: Settings) -> Path | None:
    """Return the ``index.html`` of a study all of whose steps are done as these settings ask; else None.
    Takes less than a second.

    Parameters
    ----------
    settings : Settings
        As they were asked for: ``weights='auto'`` is what it was found to be when the study began.
    """
    folder = study_folder(settings.name)
    settled = resolve_settings(settings)
    index = folder / "index.html"
    if settled is None or not index.exists() or read_json(folder / "study.json").get("state") != "done":
        return None
    try:
        steps = build_steps(settled.models)
        return None if any(why_rerun(step, steps, settled, folder) for step in steps) else index
    except (OSError, ValueError, InputError):  # images that are gone, another table: said by `prepare`
        return None


def resolve_settings(settings: Settings) -> Settings | None:
    """Return the settings with the stored places of data and weights, or None if the study was asked for with
    other settings.
    """
    folder = study_folder(settings.name)
    local = read_json(folder / "local.json", default={})
    if not (folder / "study.json").exists() or local.get("asked") != hash_of(
        settings.model_dump(mode="json")
    ):
        return None
    places = {key: local[key] for key in ("data", "weights") if key in local}
    return settings.model_copy(update=places)


def _ancestors(step: Step, steps: list[Step]) -> list[Step]:
    names, found = set(step.needs), []
    for other in reversed(steps):
        if other.name in names:
            names |= set(other.needs)
            found.append(other)
    return found
