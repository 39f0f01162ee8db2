"""Frozen-backbone features: one forward pass an image and view, kept on disk."""

import hashlib
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from tqdm import tqdm

from xray_helpers.backbones import find_weights
from xray_helpers.cache import cached_array, read_array
from xray_helpers.pixels import augment
from xray_helpers.settings import SPLITS, InputError
from xray_helpers.splits import used_part
from xray_helpers.studies import from_root, hash_of

if TYPE_CHECKING:
    import keras

_VERSION = 2  # part of every key: raise it when the same inputs would give other features
_BATCH, _CHUNK = 8, 32  # images a forward pass, and between two updates of the progress line


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
        A seed an augmented view.

    Returns
    -------
    ndarray of float32, shape (1 + views, n, d): the pictures as they are, then their views
    """
    return np.stack([_extract_view(part, pixels, extractor, key, seed) for seed in (None, *view_seeds)])


def load_features(part: pd.DataFrame, key: str) -> np.ndarray | None:
    """Return the cached features of the pictures as they are, float32 (n, d), or None; needs no TensorFlow."""
    return read_array(_cache_name(part, key, None))


def load_study_features(records: dict[str, dict], manifest: pd.DataFrame) -> tuple[str, np.ndarray, pd.DataFrame]:
    """Return model, features (n, d) and rows of all images used, of the first model whose features are cached.

    Parameters
    ----------
    records : dict
        A model's name to its ``training.json``, the preferred model first.
    manifest : DataFrame

    Raises
    ------
    InputError
        When the cache was cleared since training.
    """
    parts = [used_part(manifest, split) for split in SPLITS]
    for name in records:
        found = [load_features(part, records[name]["key"]) for part in parts]
        if all(features is not None for features in found):
            return name, np.concatenate(found), pd.concat(parts, ignore_index=True)
    raise InputError("No model's features are in data/cache any more: run 02_train_model again for one model.")


def build_embedder(weights: str | None) -> tuple[Callable[[np.ndarray], np.ndarray] | None, str]:
    """Return the embedder for `duplicates.find_same_source` and its key; (None, "") without weights.

    The network is built at the first call: where all signatures are cached, TensorFlow is never imported.
    """
    if weights is None:
        return None, ""
    passes: list[Callable[[np.ndarray], np.ndarray]] = []

    def embed(pictures: np.ndarray) -> np.ndarray:
        if not passes:
            from xray_helpers.backbones import build_extractor

            passes.append(forward_pass(build_extractor("MobileNetV2", pictures.shape[1:], weights)))
        return passes[0](pictures)

    return embed, extractor_key("MobileNetV2", (0, 0), weights, "imagenet")


def _cache_name(part: pd.DataFrame, key: str, seed: int | None) -> str:
    return f"features-{hash_of(key, list(part['sha256']), seed)}"


def forward_pass(extractor: "keras.Model") -> Callable[[np.ndarray], np.ndarray]:
    """Return a function from uint8 pictures (n, height, width) to features (n, d), traced once.

    Batches are small and of one size: measured on a CPU, 8 images stay in its cache, where 32 do not.
    """
    import tensorflow as tf

    shape = extractor.input_shape[1:3]
    traced = tf.function(
        lambda batch: extractor(tf.cast(batch[..., None], tf.float32), training=False),
        input_signature=[tf.TensorSpec((_BATCH, *shape), tf.uint8)],
    )

    def run(pictures: np.ndarray) -> np.ndarray:
        outputs = []
        for start in range(0, len(pictures), _BATCH):
            batch = np.asarray(pictures[start : start + _BATCH])
            missing = _BATCH - len(batch)
            padded = np.concatenate([batch, np.zeros((missing, *shape), np.uint8)]) if missing else batch
            outputs.append(traced(padded).numpy()[: len(batch)])
        return np.concatenate(outputs)

    return run


def _extract_view(
    part: pd.DataFrame, pixels: np.ndarray, extractor: "keras.Model", key: str, seed: int | None
) -> np.ndarray:
    def fill(store: np.ndarray) -> None:
        name = "features" if seed is None else "features, augmented"
        run = forward_pass(extractor)
        for start in tqdm(range(0, len(pixels), _CHUNK), name, mininterval=1, leave=False, unit="chunk"):
            chunk = np.asarray(pixels[start : start + _CHUNK])
            if seed is not None:
                chunk = augment(chunk, seed * 1_000_003 + start)
            store[start : start + len(chunk)] = run(chunk)

    return cached_array(_cache_name(part, key, seed), (len(pixels), extractor.output_shape[-1]), np.float32, fill)
