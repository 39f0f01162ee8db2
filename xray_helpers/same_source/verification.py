"""Whether two pictures are one: local features agree on an affine map, under which the pictures look alike.

Each pair of features that match proposes a map by itself, from their positions, sizes and directions (Philbin
et al. 2007); the map that most others agree with is refined. Whether one picture is mirrored, or a negative,
is known from the features (`local_features`).
"""

from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import cv2
import numpy as np

from xray_helpers.same_source.local_features import (
    SCALE,
    SETS,
    SIDE,
    SIGNS,
    compute_local_features,
    describe_picture,
    one_thread_each,
)
from xray_helpers.same_source.registration import MIN_AREA, find_overlay, register
from xray_helpers.same_source.rules import is_sure
from xray_helpers.study.cache import RowView, release
from xray_helpers.study.machine import cores

VERSION = 20  # of the cached pairs
MIN_INLIERS = 10
MIN_EXTENT = 0.22  # of the side: inliers within a marker are no evidence
_STRONGEST = 96  # points of each set compared first
_SOME = 4  # matches of these from which they are compared the other way too
_PROMISING = 9  # matches of these from which all points are compared
_FIRST_RATIO, _RATIO = 0.8, 0.85  # of the distances to the nearest and second nearest descriptor
_WIDE, _NARROW, _STEPS = 16.0, 4.0, 4  # pixels within which a map explains a match: at first, in the end
_FEWEST_FOR_PERSPECTIVE = 15  # matches
_FEWEST = 12  # matches that one of them explains widely, without which no map explains MIN_INLIERS narrowly
_ENOUGH = 25  # inliers at which other hypotheses are not tried
_FLIPS = np.array([[[1, 0], [0, 1]], [[1, 0], [0, -1]], [[-1, 0], [0, -1]], [[-1, 0], [0, 1]]], float)
_COMPARED_SIDE, _WINDOW = 128, 11  # pixels
_MANIFEST, _CLOSE = 15, 2.4  # inliers, with fewer: spread up to which pictures are correlated
_MANY, _ALIKE = 60, 0.9  # inliers up to which, and correlation from which on, detail is compared
_BEND, _STIFF = 0.06, 0.5  # range of a match, share of the side; weight of the affine map, in matches
_REGISTERED = 0.8  # correlation from which on a pair that is not sure is registered
_FLAT = 0.02  # variance of grey levels up to which a window has nothing to compare


class _Fit(NamedTuple):
    """A map and what it explains."""

    inliers: int = 0  # distinct points
    whole: np.ndarray | None = None  # (3, 3), a to b
    points: tuple[np.ndarray, np.ndarray] | None = None  # matches (n, 2) in a and b that it nearly explains
    form: int = 0  # of a
    spread: float = np.inf  # pixels of the larger of the two: median distance of these matches from the map


class Aligner:
    """Compares blocks of pairs of pictures, on all cores.

    Parameters
    ----------
    pictures : RowView
        Uint8, 256 x 256, 0-255.
    shapes : ndarray of int, shape (n, 2)
        Height and width of the files.
    shas : ndarray of str, shape (n,)
        SHA-256 under which the local features are cached, in rising order.
    """

    def __init__(self, pictures: RowView, shapes: np.ndarray, shas: np.ndarray) -> None:
        self.pictures = pictures
        self.local = compute_local_features(pictures, shapes, shas)

    def compare(self, pairs: np.ndarray) -> list[dict[str, Any]]:
        """Return the evidence on those pairs (n, 2) that have any; to be called within `one_thread_each`.

        Its keys are i, j, inliers, points (of the picture with fewer), correlation (-1 to 1), detail (that of
        fine detail, of pairs with few inliers that correlate), registered (`registration.register`, of pairs
        that correlate and are not yet sure), spread (pixels, the median distance of matches from the map),
        mirrored, negative and transform: the 2 x 3 affine map of i (mirrored first, if mirrored) onto j, or
        None.
        """
        with ThreadPoolExecutor(cores()) as pool:
            parts = [pairs[start : start + 32] for start in range(0, len(pairs), 32)]
            promising = pool.map(lambda part: _find_promising(*(self.local[rows] for rows in part.T)), parts)
            chosen = np.concatenate([np.empty(0, bool), *promising])
            found = [*pool.map(self._compare_pair, pairs[chosen].tolist())]
        release(self.local)
        release(self.pictures.array)
        return found

    def compare_picture(
        self, picture: np.ndarray, shape: tuple[int, int], rows: np.ndarray
    ) -> list[dict[str, Any]]:
        """Return the evidence on a picture, which is not kept, and these rows: which may be its source.

        Parameters
        ----------
        picture : ndarray of uint8, shape (256, 256), 0-255
        shape : (int, int)
            Height and width of the file.
        rows : ndarray of int
            Of the pictures it is compared with.

        Returns
        -------
        list of dict
            As of `compare`; i is -1, j is the row.
        """
        with one_thread_each():
            own = describe_picture(picture, shape)
            promising = _find_promising(np.broadcast_to(own, len(rows)), self.local[rows])
            return [
                _compare(picture, own, self.pictures[row], self.local[row]) | {"i": -1, "j": row}
                for row in rows[promising].tolist()
            ]

    def _compare_pair(self, pair: list[int]) -> dict[str, Any]:
        i, j = pair
        found = _compare(self.pictures[i], self.local[i], self.pictures[j], self.local[j])
        return found | {"i": i, "j": j}


