"""Backbones: pretrained networks that turn a grey picture into features, by the name a study gives them.

`BACKBONES` holds those of ``keras.applications``; to add one, add a row to ``applications.csv``, or an
`Application` to `BACKBONES`. Others come from a place: a KerasHub preset (`hub.HubBackbone`), or a ``.keras``
file (`keras_files.FileBackbone`).
TensorFlow is imported inside the functions that build.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from xray_helpers.models.applications import APPLICATIONS, WEIGHT_SETS, Application
from xray_helpers.models.hub import HubBackbone
from xray_helpers.models.keras_files import FileBackbone
from xray_helpers.models.weights import MissingWeightsError, keras_file
from xray_helpers.settings import InputError, Settings, nearest

if TYPE_CHECKING:
    import keras
OWN = "own"  # the weights of models that bring theirs along
BACKBONES = {application.name: application for application in APPLICATIONS}


class Backbone(Protocol):
    """What every backbone can do; `Application` says it in full.

    Attributes
    ----------
    name : str
    licence : str
        Of its weights; empty if it is not known.
    """

    name: str
    licence: str

    def build(
        self, img_size: tuple[int, int], weights: str, normalization: str, border: str
    ) -> tuple["keras.Model", str]:
        """Return the features of grey pixels as one flat graph, and the name of its layer for Grad-CAM."""

    def check_size(self, img_size: tuple[int, int]) -> None:
        """Raise `InputError` if images of this size are too small."""

    def locate_weights(self, weights: str) -> Any:
        """Return where the weights are; raise `InputError` if there are none."""

    def identify_weights(self, weights: str) -> Any:
        """Return a value that differs for other weights."""

    def describe(self, weights: str, normalization: str) -> dict[str, str]:
        """Return weights_of, preprocessing and licence, in words for a report."""


def get_backbone(name: str, settings: Settings | None = None) -> Backbone:
    """Return a backbone by the name that a study gives it.

    Parameters
    ----------
    name : str
        A name of `BACKBONES`, such a name with ``@radimagenet`` or ``@imagenet``, or one of
        ``settings.sources``.
    settings : Settings, optional
        Of the study, with the places of its sources on this machine.

    Raises
    ------
    InputError
        For an unknown name, naming the most similar known one.
    """
    source = (settings.sources if settings else {}).get(name, "")
    kind, _, place = source.partition(":")
    if kind == "hub":
        return HubBackbone(name, place, settings.pooling)
    if kind == "file":
        return FileBackbone(name, place)
    network, at, weight_set = name.partition("@")
    if network not in BACKBONES:
        suggestion = nearest(network, BACKBONES) or "."
        raise InputError(
            f"There is no model {name!r}{suggestion} Known: {', '.join(BACKBONES)}; and hub:PRESET or "
            "hub:FOLDER of KerasHub, and file:PATH.keras."
        )
    if at and weight_set not in WEIGHT_SETS:
        suggestion = nearest(weight_set, WEIGHT_SETS) or "."
        raise InputError(
            f"There are no weights {weight_set!r} of {network}{suggestion} Known: {', '.join(WEIGHT_SETS)}."
        )
    return replace(BACKBONES[network], weight_set=weight_set) if at else BACKBONES[network]


def describe_backbone(model: str, settings: Settings, weights: str) -> dict[str, str]:
    """Return what ``training.json`` says of a backbone: weights_of, preprocessing and licence, in words.

    Parameters
    ----------
    model : str
    settings : Settings
    weights : str
        Result of `resolve_weights`.
    """
    return get_backbone(model, settings).describe(weights, settings.normalization)


def resolve_weights(weights: str, models: Sequence[str], settings: Settings | None = None) -> str:
    """Decide, before any work and without TensorFlow, where weights come from; download published ones.

    Parameters
    ----------
    weights : str
        ``imagenet``, ``random``, ``auto``, or a path.
    models : sequence of str
    settings : Settings, optional
        As for `get_backbone`.

    Returns
    -------
    str
        ``imagenet``, ``random``, the path as given, or `OWN` if all models bring theirs along. ``auto``
        becomes one of the first two, the same for all networks of ``keras.applications``, so that they can
        be compared.

    Raises
    ------
    InputError
        If the weights cannot be had, do not fit the model, or are the same for two models.
    """
    backbones = {name: get_backbone(name, settings) for name in models}
    applications = {name: one for name, one in backbones.items() if isinstance(one, Application)}
    for name in backbones.keys() - applications.keys():
        backbones[name].locate_weights(weights)
    if not applications:
        return OWN
    if weights not in ("auto", "imagenet", "random"):
        _check_different(_locate_all(applications, weights))
        return weights
    plain = {name: one for name, one in applications.items() if not one.weight_set}
    named = _locate_all({name: applications[name] for name in applications if name not in plain}, weights)
    if weights == "random":
        return weights
    try:
        files = named | _locate_all(plain, weights)
    except InputError as error:
        if weights == "auto" and not named:
            print(f"{error} Random weights stand in.")
            return "random"
        folder = keras_file(next(iter(applications.values())).published).parent
        raise InputError(
            f"{error} Keras's folder is {folder}. Three ways out: connect to the internet once; put the file "
            "in a folder and give -p weights=FOLDER; or give -p weights=random (a stand-in whose scores are "
            "poor)."
        ) from None
    _check_different(files)
    return "imagenet" if weights == "auto" else weights


def _locate_all(applications: Mapping[str, Application], weights: str) -> dict[str, Path]:
    """Return the weights file of each network; all that are missing in a folder are named in one error."""
    files, missing = {}, []
    for name, one in applications.items():
        try:
            files[name] = one.locate_weights(weights)
        except MissingWeightsError as error:
            place, missing = error.args[0], [*missing, *error.args[1]]
    if missing:
        raise MissingWeightsError(place, missing)
    return files


def _check_different(files: Mapping[str, Any]) -> None:
    """Raise `InputError` if two names of one network mean the same file."""
    for name, file in files.items():
        network, _, weight_set = name.partition("@")
        if weight_set and files.get(network) == file:
            other = next(one for one in WEIGHT_SETS if one != weight_set)
            raise InputError(
                f"{network} and {name} are the same file, {file.name}: name the first one {network}@{other}, "
                "or leave one out."
            )


def embedder_weights(weights: str) -> str | None:
    """Return where to find weights of MobileNetV2 for the search for same-source images, or None.

    If there are none that can be used, the reason is printed.
    """
    if weights == "random":
        return None
    try:
        BACKBONES["MobileNetV2"].locate_weights(weights)
    except InputError as error:
        print(
            f"{error} The search for same-source images goes on without them, and may miss combined crops "
            "and shears; -p weights=FOLDER (audit: --weights FOLDER) names where they are."
        )
        return None
    return "imagenet" if weights == "auto" else weights
