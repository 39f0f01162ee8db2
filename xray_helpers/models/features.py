"""Frozen-backbone features: one forward pass an image and view, kept on disk."""

from collections.abc import Callable
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from tqdm import tqdm

from xray_helpers.data.manifest import data_folder
from xray_helpers.data.parts import used_part
from xray_helpers.images.pixels import VERSION as PIXELS
from xray_helpers.images.pixels import augment, stream_pixels, unique_contents
from xray_helpers.images.radiographs import ImageFolder
from xray_helpers.models.backbones import identify_weights
from xray_helpers.models.inference import ForwardPass, InferenceBackend, study_backend
from xray_helpers.settings import SPLITS, InputError, Settings
from xray_helpers.study.cache import RowView, cache_folder, compute_lock, new_rows, read_rows
from xray_helpers.study.files import hash_of, read_json, write_json
from xray_helpers.study.folders import local_path
from xray_helpers.study.seeds import derive_seed

if TYPE_CHECKING:
    import keras
_VERSION = 4  # part of every key: raise it when the same inputs would give other features


def extractor_key(
    name: str,
    img_size: tuple[int, int],
    weights: str,
    normalization: str,
    engine: InferenceBackend,
    border: str = "keep",
    folder: ImageFolder | None = None,
) -> str:
    """Return a hash of everything about the extractor that changes its features."""
    how = folder.how if folder else ()
    return hash_of(
        "extractor",
        _VERSION,
        name,
        img_size,
        identify_weights(name, weights),
        normalization,
        engine,
        border,
        PIXELS,
        *how,
    )


def open_extractor(
    model: str, settings: Settings, weights: str, engine: InferenceBackend, folder: ImageFolder
) -> tuple["keras.Model", ForwardPass, str]:
    """Return a study's frozen backbone, its forward pass, and the key its features are cached under.

    Parameters
    ----------
    model : str
    settings : Settings
    weights : str
        What `backbones.resolve_weights` returned.
    engine : engines.Engine
        Of the study.
    folder : ImageFolder
        How pictures are read.
    """
    from xray_helpers.models.backbones import build_extractor

    how = (model, settings.img_size, weights, settings.normalization)
    extractor = build_extractor(*how, settings.border)
    return extractor, ForwardPass(extractor, engine), extractor_key(*how, engine, settings.border, folder)


def extract_features(
    part: pd.DataFrame, folder: Path, forward: ForwardPass, key: str, views: int = 0, *, shard: bool = False
) -> list[RowView]:
    """Run the frozen backbone once over the pictures, and once over each augmented view of them.

    What is cached is not computed again, whichever split or subset it was computed for; pictures are decoded
    meanwhile where they are not cached either.

    Parameters
    ----------
    part : DataFrame
        With path and sha256, a row a picture.
    folder : Path
        What the paths are relative to.
    forward : engines.ForwardPass
        Of `backbones.build_extractor`.
    key : str
        Its `extractor_key`: what features are cached under.
    views : int
        How many augmented views: number 0, 1, … of each picture.
    shard : bool
        Whether others compute other pictures of the same kind meanwhile; else they are waited for, and what
        they computed is used.

    Returns
    -------
    list of Rows of float32, shape (n, d), memory-mapped: the pictures as they are, then each view of them
    """
    kinds = {_kind(key, view): view for view in (None, *range(views))}
    with compute_lock(f"features-{hash_of(key, sorted(part['sha256']) if shard else '')}"):
        while None in (found := {kind: read_rows(kind, part["sha256"]) for kind in kinds}).values():
            lacking = {kind: view for kind, view in kinds.items() if found[kind] is None}
            _compute(unique_contents(part), folder, forward, key, lacking)
    return list(found.values())


