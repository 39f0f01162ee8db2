"""Fine-tuning: upper layers of the backbone are trained with the head, on pictures; it can be resumed."""

import hashlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

from xray_helpers.data.parts import training_target
from xray_helpers.evaluation.intervals import describe, grouped_mean
from xray_helpers.images.pixels import augment, load_pixels
from xray_helpers.models.checkpoints import Checkpoints, find_best
from xray_helpers.models.graphs import list_layers
from xray_helpers.models.head import as_probabilities, class_weights, predict_pixels
from xray_helpers.models.inference import ForwardPass
from xray_helpers.models.optimization import build_optimizer, learning_rate
from xray_helpers.models.preprocessing import POOLED
from xray_helpers.settings import InputError, Settings, current_classes, nearest
from xray_helpers.study.cache import RowView, compute_lock
from xray_helpers.study.files import hash_of
from xray_helpers.study.progress import progress
from xray_helpers.study.seeds import derive_seed

if TYPE_CHECKING:
    import keras
    import tensorflow as tf
_VERSION = 3
_PLAIN = "cross_entropy"  # the metric that is the loss without label smoothing, comparable with the head's
_FIRST_VIEW = 10_000  # so that the augmented views differ from those of features
_SETTINGS = (  # those that change the result
    *("seed", "batch_size", "dropout_rate", "tuning_epochs", "fine_tune_learning_rate", "learning_rate"),
    *("epochs", "patience", "lr_factor", "min_lr", "class_weight"),
    *("layer_decay", "warmup", "label_smoothing", "ema_epochs"),
)


class Images(NamedTuple):
    """The images of one part of a study.

    Attributes
    ----------
    pixels : RowView of uint8, shape (n, height, width), 0-255
    contents : ndarray of str, shape (n,)
        The sha256 of each.
    y_true : ndarray of int, shape (n,)
        What is learnt of each (`parts.training_target`).
    group : ndarray of str, shape (n,)
        What its images have in common counts once: a patient or a source.
    """

    pixels: RowView
    contents: np.ndarray
    y_true: np.ndarray
    group: np.ndarray


