"""What the first page of a study leads with: its number, what a leak would give, and what to do next."""

from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from xray_helpers.data.leaks import measure_leak
from xray_helpers.evaluation.comparison import choose_primary
from xray_helpers.evaluation.intervals import describe, describe_count, unflatten_entry
from xray_helpers.evaluation.leakage import BY_GROUP, OWN_FOLDERS, RANDOM_FILES, recognises_sources
from xray_helpers.evaluation.metrics import METRICS
from xray_helpers.evaluation.planning import TARGET_WIDTH, plan_test
from xray_helpers.evaluation.variability import describe_all_images
from xray_helpers.reports.banners import describe_sampling, full_command
from xray_helpers.reports.results import primary_model, read_table
from xray_helpers.settings import number_of
from xray_helpers.study.files import read_csv

_MOST = 3  # things to do next
_FEW_GROUPS = 30  # of the test part, below which a perfect score says less than its interval


class Lead(NamedTuple):
    """The lines that a first page leads with."""

    title: str  # of the number: whether it is honest
    number: str
    leak: str  # what the same features reach where sources are not kept apart; empty if not measured
    leaks: bool  # whether files of one source help: the figure of the leak is then shown large
    todo: list[tuple[str, str]]  # what to do next, and the command for it, which may be empty


def build_lead(
    folder: Path,
    study: dict[str, Any],
    manifest: pd.DataFrame | None,
    comparison: pd.DataFrame | None,
    inflation: pd.DataFrame | None,
    shortcuts: dict[str, dict[str, str]],
) -> Lead:
    """Return what the first page of a study leads with.

    Parameters
    ----------
    folder : Path
    study : dict
        ``study.json``.
    manifest, comparison, inflation : DataFrame, optional
        The files of the study, where they are not of an earlier run.
    shortcuts : dict
        Of `shortcut_verdicts.read_shortcuts`.
    """
    title, number = "The honest number", "No model has been compared yet."
    if comparison is not None:
        chosen = choose_primary(comparison, primary_model(study["settings"]))
        row = comparison[comparison["model"] == chosen].to_dict("records")[0]
        title = "An inflated number" if row.get("leak") else title
        number = _describe_number(folder, row, study["settings"].get("primary", "auroc"))
    leak, leaks = "", False
    if inflation is not None and len(inflation):
        own = _measure_own_folders(manifest)
        leak = _describe_inflation(inflation, own)
        leaks = recognises_sources(inflation) is True or bool(own and own["test_leaked"])
    todo = _list_todo(folder, study, manifest, comparison, shortcuts)
    return Lead(title, number, leak, leaks, todo)


def _describe_number(folder: Path, row: dict[str, Any], primary: str) -> str:
    entry, title, count = (
        unflatten_entry(row, primary),
        METRICS[primary].title,
        describe_count(row, "test images"),
    )
    score = describe(entry).replace(" (", " (95 % interval ", 1)
    score = score.replace("(95 % interval no interval", "(no interval")
    text = f"{row['model']}: {title} {score} on {count}."
    if entry["value"] == 1 and entry["ci_low"] is not None and row["n_groups"] < _FEW_GROUPS:
        interval = describe(entry).partition("(")[2].rstrip(")")
        text = f"{row['model']}: {title} {interval} (95 % interval) on {count}; the 1.00 there may be luck."
    if row.get("leak"):
        return f"{text} {row['leak']:.0%} of them have a sibling in train: a model can recognise the picture."
    spread = folder / row["model"] / "spread.csv"
    return f"{text} {describe_all_images(read_csv(spread))}".strip() if spread.exists() else text


def _measure_own_folders(manifest: pd.DataFrame | None) -> dict[str, Any] | None:
    """Return `leaks.measure_leak` of the set's own test folder; None where it has none."""
    if manifest is None or not manifest.get("folder_split", pd.Series(dtype=str)).eq("test").any():
        return None
    return measure_leak(manifest, manifest["folder_split"].where(manifest["status"] == "used"))


def _describe_inflation(inflation: pd.DataFrame, own: dict[str, Any] | None) -> str:
    auroc = inflation.set_index(["split", "labels"])["auroc"]
    honest, files, folders = (auroc.get((split, "true")) for split in (BY_GROUP, RANDOM_FILES, OWN_FOLDERS))
    if honest is None or files is None:
        return ""
    text = "The same features, in a plain classifier, reach AUROC "
    text += f"{folders:.2f} on the set's own folders, " if folders is not None else ""
    text += f"{files:.2f} on files drawn at random, and {honest:.2f} with sources and patients kept apart."
    if own and own["test_leaked"]:
        text += f" {own['test_leaked']} of {own['test']} files of its test folder have a sibling in train."
    shuffled = auroc.get((RANDOM_FILES, "shuffled"))
    if recognises_sources(inflation):
        return f"{text} Labels that mean nothing reach {shuffled:.2f} on random files: the source is learned."
    return text


def _list_todo(
    folder: Path,
    study: dict[str, Any],
    manifest: pd.DataFrame | None,
    comparison: pd.DataFrame | None,
    shortcuts: dict[str, dict[str, str]],
) -> list[tuple[str, str]]:
    """Return what to do next, the most important first, each with a command or an empty text."""
    settings, run = study["settings"], "python -m xray_helpers"
    todo = []
    if any(step["state"] not in ("done", "waiting", "running") for step in study.get("steps", [])):
        todo.append(
            ("Some steps failed or are outdated: run it again.", f"{run} run --name {settings['name']}")
        )
    if manifest is None:
        return todo
    if measure_leak(manifest, manifest["split"])["groups"]:
        more = "-p split=grouped -p accept_leak=false"
        todo.append(("Keep sources and patients apart.", f"{full_command(settings, '-grouped')} {more}"))
    if settings["weights"] == "random":
        todo.append(("Use trained backbones: give ImageNet weights with -p weights=FOLDER.", ""))
    if describe_sampling(settings, manifest):
        todo.append(("This was a first look: use all images, and train to the end.", full_command(settings)))
    if any(each["banner"] for each in shortcuts.values()):
        todo.append(("A shortcut scores as high as the model: follow the remedies in the warning below.", ""))
    if doubtful := _count_doubtful(folder):
        text = f"Look at the {number_of(doubtful, 'doubtful pair')} of files, and say which are one source."
        todo.append((text, f"{run} lab {settings['name']}"))
    if comparison is not None and not todo[_MOST:]:
        more = plan_test(manifest).set_index("score")["more"]
        if lacking := max(more["sensitivity"] + more["specificity"], more["AUROC"]):
            text = f"Find more patients: about {lacking:,} more test images of other people or sources would "
            todo.append((f"{text}bring every score within ± {TARGET_WIDTH:g}.", ""))
        command = f"{run} external {settings['name']} --data FOLDER"
        todo.append(("Test the trained models on a set from elsewhere.", command))
    return todo[:_MOST]


def _count_doubtful(folder: Path) -> int:
    links = read_table(folder / "links.csv")
    return int(links["decision"].eq("for review").sum()) if links is not None and "decision" in links else 0
