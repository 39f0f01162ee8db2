"""The pages above single studies: the list of all studies, and the page of a sweep."""

from pathlib import Path
from typing import Any

import pandas as pd

from xray_helpers.evaluation.comparison import choose_primary
from xray_helpers.explain.shortcut_verdicts import list_controls, read_shortcuts
from xray_helpers.reports.banners import Banner, study_banners
from xray_helpers.reports.frame import render_page
from xray_helpers.reports.html import describe_source
from xray_helpers.reports.results import list_stale, primary_model, read_comparison, read_table
from xray_helpers.reports.text import headline_table
from xray_helpers.settings import POSITIVE, InputError
from xray_helpers.study.files import read_json, write_text
from xray_helpers.study.folders import SWEEP, list_folders, read_class_names, root
from xray_helpers.study.records import mark_stale

_EMPTY = dict.fromkeys(("steps", "models", "data", "created", "model", "auroc", "control"), "")


def list_studies() -> list[dict[str, Any]]:
    """Return one row per study or sweep under reports/, for the page of all studies and the command ``list``.

    One that cannot be read has that as its state. Control studies are named in ``control``, as their scores
    are not those of candidates. The studies of a sweep are on its own page, with test scores only of the one
    that is best on validation: choosing by test scores would bias them.
    """
    reports, rows = root() / "reports", []
    sweeps = sorted(path.parent for path in reports.glob(f"*/{SWEEP}"))
    for folder in [*sweeps, *(folder for folder in list_folders() if folder.parent not in sweeps)]:
        try:
            found = _sweep_row(folder) if folder in sweeps else _study_row(folder) | _find_best(folder)
        except (InputError, KeyError, TypeError):
            found = {"state": "cannot be read", "warnings": []}
        rows.append(_EMPTY | {"study": folder.relative_to(reports).as_posix()} | found)
    return sorted(rows, key=lambda row: row["study"])


def _study_row(folder: Path) -> dict[str, Any]:
    study = mark_stale(read_json(folder / "study.json"), folder)
    steps, settings = study.get("steps", []), study["settings"]
    return {
        "control": ", ".join(list_controls(settings)),
        "state": study.get("state", "by hand"),
        "models": ", ".join(settings["models"]),
        "steps": f"{sum(step['state'] == 'done' for step in steps)}/{len(steps)}" if steps else "",
        "data": describe_source(folder, study),
        "created": study["created"][:16].replace("T", " "),
        "warnings": [text.split(":")[0] for _, text in _read_banners(folder, study)],
    }


def _read_banners(folder: Path, study: dict[str, Any]) -> list[Banner]:
    shortcuts = read_shortcuts(folder, study["settings"]["models"], list_stale(study))
    return study_banners(study, read_table(folder / "manifest.csv"), shortcuts)


def _find_best(folder: Path) -> dict[str, str]:
    """Return the primary model of a study, and the text of its AUROC on test."""
    study = mark_stale(read_json(folder / "study.json"), folder)
    table = read_comparison(folder, study)
    if table is None:
        return {}
    chosen = choose_primary(table, primary_model(study["settings"]))
    row = headline_table(table[table["model"] == chosen])[0]
    return {"model": row["model"], "auroc": row["AUROC"]}


def _sweep_row(folder: Path) -> dict[str, Any]:
    rows = [_study_row(root() / "reports" / name) for name in read_json(folder / SWEEP)["studies"]]
    done = sum(row["state"] == "done" for row in rows)
    models = dict.fromkeys(model for row in rows for model in row["models"].split(", "))
    return rows[0] | {
        "state": next((row["state"] for row in rows if row["state"] != "done"), "done"),
        "steps": f"{done}/{len(rows)} studies",
        "models": ", ".join(models),
        "control": rows[0]["control"] if all(row["control"] for row in rows) else "",
        "warnings": list(dict.fromkeys(text for row in rows for text in row["warnings"])),
    }


def write_studies() -> Path:
    """Write ``reports/index.html``: all studies with their state, primary model and warnings."""
    reports = root() / "reports"
    rows = [row | {"page": (reports / row["study"] / "index.html").exists()} for row in list_studies()]
    page = render_page(
        "studies.html.j2",
        title="Studies of fracture classifiers",
        studies=[row for row in rows if not row["control"]],
        controls=[row for row in rows if row["control"]],
    )
    return write_text(reports / "index.html", page)


def write_sweep_page(
    folder: Path,
    table: pd.DataFrame,
    ranking: pd.DataFrame,
    verdict: str,
    missing: dict[str, str],
    *,
    target: Path | None = None,
) -> Path:
    """Write ``index.html`` of a sweep.

    Parameters
    ----------
    folder : Path
    table, ranking : DataFrame
        Of `ranking.tabulate` and `ranking.rank`.
    verdict : str
        Which candidate is best.
    missing : dict
        The states of the studies that are not done, by name.
    target : Path, optional
        Another folder to write it to, for sharing.
    """
    ranking = ranking.rename(columns={"validation_auroc": "mean AUROC on validation", "sd": "SD"})
    page = render_page(
        "sweep.html.j2",
        title=f"Sweep {folder.name}: fracture classifiers compared",
        name=folder.name,
        verdict=verdict,
        banners=_sweep_banners(folder),
        positive=next((read_class_names(path.parent)[1] for path in folder.glob("*/classes.json")), POSITIVE),
        ranking=_format_rows(ranking),
        rows=_format_rows(table),
        missing=missing,
        sent=target is not None,
    )
    return write_text((target or folder) / "index.html", page)


def _sweep_banners(folder: Path) -> list[Banner]:
    """Return the warnings of the studies of a sweep, each kind of warning once."""
    banners: dict[str, Banner] = {}
    for path in sorted(folder.glob("*/study.json")):
        for kind, text in _read_banners(path.parent, read_json(path)):
            text = text.replace("manifest.csv", "each study's manifest.csv")
            banners.setdefault(text.split(":")[0], (kind, text))
    return list(banners.values())


def _format_rows(table: pd.DataFrame) -> list[dict[str, str]]:
    return [{key: _format(value) for key, value in row.items()} for row in table.to_dict("records")]


def _format(value: Any) -> str:
    if value is None or isinstance(value, float):
        return "" if pd.isna(value) else f"{value:.3f}" if 0.01 <= abs(value) < 1000 else f"{value:g}"
    return str(value)
