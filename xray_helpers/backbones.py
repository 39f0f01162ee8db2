"""The registry of backbones: constructor, preprocessing, smallest input, weights.

To add one, add its entry to `BACKBONES`. TensorFlow is imported inside the functions that build.
"""

import os
import re
import threading
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from urllib import error, request

import numpy as np

from xray_helpers.cache import cache_folder
from xray_helpers.phantoms import VERSION as PHANTOM_VERSION
from xray_helpers.phantoms import calibration_phantoms
from xray_helpers.settings import InputError, nearest
from xray_helpers.studies import from_root, hash_of, write_whole

if TYPE_CHECKING:
    import keras

_URL = "https://storage.googleapis.com/tensorflow/keras-applications/"
_INIT_SEED = 20  # of random weights: fixed, so that every study's random backbone is the same
_RANDOM_VERSION = 3  # raise it when random backbones are calibrated otherwise
_PROBE_SECONDS = 4.0
BORDER, CORNER = 0.10, 0.20  # shares of the side that `border` blanks at the edges, and in the corners

# scale and offset a channel, as the networks were trained: x * scale + offset on 0-255 grey in 3 channels
_MEAN, _STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
PREPROCESSING = {
    "caffe": ([1.0, 1.0, 1.0], [-103.939, -116.779, -123.68]),  # BGR means; grey is the same in any order
    "torch": ((1 / (255 * _STD)).tolist(), (-_MEAN / _STD).tolist()),
    "minus_one_to_one": ([1 / 127.5] * 3, [-1.0] * 3),
    "unit": ([1 / 255] * 3, [0.0] * 3),
    "none": ([1.0] * 3, [0.0] * 3),
}


class Backbone(NamedTuple):
    """One entry of the registry.

    Attributes
    ----------
    name : str
        Of the constructor in ``keras.applications``.
    preprocessing : str
        A key of `PREPROCESSING`: what its ImageNet weights expect.
    smallest : int
        Shortest side of the input, pixels.
    weights_file : str
        Where Keras publishes the weights without the top, below its download folder.
    parameters : int
        Of the backbone without its top.
    """

    name: str
    preprocessing: str
    smallest: int
    weights_file: str
    parameters: int


BACKBONES = {
    entry.name: entry
    for entry in (
        Backbone("InceptionV3", "minus_one_to_one", 75,
                 "inception_v3/inception_v3_weights_tf_dim_ordering_tf_kernels_notop.h5", 21_802_784),
        Backbone("ResNet50", "caffe", 32,
                 "resnet/resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5", 23_587_712),
        Backbone("VGG16", "caffe", 32,
                 "vgg16/vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5", 14_714_688),
        Backbone("DenseNet121", "torch", 32,
                 "densenet/densenet121_weights_tf_dim_ordering_tf_kernels_notop.h5", 7_037_504),
        Backbone("MobileNetV2", "minus_one_to_one", 32,
                 "mobilenet_v2/mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224_no_top.h5", 2_257_984),
    )
}  # fmt: skip


def get_backbone(name: str, img_size: tuple[int, int] | None = None) -> Backbone:
    """Return the registry's entry, checked against the image size.

    Raises
    ------
    InputError
        For an unknown name (naming the nearest), or images too small for the network.
    """
    if name not in BACKBONES:
        raise InputError(f"There is no model {name!r}{nearest(name, BACKBONES)} Known: {', '.join(BACKBONES)}.")
    entry = BACKBONES[name]
    if img_size is not None and min(img_size) < entry.smallest:
        raise InputError(f"{name} needs img_size of at least {entry.smallest} pixels, not {min(img_size)}.")
    return entry


