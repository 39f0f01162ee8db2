"""The pages of a study: its index, checklist, model cards; all studies; an audit; what is sent or printed of them."""

import base64
import io
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd

from xray_helpers.checklist import card_values, fill_guidelines, read_guidelines
from xray_helpers.comparison import choose_primary, conclude
from xray_helpers.manifest import count_flow
from xray_helpers.records import STALE, mark_stale
from xray_helpers.render import TEMPLATES, changed_parameters, clean_html, describe_source, render_page
from xray_helpers.repeats import describe_all_images
from xray_helpers.reporting import escape, headline_table, study_banners
from xray_helpers.settings import POSITIVE, VALIDATION, InputError
from xray_helpers.shortcut_verdicts import list_controls, read_shortcuts
from xray_helpers.splits import class_balance, describe_leak
from xray_helpers.studies import (
    RUN,
    SWEEP,
    list_folders,
    list_whole,
    read_class_names,
    read_csv,
    read_json,
    root,
    write_text,
    writing,
)  # fmt: skip

_BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
_THUMBNAIL, _LARGE = 480, 1400  # pixels wide


def write_index(folder: Path, *, target: Path | None = None, images: bool = True) -> Path:
    """Write the study's ``index.html`` from what lies in its folder; into `target` instead where one is given."""
    study = mark_stale(read_json(folder / "study.json"), folder)
    manifest = read_csv(folder / "manifest.csv") if (folder / "manifest.csv").exists() else None
    stale, comparison = list_stale(study), read_comparison(folder, study)
    found = read_shortcuts(folder, study["settings"]["models"], stale)
    verdict = "No model has been compared yet."
    if comparison is not None and manifest is not None:
        balance = class_balance(manifest).set_index("split")
        pairs = read_csv(folder / "pairs.csv") if (folder / "pairs.csv").exists() else None
        primary, model = (
            study["settings"].get(key, word) for key, word in (("primary", "auroc"), ("primary_model", VALIDATION))
        )
        verdict = conclude(comparison, balance.loc["test", "majority_accuracy"], pairs, primary=primary, model=model)
        spread = folder / choose_primary(comparison, model) / "spread.csv"
        verdict += f" {describe_all_images(read_csv(spread))}" if spread.exists() else ""
    out = target or folder
    files = list_whole(folder, "*.csv", "*/*.csv", "*/metrics.json", "*/*.md", "figures/*.png", "*/model_card.html")
    names = [name for path in files if (name := path.relative_to(folder).as_posix()) not in stale]
    figures = sorted((folder / name for name in names if name.endswith(".png")), key=_figure_order)
    cards = [name for name in names if name.endswith(".html")]
    page = render_page(
        "index.html.j2", title=f"{study['settings']['name']}: fracture classifiers compared", study=study, verdict=verdict,
        positive=read_class_names(folder)[1],
        banners=study_banners(study, manifest, found), source=describe_source(folder, study),
        shortcuts=[each["verdict"] if len(found) == 1 else f"{model}: {each['verdict']}" for model, each in found.items()],
        parameters=changed_parameters(study["settings"]),
        headline=headline_table(comparison) if comparison is not None else [], sent=target is not None,
        steps=[_step_row(out, step) for step in study.get("steps", [])],
        main=None if comparison is None else _figure(folder / "figures" / "models_evaluation_grid.png", images, _LARGE),
        figures=[figure for path in figures if (figure := _figure(path, images))],
        pages=[(name, words) for name, words in _PAGES if (out / name).exists()],
        cards=cards, files=[name for name in names if not name.endswith((".png", ".html"))],
    )  # fmt: skip
    return write_text(out / "index.html", page)


def refresh_index(folder: Path) -> str:
    """Write a study's index anew after a notebook was run by hand, and return which of its results are out of date.

    Nothing is done while a command runs the study, which keeps the index itself, or where there is no index.
    """
    if (folder / RUN).exists() or not (folder / "index.html").exists():
        return ""
    write_index(folder)
    study = mark_stale(read_json(folder / "study.json"), folder)
    return next((text for _, text in study_banners(study, None) if STALE in text), "")


