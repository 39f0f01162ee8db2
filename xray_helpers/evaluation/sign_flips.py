"""A paired test of two models by random sign flips, and the confidence interval that agrees with it.

If two models are exchangeable, swapping them in a group flips the sign of that group's contribution to the
difference. The two-sided p is the share of all such swaps whose sum is at least as large, by the saddlepoint
approximation of Lugannani and Rice (1980), which needs no resampling and is accurate far into the tails, but
coarse where a few groups make up the sum. The interval holds all differences that this test does not reject
at 5 %: it excludes 0 exactly where p < 0.05.
"""

import numpy as np
from scipy import optimize, stats

from xray_helpers.evaluation.intervals import LEVEL


def sign_flip_p(parts: np.ndarray, shrink: float = 1.0) -> float:
    """Return the two-sided p of the sum of `parts`, were their signs random.

    Parameters
    ----------
    parts : ndarray of float, shape (groups,)
    shrink : float
        A factor by which the sum is multiplied first.
    """
    size = np.abs(parts[parts != 0])
    total = shrink * abs(parts.sum())
    if not len(size) or total <= 1e-9 * size.sum():
        return 1.0
    size, total = size / np.sqrt((size**2).sum()), total / np.sqrt((size**2).sum())
    least = max(2.0 ** (1 - len(size)), np.finfo(float).tiny)  # all signs are equal
    if total >= size.sum() * (1 - 1e-9):
        return least
    high = 1.0
    while (size * np.tanh(high * size)).sum() < total and high < 1e9:
        high *= 2
    tilt = optimize.brentq(lambda s: (size * np.tanh(s * size)).sum() - total, 0, high, xtol=1e-12)
    cumulants = (np.logaddexp(tilt * size, -tilt * size) - np.log(2)).sum()
    root = np.sqrt(max(2 * (tilt * total - cumulants), 0))
    slope = tilt * np.sqrt((size**2 * (1 - np.tanh(tilt * size) ** 2)).sum())
    if root < 1e-4 or slope <= 0:
        return 1.0 if root < 1e-4 else least
    tail = stats.norm.sf(root) + stats.norm.pdf(root) * (1 / slope - 1 / root)
    return float(np.clip(2 * tail, least, 1.0))


def sign_flip_interval(
    parts: np.ndarray, shares: np.ndarray, shrink: float = 1.0
) -> tuple[float, float, float]:
    """Return the ends of the 95 % interval of a difference, and p of no difference.

    Parameters
    ----------
    parts : ndarray of float, shape (groups,)
        What each group contributes to the difference; they sum to it.
    shares : ndarray of float, shape (groups,)
        What each would contribute to a difference of 1; they sum to 1.
    shrink : float
        As for `sign_flip_p`.
    """
    value, alpha = float(parts.sum()), 1 - LEVEL
    p = sign_flip_p(parts, shrink)
    if not parts.any():
        return 0.0, 0.0, p

    def excess(at: float) -> float:
        left = parts - at * shares
        left[np.abs(left) < 1e-12 * np.abs(parts).max()] = 0.0  # rounding error, where all groups agree
        return sign_flip_p(left, shrink) - alpha

    def find_end(direction: int) -> float:
        inner, toward_zero = value, value * direction < 0
        if toward_zero and p < alpha:
            return optimize.brentq(excess, 0.0, value, xtol=1e-7)
        if toward_zero:
            inner = 0.0
        step = 0.02
        while abs(inner) <= 1:
            outer = inner + direction * step
            if excess(outer) < 0:
                return optimize.brentq(excess, inner, outer, xtol=1e-7)
            inner, step = outer, 2 * step
        return float(direction)

    return max(find_end(-1), -1.0), min(find_end(1), 1.0), p
