"""The head: trained on features, joined with its backbone to one model that takes grey pixels."""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from tqdm import tqdm

from xray_helpers.settings import InputError, Settings
from xray_helpers.study.files import atomic_write

if TYPE_CHECKING:
    import keras
Views = Sequence[np.ndarray]  # the pictures' features as they are, then each augmented view's
HEAD_UNITS = 128
HEAD_INPUT = "dropout_1"  # the head's first layer in a joined model
SECOND_DROPOUT = 0.6  # of dropout_rate


def prepare_tensorflow(settings: Settings) -> None:
    """Seed Python, NumPy and TensorFlow, make its operations deterministic, and set `eager`."""
    with _silenced():
        import keras
        import tensorflow as tf

    tf.get_logger().setLevel("ERROR")  # advice on retracing: each model here is another function
    keras.utils.set_random_seed(settings.seed)
    tf.config.experimental.enable_op_determinism()
    tf.config.run_functions_eagerly(settings.eager)


@contextmanager
def _silenced() -> Iterator[None]:
    """Keep what TensorFlow's libraries write to the process's stderr on import off the console."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def build_head(features: int, settings: Settings) -> "keras.Model":
    """Build the trainable part: dropout, 128 rectified units, dropout, one sigmoid unit.

    Parameters
    ----------
    features : int
        How many pooled features the backbone gives.
    """
    import keras

    keras.utils.set_random_seed(settings.seed)
    return keras.Sequential(
        [
            keras.Input((features,), name="pooled_features"),
            keras.layers.Dropout(settings.dropout_rate, name=HEAD_INPUT),
            keras.layers.Dense(HEAD_UNITS, activation="relu", name="dense"),
            keras.layers.Dropout(SECOND_DROPOUT * settings.dropout_rate, name="dropout_2"),
            keras.layers.Dense(1, activation="sigmoid", name="p_fractured"),
        ],
        name="head",
    )


def class_weights(y_true: np.ndarray, settings: Settings) -> np.ndarray | None:
    """Return what an image of either class counts in the loss, float64 of shape (2,); None where all count
    alike.

    With ``class_weight = balanced`` both classes weigh the same in all: n / (2 n_class), as in scikit-learn.

    Parameters
    ----------
    y_true : ndarray of int, shape (n,)
        Of the training images, both classes.
    settings : Settings
    """
    if settings.class_weight == "none":
        return None
    counts = np.bincount(y_true, minlength=2)
    return len(y_true) / (2 * np.maximum(counts, 1))


def train_head(
    train: tuple[Views, np.ndarray],
    validation: tuple[np.ndarray, np.ndarray] | None,
    settings: Settings,
    head: "keras.Model | None" = None,
    on_epoch: Callable[[dict[str, float]], None] | None = None,
    schedule: Sequence[float] | None = None,
) -> tuple["keras.Model", pd.DataFrame]:
    """Train the head; early stopping, learning-rate reduction and the best epoch look at validation only, or
    at nothing.

    Parameters
    ----------
    train : (features, y_true)
        Shapes (n, d) in each of a list of views, and (n,): each epoch draws one view of each image.
    validation : (features, y_true), optional
        Shapes (n, d) and (n,). May be left out where there is a schedule.
    settings : Settings
    head : keras.Model, optional
        One that this function returned, for the same kind of features: it begins anew, which spares Keras a
        second.
    on_epoch : callable, optional
        Is told of each epoch as it ends: loss, accuracy, val_loss, val_accuracy.
    schedule : sequence of float, optional
        The learning rate of each epoch: so many epochs are trained, and the last is kept. Validation is
        computed, where it is given, but decides nothing.

    Returns
    -------
    head : keras.Model
        With the weights of the epoch of the lowest validation loss, or of the last of the schedule.
    history : DataFrame
        epoch (from 1), loss, accuracy, val_loss, val_accuracy (with validation), learning_rate, best (the
        epoch kept). With class weights both losses are weighted by them.
    """
    import keras

    fresh = build_head(train[0][0].shape[-1], settings)
    if head is None:
        head = fresh
        head.compile(
            optimizer=keras.optimizers.Adam(settings.learning_rate),
            loss="binary_crossentropy",
            metrics=["accuracy"],
            run_eagerly=settings.eager,
            steps_per_execution=1 if settings.eager else 8,  # half the time, the same numbers
        )
    else:
        _begin_anew(head, fresh, settings)
    weights = class_weights(train[1], settings)
    epochs = settings.epochs if schedule is None else len(schedule)
    with tqdm(total=epochs, desc="training", unit="epoch", mininterval=0, leave=False) as bar:

        def show(epoch: int, logs: dict) -> None:
            losses = [f"{name} {logs[name]:.3f}" for name in ("loss", "val_loss") if name in logs]
            bar.set_postfix_str(", ".join(losses), refresh=False)
            bar.update()
            if on_epoch is not None:
                on_epoch(logs)

        log = head.fit(
            _view_batches(*train, settings, weights),
            validation_data=_weighted(validation, weights),
            validation_batch_size=1024,
            epochs=epochs,
            verbose=0,
            callbacks=[*_epoch_rules(settings, schedule), keras.callbacks.LambdaCallback(on_epoch_end=show)],
        )
    history = pd.DataFrame(log.history).astype(float)
    history.insert(0, "epoch", np.arange(1, len(history) + 1))
    kept = (
        len(history) - 1 if schedule is not None else history["val_loss"].argmin()
    )  # the first of equals, as Keras
    history["best"] = np.arange(len(history)) == kept
    return head, history


def _epoch_rules(settings: Settings, schedule: Sequence[float] | None) -> list["keras.callbacks.Callback"]:
    """Return what decides how long is trained and at what rate: the validation loss, or a schedule."""
    import keras

    if schedule is not None:
        return [keras.callbacks.LearningRateScheduler(lambda epoch: float(schedule[epoch]))]
    return [
        keras.callbacks.EarlyStopping(
            "val_loss", patience=max(1, settings.patience), restore_best_weights=True
        ),
        keras.callbacks.ReduceLROnPlateau(
            "val_loss",
            factor=settings.lr_factor,
            patience=max(1, settings.patience // 2),
            min_lr=settings.min_lr,
        ),
    ]


def _weighted(
    part: tuple[np.ndarray, np.ndarray] | None, weights: np.ndarray | None
) -> tuple[np.ndarray, ...] | None:
    """Return features and labels as Keras takes them, with a weight an image where classes have weights."""
    if part is None:
        return None
    x, y = np.asarray(part[0]), part[1].astype("float32")
    return (x, y) if weights is None else (x, y, weights[part[1]].astype("float32"))


def _begin_anew(head: "keras.Model", fresh: "keras.Model", settings: Settings) -> None:
    """Give a trained head the weights and random states of a fresh one, and its optimizer those of the first
    step.
    """
    head.set_weights(fresh.get_weights())
    for layer, new in zip(head.layers, fresh.layers, strict=True):
        if getattr(layer, "rate", 0):
            layer.seed_generator.state.assign(new.seed_generator.state)
    for variable in head.optimizer.variables:
        variable.assign(np.zeros(variable.shape, variable.dtype))
    head.optimizer.learning_rate = settings.learning_rate


def _view_batches(
    features: Views, y_true: np.ndarray, settings: Settings, weights: np.ndarray | None = None
) -> "keras.utils.PyDataset":
    import keras

    class ViewBatches(keras.utils.PyDataset):
        """Shuffled batches; before each epoch every image draws one of its views."""

        def __init__(self) -> None:
            super().__init__(workers=1, use_multiprocessing=False)
            self.rng = np.random.default_rng([settings.seed, 2])
            self.on_epoch_end()

        def __len__(self) -> int:
            return int(np.ceil(len(y_true) / settings.batch_size))

        def __getitem__(self, index: int) -> tuple[np.ndarray, ...]:
            rows = self.order[index * settings.batch_size : (index + 1) * settings.batch_size]
            drawn = [features[view][row] for view, row in zip(self.views[rows], rows, strict=True)]
            return _weighted((np.stack(drawn), y_true[rows]), weights)

        def on_epoch_end(self) -> None:
            self.order = self.rng.permutation(len(y_true))
            self.views = self.rng.integers(len(features), size=len(y_true))

    return ViewBatches()


def predict_head(head: "keras.Model", features: np.ndarray, block: int = 8192) -> np.ndarray:
    """Return P(Fractured), float64 of shape (n,), from features of shape (n, d), on disk or not."""
    parts = (np.asarray(features[start : start + block]) for start in range(0, len(features), block))
    return np.concatenate([head.predict(part, batch_size=1024, verbose=0)[:, 0] for part in parts]).astype(
        np.float64
    )


def join_model(extractor: "keras.Model", head: "keras.Model") -> "keras.Model":
    """Join backbone and head to one flat graph: grey pixels (n, height, width, 1), 0-255, to P(Fractured)."""
    import keras

    output = extractor.output
    for layer in head.layers:
        output = layer(output)
    return keras.Model(extractor.input, output, name=extractor.name)


def save_model(model: "keras.Model", path: Path) -> Path:
    """Write ``model.keras``, whole or not at all."""
    with atomic_write(path) as partial:
        model.save(partial)
    return path


def load_model(path: Path) -> "keras.Model":
    """Read a model that `save_model` wrote; safe mode stays on, so that a file cannot run code.

    Raises
    ------
    InputError
        When the file is damaged, or holds what would run code on loading.
    """
    import keras

    try:
        return keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # Keras raises nearly everything on what it does not know
        words = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        where = f"{path.parent.name}/{path.name}"
        raise InputError(
            f"{where} is refused: it is damaged, or would run code of its own ({words})."
        ) from None


def predict_pixels(model: "keras.Model", pixels: np.ndarray, batch_size: int = 32) -> np.ndarray:
    """Return P(Fractured), float64 of shape (n,), from grey pixels of shape (n, height, width), 0-255."""
    batches = (np.asarray(pixels[i : i + batch_size]) for i in range(0, len(pixels), batch_size))
    call = model if len(pixels) <= batch_size else model.predict_on_batch  # one batch is not worth a trace
    outputs = [np.asarray(call(batch[..., None].astype(np.float32)))[:, 0] for batch in batches]
    return np.concatenate(outputs).astype(np.float64)


def time_model(model: "keras.Model", pixels: np.ndarray) -> tuple[np.ndarray, float]:
    """Return `predict_pixels` of a few pictures, and milliseconds an image the second time, all in one
    batch.
    """
    y_prob = predict_pixels(model, pixels)
    started = time.perf_counter()
    predict_pixels(model, pixels)
    return y_prob, round(1000 * (time.perf_counter() - started) / len(pixels), 2)


def check_saved(model: "keras.Model", pixels: np.ndarray, y_prob: np.ndarray, tolerance: float) -> float:
    """Check that a saved model gives what was computed while training; return milliseconds an image.

    Parameters
    ----------
    model : keras.Model
        Of `load_model`.
    pixels : ndarray of uint8, shape (n, height, width)
        The first pictures of a part.
    y_prob : ndarray, shape (at least n,)
        What was computed of that part.
    tolerance : float

    Raises
    ------
    RuntimeError
        When a probability differs by `tolerance` or more.
    """
    again, latency = time_model(model, pixels)
    difference = float(np.abs(again - y_prob[: len(pixels)]).max())
    print(
        f"largest difference between the saved model and these predictions, {len(pixels)} images: "
        f"{difference:.1e}"
    )
    if not difference < tolerance:
        raise RuntimeError(
            f"The saved model's probabilities differ by up to {difference:.1e} from those of training, "
            "where less than "
            f"{tolerance:g} is expected: the model is not to be used; run 02 again, with -p "
            "engine=tensorflow."
        )
    return latency


def build_predictions(part: pd.DataFrame, y_prob: np.ndarray, threshold: float) -> pd.DataFrame:
    """Return the table of ``predictions_*.csv``: path, group, y_true, y_prob (P(Fractured)), y_pred."""
    table = part[["path", "group", "y_true"]].assign(y_prob=y_prob)
    return table.assign(y_pred=(table["y_prob"] >= threshold).astype(int))