def list_stale(study: dict[str, Any]) -> set[str]:
    """Return the files that a step of ``study.json`` writes which is not done: those of an earlier run are no results."""
    stale = {file for step in study.get("steps", []) if step["state"] != "done" for file in step.get("writes", [])}
    return stale | {file.replace("metrics.json", f"model_card.{end}") for file in stale for end in ("html", "md")}


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
    """Return path, small picture as data, alternative text and caption of a figure; None where it is not to be shown."""
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
    links = [(label, f"{step['report']}{end}") for label, end in (("report", ".html"), ("notebook", ".ipynb"))]
    seconds = step.get("seconds")
    return {
        "name": step["name"],
        "state": step["state"],
        "time": f"{seconds:.0f} s" if seconds is not None else "",
        "error": step.get("error", ""),
        "links": [(label, link) for label, link in links if (folder / link).exists()],
    }


def list_studies() -> list[dict[str, Any]]:
    """Return a row a study or sweep under reports/: what ``index.html`` there and the command ``list`` tell of it.

    One that cannot be read says so in its state, and hinders no other; one that is a control says so in ``control``, as its
    scores are no candidate's. The studies of a sweep are on its own page, with scores on test of the one that validation
    prefers alone: choosing by them would spoil them.
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
    steps, found = study.get("steps", []), read_shortcuts(folder, study["settings"]["models"], list_stale(study))
    return {
        "control": ", ".join(list_controls(study["settings"])),
        "state": study.get("state", "by hand"), "models": ", ".join(study["settings"]["models"]),
        "steps": f"{sum(step['state'] == 'done' for step in steps)}/{len(steps)}" if steps else "",
        "data": describe_source(folder, study), "created": study["created"][:16].replace("T", " "),
        "warnings": [text.split(":")[0] for _, text in study_banners(study, manifest, found)],
    }  # fmt: skip


def _sweep_row(folder: Path) -> dict[str, Any]:
    rows = [_study_row(root() / "reports" / name) for name in read_json(folder / SWEEP)["studies"]]
    done = sum(row["state"] == "done" for row in rows)
    models = dict.fromkeys(model for row in rows for model in row["models"].split(", "))
    return rows[0] | {
        "state": next((row["state"] for row in rows if row["state"] != "done"), "done"),
        "steps": f"{done}/{len(rows)} studies", "models": ", ".join(models),
        "control": rows[0]["control"] if all(row["control"] for row in rows) else "",
        "warnings": list(dict.fromkeys(text for row in rows for text in row["warnings"])),
    }  # fmt: skip


def write_studies() -> Path:
    """Write ``reports/index.html``: every study with its state, its best model by validation, and its warnings."""
    place = root() / "reports"
    rows = [row | {"page": (place / row["study"] / "index.html").exists()} for row in list_studies()]
    parts = [[row for row in rows if bool(row["control"]) == control] for control in (False, True)]
    page = render_page("studies.html.j2", title="Studies of fracture classifiers", studies=parts[0], controls=parts[1])
    return write_text(place / "index.html", page)


def write_sweep_page(
    folder: Path, table: pd.DataFrame, ranking: pd.DataFrame, verdict: str, missing: dict[str, str], *,
    target: Path | None = None,
) -> Path:  # fmt: skip
    """Write the page of a sweep from the tables of `sweeps.tabulate` and `sweeps.rank`; into `target`, to be sent, if given."""
    show = lambda rows: [{key: _say(value) for key, value in row.items()} for row in rows.to_dict("records")]  # noqa: E731
    ranked = ranking.rename(columns={"validation_auroc": "mean AUROC on validation", "sd": "SD"})
    page = render_page(
        "sweep.html.j2", title=f"Sweep {folder.name}: fracture classifiers compared", name=folder.name, verdict=verdict,
        banners=_sweep_banners(folder),
        positive=_sweep_positive(folder), ranking=show(ranked), rows=show(table), missing=missing, sent=target is not None,
    )  # fmt: skip
    return write_text((target or folder) / "index.html", page)


def _sweep_banners(folder: Path) -> list[tuple[str, str]]:
    """Return the banners of the studies of a sweep, each once."""
    banners: dict[str, tuple[str, str]] = {}
    for path in sorted(folder.glob("*/study.json")):
        manifest = path.with_name("manifest.csv")
        study = read_json(path)
        shortcuts = read_shortcuts(path.parent, study["settings"]["models"], list_stale(study))
        for kind, text in study_banners(study, read_csv(manifest) if manifest.exists() else None, shortcuts):
            banners.setdefault(text.split(":")[0], (kind, text.replace("manifest.csv", "each study's manifest.csv")))
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


def write_checklist(folder: Path) -> Path:
    """Write the study's ``reporting_checklist.html``; an unreadable ``study.yaml`` is told on the page."""
    manifest = read_csv(folder / "manifest.csv") if (folder / "manifest.csv").exists() else None
    error = ""
    try:
        guidelines = fill_guidelines(folder)
    except InputError as problem:
        error, guidelines = str(problem), fill_guidelines(folder, answers={})
    flow = [] if manifest is None else count_flow(manifest).itertuples(index=False, name=None)
    page = render_page(
        "checklist.html.j2", title=f"Reporting checklist: {folder.name}", study=folder.name,
        guidelines=guidelines, class_names=read_class_names(folder),
        questions=read_guidelines()["questions"], error=error, flow=list(flow),
        parts=[] if manifest is None else class_balance(manifest).to_dict("records"),
    )  # fmt: skip
    return write_text(folder / "reporting_checklist.html", page)


