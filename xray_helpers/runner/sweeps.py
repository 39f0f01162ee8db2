"""A study of studies: lists of parameters, every combination a study, judged by validation."""

import itertools
import logging
import math
import re
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

from xray_helpers.runner.options import RunOptions, split_run_options
from xray_helpers.runner.preparation import is_empty, prepare
from xray_helpers.runner.ranking import describe_best, rank, tabulate
from xray_helpers.runner.scheduler import write_studies
from xray_helpers.runner.series import (
    build_plan,
    finish_study,
    locking,
    logging_to,
    report_disk_errors,
    run_plans,
)
from xray_helpers.runner.status import is_alive
from xray_helpers.runner.steps import find_complete
from xray_helpers.settings import InputError, Settings, build_settings, check_names
from xray_helpers.study.files import hash_of, read_json, write_csv, write_json
from xray_helpers.study.folders import SWEEP, is_private, study_folder

log = logging.getLogger("xray_helpers")
_MOST = 1000  # combinations
_OWN = ("name", "profile", "sweep")  # keys of a sweep's file that are no parameters


class Sweep(NamedTuple):
    """Studies of one purpose.

    Attributes
    ----------
    name : str
    points : list of dict
        The swept values of each study.
    studies : list of Settings
        Named ``<name>/<values>``.
    running : dict
        What says how it is run.
    """

    name: str
    points: list[dict[str, Any]]
    studies: list[Settings]
    running: dict[str, Any]


def read_sweep(values: Mapping[str, Any]) -> Sweep:
    """Turn what a sweep's file holds into studies.

    Parameters
    ----------
    values : mapping
        ``name``; ``sweep``, a mapping of parameters to lists of values; optionally ``profile`` and any other
        parameters, also of `Running`, which hold for all studies. Values listed for ``models`` make a study
        each.

    Raises
    ------
    InputError
        For what is missing, no list, unknown or out of range.
    """
    lists = values.get("sweep")
    if not isinstance(lists, Mapping) or not lists:
        raise InputError("A sweep's file needs lines such as 'sweep:' and below it 'seed: [1, 2, 3]'.")
    check_names([*(key for key in values if key not in _OWN), *lists], known=RunOptions.model_fields)
    for key, listed in lists.items():
        if key in values:
            raise InputError(f"{key!r} is both swept and given: leave one of them out.")
        if key == "name" or key in RunOptions.model_fields:
            raise InputError(f"{key!r} cannot be swept: it changes no result.")
        if key in ("data", "corrections"):
            raise InputError(
                f"{key!r} cannot be swept: other images tell no candidates apart; run a study of each."
            )
        if not isinstance(listed, list) or not listed or len({repr(value) for value in listed}) < len(listed):
            raise InputError(
                f"sweep: {key} must be a list of different values, such as [1, 2, 3]; it is {listed!r}."
            )
        if key == "weights" and any(is_private(key, str(value)) for value in listed):
            raise InputError(
                "'weights' can be swept as words alone: a sweep's pages, which can be sent, would name the "
                "places."
            )
    count = math.prod(len(listed) for listed in lists.values())
    if count > _MOST:
        raise InputError(f"The sweep has {count} combinations, more than {_MOST}: shorten its lists.")
    fixed, running = split_run_options({key: value for key, value in values.items() if key not in _OWN})
    name, profile = str(values.get("name") or "sweep"), values.get("profile", "full")
    points, studies = [], []
    for chosen in itertools.product(*lists.values()):
        given = fixed | dict(zip(lists, chosen, strict=True))
        read = build_settings(profile, **given).model_dump(mode="json")
        point = {key: read[key] for key in lists}
        if isinstance(given.get("models"), str) and "models" in lists:
            point["models"] = ", ".join(read["models"])  # names, not places on this machine
        points.append(point)
        studies.append(build_settings(profile, **given | {"name": f"{name}/{_folder_of(point)}"}))
    if len({repr(point) for point in points}) < count:
        raise InputError("sweep: a list names a value twice, written differently: leave one of them out.")
    return Sweep(name, points, studies, running)


def _folder_of(point: Mapping[str, Any]) -> str:
    words = ",".join(
        f"{key}={'+'.join(map(str, value)) if isinstance(value, list) else value}"
        for key, value in point.items()
    )
    plain = re.sub(r"[^\w.,=+-]", "-", words)
    return plain if plain == words and len(plain) < 100 else f"{plain[:80]}-{hash_of(point)[:6]}"


def find_complete_sweep(sweep: Sweep) -> Path | None:
    """Return the ``index.html`` of a sweep all of whose studies are complete as they are asked for; else
    None.
    """
    index = study_folder(sweep.name) / "index.html"
    before = read_json(index.with_name(SWEEP), default={"studies": []})["studies"]
    if not index.exists() or before != [study.name for study in sweep.studies]:
        return None
    return index if all(map(find_complete, sweep.studies)) else None


