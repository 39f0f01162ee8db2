"""Features of the frozen backbone: one forward pass per image and view, cached on disk."""

from collections.abc import Callable
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from xray_helpers.data.manifest import data_folder
from xray_helpers.data.parts import used_part
from xray_helpers.images.pixels import VERSION as PIXELS_VERSION
from xray_helpers.images.pixels import augment, stream_pixels, unique_contents
from xray_helpers.images.radiographs import ImageFolder
from xray_helpers.models.backbones import Backbone, get_backbone
from xray_helpers.models.inference import ForwardPass, InferenceBackend, study_backend
from xray_helpers.models.quantization import load_calibration
from xray_helpers.settings import SPLITS, InputError, Settings
from xray_helpers.study.cache import RowView, cache_folder, compute_lock, new_rows, read_rows
from xray_helpers.study.files import hash_of, read_json, write_json
from xray_helpers.study.folders import local_path, with_local_sources
from xray_helpers.study.progress import progress
from xray_helpers.study.seeds import derive_seed

if TYPE_CHECKING:
    import keras
_VERSION = 4  # part of every key: raise it when the same inputs would give other features


def extractor_key(
    backbone: Backbone,
    img_size: tuple[int, int],
    weights: str,
    normalization: str,
    backend: InferenceBackend,
    border: str = "keep",
    folder: ImageFolder | None = None,
) -> str:
    """Return a hash of everything about the frozen backbone that changes its features."""
    identity = backbone.identify_weights(weights)
    how = folder.how if folder else ()
    return hash_of(
        *(
            "extractor",
            _VERSION,
            backbone.name,
            img_size,
            identity,
            normalization,
            backend,
            border,
            PIXELS_VERSION,
        ),
        *how,
    )


def open_extractor(
    model: str, settings: Settings, weights: str, backend: InferenceBackend, folder: ImageFolder
) -> tuple["keras.Model", ForwardPass, str]:
    """Return the frozen backbone of a study, its forward pass, and the key under which features are cached.

    Parameters
    ----------
    model : str
    settings : Settings
        With the places of its sources on this machine.
    weights : str
        Result of `backbones.resolve_weights`.
    backend : InferenceBackend
    folder : ImageFolder
        How pictures are read.
    """
    options = (settings.img_size, weights, settings.normalization)
    backbone = get_backbone(model, settings)
    extractor, _ = backbone.build(*options, settings.border)
    key = extractor_key(backbone, *options, backend, settings.border, folder)
    calibration = load_calibration(backend.calibration, folder, settings.img_size)
    return extractor, ForwardPass(extractor, backend, calibration), key


def extract_features(
    part: pd.DataFrame,
    folder: Path,
    forward: ForwardPass,
    key: str,
    views: int = 0,
    *,
    shard: bool = False,
    kind: str = "features",
    dtype: type = np.float32,
) -> list[RowView]:
    """Run the frozen backbone once for each picture, and once for each augmented view of it.

    What is cached is not computed again, whichever split or subset it was computed for. Pictures are decoded
    in the meantime if they are not cached either.

    Parameters
    ----------
    part : DataFrame
        Columns path and sha256, one row per picture.
    folder : ImageFolder or Path
        What the paths are relative to.
    forward : ForwardPass
    key : str
        Result of `extractor_key`.
    views : int
        Number of augmented views of each picture.
    shard : bool
        Whether other processes compute other pictures with this key at the same time; otherwise they are
        waited for, and their results are used.
    kind : str
        How the cache calls them.
    dtype : type
        In which they are kept.

    Returns
    -------
    list of RowView of `dtype`, shape (n, d)
        Memory-mapped: the pictures as they are, then each view of them.
    """
    kinds = {_cache_kind(key, view, kind): view for view in (None, *range(views))}
    with compute_lock(f"{kind}-{hash_of(key, sorted(part['sha256']) if shard else '')}"):
        while None in (found := {kind: read_rows(kind, part["sha256"]) for kind in kinds}).values():
            missing = {kind: view for kind, view in kinds.items() if found[kind] is None}
            _compute(unique_contents(part), folder, forward, key, missing, dtype)
    return list(found.values())


