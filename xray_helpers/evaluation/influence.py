"""Scores, and how much each image contributes to them, in one pass over the images.

Each function returns the score and the influence of the images, shape (n,): the weight of an image times
the derivative of the score by that weight. Influences sum to 0, and their sums over groups give the variance
of the score (`intervals.compute_group_statistics`).
"""

from collections.abc import Callable

import numpy as np

CELLS = ("tp", "fp", "tn", "fn")


def auroc(y_true: np.ndarray, y_prob: np.ndarray, weight: np.ndarray) -> tuple[float, np.ndarray]:
    """AUROC by placements, where ties count half; NaN with one class only."""
    positive, negative = weight * y_true, weight * (1 - y_true)
    if not positive.any() or not negative.any():
        return float("nan"), np.zeros(len(weight))
    above, below = placements(y_prob, y_prob, negative), placements(y_prob, y_prob, positive)
    placement = np.where(y_true == 1, above, 1 - below)
    value = float(positive @ placement / positive.sum())
    return value, (placement - value) * (positive / positive.sum() + negative / negative.sum())


def placements(scores: np.ndarray, others: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Return for each score the share of the others' weight that lies below it; ties count half."""
    levels, rank = np.unique(np.concatenate([scores, others]), return_inverse=True)
    at = np.bincount(rank[len(scores) :], weight, len(levels))
    return ((np.cumsum(at) - at / 2) / at.sum())[rank[: len(scores)]]


def average_precision(y_true: np.ndarray, y_prob: np.ndarray, weight: np.ndarray) -> tuple[float, np.ndarray]:
    """Average precision as in scikit-learn: precision at each threshold, weighted by the recall it adds."""
    _, rank = np.unique(-y_prob, return_inverse=True)
    found, called = np.bincount(rank, weight * y_true), np.bincount(rank, weight)
    total = found.sum()
    if not total:
        return float("nan"), np.zeros(len(weight))
    hits, calls = np.cumsum(found), np.cumsum(called)
    precision = np.divide(hits, calls, out=np.zeros_like(hits), where=calls > 0)
    value = float(found @ precision / total)
    per_call = np.divide(found, calls, out=np.zeros_like(hits), where=calls > 0)
    gained, lost = (np.cumsum(part[::-1])[::-1] for part in (per_call, per_call * precision))
    derivative = (y_true * (precision[rank] - value + gained[rank]) - lost[rank]) / total
    return value, weight * derivative


def brier(y_true: np.ndarray, y_prob: np.ndarray, weight: np.ndarray) -> tuple[float, np.ndarray]:
    """Brier score (1950): the mean squared difference of probability and truth."""
    error = (y_prob - y_true) ** 2
    value = float(weight @ error / weight.sum())
    return value, weight * (error - value) / weight.sum()


def of_counts(score: Callable, cells: np.ndarray, weight: np.ndarray) -> tuple[float, np.ndarray]:
    """Score and influence of a function of weighted counts, differentiated by a complex step.

    Parameters
    ----------
    score : callable
        Of tp, fp, tn and fn, by arithmetic alone; they are complex numbers in the derivatives.
    cells : ndarray of int, shape (n,)
        Which of `CELLS` each image falls in.
    weight : ndarray of float, shape (n,)
    """
    counts = np.bincount(cells, weight, len(CELLS))
    with np.errstate(divide="ignore", invalid="ignore"):
        value = float(score(*counts))
        steps = [score(*(counts + 1e-20j * unit)) for unit in np.eye(len(CELLS))]
    gradient = np.nan_to_num(np.imag(steps) / 1e-20)
    return value, weight * gradient[cells] if np.isfinite(value) else np.zeros(len(weight))


def f1(tp: complex, fp: complex, tn: complex, fn: complex) -> complex:
    """Harmonic mean of precision and recall."""
    return 2 * tp / (2 * tp + fp + fn)


def balanced_accuracy(tp: complex, fp: complex, tn: complex, fn: complex) -> complex:
    """Mean of sensitivity and specificity."""
    return (tp / (tp + fn) + tn / (tn + fp)) / 2


def kappa(tp: complex, fp: complex, tn: complex, fn: complex) -> complex:
    """Cohen's kappa (1960) of calls and truth: agreement beyond what is expected by chance."""
    n = tp + fp + tn + fn
    chance = ((tp + fp) * (tp + fn) + (tn + fn) * (tn + fp)) / n**2
    return ((tp + tn) / n - chance) / (1 - chance)


def mcc(tp: complex, fp: complex, tn: complex, fn: complex) -> complex:
    """Matthews correlation coefficient (1975) of calls and truth."""
    return (tp * tn - fp * fn) / np.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))


def disagreement(true: np.ndarray, said: np.ndarray, cost: np.ndarray) -> tuple[float, np.ndarray]:
    """Weighted kappa (Cohen 1968) of two assignments to k classes, and the influence of each image.

    Parameters
    ----------
    true, said : ndarray of int, shape (n,)
    cost : ndarray of float, shape (k, k)
        Of each pair of classes; 0 on the diagonal. With 1 elsewhere it is Cohen's kappa (1960).
    """
    n, k = len(true), len(cost)
    rows, columns = np.bincount(true, minlength=k) / n, np.bincount(said, minlength=k) / n
    seen, chance = float(cost[true, said].mean()), float(rows @ cost @ columns)
    if not chance:
        return float("nan"), np.zeros(n)
    change = (cost @ columns)[true] + (rows @ cost)[said] - 2 * chance
    return 1 - seen / chance, -((cost[true, said] - seen) - seen / chance * change) / (chance * n)
