"""Spatial features of the backbone in a trained model: its last resolutions, cached like pooled features."""

import hashlib
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

from xray_helpers.images.pixels import VERSION as PIXELS_VERSION
from xray_helpers.images.radiographs import ImageFolder
from xray_helpers.models.features import extract_features
from xray_helpers.models.graphs import Opened, open_model
from xray_helpers.models.inference import ForwardPass, InferenceBackend
from xray_helpers.study.cache import RowView
from xray_helpers.study.files import hash_of

if TYPE_CHECKING:
    import keras
_VERSION = 1  # part of every key: raise it when the same inputs would give other features
_STRIDES = (8, 16, 32)
_MOST_BYTES = 6 * 2**30  # of a study's spatial features; where stride 8 would take more it is left out
_DTYPE = np.float16
Shape = tuple[int, int, int]


class Spatial(NamedTuple):
    """The spatial features of a model.

    Attributes
    ----------
    network : keras.Model
        From grey pixels (n, height, width, 1), 0-255, to all levels in one row, (n, d).
    layers : tuple of str
        The layer of each level, the finest first.
    shapes : tuple of (int, int, int)
        rows, columns and channels of each level.
    key : str
        A hash of everything that changes the features.
    """

    network: "keras.Model"
    layers: tuple[str, ...]
    shapes: tuple[Shape, ...]
    key: str

    def split(self, rows: np.ndarray) -> list[np.ndarray]:
        """Return the levels in rows (n, d), each float32 of shape (n, rows, columns, channels)."""
        ends = np.cumsum([np.prod(shape) for shape in self.shapes])[:-1]
        parts = np.split(rows, ends, axis=1)
        return [
            part.reshape(-1, *shape).astype(np.float32)
            for part, shape in zip(parts, self.shapes, strict=True)
        ]


def open_spatial(
    model: "keras.Model",
    backend: InferenceBackend,
    folder: ImageFolder,
    images: int = 0,
    layers: tuple[str, ...] = (),
    *,
    flips: bool = False,
) -> Spatial:
    """Open a trained model at its last resolutions, those nearest to strides of 8, 16 and 32 pixels.

    Parameters
    ----------
    model : keras.Model
        Result of `head.load_model`.
    backend : InferenceBackend
        What will compute.
    folder : ImageFolder
        How pictures are read.
    images : int
        How many there are; where their features would take more than 6 GiB, stride 8 is left out.
    layers : tuple of str
        The layers, where they were chosen before.
    flips : bool
        Whether the model sees mirror images too (`head.average_flips`), whose features are left out.
    """
    import keras

    opened, size = open_model(model), model.input_shape[1:3]
    layers = layers or choose_layers(opened, size, images)
    outputs = [opened.outputs[name] for name in layers]
    flat = [keras.layers.Flatten(name=f"level_{number}")(each) for number, each in enumerate(outputs)]
    joined = keras.layers.Concatenate(name="levels")(flat) if len(flat) > 1 else flat[0]
    if flips:
        halves = keras.ops.reshape(joined, (2, -1, joined.shape[-1]))
        joined = keras.ops.take(halves, 0, axis=0)
    network = keras.Model(opened.input, joined, name=f"{model.name}_levels")
    digest = hashlib.sha256()
    for weight in network.weights:
        digest.update(np.ascontiguousarray(weight.numpy()).tobytes())
    identity = ("spatial", _VERSION, model.name, layers, size, digest.hexdigest(), flips)
    key = hash_of(*identity, backend._replace(calibration=()), PIXELS_VERSION, *folder.how)
    return Spatial(network, tuple(layers), tuple(tuple(each.shape[1:]) for each in outputs), key)


def choose_layers(opened: Opened, size: tuple[int, int], images: int = 0) -> tuple[str, ...]:
    """Return the last layer at each of the last resolutions of a network, the finest first.

    Transformers have one resolution, that of their patches.
    """
    shapes = {name: opened.outputs[name].shape[1:] for name in opened.spatial}
    sides = {
        name: np.sqrt(size[0] * size[1] / (rows * columns)) for name, (rows, columns, _) in shapes.items()
    }
    chosen = {}
    for stride in _STRIDES:
        off = {name: abs(np.log2(side / stride)) for name, side in sides.items()}
        nearest = min(off.values())
        if nearest < 0.5 or stride == _STRIDES[-1]:
            name = [name for name, value in off.items() if value <= nearest + 1e-6][-1]
            chosen[shapes[name][:2]] = name
    layers = list(chosen.values())
    bytes_ = images * sum(np.prod(shapes[name]) for name in layers) * np.dtype(_DTYPE).itemsize
    return tuple(layers[1:] if bytes_ > _MOST_BYTES and len(layers) > 1 else layers)


def extract_spatial(
    spatial: Spatial, forward: ForwardPass, part: pd.DataFrame, folder: ImageFolder, views: int = 0
) -> list[RowView]:
    """Return the spatial features of pictures and of their augmented views, float16 (n, d), on disk.

    See `features.extract_features`.
    """
    return extract_features(part, folder, forward, spatial.key, views, kind="spatial", dtype=_DTYPE)
