"""Boxes and points of the maps of a classifier, so that they can be judged like those of a localizer.

A map says where; whether there is a fracture at all, only the classifier's probability says. The score of a
box is therefore its peak, as a share of the map's largest value, times the probability of the image.
"""

from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from xray_helpers.evaluation.marks import LEVEL, find_marks, find_peak
from xray_helpers.explain.maps import input_size, read_maps
from xray_helpers.images.annotations import list_boxes
from xray_helpers.images.geometry import place_marks

BLOB = "centred blob"
_COLUMNS = ["path", "left", "top", "right", "bottom", "score"]
Points = dict[str, tuple[float, float] | None]


class MapMarks(NamedTuple):
    """Boxes of maps, and the highest place of each map.

    Attributes
    ----------
    marks : DataFrame
        path, left, top, right, bottom (pixels of the picture), score.
    points : dict
        Path to x and y, or None for a map that points nowhere.
    """

    marks: pd.DataFrame
    points: Points


def mark_saliency(
    table: pd.DataFrame, part: pd.DataFrame, probability: pd.Series, train: pd.DataFrame, way: str
) -> dict[str, MapMarks]:
    """Return the boxes of Grad-CAM, of occlusion, and of a blob in the middle.

    Parameters
    ----------
    table : DataFrame
        ``maps.csv``.
    part : DataFrame
        Rows of the manifest: path, width, height; those without a map are left out.
    probability : Series
        P(Fractured) by path.
    train : DataFrame
        Rows of the manifest, whose boxes' median size is that of the blob.
    way : {'stretch', 'pad'}
        How pictures were brought to the size of the input.
    """
    found = {}
    for method in ("Grad-CAM", "occlusion"):
        maps = read_maps(table, method)
        rows = part[part["path"].isin(maps)]
        if len(rows):
            grids = [maps[path] for path in rows["path"]]
            found[method] = mark_grids(rows, grids, probability, input_size(table), way)
    rows = part[part["path"].isin(read_maps(table))]
    if len(rows):
        found[BLOB] = _mark_middle(rows, probability, train)
    return found


def mark_grids(
    rows: pd.DataFrame,
    grids: Any,
    probability: pd.Series,
    size: tuple[int, int],
    way: str,
    level: float = LEVEL,
) -> MapMarks:
    """Return the boxes and points of maps (rows, columns), one per row of a manifest."""
    marks, points = [], {}
    for row, grid in zip(rows.itertuples(index=False), grids, strict=True):
        shape, top = (int(row.height), int(row.width)), float(np.max(grid))
        scaled = np.asarray(grid, float) / top * float(probability[row.path]) if top > 0 else np.asarray(grid)
        marks += [
            (row.path, *mark) for mark in place_marks(find_marks(scaled, size, level), shape, size, way)
        ]
        peak = find_peak(grid, size)
        x, y = peak or (0.0, 0.0)
        spot = place_marks(np.array([[x, y, x + 1e-6, y + 1e-6, 1.0]]), shape, size, way)
        points[row.path] = (float(spot[0, 0]), float(spot[0, 1])) if peak and len(spot) else None
    return MapMarks(pd.DataFrame(marks, columns=_COLUMNS), points)


def _mark_middle(rows: pd.DataFrame, probability: pd.Series, train: pd.DataFrame) -> MapMarks:
    """Return a box in the middle of each picture, of the median size of the boxes of train."""
    sizes = [
        (own[:, 2:] - own[:, :2]) / [float(width), float(height)]
        for own, width, height in zip(list_boxes(train), train["width"], train["height"], strict=True)
    ]
    across, down = np.median(np.concatenate([np.zeros((0, 2)), *sizes]), axis=0) / 2
    shares = np.array([0.5 - across, 0.5 - down, 0.5 + across, 0.5 + down])
    marks = [
        (row.path, *(shares * np.array([row.width, row.height] * 2, float)), float(probability[row.path]))
        for row in rows.itertuples(index=False)
    ]
    points: Points = {row.path: (row.width / 2, row.height / 2) for row in rows.itertuples(index=False)}
    return MapMarks(pd.DataFrame(marks, columns=_COLUMNS), points)