def _nearest(similarity: np.ndarray, ratio: float) -> tuple[np.ndarray, np.ndarray]:
    """Return each row's best column, and whether it is clearly nearer than the second (Lowe 2004).

    Overwrites `similarity`.
    """
    match = similarity.argmax(axis=-1, keepdims=True)
    best = np.take_along_axis(similarity, match, axis=-1)[..., 0]
    np.put_along_axis(similarity, match, -1, axis=-1)
    return match[..., 0], 1 - best < ratio**2 * (1 - similarity.max(axis=-1))


def _find_forms(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return which form of each descriptor in a is most like that in b: 0 to 3, as the rows of `SIGNS`."""
    quarters = (a * b).reshape(-1, 4, 32).sum(axis=2)
    return (quarters @ SIGNS).argmax(axis=1)


def _find_promising(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return for records a and b of `LOCAL`, pair by pair, whether enough of the strongest points match, all
    in the same form.

    A crop has few of the strongest points of the whole: where some match, those of b are also looked for in
    a, unless one of the two is plain, where many points are alike.
    """
    found = _count_matches(a, b)
    last = SETS[0].stop - 1
    full = a["descriptors"][:, last].any(axis=1) & b["descriptors"][:, last].any(axis=1)
    again = np.flatnonzero((found >= _SOME) & (found < _PROMISING) & full)
    found[again] = np.maximum(found[again], _count_matches(b[again], a[again]))
    return found >= _PROMISING


def _count_matches(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return how many of the strongest points of each record a match one of b in the most frequent form."""
    counts = np.zeros((len(a), 4), int)
    for rows in SETS:
        strongest = slice(rows.start, rows.start + _STRONGEST)
        has_both = (a["descriptors"][:, rows.start].any(axis=1)) & (
            b["descriptors"][:, rows.start].any(axis=1)
        )
        pairs = np.flatnonzero(has_both)  # elongated pictures alone have points of all sets
        x, y = (side["descriptors"][pairs, strongest].astype(np.float32) / SCALE for side in (a, b))
        if not len(pairs):
            continue
        match, clear = _nearest(np.abs(x) @ np.abs(y).transpose(0, 2, 1), _FIRST_RATIO)
        pair, row = np.nonzero(clear)
        np.add.at(counts, (pairs[pair], _find_forms(x[pair, row], y[pair, match[pair, row]])), 1)
    return counts.max(axis=1)


def _compare(x: np.ndarray, a: np.ndarray, y: np.ndarray, b: np.ndarray) -> dict[str, Any]:
    """Return the evidence of `Aligner.compare` on x and y, but for i and j."""
    fit = _fit(a, b)
    mirrored, negative, transform = fit.form in (1, 3), fit.form in (2, 3), None
    correlation = detail = 0.0
    if fit.inliers >= MIN_INLIERS and (fit.inliers >= _MANIFEST or fit.spread <= _CLOSE):
        sign = -1 if negative else 1
        correlation = _correlate(x, y, fit, sign)
        if fit.inliers < _MANY and correlation > _ALIKE:
            detail = _correlate(x, y, fit, sign, detail=True)
        flip = np.array([[-1, 0, SIDE - 1], [0, 1, 0], [0, 0, 1]]) if mirrored else np.eye(3)
        transform = (fit.whole @ flip)[:2]
    found = {
        "inliers": fit.inliers,
        "points": int(min(side["descriptors"].any(axis=1).sum() for side in (a, b))),
        "correlation": correlation,
        "detail": detail,
        "registered": 0.0,
        "spread": min(fit.spread, SIDE),
        "mirrored": mirrored,
        "negative": negative,
        "transform": transform,
    }
    if correlation >= _REGISTERED and not is_sure(found):
        found["registered"] = register(x[:, ::-1] if mirrored else x, y, fit.whole, -1 if negative else 1)
    return found


def _match(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return rows of a and of b that match, and their forms."""
    own, others = (np.flatnonzero(side["descriptors"].any(axis=1)) for side in (a, b))
    x, y = (side["descriptors"][kept].astype(np.float32) / SCALE for side, kept in ((a, own), (b, others)))
    similarity = np.abs(x) @ np.abs(y).T
    i, j = [], []
    for rows in SETS:  # a point that is in both sets is not its own rival
        first, last = np.searchsorted(others, (rows.start, rows.stop))
        if last > first:
            match, clear = _nearest(similarity[:, first:last], _RATIO)
            i.append(np.flatnonzero(clear))
            j.append(first + match[clear])
    if not i:
        return np.empty(0, int), np.empty(0, int), np.empty(0, int)
    i, j = np.concatenate(i), np.concatenate(j)
    return own[i], others[j], _find_forms(x[i], y[j])


def _fit(a: np.ndarray, b: np.ndarray) -> _Fit:
    """Return the affine map that explains most matches of records a and b."""
    i, j, forms = _match(a, b)
    counts = np.bincount(forms, minlength=4)
    best = _Fit()
    for form in np.argsort(-counts, kind="stable").tolist():
        if counts[form] < max(best.inliers, _FEWEST):
            break
        chosen = forms == form
        found = _fit_form(a, i[chosen], b, j[chosen], form)
        best = max(best, found, key=lambda fit: fit.inliers)
    return best


def _fit_form(a: np.ndarray, i: np.ndarray, b: np.ndarray, j: np.ndarray, form: int) -> _Fit:
    """Return the map that explains most of these matches, which are of one form."""
    p, q = a["points"][i].astype(float), b["points"][j].astype(float)
    linear = b["frames"][j] @ _FLIPS[form] @ np.linalg.inv(a["frames"][i].astype(float))
    offset = q - np.einsum("nij,nj->ni", linear, p)
    error = linear @ p.T + (offset[:, :, None] - q.T)  # (hypotheses, 2, matches)
    explained = (error**2).sum(axis=1) < _WIDE**2
    best, proportions = _Fit(), (a["proportions"], b["proportions"])
    counts = explained.sum(axis=1)
    for hypothesis in np.argsort(-counts, kind="stable")[:2]:
        if counts[hypothesis] < _FEWEST:
            break
        found = _refine(p, q, explained[hypothesis], proportions)
        best = max(best, found._replace(form=form), key=lambda fit: fit.inliers)
        if best.inliers >= _ENOUGH:
            break
    return best


def _is_plausible(linear: np.ndarray, proportions: tuple[np.ndarray, np.ndarray]) -> bool:
    """Return whether a map zooms and shears little, between the stretched pictures or between the files.

    A stretched file is hardly changed in the former, an elongated one that is turned only in the latter.
    """
    a, b = proportions
    for matrix in (linear, b[:, None] * linear / a):
        large, small = np.linalg.svd(matrix, compute_uv=False)
        if small >= 0.25 and large <= min(4, 2.5 * small):
            return True
    return False


def _refine(
    p: np.ndarray, q: np.ndarray, kept: np.ndarray, proportions: tuple[np.ndarray, np.ndarray]
) -> _Fit:
    """Return the map that is fitted to ever closer matches of points p and q."""
    design = np.column_stack([p / SIDE, np.ones(len(p))])
    for limit in np.linspace(_WIDE * 0.75, _NARROW, _STEPS):
        if kept.sum() < 4:
            return _Fit()
        solution = np.linalg.lstsq(design[kept], q[kept], rcond=None)[0]
        squares = ((design @ solution - q) ** 2).sum(axis=1)
        kept = squares < limit**2
    if not kept.any() or min(np.ptp(side[kept], axis=0).max() for side in (p, q)) < MIN_EXTENT * SIDE:
        return _Fit()
    linear = solution[:2].T / SIDE
    if not _is_plausible(linear, proportions):
        return _Fit()
    whole = np.vstack([np.column_stack([linear, solution[2]]), [0, 0, 1]])
    near = squares < (_WIDE * 0.75) ** 2
    seen = _measure_by_perspective(p, q, near)
    kept |= seen < _NARROW**2
    distinct = min(len({*map(tuple, np.round(side[kept] / 3).tolist())}) for side in (p, q))
    chosen = near | kept
    spread = np.sqrt(min(np.median(squares[chosen]), np.median(seen[chosen])))
    smaller = min(1, np.sqrt(abs(np.linalg.det(linear))))
    return _Fit(distinct, whole, (p[chosen], q[chosen]), spread=float(spread / smaller))


def _measure_by_perspective(p: np.ndarray, q: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """Return the squared distance of matches from a perspective map that is fitted to those kept; infinite if
    these are few.
    """
    x, y = (p / SIDE - 0.5).T
    one, zero = np.ones(len(p)), np.zeros((len(p), 3))
    u, v = (q / SIDE - 0.5).T
    plane = np.column_stack([x, y, one])
    for limit in (_WIDE * 0.75, _WIDE / 2, _NARROW):
        if kept.sum() < _FEWEST_FOR_PERSPECTIVE:
            return np.full(len(p), np.inf)
        rows = np.concatenate(
            [
                np.column_stack([plane, zero, -u * x, -u * y])[kept],
                np.column_stack([zero, plane, -v * x, -v * y])[kept],
            ]
        )
        h = np.linalg.lstsq(rows, np.concatenate([u[kept], v[kept]]), rcond=None)[0]
        depth = 1 + h[6] * x + h[7] * y
        seen = np.column_stack([plane @ h[:3], plane @ h[3:6]]) / np.maximum(depth, 0.2)[:, None]
        squares = (((seen - np.column_stack([u, v])) * SIDE) ** 2).sum(axis=1)
        kept = squares < limit**2
    return squares


def _find_origins(fit: _Fit, side: int) -> np.ndarray:
    """Return which point of a comes to each pixel of b, both of `side` pixels: float32 (side, side, 2).

    It is the affine map, bent smoothly to the matches nearby: pictures may be distorted.
    """
    scale = side / SIDE
    back = np.linalg.inv(fit.whole)
    grid = np.stack(np.meshgrid(*[(np.arange(side) + 0.5) / scale - 0.5] * 2), axis=-1)
    p, q = fit.points
    votes = np.zeros((side, side, 3), np.float32)
    at = np.clip(np.round((q + 0.5) * scale - 0.5).astype(int), 0, side - 1)
    residual = p - (q @ back[:2, :2].T + back[:2, 2])
    np.add.at(votes, (at[:, 1], at[:, 0]), np.column_stack([residual, np.ones(len(p))]))
    votes = cv2.GaussianBlur(votes, (0, 0), _BEND * side, borderType=cv2.BORDER_CONSTANT)
    bend = votes[..., :2] / (votes[..., 2:] + _STIFF / (2 * np.pi * (_BEND * side) ** 2))
    return (((grid @ back[:2, :2].T + back[:2, 2] + bend) + 0.5) * scale - 0.5).astype(np.float32)


def _correlate(x: np.ndarray, y: np.ndarray, fit: _Fit, sign: int, *, detail: bool = False) -> float:
    """Return the median, over windows of the overlap, of the correlation of x, mapped onto y, with y.

    Windows where neither has texture do not count; where only one has, it is 0. What is written on a picture
    or cut out of it changes the median little as long as most of it is left. Detail is what a blur of 2
    pixels removes: limbs of two people may look alike without it.
    """
    side, window = (SIDE, 2 * _WINDOW - 1) if detail else (_COMPARED_SIDE, _WINDOW)
    x, y = (cv2.resize(np.asarray(picture), (side, side), interpolation=cv2.INTER_AREA) for picture in (x, y))
    origins = _find_origins(fit, side)
    mapped = cv2.remap(x, origins, None, cv2.INTER_LINEAR)
    inside = cv2.remap(np.full_like(x, 255), origins, None, cv2.INTER_NEAREST)
    inside = cv2.erode(inside, np.ones((window, window), np.uint8)) > 0
    inside &= ~find_overlay(mapped if sign > 0 else 255 - mapped, y, window)
    if inside.sum() < MIN_AREA:
        return 0.0
    mapped, y = (
        cv2.GaussianBlur(picture.astype(np.float32), (0, 0), 0.8 if detail else 1) for picture in (mapped, y)
    )
    if detail:
        mapped, y = (picture - cv2.GaussianBlur(picture, (0, 0), 2) for picture in (mapped, y))

    def mean(image: np.ndarray) -> np.ndarray:
        return cv2.boxFilter(image, -1, (window, window))

    mean_x, mean_y = mean(mapped), mean(y)
    var_x, var_y = mean(mapped * mapped) - mean_x**2, mean(y * y) - mean_y**2
    texture_x, texture_y = (
        var > np.clip(var[inside].mean() / 20, 0.02 if detail else 0.5, 9) for var in (var_x, var_y)
    )
    one, both = (texture_x | texture_y) & inside, np.minimum(var_x, var_y) > _FLAT
    if one.sum() < MIN_AREA:
        return 0.0
    covariance = sign * (mean(mapped * y) - mean_x * mean_y)
    local = np.where(both, covariance / np.sqrt(np.maximum(var_x * var_y, 1e-6)), 0.0)
    return float(np.median(local[one]))
