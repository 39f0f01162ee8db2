"""Fine-tuning: upper layers of the backbone are trained with the head, on pictures; it can be resumed."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from zipfile import BadZipFile

import numpy as np
import pandas as pd
from tqdm import tqdm

from xray_helpers.images.pixels import augment, load_pixels
from xray_helpers.models.head import class_weights
from xray_helpers.models.inference import ForwardPass
from xray_helpers.settings import InputError, Settings, nearest
from xray_helpers.study.cache import RowView, cache_folder, compute_lock
from xray_helpers.study.files import atomic_write, hash_of, read_json, write_json

if TYPE_CHECKING:
    import keras
    import tensorflow as tf
_VERSION = 1
_FIRST_VIEW = 10_000  # so that the augmented views differ from those of features
_SETTINGS = (  # those that change the result
    *("seed", "batch_size", "dropout_rate", "fine_tune_epochs", "fine_tune_learning_rate", "learning_rate"),
    *("epochs", "patience", "lr_factor", "min_lr", "class_weight"),
)


class Images(NamedTuple):
    """The images of one part of a study.

    Attributes
    ----------
    pixels : RowView of uint8, shape (n, height, width), 0-255
    contents : ndarray of str, shape (n,)
        The sha256 of each.
    y_true : ndarray of int, shape (n,)
    """

    pixels: RowView
    contents: np.ndarray
    y_true: np.ndarray


def load_images(part: pd.DataFrame, folder: Path, size: tuple[int, int]) -> Images:
    """Return the pictures of a part of the manifest, with height and width `size`, and their labels."""
    return Images(load_pixels(part, folder, size), part["sha256"].to_numpy(str), part["y_true"].to_numpy())


def trained_layers(model: "keras.Model", start: float | str) -> list[str]:
    """Return the names of the layers that fine-tuning trains, without batch normalization.

    Parameters
    ----------
    model : keras.Model
        Result of `head.join_model`.
    start : float or str
        The share of the layers, from the top, or the name of the first layer.

    Raises
    ------
    InputError
        If no layer has this name.
    """
    import keras

    names = [layer.name for layer in model.layers]
    if isinstance(start, str):
        if start not in names:
            raise InputError(f"fine_tune_from: {model.name} has no layer {start!r}{nearest(start, names)}")
        first = names.index(start)
    else:
        first = int(len(names) * (1 - start))
    frozen = (keras.layers.BatchNormalization, keras.layers.Normalization)
    return [layer.name for layer in model.layers[first:] if layer.weights and not isinstance(layer, frozen)]


def fine_tune(
    model: "keras.Model",
    history: pd.DataFrame,
    train: Images,
    validation: Images,
    settings: Settings,
    *,
    key: str,
    devices: list[str] | None = None,
    on_epoch: Callable[[dict[str, float]], None] | None = None,
) -> pd.DataFrame:
    """Train the upper layers on augmented pictures; keep the weights of the epoch of lowest validation loss.

    If no epoch is better than the head alone, `model` is not changed. Batch normalization stays in inference
    mode. Several GPUs share the images of each step; a GPU that supports bfloat16 computes in it, while the
    weights stay float32. The state is saved after each epoch, and the same call resumes from it.

    Parameters
    ----------
    model : keras.Model
        Result of `head.join_model`; changed in place.
    history : DataFrame
        Result of `head.train_head`.
    train, validation : Images
    settings : Settings
    key : str
        Key of the features, which identifies the backbone.
    devices : list of str, optional
        Devices that share the work, by default all GPUs.
    on_epoch : callable, optional
        As for `head.train_head`.

    Returns
    -------
    DataFrame
        `history`, then the new epochs, with the column phase: head or fine-tuning.
    """
    history = history.assign(phase="head")
    if not settings.fine_tune_epochs:
        return history
    head_loss = float(history.loc[history["best"], "val_loss"].iloc[0])
    layers = trained_layers(model, settings.fine_tune_from)
    run = _run_key(key, layers, train, validation, settings)
    # other studies, such as points of a sweep, may train the very same
    with compute_lock(f"finetuning-{run}"), _strategy(devices).scope():
        checkpoints = _Checkpoints(run)
        copy = checkpoints.load() or _trainable_copy(model, layers, settings)
        rows = list(checkpoints.rows)
        total, done = settings.fine_tune_epochs, len(rows)
        with tqdm(total=total, initial=done, desc="fine-tuning", unit="epoch", leave=False) as bar:
            while not _is_finished(rows, head_loss, settings):
                rows.append(_train_epoch(copy, len(rows), train, validation, settings))
                checkpoints.save(copy, rows)
                bar.set_postfix(loss=rows[-1]["loss"], val_loss=rows[-1]["val_loss"], refresh=False)
                bar.update()
                if on_epoch is not None:
                    on_epoch(rows[-1])
    best = _find_best(rows)
    better = rows[best]["val_loss"] < head_loss
    if better:
        model.set_weights(checkpoints.best)
    tuned = pd.DataFrame(rows).assign(phase="fine-tuning", best=better & (np.arange(len(rows)) == best))
    tuned["epoch"] = len(history) + 1 + np.arange(len(rows))
    history["best"] &= not better
    return pd.concat([history, tuned[history.columns]], ignore_index=True)


def predict_images(images: Images, forward: ForwardPass) -> np.ndarray:
    """Return P(Fractured), float64 of shape (n,), from the forward pass of a complete model."""
    return run_images(images, forward)[:, 0].astype(np.float64)


def run_images(images: Images, forward: ForwardPass, block: int = 512) -> np.ndarray:
    """Return the outputs of a forward pass for the images, shape (n, d)."""
    starts = range(0, len(images.pixels), block)
    return np.concatenate([forward(images.pixels[start : start + block]) for start in starts])


def _run_key(key: str, layers: list[str], train: Images, validation: Images, settings: Settings) -> str:
    images = [values.tolist() for values in (*train[1:], *validation[1:])]
    chosen = [getattr(settings, name) for name in _SETTINGS]
    return hash_of("fine-tuning", _VERSION, key, layers, *images, chosen)


def _is_finished(rows: list[dict], head_loss: float, settings: Settings) -> bool:
    """Return whether all epochs are done, or the last `patience` of them were no better."""
    losses = [head_loss, *(row["val_loss"] for row in rows)]
    since_best = len(losses) - 1 - int(np.argmin(losses))
    return len(rows) >= settings.fine_tune_epochs or since_best >= max(1, settings.patience)


def _find_best(rows: list[dict]) -> int:
    return int(np.argmin([row["val_loss"] for row in rows]))


def _strategy(devices: list[str] | None) -> "tf.distribute.Strategy":
    import tensorflow as tf

    devices = devices or [device.name for device in tf.config.list_logical_devices("GPU")]
    return tf.distribute.MirroredStrategy(devices) if len(devices) > 1 else tf.distribute.get_strategy()


def _trainable_copy(model: "keras.Model", layers: list[str], settings: Settings) -> "keras.Model":
    import keras

    policy = "mixed_bfloat16" if _has_bfloat16_gpu() else "float32"

    def rebuild(layer: "keras.layers.Layer") -> "keras.layers.Layer":
        config = layer.get_config()
        last = layer is model.layers[-1]  # keep probabilities and their loss in float32
        new = type(layer).from_config(config | {"dtype": "float32" if last else policy})
        new.trainable = layer.name in layers
        return new

    copy = keras.models.clone_model(model, clone_function=rebuild)
    copy.set_weights(model.get_weights())
    copy.compile(
        keras.optimizers.Adam(settings.fine_tune_learning_rate),
        loss="binary_crossentropy",
        metrics=["accuracy"],
        run_eagerly=settings.eager,
    )
    return copy


def _has_bfloat16_gpu() -> bool:
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    found = [tf.config.experimental.get_device_details(gpu).get("compute_capability", (0, 0)) for gpu in gpus]
    return bool(found) and min(found) >= (8, 0)


def _train_epoch(
    copy: "keras.Model", epoch: int, train: Images, validation: Images, settings: Settings
) -> dict:
    import keras

    for layer in copy.layers:
        if isinstance(layer, keras.layers.Dropout) and layer.rate:  # so that a resumed run draws the same
            layer.seed_generator.state.assign(np.array([settings.seed, epoch], "uint32"))
    weights = class_weights(train.y_true, settings)
    log = copy.fit(
        _dataset(train, settings, epoch, weights),
        validation_data=_dataset(validation, settings, None, weights),
        shuffle=False,  # the data are shuffled already
        verbose=0,
    )
    row = {name: float(values[0]) for name, values in log.history.items()}
    return row | {"learning_rate": settings.fine_tune_learning_rate}


def _dataset(
    images: Images, settings: Settings, epoch: int | None, weights: np.ndarray | None = None
) -> "tf.data.Dataset":
    """Return batches: augmented, in the random order of an epoch, or without an epoch as they are."""
    import tensorflow as tf

    n = len(images.y_true)
    order = np.arange(n) if epoch is None else np.random.default_rng([settings.seed, 3, epoch]).permutation(n)

    def samples() -> Iterator[tuple]:
        for start in range(0, n, 64):
            rows = order[start : start + 64]
            pictures = images.pixels[rows]
            if epoch is not None:
                pictures = augment(pictures, images.contents[rows], _FIRST_VIEW + epoch)
            for picture, label in zip(pictures, images.y_true[rows], strict=True):
                sample = (picture[..., None].astype(np.float32), float(label))
                yield sample if weights is None else (*sample, float(weights[label]))

    picture = tf.TensorSpec((*images.pixels.shape[1:], 1), tf.float32)
    numbers = [tf.TensorSpec((), tf.float32)] * (1 if weights is None else 2)
    data = tf.data.Dataset.from_generator(samples, output_signature=(picture, *numbers))
    data = data.apply(tf.data.experimental.assert_cardinality(n))
    return data.batch(settings.batch_size if epoch is not None else 32).prefetch(2)


class _Checkpoints:
    """The epochs of one run on disk: their rows, and the networks after the last and after the best one.

    The best weights are kept in memory too, in case the cache is cleared.
    """

    def __init__(self, key: str) -> None:
        self.stem = cache_folder() / f"finetuning-{key}"
        self.rows: list[dict] = read_json(self._state, default=[])
        self.best: list[np.ndarray] = []

    @property
    def _state(self) -> Path:
        return self.stem.with_suffix(".json")

    def _network(self, epoch: int) -> Path:
        return self.stem.with_name(f"{self.stem.name}-{epoch:03d}.keras")

    def load(self) -> "keras.Model | None":
        """Return the network after the last epoch, with its optimizer, or None, and then no rows either."""
        import keras

        try:
            last = keras.saving.load_model(self._network(len(self.rows) - 1))
            best = keras.saving.load_model(self._network(_find_best(self.rows)), compile=False)
            self.best = best.get_weights()
            return last
        except (ValueError, OSError, KeyError, BadZipFile):  # missing or damaged
            self.rows = []
            return None

    def save(self, copy: "keras.Model", rows: list[dict]) -> None:
        """Write the network, then the rows; then delete networks that are neither the last nor the best."""
        with atomic_write(self._network(len(rows) - 1)) as partial:
            copy.save(partial)
        write_json(self._state, rows)
        best = _find_best(rows)
        if best == len(rows) - 1:
            self.best = copy.get_weights()
        kept = {self._network(len(rows) - 1), self._network(best)}
        for path in self.stem.parent.glob(f"{self.stem.name}-*.keras"):
            if path not in kept:
                path.unlink(missing_ok=True)
