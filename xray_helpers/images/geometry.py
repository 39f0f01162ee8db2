"""Where a place in a picture lies after it was resized, turned, flipped or cropped, and back.

Coordinates are those of edges: a pixel in row i and column j covers i to i + 1 and j to j + 1, so that a box
of the whole picture is 0, 0, width, height. A matrix of shape (2, 3) takes (x, y, 1) to (x, y).
"""

import cv2
import numpy as np

from xray_helpers.images.pixels import find_padded_area, find_view, resize


def fit_matrix(shape: tuple[int, int], size: tuple[int, int], way: str = "stretch") -> np.ndarray:
    """Return the matrix by which `pixels.resize` brings a picture to the size of a network's input.

    Parameters
    ----------
    shape, size : (int, int)
        Height and width of the picture, and of the input.
    way : {'stretch', 'pad'}

    Returns
    -------
    ndarray of float, shape (2, 3)
    """
    top, left, height, width = find_padded_area(shape, size) if way == "pad" else (0, 0, *size)
    return np.array([[width / shape[1], 0.0, left], [0.0, height / shape[0], top]])


def view_matrix(content: str, view: int, size: tuple[int, int]) -> np.ndarray:
    """Return the matrix of one augmented view (`pixels.augment`) of a picture of this size."""
    return shift_origin(find_view(content, view, size), 0.5)


def shift_origin(matrix: np.ndarray, shift: float) -> np.ndarray:
    """Return a matrix for coordinates that are larger by `shift`; 0.5 takes centres of pixels to edges."""
    moved = matrix.copy()
    moved[:, 2] += shift - matrix[:, :2] @ np.array([shift, shift])
    return moved


def join_matrices(first: np.ndarray, then: np.ndarray) -> np.ndarray:
    """Return the matrix of two steps, one after the other."""
    return then @ np.vstack([first, [0.0, 0.0, 1.0]])


def invert_matrix(matrix: np.ndarray) -> np.ndarray:
    """Return the matrix of the way back."""
    return cv2.invertAffineTransform(matrix)


def map_boxes(boxes: np.ndarray, matrix: np.ndarray, size: tuple[int, int] | None = None) -> np.ndarray:
    """Return the boxes around transformed boxes.

    Parameters
    ----------
    boxes : ndarray of float, shape (k, 4)
        left, top, right, bottom.
    matrix : ndarray of float, shape (2, 3)
    size : (int, int), optional
        Height and width of the new picture: boxes are cut at its edges, and what lies outside is dropped.

    Returns
    -------
    ndarray of float, shape (at most k, 4)
    """
    boxes = np.asarray(boxes, float).reshape(-1, 4)
    corners = boxes[:, [[0, 1], [2, 1], [2, 3], [0, 3]]] @ matrix[:, :2].T + matrix[:, 2]
    moved = np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)
    if size is None:
        return moved
    height, width = size
    moved = np.clip(moved, 0, [width, height, width, height])
    return moved[(moved[:, :2] < moved[:, 2:]).all(axis=1)]


def fit_mask(mask: np.ndarray, size: tuple[int, int], way: str = "stretch") -> np.ndarray:
    """Return which share of each pixel of a network's input a mask of the picture covers, float32, 0-1."""
    return resize(np.asarray(mask, np.uint8) * 255, size, way).astype(np.float32) / 255


def turn_mask(mask: np.ndarray, content: str, view: int) -> np.ndarray:
    """Return a mask of a network's input as an augmented view shows it; outside the picture it is 0."""
    matrix = find_view(content, view, mask.shape)
    return cv2.warpAffine(mask, matrix, mask.shape[::-1], flags=cv2.INTER_LINEAR)


def fill_boxes(boxes: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return the share of each pixel that boxes cover, float32 of shape `size`, 0-1."""
    filled = np.zeros(size, np.float32)
    for left, top, right, bottom in boxes:
        across, down = (
            np.clip(np.minimum(end, np.arange(side) + 1) - np.maximum(start, np.arange(side)), 0, 1)
            for start, end, side in ((left, right, size[1]), (top, bottom, size[0]))
        )
        filled = np.maximum(filled, np.outer(down, across).astype(np.float32))
    return filled


def place_marks(
    marks: np.ndarray, shape: tuple[int, int], size: tuple[int, int], way: str = "stretch"
) -> np.ndarray:
    """Return marks of a network's input in pixels of the picture, cut at its edges.

    Parameters
    ----------
    marks : ndarray of float, shape (k, 5)
        left, top, right, bottom, score, as from `evaluation.marks.find_marks`.
    shape, size : (int, int)
        Height and width of the picture, and of the input.
    way : {'stretch', 'pad'}

    Returns
    -------
    ndarray of float, shape (at most k, 5)
        Without those that lie in the padding.
    """
    moved = map_boxes(marks[:, :4], invert_matrix(fit_matrix(shape, size, way)))
    moved = np.clip(moved, 0, np.tile(shape[::-1], 2))
    placed = np.column_stack([moved, marks[:, 4]])
    return placed[(moved[:, :2] < moved[:, 2:]).all(axis=1)]
