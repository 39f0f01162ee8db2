"""The networks of ``keras.applications``; what Keras says of each is a row of ``applications.csv``."""

import csv
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from xray_helpers.models.graphs import last_spatial_layer, pool
from xray_helpers.models.preprocessing import PREPROCESSING, describe_preprocessing, prepare_pixels
from xray_helpers.models.random_weights import INIT_SEED, calibrate, identify_random_weights
from xray_helpers.models.weights import (
    RADIMAGENET,
    PublishedWeights,
    check_file,
    choose_file,
    fetch_file,
    is_radimagenet,
    keras_file,
    load_weights,
)
from xray_helpers.settings import InputError
from xray_helpers.study.folders import from_root
from xray_helpers.study.records import sha256_of

if TYPE_CHECKING:
    import keras
WEIGHT_SETS = ("imagenet", RADIMAGENET)  # what may stand after the @ of a name
_IMAGENET_STD = np.array([0.229, 0.224, 0.225])


@dataclass(frozen=True, kw_only=True)
class Application:
    """A network of ``keras.applications`` without its classification layer.

    Attributes
    ----------
    name : str
    preprocessing : str
        Key of `PREPROCESSING`: what its ImageNet weights expect.
    licence : str
        Licence of its ImageNet weights.
    weights_file : str
        Where Keras publishes these weights without the classification layer, for all image sizes, relative to
        `weights.BASE_URL`.
    parameters : int
        Number of parameters without the classification layer.
    file_hash : str
        Hash of the file, as Keras's source states it: MD5 or SHA-256; empty if it states none.
    local_name : str
        The name under which Keras keeps the file, where that is not the one in its address.
    min_size : int
        Shortest side of its input in pixels.
    constructor : str
        Its name in ``keras.applications``, where that is not `name`.
    options : mapping
        Arguments of the constructor.
    weight_set : str
        One of `WEIGHT_SETS`, if the study asks for it by name; else the weights say.
    """

    name: str
    preprocessing: str
    licence: str
    weights_file: str
    parameters: int
    file_hash: str = ""
    local_name: str = ""
    min_size: int = 32
    constructor: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    weight_set: str = ""

    @property
    def published(self) -> PublishedWeights:
        """The weights that Keras publishes."""
        return PublishedWeights(
            self.name, self.weights_file, self.file_hash, self.parameters, self.local_name
        )

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
            The preprocessing that its weights expect, or [0, 1] for all.
        border : {'keep', 'blank', 'only'}
            Controls for shortcuts: ``blank`` makes the border and the corners black, where markers are;
            ``only`` makes everything else black.

        Returns
        -------
        features : keras.Model
            From grey pixels (n, height, width, 1), 0-255, of any real dtype, to pooled features (n, d),
            float32. With random weights, the last layer standardises the features.
        map_layer : str
            Name of its layer for Grad-CAM: the last spatial one that does not pool.

        Raises
        ------
        InputError
            If the images are too small, or the weights do not fit.
        """
        import keras

        self.check_size(img_size)
        preprocessing = self._choose_preprocessing(weights, normalization)
        if weights == "random":
            keras.utils.set_random_seed(INIT_SEED)
        _, scaled = prepare_pixels(img_size, *PREPROCESSING[preprocessing], border)
        network = self._build_network(input_tensor=scaled)
        if weights != "random":
            plain = self._build_network(input_shape=(*img_size, 3))
            network.set_weights(load_weights(plain, self.locate_weights(weights), self.name))
        network = _fix_normalization(network)
        features = keras.Model(network.inputs[0], pool(network.output), name=self.name)
        if weights == "random":
            if border != "keep":  # one network, whatever part of a picture it is shown
                self.build(img_size, weights, normalization)
            features = calibrate(features, preprocessing)
        features.trainable = False
        return features, last_spatial_layer(features)

    def _build_network(self, **options: Any) -> "keras.Model":
        import keras

        build = getattr(keras.applications, self.constructor or self.name)
        return build(include_top=False, weights=None, **self.options, **options)

    def _choose_preprocessing(self, weights: str, normalization: str) -> str:
        if normalization == "unit":
            return "unit"
        radimagenet = weights != "random" and self._is_radimagenet(self.locate_weights(weights))
        return RADIMAGENET if radimagenet else self.preprocessing

    def _is_radimagenet(self, file: Path) -> bool:
        return self.weight_set == RADIMAGENET or is_radimagenet(file)

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
        if self.weight_set and weights == "random":
            raise InputError(
                f"{self.name}@{self.weight_set} has no random weights: give other weights, or leave it out."
            )
        file = self.choose_file(weights)
        if file == keras_file(self.published):
            return fetch_file(self.published)
        return check_file(self.published, file)

    def choose_file(self, weights: str) -> Path:
        """Return the file of these weights, which may not exist if it is the one that Keras keeps."""
        own = keras_file(self.published)
        by_keras = weights in ("imagenet", "auto")
        if by_keras and self.weight_set != RADIMAGENET:
            return own
        try:
            return choose_file(
                self.published, own.parent if by_keras else from_root(weights), self.weight_set
            )
        except InputError:
            if self.weight_set != "imagenet":
                raise
        return own

    def identify_weights(self, weights: str) -> Any:
        """Return a value that differs for other weights: the hash of the file, or what random ones depend on.

        Raises
        ------
        InputError
            If there is no such file.
        """
        if weights == "random":
            return identify_random_weights()
        file = self.choose_file(weights)
        if not file.is_file():
            return weights
        return [sha256_of(file), RADIMAGENET] if self._is_radimagenet(file) else sha256_of(file)

    def describe(self, weights: str, normalization: str = "imagenet") -> dict[str, str]:
        """Return which weights and which preprocessing are used, and the licence, in words for a report."""
        if weights == "random":
            return {
                "weights_of": "random weights, not trained",
                "preprocessing": describe_preprocessing(self._choose_preprocessing(weights, normalization)),
                "licence": "",
            }
        file = self.locate_weights(weights)
        radimagenet = self._is_radimagenet(file)
        published = file.name == self.published.file or "imagenet" in file.name.lower()
        known = "RadImageNet, " if radimagenet else "ImageNet, " if published else "the file "
        return {
            "weights_of": f"{known}{file.name}",
            "preprocessing": describe_preprocessing(self._choose_preprocessing(weights, normalization)),
            "licence": "as RadImageNet's authors state it" if radimagenet else self.licence,
        }


def _fix_normalization(network: "keras.Model") -> "keras.Model":
    """Return a network whose normalization of the input is a constant, with the ImageNet statistics.

    The files of EfficientNet (the first version) hold mean and variance as weights, and Keras divides once
    more by the root of the standard deviation where it loads them itself. As constants they survive copying.
    """
    import keras

    learned = [
        layer for layer in network.layers if isinstance(layer, keras.layers.Normalization) and layer.weights
    ]
    if not learned:
        return network
    layer = learned[0]
    mean, variance, _ = layer.get_weights()
    constant = {"mean": mean.tolist(), "variance": (variance * _IMAGENET_STD).tolist(), "name": layer.name}

    def copy(old: "keras.layers.Layer") -> "keras.layers.Layer":
        if old is layer:
            return keras.layers.Normalization(**constant)
        return type(old).from_config(old.get_config())

    fixed = keras.models.clone_model(network, clone_function=copy)
    for new, old in zip(fixed.layers, network.layers, strict=True):
        if old is not layer:
            new.set_weights(old.get_weights())
    return fixed


def _read_table() -> Iterator[Application]:
    with open(Path(__file__).with_suffix(".csv"), encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            numbers = {name: int(row[name]) for name in ("min_size", "parameters")}
            # Keras normalises the features of a ConvNeXt after they are pooled
            options = {"pooling": "avg"} if row["name"].startswith("ConvNeXt") else {}
            yield Application(**(row | numbers), options=options)


APPLICATIONS = tuple(_read_table())
