"""Where a model looked, and whether that follows from what it learned.

Grad-CAM (Selvaraju et al. 2017) is the map; occlusion (Zeiler and Fergus 2014) is a second opinion that needs
no gradient; permuting the weights (after Adebayo et al. 2018) shows whether the map depends on what was
learned.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from xray_helpers.explain.maps import GRID
from xray_helpers.settings import InputError, nearest

if TYPE_CHECKING:
    import keras
_BATCH = 16


def find_layer(model: "keras.Model", name: str = "") -> str:
    """Return the layer whose output Grad-CAM weighs: `name`, or the last convolution.

    Without a name that is the last layer that still has places and does not pool: the last convolution, after
    its normalization and activation.

    Raises
    ------
    InputError
        When there is no such layer, or its output has no places.
    """
    spatial = [layer.name for layer in model.layers[1:] if len(layer.output.shape) == 4]
    default = next(
        word for word in reversed(spatial) if "Pooling" not in type(model.get_layer(word)).__name__
    )
    if not name:
        return default
    if name not in spatial:
        known = [layer.name for layer in model.layers]
        why = "has no places left" if name in known else f"is not there{nearest(name, spatial)}"
        raise InputError(
            f"Grad-CAM at the layer {name!r} of {model.name}: it {why}; the default is {default}."
        )
    return name


class GradCam:
    """Grad-CAM maps of a joined model, in batches.

    Parameters
    ----------
    model : keras.Model
        Of `head.load_model`: one flat graph that ends in a dense layer.
    layer : str
        See `find_layer`.
    """

    def __init__(self, model: "keras.Model", layer: str = "") -> None:
        import keras
        import tensorflow as tf

        self.layer, self.size, last = find_layer(model, layer), model.input_shape[1:3], model.layers[-1]
        both = keras.Model(model.input, [model.get_layer(self.layer).output, last.input])

        def run(pixels: "tf.Tensor") -> "tf.Tensor":
            with tf.GradientTape() as tape:
                tape.watch(pixels)
                activation, features = both(pixels, training=False)
                logit = (
                    tf.matmul(features, last.kernel) + last.bias
                )  # a sigmoid's gradient vanishes where it is sure
            weights = tf.reduce_mean(tape.gradient(logit, activation), axis=(1, 2), keepdims=True)
            return tf.nn.relu(tf.reduce_sum(weights * activation, axis=-1))

        shape = tf.TensorSpec((None, *model.input_shape[1:]), tf.float32)
        self._run = tf.function(run, input_signature=[shape], autograph=False)

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        """Return what speaks for Fractured at each place.

        Parameters
        ----------
        pixels : ndarray of uint8, shape (n, height, width), 0-255

        Returns
        -------
        ndarray of float32, shape (n, rows, columns)
            0 and above; all 0 where nothing speaks for it.
        """
        batches = (
            np.asarray(pixels[i : i + _BATCH], np.float32)[..., None] for i in range(0, len(pixels), _BATCH)
        )
        return np.concatenate([self._run(batch).numpy() for batch in batches])


def occlude(predict: Callable[[np.ndarray], np.ndarray], pixels: np.ndarray, grid: int = GRID) -> np.ndarray:
    """Return how much each place matters: the fall of the log odds when it is covered by the mean grey.

    A patch one and a half times a cell of the grid takes the mean grey of the picture, which keeps exposure
    as it is.

    Parameters
    ----------
    predict : callable
        Of uint8 pictures (n, height, width), P(Fractured), shape (n,).
    pixels : ndarray of uint8, shape (n, height, width), 0-255
    grid : int

    Returns
    -------
    ndarray of float32, shape (n, grid, grid)
        0 and above; a place that speaks against a fracture is 0.
    """
    height, width = pixels.shape[1:]
    ends = [
        [
            (round(max(0.0, (i - 0.25) * side / grid)), round(min(float(side), (i + 1.25) * side / grid)))
            for i in range(grid)
        ]
        for side in (height, width)
    ]
    maps = np.zeros((len(pixels), grid, grid), np.float32)
    for picture, found in zip(np.asarray(pixels), maps, strict=True):
        covered = np.repeat(picture[None], grid * grid + 1, axis=0)
        for number in range(grid * grid):
            (top, bottom), (left, right) = ends[0][number // grid], ends[1][number % grid]
            covered[number, top:bottom, left:right] = round(float(picture.mean()))
        odds = _log_odds(predict(covered))
        found[:] = np.maximum(odds[-1] - odds[:-1], 0).reshape(grid, grid)
    return maps


def _log_odds(p: np.ndarray) -> np.ndarray:
    p = np.clip(np.asarray(p, float), 1e-7, 1 - 1e-7)
    return np.log(p / (1 - p))
