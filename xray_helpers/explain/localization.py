"""How much of each map lies on the fractures, compared with baselines that do not look at the image.

The pointing game (Zhang et al. 2018) asks whether the maximum of a map lies in a box around a fracture; the
energy in the box (Wang et al. 2020) is the share of the map's sum that lies in boxes. The baselines are the
boxes' share of the picture, a blob in the middle, and the maps of other images laid over this one.
What follows from the numbers is decided in `saliency_verdicts`.
"""

from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from xray_helpers.evaluation.intervals import grouped_mean, grouped_proportion
from xray_helpers.explain.maps import input_size, is_flat, rank_agreement, read_maps, scale_map
from xray_helpers.images.annotations import list_boxes

NO_MAP = "no map with anything in it"
_LONGER_SIDE = 224  # pixels at which maps and boxes are laid over each other; maps are much coarser
_BLOB = 0.2  # standard deviation of the centred blob, as a share of the side
_PLACES = [
    "map",
    *("hit", "hit_low", "hit_high"),
    *("energy", "energy_low", "energy_high"),
    *("n", "n_groups", "area"),
    *("over_area", "over_area_low", "over_area_high"),
    *("over_others", "over_others_low", "over_others_high"),
]
Boxes = list[np.ndarray]


class EvaluatedMaps(NamedTuple):
    """The result of `evaluate_maps`."""

    maps: dict[str, np.ndarray]  # Grad-CAM maps by path, float32 of shape (rows, columns)
    boxes: dict[str, np.ndarray]  # boxes by path, in pixels at `frame`, shape (k, 4)
    places: pd.DataFrame  # result of `pointing_game`
    agreement: dict[str, Any]  # result of `evaluate_agreement`
    frame: tuple[int, int]  # result of `display_size`


def evaluate_maps(table: pd.DataFrame, part: pd.DataFrame, resize: str) -> EvaluatedMaps:
    """Measure the maps of a model's test images.

    Parameters
    ----------
    table : DataFrame
        ``maps.csv``.
    part : DataFrame
        The test part of the manifest.
    resize : {'stretch', 'pad'}
        How pictures were brought to the size of the model's input.
    """
    frame = display_size(input_size(table))
    maps, boxes = read_maps(table), find_boxes(part, frame, resize)
    places = pointing_game(maps, part, boxes, frame)
    agreement = evaluate_agreement(table, part.set_index("path")["group"])
    return EvaluatedMaps(maps, dict(zip(part["path"], boxes, strict=True)), places, agreement, frame)


def display_size(size: tuple[int, int] | None) -> tuple[int, int]:
    """Return height and width at which maps, boxes and pictures are laid over each other.

    They have the proportions of the model's input `size`, so that stretching and padding are the same in all.
    """
    height, width = size or (_LONGER_SIDE, _LONGER_SIDE)
    return tuple(max(1, round(side * _LONGER_SIDE / max(height, width))) for side in (height, width))


def find_boxes(part: pd.DataFrame, size: tuple[int, int], resize: str = "stretch") -> Boxes:
    """Return the known boxes of fractures for each row of a manifest.

    Parameters
    ----------
    part : DataFrame
        width, height, and ``boxes`` (text for `annotations.read_boxes`, in pixels of the file) or, for
        phantoms, box_left, box_top, box_right, box_bottom.
    size : (int, int)
        Height and width to which the boxes are scaled, in the proportions of the model's input.
    resize : {'stretch', 'pad'}

    Returns
    -------
    list of ndarray of float, shape (k, 4)
        left, top, right, bottom in pixels at `size`; k = 0 where none is known.
    """
    found = []
    for row, boxes in zip(part.to_dict("records"), list_boxes(part), strict=True):
        scale = np.array([size[1] / row["width"], size[0] / row["height"]])
        shift = np.zeros(2)
        if resize == "pad":
            scale[:] = scale.min()
            shift = (np.array(size[::-1]) - scale * (row["width"], row["height"])) / 2
        found.append(boxes * np.tile(scale, 2) + np.tile(shift, 2))
    return found


