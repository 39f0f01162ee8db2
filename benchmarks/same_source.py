"""How well and how fast same-source images are found; prints a table.

    python benchmarks/same_source.py real DATA SOURCES.csv [--weights PLACE]
    python benchmarks/same_source.py made DATA SOURCES.csv [--weights PLACE]
    python benchmarks/same_source.py scale 1000 10000 [--weights PLACE]
    python benchmarks/same_source.py --quick

`real` compares with the true sources (columns path, source). `made` takes one image of each source, makes
five variants of 150 of them, one transform each (B1) or all combined (B2), and leaves the others in as
distractors. `scale` makes phantoms and variants of them, and shows time and memory. Leak is the share of the
test files with a sibling in train, after grouping and a grouped 80/20 split. The cache is a new one, so that
times are cold.
"""

import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click
import cv2
import numpy as np
import pandas as pd
from PIL import Image
from small import QUICK, write_set

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

TRANSFORMS = ("rotation", "flip", "brightness", "shear", "crop", "jpeg", "resize")


def vary(picture: np.ndarray, kinds: tuple[str, ...], rng: np.random.Generator, path: Path) -> None:
    """Write a variant of `picture` (uint8 grey): the transforms of `kinds`, one after another."""
    height, width = picture.shape
    quality = 95
    for kind in kinds:
        if kind in ("rotation", "shear"):
            turn = rng.uniform(-20, 20) if kind == "rotation" else 0.0
            matrix = cv2.getRotationMatrix2D((width / 2, height / 2), turn, 1.0)
            if kind == "shear":
                slope = rng.uniform(-0.2, 0.2)
                matrix = np.array([[1, slope, -slope * height / 2], [0, 1, 0]])
            picture = cv2.warpAffine(picture, matrix, (width, height), flags=cv2.INTER_LINEAR)
        elif kind == "flip":
            picture = np.ascontiguousarray(picture[:, ::-1] if rng.random() < 0.7 else picture[::-1])
        elif kind == "brightness":
            picture = np.clip(picture * rng.uniform(0.7, 1.3) + rng.uniform(-30, 30), 0, 255).astype(np.uint8)
        elif kind == "crop":
            share = rng.uniform(0.7, 0.95)
            h, w = int(height * share), int(width * share)
            top, left = rng.integers(0, height - h + 1), rng.integers(0, width - w + 1)
            picture = cv2.resize(picture[top : top + h, left : left + w], (width, height))
        elif kind == "jpeg":
            quality = 60
        elif kind == "resize":
            scale = rng.uniform(0.5, 1.5)
            picture = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    Image.fromarray(picture).save(path, quality=quality)


def judge(table: pd.DataFrame, found: pd.Series, truth: np.ndarray) -> dict[str, float]:
    """Compare groups with true sources: pair recall and precision, mixed groups, leak after a grouped
    split.
    """
    known = found.notna().to_numpy()
    groups, sources = pd.factorize(found[known])[0], pd.factorize(truth[known])[0]

    def pairs(codes: np.ndarray) -> float:
        sizes = np.unique(codes, return_counts=True)[1].astype(float)
        return float((sizes * (sizes - 1) / 2).sum())

    both = pairs(groups * (sources.max() + 1) + sources)
    leaks = []
    for seed in range(20):
        draw = np.random.default_rng(seed).permutation(groups.max() + 1)
        sizes = np.bincount(groups)[draw].cumsum()
        test = np.isin(groups, draw[sizes <= 0.2 * len(groups)])
        leaks.append(np.isin(sources[test], sources[~test]).mean() if test.any() else 0.0)
    mixed = pd.Series(sources).groupby(groups).nunique().max()
    return {
        "recall": both / max(pairs(sources), 1),
        "precision": both / max(pairs(groups), 1),
        "most sources in a group": mixed,
        "residual leak": float(np.mean(leaks)),
    }


def search(table: pd.DataFrame, folder: Path, weights: str) -> tuple[pd.Series, dict[str, float]]:
    """Run the search on files that exist and return the groups, with time and speed."""
    from xray_helpers.data.manifest import inspect_files
    from xray_helpers.data.tables import Listing
    from xray_helpers.models.backbones import embedder_weights
    from xray_helpers.models.features import build_embedder
    from xray_helpers.models.inference import choose_backend
    from xray_helpers.same_source.search import find_same_source

    unknown = dict.fromkeys(["label", "patient", "exam", "folder_split", "excluded"])
    listing = Listing(folder, table.assign(**unknown), [])
    place = embedder_weights(weights)
    embed, key = build_embedder(place, choose_backend(os.environ.get("ENGINE", "auto"), images=len(table)))
    if embed is not None:  # importing TensorFlow and tracing the network are not part of the speed
        from xray_helpers.same_source.candidates import EMBED_SIDE

        embed(np.zeros((64, EMBED_SIDE, EMBED_SIDE), np.uint8))
    started = time.perf_counter()
    manifest = inspect_files(listing)
    result = find_same_source(manifest, folder, embed, key)
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return result.source, {
        "files": len(table),
        "unique": result.unique,
        "seconds": seconds,
        "unique a second": result.unique / seconds,
        "peak GiB": peak,
    }


