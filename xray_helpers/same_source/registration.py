"""Whether two pictures agree once one is registered onto the other by their grey levels, in perspective.

Points alone place the photograph of a screen within a few pixels, and moire hides its detail. Registered by
the enhanced correlation coefficient (Evangelidis and Psarakis 2008), with contrast made even, bones of one
picture lie on each other; those of two people, or of two exposures of one hand, still do not.
"""

import cv2
import numpy as np

from xray_helpers.same_source.local_features import SIDE

_SIDE, _BLUR, _EVEN, _ITERATIONS = 128, 1.5, 10.0, 40  # pixels; sigmas of a blur, and of even contrast
_FINE, _COARSE, _WINDOW, _MARGIN = 0.8, 3.0, 13, 7  # sigmas of the band that is compared; pixels
_WHITE = 250  # grey level
MIN_AREA = 300  # pixels of the overlap that have to be compared
_CORNERS = 0.15  # of the windows
ENOUGH = 0.87  # correlation from which on two pictures are one: `rules.is_sure`
_LEAST_OVERLAP = 0.6  # of the second picture: less may be a few fingers of two hands


def register(x: np.ndarray, y: np.ndarray, whole: np.ndarray, sign: int) -> float:
    """Return how well x, registered onto y, agrees with it: the median correlation of corners, -1 to 1.

    Parameters
    ----------
    x, y : ndarray of uint8, shape (256, 256), 0-255
        x mirrored, if one is the mirror image of the other.
    whole : ndarray of float, shape (3, 3)
        The map of x onto y from which to start.
    sign : {1, -1}
        -1 where one is the negative of the other.

    Returns
    -------
    float
        0 where no registration is found, or the overlap is less than `_LEAST_OVERLAP`.
    """
    a, b = sign * _even_out(x), _even_out(y)
    shrink = np.array([[_SIDE / SIDE, 0, 0], [0, _SIDE / SIDE, 0], [0, 0, 1]])
    shrink[:2, 2] = (_SIDE / SIDE - 1) / 2  # of the centres of pixels
    back = shrink @ np.linalg.inv(shrink @ whole)
    back = (back / back[2, 2]).astype(np.float32)
    stop = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, _ITERATIONS, 1e-4)
    try:
        _, back = cv2.findTransformECC(b, a, back, cv2.MOTION_HOMOGRAPHY, stop, None, 3)
    except cv2.error:  # it does not converge
        return 0.0
    flags = cv2.WARP_INVERSE_MAP
    mapped = cv2.warpPerspective(a, back, b.shape, flags=flags | cv2.INTER_LINEAR)
    inside = cv2.warpPerspective(np.ones_like(b), back, b.shape, flags=flags | cv2.INTER_NEAREST)
    inside = cv2.erode(inside, np.ones((_MARGIN, _MARGIN))) > 0
    if inside.mean() < _LEAST_OVERLAP:
        return 0.0
    shown = cv2.warpPerspective(
        _shrink(x if sign > 0 else 255 - x), back, b.shape, flags=flags | cv2.INTER_LINEAR
    )
    inside &= ~find_overlay(shown, _shrink(y), _WINDOW)
    return _correlate_corners(mapped, b, inside) if inside.sum() >= MIN_AREA else 0.0


def find_overlay(a: np.ndarray, b: np.ndarray, window: int) -> np.ndarray:
    """Return which windows of two pictures, uint8, touch what is white in both, bool of the same shape.

    An equal frame with its text lies alike over any two pictures; in a copy there is enough beside it.
    """
    white = (np.minimum(a, b) >= _WHITE).astype(np.uint8)
    return cv2.dilate(white, np.ones((window, window), np.uint8)) > 0


def _shrink(picture: np.ndarray) -> np.ndarray:
    return cv2.resize(np.ascontiguousarray(picture), (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)


def _even_out(picture: np.ndarray) -> np.ndarray:
    """Return a smaller, blurred picture whose mean and contrast are the same everywhere, float32."""
    small = cv2.GaussianBlur(_shrink(picture).astype(np.float32), (0, 0), _BLUR)
    small -= cv2.GaussianBlur(small, (0, 0), _EVEN)
    return small / (np.sqrt(cv2.GaussianBlur(small * small, (0, 0), _EVEN)) + 4)


def _correlate_corners(a: np.ndarray, b: np.ndarray, inside: np.ndarray) -> float:
    """Return the median correlation of the windows with the most pronounced corners in either picture.

    Along an edge, any two bones agree. What is a corner, the smaller eigenvalue of the gradients tells (Shi
    and Tomasi 1994). Compared is what lies between the two sigmas.
    """
    a, b = (cv2.GaussianBlur(x, (0, 0), _FINE) - cv2.GaussianBlur(x, (0, 0), _COARSE) for x in (a, b))

    def mean(image: np.ndarray) -> np.ndarray:
        return cv2.boxFilter(image, -1, (_WINDOW, _WINDOW))

    var_a, var_b = mean(a * a) - mean(a) ** 2, mean(b * b) - mean(b) ** 2
    local = (mean(a * b) - mean(a) * mean(b)) / np.sqrt(np.maximum(var_a * var_b, 1e-9))
    corners = np.maximum(cv2.cornerMinEigenVal(a, _WINDOW), cv2.cornerMinEigenVal(b, _WINDOW))
    return float(np.median(local[inside & (corners >= np.quantile(corners[inside], 1 - _CORNERS))]))
