"""Saliency maps: where in an image a model found evidence for a fracture.

Grad-CAM (Selvaraju et al. 2017) is the map; occlusion (Zeiler and Fergus 2014) is a second opinion that needs
no gradient.
"""

from collections.abc import Callable
from itertools import product
from typing import TYPE_CHECKING

import numpy as np

from xray_helpers.evaluation.log_odds import log_odds
from xray_helpers.models.graphs import Opened, open_model
from xray_helpers.settings import InputError, current_classes, nearest

if TYPE_CHECKING:
    import keras
    import tensorflow as tf
_BATCH = 16
_GRID = 6  # occluded patches per side


def find_layer(model: "keras.Model", name: str = "") -> str:
    """Return the name of the layer for Grad-CAM: `name`, or by default the last convolution.

    The default is the last layer with a spatial output that does not pool: the last convolution after its
    normalization and activation, or the patches of a transformer before its last block.

    Raises
    ------
    InputError
        If there is no such layer, or its output is not spatial.
    """
    return _find(open_model(model), model.name, name)


def _find(opened: Opened, model: str, name: str) -> str:
    spatial = [layer for layer, output in opened.outputs.items() if len(output.shape) == 4]
    default = opened.spatial[-1]
    if not name or name in spatial:
        return name or default
    exists = name in opened.outputs
    why = "its output is not spatial" if exists else f"it does not exist{nearest(name, spatial)}"
    raise InputError(f"Grad-CAM at the layer {name!r} of {model}: {why}; the default is {default}.")


def _log_odds(logits: "tf.Tensor") -> "tf.Tensor":
    """Return the log odds of the positive answer from the input of the last activation, (n, 1) or (n, k)."""
    import tensorflow as tf

    if logits.shape[-1] == 1:
        return logits
    positive = np.array(current_classes().are_positive)
    both = (tf.boolean_mask(logits, which, axis=1) for which in (positive, ~positive))
    odds, against = (tf.reduce_logsumexp(part, axis=1, keepdims=True) for part in both)
    return odds - against


class GradCam:
    """Grad-CAM maps of a model, computed in batches.

    Parameters
    ----------
    model : keras.Model
        Result of `saved.load_model`, which ends in a dense layer.
    layer : str
        See `find_layer`.
    """

    def __init__(self, model: "keras.Model", layer: str = "") -> None:
        import keras
        import tensorflow as tf

        opened, last = open_model(model), model.layers[-1]
        self.layer, self.size = _find(opened, model.name, layer), model.input_shape[1:3]
        both = keras.Model(opened.input, [opened.outputs[self.layer], opened.features])

        def run(pixels: "tf.Tensor") -> "tf.Tensor":
            with tf.GradientTape() as tape:
                tape.watch(pixels)
                activation, features = both(pixels, training=False)
                # not the probability: the gradient of a sigmoid vanishes near 0 and 1
                score = _log_odds(tf.matmul(features, last.kernel) + last.bias)
            weights = tf.reduce_mean(tape.gradient(score, activation), axis=(1, 2), keepdims=True)
            maps = tf.nn.relu(tf.reduce_sum(weights * activation, axis=-1))
            return maps[: tf.shape(pixels)[0]]  # those of mirror images (`head.average_flips`) come after

        shape = tf.TensorSpec((None, *model.input_shape[1:]), tf.float32)
        self._run = tf.function(run, input_signature=[shape], autograph=False)

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        """Return the evidence for Fractured at each position.

        Parameters
        ----------
        pixels : ndarray of uint8, shape (n, height, width), 0-255

        Returns
        -------
        ndarray of float32, shape (n, rows, columns)
            At least 0; all 0 for an image without such evidence.
        """
        batches = (
            np.asarray(pixels[i : i + _BATCH], np.float32)[..., None] for i in range(0, len(pixels), _BATCH)
        )
        return np.concatenate([self._run(batch).numpy() for batch in batches])


def occlude(predict: Callable[[np.ndarray], np.ndarray], pixels: np.ndarray, grid: int = _GRID) -> np.ndarray:
    """Return the drop of the log odds when each part of a picture is covered in turn.

    The patch is one and a half cells of the grid wide and has the mean grey level of the picture, which keeps
    its exposure.

    Parameters
    ----------
    predict : callable
        Takes uint8 pictures (n, height, width), returns P(Fractured), shape (n,).
    pixels : ndarray of uint8, shape (n, height, width), 0-255
    grid : int
        Patches per side.

    Returns
    -------
    ndarray of float32, shape (n, grid, grid)
        At least 0; 0 where a part speaks against a fracture.
    """
    rows, columns = (_patches(side, grid) for side in pixels.shape[1:])
    maps = np.zeros((len(pixels), grid, grid), np.float32)
    for picture, grid_of_drops in zip(np.asarray(pixels), maps, strict=True):
        covered = np.repeat(picture[None], grid * grid + 1, axis=0)  # the last one stays as it is
        for copy, (row, column) in zip(covered, product(rows, columns), strict=False):
            copy[row, column] = round(float(picture.mean()))
        odds = log_odds(predict(covered))
        grid_of_drops[:] = np.maximum(odds[-1] - odds[:-1], 0).reshape(grid, grid)
    return maps


def _patches(side: int, grid: int) -> list[slice]:
    starts, ends = ((np.arange(grid) + offset) * side / grid for offset in (-0.25, 1.25))
    return [
        slice(max(0, round(start)), min(side, round(end))) for start, end in zip(starts, ends, strict=True)
    ]
