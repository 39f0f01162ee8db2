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

import pandas as pd

from xray_helpers.metrics import describe
from xray_helpers.run_options import Running, part_values
from xray_helpers.scheduling import write_studies
from xray_helpers.series import build_plan, conclude, is_empty, locking, logging_to, prepare, run_plans, whole
from xray_helpers.settings import InputError, Settings, build_settings, check_names
from xray_helpers.shortcut_verdicts import list_controls
from xray_helpers.steps import JUDGE, find_complete, is_alive
from xray_helpers.studies import SWEEP, hash_of, is_private, read_json, study_folder, write_csv, write_json

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
        ``name``; ``sweep``, a mapping of parameters to lists of values; optionally ``profile`` and any other parameters,
        also of `Running`, which hold for all studies. Values listed for ``models`` make a study each.

    Raises
    ------
    InputError
        For what is missing, no list, unknown or out of range.
    """
    lists = values.get("sweep")
    if not isinstance(lists, Mapping) or not lists:
        raise InputError("A sweep's file needs lines such as 'sweep:' and below it 'seed: [1, 2, 3]'.")
    check_names([*(key for key in values if key not in _OWN), *lists], known=Running.model_fields)
    for key, listed in lists.items():
        if key in values:
            raise InputError(f"{key!r} is both swept and given: leave one of them out.")
        if key == "name" or key in Running.model_fields:
            raise InputError(f"{key!r} cannot be swept: it changes no result.")
        if key in ("data", "corrections"):
            raise InputError(f"{key!r} cannot be swept: other images tell no candidates apart; run a study of each.")
        if not isinstance(listed, list) or not listed or len({repr(value) for value in listed}) < len(listed):
            raise InputError(f"sweep: {key} must be a list of different values, such as [1, 2, 3]; it is {listed!r}.")
        if key == "weights" and any(is_private(key, str(value)) for value in listed):
            raise InputError(
                "'weights' can be swept as words alone: a sweep's pages, which can be sent, would name the places."
            )
    count = math.prod(len(listed) for listed in lists.values())
    if count > _MOST:
        raise InputError(f"The sweep has {count} combinations, more than {_MOST}: shorten its lists.")
    fixed, running = part_values({key: value for key, value in values.items() if key not in _OWN})
    name, profile = str(values.get("name") or "sweep"), values.get("profile", "full")
    points, studies = [], []
    for chosen in itertools.product(*lists.values()):
        given = fixed | dict(zip(lists, chosen, strict=True))
        read = build_settings(profile, **given).model_dump(mode="json")
        point = {key: read[key] for key in lists}
        if isinstance(given.get("models"), str) and "models" in lists:
            point["models"] = given["models"]
        points.append(point)
        studies.append(build_settings(profile, **given | {"name": f"{name}/{_folder_of(point)}"}))
    if len({repr(point) for point in points}) < count:
        raise InputError("sweep: a list names a value twice, written differently: leave one of them out.")
    return Sweep(name, points, studies, running)


def _folder_of(point: Mapping[str, Any]) -> str:
    words = ",".join(
        f"{key}={'+'.join(map(str, value)) if isinstance(value, list) else value}" for key, value in point.items()
    )
    plain = re.sub(r"[^\w.,=+-]", "-", words)
    return plain if plain == words and len(plain) < 100 else f"{plain[:80]}-{hash_of(point)[:6]}"


def find_complete_sweep(sweep: Sweep) -> Path | None:
    """Return the ``index.html`` of a sweep all of whose studies are complete as they are asked for; else None."""
    index = study_folder(sweep.name) / "index.html"
    before = read_json(index.with_name(SWEEP), default={"studies": []})["studies"]
    if not index.exists() or before != [study.name for study in sweep.studies]:
        return None
    return index if all(map(find_complete, sweep.studies)) else None


def run_sweep(sweep: Sweep, running: Running, *, overwrite: bool = False) -> Path:
    """Run every study of a sweep; steps that are the same in several run once. Return the sweep's ``index.html``.

    Its page is there from the start, and written again whenever a study has ended.

    Parameters
    ----------
    sweep : Sweep
    running : Running
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
    with whole(folder), ExitStack() as held:
        held.enter_context(locking(folder))
        _check_sweep(folder, sweep.points)
        names = [study.name for study in sweep.studies]
        write_json(folder / SWEEP, {"name": sweep.name, "points": sweep.points, "studies": names})
        for study in settings:
            held.enter_context(locking(study_folder(study.name)))
        held.enter_context(logging_to(folder))
        started = time.monotonic()
        plans = [build_plan(study, running, ask, f"{study.name.split('/')[1]}: ")
                 for study, ask in zip(settings, sweep.studies, strict=True)]  # fmt: skip
        log.info("Sweep %s: %d studies of %s", sweep.name, len(plans), ", ".join(sweep.points[0]))
        try:
            run_plans(plans, running, seen=_seldom(lambda: write_sweep(folder)))
            for plan in plans:
                conclude(plan, time.monotonic() - started)
        finally:
            index = write_sweep(folder)
            write_studies()
        ranking, _ = rank(*tabulate(folder))
        if len(ranking):
            shown = ranking.head(5).round({"validation_auroc": 3, "sd": 3})
            log.info("Candidates, by validation:\n%s", shown.to_string(index=False))
    return index


