"""Could a score come from anything but anatomy? What files and borders alone tell of the label, out of fold.

A network can take any of it for a shortcut (Geirhos et al., Nature Machine Intelligence 2020; 2: 665). What
is measured here knows nothing of bones: how large a file's picture is, how it is stored, how bright it is,
what lies in its corners.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

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
from xray_helpers.models.features import extract_features, open_extractor
from xray_helpers.models.inference import InferenceBackend
from xray_helpers.models.resampling import cross_validate
from xray_helpers.settings import SPLITS, Settings
from xray_helpers.study.seeds import derive_seed

# pixels at which grey levels are measured: those of the search for same-source images, which are cached
_SIDE = 256
_CORNER = 0.2  # share of the side, as of `backbones.CORNER`
_BLACK = 8  # grey level, 0-255, up to which a pixel is black
_MOST = 10_000  # images measured; more narrow the interval by less than 0.01
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
_WORDS = ("mode", "suffix")  # measures that are no numbers
_WORDED = {
    "size": "size and aspect ratio",
    "storage": "pixel mode, suffix and bytes",
    "exposure": "mean grey and black share",
    "corners": "the four corners",
    "mode": "pixel mode",
    "bytes": "bytes of the file",
    "bytes_a_pixel": "bytes a pixel",
}
_COLUMNS = ("measure", "kind", "words", "auroc", "low", "high", "n", "n_groups")


def choose_measured(manifest: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """Return the images that are judged, of all parts, one a source; at most 10,000, drawn at random."""
    every = pd.concat([used_part(manifest, split) for split in SPLITS], ignore_index=True)
    if len(every) > _MOST:
        every = every.sample(_MOST, random_state=derive_seed(seed, "shortcuts")).sort_values(
            "path", ignore_index=True
        )
    return every


def measure_surface(part: pd.DataFrame, folder: ImageFolder | Path) -> pd.DataFrame:
    """Measure of each image what is no anatomy.

    Parameters
    ----------
    part : DataFrame
        Rows of the manifest: path, sha256, width, height, mode.
    folder : ImageFolder or Path
        What the paths are relative to.

    Returns
    -------
    DataFrame
        A row an image, in the order of `part`: width, height (pixels), aspect (width by height), other_size
        (1 where it is not the commonest size of `part`), mode (how a pixel is stored), suffix (of the file's
        name, lower case), bytes (on disk), bytes_a_pixel, mean_grey (0-255), black_share (of pixels, 0-1),
        and of each corner (a fifth of either side) its mean, its brightest percent (0-255) and its edges
        (mean absolute Laplacian). Grey levels are those of the picture at 256 x 256 pixels.
    """
    folder = image_folder(folder)
    width, height = (part[name].astype(float) for name in ("width", "height"))
    size = _sizes(part)
    disk = np.array([_bytes_of(folder, path) for path in part["path"]], float)
    stored = pd.DataFrame(
        {
            "width": width,
            "height": height,
            "aspect": width / height,
            "other_size": (size != commonest_size(part)).astype(float),
            "mode": part["mode"].astype(str),
            "suffix": [Path(path).suffix.lower() for path in part["path"]],
            "bytes": disk,
            "bytes_a_pixel": disk / (width * height),
        }
    ).reset_index(drop=True)
    if part.empty:
        return stored
    plain = folder._replace(
        depth="percentiles", resize="stretch"
    )  # as the search for same-source images caches them
    pictures = load_pixels(part, plain, (_SIDE, _SIDE))
    return stored.join(pd.DataFrame([_measure_grey(pictures[row]) for row in range(len(part))]))


def commonest_size(part: pd.DataFrame) -> str:
    """Return the size that most of a manifest's rows have, such as ``224 x 224`` (width x height)."""
    return str(_sizes(part).mode().iloc[0]) if len(part) else ""


def _sizes(part: pd.DataFrame) -> pd.Series:
    return part["width"].astype(int).astype(str) + " x " + part["height"].astype(int).astype(str)


def _bytes_of(folder: ImageFolder, path: str) -> float:
    place = Path(folder.places[path]) if folder.places else find_file(folder.path, path)
    return place.stat().st_size if place.exists() else np.nan