def _compute(
    contents: pd.DataFrame, folder: Path, forward: ForwardPass, key: str, kinds: dict[str, int | None]
) -> None:
    """Fill the arrays of several views in one pass over the pictures that any of them lacks."""
    shas = contents["sha256"].to_numpy()
    with ExitStack() as stack:
        arrays = [
            stack.enter_context(new_rows(kind, shas, (forward.features,), np.float32)) for kind in kinds
        ]
        lacking = [np.isin(np.arange(len(shas)), missing) for _, missing in arrays]
        rows = np.flatnonzero(np.any(lacking, axis=0))
        work = int(np.sum(lacking))
        bar = stack.enter_context(tqdm(total=work, desc="features", mininterval=1, leave=False, unit="image"))
        done = 0
        for pictures in stream_pixels(contents.iloc[rows], folder, forward.shape):
            at = rows[done : done + len(pictures)]
            done += len(pictures)
            for view, (store, _), lacks in zip(kinds.values(), arrays, lacking, strict=True):
                wanted = lacks[at]
                if wanted.any():
                    chunk = pictures[wanted]
                    seen = chunk if view is None else augment(chunk, shas[at[wanted]], view)
                    forward.submit(seen, store, at[wanted])
                    bar.update(len(chunk))
        forward.wait()
    if forward.started:
        write_json(cache_folder() / f"engine-{key}.json", forward.record())


def load_features(part: pd.DataFrame, key: str) -> RowView | None:
    """Return the cached features of the pictures as they are, float32 (n, d), or None; needs no
    TensorFlow.
    """
    return read_rows(_kind(key, None), part["sha256"])


def backend_record(key: str) -> dict:
    """Return engine, precision and difference of the forward pass that made the features, as far as it is
    known.
    """
    return read_json(cache_folder() / f"engine-{key}.json", default={})


def load_study_features(
    study: Path, model: str, manifest: pd.DataFrame, most: int | None = None, seed: int = 0
) -> tuple[np.ndarray, pd.DataFrame]:
    """Return features (n, d) and rows of all images used, as a trained model of a study was given them.

    What the cache does not hold any more is computed again. Nothing, where that cannot be done: the weights
    are not there any more, or the model was trained by hand with other parameters than the study's.

    Parameters
    ----------
    study : Path
    model : str
    manifest : DataFrame
    most : int, optional
        At most so many images, drawn at random: features of others are not read, which take 0.8 GB for
        100,000 images.
    seed : int
        Of the draw.
    """
    parts = [used_part(manifest, split, copies=True) for split in SPLITS]
    key = read_json(study / model / "training.json")["key"]
    found = [load_features(part, key) for part in parts]
    if any(features is None for features in found):
        try:
            found = _extract_again(study, model, key, manifest, parts)
        except InputError:
            return np.empty((0, 1), np.float32), manifest.head(0)
    rows, starts = pd.concat(parts, ignore_index=True), np.cumsum([0, *map(len, parts)])
    drawn = np.random.default_rng(derive_seed(seed, "features")).permutation(len(rows))
    keep = np.sort(drawn[:most])
    own = [keep[(start <= keep) & (keep < end)] - start for start, end in pairwise(starts)]
    features = np.concatenate([part[at] for part, at in zip(found, own, strict=True)])
    return features, rows.iloc[keep].reset_index(drop=True)


def _extract_again(
    study: Path, model: str, key: str, manifest: pd.DataFrame, parts: list[pd.DataFrame]
) -> list[RowView]:
    settings, folder = Settings(**read_json(study / "study.json")["settings"]), data_folder(study)
    weights, engine = (
        local_path(study, "weights", settings.weights),
        study_backend(study, settings, len(manifest)),
    )
    _, forward, now = open_extractor(model, settings, weights, engine, folder)
    if now != key:
        raise InputError(f"{model} was trained with other parameters than those of the study.")
    return [extract_features(part, folder, forward, key)[0] for part in parts]


def build_embedder(
    weights: str | None, engine: InferenceBackend
) -> tuple[Callable[[np.ndarray], np.ndarray] | None, str]:
    """Return the embedder for `search.find_same_source` and its key; (None, "") without weights.

    The network is built at the first call: where all signatures are cached, TensorFlow is never imported.
    """
    if weights is None:
        return None, ""
    passes: list[ForwardPass] = []

    def embed(pictures: np.ndarray) -> np.ndarray:
        if not passes:
            from xray_helpers.models.backbones import build_extractor

            passes.append(ForwardPass(build_extractor("MobileNetV2", pictures.shape[1:], weights), engine))
        return passes[0](pictures)

    return embed, extractor_key("MobileNetV2", (0, 0), weights, "imagenet", engine)


def _kind(key: str, view: int | None) -> str:
    return f"features-{hash_of(key, view)}"