def load_images(part: pd.DataFrame, folder: Path, size: tuple[int, int]) -> Images:
    """Return the pictures of a part of the manifest, with height and width `size`, and their labels."""
    columns = part["sha256"].to_numpy(str), training_target(part), part["group"].to_numpy(str)
    return Images(load_pixels(part, folder, size), *columns)


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

    every = list(list_layers(model))
    names = [layer.name for layer in every]
    if isinstance(start, str):
        if start not in names:
            raise InputError(f"fine_tune_from: {model.name} has no layer {start!r}{nearest(start, names)}")
        first = names.index(start)
    else:
        first = int(len(names) * (1 - start))
    frozen = (keras.layers.BatchNormalization, keras.layers.Normalization)
    return [layer.name for layer in every[first:] if layer.weights and not isinstance(layer, frozen)]


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

    If they are no better than the head alone beyond chance (`measure_gain`), `model` is not changed. All
    epochs are trained, as the learning rate falls until the last (`optimization`); on a CPU the time that
    takes is told first. Batch normalization stays in inference mode. Several GPUs share the images of each
    step; a GPU that supports bfloat16 computes in it, while the weights stay float32. The state is saved
    after each epoch, and the same call resumes from it.

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
        `history`, then the new epochs, with the column phase: head or fine-tuning. Their losses are without
        label smoothing, and those on validation are of the averaged weights.
    """
    history = history.assign(phase="head")
    if not settings.tuning_epochs:
        return history
    head_loss = float(history.loc[history["best"], "val_loss"].iloc[0])
    layers = trained_layers(model, settings.fine_tune_from)
    run = _run_key(key, model, layers, train, validation, settings)
    # other studies, such as points of a sweep, may train the very same
    with compute_lock(f"finetuning-{run}"), _strategy(devices).scope():
        checkpoints = Checkpoints(run)
        copy = _trainable_copy(model, layers, len(train.y_true), settings)
        checkpoints.load(copy)
        rows = list(checkpoints.rows)
        total, done = settings.tuning_epochs, len(rows)
        if done < total and not (devices or _list_gpus()):
            _tell_time(copy, train, validation, total - done, settings)
        with progress(total=total, initial=done, desc="fine-tuning", unit="epoch", leave=False) as bar:
            while len(rows) < total:
                row, averaged = _train_epoch(copy, len(rows), train, validation, settings)
                rows.append(row)
                checkpoints.save(copy, rows, averaged)
                bar.set_postfix(loss=rows[-1]["loss"], val_loss=rows[-1]["val_loss"], refresh=False)
                bar.update()
                if on_epoch is not None:
                    on_epoch(rows[-1])
    best = find_best(rows)
    better = rows[best]["val_loss"] < head_loss and _replace_weights(
        model, checkpoints.best, validation, class_weights(train.y_true, settings)
    )
    tuned = pd.DataFrame(rows).assign(phase="fine-tuning", best=better & (np.arange(len(rows)) == best))
    tuned["epoch"] = len(history) + 1 + np.arange(len(rows))
    history["best"] &= not better
    return pd.concat([history, tuned[history.columns]], ignore_index=True)


def predict_images(images: Images, forward: ForwardPass) -> np.ndarray:
    """Return P(Fractured), float64 of shape (n,), or of k classes (n, k), by a complete model."""
    return as_probabilities(run_images(images, forward))


def run_images(images: Images, forward: ForwardPass, block: int = 512) -> np.ndarray:
    """Return the outputs of a forward pass for the images, shape (n, d)."""
    starts = range(0, len(images.pixels), block)
    return np.concatenate([forward(images.pixels[start : start + block]) for start in starts])


def _run_key(
    key: str, model: "keras.Model", layers: list[str], train: Images, validation: Images, settings: Settings
) -> str:
    """Return a hash of all that decides the result, the trained head that it begins with included."""
    images = [values.tolist() for values in (*train[1:], *validation[1:])]
    chosen = [getattr(settings, name) for name in _SETTINGS]
    names = [layer.name for layer in model.layers]
    head = model.layers[names.index(POOLED) + 1 if POOLED in names else 0 :]
    begins = [
        [repr(layer.get_config() | {"name": ""}), [_digest(w) for w in layer.get_weights()]] for layer in head
    ]
    return hash_of("fine-tuning", _VERSION, key, layers, *images, chosen, begins)


def _digest(weights: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(weights).tobytes()).hexdigest()


def _replace_weights(
    model: "keras.Model", weights: list[np.ndarray], images: Images, class_weight: np.ndarray | None
) -> bool:
    """Give a model other weights if they predict images better beyond chance; return whether they do."""
    before = model.get_weights()
    y_prob = [predict_pixels(model, images.pixels)]
    model.set_weights(weights)
    y_prob.append(predict_pixels(model, images.pixels))
    gain = measure_gain(images, *y_prob, class_weight)
    kept = gain["ci_low"] is not None and gain["ci_low"] > 0
    verdict = "kept" if kept else "not beyond chance, the head alone is kept"
    print(f"fine-tuning lowers the validation loss by {describe(gain)}, n = {len(images.y_true)}: {verdict}")
    if not kept:
        model.set_weights(before)
    return kept


def measure_gain(
    images: Images, before: np.ndarray, after: np.ndarray, class_weight: np.ndarray | None = None
) -> dict:
    """Return by how much the loss of images fell, with its 95 % interval over groups.

    A few validation images often show a gain that others do not: between two models they are paired, and
    images of one group count together.

    Parameters
    ----------
    images : Images
    before, after : ndarray, shape (n,) or (n, k)
        P(Fractured), or of k classes.
    class_weight : ndarray, shape (k,), optional
        Result of `head.class_weights`.

    Returns
    -------
    dict
        See `intervals.grouped_mean`.
    """
    old, new = (-np.log(np.clip(_of_truth(images, y_prob), 1e-7, 1)) for y_prob in (before, after))
    weight = 1.0 if class_weight is None else class_weight[images.y_true]
    return grouped_mean(weight * (old - new), images.group)


def _of_truth(images: Images, y_prob: np.ndarray) -> np.ndarray:
    """Return the probability that is given to the true class of each image."""
    if y_prob.ndim == 2:
        return y_prob[np.arange(len(y_prob)), images.y_true]
    return np.where(images.y_true == 1, y_prob, 1 - y_prob)


def _tell_time(
    copy: "keras.Model", train: Images, validation: Images, epochs: int, settings: Settings
) -> None:
    """Print how long fine-tuning takes, from the gradient of one batch, which is not applied."""
    import tensorflow as tf

    variables = [variable.value for variable in copy.trainable_variables]

    @tf.function(autograph=False)
    def gradient(pixels: "tf.Tensor") -> list:
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(copy(pixels, training=False))
        return tape.gradient(loss, variables)

    started = time.perf_counter()
    pixels = next(iter(_dataset(train, settings, 0)))[0]
    loaded = time.perf_counter()
    gradient(pixels)
    traced = time.perf_counter()
    gradient(pixels)
    ended = time.perf_counter()
    each = (loaded - started + ended - traced) / len(pixels)  # seconds an image
    # the graph of a whole step takes five times as long to build; validation takes no gradient, a third
    seconds = 5 * (traced - loaded) + epochs * each * (len(train.y_true) + len(validation.y_true) / 3)
    about = f"{seconds / 60:.0f} min" if seconds > 90 else f"{seconds:.0f} s"
    length = f"{epochs} epoch{'s' if epochs > 1 else ''} of {len(train.y_true)} images"
    print(f"fine-tuning on the CPU: about {about} for {length}", flush=True)


def _strategy(devices: list[str] | None) -> "tf.distribute.Strategy":
    import tensorflow as tf

    devices = devices or [device.name for device in tf.config.list_logical_devices("GPU")]
    return tf.distribute.MirroredStrategy(devices) if len(devices) > 1 else tf.distribute.get_strategy()


def _trainable_copy(
    model: "keras.Model", layers: list[str], images: int, settings: Settings
) -> "keras.Model":
    import keras

    policy = "mixed_bfloat16" if _has_bfloat16_gpu() else "float32"

    def rebuild(layer: "keras.layers.Layer") -> "keras.layers.Layer":
        config, last = layer.get_config(), layer is model.layers[-1]
        if "dtype" in config:  # a network inside may have none, and keeps those of its layers
            config["dtype"] = "float32" if last else policy  # of probabilities and their loss: float32
        return type(layer).from_config(config)

    copy = keras.models.clone_model(model, clone_function=rebuild)
    copy.set_weights(model.get_weights())
    copy.trainable = True
    for layer in list_layers(copy):
        layer.trainable = layer.name in layers
    for layer in copy._flatten_layers():  # those inside other layers as well
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.trainable = False
    trained = [layer for layer in list_layers(copy) if layer.trainable_variables]
    loss, plain = keras.losses.BinaryCrossentropy, keras.metrics.BinaryCrossentropy
    if model.output_shape[-1] > 1:
        loss, plain = keras.losses.CategoricalCrossentropy, keras.metrics.CategoricalCrossentropy
    copy.compile(
        build_optimizer(trained, int(np.ceil(images / settings.batch_size)), settings),
        loss=loss(label_smoothing=settings.label_smoothing),
        metrics=["accuracy"],
        weighted_metrics=[plain(_PLAIN)],
        run_eagerly=settings.eager,
    )
    return copy


def _list_gpus() -> list:
    import tensorflow as tf

    return tf.config.list_physical_devices("GPU")


def _has_bfloat16_gpu() -> bool:
    import tensorflow as tf

    details = tf.config.experimental.get_device_details
    found = [details(gpu).get("compute_capability", (0, 0)) for gpu in _list_gpus()]
    return bool(found) and min(found) >= (8, 0)


def _train_epoch(
    copy: "keras.Model", epoch: int, train: Images, validation: Images, settings: Settings
) -> tuple[dict, list[np.ndarray]]:
    """Train for an epoch; return its row of the history, and the averaged weights, which were validated."""
    import keras

    states = [each for each in copy.variables if each.path.endswith("seed_generator_state")]
    for number, state in enumerate(states):  # of dropout, so that a resumed run draws the same
        state.assign(np.array([derive_seed(settings.seed, "dropout", number), epoch], "uint32"))
    weights, own = class_weights(train.y_true, settings), []
    keep = keras.callbacks.LambdaCallback(on_epoch_end=lambda *_: own.extend(copy.get_weights()))
    data = _dataset(train, settings, epoch, weights)
    trained = copy.fit(data, shuffle=False, verbose=0, callbacks=[keep]).history  # shuffled already
    # with an average of weights, `fit` ends by putting it in the place of the weights
    validated = copy.evaluate(_dataset(validation, settings, None, weights), verbose=0, return_dict=True)
    averaged = copy.get_weights()
    copy.set_weights(own)
    row = {
        "loss": trained[_PLAIN][0] * _mean_weight(train, weights),
        "accuracy": trained["accuracy"][0],
        "val_loss": validated[_PLAIN] * _mean_weight(validation, weights),
        "val_accuracy": validated["accuracy"],
        "learning_rate": learning_rate(copy.optimizer),
    }
    return {name: float(value) for name, value in row.items()}, averaged


def _mean_weight(images: Images, weights: np.ndarray | None) -> float:
    """Return what turns a weighted mean of losses into the sum over the images that Keras's losses are."""
    return 1.0 if weights is None else float(weights[images.y_true].mean())


