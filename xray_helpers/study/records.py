"""What a study's records say of its files: whether they are as they were written, and which results are out
of date.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

STALE = "stale"  # the state of a step that is done, but with files that have changed since


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, hexadecimal."""
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def is_as_written(path: Path, entry: dict[str, Any]) -> bool:
    """Return whether a file still is what a record's entry (sha256, bytes, mtime_ns) says of it."""
    try:
        stat = path.stat()
        if stat.st_size != entry["bytes"]:
            return False
        return stat.st_mtime_ns == entry["mtime_ns"] or sha256_of(path) == entry["sha256"]
    except (OSError, KeyError):
        return False


def read_done(path: Path) -> dict[str, Any]:
    """Return a ``*.done.json``; an empty record where it is not there, or cannot be read."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) and {"made_of", "wrote"} <= record.keys() else {}


def mark_stale(study: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return the content of ``study.json`` with those steps marked `STALE` that read files which were changed
    since.

    So it is after a notebook was run by hand, with corrections for instance: what came after it belongs to
    the files of before. The study's own state is then `STALE` too, unless a command runs it.
    """
    records = {
        step["name"]: read_done(folder / f"{step['name']}.done.json") for step in study.get("steps", [])
    }
    wrote = {file: entry for record in records.values() for file, entry in record.get("wrote", {}).items()}
    now = {
        file: entry["sha256"] if is_as_written(folder / file, entry) else "changed"
        for file, entry in wrote.items()
    }
    steps = []
    for step in study.get("steps", []):
        reads = records[step["name"]].get("made_of", {}).get("reads", {})
        changed = sorted(file for file, sha256 in reads.items() if now.get(file, sha256) != sha256)
        if step["state"] == "done" and changed:
            told = (
                f"{changed[0]} was changed since: run the study's command again, or this notebook and "
                "what follows it"
            )
            step = step | {"state": STALE, "error": told}
        steps.append(step)
    stale = study.get("state") == "done" and any(step["state"] == STALE for step in steps)
    return study | ({"steps": steps} if "steps" in study else {}) | ({"state": STALE} if stale else {})
