"""How well the label can be predicted without the anatomy: from properties of the files, or from the border.

A network can use any of these as a shortcut (Geirhos et al., Nature Machine Intelligence 2020; 2: 665). The
surface of an image is what can be measured without looking at bones: the size of the picture, how the file is
stored, how bright it is, what lies in its corners.
What follows from the scores is decided in `shortcut_verdicts`.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pandas as pd
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OrdinalEncoder
from threadpoolctl import threadpool_limits

from xray_helpers.data.parts import used_part
from xray_helpers.evaluation.metrics import compute_metrics
from xray_helpers.images.pixels import load_pixels
from xray_helpers.images.radiographs import ImageFolder, find_file, image_folder
from xray_helpers.models.backbones import get_backbone
from xray_helpers.models.features import extract_features, extractor_key, open_extractor
from xray_helpers.models.inference import ForwardPass, InferenceBackend
from xray_helpers.models.preprocessing import CORNER, keep_border
from xray_helpers.models.resampling import cross_validate
from xray_helpers.settings import SPLITS, Settings
from xray_helpers.study.seeds import derive_seed

if TYPE_CHECKING:
    import keras

_MAX_IMAGES = 10_000  # more would narrow the interval by less than 0.01
_SIDE = 256  # pixels per side at which grey levels are measured, as the search for same-source images caches
_BLACK = 8  # highest grey level (0-255) that counts as black
ALL = "all measures together"
FAMILIES = {
    "size": ("other_size", "width", "height", "aspect"),
    "storage": ("mode", "suffix", "bytes", "bytes_a_pixel"),
    "exposure": ("mean_grey", "black_share"),
    "corners": tuple(
        f"{place}_{what}"
        for place in ("upper_left", "upper_right", "lower_left", "lower_right")
        for what in ("mean", "brightest", "edges")
    ),
}
_CATEGORICAL = ("mode", "suffix")
_TITLES = {
    "size": "size and aspect ratio",
    "storage": "pixel mode, suffix and bytes",
    "exposure": "mean grey and black share",
    "corners": "the four corners",
    "mode": "pixel mode",
    "bytes": "bytes of the file",
    "bytes_a_pixel": "bytes per pixel",
}
_KEYS = ["path", "group", "y_true", "fold"]
_COLUMNS = ["measure", "kind", "words", "auroc", "low", "high", "n", "n_groups"]


def choose_measured(manifest: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """Return the used images of all parts, one per source; of more than 10,000 a random sample."""
    images = pd.concat([used_part(manifest, split) for split in SPLITS], ignore_index=True)
    if len(images) <= _MAX_IMAGES:
        return images
    sample = images.sample(_MAX_IMAGES, random_state=derive_seed(seed, "shortcuts"))
    return sample.sort_values("path", ignore_index=True)


def measure_surface(part: pd.DataFrame, folder: ImageFolder | Path) -> pd.DataFrame:
    """Measure properties of images that are not anatomy.

    Parameters
    ----------
    part : DataFrame
        Rows of the manifest: path, sha256, width, height, mode.
    folder : ImageFolder or Path
        Folder that the paths are relative to.

    Returns
    -------
    DataFrame
        One row per image, in the order of `part`: width, height (pixels), aspect (width / height), other_size
        (1 if it is not the commonest size of `part`), mode (how a pixel is stored), suffix (of the file name,
        lower case), bytes (of the file), bytes_a_pixel, mean_grey (0-255), black_share (of pixels, 0-1), and
        of each corner (a fifth of either side) its mean, its 99th percentile (brightest, 0-255) and its edges
        (mean absolute Laplacian). Grey levels are those of the picture at 256 x 256 pixels.
    """
    folder = image_folder(folder)
    width, height = (part[name].astype(float) for name in ("width", "height"))
    size = np.array([_file_size(folder, path) for path in part["path"]], float)
    stored = pd.DataFrame(
        {
            "width": width,
            "height": height,
            "aspect": width / height,
            "other_size": (_sizes(part) != commonest_size(part)).astype(float),
            "mode": part["mode"].astype(str),
            "suffix": [Path(path).suffix.lower() for path in part["path"]],
            "bytes": size,
            "bytes_a_pixel": size / (width * height),
        }
    ).reset_index(drop=True)
    if part.empty:
        return stored
    cached = folder._replace(depth="percentiles", resize="stretch")
    pictures = load_pixels(part, cached, (_SIDE, _SIDE))
    return stored.join(pd.DataFrame([_measure_grey(pictures[row]) for row in range(len(part))]))


def commonest_size(part: pd.DataFrame) -> str:
    """Return the most frequent size in a manifest as text, such as ``224 x 224`` (width x height)."""
    return str(_sizes(part).mode().iloc[0]) if len(part) else ""


def _sizes(part: pd.DataFrame) -> pd.Series:
    return part["width"].astype(int).astype(str) + " x " + part["height"].astype(int).astype(str)


def _file_size(folder: ImageFolder, path: str) -> float:
    file = Path(folder.places[path]) if folder.places else find_file(folder.path, path)
    return file.stat().st_size if file.exists() else np.nan


def _measure_grey(picture: np.ndarray) -> dict[str, float]:
    measures = {"mean_grey": float(picture.mean()), "black_share": float((picture <= _BLACK).mean())}
    edges = np.abs(cv2.Laplacian(picture, cv2.CV_32F))
    down, across = (round(CORNER * side) for side in picture.shape)
    for vertical, rows in (("upper", slice(None, down)), ("lower", slice(-down, None))):
        for side, columns in (("left", slice(None, across)), ("right", slice(-across, None))):
            corner = picture[rows, columns]
            measures |= {
                f"{vertical}_{side}_mean": float(corner.mean()),
                f"{vertical}_{side}_brightest": float(np.percentile(corner, 99)),
                f"{vertical}_{side}_edges": float(edges[rows, columns].mean()),
            }
    return measures


def predict_by_surface(surface: pd.DataFrame, table: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """Predict the label of every image out of fold from its surface.

    All measures together and each family of measures are used by boosted trees with four leaves. A single
    measure (corners apart) is used as it is, with the sign that fits the label in the other folds.

    Parameters
    ----------
    surface : DataFrame
        Result of `measure_surface`.
    table : DataFrame
        path, group, y_true, fold; the same rows.
    seed : int

    Returns
    -------
    DataFrame
        path, group, y_true, fold, and one column per set of measures and single measure: P(Fractured), or a
        rank between 0 and 1. Images are left out whose other folds hold one class only; no rows where fewer
        than two folds remain.
    """
    fold, y = table["fold"].to_numpy(int), table["y_true"].to_numpy(int)
    predicted = [number for number in np.unique(fold) if len(set(y[fold != number])) == 2]
    predicted = predicted if len(predicted) > 1 else []
    families, singles = _families(surface), _singles(surface)
    scores = pd.DataFrame(np.nan, index=range(len(y)), columns=[*families, *singles])
    with threadpool_limits(1):  # for so few rows, one thread is about twenty times faster than many
        for number in predicted:
            train, test = fold != number, fold == number
            for name, columns in families.items():
                model = _build_model(columns, derive_seed(seed, "surface", name))
                model.fit(surface[train], y[train])
                scores.loc[test, name] = model.predict_proba(surface[test])[:, 1]
            for name in singles:
                scores.loc[test, name] = _score_single(surface[name], y, train, test)
    scores[singles] = scores[singles].rank(pct=True)
    return table[_KEYS].reset_index(drop=True).join(scores)[np.isin(fold, predicted)].reset_index(drop=True)


def _families(surface: pd.DataFrame) -> dict[str, list[str]]:
    """Return the columns of each family that was measured, and of all of them together."""
    families = {
        name: [column for column in columns if column in surface] for name, columns in FAMILIES.items()
    }
    sets = {ALL: [column for columns in families.values() for column in columns]} | families
    return {name: columns for name, columns in sets.items() if columns}


def _singles(surface: pd.DataFrame) -> list[str]:
    families = [columns for name, columns in FAMILIES.items() if name != "corners"]
    return [column for columns in families for column in columns if column in surface]


def _build_model(columns: list[str], seed: int) -> Pipeline:
    categorical = [column for column in columns if column in _CATEGORICAL]
    numbers = [column for column in columns if column not in _CATEGORICAL]
    encode = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=np.nan, max_categories=30)
    trees = HistGradientBoostingClassifier(
        max_iter=60,
        max_leaf_nodes=4,
        min_samples_leaf=10,
        l2_regularization=1.0,
        early_stopping=False,
        class_weight="balanced",
        categorical_features=list(range(len(categorical))),
        random_state=seed,
    )
    return make_pipeline(make_column_transformer((encode, categorical), ("passthrough", numbers)), trees)


def _score_single(values: pd.Series, y: np.ndarray, train: np.ndarray, test: np.ndarray) -> np.ndarray:
    """Return scores that increase with the share of fractures seen in training.

    A number is used with the sign that fits there; a category is replaced by its smoothed share of fractures.
    """
    prevalence = y[train].mean()
    if values.name in _CATEGORICAL:
        known = pd.Series(y[train]).groupby(values[train].to_numpy()).agg(["sum", "size"])
        share = (known["sum"] + prevalence) / (known["size"] + 1)
        return values[test].map(share).fillna(prevalence).to_numpy(float) - prevalence
    numbers = values.fillna(values.median()).to_numpy(float)
    return numbers[test] * (1 if roc_auc_score(y[train], numbers[train]) >= 0.5 else -1)


def score_surface(scores: pd.DataFrame, common: str = "") -> pd.DataFrame:
    """Return the AUROC of each column of out-of-fold predictions from the surface: ``shortcuts.csv``.

    Parameters
    ----------
    scores : DataFrame
        Result of `predict_by_surface`.
    common : str
        Result of `commonest_size`.

    Returns
    -------
    DataFrame
        measure, kind (``all``, ``family`` or ``single``), words (what was measured, for a reader), auroc,
        low, high (95 %, grouped; missing where there are too few groups), n, n_groups; the highest AUROC of
        each kind first.
    """
    kinds = {ALL: "all"} | dict.fromkeys(FAMILIES, "family")
    defined = len(scores) and scores["y_true"].nunique() == 2
    rows = [
        {"measure": name, "kind": kinds.get(name, "single"), "words": _describe(name, common)}
        | score_auroc(scores.assign(y_prob=scores[name]))
        for name in (scores.columns.drop(_KEYS) if defined else ())
    ]
    table = pd.DataFrame(rows, columns=_COLUMNS)
    return table.sort_values(["kind", "auroc"], ascending=[True, False], ignore_index=True)


def score_auroc(predictions: pd.DataFrame) -> dict[str, Any]:
    """Return auroc, low, high (not-a-number where missing), n and n_groups of predictions."""
    y_true, y_prob, group = (predictions[name] for name in ("y_true", "y_prob", "group"))
    entry = compute_metrics(y_true, y_prob, 0.5, group)["auroc"]
    ends = (("auroc", "value"), ("low", "ci_low"), ("high", "ci_high"))
    scores = {name: np.nan if entry[key] is None else float(entry[key]) for name, key in ends}
    return scores | {"n": len(predictions), "n_groups": group.nunique()}


def _describe(name: str, common: str) -> str:
    if name == "other_size":
        return f"file is not {common or 'of the commonest size'}"
    return _TITLES.get(name, name).replace("_", " ")


def list_views(settings: Settings) -> list[Settings]:
    """Return settings for each kind of features that a study needs: its own, and border and corners alone."""
    wanted = settings.shortcuts == "on" and settings.border == "keep" and settings.repeats > 0
    return [settings, settings.model_copy(update={"border": "only"})] if wanted else [settings]


class _BorderOnly:
    """A forward pass that is shown border and corners alone."""

    def __init__(self, forward: ForwardPass) -> None:
        self._forward = forward

    def __getattr__(self, name: str) -> Any:
        return getattr(self._forward, name)

    def submit(self, pictures: np.ndarray, *where: np.ndarray) -> None:
        self._forward.submit(keep_border(pictures), *where)


def predict_border(
    model: str,
    settings: Settings,
    weights: str,
    engine: InferenceBackend,
    folder: ImageFolder,
    table: pd.DataFrame,
    schedule: Sequence[float] | None = None,
    head: "keras.Model | None" = None,
    forward: ForwardPass | None = None,
) -> pd.DataFrame:
    """Predict every image out of fold by heads that were trained on border and corners alone.

    This takes one forward pass over the images; the features are cached like those of whole pictures.

    Parameters
    ----------
    model, settings, weights, engine, folder
        See `features.open_extractor`.
    table : DataFrame
        Rows of the manifest, as for `resampling.cross_validate`.
    schedule, head : optional
        The learning rates and the head of whole pictures, so that both are comparable; see
        `resampling.cross_validate`.
    forward : ForwardPass, optional
        Of whole pictures by the same backbone, which then need not be built and converted again.

    Returns
    -------
    DataFrame
        As from `resampling.cross_validate`; no rows with ``shortcuts = off``, ``repeats = 0``, or a border
        that is not kept, as such a study is a control itself.
    """
    *_, view = list_views(settings)
    if view is settings:
        return table[["path", "group", "y_true"]].head(0).assign(y_prob=np.empty(0), fold=np.empty(0, int))
    if forward is None:
        _, forward, key = open_extractor(model, view, weights, engine, folder)
    else:
        own = (settings.img_size, weights, settings.normalization, engine, "only", folder)
        forward, key = _BorderOnly(forward), extractor_key(get_backbone(model, settings), *own)
    features = extract_features(table, folder, forward, key)[0]
    return cross_validate([features], table, view, schedule, head)
