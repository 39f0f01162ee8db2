"""How much of a map lies on the fractures, beside what knows nothing of the image."""

from typing import Any

import numpy as np
import pandas as pd

from xray_helpers.evaluation.intervals import grouped_mean, grouped_proportion
from xray_helpers.explain.maps import scale_map

_BLOB = 0.2  # standard deviation of the centred blob, as a share of the side
_PLACES = [
    "map",
    "hit",
    "hit_low",
    "hit_high",
    "energy",
    "energy_low",
    "energy_high",
    "n",
    "n_groups",
    "area",
    "over_area",
    "over_area_low",
    "over_area_high",
    "over_others",
    "over_others_low",
    "over_others_high",
]
Boxes = list[np.ndarray]


def pointing_game(
    maps: dict[str, np.ndarray], part: pd.DataFrame, boxes: Boxes, size: tuple[int, int]
) -> pd.DataFrame:
    """Measure whether maps point at the fractures, beside what knows nothing of the image.

    By chance a share of the map lies in the boxes that is theirs of the picture, and its highest place as
    often. A blob in the middle knows where bones mostly are. The maps of other images, each laid over this
    one (all pairs of different groups), know whatever of a map does not depend on the image.

    Parameters
    ----------
    maps : dict
        Of `read_maps`.
    part : DataFrame
        Rows of the manifest with path and group.
    boxes : list
        Of `find_boxes`, for the same rows.
    size : (int, int)

    Returns
    -------
    DataFrame
        map (Grad-CAM, centred blob, Grad-CAM less blob), then for hit (the share of images whose highest
        place lies in a box) and energy (the share of the map's sum in boxes) the value, _low and _high (95 %,
        groups together), n, n_groups, area (mean share of the picture that is box), and for over_area (energy
        less that share) and over_others (energy less the mean of what lies in the same boxes of the maps of
        images of other groups) the same; the two are missing for the difference, and the latter where all
        images are of one group. No row where no image has both map and box.
    """
    known = [
        (group, _mask(box, size), maps[path])
        for path, group, box in zip(part["path"], part["group"], boxes, strict=True)
        if len(box) and path in maps
    ]
    if not known:
        return pd.DataFrame(columns=_PLACES)
    groups, masks, grids = zip(*known, strict=True)
    groups = np.asarray(groups, dtype=object)
    cam = _measure([scale_map(grid, size) for grid in grids], masks, groups)
    blob = _measure([_centred_blob(size)] * len(masks), masks, groups)
    shared = {
        "n": len(known),
        "n_groups": len(set(groups)),
        "area": float(np.mean([mask.mean() for mask in masks])),
    }
    less = cam[["hit", "energy"]] - blob[["hit", "energy"]]
    rows = []
    for name, measured in (("Grad-CAM", cam), ("centred blob", blob), ("Grad-CAM less blob", less)):
        shares = ["hit"] if "less" not in name else []
        rows.append({"map": name} | _summarise(measured, groups, shares) | shared)
    return pd.DataFrame(rows)[_PLACES]


def _measure(grids: list[np.ndarray], masks: Any, groups: np.ndarray) -> pd.DataFrame:
    """Return hit, energy, over_area and over_others of each image.

    Energy is a sum, so that of the mean of the other images' maps is the mean of theirs.
    """
    shares = [grid / (float(grid.sum()) or 1.0) for grid in grids]  # a map of nothing points nowhere
    total, others = np.sum(shares, axis=0), {}
    for group in set(groups):
        rows = np.flatnonzero(groups == group)
        rest = len(grids) - len(rows)
        others[group] = (
            (total - sum(shares[row] for row in rows)) / rest if rest else np.full(total.shape, np.nan)
        )
    found = []
    for share, mask, group in zip(shares, masks, groups, strict=True):
        hit = float(share.any() and mask.ravel()[int(np.argmax(share))])
        energy = float(share[mask].sum())
        found.append((hit, energy, energy - mask.mean(), energy - float(others[group][mask].sum())))
    return pd.DataFrame(found, columns=["hit", "energy", "over_area", "over_others"])


def _summarise(measured: pd.DataFrame, groups: np.ndarray, shares: list[str]) -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys(_PLACES[1:])
    for key, values in measured.items():
        if values.isna().any():
            continue
        entry = grouped_proportion(values, groups) if key in shares else grouped_mean(values, groups)
        row |= {key: entry["value"], f"{key}_low": entry["ci_low"], f"{key}_high": entry["ci_high"]}
    return row


def _mask(boxes: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return which pixels, by their centres, lie in a box; at least the nearest one."""
    y, x = np.mgrid[: size[0], : size[1]] + 0.5
    mask = np.zeros(size, bool)
    for left, top, right, bottom in boxes:
        mask |= (x >= left) & (x <= right) & (y >= top) & (y <= bottom)
        mask[
            min(size[0] - 1, max(0, int((top + bottom) / 2))),
            min(size[1] - 1, max(0, int((left + right) / 2))),
        ] = True
    return mask


def _centred_blob(size: tuple[int, int]) -> np.ndarray:
    y, x = ((np.arange(side) + 0.5) / side - 0.5 for side in size)
    return np.exp(-(y[:, None] ** 2 + x[None] ** 2) / (2 * _BLOB**2)).astype(np.float32)
