"""Frozen-backbone features: one forward pass an image and view, kept on disk."""

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from tqdm import tqdm

from xray_helpers.backbones import find_weights
from xray_helpers.pixels import augment
from xray_helpers.studies import cache_folder, from_root, hash_of, write_whole

if TYPE_CHECKING:
    import keras

_VERSION = 1  # part of every key: raise it when the same inputs would give other features
_BATCH = 32


def extractor_key(name: str, img_size: tuple[int, int], weights: str, normalization: str) -> str:
    """Return a hash of everything about the extractor that changes its features."""
    if weights not in ("imagenet", "random"):
        file = find_weights(name, from_root(weights))
        weights = hashlib.sha256(file.read_bytes()).hexdigest()
    return hash_of("extractor", _VERSION, name, img_size, weights, normalization)


def extract_features(
    part: pd.DataFrame,
    pixels: np.ndarray,
    extractor: "keras.Model",
    key: str,
    view_seeds: tuple[int, ...] = (),
) -> np.ndarray:
    """Run the frozen backbone once over the pictures, or once over each augmented view of them.

    Parameters
    ----------
    part : DataFrame
        With sha256, a row a picture: part of the cache's key.
    pixels : ndarray of uint8, shape (n, height, width), 0-255
    extractor : keras.Model
        Of `backbones.build_extractor`.
    key : str
        Its `extractor_key`.
    view_seeds : tuple of int
        A seed an augmented view; none means the pictures as they are.

    Returns
    -------
    ndarray of float32, shape (views, n, d); views is 1 without seeds
    """
    layers = [_extract_view(part, pixels, extractor, key, seed) for seed in view_seeds or (None,)]
    return np.stack(layers)


def _extract_view(
    part: pd.DataFrame, pixels: np.ndarray, extractor: "keras.Model", key: str, seed: int | None
) -> np.ndarray:
    path = cache_folder() / f"features-{hash_of(key, list(part['sha256']), seed)}.npy"
    if not path.exists():
        features = np.empty((len(pixels), extractor.output.shape[-1]), np.float32)
        name = "features" if seed is None else "features, augmented"
        for start in tqdm(range(0, len(pixels), _BATCH), name, mininterval=1, leave=False, unit="batch"):
            batch = np.asarray(pixels[start : start + _BATCH])
            if seed is not None:
                batch = augment(batch, seed * 1_000_003 + start)
            features[start : start + len(batch)] = extractor.predict_on_batch(batch[..., None].astype(np.float32))
        write_whole(path, lambda partial: _save(partial, features))
    return np.load(path, mmap_mode="r")


def _save(path: Path, features: np.ndarray) -> None:
    with open(path, "wb") as handle:
        np.save(handle, features)
