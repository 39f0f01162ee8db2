"""Whether an image is like those that a model was trained on."""

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from xray_helpers.models.preprocessing import POOLED
from xray_helpers.models.random_weights import STANDARDISED
from xray_helpers.study.files import atomic_write

if TYPE_CHECKING:
    import keras
_KEPT = 250  # training images that are kept
NEAREST = 5  # of them: what an image is compared with


class OODDetector(NamedTuple):
    """Detects images unlike the training images.

    Attributes
    ----------
    features : ndarray of float32, shape (k, d)
        Features of some training images, each of length 1.
    limit : float
        The `feature_distance` above which an image is unlike them.
    """

    features: np.ndarray
    limit: float

    def save(self, path: Path) -> Path:
        """Write it to a ``.npz`` file."""
        with atomic_write(path) as partial:
            np.savez(partial, **self._asdict())
        return path

    @classmethod
    def load(cls, path: Path) -> "OODDetector":
        """Read what `save` wrote."""
        with np.load(path, allow_pickle=False) as stored:
            return cls(stored["features"], float(stored["limit"]))


def fit_ood_detector(train: np.ndarray, validation: np.ndarray, seed: int = 0) -> OODDetector:
    """Keep features of up to 250 training images; the limit is the 99th percentile of validation's distances.

    Parameters
    ----------
    train, validation : ndarray of float, shape (n, d)
        Features that the head receives. Training did not use those of validation.
    seed : int
        Seed for drawing the images kept.
    """
    train = np.asarray(train, np.float32)
    kept = np.sort(np.random.default_rng([seed, 11]).permutation(len(train))[:_KEPT])
    features = _unit(train[kept])
    return OODDetector(features, float(np.percentile(feature_distance(validation, features), 99)))


def feature_distance(features: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Return 1 minus the mean cosine with the 5 nearest known images, shape (n,).

    Features are not standardised: pages of text, noise and blank pictures differ from radiographs in features
    that hardly vary among radiographs.

    Parameters
    ----------
    features : ndarray of float, shape (n, d)
    known : ndarray of float32, shape (k, d)
        ``OODDetector.features``.
    """
    cosine = _unit(np.asarray(features, np.float32)) @ known.T
    count = min(NEAREST, len(known))
    return 1 - np.sort(cosine, axis=1)[:, -count:].mean(axis=1)


def _unit(features: np.ndarray) -> np.ndarray:
    return features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)


def build_feature_model(model: "keras.Model") -> "keras.Model":
    """Return the part of a joined model from pixels to the features that its head receives.

    Of a model that also sees mirror images (`head.average_flips`) these are the features of the picture.
    """
    import keras

    calibrated = any(layer.name == STANDARDISED for layer in model.layers)
    features = model.get_layer(STANDARDISED if calibrated else POOLED).output
    if model.output is not model.layers[-1].output:
        features = keras.ops.split(features, 2, axis=0)[0]
    return keras.Model(model.input, features)
