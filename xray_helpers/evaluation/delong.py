"""DeLong's variance of AUROC and test of paired AUROCs, for independent images (DeLong et al. 1988)."""

from typing import NamedTuple

import numpy as np
from scipy import stats

from xray_helpers.evaluation.intervals import TAILS


class Comparison(NamedTuple):
    """Two AUROCs on the same images: their difference, its 95 % interval, z and two-sided p."""

    difference: float
    low: float
    high: float
    z: float
    p: float


def auroc_covariance(y_true: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the AUROC of each row of scores and their covariance, by midranks (Sun and Xu 2014).

    Parameters
    ----------
    y_true : ndarray of int, shape (n,)
        1 = Fractured; both classes are needed.
    scores : ndarray, shape (models, n)
        Higher means more likely fractured.

    Returns
    -------
    auroc : ndarray, shape (models,)
    covariance : ndarray, shape (models, models)
        NaN where a class has a single image.
    """
    positive, negative = scores[:, y_true == 1], scores[:, y_true == 0]
    m, n = positive.shape[1], negative.shape[1]
    ranks = stats.rankdata(np.concatenate([positive, negative], axis=1), axis=1)
    above_negatives = (ranks[:, :m] - stats.rankdata(positive, axis=1)) / n  # share of negatives below each
    below_positives = 1 - (ranks[:, m:] - stats.rankdata(negative, axis=1)) / m
    parts = [
        np.atleast_2d(np.cov(part)) / count if count > 1 else np.full((len(scores),) * 2, np.nan)
        for part, count in ((above_negatives, m), (below_positives, n))
    ]
    return above_negatives.mean(axis=1), parts[0] + parts[1]


def delong_interval(y_true: np.ndarray, score: np.ndarray) -> tuple[float, float]:
    """Return the 95 % interval of AUROC, within 0 to 1; two NaN where a class has a single image."""
    auroc, covariance = auroc_covariance(y_true, score[None])
    half = stats.norm.ppf(TAILS[1]) * np.sqrt(covariance[0, 0])
    return float(max(auroc[0] - half, 0.0)), float(min(auroc[0] + half, 1.0))


def compare_auroc(y_true: np.ndarray, first: np.ndarray, second: np.ndarray) -> Comparison:
    """Test whether two scores of the same images have one AUROC; p is 1 where they rank the images alike."""
    auroc, covariance = auroc_covariance(y_true, np.stack([first, second]))
    difference = float(auroc[0] - auroc[1])
    variance = float(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])
    error = np.sqrt(max(variance, 0.0)) if np.isfinite(variance) else np.nan
    z = difference / error if error else np.copysign(np.inf, difference) if difference else 0.0
    half, p = stats.norm.ppf(TAILS[1]) * error, float(2 * stats.norm.sf(abs(z)))
    return Comparison(difference, difference - half, difference + half, float(z), p)
