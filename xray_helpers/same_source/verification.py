"""Whether two pictures are one: local features (SIFT) agree on an affine map, under which they look alike."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import cv2
import numpy as np
from threadpoolctl import threadpool_limits

from xray_helpers.study.cache import RowView, new_rows, read_rows, release
from xray_helpers.study.files import hash_of
from xray_helpers.study.machine import cores
from xray_helpers.study.progress import progress

SIDE = 256  # pictures are compared at this size
MIN_INLIERS, MIN_CORRELATION = 10, 0.90
MAYBE_CORRELATION = 0.70  # from here on the alignment is refined before the decision
MIN_EXTENT = 0.22  # of the side: inliers within a marker are no evidence
VERSION = 9  # of the cached local features, and of the cached pairs
_FIRST_SIDE = 192  # local features are first detected at this size, faster than at SIDE
_POINTS, _FEW_POINTS, _RATIO, _REPROJECTION = 300, 150, 0.8, 4.0
_MIN_CONTRAST = 0.004  # of a point
_STRONG = 0.02 / 3  # response of a strong point, a third of its contrast
_LOCAL = np.dtype([("points", "f4", (_POINTS, 2)), ("descriptors", "u1", (_POINTS, 128)), ("count", "i4")])
_STRONGEST, _PROMISING = 96, 10  # points compared first; clear matches from which all are compared


class Aligner:
    """Compares blocks of pairs of pictures, on all cores.

    Parameters
    ----------
    pictures : RowView
        Uint8, 256 x 256, 0-255.
    shas : ndarray of str, shape (n,)
        SHA-256 under which the local features are cached, in rising order.
    """

    def __init__(self, pictures: RowView, shas: np.ndarray) -> None:
        self.pictures = pictures
        self.local = _local_features(pictures, shas)

    def compare(self, pairs: np.ndarray) -> list[dict[str, Any]]:
        """Return the evidence on those pairs (n, 2) that have any.

        Its keys are i, j, inliers, correlation, mirrored and transform: the 2 x 3 affine map of i (mirrored
        first, if mirrored) onto j, or None.
        """
        with one_thread_each(), ThreadPoolExecutor(cores()) as pool:
            parts = [pairs[start : start + 32] for start in range(0, len(pairs), 32)]
            promising = pool.map(lambda part: _find_promising(self.local["descriptors"], part), parts)
            flags = np.concatenate([np.empty((0, 2), bool), *promising])
            chosen = flags.any(axis=1)
            found = [*pool.map(self._compare_pair, pairs[chosen], flags[chosen])]
        release(self.local)
        release(self.pictures.array)
        return found

    def compare_picture(self, picture: np.ndarray, rows: np.ndarray) -> list[dict[str, Any]]:
        """Return the evidence on a picture, which is not kept, and these rows: which may be its source.

        Parameters
        ----------
        picture : ndarray of uint8, shape (256, 256), 0-255
        rows : ndarray of int
            Of the pictures it is compared with.

        Returns
        -------
        list of dict
            As of `compare`; j is the row.
        """
        clahe = cv2.createCLAHE(3, (8, 8))
        points, found = _detect(cv2.SIFT_create(_POINTS, contrastThreshold=_MIN_CONTRAST), clahe, picture)
        own = np.zeros(1, _LOCAL)
        _store(own, 0, points, found)
        both = np.concatenate([own["descriptors"], self.local["descriptors"][rows]])
        pairs = np.column_stack([np.zeros(len(rows), int), np.arange(1, len(rows) + 1)])
        evidence, mine = [], (own["points"][0, : len(points)], own["descriptors"][0, : len(points)])
        with one_thread_each():
            for row, promising in zip(rows.tolist(), _find_promising(both, pairs), strict=True):
                if promising.any():
                    other = self.local[row]
                    theirs = (other["points"][: other["count"]], other["descriptors"][: other["count"]])
                    result = _compare(picture, mine, self.pictures[row], theirs, promising)
                    evidence.append(result | {"i": -1, "j": row})
        return evidence

    def _compare_pair(self, pair: np.ndarray, promising: np.ndarray) -> dict[str, Any]:
        i, j = pair.tolist()
        a, b = (
            (row["points"][: row["count"]], row["descriptors"][: row["count"]]) for row in self.local[pair]
        )
        return _compare(self.pictures[i], a, self.pictures[j], b, promising) | {"i": i, "j": j}


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


def _local_features(pictures: RowView, shas: np.ndarray) -> np.ndarray:
    """Return the local features of each picture, a memory-mapped array of `_LOCAL`."""
    kind = f"sift-{hash_of(VERSION)}"
    while (cached := read_rows(kind, shas)) is None:
        with new_rows(kind, shas, (), _LOCAL) as (store, new):
            _fill_local_features(pictures, new, store)
    return cached.array


def _fill_local_features(pictures: RowView, new: np.ndarray, store: np.ndarray) -> None:
    def fill(rows: np.ndarray) -> None:
        detector = cv2.SIFT_create(_POINTS, contrastThreshold=_MIN_CONTRAST)
        clahe = cv2.createCLAHE(3, (8, 8))
        for i in rows:
            points, found = _detect(detector, clahe, pictures[i])
            _store(store, i, points, found)

    blocks = [new[start : start + 64] for start in range(0, len(new), 64)]
    with one_thread_each(), ThreadPoolExecutor(cores()) as pool:
        for _ in progress(pool.map(fill, blocks), "local features", len(blocks), mininterval=1, leave=False):
            release(store)
            release(pictures.array)


def _store(store: np.ndarray, row: int, points: np.ndarray, found: np.ndarray) -> None:
    """Write the points and descriptors of a picture to a row of an array of `_LOCAL`."""
    rooted = np.sqrt(found / (found.sum(axis=1, keepdims=True) + 1e-7))  # RootSIFT
    k = len(points)
    store["descriptors"][row, :k] = np.minimum(np.round(rooted * 512), 255)
    store["points"][row, :k] = points
    store["count"][row] = k


def _detect(detector: cv2.SIFT, clahe: cv2.CLAHE, picture: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the strongest points (k, 2), in pixels of the picture, and their descriptors (k, 128).

    Most pictures have enough points at a smaller size; plain ones are searched at full size and keep weak
    points too.
    """
    for side in (_FIRST_SIDE, SIDE):
        small = cv2.resize(picture, (side, side), interpolation=cv2.INTER_AREA)
        keypoints, found = detector.detectAndCompute(clahe.apply(small), None)
        response = np.array([point.response for point in keypoints])
        strong = int((response >= _STRONG).sum())
        if strong >= _FEW_POINTS:
            break
    if found is None:
        return np.empty((0, 2), np.float32), np.empty((0, 128), np.float32)
    count = min(_POINTS, strong if strong >= _FEW_POINTS else len(found))
    strongest = np.argsort(-response, kind="stable")[:count]
    centres = np.array([keypoints[j].pt for j in strongest])
    return (centres + 0.5) * (SIDE / side) - 0.5, found[strongest]


