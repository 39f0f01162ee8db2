"""A study's pages as PDF, printed by Chromium."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from xray_helpers.settings import InputError
from xray_helpers.study.files import atomic_write, list_complete_files
from xray_helpers.study.folders import EXTERNAL

_PAGES = ("*.html", "*/*.html", f"{EXTERNAL}/*/*.html")
_BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
_TIMEOUT = 300  # seconds per page


def write_pdfs(folder: Path) -> list[Path]:
    """Print every page of a study to a PDF beside it.

    Raises
    ------
    InputError
        When there is no Chromium, or it fails.
    """
    browser = find_browser()
    if browser is None:
        raise InputError("Chromium is needed to print and is not there: install it, or print from a browser.")
    return [_print(browser, page) for page in list_complete_files(folder, *_PAGES)]


def find_browser() -> str | None:
    """Return the path of Chromium or Chrome, or None."""
    return next(filter(None, map(shutil.which, _BROWSERS)), None)


def _print(browser: str, page: Path) -> Path:
    target = page.with_suffix(".pdf")
    with tempfile.TemporaryDirectory() as profile, atomic_write(target) as partial:
        options = ["--headless", "--disable-gpu", f"--user-data-dir={profile}", "--no-pdf-header-footer"]
        if hasattr(os, "geteuid") and os.geteuid() == 0:  # Chromium's sandbox refuses root
            options.append("--no-sandbox")
        command = [browser, *options, f"--print-to-pdf={partial}", page.resolve().as_uri()]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_TIMEOUT)
        except subprocess.TimeoutExpired:
            minutes = _TIMEOUT // 60
            raise InputError(f"Chromium did not print {page.name} in {minutes} minutes: try again.") from None
        if not partial.exists():
            reason = done.stderr.strip().splitlines()[-1:]
            raise InputError(f"Chromium could not print {page.name}: {reason}")
    return target
