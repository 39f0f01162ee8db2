"""The index page of a study: its verdict, warnings, scores, steps, figures and tables."""

import base64
import io
from pathlib import Path
from typing import Any

import pandas as pd

from xray_helpers.data.parts import class_balance
from xray_helpers.evaluation.classes import describe_classes
from xray_helpers.evaluation.comparison import choose_primary
from xray_helpers.evaluation.exams import describe_exams_of
from xray_helpers.evaluation.variability import describe_all_images
from xray_helpers.explain.shortcut_verdicts import read_shortcuts
from xray_helpers.reports.banners import describe_incomplete_steps, study_banners
from xray_helpers.reports.external import external_table, list_external_pages
from xray_helpers.reports.frame import render_page, write_links
from xray_helpers.reports.html import changed_parameters, describe_source
from xray_helpers.reports.lead import build_lead
from xray_helpers.reports.results import (
    describe_outcome,
    list_stale,
    primary_model,
    read_comparison,
    read_table,
)
from xray_helpers.reports.text import headline_table
from xray_helpers.settings import set_classes
from xray_helpers.study.external import STATE
from xray_helpers.study.files import list_complete_files, read_csv, read_json, write_text
from xray_helpers.study.folders import EXTERNAL, RUN, read_classes
from xray_helpers.study.records import STALE, mark_stale

_THUMBNAIL, _LARGE = 480, 1400  # widths of pictures in pixels
_FILES = ("*.csv", "*/*.csv", "*/metrics*.json", "*/*.md", "figures/*.png", "*/model_card.html")


def write_index(folder: Path, *, target: Path | None = None, images: bool = True) -> Path:
    """Write ``index.html`` of a study from the files in its folder.

    Parameters
    ----------
    folder : Path
    target : Path, optional
        Another folder to write it to, for sharing.
    images : bool
        Whether figures with radiographs are shown.
    """
    study = mark_stale(read_json(folder / "study.json"), folder)
    settings, classes = study["settings"], read_classes(folder)
    set_classes(classes)  # the process may have run other studies
    manifest, comparison = read_table(folder / "manifest.csv"), read_comparison(folder, study)
    stale, out = list_stale(study), target or folder
    shortcuts = read_shortcuts(folder, settings["models"], stale)
    paths = (path.relative_to(folder).as_posix() for path in list_complete_files(folder, *_FILES))
    names = [name for name in paths if name not in stale]
    figures = sorted((folder / name for name in names if name.endswith(".png")), key=_figure_order)
    assumed = [("warn", classes.assumed)] if classes.assumed else []
    main, inflation = (folder / "figures" / f"models_{name}.png" for name in ("evaluation_grid", "inflation"))
    measured = None if "inflation.csv" in stale else read_table(folder / "inflation.csv")
    lead = build_lead(folder, study, manifest, comparison, measured, shortcuts)
    shown = {main, inflation} if lead.leaks else {main}
    external_pages, asked_pages = list_external_pages(folder, out), _list_asked(folder, out)
    more = [(page, name) for name, page, _ in external_pages] + [(x["page"], x["place"]) for x in asked_pages]
    reports = _link_reports(out, study.get("steps", []), more)
    page = render_page(
        "index.html.j2",
        title=f"{settings['name']}: fracture classifiers compared",
        study=study,
        verdict=_describe_verdict(folder, settings, comparison, manifest),
        positive=classes.positive,
        banners=[*assumed, *study_banners(study, manifest, shortcuts)],
        source=describe_source(folder, study),
        shortcuts=[
            each["verdict"] if len(shortcuts) == 1 else f"{model}: {each['verdict']}"
            for model, each in shortcuts.items()
        ],
        parameters=changed_parameters(settings),
        headline=headline_table(comparison) if comparison is not None else [],
        external=external_table(folder),
        external_pages=external_pages,
        lead=lead,
        leak=_embed_figure(inflation, images, _LARGE) if lead.leaks else None,
        reports=reports,
        by_exam=_describe_exams(folder, settings, comparison, stale),
        sent=target is not None,
        running=study.get("state") == "running" and target is None,
        steps=[_step_row(out, step) for step in study.get("steps", [])],
        main=_embed_figure(main, images, _LARGE) if comparison is not None else None,
        figures=[figure for path in figures if path not in shown and (figure := _embed_figure(path, images))],
        asked_pages=asked_pages,
        has_checklist=(out / "reporting_checklist.html").exists(),
        cards=[name for name in names if name.endswith(".html")],
        files=[name for name in names if not name.endswith((".png", ".html"))],
    )
    return write_text(out / "index.html", page)


def _describe_verdict(
    folder: Path, settings: dict[str, Any], comparison: pd.DataFrame | None, manifest: pd.DataFrame | None
) -> str:
    if comparison is None or manifest is None:
        return "No model has been compared yet."
    baseline = class_balance(manifest).set_index("split").loc["test", "majority_accuracy"]
    verdict = describe_outcome(folder, settings, comparison, baseline)
    chosen = choose_primary(comparison, primary_model(settings))
    spread, classes = folder / chosen / "spread.csv", read_table(folder / chosen / "classes.csv")
    if spread.exists():
        verdict = f"{verdict} {describe_all_images(read_csv(spread))}"
    if classes is None or classes.empty:
        return verdict
    n = int(comparison.set_index("model").loc[chosen, "n"])
    return f"{verdict} {describe_classes(chosen, classes, n)}"


