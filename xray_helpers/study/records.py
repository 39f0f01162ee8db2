"""Records of completed steps: whether the files are as they were written, and which results are outdated."""

import hashlib
import json
from pathlib import Path
from typing import Any

STALE = "stale"  # the state of a step that is done, but read files that have changed since


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, hexadecimal."""
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def is_as_written(path: Path, entry: dict[str, Any]) -> bool:
    """Return whether a file still agrees with a record's entry (sha256, bytes, mtime_ns)."""
    try:
        stat = path.stat()
        if stat.st_size != entry["bytes"]:
            return False
        return stat.st_mtime_ns == entry["mtime_ns"] or sha256_of(path) == entry["sha256"]
    except (OSError, KeyError):
        return False


def read_done(path: Path) -> dict[str, Any]:
    """Return the content of a ``*.done.json``; an empty record if it is missing or unreadable."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) and {"made_of", "wrote"} <= record.keys() else {}


def mark_stale(study: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return the content of ``study.json`` with `STALE` for steps whose input files have changed since.

    This happens when an earlier notebook is run again by hand. The state of a study that is done becomes
    `STALE` as well.
    """
    if "steps" not in study:
        return study
    records = {step["name"]: read_done(folder / f"{step['name']}.done.json") for step in study["steps"]}
    written = {file: entry for record in records.values() for file, entry in record.get("wrote", {}).items()}
    current = {
        file: entry["sha256"] if is_as_written(folder / file, entry) else "changed"
        for file, entry in written.items()
    }
    steps = []
    for step in study["steps"]:
        reads = records[step["name"]].get("made_of", {}).get("reads", {})
        changed = sorted(file for file, sha256 in reads.items() if current.get(file, sha256) != sha256)
        if step["state"] == "done" and changed:
            message = (
                f"{changed[0]} was changed since: run the study's command again, or this notebook and "
                "those that follow it"
            )
            step = step | {"state": STALE, "error": message}
        steps.append(step)
    stale = study.get("state") == "done" and any(step["state"] == STALE for step in steps)
    return study | {"steps": steps} | ({"state": STALE} if stale else {})
