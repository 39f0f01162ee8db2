"""Maps over images: their table, their sizes, and how similar two of them are."""

from typing import Any

import cv2
import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from xray_helpers.images.pixels import find_padded_area


def is_flat(maps: Any) -> np.ndarray:
    """Return which maps have the same value everywhere, as empty ones do: bool, shape (n,)."""
    return np.array([np.ptp(grid) == 0 for grid in maps], bool)


def rank_agreement(maps: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return the Spearman correlation of each pair of maps, shape (n,); 0 where one of them is flat.

    The second map of a pair is resized to the shape of the first.
    """
    pairs = zip(maps, others, strict=True)
    return np.array([_spearman(one, scale_map(other, one.shape)) for one, other in pairs], float)


def _spearman(one: np.ndarray, other: np.ndarray) -> float:
    if is_flat([one, other]).any():
        return 0.0
    return float(spearmanr(one.ravel(), other.ravel()).statistic)


def scale_map(grid: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize a map to (height, width), float32, by linear interpolation between the centres of its cells."""
    return cv2.resize(np.asarray(grid, np.float32), size[::-1], interpolation=cv2.INTER_LINEAR)


def fit_map(
    grid: np.ndarray, shape: tuple[int, int], size: tuple[int, int], way: str = "stretch"
) -> np.ndarray:
    """Return the part of a map that covers the picture itself, without the padding.

    Parameters
    ----------
    grid : ndarray of float, shape (rows, columns)
        Map of the model's input.
    shape : (int, int)
        Height and width of the picture.
    size : (int, int)
        Height and width of the model's input.
    way : {'stretch', 'pad'}
        How the picture was brought to `size`.

    Returns
    -------
    ndarray of float32
        Map of the whole picture, of any size.
    """
    if way != "pad":
        return np.asarray(grid, np.float32)
    top, left, height, width = find_padded_area(shape, size)
    return scale_map(grid, size)[top : top + height, left : left + width]


def build_maps(paths: Any, method: str, maps: np.ndarray, size: tuple[int, int]) -> pd.DataFrame:
    """Build the table of maps, as in ``maps.csv``.

    Returns
    -------
    DataFrame
        path, method, height, width (`size`: of the model's input, in pixels), rows, columns, values (row by
        row from the upper left, separated by spaces).
    """
    values = [" ".join(f"{value:.4g}" for value in grid.ravel()) for grid in maps]
    shapes = {"height": size[0], "width": size[1], "rows": maps.shape[1], "columns": maps.shape[2]}
    return pd.DataFrame({"path": list(paths), "method": method} | shapes | {"values": values})


def input_size(table: pd.DataFrame) -> tuple[int, int] | None:
    """Return height and width of the model's input from a table of maps; None where it holds no map."""
    return None if table.empty else (int(table["height"].iloc[0]), int(table["width"].iloc[0]))


def read_maps(table: pd.DataFrame, method: str = "Grad-CAM") -> dict[str, np.ndarray]:
    """Return the maps of one method by path, float32 of shape (rows, columns)."""
    return {
        row.path: np.array(row.values.split(), np.float32).reshape(row.rows, row.columns)
        for row in table[table["method"] == method].itertuples(index=False)
    }
