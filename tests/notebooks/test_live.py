"""What people click, in a real browser: each notebook in JupyterLab, and the reading room in Voilà."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pytest
from PIL import Image
from playwright.sync_api import TimeoutError

from xray_helpers.models.prediction import predict_files

pytestmark = pytest.mark.slow

NOTEBOOKS = (
    "01_data_exploration",
    "02_train_model",
    "03_evaluate_model",
    "04_compare_models",
    "05_reading_room",
)
TOKEN = "for-tests-only"
PATIENCE = 180_000  # milliseconds
DROP = """([files, place]) => {
  const carried = new DataTransfer();
  for (const [name, bytes] of files) carried.items.add(new File([new Uint8Array(bytes)], name));
  const event = new DragEvent('drop', {dataTransfer: carried, bubbles: true, cancelable: true});
  document.querySelector(place).dispatchEvent(event);
}"""


@pytest.fixture(scope="module")
def live(study, root_folder):
    """A copy of the study, under a name of its own, that clicks may change."""
    folder = root_folder / "reports" / "live"
    shutil.copytree(study, folder)
    record = json.loads((folder / "study.json").read_text())
    record["settings"] |= {"name": "live", "corrections": "data/live-corrections.csv"}
    (folder / "study.json").write_text(json.dumps(record))
    yield folder
    shutil.rmtree(folder)


@contextmanager
def serving(command, root, log, **environment):
    """Run a server that writes to the file `log`."""
    with open(log, "w") as out:
        process = subprocess.Popen(
            command,
            env=os.environ | {"XRAY_HELPERS_ROOT": str(root)} | environment,
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    try:
        yield process
    finally:
        process.terminate()
        process.wait()


def read_address(log, process):
    """Wait until a server has told its address."""
    while not (found := re.search(r"^http\S+$", log.read_text(), re.M)):
        assert process.poll() is None, log.read_text()
        time.sleep(0.2)
    return found[0]


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def lab(live, root_folder, tmp_path_factory):
    """JupyterLab as `python -m xray_helpers lab` starts it; its address."""
    place, port = tmp_path_factory.mktemp("lab"), free_port()
    settings = place / "@jupyterlab" / "notebook-extension"
    settings.mkdir(parents=True)
    (settings / "tracker.jupyterlab-settings").write_text(
        '{"windowingMode": "none"}'
    )  # so that all cells are there
    options = ["--no-browser", f"--ServerApp.port={port}", f"--IdentityProvider.token={TOKEN}"]
    options += ["--allow-root"] if os.geteuid() == 0 else []
    command = [sys.executable, "-m", "xray_helpers", "lab", "live", "MobileNetV2", "--", *options]
    with serving(command, root_folder, place / "log", JUPYTERLAB_SETTINGS_DIR=str(place)):
        for _ in range(120):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/api", timeout=2)
                break
            except OSError:
                time.sleep(0.5)
        yield f"http://127.0.0.1:{port}"


def wait_for_kernel(lab, name):
    """Wait until a notebook's kernel is connected: the page calls itself idle before."""
    for _ in range(PATIENCE // 500):
        with urllib.request.urlopen(f"{lab}/api/sessions?token={TOKEN}", timeout=60) as answer:
            kernels = [each["kernel"] for each in json.load(answer) if each["path"].endswith(f"{name}.ipynb")]
        if any(kernel["connections"] and kernel["execution_state"] == "idle" for kernel in kernels):
            return
        time.sleep(0.5)
    raise AssertionError(f"{name} has no kernel.")


def start_all(page):
    """Choose Run All Cells, once more where JupyterLab, just opened, passed over it or asked for a kernel."""
    begun = (
        "[...document.querySelectorAll('.jp-CodeCell .jp-InputPrompt')].some(p => "
        "/\\[\\d/.test(p.textContent))"
    )
    asked = page.locator(".jp-Dialog")
    item = page.locator(".lm-Menu-item", has=page.get_by_text("Run All Cells", exact=True))
    for _ in range(3):
        page.get_by_role("menuitem", name="Run", exact=True).click()
        item.hover()  # a click takes whatever item the menu holds for the active one
        page.wait_for_function("item => item.classList.contains('lm-mod-active')", arg=item.element_handle())
        page.keyboard.press("Enter")
        with suppress(TimeoutError):
            page.wait_for_function(f"{begun} || document.querySelector('.jp-Dialog')", timeout=20_000)
        if asked.count():
            print("JupyterLab asked:", asked.inner_text())
            asked.locator(".jp-mod-accept").click()
        with suppress(TimeoutError):
            page.wait_for_function(begun, timeout=10_000)
            return
    raise AssertionError("Run All Cells starts nothing.")


@pytest.fixture
def run_all(browser, lab):
    """Open a notebook, run all its cells, and return the page once the last has ended; no cell may fail."""
    contexts = []

    def run(name):
        context = browser.new_context(viewport={"width": 1400, "height": 1000})
        contexts.append(context)
        page = context.new_page()
        page.goto(
            f"{lab}/doc/workspaces/{name}/tree/{name}.ipynb?token={TOKEN}"
        )  # nothing of an earlier one is restored
        page.wait_for_selector(".jp-Notebook .jp-CodeCell", timeout=PATIENCE)
        page.wait_for_selector('.jp-Notebook-ExecutionIndicator[data-status="idle"]', timeout=PATIENCE)
        page.wait_for_load_state("networkidle", timeout=PATIENCE)
        wait_for_kernel(lab, name)
        start_all(page)
        page.wait_for_function(
            "[...document.querySelectorAll('.jp-CodeCell .jp-InputPrompt')].every(p => "
            "/\\[\\d+\\]/.test(p.textContent))"
            " || document.querySelector('[data-mime-type=\"application/vnd.jupyter.error\"]')",
            timeout=PATIENCE,
        )
        assert page.get_by_text("Jupyter news").count() == 0  # JupyterLab asks nobody for anything
        errors = page.locator('[data-mime-type="application/vnd.jupyter.error"]').all_inner_texts()
        assert errors == [], errors
        return page

    yield run
    for context in contexts:
        context.close()


def dropdown(page, label):
    return page.locator(f".widget-dropdown:has(label:text-is('{label}')) select")


def picture(page, box):
    return page.locator(f"{box} img").first.get_attribute("src")


def test_01_browses_the_images_and_saves_a_correction(run_all, root_folder, live):
    page = run_all("01_data_exploration")
    page.wait_for_selector("caption:has-text('Why they are together')")
    covers = page.locator("button[title^='does not belong: ']").all()
    files = [cover.get_attribute("title").removeprefix("does not belong: ") for cover in covers]
    assert len(files) >= 2
    page.get_by_role("button", name="This group is wrong").click()
    page.wait_for_selector("text=The next run of 01 honours it")
    saved = pd.read_csv(root_folder / "data" / "live-corrections.csv")
    sha = pd.read_csv(live / "manifest.csv").set_index("path")["sha256"]
    assert set(saved["action"]) == {"separate"}
    assert {*saved["sha256_a"], *saved["sha256_b"]} == set(sha[files])
    covers[0].click()  # on its picture
    page.wait_for_function("document.querySelector('button .fa-times')")
    page.get_by_role("button", name="Take this correction back").click()
    page.wait_for_selector("text=Taken back")
    assert pd.read_csv(root_folder / "data" / "live-corrections.csv").empty
    dropdown(page, "show").select_option("images")
    dropdown(page, "part").select_option("test")
    page.wait_for_function("!document.querySelector('.widget-html caption')")


def test_02_draws_its_curves_while_it_trains(run_all, live, study):
    page = run_all("02_train_model")
    mine, theirs = (pd.read_csv(folder / "MobileNetV2" / "predictions_test.csv") for folder in (live, study))
    assert mine.equals(theirs)  # by hand in JupyterLab as in the series
    assert re.search(r"loss after \d+ epochs", page.locator(".widget-html svg").first.inner_html())


def test_03_moves_its_threshold_and_pages_through_errors(run_all):
    page = run_all("03_evaluate_model")
    number, point = page.locator("td.sensitivity"), page.locator(".operating-point").first
    before = number.inner_text(), point.get_attribute("cx"), point.get_attribute("cy")
    slider = page.locator(".widget-slider", has_text="threshold").locator(".noUi-handle")
    slider.focus()
    page.keyboard.press("Home")  # 0: every image is called fractured
    page.wait_for_function("document.querySelector('td.sensitivity').textContent == '1.000'")
    assert page.locator("td.specificity").inner_text() == "0.000"
    assert (number.inner_text(), point.get_attribute("cx"), point.get_attribute("cy")) != before

    kind = dropdown(page, "show")
    words = kind.locator("option").all_text_contents()
    counts = [int(re.search(r"\d+$", word)[0]) for word in words]
    kind.select_option(index=int(np.argmax(counts)))
    page.wait_for_selector(f"text=1 of {max(counts)}")
    first = picture(page, ".widget-vbox")
    page.get_by_role("button", name="next").click()
    page.wait_for_selector(f"text=2 of {max(counts)}")
    page.wait_for_function("first => document.querySelector('.widget-vbox img').src != first", arg=first)
    page.get_by_text("cosine").nth(3).wait_for()  # nearest train images, which come after the picture
    assert page.get_by_text("cosine").count() == 4


def test_04_lays_two_models_side_by_side(run_all):
    page = run_all("04_compare_models")
    page.wait_for_selector("text=/They disagree on \\d+ of \\d+ test images/")
    page.get_by_label("only where they disagree").uncheck()
    page.wait_for_selector("text=/1 of \\d+/")
    assert page.locator(".widget-image").count() == 2


def test_05_opens_the_reading_room_in_jupyterlab_too(run_all):
    page = run_all("05_reading_room")
    page.wait_for_selector(".widget-upload", timeout=PATIENCE)
    box = page.locator(".reading-room")
    box.evaluate("room => room.style.minHeight = '3000px'")  # as with a picture and many answers
    box.evaluate("room => room.scrollIntoView({block: 'end'})")
    notice = page.locator(".reading-room .research-only")
    assert notice.evaluate(
        "n => { const r = n.getBoundingClientRect(); return r.top >= 0 && r.bottom < innerHeight; }"
    )


@pytest.fixture
def saltless(root_folder):
    """The root, as it is before a DICOM file was ever read there."""
    salt = root_folder / "data" / "patients.salt"
    kept = salt.read_bytes()
    salt.unlink()
    yield root_folder
    salt.write_bytes(kept)


def drop(page, files, place):
    """Drop files on the first element of a selector."""
    page.evaluate(DROP, [[(path.name, list(path.read_bytes())) for path in files], place])


def wait_for_rows(page, count):
    page.wait_for_function(
        f"document.querySelectorAll('.answers tr').length == {count + 1}", timeout=PATIENCE
    )


def find_kernels(process):
    """Return the kernels that a server has left."""
    found = []
    for child in psutil.Process(process.pid).children(recursive=True):
        with suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
            found += [child] if any("ipykernel" in word for word in child.cmdline()) else []
    return found


def test_files_that_come_while_others_are_read_wait_and_nothing_outlives_the_page(
    browser, live, root_folder, secret_csv, tmp_path
):
    pictures = sorted(secret_csv.parent.rglob("*.png"))[:6]
    command = [sys.executable, "-m", "xray_helpers", "app", "live", "MobileNetV2"]
    with serving(command, root_folder, tmp_path / "log") as process:
        page = browser.new_page()
        page.goto(read_address(tmp_path / "log", process))
        page.wait_for_selector(".widget-upload", timeout=PATIENCE)
        for batch, place in ((pictures[:3], "h1"), (pictures[3:4], ".reading-room"), (pictures[4:], "h1")):
            drop(page, batch, place)  # on the heading too: the browser would open a radiograph in a tab
        wait_for_rows(page, 6)
        names = page.locator(".answers tr td:first-child").all_inner_texts()
        assert names == [path.name for path in pictures]
        assert find_kernels(process)
        page.close()
        end = time.monotonic() + PATIENCE / 1000
        while find_kernels(process) and time.monotonic() < end:
            time.sleep(1)
        assert not find_kernels(process)  # with the radiographs in its memory


def test_the_reading_room_answers_four_kinds_of_files(browser, live, saltless, secret_csv, tmp_path):
    root_folder = saltless
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (300, 400, 3), np.uint8)).save(
        tmp_path / "holiday.jpg"
    )
    (tmp_path / "words.png").write_text("not a picture")
    shutil.copy(secret_csv.parent / "scan.dcm", tmp_path / "scan.dcm")
    shutil.copy(sorted(secret_csv.parent.rglob("*.png"))[1], tmp_path / "limb.png")
    before = {path for path in root_folder.rglob("*")}
    command = [sys.executable, "-m", "xray_helpers", "app", "live", "MobileNetV2"]
    with serving(command, root_folder, tmp_path / "log", HOME=str(tmp_path)) as process:
        address = read_address(tmp_path / "log", process)
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        refused = page.goto(address.split("?")[0])
        assert "upload" not in page.content()  # without the token there is nothing
        assert "login" in page.url or refused.status in (401, 403)
        strangers = []
        page.on(
            "response",
            lambda r: (
                None if r.url.startswith(("http://127.0.0.1", "data:", "blob:")) else strangers.append(r.url)
            ),
        )
        page.goto(address)
        page.wait_for_selector(".widget-upload", timeout=PATIENCE)
        assert page.locator(".research-only").is_visible()
        with page.expect_file_chooser() as chooser:
            page.click(".widget-upload")
        chooser.value.set_files([str(tmp_path / name) for name in ("scan.dcm", "limb.png", "words.png")])
        wait_for_rows(page, 3)
        drop(page, [tmp_path / "holiday.jpg"], ".reading-room .widget-upload")
        wait_for_rows(page, 4)
        rows = [row.locator("td").all_inner_texts() for row in page.locator(".answers tr").all()[1:]]
        assert page.locator(".research-only").is_visible()
        link = page.locator("a[download]").get_attribute("href")
        assert page.locator("a[download]").get_attribute("download") == "reading_room_live_MobileNetV2.csv"
        page.close()
    new = {path for path in root_folder.rglob("*")} - before
    assert not [path for path in new if path.is_file()]  # files stay in memory
    answers = {row[0]: row for row in rows}
    expected = predict_files(live, "MobileNetV2", [str(tmp_path / name) for name in ("scan.dcm", "limb.png")])
    for row in expected.itertuples():
        _, answer, probability, decision, warning, _ = answers[Path(row.file).name]
        assert float(probability) == pytest.approx(row.probability, abs=0.001)
        assert decision == row.decision
        assert answer in (row.decision, "abstains")
        assert "photograph" not in warning
    assert answers["words.png"][1] == "no picture"
    assert "no picture of a known format" in answers["words.png"][5]
    assert "a colour photograph, no radiograph" in answers["holiday.jpg"][4]
    assert pd.read_csv(urllib.request.urlopen(link))["file"].tolist() == [
        "scan.dcm",
        "limb.png",
        "words.png",
        "holiday.jpg",
    ]
    assert strangers == []
