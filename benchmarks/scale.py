"""Time and memory at growing numbers of images: of features, or of statistics and notebooks; prints a table.

    python benchmarks/scale.py 1000 10000 100000 [--model MobileNetV2] [--weights PLACE] [--side 224] [--head]
    python benchmarks/scale.py --evaluate 100000
    python benchmarks/scale.py --quick

The first makes so many small JPEGs (a few hundred pictures, shifted, so that every file differs), then
decodes them, extracts features, and with --head trains three epochs on them, from a cold cache; a process a
line.

With --evaluate so many files are links to at most 2,000 phantoms. 01 runs on them as they are; then each file
is made its own source and patient, and 02 (one epoch, one repeat, no maps), 03 and 04 run on that: the
network sees 2,000 pictures, all else so many images. The other four models are the first with noise added.
Memory is that of the largest process of a step, which is its kernel.
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
_PICTURES = 2000  # different ones behind the files of --evaluate
_STUDY = "scale"
_MODELS = ["MobileNetV2", "InceptionV3", "ResNet50", "VGG16", "DenseNet121"]  # the first is trained


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
    "--weights",
    default="random",
    help="A folder of ImageNet weights, or 'random', which are calibrated first.",
)
@click.option("--side", default=224)
@click.option("--views", default=0)
@click.option("--head", is_flag=True, help="Train a head as well.")
@click.option("--evaluate", default=0, help="Statistics and notebooks instead, on so many images.")
@click.option("--part", type=click.Choice(["features", "statistics", "groups"]), hidden=True)
@click.option("--quick", is_flag=True, help=QUICK)
def main(
    sizes: tuple[int, ...],
    model: str,
    weights: str,
    side: int,
    views: int,
    head: bool,
    evaluate: int,
    part: str,
    quick: bool,
) -> None:
    """Measure each size in a process of its own."""
    if part:  # in such a process
        {
            "features": lambda: measure(sizes[0], model, weights, side, views, head),
            "statistics": lambda: compute_statistics(sizes[0]),
            "groups": separate_images,
        }[part]()
        return
    if quick:
        sizes, side, views, head = (40,), 64, 1, True
    elif not sizes and not evaluate:
        raise click.UsageError("Say how many images, such as 1000 10000, or --evaluate 100000; or --quick.")
    weights = str(Path(weights).resolve()) if Path(weights).exists() else weights
    how = ["--model", model, "--weights", weights, "--side", str(side), "--views", str(views)]
    for size in sizes:
        options = [*how, *(["--head"] if head else []), "--part", "features"]
        subprocess.run([sys.executable, __file__, str(size), *options], check=True)
    if evaluate:
        measure_notebooks(evaluate)


def measure(size: int, model: str, weights: str, side: int, views: int, head: bool) -> None:
    """Extract features of `size` images, and print seconds and the peak of memory."""
    from xray_helpers.models.backbones import get_backbone
    from xray_helpers.models.features import extract_features
    from xray_helpers.models.head import predict_head, prepare_tensorflow, train_head
    from xray_helpers.models.inference import ForwardPass, choose_backend
    from xray_helpers.settings import build_settings

    home = Path(tempfile.mkdtemp(prefix="scale-"))
    os.environ["XRAY_HELPERS_ROOT"] = str(home)
    try:
        table = write_images(home / "set", size, side)
        settings = build_settings(epochs=3, patience=3, batch_size=64)
        prepare_tensorflow(settings)
        forward = ForwardPass(get_backbone(model).build((side, side), weights)[0], choose_backend())
        forward(np.zeros((8, side, side), np.uint8))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        started = time.perf_counter()
        x = extract_features(table, home / "set", forward, model, views)
        extracted = time.perf_counter() - started
        line = {
            "model": model,
            "images": size,
            "views": views,
            "seconds": extracted,
            "images a second": size * (1 + views) / extracted,
        }
        if head:
            y = table["y_true"].to_numpy()
            started = time.perf_counter()
            trained, _ = train_head((x, y), (x[0][:1000], y[:1000]), settings)
            predict_head(trained, x[0])
            line["head, seconds"] = time.perf_counter() - started
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(
            pd.DataFrame([line | {"GiB before": before, "peak GiB": peak}]).round(2).to_string(index=False),
            flush=True,
        )
    finally:
        shutil.rmtree(home)


# --- statistics and notebooks -------------------------------------------------------------------------


def measure_notebooks(count: int) -> None:
    """Print what statistics and each notebook take on `count` images: a row a step, seconds and the peak of
    memory.
    """
    home = Path(tempfile.mkdtemp(prefix="scale-"))
    env = os.environ | {"XRAY_HELPERS_ROOT": str(home), "TF_CPP_MIN_LOG_LEVEL": "3", "MPLBACKEND": "agg"}
    itself = [sys.executable, __file__]
    print("| step | images | seconds | processor, seconds | peak GiB |\n|---|---|---|---|---|", flush=True)
    try:
        run_part(
            "scores of five models, all pairs", count, [*itself, str(count), "--part", "statistics"], env
        )
        data = write_links(home / "set", count)
        explore = {"data": str(data), "use_subset": 1.0, "weights": "random", "folds": 5}
        run_part("01", count, execute("01_data_exploration", home, explore), env)
        run_part("groups and parts, each its own", count, [*itself, "--part", "groups"], env)
        train = {
            "model": _MODELS[0],
            "weights": "random",
            "img_size": [64, 64],
            "epochs": 1,
            "repeats": 1,
            "maps": 0,
            "batch_size": 64,
        }
        run_part("02", count, execute("02_train_model", home, train), env)
        run_part("03", count, execute("03_evaluate_model", home, {"model": _MODELS[0]}), env)
        for number, model in enumerate(_MODELS[1:], 1):
            write_other(home / "reports" / _STUDY, model, number)
        run_part("04", count, execute("04_compare_models", home, {"models": _MODELS}), env)
    finally:
        shutil.rmtree(home)


def run_part(name: str, count: int, command: list[str], env: dict[str, str]) -> None:
    """Run a command and print its row; memory is that of the largest process below it."""
    with tempfile.TemporaryFile() as told:
        started = time.perf_counter()
        process = subprocess.Popen(command, env=env, stdout=told, stderr=told)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.perf_counter() - started
        if process.returncode:
            told.seek(0)
            raise SystemExit(f"{name} failed:\n{told.read().decode(errors='replace')[-5000:]}")
    busy, peak = usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 2**20
    print(f"| {name} | {count:,} | {seconds:.0f} | {busy:.0f} | {peak:.2f} |", flush=True)


def execute(notebook: str, home: Path, parameters: dict) -> list[str]:
    """Return the command that runs a notebook of the study by papermill."""
    from xray_helpers.study.folders import notebooks_folder

    place = home / f"{notebook}-{parameters.get('model', '')}.ipynb"
    values = [f"{key}: {value!r}" for key, value in ({"name": _STUDY} | parameters).items()]
    command = [sys.executable, "-m", "papermill", str(notebooks_folder() / f"{notebook}.ipynb"), str(place)]
    return [*command, "--no-progress-bar", "--kernel", "python3", "-y", "{" + ", ".join(values) + "}"]


def write_links(folder: Path, count: int) -> Path:
    """Write phantoms and links to them until there are `count` files in folders by class; return the
    folder.
    """
    from xray_helpers.synthetic.dataset import write_phantoms

    table = pd.read_csv(
        write_phantoms(folder.with_name("pictures"), images=min(_PICTURES, count // 2), planted=0)
    )
    for number in range(count):
        row = table.iloc[number % len(table)]
        path = (
            folder / row["label"] / f"{number // len(table):03d}" / f"{number:06d}{Path(row['path']).suffix}"
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        os.link(folder.with_name("pictures") / row["path"], path)
    return folder


def separate_images() -> None:
    """Write the manifest anew, with each file a source and a patient of its own."""
    from xray_helpers.data import manifest, parts, splits
    from xray_helpers.settings import build_settings
    from xray_helpers.study import files, folders

    place = folders.study_folder(_STUDY) / "manifest.csv"
    table = files.read_csv(place)
    table["patient"] = table["path"]
    table["status"] = table["status"].replace({"used": "readable", "not sampled": "readable"})
    table = manifest.assign_groups(table, table["path"])
    table = splits.assign_splits(table, build_settings(use_subset=1.0, folds=5))
    files.write_csv(place, parts.mark_counted(table, pd.Series(0.0, index=table.index), "sources"))


def write_other(study: Path, model: str, number: int) -> None:
    """Write what 02 and 03 leave of another model: the first's, with noise on the log-odds of its
    probabilities.
    """
    from scipy.special import expit, logit

    from xray_helpers.evaluation import metrics
    from xray_helpers.study import files

    place, rng = study / model, np.random.default_rng(number)
    shutil.copytree(study / _MODELS[0], place)
    chosen = files.read_json(place / "threshold.json")
    for path in sorted(place.glob("predictions_*.csv")):
        table = files.read_csv(path)
        odds = logit(table["y_prob"].clip(1e-6, 1 - 1e-6))
        table["y_prob"] = expit(odds + rng.normal(0, 0.2 * odds.std(), len(table)))
        if "y_pred" in table:
            table["y_pred"] = (table["y_prob"] >= chosen["threshold"]).astype(int)
        files.write_csv(path, table)
    test, validation = (files.read_csv(place / f"predictions_{part}.csv") for part in ("test", "val"))
    scores = files.read_json(place / "metrics.json") | metrics.evaluate(test, validation, chosen)
    files.write_json(place / "metrics.json", scores)
    record = files.read_json(place / "training.json") | {"model": model}
    files.write_json(place / "training.json", record)


def compute_statistics(count: int) -> None:
    """Compute the scores of five models on `count` images, each its own group, and compare all pairs."""
    from xray_helpers.evaluation.metrics import compute_metrics
    from xray_helpers.evaluation.paired import compare_pairs

    rng = np.random.default_rng(0)
    truth = rng.integers(0, 2, count)
    same = pd.DataFrame({"group": [f"patient {number}" for number in range(count)], "y_true": truth})
    seen = truth + rng.normal(size=count)
    predictions = {}
    for number, model in enumerate(_MODELS):
        y_prob = 1 / (1 + np.exp(-(seen + rng.normal(0, 1 + number / 10, count))))
        predictions[model] = same.assign(y_prob=y_prob, y_pred=(y_prob >= 0.5).astype(int))
        compute_metrics(truth, y_prob, 0.5, same["group"])
    compare_pairs(predictions)


if __name__ == "__main__":
    main()
