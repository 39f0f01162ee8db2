"""Backbones of KerasHub, an optional package (`make hub`): transformers and convnets, from presets."""

import functools
import importlib.util
import json
import re
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from xray_helpers.models.graphs import count_patches, embed_network, pool
from xray_helpers.models.preprocessing import PREPROCESSING, describe_preprocessing
from xray_helpers.settings import InputError
from xray_helpers.study.files import hash_of
from xray_helpers.study.folders import from_root
from xray_helpers.study.records import sha256_of

if TYPE_CHECKING:
    import keras
# Licences that bind the user, by words in the name of a preset or folder, or in the licence stated there.
_DINOV3 = "DINOv3 License, which binds the user (ai.meta.com/resources/models-and-libraries/dinov3-license)"
_HAI_DEF = (
    "Health AI Developer Foundations terms, which bind the user (no clinical use without authorisation)"
)
_MSRLA = "Microsoft Research License Agreement, which binds the user (research only)"
_BINDING = {
    "dinov3": _DINOV3,
    "medsiglip": _HAI_DEF,
    "hai-def": _HAI_DEF,
    "health-ai-developer-foundations": _HAI_DEF,
    "rad-dino": _MSRLA,
    "msrla": _MSRLA,
}
_UNSTATED = "minus_one_to_one"  # what a preset gets that does not state the range of its input
_HUGGING_FACE = "preprocessor_config.json"
_OPEN = {
    "dinov2": "Apache-2.0",
    "vit": "Apache-2.0",
    "deit": "Apache-2.0",
    "siglip": "Apache-2.0",
    "swin": "MIT",
}


@dataclass(frozen=True)
class HubBackbone:
    """A backbone of KerasHub.

    Attributes
    ----------
    name : str
    place : str
        The name of a preset, or a folder that holds one, in the layout of Keras, Hugging Face or timm.
    pooling : {'auto', 'mean', 'cls'}
        What becomes of a transformer's tokens: ``cls``, the class token; ``mean``, the mean of the patches;
        or ``auto``, the class token where there is one, else the mean. A network that pools itself does.
    """

    name: str
    place: str
    pooling: str = "auto"

    @property
    def folder(self) -> Path | None:
        """The folder, or None for the name of a preset."""
        path = from_root(self.place)
        return path if path.is_dir() or ("/" in self.place and "://" not in self.place) else None

    @functools.cached_property
    def licence(self) -> str:
        """The licence of the weights, as the folder states it, or as its name or its network tells."""
        stated = _stated_licence(self.folder)
        known = f"{self.place.lower()} {stated}"
        binding = next((text for word, text in _BINDING.items() if word in known), "")
        built_in = "" if self.folder or "://" in self.place else self.place
        opened = (text for word, text in _OPEN.items() if built_in.startswith(word))
        return binding or stated or next(opened, "")

    def check_size(self, img_size: tuple[int, int]) -> None:
        """Accept every size: pictures are brought to that of the preset."""

    def locate_weights(self, weights: str = "") -> str:
        """Return the folder, or the name of the preset.

        Raises
        ------
        InputError
            If KerasHub is not installed, or the folder holds no preset.
        """
        if importlib.util.find_spec("keras_hub") is None:
            raise InputError(f"The model {self.name} needs KerasHub, which is not installed: run `make hub`.")
        if self.folder is None:
            return self.place
        if not (self.folder / "config.json").is_file():
            raise InputError(f"The model {self.name}: there is no preset (config.json) in {self.folder}.")
        return str(self.folder)

    def identify_weights(self, weights: str = "") -> list[str]:
        """Return what differs for another preset: its files, or its name; and the pooling."""
        where = self.locate_weights()
        if self.folder is None:
            return ["preset", where, self.pooling]
        files = sorted(path for path in self.folder.rglob("*") if path.is_file())
        contents = [[path.relative_to(self.folder).as_posix(), sha256_of(path)] for path in files]
        return ["preset", hash_of(contents), self.pooling]

    def describe(self, weights: str = "", normalization: str = "imagenet") -> dict[str, str]:
        """See `Backbone`."""
        place = self.folder.name if self.folder else self.place
        said = _read_input(self.locate_weights(), self.folder)
        black, white = said.offset[0], 255 * said.scale[0] + said.offset[0]
        source = "as the preset states it" if said.stated else "as the preset states nothing"
        preprocessing = f"from {black:.3g} (black) to {white:.3g} (white) in the first channel, {source}"
        return {
            "weights_of": f"the KerasHub preset {place}",
            "preprocessing": describe_preprocessing("unit") if normalization == "unit" else preprocessing,
            "licence": self.licence,
        }

    def build(
        self,
        img_size: tuple[int, int],
        weights: str = "",
        normalization: str = "imagenet",
        border: str = "keep",
    ) -> tuple["keras.Model", str]:
        """Build the frozen part of a model, which holds the preset as one layer; see `Application.build`.

        Pictures are brought to the preset's own size.

        Raises
        ------
        InputError
            If the preset cannot be read, or has no encoder of pictures.
        """
        network, *scaling = self._load()
        if normalization == "unit":
            scaling = PREPROCESSING["unit"]
        pooled = functools.partial(self._pool, network)
        return embed_network(network, self.name, img_size, border, scaling, pooled)

    def _pool(self, network: "keras.Model", output: "keras.KerasTensor") -> "keras.KerasTensor":
        import keras

        if len(output.shape) != 3:
            return pool(output)
        tokens = output.shape[1]
        before = tokens - count_patches(network, tokens)
        if self.pooling == "cls" and not before:
            raise InputError(f"The model {self.name} has no class token: give -p pooling=mean.")
        if before and self.pooling != "mean":
            return pool(keras.layers.Cropping1D((0, tokens - 1))(output))
        return pool(keras.layers.Cropping1D((before, 0))(output) if before else output)

    def _load(self) -> tuple["keras.Model", list[float], list[float]]:
        """Return the network of the preset that sees pictures, and scale and offset of its channels."""
        where = self.locate_weights()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # such as on parts of the preset that are not used here
                import keras_hub

                network = _vision_part(keras_hub.models.Backbone.from_preset(where))
                stated = _read_input(where, self.folder)
                size = [*stated.size, 3]
                if stated.size and hasattr(network, "num_register_tokens") and size != [*network.image_shape]:
                    # a DINO was trained on larger pictures than it is meant to be used with
                    network = keras_hub.models.Backbone.from_preset(where, image_shape=tuple(size))
        except Exception as error:  # KerasHub raises nearly every type
            reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200].rstrip(".")
            raise InputError(
                f"The model {self.name}: the preset {self.place} cannot be read as a network of pictures "
                f"({reason})."
                + ("" if self.folder else " Where it cannot be downloaded, give a folder: hub:FOLDER.")
            ) from None
        return network, stated.scale, stated.offset


