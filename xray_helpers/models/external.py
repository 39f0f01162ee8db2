"""The trained models of a study, unchanged, on images from elsewhere: probabilities, features, distances."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from xray_helpers.evaluation.class_predictions import positive_probability
from xray_helpers.images.radiographs import ImageFolder
from xray_helpers.models.backbones import embedder_weights
from xray_helpers.models.features import build_embedder, extract_features
from xray_helpers.models.head import as_probabilities, build_predictions
from xray_helpers.models.inference import ForwardPass, choose_backend, study_backend
from xray_helpers.models.out_of_distribution import OODDetector, build_feature_model, feature_distance
from xray_helpers.models.saved import load_model
from xray_helpers.settings import Settings
from xray_helpers.study.cache import RowView
from xray_helpers.study.files import hash_of, read_json
from xray_helpers.study.folders import local_path
from xray_helpers.study.records import sha256_of

_TOLERANCE = 0.02  # of probabilities: other engines, and bfloat16, differ by less


class Tested(NamedTuple):
    """A trained model on a set of images.

    Attributes
    ----------
    predictions : DataFrame
        path, group, y_true, y_prob, y_pred, distance (`out_of_distribution.feature_distance` to the training
        images) and unlike (whether that is above the detector's limit).
    features : ndarray of float32, shape (n, d)
        What the head receives.
    limit : float
        The distance above which an image is unlike the training images.
    """

    predictions: pd.DataFrame
    features: np.ndarray
    limit: float


def study_embedder(study: Path, settings: Settings, images: int) -> tuple[Any, str]:
    """Return the embedder with which 01 searched for same-source images, and its key."""
    place = embedder_weights(local_path(study, "weights", settings.weights))
    return build_embedder(place, study_backend(study, settings, images))


class Opened(NamedTuple):
    """A trained model that gives its outputs and its features in one pass."""

    forward: ForwardPass
    key: str
    outputs: int  # 1, or the number of classes


def open_models(study: Path, models: list[str], images: int) -> dict[str, Opened]:
    """Return of each model one forward pass that gives its probabilities and its features.

    What is computed is float32, on this machine's fastest engine, whatever the study trained with.
    """
    import keras

    backend, opened = choose_backend("auto", "float32", images), {}
    for model in models:
        path = study / model / "model.keras"
        saved = load_model(path)
        parts = [saved.output, build_feature_model(saved).output]
        joint = keras.Model(saved.input, keras.layers.Concatenate(dtype="float32")(parts))
        key = hash_of("probability and features", sha256_of(path), backend)
        opened[model] = Opened(ForwardPass(joint, backend), key, saved.output_shape[-1])
    return opened


def test_models(
    study: Path, opened: dict[str, Opened], part: pd.DataFrame, images: ImageFolder
) -> dict[str, Tested]:
    """Predict images by each model, at the threshold that the study chose; cached by content.

    Parameters
    ----------
    study : Path
    opened : dict
        Of `open_models`.
    part : DataFrame
        path, sha256, group, y_true, and optionally excluded, which the predictions keep; may be empty.
    images : ImageFolder
        What the paths are relative to.
    """
    return {
        model: _test(study / model, found, part.reset_index(drop=True), images)
        for model, found in opened.items()
    }


test_models.__test__ = False  # it is no test of pytest's


def _test(place: Path, opened: Opened, part: pd.DataFrame, images: ImageFolder) -> Tested:
    detector = OODDetector.load(place / "familiarity.npz")
    own = part[["excluded"]] if "excluded" in part else part[[]]
    if not len(part):
        nothing = build_predictions(part, np.empty(0), 0.5).assign(distance=0.0, unlike=False)
        return Tested(nothing, np.empty((0, 1), np.float32), detector.limit)
    found: RowView = extract_features(part, images, opened.forward, hash_of(opened.key, images.how))[0]
    outputs, features = np.split(np.asarray(found[:]), [opened.outputs], axis=1)
    asked = positive_probability(as_probabilities(outputs))
    distance = feature_distance(features, detector.features)
    threshold = float(read_json(place / "threshold.json")["threshold"])
    predictions = build_predictions(part, asked, threshold)
    predictions = predictions.assign(distance=distance, unlike=distance > detector.limit)
    return Tested(predictions.join(own), features, detector.limit)


def join_predictions(tested: dict[str, Tested], *, labelled: bool = True) -> pd.DataFrame:
    """Return the predictions of all models in one table, with the column model; y_true only with labels."""
    table = pd.concat([found.predictions.assign(model=model) for model, found in tested.items()])
    table = table[["model", *table.columns.drop("model")]]
    return table if labelled else table.drop(columns="y_true")


def check_unchanged(recorded: pd.DataFrame, again: pd.DataFrame, *, exported: bool = False) -> str:
    """Return in a sentence whether a model gives what the study recorded of its own test images.

    Parameters
    ----------
    recorded : DataFrame
        ``predictions_test.csv``.
    again : DataFrame
        Predictions of the same images now.
    exported : bool
        Whether an exported file gave these, which answers by other arithmetic.
    """
    both = recorded[["path", "y_prob"]].merge(again[["path", "y_prob"]], on="path")
    if both.empty:
        return (
            "The study's own test images are not on this machine, so that what it recorded was not repeated."
        )
    difference = float((both["y_prob_x"] - both["y_prob_y"]).abs().max())
    if exported:
        return (
            f"{len(both)} of the study's test images predicted by the exported file: probabilities differ "
            f"from those of model.keras by at most {difference:.2g}."
        )
    same = "as recorded" if difference <= _TOLERANCE else "NOT as recorded"
    return f"{len(both)} of the study's test images predicted again: {same}, within {difference:.1g}."