def write_model_card(folder: Path, model: str) -> Path:
    """Write ``model_card.md`` and ``model_card.html`` of one evaluated model; without the answers of a damaged study.yaml."""
    from nbconvert.filters import markdown2html

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), undefined=jinja2.StrictUndefined, trim_blocks=True
    )
    environment.filters["md"] = escape
    try:
        values = card_values(folder, model)
    except InputError:  # what a person is writing of the study; the checklist's page says what is wrong
        values = card_values(folder, model, answers={})
    text = environment.get_template("model_card.md.j2").render(values)
    write_text(folder / model / "model_card.md", text)
    body = clean_html(re.sub(r'<a class="anchor-link".*?</a>', "", markdown2html(text)))
    page = render_page("card.html.j2", title=f"Model card: {model}, {folder.name}", study=folder.name, body=body)
    return write_text(folder / model / "model_card.html", page)


def write_pdfs(folder: Path) -> list[Path]:
    """Print every page of a study to a PDF beside it, with Chromium.

    Raises
    ------
    InputError
        Where there is no Chromium, or it fails.
    """
    browser = next(filter(None, map(shutil.which, _BROWSERS)), None)
    if browser is None:
        raise InputError("Chromium is needed to print and is not there: install it, or print the pages from a browser.")
    written = []
    for page in list_whole(folder, "*.html", "*/*.html"):
        with tempfile.TemporaryDirectory() as profile, writing(page.with_suffix(".pdf")) as partial:
            options = ["--headless", "--disable-gpu", f"--user-data-dir={profile}", "--no-pdf-header-footer"]
            options += ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []  # root has none
            command = [browser, *options, f"--print-to-pdf={partial}", page.resolve().as_uri()]
            try:
                done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
            except subprocess.TimeoutExpired:
                raise InputError(f"Chromium did not print {page.name} within five minutes: try again.") from None
            if not partial.exists():
                raise InputError(f"Chromium could not print {page.name}: {done.stderr.strip().splitlines()[-1:]}")
        written.append(page.with_suffix(".pdf"))
    return written


def write_audit(
    out: Path,
    facts: dict[str, str],
    leak: dict,
    conflicts: pd.DataFrame,
    links: pd.DataFrame,
    strips: list,
    notes: list,
) -> Path:
    """Write the page of `audit.audit_folder`: what was found, the largest groups as pictures, doubtful pairs."""
    doubtful = links[links["decision"] == "for review"].sort_values("correlation", ascending=False)
    page = render_page(
        "audit.html.j2",
        title="Same-source images: an audit",
        facts=facts,
        verdict=describe_leak(leak).replace("The split leaks", "Its own folders leak") if leak["groups"] else "",
        conflicts=conflicts.head(50).to_dict("records"),
        doubtful=doubtful.head(50).to_dict("records"),
        strips=strips,
        notes=notes,
    )
    return write_text(out / "index.html", page)
