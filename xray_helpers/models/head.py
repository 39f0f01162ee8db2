"""The head: trained on the features of a backbone, then joined with it to one model of grey pixels."""

import os
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import numpy as np
import pandas as pd

from xray_helpers.evaluation.class_predictions import add_probabilities
from xray_helpers.settings import Settings, current_classes
from xray_helpers.study.progress import progress

if TYPE_CHECKING:
    import keras
Views = Sequence[np.ndarray]  # features (n, d) of the images as they are, then of each augmented view
_EVALUATION_BATCH = 1024
_copies: "WeakKeyDictionary[keras.Model, tuple]" = WeakKeyDictionary()  # of heads, and of which optimizer


def prepare_tensorflow(settings: Settings) -> None:
    """Seed Python, NumPy and TensorFlow, make its operations deterministic, and apply ``eager``."""
    with quiet_stderr():
        import keras
        import tensorflow as tf

    tf.get_logger().setLevel("ERROR")  # no advice on retracing: each model is a function of its own
    keras.utils.set_random_seed(settings.seed)
    tf.config.experimental.enable_op_determinism()
    tf.config.run_functions_eagerly(settings.eager)


@contextmanager
def quiet_stderr() -> Iterator[None]:
    """Discard what TensorFlow's libraries write to the process's stderr when they are imported."""
    stderr, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        os.close(nowhere)


def build_head(features: int, settings: Settings) -> "keras.Model":
    """Build and compile the default head, the one that 02 shows, for `features` inputs."""
    import keras

    keras.utils.set_random_seed(settings.seed)
    head = keras.Sequential(
        [
            keras.Input((features,)),
            keras.layers.Dropout(settings.dropout_rate, name="dropout_1"),
            keras.layers.Dense(128, activation="relu", name="dense"),
            keras.layers.Dropout(0.6 * settings.dropout_rate, name="dropout_2"),
            build_output(),
        ]
    )
    adam = keras.optimizers.Adam(settings.learning_rate)
    # several steps per execution: the same numbers in half the time
    head.compile(adam, loss=choose_loss(), metrics=["accuracy"], steps_per_execution=8)
    return head


def build_output() -> "keras.layers.Layer":
    """Return the last layer of the head: P(Fractured), or the probability of each of several classes."""
    import keras

    if current_classes().names:
        return keras.layers.Dense(len(current_classes().names), activation="softmax", name="p_classes")
    return keras.layers.Dense(1, activation="sigmoid", name="p_fractured")


def choose_loss() -> str:
    """Return the name of the loss that belongs to `build_output`."""
    return "sparse_categorical_crossentropy" if current_classes().names else "binary_crossentropy"


@contextmanager
def keep_random_state() -> Iterator[None]:
    """Leave the random generators of Python and NumPy, from which Keras draws its seeds, as they were."""
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002


def copy_head(head: "keras.Model") -> "keras.Model":
    """Return a head with the same layers, loss and optimizer, for `train_head` to train.

    It is the same one each time, as TensorFlow takes a second to trace another.
    """
    copy, compiled = _copies.get(head, (None, None))
    if copy is None or compiled is not head.optimizer:
        copy = type(head).from_config(head.get_config())
        copy.compile_from_config(head.get_compile_config())
        _copies[head] = copy, head.optimizer
    return copy


def class_weights(y_true: np.ndarray, settings: Settings) -> np.ndarray | None:
    """Return the weight of each class in the loss, float64 of shape (k,), or None if all images count alike.

    With ``class_weight = balanced`` all classes have the same total weight: n / (k n_class), as in
    scikit-learn.

    Parameters
    ----------
    y_true : ndarray of int, shape (n,)
        What is learnt of the training images (`parts.training_target`).
    settings : Settings
    """
    if settings.class_weight == "none":
        return None
    count = len(current_classes().names) or 2
    return len(y_true) / (count * np.maximum(np.bincount(y_true, minlength=count), 1))


