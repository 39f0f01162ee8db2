"""The randomization test: whether a map changes when the weights are permuted (Adebayo et al. 2018)."""

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from xray_helpers.evaluation.intervals import grouped_mean
from xray_helpers.explain.gradcam import GradCam
from xray_helpers.explain.maps import is_flat, rank_agreement

if TYPE_CHECKING:
    import keras
PERMUTATIONS = 3  # of the weights: one alone may leave the maps alike, or empty, by chance
PERMUTED = "permuted: "  # before what was permuted, a method of the table of maps
SANITY_COLUMNS = (
    "permuted",
    "layers",
    "correlation",
    "ci_low",
    "ci_high",
    "n",
    "empty",
    "n_groups",
    "permutations",
    "emptied",
)


def randomization_test(
    model: "keras.Model",
    cam: GradCam,
    pixels: np.ndarray,
    group: Any,
    seed: int = 0,
    permutations: int = PERMUTATIONS,
) -> tuple[pd.DataFrame, dict[str, np.ndarray]]:
    """Permute the weights of more and more layers from the top, and compare the maps with those of the model.

    Each weight array keeps its values and loses their order; the model is as before afterwards. A map that
    stays the same shows the picture's edges, not what was learned. An empty map shows nothing that could
    change, and one that is empty afterwards nothing that could be compared: either is left out and counted,
    and counts for no correlation.

    Parameters
    ----------
    model : keras.Model
    cam : GradCam
        Of it.
    pixels : ndarray of uint8, shape (n, height, width)
    group : sequence, shape (n,)
    seed : int
    permutations : int
        How often it is done, each time in another order; an image's correlation is its mean over them.

    Returns
    -------
    sanity : DataFrame
        permuted (what), layers (how many), correlation, ci_low, ci_high (mean Spearman correlation with the
        maps of the model as it is, and its 95 % interval over groups; missing where there is nothing to
        compare), n (images compared), empty (left out because there is nothing in their map), n_groups (of
        n), permutations, emptied (share of the maps after permuting that are empty, of those with something
        in them before).
    after : dict
        What was permuted to the maps after it the first time, float32 of shape (n, rows, columns).
    """
    kept, layers = model.get_weights(), [layer for layer in reversed(model.layers) if layer.weights]
    head = [layer for layer in layers if layer.name in ("p_fractured", "dense")]
    stages = {"the head": len(head), "and the upper half": len(layers) // 2, "all layers": len(layers)}
    before, found = cam(pixels), {name: [] for name in stages}
    try:
        for number in range(permutations):
            rng, done = np.random.default_rng([seed, 7, number]), 0
            for name, count in stages.items():
                _permute(layers[done:count], rng)
                done = max(done, count)
                found[name].append(np.nan_to_num(cam(pixels), posinf=0))
            model.set_weights(kept)
    finally:
        model.set_weights(kept)
    rows, at = [], 0
    for name, count in stages.items():
        at = max(at, count)
        rows.append({"permuted": name, "layers": at} | _compare_permuted(before, found[name], group))
    return pd.DataFrame(rows)[list(SANITY_COLUMNS)], {name: each[0] for name, each in found.items()}


def _permute(layers: list["keras.layers.Layer"], rng: np.random.Generator) -> None:
    for layer in layers:
        layer.set_weights(
            [rng.permutation(w.ravel()).reshape(w.shape) if w.ndim else w for w in layer.get_weights()]
        )


def _compare_permuted(before: np.ndarray, after: list[np.ndarray], group: Any) -> dict[str, Any]:
    """Return the mean over permutations of each image's rank agreement, flat maps apart, and over images with
    interval.
    """
    full = ~is_flat(before)
    told = np.array([full & ~is_flat(maps) for maps in after])
    values = np.array([rank_agreement(before, maps) for maps in after])
    compared = told.any(axis=0)
    names = np.asarray(group, dtype=object)[compared]
    counts = {
        "n": int(compared.sum()),
        "empty": int((~full).sum()),
        "n_groups": len(set(names.tolist())),
        "permutations": len(after),
        "emptied": float(1 - told[:, full].mean()) if full.any() else np.nan,
    }
    if not compared.any():
        return {"correlation": None, "ci_low": None, "ci_high": None} | counts
    means = np.where(told, values, 0).sum(axis=0)[compared] / told.sum(axis=0)[compared]
    entry = grouped_mean(means, names)
    return {"correlation": entry["value"], "ci_low": entry["ci_low"], "ci_high": entry["ci_high"]} | counts
