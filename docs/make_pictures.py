"""Take the pictures of the README and of these pages anew, from a study of real radiographs.

    python docs/make_pictures.py DATA --weights PLACE

DATA is a folder of the set "Bone Fracture Multi-Region X-ray Data" (Madushani Rodrigo and others, ODC-By
1.0), or a sample of it; PLACE holds ImageNet's weights of MobileNetV2. It runs the study, then draws or
photographs in Chromium:

- leak.png, leak.csv: what files drawn at random reach, with true labels and with labels that mean nothing,
  and what is left with sources kept apart;
- index.png, report.png: the study's first page, and the report on one model;
- reading_room.png, errors.png: the reading room, and the error browser in JupyterLab.
"""

import argparse
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import matplotlib as mpl
import matplotlib.figure
import numpy as np
import pandas as pd
from playwright.sync_api import Page, sync_playwright

import xray_helpers as xh
from xray_helpers.evaluation.leakage import BY_GROUP, OWN_FOLDERS, RANDOM_FILES
from xray_helpers.study.files import read_csv
from xray_helpers.study.folders import find_study

PICTURES = Path(__file__).parent / "pictures"
STUDY, MODEL, SEEDS = "pictures", "MobileNetV2", 10
NAMES = {
    OWN_FOLDERS: "the set's own\ntrain and test folders",
    RANDOM_FILES: "files drawn at random",
    BY_GROUP: "files of one picture\nkept apart",
}
LABELS = {
    "true": ("labels as they are", "#2f4858", -0.13),
    "shuffled": ("labels that mean nothing", "#b2432f", 0.14),
}
INK, SPREAD = "#222222", 0.05


def run_study(data: str, weights: str) -> Path:
    """Run the study, or go on with it, and return its folder."""
    options = ["--name", STUDY, "--models", MODEL, "--profile", "full", "--overwrite"]
    values = ["-p", f"weights={weights}", "-p", "epochs=20"]
    command = [sys.executable, "-m", "xray_helpers", "run", "--data", data, *options, *values]
    subprocess.run(command, check=True)
    return find_study(STUDY)


def measure_leak(study: Path) -> pd.DataFrame:
    """Return what each split reaches, drawn ten times; columns of `measure_leakage`, and seed."""
    manifest = read_csv(study / "manifest.csv")
    features, rows = xh.models.load_study_features(study, MODEL, manifest)
    draws = [
        xh.evaluation.measure_leakage(features, rows, seed=seed).assign(seed=seed) for seed in range(SEEDS)
    ]
    return pd.concat(draws, ignore_index=True)


def draw_leak(study: Path, leak: pd.DataFrame) -> Path:
    """Draw files of one picture that stand in train and in test, and beside them what each split reaches."""
    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure = plt.figure(figsize=(12, 4.2), dpi=110, facecolor="white")
    left, right = figure.subfigures(1, 2, width_ratios=(5, 7))
    _draw_copies(left, study)
    axes = right.subplots()
    right.subplots_adjust(left=0.28, right=0.97, top=0.86, bottom=0.17)
    rng = np.random.default_rng(0)
    for kind, (label, colour, offset) in LABELS.items():
        for place, split in enumerate(NAMES):
            values = leak[(leak["split"] == split) & (leak["labels"] == kind)]["auroc"].to_numpy()
            if kind == "true" and split == OWN_FOLDERS:
                values = values[:1]  # one split, drawn by no seed
            heights = place + offset + rng.uniform(-SPREAD, SPREAD, len(values))
            name = label if place == 0 else None
            axes.plot(values, heights, "o", color=colour, alpha=0.45, ms=5, label=name, mew=0)
            text = f"{values.mean():.2f}" if values.mean() < 0.99 else f"{values.mean():.3f}"
            at = (values.mean(), place + 1.1 * offset + (0.22 if kind == "shuffled" else -0.08))
            axes.annotate(text, at, ha="center", va="bottom", fontsize=12, weight="bold", color=colour)
    axes.axvline(0.5, color="#888888", lw=1, ls="--")
    axes.text(0.49, 1.4, "chance", ha="right", va="bottom", fontsize=9.5, color="#666666")
    axes.set(xlim=(0.25, 1.05), ylim=(2.65, -0.55), yticks=range(3))
    axes.set_yticklabels(list(NAMES.values()), fontsize=10.5, color=INK)
    axes.set_xlabel("AUROC, a dot per draw of folds and labels", fontsize=9.5)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="lower right", bbox_to_anchor=(1.02, 0.99), ncols=2, frameon=False, fontsize=10.5)
    path = PICTURES / "leak.png"
    figure.savefig(path)
    return path


def _draw_copies(figure: mpl.figure.FigureBase, study: Path) -> None:
    """Draw six files of the source that the set's own test folder shares with train most often."""
    manifest = read_csv(study / "manifest.csv")
    manifest = manifest[manifest["source_group"].notna() & manifest["sha256"].notna()]
    unique = manifest.drop_duplicates("sha256")
    sides = unique.groupby("source_group")["folder_split"]
    both = sides.apply(lambda parts: min((parts == "train").sum(), 5 * (parts == "test").sum()))
    shown = unique[unique["source_group"] == both.idxmax()].sort_values("folder_split", ascending=False)
    train, test = (shown[shown["folder_split"] == part] for part in ("train", "test"))
    shown = pd.concat([train.head(5), test.head(1)])
    pictures = xh.data.read_pictures(shown["path"], xh.data.reach_study(study))
    figure.suptitle("One radiograph, as six files of the set", fontsize=11, color=INK, y=0.97)
    for axes, picture, part in zip(figure.subplots(2, 3).flat, pictures, shown["folder_split"], strict=True):
        axes.imshow(picture, cmap="gray", vmin=0, vmax=255, aspect="equal")
        colour = "#b2432f" if part == "test" else "#2f4858"
        axes.set_title(
            f"in its {part} folder", fontsize=9.5, color=colour, weight="bold" if part == "test" else None
        )
        axes.set_axis_off()
    figure.subplots_adjust(left=0.02, right=0.98, top=0.84, bottom=0.02, wspace=0.05, hspace=0.18)