def _describe_exams(
    folder: Path, settings: dict[str, Any], comparison: pd.DataFrame | None, stale: set[str]
) -> str:
    """Return the scores by exam of the primary model; empty where no exams are known."""
    if comparison is None:
        return ""
    model = choose_primary(comparison, primary_model(settings))
    return describe_exams_of(folder, model) if f"{model}/metrics_exams.json" not in stale else ""


def refresh_index(folder: Path) -> str:
    """Write a study's index again after a notebook was run by hand; return which results are outdated.

    Nothing is done while a command runs the study and keeps the index itself, or if there is no index.
    """
    if (folder / RUN).exists() or not (folder / "index.html").exists():
        return ""
    write_index(folder)
    study = mark_stale(read_json(folder / "study.json"), folder)
    return next((text for text in describe_incomplete_steps(study) if STALE in text), "")


def _list_asked(study: Path, out: Path) -> list[dict[str, str]]:
    """Return place, page (or empty), state (empty where all is well) and the page that runs the model (or
    empty) of what a person asked for, but for external tests, which have a table of their own.
    """
    known = read_json(study / "study.json").get("steps", [])
    paths = [path for path in list_complete_files(study, f"*/*/{STATE}") if EXTERNAL not in path.parts[-3:]]
    asked = mark_stale({"steps": [*known, *map(read_json, paths)]}, study)["steps"][len(known) :]
    found = []
    for path, step in zip(paths, asked, strict=True):
        page = f"{step['report']}.html"
        told = "" if step["state"] == "done" else f"{step['state']}. {step.get('error', '')}".strip()
        page = page if (out / page).exists() else ""
        runs = path.parent / "page" / "page.html"
        runs = runs.relative_to(study).as_posix() if runs.exists() and out == study and not told else ""
        place = path.parent.relative_to(study).as_posix()
        found.append({"place": place, "page": page, "state": told, "runs": runs})
    return found


def _figure_order(path: Path) -> tuple[bool, bool, str]:
    return not path.stem.startswith("models_"), "confusion_grid" in path.stem, path.stem


def is_shown(path: Path, images: bool) -> bool:
    """Return whether a figure is shown: any with `images`, else those without radiographs."""
    return _embed_figure(path, images) is not None


def _embed_figure(path: Path, images: bool, width: int = _THUMBNAIL) -> dict[str, str] | None:
    """Return path, small picture as data URI, alternative text and caption of a figure that is shown."""
    from PIL import Image

    if not path.exists():
        return None
    with Image.open(path) as picture:
        if picture.info.get("Radiographs") and not images:
            return None
        caption, buffer = path.stem.replace("_", " "), io.BytesIO()
        alt = picture.info.get("Description") or caption
        picture = picture.convert("RGB")
        picture.thumbnail((width, 2 * width))
        picture.save(buffer, "webp", quality=80)
    data = "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()
    return {"path": f"figures/{path.name}", "data": data, "alt": alt, "caption": caption}


def _link_reports(out: Path, steps: list[dict[str, Any]], more: list[tuple[str, str]]) -> dict[str, list]:
    """Link each report to the index and to those before and after it; return links and words by model.

    Parameters
    ----------
    out : Path
    steps : list of dict
        Of ``study.json``.
    more : list of tuple
        Link and name of reports that a person asked for.
    """
    models = list(dict.fromkeys(str(Path(step["report"]).parent) for step in steps))  # "." is the study
    order = sorted((step["report"] for step in steps), key=lambda name: _reading_order(name, models))
    links = [(f"{name}.html", name) for name in order] + [pair for pair in more if pair[0]]
    links = [(link, name.replace("_", " ")) for link, name in links if (out / link).exists()]
    for at, (link, _) in enumerate(links):
        around = [("index.html", "The study")]
        around += [(links[at - 1][0], f"← {links[at - 1][1]}")] if at else []
        around += [(links[at + 1][0], f"{links[at + 1][1]} →")] if links[at + 1 :] else []
        up = "../" * link.count("/")
        write_links(out / link, [(up + to, text) for to, text in around])
    by_model: dict[str, list] = {}
    for link, text in links:
        by_model.setdefault(text.rpartition("/")[0], []).append((link, text.rpartition("/")[2]))
    return by_model


def _reading_order(report: str, models: list[str]) -> tuple[bool, bool, int, str]:
    """Return the key that sorts 01 first, then the reports of each model in turn, then the others."""
    path = Path(report)
    is_model = str(path.parent) != "."
    return not path.name.startswith("01"), not is_model, models.index(str(path.parent)), path.name


def _step_row(folder: Path, step: dict[str, Any]) -> dict[str, Any]:
    seconds = step.get("seconds")
    links = [("report", f"{step['report']}.html"), ("notebook", f"{step['report']}.ipynb")]
    return {
        "name": step["name"],
        "state": step["state"],
        "time": f"{seconds:.0f} s" if seconds is not None else "",
        "error": step.get("error", ""),
        "links": [(label, link) for label, link in links if (folder / link).exists()],
    }
