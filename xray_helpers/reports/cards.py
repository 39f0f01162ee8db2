"""A study's reporting checklist, its model cards, and its pages as PDF."""

import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import jinja2

from xray_helpers.data.manifest import count_flow
from xray_helpers.data.parts import class_balance
from xray_helpers.reports.checklist import card_values, fill_guidelines, read_guidelines
from xray_helpers.reports.display import escape
from xray_helpers.reports.html import TEMPLATES, clean_html, render_page
from xray_helpers.settings import InputError
from xray_helpers.study.files import atomic_write, list_complete_files, read_csv, write_text
from xray_helpers.study.folders import read_class_names

_BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")


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
        "checklist.html.j2",
        title=f"Reporting checklist: {folder.name}",
        study=folder.name,
        guidelines=guidelines,
        class_names=read_class_names(folder),
        questions=read_guidelines()["questions"],
        error=error,
        flow=list(flow),
        parts=[] if manifest is None else class_balance(manifest).to_dict("records"),
    )
    return write_text(folder / "reporting_checklist.html", page)


def write_model_card(folder: Path, model: str) -> Path:
    """Write ``model_card.md`` and ``model_card.html`` of one evaluated model; without the answers of a
    damaged study.yaml.
    """
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
    page = render_page(
        "card.html.j2", title=f"Model card: {model}, {folder.name}", study=folder.name, body=body
    )
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
        raise InputError(
            "Chromium is needed to print and is not there: install it, or print the pages from a browser."
        )
    written = []
    for page in list_complete_files(folder, "*.html", "*/*.html"):
        with tempfile.TemporaryDirectory() as profile, atomic_write(page.with_suffix(".pdf")) as partial:
            options = ["--headless", "--disable-gpu", f"--user-data-dir={profile}", "--no-pdf-header-footer"]
            options += (
                ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
            )  # root has none
            command = [browser, *options, f"--print-to-pdf={partial}", page.resolve().as_uri()]
            try:
                done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
            except subprocess.TimeoutExpired:
                raise InputError(
                    f"Chromium did not print {page.name} within five minutes: try again."
                ) from None
            if not partial.exists():
                raise InputError(
                    f"Chromium could not print {page.name}: {done.stderr.strip().splitlines()[-1:]}"
                )
        written.append(page.with_suffix(".pdf"))
    return written
