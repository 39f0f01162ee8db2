"""Whether an image is like those that a model was trained on."""

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from xray_helpers.models.head import HEAD_INPUT
from xray_helpers.study.files import atomic_write

if TYPE_CHECKING:
    import keras
_KEPT, _NEAREST = 250, 5  # training images that are kept, and how many of them are looked at


class OODDetector(NamedTuple):
    """What tells images unlike the training images.

    Attributes
    ----------
    features : ndarray of float32, shape (k, d)
        Of some training images, each of length 1.
    limit : float
        The distance of `feature_distance` from which an image is unlike them.
    """

    features: np.ndarray
    limit: float

    def save(self, path: Path) -> Path:
        """Write both to a ``.npz``."""
        with atomic_write(path) as partial:
            np.savez(partial, **self._asdict())
        return path

    @classmethod
    def load(cls, path: Path) -> "OODDetector":
        """Read what `save` wrote."""
        with np.load(path, allow_pickle=False) as kept:
            return cls(kept["features"], float(kept["limit"]))


def fit_ood_detector(train: np.ndarray, validation: np.ndarray, seed: int = 0) -> OODDetector:
    """Keep features of up to `_KEPT` training images, and set the limit: the 99th percentile of validation's
    distances.

    Parameters
    ----------
    train, validation : ndarray of float, shape (n, d)
        Features as the head is given them. Training did not see those of validation.
    seed : int
        Of the images kept.
    """
    train = np.asarray(train, np.float32)
    kept = np.sort(np.random.default_rng([seed, 11]).permutation(len(train))[:_KEPT])
    features = _unit(train[kept])
    return OODDetector(features, float(np.percentile(feature_distance(validation, features), 99)))


def feature_distance(features: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Return 1 less the mean cosine with the nearest `_NEAREST` known images, shape (n,).

    Plain features, not standardised ones: pages of text, noise and blank pictures differ from radiographs in
    what hardly varies among radiographs.

    Parameters
    ----------
    features : ndarray of float, shape (n, d)
    known : ndarray of float32, shape (k, d)
        Of `OODDetector`.
    """
    cosine = _unit(np.asarray(features, np.float32)) @ known.T
    count = min(_NEAREST, len(known))
    return 1 - np.sort(cosine, axis=1)[:, -count:].mean(axis=1)


def _unit(features: np.ndarray) -> np.ndarray:
    return features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)


def build_feature_model(model: "keras.Model") -> "keras.Model":
    """Return the part of a joined model from pixels to the features that its head is given."""
    import keras

    return keras.Model(model.input, model.get_layer(HEAD_INPUT).input)
