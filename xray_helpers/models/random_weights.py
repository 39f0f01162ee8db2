"""Random weights, which stand in where no trained ones can be had: the same in every study, and calibrated.

Frozen random weights as Keras builds them give features at chance, because the batch normalizations still
have mean 0 and variance 1. With the statistics of synthetic radiographs they separate fractures.
"""

import functools
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING
from zipfile import BadZipFile

import numpy as np

from xray_helpers.study.cache import cache_folder
from xray_helpers.study.files import atomic_write, hash_of
from xray_helpers.synthetic.dataset import VERSION as PHANTOM_VERSION
from xray_helpers.synthetic.dataset import calibration_phantoms

if TYPE_CHECKING:
    import keras
INIT_SEED = 20
_VERSION = 4  # raise it when random weights are calibrated differently
_LARGE = 48 * 128 * 128  # pixels from which a graph is worth tracing, which takes less memory
STANDARDISED = "standardised"  # the last layer of a calibrated network


def identify_random_weights() -> list[str | int]:
    """Return everything that random weights depend on."""
    return ["random", _VERSION, INIT_SEED, PHANTOM_VERSION, np.__version__, metadata.version("keras")]


def calibrate(model: "keras.Model", how: str) -> "keras.Model":
    """Set the batch statistics of a random network from synthetic radiographs, and standardise its features.

    The statistics are cached, so that all steps of a study use the same.

    Parameters
    ----------
    model : keras.Model
        Grey pixels in, pooled features out; its weights depend on its name and `INIT_SEED` alone.
    how : str
        What the pixels undergo before the network.
    """
    import keras

    img_size = model.input_shape[1:3]
    path = cache_folder() / f"random-{hash_of(identify_random_weights(), model.name, img_size, how)}.npz"
    statistics = _read_statistics(path)
    if not statistics:
        statistics = _measure_statistics(model, calibration_phantoms(img_size))
        with atomic_write(path) as partial:
            np.savez(partial, *statistics)
    *moving, mean, variance = statistics
    for index, layer in enumerate(_normalizations(model)):
        layer.moving_mean.assign(moving[2 * index])
        layer.moving_variance.assign(moving[2 * index + 1])
    standardise = keras.layers.Normalization(mean=mean, variance=variance, name=STANDARDISED)
    return keras.Model(model.input, standardise(model.output), name=model.name)


def _normalizations(model: "keras.Model") -> list["keras.layers.BatchNormalization"]:
    import keras

    return [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]


def _read_statistics(path: Path) -> list[np.ndarray]:
    """Return the cached statistics, or nothing if there are none, or if the file is damaged."""
    try:
        with open(path, "rb") as handle, np.load(handle) as stored:
            return [stored[f"arr_{i}"] for i in range(len(stored.files))]
    except (OSError, ValueError, EOFError, KeyError, BadZipFile):
        return []


def _measure_statistics(model: "keras.Model", pictures: np.ndarray) -> list[np.ndarray]:
    """Return mean and variance of each batch normalization, in order, then those of the pooled features."""
    import tensorflow as tf

    layers = _normalizations(model)
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.momentum = 0.0
    run = tf.function(lambda pixels: model(pixels, training=True), autograph=False)
    if pictures.size < _LARGE:
        run = functools.partial(model, training=True)
    pooled = np.asarray(run(pictures[..., None].astype("float32")))
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum
    moving = [np.asarray(value) for layer in layers for value in (layer.moving_mean, layer.moving_variance)]
    return [*moving, pooled.mean(axis=0), np.maximum(pooled.var(axis=0), 1e-8)]