def _dataset(
    images: Images, settings: Settings, epoch: int | None, weights: np.ndarray | None = None
) -> "tf.data.Dataset":
    """Return batches: augmented, in the random order of an epoch, or without an epoch as they are."""
    import tensorflow as tf

    n, classes = len(images.y_true), len(current_classes().names)
    targets = np.eye(classes) if classes else np.array([[0.0], [1.0]])
    order = np.arange(n) if epoch is None else np.random.default_rng([settings.seed, 3, epoch]).permutation(n)

    def samples() -> Iterator[tuple]:
        for start in range(0, n, 64):
            rows = order[start : start + 64]
            pictures = images.pixels[rows]
            if epoch is not None:
                pictures = augment(pictures, images.contents[rows], _FIRST_VIEW + epoch)
            for picture, label in zip(pictures, images.y_true[rows], strict=True):
                sample = (picture[..., None].astype(np.float32), targets[label])
                yield sample if weights is None else (*sample, float(weights[label]))

    picture = tf.TensorSpec((*images.pixels.shape[1:], 1), tf.float32)
    shapes = ([targets.shape[1]], [])[: 1 if weights is None else 2]
    numbers = [tf.TensorSpec(shape, tf.float32) for shape in shapes]
    data = tf.data.Dataset.from_generator(samples, output_signature=(picture, *numbers))
    data = data.apply(tf.data.experimental.assert_cardinality(n))
    return data.batch(settings.batch_size if epoch is not None else 32).prefetch(2)