def train_head(
    train: tuple[Views, np.ndarray],
    validation: tuple[np.ndarray, np.ndarray] | None,
    settings: Settings,
    head: "keras.Model | None" = None,
    on_epoch: Callable[[dict[str, float]], None] | None = None,
    schedule: Sequence[float] | None = None,
) -> tuple["keras.Model", pd.DataFrame]:
    """Train a head; early stopping, the learning rate and the epoch kept depend on validation only.

    Parameters
    ----------
    train : (views, y_true)
        Each epoch draws one view of each image.
    validation : (features, y_true), optional
        Shapes (n, d) and (n,). Not needed with a schedule.
    settings : Settings
    head : keras.Model, optional
        A compiled head that is trained again from new initial weights, in place, which saves Keras a second;
        the default is `build_head`.
    on_epoch : callable, optional
        Called at the end of each epoch with loss, accuracy, val_loss and val_accuracy.
    schedule : sequence of float, optional
        The learning rate of each epoch. All its epochs are trained and the last is kept; validation is
        computed, if given, but decides nothing.

    Returns
    -------
    head : keras.Model
        With the weights of the epoch of the lowest validation loss, or of the last epoch of the schedule.
    history : DataFrame
        See `build_history`.
    """
    if head is None:
        head = build_head(train[0][0].shape[-1], settings)
    else:
        reset_head(head, settings)
    batches, watched = build_batches(train, validation, settings)
    epochs = settings.epochs if schedule is None else len(schedule)
    rules = callbacks(settings, on_epoch, schedule)
    head.fit(batches, validation_data=watched, epochs=epochs, verbose=0, callbacks=rules)
    return head, build_history(head, schedule)


def reset_head(head: "keras.Model", settings: Settings) -> None:
    """Give a head new initial weights and random states, and its optimizer the state of the first step."""
    import keras

    keras.utils.set_random_seed(settings.seed)
    fresh = type(head).from_config(head.get_config())
    for variable, initial in zip(head.variables, fresh.variables, strict=True):
        variable.assign(initial)
    for variable in head.optimizer.variables:
        variable.assign(np.zeros(variable.shape, variable.dtype))
    head.optimizer.learning_rate = settings.learning_rate


def build_batches(
    train: tuple[Views, np.ndarray], validation: tuple[np.ndarray, np.ndarray] | None, settings: Settings
) -> tuple["keras.utils.PyDataset", "keras.utils.PyDataset | None"]:
    """Return what ``head.fit`` reads: batches for training, and for validation if that is given.

    Batches hold features, labels and, if classes have weights, the weight of each image; validation is
    weighted as train is. For training, images are shuffled and one view of each is drawn before each epoch.

    Parameters
    ----------
    train, validation, settings
        As for `train_head`.
    """
    weights = class_weights(train[1], settings)
    rng = np.random.default_rng([settings.seed, 2])
    batches = _build_dataset(*train, settings.batch_size, weights, rng)
    if validation is None:
        return batches, None
    return batches, _build_dataset([validation[0]], validation[1], _EVALUATION_BATCH, weights)


def _build_dataset(
    views: Views,
    y_true: np.ndarray,
    batch_size: int,
    weights: np.ndarray | None,
    rng: np.random.Generator | None = None,
) -> "keras.utils.PyDataset":
    import keras

    class Batches(keras.utils.PyDataset):
        """Batches in order, or in an order and of views that are drawn before each epoch."""

        def __init__(self) -> None:
            super().__init__(workers=1, use_multiprocessing=False)
            self.order, self.views = np.arange(len(y_true)), np.zeros(len(y_true), int)
            self.on_epoch_end()

        def __len__(self) -> int:
            return int(np.ceil(len(y_true) / batch_size))

        def __getitem__(self, index: int) -> tuple[np.ndarray, ...]:
            rows = self.order[index * batch_size : (index + 1) * batch_size]
            if len(views) == 1:
                x = np.asarray(views[0][rows])
            else:
                x = np.stack([views[view][row] for view, row in zip(self.views[rows], rows, strict=True)])
            batch = (x, y_true[rows].astype("float32"))
            return batch if weights is None else (*batch, weights[y_true[rows]].astype("float32"))

        def on_epoch_end(self) -> None:
            if rng is not None:
                self.order = rng.permutation(len(y_true))
                self.views = rng.integers(len(views), size=len(y_true))

    return Batches()


