"""Frozen-backbone features: one forward pass an image and view, kept on disk."""

import hashlib
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from xray_helpers.backbones import find_weights
from xray_helpers.cache import cache_folder, new_array, read_array
from xray_helpers.engines import Engine, ForwardPass, choose_engine
from xray_helpers.pixels import augment, stream_pixels
from xray_helpers.settings import SPLITS, InputError
from xray_helpers.splits import used_part
from xray_helpers.studies import from_root, hash_of, read_json, write_json

_VERSION = 3  # part of every key: raise it when the same inputs would give other features


def extractor_key(
    name: str, img_size: tuple[int, int], weights: str, normalization: str, engine: Engine | None = None
) -> str:
    """Return a hash of everything about the extractor that changes its features; `engine` None: float32 TensorFlow."""
    if weights not in ("imagenet", "random"):
        file = find_weights(name, from_root(weights))
        weights = hashlib.sha256(file.read_bytes()).hexdigest()
    engine = engine or Engine("tensorflow", "float32")
    return hash_of("extractor", _VERSION, name, img_size, weights, normalization, engine)


def extract_features(
    part: pd.DataFrame,
    folder: Path,
    run: Callable[[], ForwardPass],
    key: str,
    view_seeds: tuple[int, ...] = (),
) -> list[np.ndarray]:
    """Run the frozen backbone once over the pictures, and once over each augmented view of them.

    What is cached is not computed again; pictures are decoded meanwhile where they are not cached either.

    Parameters
    ----------
    part : DataFrame
        With path and sha256, a row a picture.
    folder : Path
        What the paths are relative to.
    run : callable
        Returns the `engines.ForwardPass`; called only if something has to be computed.
    key : str
        The `extractor_key`: what features are cached under.
    view_seeds : tuple of int
        A seed an augmented view.

    Returns
    -------
    list of ndarray of float32, shape (n, d), memory-mapped: the pictures as they are, then each view of them
    """
    seeds = (None, *view_seeds)
    missing = [seed for seed in seeds if read_array(_name(part, key, seed)) is None]
    if missing:
        _compute(part, folder, run(), key, missing)
    return [read_array(_name(part, key, seed)) for seed in seeds]


def _compute(part: pd.DataFrame, folder: Path, run: ForwardPass, key: str, seeds: list[int | None]) -> None:
    with ExitStack() as stack:
        shape = (len(part), run.features)
        stores = [stack.enter_context(new_array(_name(part, key, seed), shape, np.float32)) for seed in seeds]
        bar = stack.enter_context(
            tqdm(total=len(part) * len(seeds), desc="features", mininterval=1, leave=False, unit="image")
        )
        for start, chunk in stream_pixels(part, folder, run.shape):
            if start == 0:
                run.check(chunk)
                write_json(cache_folder() / f"engine-{key}.json", run.record())
            for seed, store in zip(seeds, stores, strict=True):
                pictures = chunk if seed is None else augment(chunk, seed, start)
                run.submit(pictures, store[start : start + len(chunk)])
                bar.update(len(chunk))
        run.wait()


def load_features(part: pd.DataFrame, key: str) -> np.ndarray | None:
    """Return the cached features of the pictures as they are, float32 (n, d), or None; needs no TensorFlow."""
    return read_array(_name(part, key, None))


def engine_record(key: str) -> dict:
    """Return engine, precision and difference of the forward pass that made the features, as far as it is known."""
    return read_json(cache_folder() / f"engine-{key}.json", default={})


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


def build_embedder(
    weights: str | None, engine: Engine | None = None
) -> tuple[Callable[[np.ndarray], np.ndarray] | None, str]:
    """Return the embedder for `duplicates.find_same_source` and its key; (None, "") without weights.

    The network is built at the first call: where all signatures are cached, TensorFlow is never imported.
    """
    if weights is None:
        return None, ""
    engine = engine or choose_engine()
    passes: list[ForwardPass] = []

    def embed(pictures: np.ndarray) -> np.ndarray:
        if not passes:
            from xray_helpers.backbones import build_extractor

            passes.append(ForwardPass(build_extractor("MobileNetV2", pictures.shape[1:], weights), engine))
            passes[0].check(pictures)
        return passes[0](pictures)

    return embed, extractor_key("MobileNetV2", (0, 0), weights, "imagenet", engine)


def _name(part: pd.DataFrame, key: str, seed: int | None) -> str:
    return f"features-{hash_of(key, list(part['sha256']), seed)}"
