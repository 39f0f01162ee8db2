"""A five-model study against the ways it is done elsewhere, on the same images, in one process; prints
tables.

    python benchmarks/speed.py [--data DIR] [--weights PLACE] [--images 320] [--epochs 3] [--models A,B]
    [--rows abcde] python benchmarks/speed.py --quick

Rows: (a) generators of augmented images and eager training, as in old tutorials; (b)
`image_dataset_from_directory`, augmentation layers, frozen base, `fit`; (c) this project, nothing cached,
with as many augmented views as (a) and (b) see, one an epoch; (c1) the same with one view an image, as it is;
(d) as (c), with features cached; (e) the forward passes of (c) alone. Imports, building the networks and
converting them are left out and shown apart. Without --data, phantoms. `--extraction N` measures decoding and
extraction of N JPEGs of 224 pixels against (e) instead.
"""

import gc
import hashlib
import os
import resource
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np
import pandas as pd
from PIL import Image
from small import QUICK

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

SIDE = 224


def collect(data: str | None, images: int, place: Path) -> pd.DataFrame:
    """Write a train and a test folder of images per class and return a table: path, sha256, y_true, split.

    Sources are not kept apart: speed is what is measured, and the test AUROC only shows that all rows learn.
    """
    from xray_helpers.data.listing import list_data
    from xray_helpers.synthetic.dataset import write_phantoms

    listing = list_data(
        data or str(write_phantoms(place / "phantoms", images=2 * images, planted=images // 8, seed=5))
    )
    table = listing.table.dropna(subset=["label"]).sample(frac=1, random_state=0)
    rows, seen = [], set()
    wanted = {"train": images, "test": images // 4}
    for row in table.itertuples():
        split = next((name for name, count in wanted.items() if count), None)
        if split is None:
            break
        content = (listing.folder / row.path).read_bytes()
        sha = hashlib.sha256(content).hexdigest()
        try:
            with Image.open(listing.folder / row.path) as image:
                picture = image.convert("L")
        except OSError:
            continue
        if sha in seen:
            continue
        seen.add(sha)
        wanted[split] -= 1
        target = place / "set" / split / row.label / f"{sha}.jpg"
        target.parent.mkdir(parents=True, exist_ok=True)
        picture.save(target, quality=95)
        written = hashlib.sha256(
            target.read_bytes()
        ).hexdigest()  # of the file that is read: pixels are cached under it
        rows.append(
            {
                "path": str(target.relative_to(place / "set")),
                "sha256": written,
                "split": split,
                "y_true": int(row.label == "Fractured"),
            }
        )
    return pd.DataFrame(rows)


class Peak:
    """Seconds and the most memory of a block, sampled: several rows share one process."""

    def __enter__(self) -> "Peak":
        gc.collect()
        self.running, self.gib, self.started = True, 0.0, time.perf_counter()
        self.thread = threading.Thread(target=self._watch, daemon=True)
        self.thread.start()
        return self

    def _watch(self) -> None:
        while self.running:
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            self.gib = max(self.gib, pages * resource.getpagesize() / 2**30)
            time.sleep(0.05)

    def __exit__(self, *_: object) -> None:
        self.seconds = time.perf_counter() - self.started
        self.running = False
        self.thread.join()


def base_of(name: str, weights: str) -> "object":
    """Return keras.applications' network without its top, with the weights, for images of three channels."""
    import keras

    from xray_helpers.models.backbones import get_backbone

    extractor = get_backbone(name).build((SIDE, SIDE), weights)[0]
    base = getattr(keras.applications, name)(include_top=False, weights=None, input_shape=(SIDE, SIDE, 3))
    if weights != "random":
        base.set_weights(extractor.get_weights()[: len(base.get_weights())])
    base.trainable = False
    return base


def head_on(base: "object", inputs: "object", pixels: "object") -> "object":
    """Return the model of (a) and (b): frozen base, pooling, the same head as the project's."""
    import keras

    x = keras.layers.GlobalAveragePooling2D()(base(pixels, training=False))
    x = keras.layers.Dense(128, activation="relu")(keras.layers.Dropout(0.5)(x))
    model = keras.Model(inputs, keras.layers.Dense(1, activation="sigmoid")(keras.layers.Dropout(0.3)(x)))
    model.compile(keras.optimizers.Adam(1e-3), loss="binary_crossentropy", metrics=["accuracy"])
    return model


def old_tutorial(base: "object", folder: Path, epochs: int) -> tuple[np.ndarray, np.ndarray]:
    """(a): augmented by generators, trained eagerly; return y_true and y_prob of the test folder."""
    import keras
    import tensorflow as tf
    from keras.src.legacy.preprocessing.image import ImageDataGenerator

    move = ImageDataGenerator(
        rescale=1 / 127.5,
        preprocessing_function=None,
        rotation_range=15,
        width_shift_range=0.1,
        height_shift_range=0.1,
        shear_range=5,
        zoom_range=0.1,
        horizontal_flip=True,
    )
    options = {"target_size": (SIDE, SIDE), "batch_size": 16, "class_mode": "binary"}
    train = move.flow_from_directory(folder / "train", **options)
    test = ImageDataGenerator(rescale=1 / 127.5).flow_from_directory(
        folder / "test", shuffle=False, **options
    )
    tf.config.run_functions_eagerly(True)
    try:
        inputs = keras.Input((SIDE, SIDE, 3))
        model = head_on(base, inputs, inputs - 1.0)
        model.fit(train, epochs=epochs, verbose=0)
        return 1 - test.classes, 1 - model.predict(test, verbose=0)[:, 0]  # folders sort to Fractured = 0
    finally:
        tf.config.run_functions_eagerly(False)


def todays_idiom(base: "object", folder: Path, epochs: int) -> tuple[np.ndarray, np.ndarray]:
    """(b): datasets, augmentation layers, fit; return y_true and y_prob of the test folder."""
    import keras
    import tensorflow as tf

    options = {"image_size": (SIDE, SIDE), "batch_size": 16, "label_mode": "binary", "verbose": False}
    train = keras.utils.image_dataset_from_directory(folder / "train", seed=0, **options).prefetch(
        tf.data.AUTOTUNE
    )
    test = keras.utils.image_dataset_from_directory(folder / "test", shuffle=False, **options)
    inputs = keras.Input((SIDE, SIDE, 3))
    x = keras.layers.RandomFlip("horizontal")(inputs)
    x = keras.layers.RandomRotation(15 / 360)(x)
    x = keras.layers.RandomZoom(0.1)(keras.layers.RandomTranslation(0.1, 0.1)(x))
    model = head_on(base, inputs, keras.layers.Rescaling(1 / 127.5, -1)(x))
    model.fit(train, epochs=epochs, verbose=0)
    y_true = 1 - np.concatenate([labels for _, labels in test])[:, 0]
    return y_true, 1 - model.predict(test, verbose=0)[:, 0]


def this_project(
    table: pd.DataFrame, folder: Path, forward: "object", key: str, epochs: int, views: int
) -> np.ndarray:
    """(c) and (d): features once, the head on them; return y_prob of the test part."""
    from xray_helpers.models.features import extract_features
    from xray_helpers.models.head import predict_head, train_head
    from xray_helpers.settings import build_settings

    train, test = (table[table["split"] == split] for split in ("train", "test"))
    settings = build_settings(epochs=epochs, patience=epochs, augment_views=views)
    x = extract_features(train, folder, forward, key, views)
    (x_test,) = extract_features(test, folder, forward, key)
    y = train["y_true"].to_numpy()
    head, _ = train_head((x[1:] or x, y), (x[0], y), settings)
    return predict_head(head, x_test)


def fresh_forward(network: "object", engine: "object") -> tuple["object", float]:
    """Return a forward pass that has been converted, and the seconds that took."""
    from xray_helpers.models.inference import ForwardPass

    started = time.perf_counter()
    forward = ForwardPass(network, engine)
    forward(np.zeros((8, SIDE, SIDE), np.uint8))
    return forward, time.perf_counter() - started


def clear() -> None:
    """Forget all pixels and features."""
    from xray_helpers.study.cache import clear_cache, list_cache

    for kind in set(list_cache()["kind"]) & {"pixels", "features"}:
        clear_cache(kind)


@click.command()
@click.option("--data", help="A folder of radiographs; phantoms without.")
@click.option(
    "--weights", default="random", help="A folder or file of ImageNet weights, 'imagenet', or 'random'."
)
@click.option("--images", default=320, help="To train on; a quarter as many to test on.")
@click.option("--epochs", default=3)
@click.option("--models", default="MobileNetV2,DenseNet121,ResNet50,InceptionV3,VGG16")
@click.option("--rows", default="abcde", help="Which rows to run.")
@click.option("--extraction", default=0, help="Measure cold extraction of so many JPEGs instead.")
@click.option("--quick", is_flag=True, help=QUICK)
def main(
    data: str | None,
    weights: str,
    images: int,
    epochs: int,
    models: str,
    rows: str,
    extraction: int,
    quick: bool,
) -> None:
    """Measure speed, memory and test AUROC of each way, for each model and for all together."""
    place = Path(tempfile.mkdtemp(prefix="speed-"))
    os.environ["XRAY_HELPERS_ROOT"] = str(place)
    if Path(weights).exists():
        weights = str(Path(weights).resolve())
    data = str(Path(data).resolve()) if data else None
    try:
        if quick:
            measure_rows(place, None, "random", ["MobileNetV2"], 16, 1, "abcde")
            measure_extraction(place / "extraction", "random", ["MobileNetV2"], 24)
        elif extraction:
            measure_extraction(place, weights, models.split(","), extraction)
        else:
            measure_rows(place, data, weights, models.split(","), images, epochs, rows)
    finally:
        shutil.rmtree(place)


def measure_rows(
    place: Path, data: str | None, weights: str, models: list[str], images: int, epochs: int, rows: str
) -> None:
    """Run the rows for each model and print a line each, then the sums over the models."""
    from xray_helpers.models.head import prepare_tensorflow, train_head
    from xray_helpers.models.inference import choose_backend
    from xray_helpers.settings import build_settings

    prepare_tensorflow(build_settings())
    table = collect(data, images, place)
    folder = place / "set"
    engine = choose_backend()
    n, test = (table["split"] == "train").sum(), (table["split"] == "test").sum()
    x, y = np.zeros((32, 8), np.float32), np.arange(32) % 2
    train_head(([x], y), (x, y), build_settings(epochs=1))  # Keras's own first time, once a process
    print(f"{n} train and {test} test images, {epochs} epochs, {SIDE} pixels; engine {engine}", flush=True)
    lines = []
    for name in models:
        lines += measure_model(name, table, folder, weights, engine, epochs, rows)
    result = pd.DataFrame(lines)
    show(result)
    sums = result.groupby("row")["seconds"].sum()
    for slow in ("a", "b"):
        if slow in sums:
            ratios = ", ".join(f"{row} {sums[slow] / sums[row]:.1f}" for row in sums.index if row > slow)
            print(f"all models, {slow} = {sums[slow]:.0f} s; times as fast: {ratios}")


def measure_model(
    name: str, table: pd.DataFrame, folder: Path, weights: str, engine: "object", epochs: int, rows: str
) -> list[dict]:
    """Run the rows for one model, print a line each, and return them."""
    from sklearn.metrics import roc_auc_score

    from xray_helpers.models.backbones import get_backbone
    from xray_helpers.models.features import extractor_key

    n, test = (table["split"] == "train").sum(), (table["split"] == "test").sum()
    y_test = table.loc[table["split"] == "test", "y_true"].to_numpy()
    own = weights_of(name, weights)
    backbone = get_backbone(name)
    network = backbone.build((SIDE, SIDE), own)[0]
    forward, apart = fresh_forward(network, engine)
    key = extractor_key(backbone, (SIDE, SIDE), own, "imagenet", engine)
    base = base_of(name, own) if set(rows) & {"a", "b"} else None

    def project(views: int, *, cold: bool) -> tuple[np.ndarray, np.ndarray]:
        if cold:
            clear()
        return y_test, this_project(table, folder, forward, key, epochs, views)

    ways: dict[str, tuple[int, Callable]] = {
        "a": (epochs * n + test, lambda: old_tutorial(base, folder, epochs)),
        "b": (epochs * n + test, lambda: todays_idiom(base, folder, epochs)),
        "c1": (n + test, lambda: project(0, cold=True)),
        "c": ((1 + epochs) * n + test, lambda: project(epochs, cold=True)),
        "d": (0, lambda: project(epochs, cold=False)),
        "e": ((1 + epochs) * n + test, lambda: run_alone(forward, (1 + epochs) * n + test)),
    }
    lines = []
    for row, (passes, way) in ways.items():
        if row[0] in rows:
            with Peak() as peak:
                found = way()
            auroc = np.nan if row == "e" else roc_auc_score(*found)
            lines.append(
                {
                    "row": row,
                    "model": name,
                    "seconds": peak.seconds,
                    "images a second": passes / peak.seconds,
                    "peak GiB": peak.gib,
                    "test AUROC": auroc,
                    "apart": apart,
                }
            )
            print(
                "  ".join(f"{v:.2f}" if isinstance(v, float) else str(v) for v in lines[-1].values()),
                flush=True,
            )
    return lines


def weights_of(name: str, weights: str) -> str:
    """Return the weights asked for, or 'random' for a model that has none there."""
    from xray_helpers.models.backbones import BACKBONES
    from xray_helpers.models.weights import choose_file
    from xray_helpers.settings import InputError

    if weights in ("random", "imagenet"):
        return weights
    try:
        choose_file(BACKBONES[name].published, Path(weights))
    except InputError:
        return "random"
    return weights


def run_alone(forward: "object", count: int) -> None:
    """Run so many forward passes of pictures in memory."""
    pictures = np.random.default_rng(0).integers(0, 255, (64, SIDE, SIDE), dtype=np.uint8)
    store = np.empty((64, forward.features), np.float32)
    for start in range(0, count, 64):
        chunk = min(64, count - start)
        forward.submit(pictures[:chunk], store, np.arange(chunk))
    forward.wait()


def measure_extraction(place: Path, weights: str, models: list[str], count: int) -> None:
    """Print images a second of cold extraction with decoding, of the forward passes alone, and their
    ratio.
    """
    from xray_helpers.models.backbones import get_backbone
    from xray_helpers.models.features import extract_features
    from xray_helpers.models.inference import choose_backend

    rng = np.random.default_rng(0)
    (place / "set").mkdir(parents=True)
    grain = rng.normal(0, 12, (SIDE, SIDE))
    for i in range(count):
        ramp = np.add.outer(
            np.linspace(0, rng.uniform(20, 120), SIDE), np.linspace(0, rng.uniform(20, 120), SIDE)
        )
        picture = np.clip(ramp + np.roll(grain, i, axis=0), 0, 255).astype(np.uint8)
        Image.fromarray(picture).save(place / "set" / f"{i}.jpg", quality=90)
    paths = [f"{i}.jpg" for i in range(count)]
    shas = [hashlib.sha256((place / "set" / path).read_bytes()).hexdigest() for path in paths]
    part = pd.DataFrame({"path": paths, "sha256": shas})
    engine, lines = choose_backend(), []
    for name in models:
        network = get_backbone(name).build((SIDE, SIDE), weights_of(name, weights))[0]
        forward, _ = fresh_forward(network, engine)
        with Peak() as alone:
            run_alone(forward, count)
        clear()
        with Peak() as cold:
            extract_features(part, place / "set", forward, name)
        limit, reached = count / alone.seconds, count / cold.seconds
        lines.append(
            {
                "model": name,
                "images": count,
                "passes alone a second": limit,
                "cold a second": reached,
                "share": reached / limit,
                "peak GiB": cold.gib,
            }
        )
        show(pd.DataFrame(lines[-1:]))
    print(f"engine {engine}", file=sys.stderr)


def show(table: pd.DataFrame) -> None:
    """Print a table."""
    print(table.to_string(index=False, float_format=lambda v: f"{v:.2f}"), flush=True)


if __name__ == "__main__":
    main()
