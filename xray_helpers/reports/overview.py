"""The page of all studies, and the page of a sweep."""

from pathlib import Path
from typing import Any

import pandas as pd

from xray_helpers.evaluation.comparison import choose_primary
from xray_helpers.explain.shortcut_verdicts import list_controls, read_shortcuts
from xray_helpers.reports.display import study_banners
from xray_helpers.reports.html import describe_source, render_page
from xray_helpers.reports.pages import list_stale, read_comparison
from xray_helpers.reports.text import headline_table
from xray_helpers.settings import POSITIVE, VALIDATION, InputError
from xray_helpers.study.files import read_csv, read_json, write_text
from xray_helpers.study.folders import SWEEP, list_folders, read_class_names, root
from xray_helpers.study.records import mark_stale


def list_studies() -> list[dict[str, Any]]:
    """Return a row a study or sweep under reports/: what ``index.html`` there and the command ``list`` tell
    of it.

    One that cannot be read says so in its state, and hinders no other; one that is a control says so in
    ``control``, as its scores are no candidate's. The studies of a sweep are on its own page, with scores on
    test of the one that validation prefers alone: choosing by them would spoil them.
    """
    rows, empty = [], dict.fromkeys(("steps", "models", "data", "created", "model", "auroc", "control"), "")
    sweeps = sorted(path.parent for path in (root() / "reports").glob(f"*/{SWEEP}"))
    for folder in [*sweeps, *(folder for folder in list_folders() if folder.parent not in sweeps)]:
        row = empty | {"study": folder.relative_to(root() / "reports").as_posix()}
        try:
            row |= {"state": "by hand", "warnings": []} | (
                _sweep_row(folder) if folder in sweeps else _study_row(folder) | _find_best(folder)
            )
        except (InputError, KeyError, TypeError):
            row |= {"state": "cannot be read", "warnings": []}
        rows.append(row)
    return sorted(rows, key=lambda row: row["study"])


def _study_row(folder: Path) -> dict[str, Any]:
    study = mark_stale(read_json(folder / "study.json"), folder)
    manifest = read_csv(folder / "manifest.csv") if (folder / "manifest.csv").exists() else None
    steps, found = (
        study.get("steps", []),
        read_shortcuts(folder, study["settings"]["models"], list_stale(study)),
    )
    return {
        "control": ", ".join(list_controls(study["settings"])),
        "state": study.get("state", "by hand"),
        "models": ", ".join(study["settings"]["models"]),
        "steps": f"{sum(step['state'] == 'done' for step in steps)}/{len(steps)}" if steps else "",
        "data": describe_source(folder, study),
        "created": study["created"][:16].replace("T", " "),
        "warnings": [text.split(":")[0] for _, text in study_banners(study, manifest, found)],
    }


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
    """Write ``reports/index.html``: every study with its state, its best model by validation, and its
    warnings.
    """
    place = root() / "reports"
    rows = [row | {"page": (place / row["study"] / "index.html").exists()} for row in list_studies()]
    parts = [[row for row in rows if bool(row["control"]) == control] for control in (False, True)]
    page = render_page(
        "studies.html.j2", title="Studies of fracture classifiers", studies=parts[0], controls=parts[1]
    )
    return write_text(place / "index.html", page)


def write_sweep_page(
    folder: Path,
    table: pd.DataFrame,
    ranking: pd.DataFrame,
    verdict: str,
    missing: dict[str, str],
    *,
    target: Path | None = None,
) -> Path:
    """Write the page of a sweep from the tables of `ranking.tabulate` and `ranking.rank`; into `target`, to
    be sent, if given.
    """
    show = lambda rows: [{key: _say(value) for key, value in row.items()} for row in rows.to_dict("records")]  # noqa: E731
    ranked = ranking.rename(columns={"validation_auroc": "mean AUROC on validation", "sd": "SD"})
    page = render_page(
        "sweep.html.j2",
        title=f"Sweep {folder.name}: fracture classifiers compared",
        name=folder.name,
        verdict=verdict,
        banners=_sweep_banners(folder),
        positive=_sweep_positive(folder),
        ranking=show(ranked),
        rows=show(table),
        missing=missing,
        sent=target is not None,
    )
    return write_text((target or folder) / "index.html", page)


def _sweep_banners(folder: Path) -> list[tuple[str, str]]:
    """Return the banners of the studies of a sweep, each once."""
    banners: dict[str, tuple[str, str]] = {}
    for path in sorted(folder.glob("*/study.json")):
        manifest = path.with_name("manifest.csv")
        study = read_json(path)
        shortcuts = read_shortcuts(path.parent, study["settings"]["models"], list_stale(study))
        for kind, text in study_banners(study, read_csv(manifest) if manifest.exists() else None, shortcuts):
            banners.setdefault(
                text.split(":")[0], (kind, text.replace("manifest.csv", "each study's manifest.csv"))
            )
    return list(banners.values())


def _sweep_positive(folder: Path) -> str:
    return next((read_class_names(path.parent)[1] for path in folder.glob("*/classes.json")), POSITIVE)


def _say(value: Any) -> str:
    if value is None or isinstance(value, float):
        return "" if pd.isna(value) else f"{value:.3f}" if 0.01 <= abs(value) < 1000 else f"{value:g}"
    return str(value)


def _find_best(folder: Path) -> dict[str, str]:
    """Return the model that validation prefers, and its headline texts on test."""
    table = read_comparison(folder, mark_stale(read_json(folder / "study.json"), folder))
    if table is None:
        return {"model": "", "auroc": ""}
    named = read_json(folder / "study.json")["settings"].get("primary_model", VALIDATION)
    row = headline_table(table[table["model"] == choose_primary(table, named)])[0]
    return {"model": row["model"], "auroc": row["AUROC"]}