def _measure_grey(picture: np.ndarray) -> dict[str, float]:
    found = {"mean_grey": float(picture.mean()), "black_share": float((picture <= _BLACK).mean())}
    edges = np.abs(cv2.Laplacian(picture, cv2.CV_32F))
    down, across = (round(_CORNER * side) for side in picture.shape)
    for vertical, rows in (("upper", slice(None, down)), ("lower", slice(-down, None))):
        for side, columns in (("left", slice(None, across)), ("right", slice(-across, None))):
            corner = picture[rows, columns]
            found |= {
                f"{vertical}_{side}_mean": float(corner.mean()),
                f"{vertical}_{side}_brightest": float(np.percentile(corner, 99)),
                f"{vertical}_{side}_edges": float(edges[rows, columns].mean()),
            }
    return found


def predict_by_surface(surface: pd.DataFrame, table: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """Predict every image from measures of its surface by trees that saw neither it nor its group.

    Each fold is predicted by what the others taught: for all measures together and for each family of them
    boosted trees of four leaves, for single measures the measure itself, in the direction in which it tells
    the label there.

    Parameters
    ----------
    surface : DataFrame
        Of `measure_surface`.
    table : DataFrame
        path, group, y_true, fold; the same rows.
    seed : int

    Returns
    -------
    DataFrame
        path, group, y_true, fold, then a column a family and measure: P(Fractured), or a rank between 0 and
        1. No row where there are fewer than two folds with both classes outside.
    """
    fold, y = table["fold"].to_numpy(int), table["y_true"].to_numpy(int)
    judged = [at for at in np.unique(fold) if len(set(y[fold != at])) == 2]
    kept = np.isin(fold, judged) if len(judged) > 1 else np.zeros(len(y), bool)
    found = {name: np.full(len(y), np.nan) for name, _ in _list_measures(surface)}
    singles = {name for name, kind in _list_measures(surface) if kind == "single"}
    with threadpool_limits(
        1
    ):  # of so few rows threads wait for each other twenty times longer than they compute
        for at in judged if kept.any() else []:
            train, test = fold != at, fold == at
            for name, columns in _families(surface).items():
                model = _build_model(columns, derive_seed(seed, "surface", name)).fit(
                    surface[train], y[train]
                )
                found[name][test] = model.predict_proba(surface[test])[:, 1]
            for name in singles:
                found[name][test] = _score_single(surface[name], y, train, test)
    ranked = {name: _rank(values) if name in singles else values for name, values in found.items()}
    whole = table[["path", "group", "y_true", "fold"]].reset_index(drop=True).assign(**ranked)
    return whole[kept].reset_index(drop=True)


def _families(surface: pd.DataFrame) -> dict[str, list[str]]:
    by_name = {
        name: [column for column in columns if column in surface] for name, columns in FAMILIES.items()
    }
    every = {ALL: [column for columns in by_name.values() for column in columns]} | by_name
    return {name: columns for name, columns in every.items() if columns}


def _list_measures(surface: pd.DataFrame) -> list[tuple[str, str]]:
    """Return the rows of the table: all together, families, and single measures but for those of the
    corners.
    """
    kinds = {name: "all" if name == ALL else "family" for name in _families(surface)}
    singles = [column for name, columns in FAMILIES.items() if name != "corners" for column in columns]
    return [*kinds.items(), *((column, "single") for column in singles if column in surface)]


def _build_model(columns: list[str], seed: int) -> Pipeline:
    words = [column for column in columns if column in _WORDS]
    numbers = [column for column in columns if column not in _WORDS]
    encode = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=np.nan, max_categories=30)
    trees = HistGradientBoostingClassifier(
        max_iter=60,
        max_leaf_nodes=4,
        min_samples_leaf=10,
        l2_regularization=1.0,
        early_stopping=False,
        class_weight="balanced",
        categorical_features=list(range(len(words))),
        random_state=seed,
    )
    return make_pipeline(make_column_transformer((encode, words), ("passthrough", numbers)), trees)