@click.group(invoke_without_command=True)
@click.option("--quick", is_flag=True, help=QUICK)
@click.pass_context
def main(context: click.Context, quick: bool) -> None:
    """Same-source search: accuracy on real and made variants, and scale."""
    home = Path(tempfile.mkdtemp(prefix="same-source-"))
    os.environ["XRAY_HELPERS_ROOT"] = str(home)
    if quick:
        data, sources = map(str, write_set(home, 30))
        context.invoke(real, data=data, sources=sources)
        context.invoke(made, data=data, sources=sources, varied=2)
        context.invoke(scale, sizes=(12,))
    elif context.invoked_subcommand is None:
        raise click.UsageError("Say which: real, made or scale; or --quick.")


@main.command()
@click.argument("data")
@click.argument("sources")
@click.option("--weights", default="random")
def real(data: str, sources: str, weights: str) -> None:
    """Compare with true sources, and show the leak of the set's own folders."""
    from xray_helpers.data.leaks import measure_leak
    from xray_helpers.data.listing import list_data

    listing = list_data(str(Path(data).resolve()))
    truth = listing.table["path"].map(pd.read_csv(sources).set_index("path")["source"]).to_numpy()
    found, cost = search(listing.table[["path"]], listing.folder, place_of(weights))
    own = measure_leak(listing.table.assign(group=found), listing.table["folder_split"])
    show([{"set": "real"} | judge(listing.table, found, truth) | {"own folders' leak": own["share"]} | cost])


@main.command()
@click.argument("data")
@click.argument("sources")
@click.option("--weights", default="random")
@click.option("--varied", default=150)
def made(data: str, sources: str, weights: str, varied: int) -> None:
    """Make variants of real images and find them again."""
    from xray_helpers.images.radiographs import UnreadableError, read_radiograph

    data = Path(data).resolve()
    first = pd.read_csv(sources).drop_duplicates("source")
    pictures = {}
    for row in first.itertuples():
        try:
            pictures[row.source] = read_radiograph(data / row.path).pixels
        except UnreadableError:
            continue
    rows = []
    for name in ("B1 single", "B2 combined"):
        folder = Path(tempfile.mkdtemp(prefix="made-"))
        files, truth = [], []
        for number, (source, picture) in enumerate(pictures.items()):
            rng = np.random.default_rng([number, len(name)])
            names = [f"{number:04d}.png"]
            Image.fromarray(picture).save(folder / names[0])
            for variant in range(5 if number < varied else 0):
                kinds = (TRANSFORMS[rng.integers(len(TRANSFORMS))],) if name.startswith("B1") else TRANSFORMS
                names.append(f"{number:04d}_{variant}.jpg")
                vary(picture, kinds, rng, folder / names[-1])
            files += names
            truth += [source] * len(names)
        table = pd.DataFrame({"path": files})
        found, cost = search(table, folder, place_of(weights))
        rows.append({"set": name} | judge(table, found, np.array(truth)) | cost)
    show(rows)


@main.command()
@click.argument("sizes", nargs=-1, type=int, required=True)
@click.option("--weights", default="random")
def scale(sizes: tuple[int, ...], weights: str) -> None:
    """Time and memory at several sizes, a process each: phantoms, a third of them varied twice."""
    for size in sizes:
        subprocess.run([sys.executable, __file__, "one-size", str(size), "--weights", weights], check=True)


@main.command("one-size")
@click.argument("size", type=int)
@click.option("--weights", default="random")
def one_size(size: int, weights: str) -> None:
    """Find the variants among `size` files made from phantoms."""
    from xray_helpers.synthetic.limb import build_patient, render_view

    folder = Path(tempfile.mkdtemp(prefix="scale-"))
    files, truth = [], []
    for number in range(10**9):
        if len(files) >= size:
            break
        rng = np.random.default_rng([77, number])
        picture, _ = render_view(rng, build_patient(rng, "displaced" if number % 2 else None), (160, 128))
        names = [f"{number:06d}.png"]
        Image.fromarray(picture).save(folder / names[0])
        for variant in range(6 if number % 3 == 0 else 0):
            names.append(f"{number:06d}_{variant}.jpg")
            vary(picture, (TRANSFORMS[rng.integers(5)],), rng, folder / names[-1])
        files += names
        truth += [number] * len(names)
    table = pd.DataFrame({"path": files})
    found, cost = search(table, folder, place_of(weights))
    show([{"set": f"phantoms, {size}"} | judge(table, found, np.array(truth)) | cost])


def place_of(weights: str) -> str:
    """Return a path from where the command was given, or the word."""
    return str(Path(weights).resolve()) if Path(weights).exists() else weights


def show(rows: list[dict]) -> None:
    """Print rows as a table."""
    print(pd.DataFrame(rows).to_string(index=False, float_format=lambda v: f"{v:.4f}"))


if __name__ == "__main__":
    main()
