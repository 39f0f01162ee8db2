"""What each export of a model costs; prints a table.

    python benchmarks/export.py STUDY MODEL [--to litert,onnx] [--int8]
    python benchmarks/export.py STUDY MODEL --page [--pictures 20]
    python benchmarks/export.py --quick

Exports a model of a finished study and compares each format with ``model.keras`` on the test images. With
``--page``: opens the page that ``export --page`` wrote, from its file and with the network blocked, in
headless Chromium, and compares what it says of test images with what its model says in Python.
"""

import os
import tempfile
import time
from pathlib import Path

import click
import numpy as np
import pandas as pd
from small import QUICK, run_study

COLUMNS = {
    "mib": "MiB",
    "one_thread": "ms, one thread",
    "all_threads": "ms, all threads",
    "memory": "memory, MiB",
    "largest": "largest difference",
    "mean": "mean difference",
    "flips": "flips",
    "verdict": "verdict",
}


@click.command()
@click.argument("study", default="")
@click.argument("model", default="MobileNetV2")
@click.option("--to", default="litert,openvino,onnx")
@click.option("--int8", is_flag=True)
@click.option("--page", is_flag=True, help="Time the page that runs the model instead.")
@click.option("--pictures", default=20, show_default=True, help="Test images for the page.")
@click.option("--quick", is_flag=True, help=QUICK)
def main(study: str, model: str, to: str, int8: bool, page: bool, pictures: int, quick: bool) -> None:
    """Print a row a format, or what a page needs and how far it differs."""
    from xray_helpers.runner.export import run_export
    from xray_helpers.study.folders import find_study

    if not study and not quick:
        raise click.UsageError("Say a study and a model; or --quick.")
    if page:
        measure_page(find_study(study), model, pictures)
        return
    with tempfile.TemporaryDirectory(prefix="export-") as place:
        if quick:
            run_study(Path(place))
            os.environ["XRAY_HELPERS_ROOT"], study, to = place, "small", "litert-dynamic-int8"
        report, error = run_export(study, model, to.split(","), int8=int8)
        table = pd.read_csv(report.with_name("proof.csv")).set_index("format")[list(COLUMNS)]
    print(table.rename(columns=COLUMNS).to_string(float_format="{:.3g}".format))
    if error:
        print(error)


def measure_page(study: Path, model: str, count: int) -> None:
    """Print the size of a page, the time of its answers, and its difference from Python."""
    import onnxruntime
    from playwright.sync_api import sync_playwright

    from xray_helpers.data.manifest import data_folder
    from xray_helpers.images.pixels import load_pixels
    from xray_helpers.reports.pdf import find_browser
    from xray_helpers.study.files import read_csv, read_json

    place, images = study / model / "export" / "page", data_folder(study)
    part = read_csv(study / model / "predictions_test.csv").merge(
        read_csv(study / "manifest.csv"), "left", "path"
    )
    part = part[part["path"].str.lower().str.endswith((".png", ".jpg", ".jpeg", ".webp"))].head(count)
    size = tuple(read_json(study / "study.json")["settings"]["img_size"])
    session = onnxruntime.InferenceSession(place / "page.onnx")
    pixels = load_pixels(part, images, size)[:][..., None].astype(np.float32)
    expected = [session.run(["probabilities"], {"grey_pixels": one[None]})[0][0, 0] for one in pixels]
    complaints, answered, seconds, began = [], [], [], time.perf_counter()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_browser(), args=["--no-sandbox"])
        page = browser.new_context(offline=True).new_page()
        page.on(
            "request", lambda r: complaints.append(r.url) if not r.url.startswith(("file:", "data:")) else 0
        )
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        began = time.perf_counter()
        page.goto((place / "page.html").as_uri())
        for path in part["path"]:
            page.evaluate("document.getElementById('result').hidden = true")
            page.set_input_files("#choose", images.path / path)
            page.locator("#result:not([hidden])").wait_for()
            seconds.append(time.perf_counter() - began)
            answered.append(float(page.get_attribute("#probability", "value")))
            began = time.perf_counter()
        browser.close()
    print(f"{(place / 'page.html').stat().st_size / 1e6:.1f} MB; {len(answered)} pictures")
    print(
        f"first answer {seconds[0]:.1f} s after opening, the others {np.median(seconds[1:]):.2f} s (median)"
    )
    print(f"largest difference from Python {np.abs(np.subtract(answered, expected)).max():.1e}")
    print(f"requests to a network, messages and errors: {complaints or 'none'}")


if __name__ == "__main__":
    main()