def callbacks(
    settings: Settings,
    on_epoch: Callable[[dict[str, float]], None] | None = None,
    schedule: Sequence[float] | None = None,
) -> list["keras.callbacks.Callback"]:
    """Return the callbacks of ``head.fit``: early stopping and the learning rate, then progress.

    Parameters
    ----------
    settings : Settings
    on_epoch, schedule
        As for `train_head`. With a schedule, nothing depends on validation.
    """
    import keras
    from tqdm.keras import TqdmCallback

    rules = [TqdmCallback(verbose=0, desc="training", leave=False, mininterval=0, tqdm_class=progress)]
    if on_epoch is not None:
        rules.append(keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: on_epoch(logs)))
    if schedule is not None:
        return [keras.callbacks.LearningRateScheduler(lambda epoch: float(schedule[epoch])), *rules]
    patience = max(1, settings.patience)
    stop = keras.callbacks.EarlyStopping("val_loss", patience=patience, restore_best_weights=True)
    plateau = keras.callbacks.ReduceLROnPlateau(
        "val_loss", factor=settings.lr_factor, patience=max(1, settings.patience // 2), min_lr=settings.min_lr
    )
    return [stop, plateau, *rules]


def build_history(head: "keras.Model", schedule: Sequence[float] | None = None) -> pd.DataFrame:
    """Return what the last ``head.fit`` recorded, one row per epoch.

    Parameters
    ----------
    head : keras.Model
    schedule : sequence of float, optional
        If the head was trained by one: its last epoch is the one kept.

    Returns
    -------
    DataFrame
        epoch (from 1), loss, accuracy, val_loss and val_accuracy (with validation), learning_rate, best (the
        epoch kept). With class weights both losses are weighted by them.
    """
    history = pd.DataFrame(head.history.history).astype(float)
    history.insert(0, "epoch", np.arange(1, len(history) + 1))
    kept = len(history) - 1 if schedule is not None else history["val_loss"].argmin()  # ties: the first
    history["best"] = np.arange(len(history)) == kept
    return history


def predict_head(head: "keras.Model", features: np.ndarray, block: int = 8192) -> np.ndarray:
    """Return P(Fractured), float64 of shape (n,), or of k classes (n, k), from features (n, d).

    The features may lie on disk; they are read in blocks.
    """
    blocks = (np.asarray(features[start : start + block]) for start in range(0, len(features), block))
    parts = [head.predict(part, batch_size=_EVALUATION_BATCH, verbose=0) for part in blocks]
    return as_probabilities(np.concatenate(parts))


def as_probabilities(outputs: np.ndarray) -> np.ndarray:
    """Return outputs (n, 1) as P(Fractured), shape (n,), and those of k classes as they are, float64."""
    outputs = np.asarray(outputs, np.float64)
    return outputs[:, 0] if outputs.shape[1] == 1 else outputs


def join_model(extractor: "keras.Model", head: "keras.Model") -> "keras.Model":
    """Join backbone and head to one flat graph: grey pixels (n, height, width, 1), 0-255, to P(Fractured)."""
    import keras

    output = extractor.output
    for layer in head.layers:
        output = layer(output)
    return keras.Model(extractor.input, output, name=extractor.name)


def average_flips(model: "keras.Model") -> "keras.Model":
    """Return a joined model whose probability is the mean of those of a picture and of its mirror image.

    Its layers see both, the mirror images as the second half of a batch.
    """
    import keras

    ops, pixels = keras.ops, keras.Input(model.input_shape[1:], name=model.layers[0].name)
    both = ops.concatenate([pixels, ops.flip(pixels, axis=2)], axis=0)

    def call(layer: "keras.layers.Layer", *inputs: "keras.KerasTensor", **options: object) -> object:
        seen = keras.tree.map_structure(lambda each: both if each is pixels else each, inputs)
        output = layer(*seen, **options)
        last = layer.name == model.layers[-1].name
        return ops.mean(ops.reshape(output, (2, -1, output.shape[-1])), axis=0) if last else output

    copy = keras.models.clone_model(model, input_tensors=pixels, call_function=call)
    copy.set_weights(model.get_weights())
    return copy


def predict_pixels(model: "keras.Model", pixels: np.ndarray, batch_size: int = 32) -> np.ndarray:
    """Return P(Fractured), float64 of shape (n,), or of k classes (n, k), from grey pixels, 0-255.

    The pixels have the shape (n, height, width).
    """
    batches = (np.asarray(pixels[i : i + batch_size]) for i in range(0, len(pixels), batch_size))
    call = model if len(pixels) <= batch_size else model.predict_on_batch  # tracing is slow for one batch
    outputs = [np.asarray(call(batch[..., None].astype(np.float32))) for batch in batches]
    return as_probabilities(np.concatenate(outputs))


def build_predictions(part: pd.DataFrame, y_prob: np.ndarray, threshold: float) -> pd.DataFrame:
    """Return the table of ``predictions_*.csv``: as `add_probabilities`, with y_pred.

    y_pred is 1 at or above the threshold of the binary question.
    """
    table = add_probabilities(part, y_prob)
    return table.assign(y_pred=(table["y_prob"] >= threshold).astype(int))
