"""The pages of a study: its index, checklist, model cards; all studies; an audit; what is sent or printed of
them.
"""

import base64
import io
from pathlib import Path
from typing import Any

import pandas as pd

from xray_helpers.data.leaks import describe_leak
from xray_helpers.data.parts import class_balance
from xray_helpers.evaluation.comparison import choose_primary, describe_comparison
from xray_helpers.evaluation.variability import describe_all_images
from xray_helpers.explain.shortcut_verdicts import read_shortcuts
from xray_helpers.reports.display import study_banners
from xray_helpers.reports.html import changed_parameters, describe_source, render_page
from xray_helpers.reports.text import headline_table
from xray_helpers.settings import VALIDATION
from xray_helpers.study.files import list_complete_files, read_csv, read_json, write_text
from xray_helpers.study.folders import RUN, read_class_names
from xray_helpers.study.records import STALE, mark_stale

_THUMBNAIL, _LARGE = 480, 1400  # pixels wide


def write_index(folder: Path, *, target: Path | None = None, images: bool = True) -> Path:
    """Write the study's ``index.html`` from what lies in its folder; into `target` instead where one is
    given.
    """
    study = mark_stale(read_json(folder / "study.json"), folder)
    manifest = read_csv(folder / "manifest.csv") if (folder / "manifest.csv").exists() else None
    stale, comparison = list_stale(study), read_comparison(folder, study)
    found = read_shortcuts(folder, study["settings"]["models"], stale)
    verdict = "No model has been compared yet."
    if comparison is not None and manifest is not None:
        balance = class_balance(manifest).set_index("split")
        pairs = read_csv(folder / "pairs.csv") if (folder / "pairs.csv").exists() else None
        primary, model = (
            study["settings"].get(key, word)
            for key, word in (("primary", "auroc"), ("primary_model", VALIDATION))
        )
        verdict = describe_comparison(
            comparison, balance.loc["test", "majority_accuracy"], pairs, primary=primary, model=model
        )
        spread = folder / choose_primary(comparison, model) / "spread.csv"
        verdict += f" {describe_all_images(read_csv(spread))}" if spread.exists() else ""
    out = target or folder
    files = list_complete_files(
        folder, "*.csv", "*/*.csv", "*/metrics.json", "*/*.md", "figures/*.png", "*/model_card.html"
    )
    names = [name for path in files if (name := path.relative_to(folder).as_posix()) not in stale]
    figures = sorted((folder / name for name in names if name.endswith(".png")), key=_figure_order)
    cards = [name for name in names if name.endswith(".html")]
    page = render_page(
        "index.html.j2",
        title=f"{study['settings']['name']}: fracture classifiers compared",
        study=study,
        verdict=verdict,
        positive=read_class_names(folder)[1],
        banners=study_banners(study, manifest, found),
        source=describe_source(folder, study),
        shortcuts=[
            each["verdict"] if len(found) == 1 else f"{model}: {each['verdict']}"
            for model, each in found.items()
        ],
        parameters=changed_parameters(study["settings"]),
        headline=headline_table(comparison) if comparison is not None else [],
        sent=target is not None,
        steps=[_step_row(out, step) for step in study.get("steps", [])],
        main=None
        if comparison is None
        else _figure(folder / "figures" / "models_evaluation_grid.png", images, _LARGE),
        figures=[figure for path in figures if (figure := _figure(path, images))],
        pages=[(name, words) for name, words in _PAGES if (out / name).exists()],
        cards=cards,
        files=[name for name in names if not name.endswith((".png", ".html"))],
    )
    return write_text(out / "index.html", page)


def refresh_index(folder: Path) -> str:
    """Write a study's index anew after a notebook was run by hand, and return which of its results are out of
    date.

    Nothing is done while a command runs the study, which keeps the index itself, or where there is no index.
    """
    if (folder / RUN).exists() or not (folder / "index.html").exists():
        return ""
    write_index(folder)
    study = mark_stale(read_json(folder / "study.json"), folder)
    return next((text for _, text in study_banners(study, None) if STALE in text), "")


def list_stale(study: dict[str, Any]) -> set[str]:
    """Return the files that a step of ``study.json`` writes which is not done: those of an earlier run are no
    results.
    """
    stale = {
        file for step in study.get("steps", []) if step["state"] != "done" for file in step.get("writes", [])
    }
    return stale | {
        file.replace("metrics.json", f"model_card.{end}") for file in stale for end in ("html", "md")
    }


def read_comparison(folder: Path, study: dict[str, Any]) -> pd.DataFrame | None:
    """Return ``comparison.csv``; None where there is none, or only an earlier run's."""
    path = folder / "comparison.csv"
    return read_csv(path) if path.exists() and path.name not in list_stale(study) else None


_PAGES = (("reporting_checklist.html", "Reporting checklist: CLAIM, STARD-AI, TRIPOD+AI"),)


def _figure_order(path: Path) -> tuple[bool, bool, str]:
    return not path.stem.startswith("models_"), "confusion_grid" in path.stem, path.stem


def is_shown(path: Path, images: bool) -> bool:
    """Return whether a figure is shown: any where `images` may be, else those without a radiograph."""
    return _figure(path, images) is not None


def _figure(path: Path, images: bool, width: int = _THUMBNAIL) -> dict[str, str] | None:
    """Return path, small picture as data, alternative text and caption of a figure; None where it is not to
    be shown.
    """
    from PIL import Image

    if not path.exists():
        return None
    with Image.open(path) as picture:
        if picture.info.get("Radiographs") and not images:
            return None
        alt, buffer = picture.info.get("Description") or path.stem.replace("_", " "), io.BytesIO()
        picture = picture.convert("RGB")
        picture.thumbnail((width, 2 * width))
        picture.save(buffer, "webp", quality=80)
    data = "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()
    return {"path": f"figures/{path.name}", "data": data, "alt": alt, "caption": path.stem.replace("_", " ")}


def _step_row(folder: Path, step: dict[str, Any]) -> dict[str, Any]:
    links = [
        (label, f"{step['report']}{end}") for label, end in (("report", ".html"), ("notebook", ".ipynb"))
    ]
    seconds = step.get("seconds")
    return {
        "name": step["name"],
        "state": step["state"],
        "time": f"{seconds:.0f} s" if seconds is not None else "",
        "error": step.get("error", ""),
        "links": [(label, link) for label, link in links if (folder / link).exists()],
    }


def write_audit(
    out: Path,
    facts: dict[str, str],
    leak: dict,
    conflicts: pd.DataFrame,
    links: pd.DataFrame,
    strips: list,
    notes: list,
) -> Path:
    """Write the page of `audit.audit_folder`: what was found, the largest groups as pictures, doubtful
    pairs.
    """
    doubtful = links[links["decision"] == "for review"].sort_values("correlation", ascending=False)
    page = render_page(
        "audit.html.j2",
        title="Same-source images: an audit",
        facts=facts,
        verdict=describe_leak(leak).replace("The split leaks", "Its own folders leak")
        if leak["groups"]
        else "",
        conflicts=conflicts.head(50).to_dict("records"),
        doubtful=doubtful.head(50).to_dict("records"),
        strips=strips,
        notes=notes,
    )
    return write_text(out / "index.html", page)