def run_sweep(sweep: Sweep, running: RunOptions, *, overwrite: bool = False) -> Path:
    """Run every study of a sweep; steps that are the same in several run once. Return the sweep's
    ``index.html``.

    Its page is there from the start, and written again whenever a study has ended.

    Parameters
    ----------
    sweep : Sweep
    running : RunOptions
    overwrite : bool
        Go on although studies of these names have other settings.

    Raises
    ------
    InputError, StoppedError, KeyboardInterrupt
        As `series.run_study`.
    """
    folder = study_folder(sweep.name)
    if not (folder / SWEEP).exists() and not is_empty(folder):
        raise InputError(f"reports/{sweep.name} holds files that are no sweep: give it another name.")
    settings = [prepare(study, overwrite=overwrite) for study in sweep.studies]
    with report_disk_errors(folder), ExitStack() as held:
        held.enter_context(locking(folder))
        _check_sweep(folder, sweep.points)
        names = [study.name for study in sweep.studies]
        write_json(folder / SWEEP, {"name": sweep.name, "points": sweep.points, "studies": names})
        for study in settings:
            held.enter_context(locking(study_folder(study.name)))
        held.enter_context(logging_to(folder))
        started = time.monotonic()
        plans = [
            build_plan(study, running, ask, f"{study.name.split('/')[1]}: ")
            for study, ask in zip(settings, sweep.studies, strict=True)
        ]
        log.info("Sweep %s: %d studies of %s", sweep.name, len(plans), ", ".join(sweep.points[0]))
        try:
            run_plans(plans, running, on_study_end=_limit_time_share(lambda: write_sweep(folder)))
            for plan in plans:
                finish_study(plan, time.monotonic() - started)
        finally:
            index = write_sweep(folder)
            write_studies()
        ranking, _ = rank(*tabulate(folder))
        if len(ranking):
            shown = ranking.head(5).round({"validation_auroc": 3, "sd": 3})
            log.info("Candidates, by validation:\n%s", shown.to_string(index=False))
    return index


def _limit_time_share(write: Callable[[], object], share: int = 20) -> Callable[[], None]:
    """Return a `write` that takes at most a twentieth of the time: pages of hundreds of studies take long."""
    rest = 0.0

    def maybe() -> None:
        nonlocal rest
        began = time.monotonic()
        if began >= rest:
            write()
            rest = time.monotonic() + share * (time.monotonic() - began)

    return maybe


def _check_sweep(folder: Path, points: list[dict[str, Any]]) -> None:
    """Studies of other points stay on disk; a sweep over other parameters is another one."""
    before = read_json(folder / SWEEP, default={"points": points})["points"]
    if before and list(before[0]) != list(points[0]):
        raise InputError(
            f"reports/{folder.name} is a sweep over {', '.join(before[0])}: "
            f"give this one over {', '.join(points[0])} another name."
        )


def write_sweep(folder: Path, *, target: Path | None = None) -> Path:
    """Write ``sweep.csv`` and the page of a sweep from what is on disk; into `target`, to be sent, where one
    is given.
    """
    from xray_helpers.reports.overview import write_sweep_page

    table, swept = tabulate(folder)
    write_csv((target or folder) / "sweep.csv", table)
    ranking, best = rank(table, swept)
    states = _list_states(folder)
    ended = all(state in ("done", "failed") for state in states.values())
    verdict = describe_best(ranking, best, folder, ended=ended)
    missing = {study: state for study, state in states.items() if state != "done"}
    return write_sweep_page(folder, table, ranking, verdict, missing, target=target)


def export_sweep(folder: Path, out: Path, *, images: bool = True, anonymous: bool = False) -> Path:
    """Write what can be sent of a sweep and all its studies into another folder; return its
    ``index.html``.
    """
    from xray_helpers.reports.sharing import empty_export, export_study

    empty_export(out)
    for name in read_json(folder / SWEEP)["studies"]:
        if (study_folder(name) / "study.json").exists():
            export_study(study_folder(name), out / name.split("/")[1], images=images, anonymous=anonymous)
    return write_sweep(folder, target=out)


def describe_sweep(folder: Path) -> list[str]:
    """Return how far a sweep is: a line a study, and how many are complete."""
    lines, states = [], _list_states(folder)
    width = max(len(name) for name in states)
    for name, state in states.items():
        steps = read_json(study_folder(name) / "study.json", default={}).get("steps", [])
        done = sum(step["state"] == "done" for step in steps)
        lines.append(f"{name:<{width}}  {state:<11}  {done} of {len(steps)} steps done")
    gone = "; its command is gone: the same command goes on from here" if "stopped" in states.values() else ""
    return [*lines, f"{list(states.values()).count('done')} of {len(states)} studies are complete{gone}."]


def _list_states(folder: Path) -> dict[str, str]:
    """Return the state of each study; one that was running when its command was killed is stopped."""
    states = {}
    for name in read_json(folder / SWEEP)["studies"]:
        state = read_json(study_folder(name) / "study.json", default={}).get("state", "waiting")
        states[name] = "stopped" if state == "running" and not is_alive(study_folder(name)) else state
    return states