def _score_single(values: pd.Series, y: np.ndarray, train: np.ndarray, test: np.ndarray) -> np.ndarray:
    """Return a measure so signed that more of it means Fractured outside this fold; of words the share of
    fractures there.
    """
    if values.name in _WORDS:
        known = pd.Series(y[train]).groupby(values[train].to_numpy()).agg(["sum", "size"])
        share = (known["sum"] + y[train].mean()) / (known["size"] + 1)
        return values[test].map(share).fillna(y[train].mean()).to_numpy(float) - y[train].mean()
    numbers = values.fillna(values.median()).to_numpy(float)
    return numbers[test] * (1 if roc_auc_score(y[train], numbers[train]) >= 0.5 else -1)


def _rank(values: np.ndarray) -> np.ndarray:
    """Return values as ranks between 0 and 1, equal ones alike."""
    return pd.Series(values).rank(pct=True).to_numpy()


def evaluate_surface(scores: pd.DataFrame, common: str = "") -> pd.DataFrame:
    """Return how well each family and measure tells the label out of fold: ``shortcuts.csv``.

    Parameters
    ----------
    scores : DataFrame
        Of `predict_by_surface`.
    common : str
        Of `commonest_size`.

    Returns
    -------
    DataFrame
        measure, kind (``all``, ``family`` or ``single``), words (what was measured, for a reader), auroc,
        low, high (95 %, groups together; missing where there are too few), n, n_groups; the strongest of each
        kind first.
    """
    names = [name for name in scores.columns if name not in ("path", "group", "y_true", "fold")]
    families, rows = {ALL: "all"} | dict.fromkeys(FAMILIES, "family"), []
    for name in names if len(scores) and scores["y_true"].nunique() == 2 else []:
        entry = compute_metrics(scores["y_true"], scores[name], 0.5, scores["group"])["auroc"]
        rows.append(
            {"measure": name, "kind": families.get(name, "single"), "words": _describe(name, common)}
            | flat_auroc(entry)
            | {"n": len(scores), "n_groups": scores["group"].nunique()}
        )
    table = pd.DataFrame(rows, columns=list(_COLUMNS))
    order = table["kind"].map({"all": 0, "family": 1, "single": 2})
    ordered = table.assign(order=order).sort_values(
        ["order", "auroc"], ascending=[True, False], kind="stable"
    )
    return ordered.drop(columns="order").reset_index(drop=True)


def _describe(name: str, common: str) -> str:
    if name == "other_size":
        return f"file is not {common or 'of the commonest size'}"
    return _WORDED.get(name, name).replace("_", " ")


def flat_auroc(entry: dict[str, Any]) -> dict[str, float]:
    """Return the value of an entry and its interval as auroc, low and high; missing ones as not-a-number."""
    ends = (("auroc", "value"), ("low", "ci_low"), ("high", "ci_high"))
    return {name: np.nan if entry[key] is None else float(entry[key]) for name, key in ends}


def list_views(settings: Settings) -> list[Settings]:
    """Return the settings of each kind of picture whose features a study needs: its own, and border and
    corners alone.
    """
    wanted = settings.shortcuts == "on" and settings.border == "keep" and settings.repeats > 0
    return [settings, settings.model_copy(update={"border": "only"})] if wanted else [settings]


def predict_border(
    model: str,
    settings: Settings,
    weights: str,
    engine: InferenceBackend,
    folder: ImageFolder,
    table: pd.DataFrame,
    schedule: Sequence[float] | None = None,
) -> pd.DataFrame:
    """Predict every image out of fold by heads that were taught border and corners alone.

    It takes one forward pass over the images, whose features are cached as those of whole pictures are.

    Parameters
    ----------
    model, settings, weights, engine, folder
        As for `features.open_extractor`.
    table : DataFrame
        Rows of the manifest as for `resampling.cross_validate`.
    schedule : sequence of float, optional
        As the heads of the whole picture were trained by, so that both are comparable.

    Returns
    -------
    DataFrame
        As of `resampling.cross_validate`; no row with ``shortcuts = off``, ``repeats = 0`` or a border that
        is not kept, as such a study is a control itself.
    """
    for view in list_views(settings)[1:]:
        _, forward, key = open_extractor(model, view, weights, engine, folder)
        features = extract_features(table, folder, forward, key)[0]
        return cross_validate([features], table, view, schedule)
    return table[["path", "group", "y_true"]].head(0).assign(y_prob=np.empty(0), fold=np.empty(0, int))
