"""From heat maps to boxes: each peak of a map with the part of the map around it."""

import cv2
import numpy as np
from scipy import ndimage

_FINER = 4  # a map is resized by this factor, so that boxes do not end at its cells
_MOST = 20  # boxes an image
_LEAST = 0.01  # share of the largest value that any map can have (1), below which there is no peak
_OVERLAP = 0.3  # IoU above which the lower of two boxes is dropped
LEVEL = 0.5  # a box is the part around a peak that is at least this share of it


def find_marks(grid: np.ndarray, size: tuple[int, int], level: float = LEVEL) -> np.ndarray:
    """Return the boxes of a heat map, the highest peaks first.

    Around each peak, the connected part of the map that reaches `level` times the peak makes a box, whose
    score is the peak. A part that touches that of a higher peak makes none; of two boxes that overlap by an
    IoU above 0.3, the lower is dropped (non-maximum suppression).

    Parameters
    ----------
    grid : ndarray of float, shape (rows, columns)
        At least 0.
    size : (int, int)
        Height and width of what the map covers, in which the boxes are given.
    level : float

    Returns
    -------
    ndarray of float, shape (at most 20, 5)
        left, top, right, bottom, score.
    """
    shape = tuple(side * _FINER for side in grid.shape)
    fine = cv2.resize(np.asarray(grid, np.float32), shape[::-1], interpolation=cv2.INTER_LINEAR)
    scale = np.tile([size[1] / shape[1], size[0] / shape[0]], 2)
    peaks = (fine == ndimage.maximum_filter(fine, size=2 * _FINER + 1)) & (fine >= _LEAST)
    places = np.argwhere(peaks)
    places = places[np.argsort(-fine[peaks], kind="stable")]
    taken, found = np.zeros(shape, bool), []
    for row, column in places:
        if taken[row, column] or len(found) == _MOST:
            continue
        parts, _ = ndimage.label(fine >= level * fine[row, column])
        part = parts == parts[row, column]
        if (part & taken).any():  # the shoulder of a higher peak
            continue
        down, across = ndimage.find_objects(part.astype(np.int8))[0]
        box = np.array([across.start, down.start, across.stop, down.stop]) * scale
        taken |= part
        if all(overlap(box[None], other[None, :4])[0, 0] <= _OVERLAP for other in found):
            found.append(np.append(box, fine[row, column]))
    return np.array(found).reshape(-1, 5)


def find_peak(grid: np.ndarray, size: tuple[int, int]) -> tuple[float, float] | None:
    """Return x and y of a map's largest value, in the middle of its cell; None for a map of one value."""
    if np.ptp(grid) == 0:
        return None
    row, column = np.unravel_index(int(np.argmax(grid)), grid.shape)
    return (column + 0.5) * size[1] / grid.shape[1], (row + 0.5) * size[0] / grid.shape[0]


def overlap(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return the intersection over union (IoU) of each of n boxes with each of k others, shape (n, k)."""
    boxes, others = (np.asarray(each, float).reshape(-1, 4) for each in (boxes, others))
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    common = np.prod(np.clip(high - low, 0, None), axis=2)
    areas = [np.prod(each[:, 2:] - each[:, :2], axis=1) for each in (boxes, others)]
    return common / np.maximum(areas[0][:, None] + areas[1][None] - common, 1e-12)


def centre_inside(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return whether the centre of each of n boxes lies in each of k others, bool of shape (n, k)."""
    boxes, others = (np.asarray(each, float).reshape(-1, 4) for each in (boxes, others))
    centre = (boxes[:, None, :2] + boxes[:, None, 2:]) / 2
    return ((centre >= others[None, :, :2]) & (centre <= others[None, :, 2:])).all(axis=2)