def _seldom(write: Callable[[], object], share: int = 20) -> Callable[[], None]:
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
    """Write ``sweep.csv`` and the page of a sweep from what is on disk; into `target`, to be sent, where one is given."""
    from xray_helpers.pages import write_sweep_page

    table, swept = tabulate(folder)
    write_csv((target or folder) / "sweep.csv", table)
    ranking, best = rank(table, swept)
    states = _list_states(folder)
    ended = all(state in ("done", "failed") for state in states.values())
    verdict = describe_best(ranking, best, folder, ended=ended)
    missing = {study: state for study, state in states.items() if state != "done"}
    return write_sweep_page(folder, table, ranking, verdict, missing, target=target)


def export_sweep(folder: Path, out: Path, *, images: bool = True, anonymous: bool = False) -> Path:
    """Write what can be sent of a sweep and all its studies into another folder; return its ``index.html``."""
    from xray_helpers.sharing import empty_export, export_study

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


def tabulate(folder: Path) -> tuple[pd.DataFrame, list[str]]:
    """Return a row a study and evaluated model: study, model, the swept values, and what validation says.

    Returns
    -------
    table : DataFrame
        study, model, a column a swept parameter (but models), control (why a study is one, where any is),
        validation_auroc, validation_auroc_low, validation_auroc_high,
        validation_n, epochs_run. No column holds a test score: choosing by one would spoil it.
    swept : list of str
        The parameters.
    """
    rows, sweep = [], read_json(folder / SWEEP)
    for point, name in zip(sweep["points"], sweep["studies"], strict=True):
        place = study_folder(name)
        record = read_json(place / "study.json", default={})
        steps, control = record.get("steps", []), ", ".join(list_controls(record.get("settings", {})))
        for model in (Path(step["name"]).parent.name for step in steps
                      if Path(step["name"]).name == JUDGE and step["state"] == "done"):  # fmt: skip
            found = read_json(place / model / "metrics.json")["validation"]
            swept = {
                key: str(value) if isinstance(value, list) else value for key, value in point.items() if key != "models"
            }
            auroc = found["auroc"]
            seen = {"validation_auroc": auroc["value"], "validation_auroc_low": auroc["ci_low"],
                    "validation_auroc_high": auroc["ci_high"], "validation_n": found["n"],
                    "epochs_run": read_json(place / model / "training.json")["epochs"]}  # fmt: skip
            rows.append({"study": name, "model": model} | swept | {"control": control} | seen)
    table = pd.DataFrame(rows)
    if len(table) and not table["control"].any():
        table = table.drop(columns="control")
    return table, list(sweep["points"][0])


def rank(table: pd.DataFrame, swept: list[str]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Rank what was swept by its mean AUROC on validation over seeds, and return the studies of the best.

    A seed is luck, not a choice: studies that differ by it alone count as one candidate. A control is no candidate: it is
    ranked only where all studies are controls.

    Returns
    -------
    ranking : DataFrame
        model, the swept parameters but seed, validation_auroc (mean), sd (over seeds; missing for one), seeds.
    best : DataFrame
        The rows of `table` that the first row of it is the mean of.
    """
    if not len(table):
        return pd.DataFrame(), table
    if "control" in table and not (table["control"] != "").all():
        table = table[table["control"] == ""]
    keys = ["model", *(key for key in swept if key not in ("seed", "models"))]
    table = table.drop_duplicates([*keys, *({"seed"} & set(swept))])  # a model that stands in several swept lists
    grouped = (
        table.groupby(keys, sort=False, dropna=False)["validation_auroc"].agg(["mean", "std", "size"]).reset_index()
    )
    ranking = grouped.rename(columns={"mean": "validation_auroc", "std": "sd", "size": "seeds"})
    ranking = ranking.sort_values("validation_auroc", ascending=False, kind="stable", ignore_index=True)
    best = table.merge(ranking.loc[[0], keys], on=keys)
    return ranking, best


def describe_best(ranking: pd.DataFrame, best: pd.DataFrame, folder: Path, *, ended: bool = True) -> str:
    """Return in words which candidate validation prefers, and what it reaches on test: the only test scores that are read.

    Before all studies have `ended` none is: the candidate that is first now may not stay it.
    """
    if not len(ranking):
        return "No study of the sweep has been evaluated yet."
    first = ranking.iloc[0]
    keys = [key for key in ranking.columns if key not in ("model", "validation_auroc", "sd", "seeds")]
    what = ", ".join([first["model"], *(f"{key} = {first[key]}" for key in keys)])
    spread = "" if pd.isna(first["sd"]) else f" (standard deviation {first['sd']:.2f} over {first['seeds']} seeds)"
    tied = int((ranking["validation_auroc"] > first["validation_auroc"] - 1e-9).sum())
    among = f"as {tied - 1} more of {len(ranking)} do: it cannot tell them apart" if tied > 1 else (
        f"the best of {len(ranking)} candidates, and as such rather a lucky score")  # fmt: skip
    controls = "control" in best and (best["control"] != "").any()
    chosen = "All of these studies are controls, and none of them is a candidate. " if controls else ""
    chosen += f"Validation prefers {what}: AUROC {first['validation_auroc']:.2f}{spread}, {among}."
    if not ended:
        return f"{chosen} What it reaches on test is told when all studies have ended."
    scores = [read_json(folder.parent / row.study / row.model / "metrics.json") for row in best.itertuples()]
    reached = "; ".join(f"{describe(each['auroc'])}, n = {each['n']}" for each in scores)
    return f"{chosen} On test it reaches {reached}."
