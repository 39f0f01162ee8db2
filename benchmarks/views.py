"""What augmented views of frozen features do to AUROC, and how the project compares with today's idiom;
prints tables.

    python benchmarks/views.py DATA SOURCES.csv --weights PLACE [--views 0,1,3,8] [--seeds 5] [--folds 5]
    [--idiom] python benchmarks/views.py --quick

DATA is a folder of radiographs, SOURCES.csv says which come from one source (columns path, source). Folds
keep sources apart; AUROC is of the predictions out of fold, for each seed. With --idiom each fold is also
trained as today's tutorials do it (`speed.py`, row b) on the same images, and the paired difference is shown
with its interval.
"""

import os
import shutil
import tempfile
import time
from pathlib import Path

import click
import numpy as np
import pandas as pd
from small import QUICK, write_set

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


@click.command()
@click.argument("data", required=False)
@click.argument("sources", required=False)
@click.option("--weights", default="imagenet")
@click.option("--views", default="0,1,3,8")
@click.option("--seeds", default=5)
@click.option("--folds", default=5)
@click.option("--epochs", default=10)
@click.option("--idiom", is_flag=True, help="Also train as today's tutorials do; slow.")
@click.option("--quick", is_flag=True, help=QUICK)
def main(
    data: str | None,
    sources: str | None,
    weights: str,
    views: str,
    seeds: int,
    folds: int,
    epochs: int,
    idiom: bool,
    quick: bool,
) -> None:
    """Measure AUROC out of fold for several numbers of views."""
    from scipy import stats

    from xray_helpers.models.head import prepare_tensorflow

    home = tempfile.mkdtemp(prefix="views-")
    os.environ["XRAY_HELPERS_ROOT"] = home
    if quick:
        data, sources = map(str, write_set(Path(home), 40))
        weights, views, seeds, folds, epochs, idiom = "random", "0,1", 2, 2, 1, True
    elif sources is None:
        raise click.UsageError("Say DATA and SOURCES.csv; or --quick.")
    place = str(Path(weights).resolve()) if Path(weights).exists() else weights
    from xray_helpers.settings import build_settings

    prepare_tensorflow(build_settings())
    table, folder = read_images(Path(data).resolve(), sources)
    counts = [int(count) for count in views.split(",")]
    x = extract(table, folder, place, max(counts))
    print(
        f"{len(table)} images of {table['source'].nunique()} sources, {folds} folds, {epochs} epochs",
        flush=True,
    )
    rows = []
    for seed in range(seeds):
        ways = {f"{count} views": out_of_fold(x[: 1 + count], table, seed, folds, epochs) for count in counts}
        if idiom:
            ways["idiom"] = idiom_out_of_fold(table, folder, place, seed, folds, epochs)
        scores = {name: score(table, y_prob, folds_of(table, seed, folds)) for name, y_prob in ways.items()}
        rows += [
            {"seed": seed, "fold": fold} | {name: values[fold] for name, values in scores.items()}
            for fold in range(folds + 1)
        ]
        print(
            f"seed {seed}, all folds joined: " + "  ".join(f"{n} {v[-1]:.4f}" for n, v in scores.items()),
            flush=True,
        )
    result = pd.DataFrame(rows).set_index(["seed", "fold"])
    joined = result.xs(folds, level="fold")
    print(joined.agg(["mean", "std"]).round(4).to_string())
    reference = "idiom" if idiom else f"{counts[0]} views"
    single = result.drop(index=folds, level="fold")
    for kind, column in ((k, c) for k in ("a seed", "a fold") for c in result.columns.drop(reference)):
        part = joined if kind == "a seed" else single
        difference = (part[column] - part[reference]).dropna()
        half = stats.t.ppf(0.975, len(difference) - 1) * difference.sem()
        print(f"paired by {kind}, n = {len(difference)}: ", end="")
        print(
            f"{column} - {reference}: {difference.mean():+.4f} ({difference.mean() - half:+.4f} to "
            f"{difference.mean() + half:+.4f})"
        )
    shutil.rmtree(home)


