"""Which images are explained, all maps that a model gets, and the examples that a report shows of them."""

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from xray_helpers.data.manifest import read_pictures
from xray_helpers.evaluation.class_predictions import positive_probability
from xray_helpers.explain.gradcam import GradCam, occlude
from xray_helpers.explain.maps import build_maps, is_flat, read_maps
from xray_helpers.explain.randomization import PERMUTED, SANITY_COLUMNS, randomization_test
from xray_helpers.images.pixels import resize
from xray_helpers.images.radiographs import ImageFolder

if TYPE_CHECKING:
    import keras
_CONTROLLED = 16  # images with a map on which weights are permuted, at most
_OCCLUDED = 8  # images that also get an occlusion map, at most
_MIN_OCCLUDED = 4  # and at least, as this many are shown


def choose_images(part: pd.DataFrame, count: int, seed: int) -> pd.DataFrame:
    """Draw at most `count` rows at random, half of them fractured where possible."""
    return _alternate_classes(part.sample(frac=1, random_state=seed), count)


def _alternate_classes(rows: pd.DataFrame, count: int) -> pd.DataFrame:
    """Return the first `count` rows with the classes in turn."""
    turn = rows.groupby("y_true").cumcount()
    return rows.iloc[np.argsort(turn.to_numpy(), kind="stable")[:count]].reset_index(drop=True)


def explain_images(
    model: "keras.Model",
    predict: Callable[[np.ndarray], np.ndarray],
    part: pd.DataFrame,
    load: Callable[[pd.DataFrame], Any],
    seed: int = 0,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Compute the maps of images, and test whether they depend on the weights.

    Every image gets a Grad-CAM map. The weights are permuted for the first 16 images whose map is not empty
    (or for others, if there are fewer). Up to 8 of these, or a twelfth of all images but at least 4, also get
    an occlusion map, which takes longer.

    Parameters
    ----------
    model : keras.Model
        Result of `saved.load_model`.
    predict : callable
        See `occlude`; the same model, computed in the fastest way. Of k classes it returns all.
    part : DataFrame
        Rows of the manifest.
    load : callable
        Takes rows of the manifest, returns uint8 pictures (n, height, width).
    seed : int

    Returns
    -------
    maps : DataFrame
        Result of `build_maps` with methods Grad-CAM, occlusion, and `PERMUTED` followed by what was permuted.
    sanity : DataFrame
        Result of `randomization_test`. Both are empty if `part` is.
    """
    if part.empty:
        return build_maps([], "Grad-CAM", np.zeros((0, 1, 1)), (1, 1)), pd.DataFrame(columns=SANITY_COLUMNS)
    pictures, cam = load(part), GradCam(model)
    maps = cam(pictures)
    controlled = np.sort(np.argsort(is_flat(maps), kind="stable")[:_CONTROLLED])  # those not empty first
    first, rows = np.asarray(pictures[controlled]), part.iloc[controlled]
    sanity, permuted = randomization_test(model, cam, first, rows["group"], seed)

    def ask(pixels: np.ndarray) -> np.ndarray:
        return positive_probability(predict(pixels))

    count = min(_OCCLUDED, max(_MIN_OCCLUDED, len(part) // 12), len(part))
    tables = [
        (part["path"], "Grad-CAM", maps),
        (rows["path"][:count], "occlusion", occlude(ask, first[:count])),
        *((rows["path"], PERMUTED + name, grids) for name, grids in permuted.items()),
    ]
    return pd.concat([build_maps(*each, first.shape[1:]) for each in tables], ignore_index=True), sanity


def choose_examples(test: pd.DataFrame, maps: Collection[str], count: int) -> pd.DataFrame:
    """Return at most `count` predictions that have maps, the classes in turn, one per group."""
    return _alternate_classes(test[test["path"].isin(maps)].drop_duplicates("group"), count)


def choose_controls(
    test: pd.DataFrame, table: pd.DataFrame, count: int = 4
) -> tuple[pd.DataFrame, dict[str, list]]:
    """Return at most `count` predictions whose images have maps of all kinds, and these maps.

    Parameters
    ----------
    test : DataFrame
        Predictions.
    table : DataFrame
        ``maps.csv``.
    count : int

    Returns
    -------
    rows : DataFrame
        As from `choose_examples`.
    maps : dict
        Kind of map (Grad-CAM, occlusion, the head permuted, all layers permuted) to the maps of `rows`.
    """
    methods = {
        "Grad-CAM": "Grad-CAM",
        "occlusion": "occlusion",
        "the head permuted": f"{PERMUTED}the head",
        "all layers permuted": f"{PERMUTED}all layers",
    }
    by_kind = {kind: read_maps(table, method) for kind, method in methods.items()}
    complete = set.intersection(*(set(maps) for maps in by_kind.values()))
    rows = choose_examples(test, complete, count)
    return rows, {kind: [maps[path] for path in rows["path"]] for kind, maps in by_kind.items()}


def load_examples(rows: pd.DataFrame, folder: ImageFolder, frame: tuple[int, int]) -> list[np.ndarray]:
    """Return the pictures of predictions at the size `frame` of `localization.display_size`, uint8."""
    return [resize(picture, frame, folder.resize) for picture in read_pictures(rows["path"], folder)]
