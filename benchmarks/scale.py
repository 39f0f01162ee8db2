"""Time and memory of features at growing numbers of images; prints a table, a process a line.

    python benchmarks/scale.py 1000 10000 100000 [--model MobileNetV2] [--weights PLACE] [--side 224] [--head]
    python benchmarks/scale.py --quick

Makes so many small JPEGs (a few hundred pictures, shifted, so that every file differs), then decodes them, extracts
features, and with --head trains three epochs on them, from a cold cache.
"""

import hashlib
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click
import numpy as np
import pandas as pd
from PIL import Image
from small import QUICK

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def write_images(folder: Path, count: int, side: int) -> pd.DataFrame:
    """Write JPEGs and return their table: path, sha256, y_true."""
    rng = np.random.default_rng(0)
    grain = rng.normal(0, 12, (side, side))
    rows = []
    for number in range(count):
        steps = np.linspace(0, rng.uniform(20, 120), side)
        picture = np.clip(np.add.outer(steps, steps[::-1]) + np.roll(grain, number, axis=number % 2), 0, 255)
        path = folder / f"{number // 1000:03d}" / f"{number:06d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture.astype(np.uint8)).save(path, quality=90)
        sha = hashlib.sha256(path.read_bytes()).hexdigest()
        rows.append({"path": str(path.relative_to(folder)), "sha256": sha, "y_true": number % 2})
    return pd.DataFrame(rows)


@click.command()
@click.argument("sizes", nargs=-1, type=int)
@click.option("--model", default="MobileNetV2")
@click.option(
    "--weights", default="random", help="A folder of ImageNet weights, or 'random', which are calibrated first."
)
@click.option("--side", default=224)
@click.option("--views", default=0)
@click.option("--head", is_flag=True, help="Train a head as well.")
@click.option("--here", is_flag=True, hidden=True)
@click.option("--quick", is_flag=True, help=QUICK)
def main(
    sizes: tuple[int, ...], model: str, weights: str, side: int, views: int, head: bool, here: bool, quick: bool
) -> None:
    """Measure each size in a process of its own."""
    if quick:
        sizes, side, views, head = (40,), 64, 1, True
    elif not sizes:
        raise click.UsageError("Say how many images, such as 1000 10000; or --quick.")
    if here:
        measure(sizes[0], model, weights, side, views, head)
        return
    weights = str(Path(weights).resolve()) if Path(weights).exists() else weights
    options = [
        "--model",
        model,
        "--weights",
        weights,
        "--side",
        str(side),
        "--views",
        str(views),
        *(["--head"] if head else []),
        "--here",
    ]
    for size in sizes:
        subprocess.run([sys.executable, __file__, str(size), *options], check=True)


def measure(size: int, model: str, weights: str, side: int, views: int, head: bool) -> None:
    """Extract features of `size` images, and print seconds and the peak of memory."""
    from xray_helpers.backbones import build_extractor
    from xray_helpers.engines import ForwardPass, choose_engine
    from xray_helpers.features import extract_features
    from xray_helpers.settings import build_settings
    from xray_helpers.training import predict_head, prepare_tensorflow, train_head

    home = Path(tempfile.mkdtemp(prefix="scale-"))
    os.environ["XRAY_HELPERS_ROOT"] = str(home)
    try:
        table = write_images(home / "set", size, side)
        settings = build_settings(epochs=3, patience=3, batch_size=64)
        prepare_tensorflow(settings)
        forward = ForwardPass(build_extractor(model, (side, side), weights), choose_engine())
        forward(np.zeros((8, side, side), np.uint8))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        started = time.perf_counter()
        x = extract_features(table, home / "set", forward, model, views)
        extracted = time.perf_counter() - started
        line = {"model": model, "images": size, "views": views, "seconds": extracted,
                "images a second": size * (1 + views) / extracted}  # fmt: skip
        if head:
            y = table["y_true"].to_numpy()
            started = time.perf_counter()
            trained, _ = train_head((x, y), (x[0][:1000], y[:1000]), settings)
            predict_head(trained, x[0])
            line["head, seconds"] = time.perf_counter() - started
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(
            pd.DataFrame([line | {"GiB before": before, "peak GiB": peak}]).round(2).to_string(index=False), flush=True
        )
    finally:
        shutil.rmtree(home)


if __name__ == "__main__":
    main()
