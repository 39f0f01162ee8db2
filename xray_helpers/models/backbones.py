"""Backbones: pretrained networks that turn a grey picture into features. `BACKBONES` is their registry.

To add one, add its `Backbone` to the registry. TensorFlow is imported inside the functions that build.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from xray_helpers.models.random_weights import INIT_SEED, calibrate, identify_random_weights
from xray_helpers.models.weights import (
    PublishedWeights,
    check_file,
    choose_file,
    fetch_file,
    keras_file,
    load_weights,
)
from xray_helpers.settings import InputError, nearest
from xray_helpers.study.folders import from_root

if TYPE_CHECKING:
    import keras
BORDER, CORNER = 0.10, 0.20  # shares of the side that `border` treats as border, and as corners
POOLED = "pooled"  # the layer of the pooled features
# Scale and offset per channel, as the networks were trained: x * scale + offset, where x is grey, 0-255, in
# three equal channels.
_MEAN, _STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
PREPROCESSING = {
    "caffe": ([1.0, 1.0, 1.0], [-103.939, -116.779, -123.68]),  # means of BGR; grey needs no reordering
    "torch": ((1 / (255 * _STD)).tolist(), (-_MEAN / _STD).tolist()),
    "minus_one_to_one": ([1 / 127.5] * 3, [-1.0] * 3),
    "unit": ([1 / 255] * 3, [0.0] * 3),
    "none": ([1.0] * 3, [0.0] * 3),
}


@dataclass(frozen=True, kw_only=True)
class Backbone:
    """A network of ``keras.applications`` without its classification layer.

    Attributes
    ----------
    name : str
        Name of its constructor in ``keras.applications``.
    preprocessing : str
        Key of `PREPROCESSING`: what its ImageNet weights expect.
    min_size : int
        Shortest side of its input in pixels.
    map_layer : str
        The last spatial layer that does not pool: where Grad-CAM looks.
    licence : str
        Licence of its ImageNet weights.
    weights_file : str
        Where Keras publishes these weights without the classification layer, for all image sizes, relative to
        `weights.BASE_URL`.
    parameters : int
        Number of parameters without the classification layer.
    md5 : str
        Hash of the file, as Keras's source states it; empty if it states none.
    """

    name: str
    preprocessing: str
    min_size: int
    map_layer: str
    licence: str
    weights_file: str
    parameters: int
    md5: str = ""

    @property
    def published(self) -> PublishedWeights:
        """The weights that Keras publishes."""
        return PublishedWeights(self.name, self.weights_file, self.md5, self.parameters)

    def build(
        self, img_size: tuple[int, int], weights: str, normalization: str = "imagenet", border: str = "keep"
    ) -> tuple["keras.Model", str]:
        """Build the frozen part of a model as one flat graph.

        Parameters
        ----------
        img_size : (int, int)
            Height and width.
        weights : str
            Result of `resolve_weights`.
        normalization : {'imagenet', 'unit'}
            The backbone's own preprocessing, or [0, 1] for all.
        border : {'keep', 'blank', 'only'}
            Controls for shortcuts: ``blank`` makes the border and the corners black, where markers are;
            ``only`` makes everything else black.

        Returns
        -------
        features : keras.Model
            From grey pixels (n, height, width, 1), 0-255, of any real dtype, to pooled features (n, d),
            float32. With random weights, the last layer standardises the features.
        map_layer : str
            Name of its layer for Grad-CAM.

        Raises
        ------
        InputError
            If the images are too small, or the weights do not fit.
        """
        import keras

        self.check_size(img_size)
        preprocessing = "unit" if normalization == "unit" else self.preprocessing
        scale, offset = PREPROCESSING[preprocessing]
        if weights == "random":
            keras.utils.set_random_seed(INIT_SEED)
        inputs = keras.Input((*img_size, 1), name="grey_pixels")
        channels = keras.layers.Concatenate(name="to_three_channels")([_mask_border(inputs, border)] * 3)
        scaled = keras.layers.Rescaling(scale, offset, name="preprocessing")(channels)
        network = self._build_network(input_tensor=scaled)
        pooled = keras.layers.GlobalAveragePooling2D(name=POOLED)(network.output)
        features = keras.Model(inputs, pooled, name=self.name)
        if weights == "random":
            features = calibrate(features, f"{preprocessing}, border {border}")
        else:
            plain = self._build_network(input_shape=(*img_size, 3))
            network.set_weights(load_weights(plain, self.locate_weights(weights), self.name))
        features.trainable = False
        return features, self.map_layer

    def _build_network(self, **options: Any) -> "keras.Model":
        import keras

        return getattr(keras.applications, self.name)(include_top=False, weights=None, **options)

    def check_size(self, img_size: tuple[int, int]) -> None:
        """Raise `InputError` if images of this size are too small."""
        if min(img_size) < self.min_size:
            raise InputError(
                f"{self.name} needs img_size of at least {self.min_size} pixels, not {min(img_size)}."
            )

    def locate_weights(self, weights: str) -> Path:
        """Return the checked weights file: Keras's own, downloaded if it is missing, or that of a place.

        Raises
        ------
        InputError
            If there is none, or it does not fit.
        """
        if weights in ("imagenet", "auto"):
            return fetch_file(self.published)
        return check_file(self.published, choose_file(self.published, from_root(weights)))

    def identify_weights(self, weights: str) -> Any:
        """Return a value that differs for other weights: the hash of the file, or what random ones depend on.

        Raises
        ------
        InputError
            If there is no such file.
        """
        if weights == "random":
            return identify_random_weights()
        file = keras_file(self.published)
        if weights != "imagenet":
            file = choose_file(self.published, from_root(weights))
        elif not file.is_file():
            return weights
        with open(file, "rb") as handle:
            return hashlib.file_digest(handle, "sha256").hexdigest()


_REGISTERED = (
    Backbone(
        name="InceptionV3",
        preprocessing="minus_one_to_one",
        min_size=75,
        map_layer="mixed10",
        licence="Apache-2.0",
        weights_file="inception_v3/inception_v3_weights_tf_dim_ordering_tf_kernels_notop.h5",
        parameters=21_802_784,
        md5="bcbd6486424b2319ff4ef7d526e38f63",
    ),
    Backbone(
        name="ResNet50",
        preprocessing="caffe",
        min_size=32,
        map_layer="conv5_block3_out",
        licence="MIT",
        weights_file="resnet/resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5",
        parameters=23_587_712,
        md5="4d473c1dd8becc155b73f8504c6f6626",
    ),
    Backbone(
        name="VGG16",
        preprocessing="caffe",
        min_size=32,
        map_layer="block5_conv3",
        licence="CC-BY-4.0",
        weights_file="vgg16/vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5",
        parameters=14_714_688,
        md5="6d6bbae143d832006294945121d1f1fc",
    ),
    Backbone(
        name="DenseNet121",
        preprocessing="torch",
        min_size=32,
        map_layer="relu",
        licence="BSD-3-Clause",
        weights_file="densenet/densenet121_weights_tf_dim_ordering_tf_kernels_notop.h5",
        parameters=7_037_504,
        md5="30ee3e1110167f948a6b9946edeeb738",
    ),
    Backbone(
        name="MobileNetV2",
        preprocessing="minus_one_to_one",
        min_size=32,
        map_layer="out_relu",
        licence="Apache-2.0",
        weights_file="mobilenet_v2/mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224_no_top.h5",
        parameters=2_257_984,
    ),
)
BACKBONES = {backbone.name: backbone for backbone in _REGISTERED}


def get_backbone(name: str) -> Backbone:
    """Return a backbone by its name.

    Raises
    ------
    InputError
        For an unknown name, naming the most similar known one.
    """
    if name not in BACKBONES:
        suggestion = nearest(name, BACKBONES) or "."
        raise InputError(f"There is no model {name!r}{suggestion} Known: {', '.join(BACKBONES)}.")
    return BACKBONES[name]


def resolve_weights(weights: str, models: tuple[str, ...]) -> str:
    """Decide, before any work and without TensorFlow, where weights come from; download published ones.

    Parameters
    ----------
    weights : str
        ``imagenet``, ``random``, ``auto``, or a path.
    models : tuple of str

    Returns
    -------
    str
        ``imagenet``, ``random``, or the path as given. ``auto`` becomes one of the first two, the same for
        all models, so that they can be compared.

    Raises
    ------
    InputError
        If the weights cannot be had, or do not fit the model.
    """
    if weights == "random":
        return weights
    try:
        for name in models:
            get_backbone(name).locate_weights(weights)
    except InputError as error:
        if weights == "auto":
            print(f"{error} Random weights stand in.")
            return "random"
        if weights != "imagenet":
            raise
        folder = keras_file(get_backbone(models[0]).published).parent
        raise InputError(
            f"{error} Keras's folder is {folder}. Three ways out: connect to the internet once; put the file "
            "in a folder and give -p weights=FOLDER; or give -p weights=random (a stand-in whose scores are "
            "poor)."
        ) from None
    return "imagenet" if weights == "auto" else weights


def embedder_weights(weights: str) -> str | None:
    """Return where to find weights of MobileNetV2 for the search for same-source images, or None.

    If there are none that can be used, the reason is printed.
    """
    if weights == "random":
        return None
    try:
        BACKBONES["MobileNetV2"].locate_weights(weights)
    except InputError as error:
        print(f"{error} The search for same-source images goes on without them.")
        return None
    return "imagenet" if weights == "auto" else weights


def _mask_border(pixels: "keras.KerasTensor", border: str) -> "keras.KerasTensor":
    """Make the border and the corners black, or everything else, in the graph, so that it is saved."""
    import keras

    if border == "keep":
        return pixels

    def crop(top: float, left: float) -> "keras.KerasTensor":
        shares = zip((top, left), pixels.shape[1:3], strict=True)
        cut = [(round(share * side),) * 2 for share, side in shares]
        return keras.layers.ZeroPadding2D(cut)(keras.layers.Cropping2D(cut)(pixels))

    middle = keras.layers.Maximum(name="without_border")([crop(BORDER, CORNER), crop(CORNER, BORDER)])
    return middle if border == "blank" else keras.layers.Subtract(name="border_only")([pixels, middle])
