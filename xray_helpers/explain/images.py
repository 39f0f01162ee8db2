"""The maps of a model for the images of a study: which images, and what is computed of each."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from xray_helpers.explain.gradcam import GradCam, occlude
from xray_helpers.explain.maps import build_maps, is_flat
from xray_helpers.explain.randomization import PERMUTED, SANITY_COLUMNS, randomization_test

if TYPE_CHECKING:
    import keras
OCCLUDED = 8  # images of which there is an occlusion map too, at most
CONTROLLED = 16  # images on which weights are permuted, as far as there are maps with anything in them
_LEAST = 4  # occlusion maps at least, where there are so many images: as many as are shown


def choose_images(part: pd.DataFrame, count: int, seed: int) -> pd.DataFrame:
    """Return at most `count` rows drawn at random, as far as can be half of them fractured, in no particular
    order.
    """
    shuffled = part.sample(frac=1, random_state=seed)
    turn = shuffled.groupby("y_true").cumcount()
    return shuffled.iloc[np.argsort(turn.to_numpy(), kind="stable")[:count]].reset_index(drop=True)


def explain_images(
    model: "keras.Model",
    predict: Callable[[np.ndarray], np.ndarray],
    part: pd.DataFrame,
    load: Callable[[pd.DataFrame], Any],
    seed: int = 0,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Make the maps of images, and look whether they follow the weights.

    Parameters
    ----------
    model : keras.Model
        Of `head.load_model`.
    predict : callable
        As for `occlude`; the same model, by the fastest way.
    part : DataFrame
        Rows of the manifest. Of all there is a Grad-CAM map; on the first `CONTROLLED` whose map is not
        empty, as far as there are so many, weights are permuted, and of at most `OCCLUDED` of them, or of a
        twelfth of all (at least 4) where there are few, there is an occlusion map as well, which takes
        longer.
    load : callable
        Of such rows, uint8 pictures (n, height, width).
    seed : int

    Returns
    -------
    maps, sanity : DataFrame
        Of `build_maps`, methods Grad-CAM, occlusion, and `PERMUTED` with what was permuted; and of
        `randomization_test`. Both without rows where `part` has none.
    """
    if part.empty:
        return build_maps([], "Grad-CAM", np.zeros((0, 1, 1)), (1, 1)), pd.DataFrame(columns=SANITY_COLUMNS)
    pictures, cam = load(part), GradCam(model)
    few, maps = min(OCCLUDED, max(_LEAST, len(part) // 12), len(part)), cam(pictures)
    at = np.sort(
        np.argsort(is_flat(maps), kind="stable")[:CONTROLLED]
    )  # empty maps have nothing that could change
    first, paths, group = np.asarray(pictures[at]), part["path"].iloc[at], part["group"].iloc[at]
    sanity, after = randomization_test(model, cam, first, group, seed)
    made = [(part["path"], "Grad-CAM", maps), (paths[:few], "occlusion", occlude(predict, first[:few]))]
    made += [(paths, PERMUTED + name, grids) for name, grids in after.items()]
    return pd.concat([build_maps(*each, first.shape[1:]) for each in made], ignore_index=True), sanity