def resolve_weights(weights: str, models: tuple[str, ...]) -> str:
    """Decide, before any work and without TensorFlow, where the weights come from.

    Parameters
    ----------
    weights : str
        ``imagenet``, ``random``, ``auto``, or a path.
    models : tuple of str

    Returns
    -------
    str
        ``imagenet``, ``random`` or the path as given; `auto` becomes one of the first two, for all models
        alike, so that they stay comparable.

    Raises
    ------
    InputError
        When weights that were asked for cannot be had.
    """
    if weights == "random":
        return weights
    if weights in ("imagenet", "auto"):
        missing = [name for name in models if not _keras_file(name).exists()]
        if not missing or _reachable(_URL + BACKBONES[missing[0]].weights_file):
            return "imagenet"
        if weights == "auto":
            return "random"
        wanted = Path(BACKBONES[missing[0]].weights_file).name
        raise InputError(
            f"The ImageNet weights of {missing[0]} cannot be had: {wanted} is not in {_keras_file(missing[0]).parent} "
            "and its download does not answer. Three ways out: connect to the internet once; put the file in a "
            "folder and give -p weights=FOLDER; or give -p weights=random (a stand-in whose scores are poor)."
        )
    for name in models:
        find_weights(name, from_root(weights))
    return weights


def embedder_weights(weights: str) -> str | None:
    """Return where ImageNet weights of MobileNetV2, for the search for same-source images, can be had, if anywhere."""
    if weights == "random":
        return None
    if weights in ("imagenet", "auto"):
        there = _keras_file("MobileNetV2").exists() or _reachable(_URL + BACKBONES["MobileNetV2"].weights_file)
        return "imagenet" if there else None
    try:
        find_weights("MobileNetV2", from_root(weights))
    except InputError:
        return None
    return weights


def find_weights(name: str, place: Path) -> Path:
    """Return the weights file of a backbone: `place` itself, or the file in it that starts with its name.

    Case and punctuation do not matter, so that Keras's own download names are understood; a file without
    the classification top goes first.

    Raises
    ------
    InputError
        When there is none.
    """
    if place.is_file():
        return place
    wanted = Path(BACKBONES[name].weights_file).name
    if not place.is_dir():
        raise InputError(f"There are no weights at {place}: it should be a file or a folder that holds {wanted}.")

    def key(text: str) -> str:
        return re.sub(r"[^a-z0-9]", "", text.lower())

    files = [
        file
        for file in sorted(place.iterdir())
        if file.suffix in (".h5", ".keras") and key(file.name).startswith(key(name))
    ]
    files.sort(key=lambda file: "notop" not in key(file.name))
    if not files:
        raise InputError(
            f"There are no weights of {name} in {place}: it wants a file whose name starts with the model's, "
            f"such as {wanted}. Leave the model out with --models, or give -p weights=random."
        )
    return files[0]


def _keras_file(name: str) -> Path:
    home = Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras")
    return home / "models" / Path(BACKBONES[name].weights_file).name


def _reachable(url: str) -> bool:
    """Whether `url` answers within `_PROBE_SECONDS`; a thread, because name look-up knows no time-out."""
    answers: list[bool] = []

    def ask() -> None:
        try:
            with request.urlopen(request.Request(url, method="HEAD"), timeout=_PROBE_SECONDS) as answer:
                answers.append(answer.status == 200)
        except (TimeoutError, error.URLError, OSError, ValueError):
            answers.append(False)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(_PROBE_SECONDS)
    return bool(answers and answers[0])


def build_extractor(
    name: str, img_size: tuple[int, int], weights: str, normalization: str = "imagenet", border: str = "keep"
) -> "keras.Model":
    """Build the frozen part of the model as one flat graph.

    Parameters
    ----------
    name : str
        A backbone of the registry.
    img_size : (int, int)
    weights : str
        What `resolve_weights` returned.
    normalization : str
        ``imagenet`` (the backbone's own) or ``unit`` ([0, 1] for all).
    border : str
        ``keep``; or what a shortcut is looked for with: ``blank`` (the border and the corners, where markers sit, are
        black) or ``only`` (all but them is).

    Returns
    -------
    keras.Model
        Grey pixels (n, height, width, 1), 0-255, any real dtype, in; pooled features (n, d), float32, out.
        With random weights the features are standardised by the graph's last layer.

    Raises
    ------
    InputError
        When the weights do not fit the backbone.
    """
    import keras

    entry = get_backbone(name, img_size)
    constructor = getattr(keras.applications, name)
    scale, offset = PREPROCESSING["unit" if normalization == "unit" else entry.preprocessing]
    if weights == "random":
        keras.utils.set_random_seed(_INIT_SEED)
    inputs = keras.Input((*img_size, 1), name="grey_pixels")
    channels = keras.layers.Concatenate(name="to_three_channels")([_masked(inputs, img_size, border)] * 3)
    scaled = keras.layers.Rescaling(scale, offset, name="preprocessing")(channels)
    backbone = constructor(include_top=False, weights=None, input_tensor=scaled)
    features = keras.layers.GlobalAveragePooling2D(name="pooled")(backbone.output)
    model = keras.Model(inputs, features, name=name)
    if weights == "random":
        return _calibrated(model, entry, img_size, f"{normalization}, border {border}")
    backbone.set_weights(_read_weights(name, img_size, weights))
    model.trainable = False
    return model