def pointing_game(
    maps: dict[str, np.ndarray], part: pd.DataFrame, boxes: Boxes, size: tuple[int, int]
) -> pd.DataFrame:
    """Measure how well maps point at the fractures, and how well baselines do.

    By chance, the share of a map that lies in the boxes equals their share of the picture. A blob in the
    middle knows where bones mostly are. The maps of all images of other groups, laid over the same boxes,
    know whatever in a map does not depend on the image.

    Parameters
    ----------
    maps : dict
        Path to map, as from `read_maps`.
    part : DataFrame
        Rows of the manifest with path and group.
    boxes : list
        Result of `find_boxes` for the same rows.
    size : (int, int)
        Height and width to which maps are scaled.

    Returns
    -------
    DataFrame
        One row per map (Grad-CAM, centred blob, Grad-CAM less blob) with its mean over images: hit (1 if the
        maximum lies in a box), energy (share of the map's sum in boxes), over_area (energy less the boxes'
        share of the picture), over_others (energy less the mean energy of the maps of other groups), each
        with _low and _high (95 %, grouped), and n, n_groups, area (mean share of the picture in boxes).
        over_area and over_others are missing for the difference, and over_others where all images are of one
        group. No rows where no image has both a map and a box.
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
    difference = cam[["hit", "energy"]] - blob[["hit", "energy"]]
    counts = {
        "n": len(known),
        "n_groups": len(set(groups)),
        "area": float(np.mean([mask.mean() for mask in masks])),
    }
    rows = [
        {"map": "Grad-CAM"} | _summarise(cam, groups) | counts,
        {"map": "centred blob"} | _summarise(blob, groups) | counts,
        {"map": "Grad-CAM less blob"} | _summarise(difference, groups, proportions=()) | counts,
    ]
    return pd.DataFrame(rows, columns=_PLACES)


def _measure(grids: list[np.ndarray], masks: Any, groups: np.ndarray) -> pd.DataFrame:
    """Return hit, energy, over_area and over_others of each image.

    Energy is linear in the map, so that the mean energy of other maps is the energy of their mean.
    """
    shares = [grid / (float(grid.sum()) or 1.0) for grid in grids]  # an empty map points nowhere
    total, others = np.sum(shares, axis=0), {}
    for group in set(groups):
        rows = np.flatnonzero(groups == group)
        rest = len(grids) - len(rows)
        others[group] = (
            (total - sum(shares[row] for row in rows)) / rest if rest else np.full(total.shape, np.nan)
        )
    measured = []
    for share, mask, group in zip(shares, masks, groups, strict=True):
        hit = float(share.any() and mask.ravel()[int(np.argmax(share))])
        energy = float(share[mask].sum())
        measured.append((hit, energy, energy - mask.mean(), energy - float(others[group][mask].sum())))
    return pd.DataFrame(measured, columns=["hit", "energy", "over_area", "over_others"])


def _summarise(
    measured: pd.DataFrame, groups: np.ndarray, proportions: tuple[str, ...] = ("hit",)
) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for key, values in measured.items():
        if not values.isna().any():
            entry = (grouped_proportion if key in proportions else grouped_mean)(values, groups)
            row |= {key: entry["value"], f"{key}_low": entry["ci_low"], f"{key}_high": entry["ci_high"]}
    return row


def _mask(boxes: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return which pixels have their centre in a box; of each box at least one pixel."""
    y, x = np.mgrid[: size[0], : size[1]] + 0.5
    mask = np.zeros(size, bool)
    for left, top, right, bottom in boxes:
        mask |= (x >= left) & (x <= right) & (y >= top) & (y <= bottom)
        row, column = int((top + bottom) / 2), int((left + right) / 2)
        mask[min(size[0] - 1, max(0, row)), min(size[1] - 1, max(0, column))] = True
    return mask


def _centred_blob(size: tuple[int, int]) -> np.ndarray:
    y, x = ((np.arange(side) + 0.5) / side - 0.5 for side in size)
    return np.exp(-(y[:, None] ** 2 + x[None] ** 2) / (2 * _BLOB**2)).astype(np.float32)


def evaluate_agreement(table: pd.DataFrame, group: pd.Series) -> dict[str, Any]:
    """Return the mean rank correlation of Grad-CAM and occlusion: value, ci_low, ci_high, n, empty.

    Images with an empty map of either method are left out of n and counted as `empty`.

    Parameters
    ----------
    table : DataFrame
        ``maps.csv``, with both methods.
    group : Series
        Group by path.
    """
    cams, occlusions = read_maps(table), read_maps(table, "occlusion")
    paths = [path for path in occlusions if path in cams]
    full = [path for path in paths if not is_flat([cams[path], occlusions[path]]).any()]
    counts = {"n": len(full), "empty": len(paths) - len(full)}
    if not full:
        return {"value": None, "ci_low": None, "ci_high": None, "reason": NO_MAP} | counts
    values = rank_agreement([occlusions[path] for path in full], [cams[path] for path in full])
    return grouped_mean(values, np.array([group[path] for path in full], dtype=object)) | counts
