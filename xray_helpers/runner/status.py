"""How far a study is, and whether a command runs it now."""

import time
from datetime import datetime
from pathlib import Path

from xray_helpers.study.files import read_json
from xray_helpers.study.folders import RUN
from xray_helpers.study.records import STALE, mark_stale

_SILENT = 60  # seconds; a command that runs a study gives a sign of life every five


def describe_status(folder: Path) -> list[str]:
    """Return how far a study is, in lines: what its steps did, how long, and whether it runs now."""
    study = mark_stale(read_json(folder / "study.json"), folder)
    steps, lines = study.get("steps", []), []
    width = max((len(step["name"]) for step in steps), default=0)
    for step in steps:
        seconds = step.get("seconds")
        if step["state"] == "running":
            seconds = (datetime.now().astimezone() - datetime.fromisoformat(step["started"])).total_seconds()
        took = "" if seconds is None else f"{seconds:.0f} s"
        lines.append(
            f"{step['name']:<{width}}  {step['state']:<11}  {took:>7}  {step.get('error', '')}".rstrip()
        )
    done = sum(step["state"] == "done" for step in steps)
    return [
        *lines,
        f"{done} of {len(steps)} steps done; {_describe_run(folder, study.get('state', 'by hand'))}.",
    ]


def is_alive(folder: Path) -> bool:
    """Return whether a command is at a study now, as far as its signs of life tell."""
    mark = folder / RUN
    return mark.exists() and time.time() - mark.stat().st_mtime < _SILENT


def _describe_run(folder: Path, state: str) -> str:
    mark = folder / RUN
    if state == "running" and mark.exists():
        silence = time.time() - mark.stat().st_mtime
        if is_alive(folder):
            return f"it runs since {read_json(mark)['since'][:16].replace('T', ' ')}"
        return f"its command gave no sign of life for {silence / 60:.0f} min: run the same command again"
    return {
        STALE: "it is stale: a notebook was run by hand since; the same command does again what that changed",
        "done": "it is complete",
        "failed": "it ended, not complete: the same command tries again what failed",
        "interrupted": "it was interrupted: the same command goes on from here",
        "running": "its command is gone: the same command goes on from here",
    }.get(state, state)
