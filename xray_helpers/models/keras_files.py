"""A user's own ``.keras`` file as a backbone: its features before the layers that decide."""

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

from xray_helpers.models.graphs import embed_network
from xray_helpers.models.preprocessing import POOLED, PREPROCESSING, describe_preprocessing
from xray_helpers.models.saved import load_model
from xray_helpers.settings import InputError, nearest
from xray_helpers.study.folders import from_root
from xray_helpers.study.records import sha256_of

if TYPE_CHECKING:
    import keras
_OPTIONS = ("layer", "preprocessing")


@dataclass(frozen=True)
class FileBackbone:
    """A trained Keras model in a file, read in Keras's safe mode.

    Attributes
    ----------
    name : str
    place : str
        ``PATH.keras``, or ``PATH.keras?layer=NAME&preprocessing=KEY``: the layer of the features, by default
        the last that pools; and a key of `PREPROCESSING`, by default ``none``: grey, 0-255, as it is.
    licence : str
    """

    name: str
    place: str
    licence: str = ""

    @functools.cached_property
    def _options(self) -> dict[str, str]:
        options = dict(parse_qsl(self.place.partition("?")[2]))
        for key in options:
            if key not in _OPTIONS:
                raise InputError(
                    f"The model {self.name} has no option {key!r}{nearest(key, _OPTIONS) or '.'} Known: "
                    f"{', '.join(_OPTIONS)}."
                )
        chosen = options.setdefault("preprocessing", "none")
        if chosen not in PREPROCESSING:
            raise InputError(
                f"The model {self.name} has no preprocessing {chosen!r}"
                f"{nearest(chosen, PREPROCESSING) or '.'} Known: {', '.join(PREPROCESSING)}."
            )
        return options

    def check_size(self, img_size: tuple[int, int]) -> None:
        """Accept every size: pictures are brought to that of the file."""

    def locate_weights(self, weights: str = "") -> Path:
        """Return the file.

        Raises
        ------
        InputError
            If there is none, or an option is unknown.
        """
        path = from_root(self.place.partition("?")[0])
        if path.suffix != ".keras" or not path.is_file():
            raise InputError(f"The model {self.name}: there is no file {path} with the ending .keras.")
        self._options  # noqa: B018 - unknown ones are refused
        return path

    def identify_weights(self, weights: str = "") -> list[str]:
        """Return the hash of the file, and the options."""
        return [sha256_of(self.locate_weights()), *map(str, self._options.items())]

    def describe(self, weights: str = "", normalization: str = "imagenet") -> dict[str, str]:
        """See `Backbone`."""
        key = "unit" if normalization == "unit" else self._options["preprocessing"]
        layer = self._load().layers[-1].name
        return {
            "weights_of": f"the file {self.locate_weights().name}, up to its layer {layer}",
            "preprocessing": describe_preprocessing(key),
            "licence": self.licence,
        }

    def build(
        self,
        img_size: tuple[int, int],
        weights: str = "",
        normalization: str = "imagenet",
        border: str = "keep",
    ) -> tuple["keras.Model", str]:
        """Build the frozen part of a model, which holds that of the file as a layer; see `Application.build`.

        Raises
        ------
        InputError
            If the file is refused, or does not take one picture of one or three channels.
        """
        key = "unit" if normalization == "unit" else self._options["preprocessing"]
        return embed_network(self._load(), self.name, img_size, border, PREPROCESSING[key])

    def _load(self) -> "keras.Model":
        """Return the network up to the layer of the features, without the layers after it."""
        import keras

        network = load_model(self.locate_weights())
        shape = getattr(network, "input_shape", None)
        if not isinstance(shape, tuple) or len(shape) != 4 or shape[-1] not in (1, 3):
            raise InputError(f"The model {self.name} takes {shape}, not pictures of one or three channels.")
        features = network.get_layer(self._choose_layer(network)).output
        return keras.Model(network.inputs, features, name="network")

    def _choose_layer(self, model: "keras.Model") -> str:
        import keras

        names = [layer.name for layer in model.layers]
        asked = self._options.get("layer", "")
        if asked and asked not in names:
            raise InputError(
                f"The model {self.name}: {self.locate_weights().name} has no layer {asked!r}"
                f"{nearest(asked, names) or '.'}"
            )
        pooling = (
            keras.layers.GlobalAveragePooling2D,
            keras.layers.GlobalMaxPooling2D,
            keras.layers.GlobalAveragePooling1D,
            keras.layers.Flatten,
        )
        pooled = [  # those that keep the shape of a picture are within a block
            layer.name
            for layer in model.layers
            if (isinstance(layer, pooling) or layer.name == POOLED) and len(layer.output.shape) == 2
        ]
        if asked:
            return asked
        if len(model.outputs[0].shape) == 4:
            return names[-1]
        if not pooled:
            raise InputError(
                f"The model {self.name}: {self.locate_weights().name} has no layer that pools: name that of "
                f"its features, as in file:PATH.keras?layer=NAME. The last ones: {', '.join(names[-8:])}."
            )
        return pooled[-1]
