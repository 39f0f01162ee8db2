"""What the tests share: a root of their own, and small sets of phantoms."""

import hashlib
import os
from pathlib import Path

import hypothesis
import numpy as np
import pandas as pd
import pytest
from PIL import Image

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("MPLBACKEND", "agg")

# a first call may import a library, and machines are busy
hypothesis.settings.register_profile("any machine", deadline=None)
hypothesis.settings.load_profile("any machine")
SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture
def root(tmp_path, monkeypatch):
    """An empty folder that relative paths are meant from."""
    monkeypatch.setenv("XRAY_HELPERS_ROOT", str(tmp_path))
    return tmp_path


@pytest.fixture(scope="session")
def phantom_csv(tmp_path_factory):
    """A CSV of some 130 phantoms with patients and planted copies."""
    from xray_helpers.synthetic.dataset import write_phantoms

    return write_phantoms(tmp_path_factory.mktemp("phantoms") / "set", images=120, planted=12, seed=3)


@pytest.fixture(scope="session")
def shared():
    """The folder of real radiographs, weights and reference values, where there is one."""
    if not (SHARED / "data").is_dir():
        pytest.skip("no ../shared folder with real radiographs, weights and reference values here")
    return SHARED


@pytest.fixture
def make_images():
    """Write n random pictures into a folder, a different one each; return their path and sha256, a row
    each.
    """

    def make(folder: Path, n: int, *, seed: int = 0, suffix: str = ".png") -> pd.DataFrame:
        folder.mkdir(parents=True, exist_ok=True)
        rng, files = np.random.default_rng(seed), [folder / f"im{seed}_{i:03d}{suffix}" for i in range(n)]
        for file in files:
            Image.fromarray(rng.integers(0, 256, (12, 10), dtype=np.uint8)).save(file)
        shas = [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]
        return pd.DataFrame({"path": [file.name for file in files], "sha256": shas})

    return make


@pytest.fixture(scope="session")
def phantom():
    """A picture of 0 to 255 that uses the whole range."""
    from xray_helpers.synthetic.limb import build_patient, render_view

    rng = np.random.default_rng(5)
    pixels, _ = render_view(rng, build_patient(rng, "displaced"))
    pixels = pixels.astype(float) - pixels.min()
    return np.round(pixels * (255 / pixels.max())).astype(np.uint8)


@pytest.fixture(scope="session")
def browser():
    """Debian's Chromium."""
    from playwright.sync_api import sync_playwright

    from xray_helpers.reports.pdf import find_browser

    found = find_browser()
    if found is None:
        pytest.skip("no Chromium here: apt-get install chromium")
    with sync_playwright() as playwright:
        yield playwright.chromium.launch(
            executable_path=found, args=["--no-sandbox"] if os.geteuid() == 0 else []
        )


@pytest.fixture
def open_page(browser):
    """Open a file with no network; complain of whatever it asks, logs or throws."""
    contexts = []

    def open_(path, width=1280, scheme="light"):
        context = browser.new_context(
            viewport={"width": width, "height": 900}, offline=True, color_scheme=scheme
        )
        contexts.append(context)
        page, complaints = context.new_page(), []
        page.on(
            "request",
            lambda r: complaints.append(r.url) if not r.url.startswith(("file:", "data:")) else None,
        )
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(path.as_uri())
        page.complaints = complaints
        return page

    yield open_
    for context in contexts:
        context.close()
