"""The graph that a page runs: probabilities, distance to the training images, and a map, in one pass.

What a page would have to compute by hand is part of the graph, so that its answer is that of the file.
Weights are stored as float16 and computed with as float32.
"""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from xray_helpers.export.onnx_files import inline_constants, store_as_float16
from xray_helpers.models.out_of_distribution import NEAREST, OODDetector, build_feature_model
from xray_helpers.models.preprocessing import POOLED
from xray_helpers.models.saved import load_model
from xray_helpers.settings import Classes, set_classes
from xray_helpers.study.files import atomic_write
from xray_helpers.study.folders import read_classes

if TYPE_CHECKING:
    import keras
PIXELS = "grey_pixels"  # the input: float32, shape (1, height, width, 1), 0-255


def build_page_model(model: "keras.Model", detector: OODDetector, classes: Classes) -> "keras.Model":
    """Return a model that gives a dictionary of what a page shows.

    Parameters
    ----------
    model : keras.Model
        Result of `saved.load_model`.
    detector : OODDetector
        Of the same model.
    classes : Classes
        Of the study.

    Returns
    -------
    keras.Model
        Its outputs are probabilities, shape (1, 1) or (1, k), distance, shape (1,), which is
        `out_of_distribution.feature_distance`, and, where `_effect_of_features` knows how, map, shape
        (1, rows, columns), which is `gradcam.GradCam`.
    """
    import keras

    features = build_feature_model(model).output
    outputs = {"probabilities": model.output, "distance": _measure_distance(features, detector)}
    effect = _effect_of_features(model, classes)
    if effect is not None:
        places = model.get_layer(POOLED).input
        weighted = keras.ops.sum(places * keras.ops.expand_dims(effect, (1, 2)), axis=-1)
        found = keras.ops.relu(weighted) / (places.shape[1] * places.shape[2])
        if model.output is not model.layers[-1].output:  # that of the mirror image comes after
            found = keras.ops.split(found, 2, axis=0)[0]
        outputs["map"] = found
    named = {
        key: keras.layers.Identity(dtype="float32", name=f"page_{key}")(value)
        for key, value in outputs.items()
    }
    return keras.Model(model.input, named)


def _measure_distance(features: "keras.KerasTensor", detector: OODDetector) -> "keras.KerasTensor":
    import keras

    length = keras.ops.sqrt(keras.ops.sum(features * features, axis=1, keepdims=True))
    cosine = _multiply(features / keras.ops.maximum(length, 1e-12), detector.features.T)
    nearest = keras.ops.top_k(cosine, min(NEAREST, len(detector.features)))[0]
    return 1 - keras.ops.mean(nearest, axis=1)


def _effect_of_features(model: "keras.Model", classes: Classes) -> "keras.KerasTensor | None":
    """Return the derivative of the log odds of the positive answer by the pooled features, shape (n, d).

    It is written out, layer by layer, for features that are a mean over places and a head of dense layers
    with ReLU, normalisation and dropout; None for anything else. There Grad-CAM needs no gradient.
    """
    import keras

    names = [layer.name for layer in model.layers]
    if POOLED not in names or type(model.get_layer(POOLED)).__name__ != "GlobalAveragePooling2D":
        return None
    *hidden, last = [
        layer for layer in model.layers[names.index(POOLED) + 1 :] if type(layer).__name__ != "Dropout"
    ]
    known = all(_is_plain(layer) for layer in hidden)
    if not known or type(last).__name__ != "Dense":
        return None
    by_output = _effect_of_outputs(last, classes)
    effect = _multiply(by_output, np.asarray(last.kernel).T)
    for layer in reversed(hidden):
        if type(layer).__name__ == "Dense":
            if layer.activation.__name__ == "relu":
                effect = effect * keras.ops.cast(layer.output > 0, "float32")
            effect = _multiply(effect, np.asarray(layer.kernel).T)
        else:
            deviation = np.maximum(np.sqrt(np.asarray(layer.variance)), keras.config.epsilon())
            effect = effect / deviation.reshape(1, -1)
    return effect


def _multiply(tensor: "keras.KerasTensor", matrix: np.ndarray) -> "keras.KerasTensor":
    """Return the product with a fixed matrix, as a layer: exporters make an input of a plain constant."""
    import keras

    name = f"fixed_{keras.backend.get_uid('fixed')}"  # models call their own layers dense
    layer = keras.layers.Dense(matrix.shape[1], use_bias=False, dtype="float32", name=name)
    product = layer(tensor)
    layer.set_weights([matrix])
    return product


def _is_plain(layer: "keras.layers.Layer") -> bool:
    if type(layer).__name__ == "Dense":
        return layer.activation.__name__ in ("relu", "linear")
    return type(layer).__name__ == "Normalization" and not layer.invert


def _effect_of_outputs(last: "keras.layers.Layer", classes: Classes) -> Any:
    """Return the derivative of the log odds by what the last activation receives, shape (n, k)."""
    import keras

    if not classes.names:
        return keras.ops.ones_like(last.output)
    positive = np.array(classes.are_positive, np.float32)[None]
    shares = (last.output * part for part in (positive, 1 - positive))
    of_positive, of_others = (part / keras.ops.sum(part, axis=1, keepdims=True) for part in shares)
    return of_positive - of_others


def write_page_model(study: str, model: str, to: str) -> None:
    """Write the ONNX file of a model's page; for a process of its own."""
    place, classes = Path(study) / model, read_classes(Path(study))
    set_classes(classes)
    detector = OODDetector.load(place / "familiarity.npz")
    data = convert(build_page_model(load_model(place / "model.keras"), detector, classes))
    with atomic_write(Path(to)) as partial:
        partial.write_bytes(data)


def convert(model: "keras.Model") -> bytes:
    """Return a model of `build_page_model` as an ONNX file for one picture, its weights in float16."""
    import keras
    import onnx

    inline_constants(model)
    shape = keras.InputSpec(shape=(1, *model.input_shape[1:]), dtype="float32", name=PIXELS)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "model.onnx"
        model.export(place, format="onnx", input_signature=[shape], verbose=False)
        graph = onnx.load(place)
    store_as_float16(graph)
    onnx.checker.check_model(graph)
    return graph.SerializeToString()