@contextmanager
def serving(*arguments: str, **environment: str):
    """Run a server of the package; give the address it prints."""
    with tempfile.TemporaryDirectory() as place:
        log = Path(place) / "log"
        with log.open("w") as out:
            command = [sys.executable, "-m", "xray_helpers", *arguments]
            server = subprocess.Popen(
                command, stdout=out, stderr=subprocess.STDOUT, env=os.environ | environment
            )
        try:
            while not (found := re.search(r"^http\S+$", log.read_text(), re.MULTILINE)):
                if server.poll() is not None:
                    raise SystemExit(log.read_text())
                time.sleep(0.2)
            yield found[0]
        finally:
            server.terminate()
            server.wait()


def photograph_pages(page: Page, study: Path) -> None:
    """Photograph the first page, and the report on the model."""
    for name, path in (("index", study / "index.html"), ("report", study / MODEL / "03_evaluate_model.html")):
        page.set_viewport_size({"width": 1280, "height": 1000})
        page.goto(path.resolve().as_uri())
        page.wait_for_timeout(1000)
        page.screenshot(path=PICTURES / f"{name}.png")


def photograph_room(page: Page, study: Path) -> None:
    """Photograph the reading room with the three largest test images dropped on it."""
    manifest = read_csv(study / "manifest.csv")
    test = manifest[(manifest["split"] == "test") & (manifest["status"] == "used")]
    chosen = test.assign(pixels=test["width"] * test["height"]).nlargest(3, "pixels")
    folder = xh.data.reach_study(study)
    with serving("app", STUDY, MODEL) as address, tempfile.TemporaryDirectory() as place:
        from PIL import Image

        files = []
        for number, picture in enumerate(xh.data.read_pictures(chosen["path"], folder)):
            Image.fromarray(picture).save(path := Path(place) / f"radiograph_{number + 1}.png")
            files.append(path)
        page.set_viewport_size({"width": 1280, "height": 1000})
        page.goto(address)
        page.wait_for_selector(".widget-upload", timeout=120_000)
        with page.expect_file_chooser() as chooser:
            page.click(".widget-upload")
        chooser.value.set_files(files)
        page.wait_for_selector("text=radiograph_3.png", timeout=120_000)
        page.wait_for_timeout(8000)
        page.screenshot(path=PICTURES / "reading_room.png")


def photograph_errors(page: Page) -> None:
    """Photograph the error browser of notebook 03 in JupyterLab."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    options = ["--no-browser", f"--ServerApp.port={port}", "--IdentityProvider.token=pictures"]
    root = ["--allow-root"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
    name, command = "03_evaluate_model", [sys.executable, "-m", "xray_helpers", "lab", STUDY, MODEL, "--"]
    with tempfile.TemporaryDirectory() as place:
        settings = Path(place) / "@jupyterlab" / "notebook-extension"
        settings.mkdir(parents=True)
        (settings / "tracker.jupyterlab-settings").write_text(json.dumps({"windowingMode": "none"}))
        environment = os.environ | {"JUPYTERLAB_SETTINGS_DIR": place}
        server = subprocess.Popen([*command, *options, *root], env=environment)
        try:
            for _ in range(120):
                try:
                    urllib.request.urlopen(f"http://127.0.0.1:{port}/api", timeout=2)
                    break
                except OSError:
                    time.sleep(0.5)
            page.set_viewport_size({"width": 1000, "height": 1500})  # all of the browser between the bars
            page.goto(f"http://127.0.0.1:{port}/doc/tree/{name}.ipynb?token=pictures")
            page.wait_for_selector(".jp-Notebook .jp-CodeCell", timeout=180_000)
            page.wait_for_load_state("networkidle")
            page.wait_for_timeout(15_000)  # until the kernel is connected
            page.get_by_role("menuitem", name="Run", exact=True).click()
            item = page.locator(".lm-Menu-item", has=page.get_by_text("Run All Cells", exact=True))
            item.hover()
            page.wait_for_timeout(1000)
            page.keyboard.press("Enter")
            page.get_by_text("cosine").first.wait_for(timeout=180_000)  # the nearest train images come last
            browser = page.locator(".jp-OutputArea-output", has=page.get_by_text("cosine")).last
            page.wait_for_timeout(5000)
            browser.scroll_into_view_if_needed()
            browser.screenshot(path=PICTURES / "errors.png")
        finally:
            server.terminate()
            server.wait()


def main() -> None:
    """Take all pictures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", metavar="DATA")
    parser.add_argument("--weights", metavar="PLACE", default="imagenet")
    parser.add_argument("--only", nargs="*", default=["leak", "pages", "room", "errors"])
    given = parser.parse_args()
    study = run_study(given.data, given.weights)
    PICTURES.mkdir(exist_ok=True)
    if "leak" in given.only:
        leak = measure_leak(study)
        leak.round(4).to_csv(PICTURES / "leak.csv", index=False)
        print(draw_leak(study, leak))
        print(
            leak.groupby(["split", "labels"], sort=False)[["auroc", "accuracy"]]
            .agg(["mean", "min", "max"])
            .round(3)
        )
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))))
    with sync_playwright() as playwright:
        page = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox"]).new_page()
        if "pages" in given.only:
            photograph_pages(page, study)
        if "room" in given.only:
            photograph_room(page, study)
        if "errors" in given.only:
            photograph_errors(page)


if __name__ == "__main__":
    main()