def _masked(pixels: "keras.KerasTensor", img_size: tuple[int, int], border: str) -> "keras.KerasTensor":
    """Blank the border and the corners, or all else; in the graph, so that the saved model does the same."""
    import keras

    if border == "keep":
        return pixels

    def inner(top: float, left: float) -> "keras.KerasTensor":
        cut = [(round(share * side),) * 2 for share, side in zip((top, left), img_size, strict=True)]
        return keras.layers.ZeroPadding2D(cut)(keras.layers.Cropping2D(cut)(pixels))

    middle = keras.layers.Maximum(name="without_border")([inner(BORDER, CORNER), inner(CORNER, BORDER)])
    return middle if border == "blank" else keras.layers.Subtract(name="border_only")([pixels, middle])


def _read_weights(name: str, img_size: tuple[int, int], weights: str) -> list[np.ndarray]:
    import keras

    constructor = getattr(keras.applications, name)
    shape = (*img_size, 3)
    if weights == "imagenet":
        return constructor(include_top=False, weights="imagenet", input_shape=shape).get_weights()
    path = find_weights(name, from_root(weights))
    plain = constructor(include_top=False, weights=None, input_shape=shape)
    try:
        plain.load_weights(path)
    except (ValueError, OSError, KeyError) as problem:
        reason = str(problem).splitlines()[0][:200]
        raise InputError(f"The weights {path.name} do not fit {name} without its top: {reason}.") from None
    return plain.get_weights()


def _calibrated(model: "keras.Model", entry: Backbone, img_size: tuple[int, int], normalization: str) -> "keras.Model":
    """Give a random backbone the batch statistics of phantoms, and standardise what it pools.

    As Keras builds it, a frozen random backbone gives features at chance: its batch normalizations still
    have mean 0 and variance 1. The statistics are kept, so that all of a study's steps share them.
    """
    import keras

    path = cache_folder() / f"random-{hash_of(_RANDOM_VERSION, PHANTOM_VERSION, entry, img_size, normalization)}.npz"
    if not path.exists():
        statistics = _calibrate(model, calibration_phantoms(img_size))
        write_whole(path, lambda partial: np.savez(partial, *statistics))
    with np.load(path) as stored:
        *moving, mean, variance = [stored[f"arr_{i}"] for i in range(len(stored.files))]
    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    for index, layer in enumerate(norms):
        layer.moving_mean.assign(moving[2 * index])
        layer.moving_variance.assign(moving[2 * index + 1])
    standardise = keras.layers.Normalization(mean=mean, variance=variance, name="standardised")
    model = keras.Model(model.input, standardise(model.output), name=model.name)
    model.trainable = False
    return model


def _calibrate(model: "keras.Model", pictures: np.ndarray) -> list[np.ndarray]:
    """Return mean and variance of every batch normalization, in order, then of the pooled features."""
    import keras
    import tensorflow as tf

    batch = pictures[..., None].astype("float32")
    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    momenta = [layer.momentum for layer in norms]
    for layer in norms:
        layer.momentum = 0.0
    run = tf.function(lambda pixels: model(pixels, training=True), autograph=False)  # a graph frees what it has used
    pooled = run(batch).numpy()  # what the layers will give with these very statistics
    for layer, momentum in zip(norms, momenta, strict=True):
        layer.momentum = momentum
    moving = [np.asarray(value) for layer in norms for value in (layer.moving_mean, layer.moving_variance)]
    return [*moving, pooled.mean(axis=0), np.maximum(pooled.var(axis=0), 1e-8)]
