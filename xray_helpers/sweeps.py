"""A study of studies: lists of parameters, every combination a study, judged by validation."""

import itertools
import logging
import re
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pandas as pd

from xray_helpers.scheduling import Plan
from xray_helpers.series import build_plan, conclude, is_empty, locking, logging_to, prepare, run_plans, whole
from xray_helpers.settings import InputError, Running, Settings, build_settings, check_names, part_values
from xray_helpers.studies import hash_of, read_json, study_folder, write_csv, write_json

log = logging.getLogger("xray_helpers")
SWEEP = "sweep.json"
_MOST = 1000  # combinations
_OWN = ("name", "profile", "sweep")  # keys of a sweep's file that are no parameters


def read_sweep(values: Mapping[str, Any]) -> tuple[str, list[dict[str, Any]], list[Settings], dict[str, Any]]:
    """Turn what a sweep's file holds into studies.

    Parameters
    ----------
    values : mapping
        ``name``; ``sweep``, a mapping of parameters to lists of values; optionally ``profile`` and any other parameters,
        also of `Running`, which hold for all studies. Values listed for ``models`` make a study each.

    Returns
    -------
    name : str
    points : list of dict
        The swept values of each study.
    studies : list of Settings
        Named ``<name>/<values>``.
    running : dict
        What says how it is run.

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
        if not isinstance(listed, list) or not listed or len({repr(value) for value in listed}) < len(listed):
            raise InputError(f"sweep: {key} must be a list of different values, such as [1, 2, 3]; it is {listed!r}.")
    points = [dict(zip(lists, chosen, strict=True)) for chosen in itertools.product(*lists.values())]
    if len(points) > _MOST:
        raise InputError(f"The sweep has {len(points)} combinations, more than {_MOST}: shorten its lists.")
    fixed, running = part_values({key: value for key, value in values.items() if key not in _OWN})
    name = str(values.get("name") or "sweep")
    studies = []
    for point in points:
        given = fixed | point | {"name": f"{name}/{_folder_of(point)}"}
        if isinstance(point.get("models"), str):
            given["models"] = [point["models"]]
        studies.append(build_settings(values.get("profile", "full"), **given))
    return name, points, studies, running


def _folder_of(point: Mapping[str, Any]) -> str:
    words = ",".join(
        f"{key}={'+'.join(map(str, value)) if isinstance(value, list) else value}" for key, value in point.items()
    )
    plain = re.sub(r"[^\w.,=+-]", "-", words)
    return plain if plain == words and len(plain) < 100 else f"{plain[:80]}-{hash_of(point)[:6]}"


def run_sweep(values: Mapping[str, Any], running: Running, *, overwrite: bool = False) -> Path:
    """Run every study of a sweep; steps that are the same in several run once. Return the sweep's ``index.html``.

    Parameters
    ----------
    values : mapping
        As for `read_sweep`.
    running : Running
    overwrite : bool
        Go on although studies of these names have other settings.

    Raises
    ------
    InputError, StoppedError, KeyboardInterrupt
        As `series.run_study`.
    """
    name, points, asked, _ = read_sweep(values)
    folder = study_folder(name)
    if not (folder / SWEEP).exists() and not is_empty(folder):
        raise InputError(f"reports/{name} holds files that are no sweep: give it another name.")
    settings = [prepare(study, overwrite=overwrite) for study in asked]
    with whole(folder), ExitStack() as held:
        held.enter_context(locking(folder))
        _check_sweep(folder, points)
        write_json(folder / SWEEP, {"name": name, "points": points, "studies": [study.name for study in asked]})
        for study in settings:
            held.enter_context(locking(study_folder(study.name)))
        held.enter_context(logging_to(folder))
        started = time.monotonic()
        plans = [build_plan(study, running, ask, f"{study.name.split('/')[1]}: ")
                 for study, ask in zip(settings, asked, strict=True)]  # fmt: skip
        log.info("Sweep %s: %d studies of %s", name, len(plans), ", ".join(points[0]))
        run_plans(plans, running)
        for plan in plans:
            conclude(plan, time.monotonic() - started)
        return write_sweep(folder, points, plans)


def _check_sweep(folder: Path, points: list[dict[str, Any]]) -> None:
    """Studies of other points stay on disk; a sweep over other parameters is another one."""
    before = read_json(folder / SWEEP, default={"points": points})["points"]
    if before and list(before[0]) != list(points[0]):
        raise InputError(
            f"reports/{folder.name} is a sweep over {', '.join(before[0])}: "
            f"give this one over {', '.join(points[0])} another name."
        )


def write_sweep(folder: Path, points: list[dict[str, Any]], plans: list[Plan]) -> Path:
    """Write ``sweep.csv`` and the page of a sweep; return the page."""
    from xray_helpers.pages import write_studies, write_sweep_page

    table = tabulate(points, plans)
    write_csv(folder / "sweep.csv", table)
    ranking, best = rank(table, list(points[0]))
    missing = {plan.settings.name: plan.state["state"] for plan in plans if plan.state["state"] != "done"}
    index = write_sweep_page(folder, table, ranking, describe_best(ranking, best, folder), missing)
    write_studies()
    if len(ranking):
        shown = ranking.head(5).round({"validation_auroc": 3, "sd": 3})
        log.info("Candidates, by validation:\n%s", shown.to_string(index=False))
    return index


def tabulate(points: list[dict[str, Any]], plans: list[Plan]) -> pd.DataFrame:
    """Return a row a study and model: study, model, the swept values, and what validation says.

    Returns
    -------
    DataFrame
        study, model, a column a swept parameter (but models), validation_auroc, validation_auroc_low, validation_auroc_high,
        validation_n, epochs_run. No column holds a test score: choosing by one would spoil it.
    """
    rows = []
    for point, plan in zip(points, plans, strict=True):
        for model in plan.settings.models:
            scores = plan.folder / model / "metrics.json"
            if not scores.exists():
                continue
            found, trained = read_json(scores)["validation"], read_json(plan.folder / model / "training.json")
            auroc = found["auroc"]
            swept = {
                key: str(value) if isinstance(value, list) else value for key, value in point.items() if key != "models"
            }
            seen = {"validation_auroc": auroc["value"], "validation_auroc_low": auroc["ci_low"],
                    "validation_auroc_high": auroc["ci_high"], "validation_n": found["n"]}  # fmt: skip
            rows.append(
                {"study": plan.settings.name, "model": model} | swept | seen | {"epochs_run": trained["epochs"]}
            )
    return pd.DataFrame(rows)


def rank(table: pd.DataFrame, swept: list[str]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Rank what was swept by its mean AUROC on validation over seeds, and return the studies of the best.

    A seed is luck, not a choice: studies that differ by it alone count as one candidate.

    Returns
    -------
    ranking : DataFrame
        model, the swept parameters but seed, validation_auroc (mean), sd (over seeds; missing for one), seeds.
    best : DataFrame
        The rows of `table` that the first row of it is the mean of.
    """
    if not len(table):
        return pd.DataFrame(), table
    keys = ["model", *(key for key in swept if key not in ("seed", "models"))]
    grouped = (
        table.groupby(keys, sort=False, dropna=False)["validation_auroc"].agg(["mean", "std", "size"]).reset_index()
    )
    ranking = grouped.rename(columns={"mean": "validation_auroc", "std": "sd", "size": "seeds"})
    ranking = ranking.sort_values("validation_auroc", ascending=False, kind="stable", ignore_index=True)
    best = table.merge(ranking.loc[[0], keys], on=keys)
    return ranking, best


def describe_best(ranking: pd.DataFrame, best: pd.DataFrame, folder: Path) -> str:
    """Return in words which candidate validation prefers, and what it reaches on test: the only test scores that are read."""
    if not len(ranking):
        return "No study of the sweep has been evaluated yet."
    first = ranking.iloc[0]
    keys = [key for key in ranking.columns if key not in ("model", "validation_auroc", "sd", "seeds")]
    what = ", ".join([first["model"], *(f"{key} = {first[key]}" for key in keys)])
    spread = "" if pd.isna(first["sd"]) else f" (standard deviation {first['sd']:.2f} over {first['seeds']} seeds)"
    tests = []
    for row in best.itertuples():
        scores = read_json(folder.parent / row.study / row.model / "metrics.json")
        entry = scores["auroc"]
        tests.append(f"{entry['value']:.2f} ({entry['ci_low']:.2f} to {entry['ci_high']:.2f}; n = {scores['n']})")
    return (
        f"Validation prefers {what}: AUROC {first['validation_auroc']:.2f}{spread}, the best of {len(ranking)} candidates, and "
        f"therefore too good. On test it reaches {', '.join(tests)}."
    )
