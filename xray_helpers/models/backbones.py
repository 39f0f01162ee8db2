"""The registry of backbones: constructor, preprocessing, smallest input, weights.

To add one, add its entry to `BACKBONES`. TensorFlow is imported inside the functions that build.
"""

import hashlib
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from zipfile import BadZipFile

import numpy as np

from xray_helpers.models.weights import (
    PublishedWeights,
    check_file,
    choose_file,
    fetch_file,
    keras_file,
    load_weights,
)
from xray_helpers.settings import InputError, nearest
from xray_helpers.study.cache import cache_folder
from xray_helpers.study.files import atomic_write, hash_of
from xray_helpers.study.folders import from_root
from xray_helpers.synthetic.dataset import VERSION as PHANTOM_VERSION
from xray_helpers.synthetic.dataset import calibration_phantoms

if TYPE_CHECKING:
    import keras
_INIT_SEED = 20  # of random weights: fixed, so that every study's random backbone is the same
_RANDOM_VERSION = 3  # raise it when random backbones are calibrated otherwise
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
        Where Keras publishes the weights without the top, below its download folder: one file for all image
        sizes.
    parameters : int
        Of the backbone without its top.
    md5 : str
        Of that file, as `keras.applications` states it; empty where it states none.
    """

    name: str
    preprocessing: str
    smallest: int
    weights_file: str
    parameters: int
    md5: str = ""

    @property
    def published(self) -> PublishedWeights:
        """What Keras publishes of its weights."""
        return PublishedWeights(self.name, self.weights_file, self.md5, self.parameters)


BACKBONES = {
    entry.name: entry
    for entry in (
        Backbone(
            "InceptionV3",
            "minus_one_to_one",
            75,
            "inception_v3/inception_v3_weights_tf_dim_ordering_tf_kernels_notop.h5",
            21_802_784,
            "bcbd6486424b2319ff4ef7d526e38f63",
        ),
        Backbone(
            "ResNet50",
            "caffe",
            32,
            "resnet/resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5",
            23_587_712,
            "4d473c1dd8becc155b73f8504c6f6626",
        ),
        Backbone(
            "VGG16",
            "caffe",
            32,
            "vgg16/vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5",
            14_714_688,
            "6d6bbae143d832006294945121d1f1fc",
        ),
        Backbone(
            "DenseNet121",
            "torch",
            32,
            "densenet/densenet121_weights_tf_dim_ordering_tf_kernels_notop.h5",
            7_037_504,
            "30ee3e1110167f948a6b9946edeeb738",
        ),
        Backbone(
            "MobileNetV2",
            "minus_one_to_one",
            32,
            "mobilenet_v2/mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224_no_top.h5",
            2_257_984,
        ),
    )
}


def get_backbone(name: str, img_size: tuple[int, int] | None = None) -> Backbone:
    """Return the registry's entry, checked against the image size.

    Raises
    ------
    InputError
        For an unknown name (naming the nearest), or images too small for the network.
    """
    if name not in BACKBONES:
        raise InputError(
            f"There is no model {name!r}{nearest(name, BACKBONES)} Known: {', '.join(BACKBONES)}."
        )
    entry = BACKBONES[name]
    if img_size is not None and min(img_size) < entry.smallest:
        raise InputError(f"{name} needs img_size of at least {entry.smallest} pixels, not {min(img_size)}.")
    return entry


def resolve_weights(weights: str, models: tuple[str, ...]) -> str:
    """Decide, before any work and without TensorFlow, where the weights come from; published ones are
    downloaded now.

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
        When weights that were asked for cannot be had, or do not fit the model.
    """
    if weights == "random":
        return weights
    try:
        for name in models:
            locate_weights(name, weights)
    except InputError as problem:
        if weights == "auto":
            print(f"{problem} Random weights stand in.")
            return "random"
        if weights != "imagenet":
            raise
        raise InputError(
            f"{problem} Keras's folder is {keras_file(BACKBONES[models[0]].published).parent}. Three ways "
            "out: connect to "
            "the internet once; put the file in a folder and give -p weights=FOLDER; or give -p "
            "weights=random (a stand-in "
            "whose scores are poor)."
        ) from None
    return "imagenet" if weights == "auto" else weights


def embedder_weights(weights: str) -> str | None:
    """Return where ImageNet weights of MobileNetV2, for the search for same-source images, are, if anywhere.

    Where there are none that can be used, it says why.
    """
    if weights == "random":
        return None
    try:
        locate_weights("MobileNetV2", weights)
    except InputError as problem:
        print(f"{problem} The search for same-source images goes on without them.")
        return None
    return "imagenet" if weights == "auto" else weights


def locate_weights(name: str, weights: str) -> Path:
    """Return the checked weights file of a backbone: Keras's own, downloaded where it is missing, or one of a
    place.

    Raises
    ------
    InputError
        When there is none, or it does not fit.
    """
    entry = get_backbone(name)
    if weights in ("imagenet", "auto"):
        return fetch_file(entry.published)
    return check_file(entry.published, find_weights(name, from_root(weights)))


def find_weights(name: str, place: Path) -> Path:
    """Return the weights file of a backbone: `place` itself, or the best file in it; see
    `weights.choose_file`.

    Raises
    ------
    InputError
        When there is none, or several are equally good.
    """
    return choose_file(BACKBONES[name].published, place)


def identify_weights(name: str, weights: str) -> Any:
    """Return what changes where the weights of a backbone are others: a file's hash, or all that random ones
    depend on.

    Raises
    ------
    InputError
        When there is no such file.
    """
    if weights == "random":
        return [
            "random",
            _RANDOM_VERSION,
            _INIT_SEED,
            PHANTOM_VERSION,
            np.__version__,
            metadata.version("keras"),
        ]
    published = keras_file(BACKBONES[name].published)
    if weights == "imagenet" and not published.is_file():
        return weights
    file = published if weights == "imagenet" else find_weights(name, from_root(weights))
    with open(file, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


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
        ``keep``; or what a shortcut is looked for with: ``blank`` (the border and the corners, where markers
        sit, are black) or ``only`` (all but them is).

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

    file = locate_weights(name, weights)
    plain = getattr(keras.applications, name)(include_top=False, weights=None, input_shape=(*img_size, 3))
    return load_weights(plain, file, name)


def _calibrated(
    model: "keras.Model", entry: Backbone, img_size: tuple[int, int], normalization: str
) -> "keras.Model":
    """Give a random backbone the batch statistics of phantoms, and standardise what it pools.

    As Keras builds it, a frozen random backbone gives features at chance: its batch normalizations still
    have mean 0 and variance 1. The statistics are kept, so that all of a study's steps share them.
    """
    import keras

    identity = identify_weights(entry.name, "random")
    path = cache_folder() / f"random-{hash_of(identity, entry, img_size, normalization)}.npz"
    statistics = _read_statistics(path)
    if not statistics:
        statistics = _calibrate(model, calibration_phantoms(img_size))
        with atomic_write(path) as partial:
            np.savez(partial, *statistics)
    *moving, mean, variance = statistics
    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    for index, layer in enumerate(norms):
        layer.moving_mean.assign(moving[2 * index])
        layer.moving_variance.assign(moving[2 * index + 1])
    standardise = keras.layers.Normalization(mean=mean, variance=variance, name="standardised")
    model = keras.Model(model.input, standardise(model.output), name=model.name)
    model.trainable = False
    return model


def _read_statistics(path: Path) -> list[np.ndarray]:
    """Return what is kept, or nothing where it is not there, or damaged: the file's parts have checksums."""
    try:
        with open(path, "rb") as handle, np.load(handle) as stored:
            return [stored[f"arr_{i}"] for i in range(len(stored.files))]
    except (OSError, ValueError, EOFError, KeyError, BadZipFile):
        return []


def _calibrate(model: "keras.Model", pictures: np.ndarray) -> list[np.ndarray]:
    """Return mean and variance of every batch normalization, in order, then of the pooled features."""
    import keras
    import tensorflow as tf

    batch = pictures[..., None].astype("float32")
    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    momenta = [layer.momentum for layer in norms]
    for layer in norms:
        layer.momentum = 0.0
    run = tf.function(
        lambda pixels: model(pixels, training=True), autograph=False
    )  # a graph frees what it has used
    pooled = run(batch).numpy()  # what the layers will give with these very statistics
    for layer, momentum in zip(norms, momenta, strict=True):
        layer.momentum = momentum
    moving = [np.asarray(value) for layer in norms for value in (layer.moving_mean, layer.moving_variance)]
    return [*moving, pooled.mean(axis=0), np.maximum(pooled.var(axis=0), 1e-8)]
