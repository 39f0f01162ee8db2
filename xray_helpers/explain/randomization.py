"""The randomization test: whether a map changes when the weights are permuted (Adebayo et al. 2018)."""

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from xray_helpers.evaluation.intervals import grouped_mean
from xray_helpers.explain.gradcam import GradCam
from xray_helpers.explain.maps import is_flat, rank_agreement
from xray_helpers.models.graphs import weighted_layers
from xray_helpers.models.out_of_distribution import build_feature_model

if TYPE_CHECKING:
    import keras
PERMUTATIONS = 3  # one alone may leave the maps similar, or empty, by chance
PERMUTED = "permuted: "  # prefix of the method in the table of maps, before what was permuted
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
    """Permute the weights of more and more layers from the top, and compare the maps with the original ones.

    Each weight array keeps its values but not their order; the model is restored afterwards. A map that does
    not change shows the edges in the picture, not what was learned. Maps that are empty before or after
    permuting cannot be compared: they are counted, and left out of the correlation.

    Parameters
    ----------
    model : keras.Model
    cam : GradCam
        Grad-CAM of this model.
    pixels : ndarray of uint8, shape (n, height, width)
    group : sequence, shape (n,)
    seed : int
    permutations : int
        Number of repetitions; the correlation of an image is its mean over them.

    Returns
    -------
    sanity : DataFrame
        One row per stage: permuted (what), layers (how many), correlation, ci_low, ci_high (mean Spearman
        correlation with the original maps, and its 95 % interval over groups; missing where nothing can be
        compared), n (images compared), empty (images whose original map is empty), n_groups (of n),
        permutations, emptied (share of the other maps that are empty after permuting).
    permuted : dict
        Stage to the maps after its first permutation, float32 of shape (n, rows, columns).
    """
    weights, layers = model.get_weights(), weighted_layers(model)[::-1]
    backbone = set(weighted_layers(build_feature_model(model)))
    head = sum(layer not in backbone for layer in layers)
    stages = {"the head": head, "and the upper half": len(layers) // 2, "all layers": len(layers)}
    before, after = cam(pixels), {stage: [] for stage in stages}
    try:
        for number in range(permutations):
            rng, done = np.random.default_rng([seed, 7, number]), 0
            for stage, count in stages.items():
                _permute(layers[done:count], rng)
                done = max(done, count)
                after[stage].append(np.nan_to_num(cam(pixels), posinf=0))
            model.set_weights(weights)
    finally:
        model.set_weights(weights)
    counts = np.maximum.accumulate(list(stages.values()))
    rows = [
        {"permuted": stage, "layers": int(count)} | _compare(before, after[stage], group)
        for stage, count in zip(stages, counts, strict=True)
    ]
    return pd.DataFrame(rows, columns=list(SANITY_COLUMNS)), {stage: maps[0] for stage, maps in after.items()}


def _permute(layers: list["keras.layers.Layer"], rng: np.random.Generator) -> None:
    for layer in layers:
        layer.set_weights(
            [rng.permutation(w.ravel()).reshape(w.shape) if w.ndim else w for w in layer.get_weights()]
        )


def _compare(before: np.ndarray, after: list[np.ndarray], group: Any) -> dict[str, Any]:
    """Return the mean rank agreement over permutations and images, flat maps left out, and the counts."""
    full = ~is_flat(before)
    comparable = np.array([full & ~is_flat(maps) for maps in after])
    values = np.array([rank_agreement(before, maps) for maps in after])
    compared = comparable.any(axis=0)
    groups = np.asarray(group, dtype=object)[compared]
    counts = {
        "n": int(compared.sum()),
        "empty": int((~full).sum()),
        "n_groups": len(set(groups.tolist())),
        "permutations": len(after),
        "emptied": float(1 - comparable[:, full].mean()) if full.any() else np.nan,
    }
    if not compared.any():
        return {"correlation": None, "ci_low": None, "ci_high": None} | counts
    means = np.where(comparable, values, 0).sum(axis=0)[compared] / comparable.sum(axis=0)[compared]
    entry = grouped_mean(means, groups)
    return {"correlation": entry["value"], "ci_low": entry["ci_low"], "ci_high": entry["ci_high"]} | counts