_MIRRORED_BINS = np.array([(-i) % 8 for i in range(8)])


def _mirror(points: np.ndarray, descriptors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the local features of the mirrored picture."""
    return points * np.float32([-1, 1]) + np.float32([SIDE - 1, 0]), _mirror_descriptors(descriptors)


def _mirror_descriptors(descriptors: np.ndarray) -> np.ndarray:
    """Return SIFT descriptors (last axis: 4 x 4 cells, 8 angles) of the mirrored picture."""
    cells = descriptors.reshape(*descriptors.shape[:-1], 4, 4, 8)[..., ::-1, :, :][..., _MIRRORED_BINS]
    return cells.reshape(descriptors.shape)


def _compare(x: np.ndarray, a: tuple, y: np.ndarray, b: tuple, promising: np.ndarray) -> dict[str, Any]:
    """Return inliers, correlation, mirrored and transform of the better of x and mirrored x onto y."""
    best: tuple[int, np.ndarray | None, bool] = (0, None, False)
    for mirrored in np.flatnonzero(promising):
        inliers, transform = _fit(_mirror(*a) if mirrored else a, b)
        if inliers > best[0]:
            best = (inliers, transform, bool(mirrored))
        if inliers >= 25:
            break
    inliers, transform, mirrored = best
    correlation = 0.0
    if inliers >= MIN_INLIERS and transform is not None:
        source, target = np.ascontiguousarray(x[:, ::-1]) if mirrored else np.asarray(x), np.asarray(y)
        correlation = _local_correlation(source, target, transform)
        if MAYBE_CORRELATION <= correlation < MIN_CORRELATION:  # the map may be imprecise
            refined = _refine(source, target, transform)
            correlation = max(correlation, _local_correlation(source, target, refined))
    return {"inliers": inliers, "correlation": correlation, "mirrored": mirrored, "transform": transform}


def _refine(x: np.ndarray, y: np.ndarray, transform: np.ndarray) -> np.ndarray:
    """Return the map of x onto y, refined by enhanced correlation (Evangelidis and Psarakis 2008)."""
    inverse = cv2.invertAffineTransform(transform).astype(np.float32)
    stop = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 30, 1e-4)
    inside = cv2.erode(((y > 2) * 255).astype(np.uint8), np.ones((5, 5), np.uint8))
    try:
        _, inverse = cv2.findTransformECC(y, x, inverse, cv2.MOTION_AFFINE, stop, inside, 5)
    except cv2.error:  # it does not converge
        return transform
    return cv2.invertAffineTransform(inverse)


def _nearest(similarity: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return each row's best column, and whether it is clearly nearer than the second (Lowe 2004).

    Overwrites `similarity`.
    """
    match = similarity.argmax(axis=-1, keepdims=True)
    best = np.take_along_axis(similarity, match, axis=-1)[..., 0]
    np.put_along_axis(similarity, match, -1, axis=-1)
    return match[..., 0], 1 - best < _RATIO**2 * (1 - similarity.max(axis=-1))


def _find_promising(descriptors: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """Return for each pair (n, 2), as it is and mirrored, whether enough of the strongest points match.

    Pairs of one source do, most others do not.
    """
    a, b = (descriptors[pairs[:, side], :_STRONGEST].astype(np.float32) / 512 for side in (0, 1))
    promising = np.empty((len(pairs), 2), bool)
    for mirrored in (0, 1):
        _, clear = _nearest((_mirror_descriptors(a) if mirrored else a) @ b.transpose(0, 2, 1))
        promising[:, mirrored] = clear.sum(axis=1) >= _PROMISING
    return promising


def _fit(a: tuple[np.ndarray, np.ndarray], b: tuple[np.ndarray, np.ndarray]) -> tuple[int, np.ndarray | None]:
    """Return how many distinct points one affine map explains, and the map; 0 and None if implausible."""
    (points_a, features_a), (points_b, features_b) = a, b
    match, clear = _nearest(features_a.astype(np.float32) @ features_b.astype(np.float32).T / 512**2)
    from_a, to_b = points_a[clear], points_b[match[clear]]
    if len(from_a) < MIN_INLIERS:
        return 0, None
    transform, mask = cv2.estimateAffine2D(
        from_a, to_b, method=cv2.RANSAC, ransacReprojThreshold=_REPROJECTION, maxIters=500, confidence=0.99
    )
    if transform is None:
        return 0, None
    large, small = np.linalg.svd(transform[:, :2], compute_uv=False)
    if small < 0.4 or large > 2.5 or large > 2 * small:  # implausible zoom or shear
        return 0, None
    kept = mask.ravel() > 0
    if not kept.any():
        return 0, None
    spread = min(np.ptp(side[kept], axis=0).max() for side in (from_a, to_b))
    if spread < MIN_EXTENT * SIDE:
        return 0, None
    return min(len(np.unique(np.round(side[kept]), axis=0)) for side in (from_a, to_b)), transform


def _local_correlation(x: np.ndarray, y: np.ndarray, transform: np.ndarray, window: int = 21) -> float:
    """Return the mean normalised correlation of windows of x, mapped onto y, where both have texture."""

    def mean(image: np.ndarray) -> np.ndarray:
        return cv2.boxFilter(image, -1, (window, window))

    mapped = cv2.GaussianBlur(cv2.warpAffine(x, transform, (SIDE, SIDE)), (0, 0), 1).astype(np.float32)
    y = cv2.GaussianBlur(y, (0, 0), 1).astype(np.float32)
    outside = cv2.dilate(((mapped < 2) | (y < 2)).astype(np.uint8), np.ones((window // 2,) * 2, np.uint8)) > 0
    mean_x, mean_y = mean(mapped), mean(y)
    var_x, var_y = mean(mapped * mapped) - mean_x**2, mean(y * y) - mean_y**2
    textured = (var_x > 9) & (var_y > 9) & ~outside
    if textured.sum() < 300:
        return 0.0
    covariance = (mean(mapped * y) - mean_x * mean_y)[textured]
    return float((covariance / np.sqrt(var_x[textured] * var_y[textured])).mean())