def read_images(data: Path, sources: str) -> tuple[pd.DataFrame, Path]:
    """Return the readable, different files: path, sha256, y_true, source."""
    from xray_helpers.data.listing import list_data
    from xray_helpers.data.manifest import inspect_files

    listing = list_data(str(data))
    table = inspect_files(listing)
    table["source"] = table["path"].map(pd.read_csv(sources).set_index("path")["source"])
    table = table.dropna(subset=["sha256", "label", "source"])
    table = table[table["status"] != "unreadable"].drop_duplicates("sha256").reset_index(drop=True)
    return table.assign(y_true=(table["label"] == "Fractured").astype(int)), listing.folder


def extract(table: pd.DataFrame, folder: Path, weights: str, views: int) -> list:
    """Return the features of ImageNet MobileNetV2 at 224 pixels, of the images and of each view."""
    from xray_helpers.models.backbones import get_backbone
    from xray_helpers.models.features import extract_features
    from xray_helpers.models.inference import ForwardPass, choose_backend

    forward = ForwardPass(get_backbone("MobileNetV2").build((224, 224), weights)[0], choose_backend())
    return extract_features(table, folder, forward, "views", views)


def folds_of(table: pd.DataFrame, seed: int, folds: int) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Return rows of train, validation (an eighth of the sources that are not tested) and test, a fold
    each.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    parts = []
    outer = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    for rest, test in outer.split(table, table["y_true"], table["source"]):
        inner = StratifiedGroupKFold(8, shuffle=True, random_state=seed)
        y, groups = table["y_true"].to_numpy()[rest], table["source"].to_numpy()[rest]
        train, validation = next(inner.split(rest, y, groups))
        parts.append((rest[train], rest[validation], test))
    return parts


def score(table: pd.DataFrame, y_prob: np.ndarray, parts: list) -> list[float]:
    """Return the AUROC of each fold, then of all predictions joined."""
    from sklearn.metrics import roc_auc_score

    y = table["y_true"].to_numpy()
    single = [
        roc_auc_score(y[test], y_prob[test]) if len(set(y[test])) == 2 else np.nan for *_, test in parts
    ]
    return [*single, roc_auc_score(y, y_prob)]


def out_of_fold(x: list, table: pd.DataFrame, seed: int, folds: int, epochs: int) -> np.ndarray:
    """Train a head a fold on cached features; return P(Fractured) of every image, out of fold."""
    from xray_helpers.models.head import predict_head, train_head
    from xray_helpers.settings import build_settings

    settings = build_settings(seed=seed, epochs=epochs, patience=epochs)
    y, y_prob, head = table["y_true"].to_numpy(), np.zeros(len(table)), None
    for train, validation, test in folds_of(table, seed, folds):
        views = [view[train] for view in x]
        head, _ = train_head((views, y[train]), (x[0][validation], y[validation]), settings, head)
        y_prob[test] = predict_head(head, x[0][test])
    return y_prob


def idiom_out_of_fold(
    table: pd.DataFrame, folder: Path, weights: str, seed: int, folds: int, epochs: int
) -> np.ndarray:
    """Train `speed.todays_idiom` on each fold's train and validation images; return P(Fractured), out of
    fold.
    """
    import keras
    from speed import base_of, todays_idiom

    from xray_helpers.images.radiographs import read_radiograph

    y_prob = np.zeros(len(table))
    started = time.perf_counter()
    for train, validation, test in folds_of(table, seed, folds):
        with tempfile.TemporaryDirectory() as place:
            for part, rows in (("train", np.concatenate([train, validation])), ("test", test)):
                for row in table.iloc[rows].itertuples():
                    target = Path(place) / part / row.label / f"{row.sha256}.png"
                    target.parent.mkdir(parents=True, exist_ok=True)
                    keras.utils.save_img(
                        target, read_radiograph(folder / row.path).pixels[..., None], scale=False
                    )
            keras.utils.set_random_seed(seed)
            _, found = todays_idiom(base_of("MobileNetV2", weights), Path(place), epochs)
        in_order = table.iloc[test].sort_values(["label", "sha256"]).index  # as Keras lists its folders
        y_prob[in_order] = found
    print(f"idiom, seed {seed}: {time.perf_counter() - started:.0f} s", flush=True)
    return y_prob


if __name__ == "__main__":
    main()
