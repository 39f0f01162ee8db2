"""A trained model as a file: written, read back in safe mode, and checked against what was computed."""

import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from xray_helpers.models.head import predict_pixels
from xray_helpers.settings import InputError
from xray_helpers.study.files import atomic_write

if TYPE_CHECKING:
    import keras


def save_model(model: "keras.Model", path: Path) -> Path:
    """Write ``model.keras``."""
    with atomic_write(path) as partial:
        model.save(partial)
    return path


def load_model(path: Path) -> "keras.Model":
    """Read a ``model.keras`` in Keras's safe mode.

    Raises
    ------
    InputError
        If the file is damaged, or holds code that would run on loading.
    """
    import keras

    try:
        return keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # Keras raises nearly every type
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise InputError(
            f"{path.parent.name}/{path.name} is refused: it is damaged, or would run code of its own "
            f"({reason})."
        ) from None


def check_saved(model: "keras.Model", pixels: np.ndarray, y_prob: np.ndarray, tolerance: float) -> float:
    """Check that a saved model gives the probabilities of training; return milliseconds per image.

    Parameters
    ----------
    model : keras.Model
        Result of `load_model`.
    pixels : ndarray of uint8, shape (n, height, width)
        The first pictures of a part.
    y_prob : ndarray, shape (at least n,), or (at least n, k)
        Probabilities that were computed for that part.
    tolerance : float

    Raises
    ------
    RuntimeError
        If a probability differs by `tolerance` or more.
    """
    again = predict_pixels(model, pixels)
    started = time.perf_counter()
    predict_pixels(model, pixels)  # timed the second time, when everything is loaded
    latency = round(1000 * (time.perf_counter() - started) / len(pixels), 2)
    difference = float(np.abs(again - y_prob[: len(pixels)]).max())
    print(
        f"largest difference between the saved model and these predictions, {len(pixels)} images: "
        f"{difference:.1e}"
    )
    if not difference < tolerance:
        raise RuntimeError(
            f"The saved model's probabilities differ by up to {difference:.1e} from those of training, where "
            f"less than {tolerance:g} is expected: do not use the model; run 02 again, with -p "
            "engine=tensorflow."
        )
    return latency
