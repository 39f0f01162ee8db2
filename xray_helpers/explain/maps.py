"""Maps over images: their table, their sizes, and how alike two of them are."""

from typing import Any

import cv2
import numpy as np
import pandas as pd
from scipy.stats import rankdata

from xray_helpers.evaluation.intervals import grouped_mean
from xray_helpers.images.pixels import find_inner

GRID = 6  # occluded places a side


def mean_rank_agreement(maps: Any, others: Any, counted: np.ndarray, group: Any) -> dict[str, Any]:
    """Return the mean rank agreement of the pairs that are counted, with its interval, as
    `intervals.grouped_mean` does.
    """
    if not counted.any():
        return {"value": None, "ci_low": None, "ci_high": None, "reason": "no map with anything in it"}
    pairs = zip(maps, others, counted, strict=True)
    values = [rank_agreement(one[None], other[None])[0] for one, other, count in pairs if count]
    return grouped_mean(values, np.asarray(group, dtype=object)[counted])


def is_flat(maps: Any) -> np.ndarray:
    """Return which maps say the same everywhere, as an empty one does: bool, shape (n,)."""
    return np.array([np.ptp(grid) == 0 for grid in maps], bool)


def rank_agreement(maps: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return Spearman's correlation of each pair of maps, shape (n,); 0 where one of them is flat.

    The second is resized to the places of the first.
    """
    shape = maps.shape[1:]
    pairs = zip(maps, (scale_map(other, shape) for other in others), strict=True)
    return np.array([_spearman(one.ravel(), other.ravel()) for one, other in pairs])


def _spearman(one: np.ndarray, other: np.ndarray) -> float:
    if np.ptp(one) == 0 or np.ptp(other) == 0:
        return 0.0
    return float(np.corrcoef(rankdata(one), rankdata(other))[0, 1])


def scale_map(grid: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return a map at another size (height, width), float32, interpolated between the places' centres."""
    return cv2.resize(np.asarray(grid, np.float32), size[::-1], interpolation=cv2.INTER_LINEAR)


def fit_map(
    grid: np.ndarray, shape: tuple[int, int], size: tuple[int, int], way: str = "stretch"
) -> np.ndarray:
    """Return the part of a map that lies over the picture itself, without what padding added.

    Parameters
    ----------
    grid : ndarray of float, shape (rows, columns)
        Over what the model saw.
    shape : (int, int)
        Height and width of the picture.
    size : (int, int)
        Height and width that the model sees.
    way : {'stretch', 'pad'}
        How the picture became `size`.

    Returns
    -------
    ndarray of float32
        Over the whole picture, at whatever size.
    """
    if way != "pad":
        return np.asarray(grid, np.float32)
    top, left, height, width = find_inner(shape, size)
    return scale_map(grid, size)[top : top + height, left : left + width]


def build_maps(paths: Any, method: str, maps: np.ndarray, size: tuple[int, int]) -> pd.DataFrame:
    """Return the table of maps.

    Returns
    -------
    DataFrame
        path, method, height, width (`size`: of what the model saw, in pixels), rows, columns, values (from
        the upper left, by rows, space between).
    """
    values = [" ".join(f"{value:.4g}" for value in grid.ravel()) for grid in maps]
    shapes = {"height": size[0], "width": size[1], "rows": maps.shape[1], "columns": maps.shape[2]}
    return pd.DataFrame({"path": list(paths), "method": method} | shapes | {"values": values})


def seen_size(table: pd.DataFrame) -> tuple[int, int] | None:
    """Return height and width of what the model of `build_maps`'s table saw; None where it holds no map."""
    return None if table.empty else (int(table["height"].iloc[0]), int(table["width"].iloc[0]))


def read_maps(table: pd.DataFrame, method: str = "Grad-CAM") -> dict[str, np.ndarray]:
    """Return the maps of `build_maps` by path, float32 of shape (rows, columns)."""
    return {
        row.path: np.array(row.values.split(), np.float32).reshape(row.rows, row.columns)
        for row in table[table["method"] == method].itertuples(index=False)
    }