class _Input(NamedTuple):
    """What a preset says of its input: scale and offset per channel, height and width (or none)."""

    scale: list[float]
    offset: list[float]
    size: tuple[int, ...] = ()
    stated: bool = True


def _read_input(preset: str, folder: Path | None) -> _Input:
    """Return what the preset says of its input, of which Hugging Face has a file of its own."""
    import keras_hub

    file = folder / _HUGGING_FACE if folder else _fetch_from_hugging_face(preset)
    if file and file.is_file():
        return _parse_hugging_face(json.loads(file.read_text(encoding="utf-8")))
    try:
        converter = keras_hub.layers.ImageConverter.from_preset(preset)
    except (FileNotFoundError, ValueError):  # the preset, or KerasHub for this kind of network, has none
        converter = None
    if converter is None:
        return _Input(*PREPROCESSING[_UNSTATED], stated=False)
    scale, offset = _per_channel(converter.scale, 1.0), _per_channel(converter.offset, 0.0)
    return _Input(scale, offset, tuple(converter.image_size or ()))


def _parse_hugging_face(said: dict[str, Any]) -> _Input:
    """Return the input that a ``preprocessor_config.json`` describes."""
    factor = said.get("rescale_factor", 1 / 255) if said.get("do_rescale", True) else 1.0
    mean, std = [0.0] * 3, [1.0] * 3
    if said.get("do_normalize", True):
        mean, std = said.get("image_mean", [0.5] * 3), said.get("image_std", [0.5] * 3)
    side = said.get("crop_size") if said.get("do_center_crop", "crop_size" in said) else said.get("size")
    sides = (side.get("height"), side.get("width")) if isinstance(side, dict) else (side, side)
    scale, offset = [factor / s for s in std], [-m / s for m, s in zip(mean, std, strict=True)]
    return _Input(scale, offset, sides if all(sides) else ())


def _fetch_from_hugging_face(preset: str) -> Path | None:
    """Return what a preset of Hugging Face says of its input, downloaded; None for other presets."""
    if not preset.startswith("hf://"):
        return None
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    try:
        return Path(hf_hub_download(preset.removeprefix("hf://"), _HUGGING_FACE))
    except EntryNotFoundError:
        return None


def _vision_part(network: "keras.Model") -> "keras.Model":
    """Return the encoder of pictures of a network of pictures and text; any other network as it is."""
    network = getattr(network, "vision_encoder", network)
    if len(network.inputs) != 1 or len(network.inputs[0].shape) != 4:
        raise ValueError("it does not take pictures alone")
    return network


def _per_channel(values: Any, default: float) -> list[float]:
    """Return three values; a preset may state one for all channels, or none."""
    if values is None:
        return [default] * 3
    values = [values] if isinstance(values, int | float) else list(values)
    return [float(value) for value in (values * 3 if len(values) == 1 else values)]


def _stated_licence(folder: Path | None) -> str:
    """Return the licence in the first lines of a folder's README.md, as Hugging Face writes it."""
    try:
        text = (folder / "README.md").read_text(encoding="utf-8")[:4000] if folder else ""
    except (OSError, UnicodeDecodeError):
        return ""
    found = re.findall(r"^license(?:_name)?:\s*([\w.-]+)", text, flags=re.MULTILINE)
    return next((name.lower() for name in found if name.lower() != "other"), "")
