"""Local features of pictures (SIFT) that can be compared with those of mirrored and negative pictures.

Mirroring a picture permutes the bins of a SIFT descriptor, and so does its negative: all gradients turn by
180 degrees, so that the 4 x 4 cells do. Both commute. Descriptors are stored in a basis in which each of the
two only changes the sign of some components; their absolute values are the same for all four pictures.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import cv2
import numpy as np
from threadpoolctl import threadpool_limits

from xray_helpers.study.cache import RowView, new_rows, read_rows, release
from xray_helpers.study.files import hash_of
from xray_helpers.study.machine import cores
from xray_helpers.study.progress import progress

SIDE = 256  # pictures are compared at this size
SETS = (slice(0, 250), slice(250, 400), slice(400, 500))  # rows of points: stretched, unstretched, small
SCALE = 256  # of the descriptors, which are of length 1
VERSION = 12  # of the cached local features
_ELONGATED = 1.15  # ratio of the sides from which on a picture is also searched unstretched
_SQUARE_SIDE, _ELONGATED_SIDE, _SMALL_SIDE = 224, 192, 144  # pixels at which points are detected
_BLUR = 1.0  # sigma, pixels of the small picture
_MIN_CONTRAST = 0.004  # of a point
_ROWS = SETS[-1].stop
LOCAL = np.dtype(
    [
        ("points", "f4", (_ROWS, 2)),  # x, y in pixels of the picture of 256 x 256
        ("frames", "f4", (_ROWS, 2, 2)),  # their size and direction: the columns are the axes
        ("descriptors", "i1", (_ROWS, 128)),
        ("proportions", "f4", (2,)),  # width and height of the file, of product 1
    ]
)

SIGNS = np.array([[1, 1, 1, 1], [1, 1, -1, -1], [1, -1, 1, -1], [1, -1, -1, 1]], np.float32)
"""Sign of the four quarters of a descriptor (columns) in the picture itself, mirrored, negative, and both."""


def _build_basis() -> np.ndarray:
    bins = np.arange(128).reshape(4, 4, 8)
    mirrored = bins[::-1][..., -np.arange(8) % 8]
    forms = np.stack([form.ravel() for form in (bins, mirrored, bins[::-1, ::-1], mirrored[::-1, ::-1])])
    orbits = forms[:, forms.argmin(axis=0) == 0]  # (4, 32): bins that change places with each other
    basis = np.zeros((128, 4, 32), np.float32)
    for quarter in range(4):
        for form in range(4):
            basis[orbits[form], quarter, np.arange(32)] = SIGNS[quarter, form] / 2
    return basis.reshape(128, 128)


_BASIS = _build_basis()


@contextmanager
def one_thread_each() -> Iterator[None]:
    """Keep OpenCV and BLAS from starting threads of their own beside a pool of workers."""
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        with threadpool_limits(1):
            yield
    finally:
        cv2.setNumThreads(before)


def compute_local_features(pictures: RowView, shapes: np.ndarray, shas: np.ndarray) -> np.ndarray:
    """Return the local features of each picture, a memory-mapped array of `LOCAL`.

    Parameters
    ----------
    pictures : RowView of uint8, shape (n, 256, 256), 0-255
        Stretched.
    shapes : ndarray of int, shape (n, 2)
        Height and width of the files.
    shas : ndarray of str, shape (n,)
        SHA-256 under which they are cached, in rising order.
    """
    kind = f"sift-{hash_of(VERSION)}"
    ids = [
        f"{sha[:54]}{height % 10**5:05}{width % 10**5:05}"
        for sha, (height, width) in zip(shas, shapes, strict=True)
    ]
    while (cached := read_rows(kind, ids)) is None:
        with new_rows(kind, ids, (), LOCAL) as (store, new):
            _fill(pictures, shapes, new, store)
    return cached.array


def _fill(pictures: RowView, shapes: np.ndarray, new: np.ndarray, store: np.ndarray) -> None:
    def fill(rows: np.ndarray) -> None:
        for i in rows:
            store[i] = describe_picture(pictures[i], shapes[i])

    blocks = [new[start : start + 64] for start in range(0, len(new), 64)]
    with one_thread_each(), ThreadPoolExecutor(cores()) as pool:
        for _ in progress(pool.map(fill, blocks), "local features", len(blocks), mininterval=1, leave=False):
            release(store)
            release(pictures.array)


def describe_picture(picture: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Return the local features of one picture, a record of `LOCAL`; rows without a point are zero.

    The first set is of the stretched picture. The second, where its own proportions differ much, is of the
    picture in these: a rotation of the file is a rotation of it. The third is of a small, blurred one, whose
    points outlast noise, blur and photographs of screens.

    Parameters
    ----------
    picture : ndarray of uint8, shape (256, 256), 0-255
        Stretched.
    shape : (int, int)
        Height and width of the file.
    """
    elongated = max(shape) > _ELONGATED * min(shape)
    side = _ELONGATED_SIDE if elongated else _SQUARE_SIDE
    sizes = ((side, side), _fit_into(shape, side) if elongated else None, _fit_into(shape, _SMALL_SIDE))
    record = np.zeros((), LOCAL)
    record["proportions"] = np.array(shape[::-1]) / np.sqrt(shape[0] * shape[1])
    for size, rows in zip(sizes, SETS, strict=True):
        if size is not None:
            small = cv2.resize(picture, size[::-1], interpolation=cv2.INTER_AREA)
            _detect(cv2.GaussianBlur(small, (0, 0), _BLUR) if rows is SETS[-1] else small, record, rows)
    return record


def _fit_into(shape: tuple[int, int], side: int) -> tuple[int, int]:
    """Return height and width in these proportions, the longer `side`, the shorter at least 32."""
    height, width = (max(32, round(side * length / max(shape))) for length in shape)
    return height, width


def _detect(picture: np.ndarray, record: np.ndarray, rows: slice) -> None:
    """Write the strongest points of a picture of any size to these rows."""
    most = rows.stop - rows.start
    detector = cv2.SIFT_create(most, contrastThreshold=_MIN_CONTRAST)
    keypoints, found = detector.detectAndCompute(cv2.createCLAHE(3, (8, 8)).apply(picture), None)
    if found is None:
        return
    order = np.argsort([-point.response for point in keypoints], kind="stable")[:most]
    kept = slice(rows.start, rows.start + len(order))
    scale = SIDE / np.array(picture.shape[::-1])
    rooted = np.sqrt(found[order] / (found[order].sum(axis=1, keepdims=True) + 1e-7))  # RootSIFT
    angle = np.deg2rad([keypoints[i].angle for i in order])
    axis = np.array([keypoints[i].size for i in order]) * np.stack([np.cos(angle), np.sin(angle)])
    frames = np.stack([axis.T, np.stack([-axis[1], axis[0]], axis=1)], axis=2)
    record["points"][kept] = (np.array([keypoints[i].pt for i in order]) + 0.5) * scale - 0.5
    record["frames"][kept] = frames * scale[:, None]
    record["descriptors"][kept] = np.clip(np.round(rooted @ _BASIS * SCALE), -127, 127)