def _compute(
    contents: pd.DataFrame,
    folder: Path,
    forward: ForwardPass,
    key: str,
    kinds: dict[str, int | None],
    dtype: type = np.float32,
) -> None:
    """Fill the arrays of several views in one pass over the pictures that any of them lacks."""
    hashes = contents["sha256"].to_numpy()
    shape = (forward.features,)
    with ExitStack() as stack:
        arrays = [stack.enter_context(new_rows(kind, hashes, shape, dtype)) for kind in kinds]
        lacking = [np.isin(np.arange(len(hashes)), missing) for _, missing in arrays]
        rows = np.flatnonzero(np.any(lacking, axis=0))
        total = int(np.sum(lacking))
        bar = progress(total=total, desc="features", mininterval=1, leave=False, unit="image")
        stack.enter_context(bar)
        done = 0
        for pictures in stream_pixels(contents.iloc[rows], folder, forward.shape):
            at = rows[done : done + len(pictures)]
            done += len(pictures)
            for view, (store, _), lacks in zip(kinds.values(), arrays, lacking, strict=True):
                needed = lacks[at]
                if needed.any():
                    chunk = pictures[needed]
                    chunk = chunk if view is None else augment(chunk, hashes[at[needed]], view)
                    forward.submit(chunk, store, at[needed])
                    bar.update(len(chunk))
        forward.wait()
    if forward.started:
        write_json(cache_folder() / f"engine-{key}.json", forward.record())


def load_features(part: pd.DataFrame, key: str) -> RowView | None:
    """Return the cached features of the pictures as they are, float32 (n, d), or None; without TensorFlow."""
    return read_rows(_cache_kind(key, None), part["sha256"])


def backend_record(key: str) -> dict:
    """Return ``ForwardPass.record`` of the features with this key, or an empty dictionary."""
    return read_json(cache_folder() / f"engine-{key}.json", default={})


def load_study_features(
    study: Path, model: str, manifest: pd.DataFrame, most: int | None = None, seed: int = 0
) -> tuple[np.ndarray, pd.DataFrame]:
    """Return the features (n, d) that a trained model of a study received, and the rows of all images used.

    Features that are no longer cached are computed again. Both results are empty if that is impossible: the
    weights are gone, or the model was trained by hand with other parameters than the study's.

    Parameters
    ----------
    study : Path
    model : str
    manifest : DataFrame
    most : int, optional
        Number of images to draw, for large studies: the features of 100,000 images take 0.8 GB.
    seed : int
        Seed for drawing.
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
    settings = with_local_sources(study, Settings(**read_json(study / "study.json")["settings"]))
    folder = data_folder(study)
    weights = local_path(study, "weights", settings.weights)
    backend = study_backend(study, settings, len(manifest))
    _, forward, current_key = open_extractor(model, settings, weights, backend, folder)
    if current_key != key:
        raise InputError(f"{model} was trained with other parameters than those of the study.")
    return [extract_features(part, folder, forward, key)[0] for part in parts]


def build_embedder(
    weights: str | None, backend: InferenceBackend
) -> tuple[Callable[[np.ndarray], np.ndarray] | None, str]:
    """Return the embedder for `search.find_same_source` and its key; (None, "") without weights.

    The network is built at the first call: if all signatures are cached, TensorFlow is never imported.
    """
    if weights is None:
        return None, ""
    passes: list[ForwardPass] = []

    def embed(pictures: np.ndarray) -> np.ndarray:
        if not passes:
            network, _ = get_backbone("MobileNetV2").build(pictures.shape[1:], weights)
            passes.append(ForwardPass(network, backend))
        return passes[0](pictures)

    return embed, extractor_key(get_backbone("MobileNetV2"), (0, 0), weights, "imagenet", backend)


def _cache_kind(key: str, view: int | None, kind: str = "features") -> str:
    return f"{kind}-{hash_of(key, view)}"
