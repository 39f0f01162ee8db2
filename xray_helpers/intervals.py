"""95 % intervals of shares, means and predictive values.

Images of one patient or source are not independent, so every interval is made of whole groups: Wilson's
interval at the effective sample size for proportions, a BCa bootstrap over groups for the rest.
"""

from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from xray_helpers.settings import FEW

RESAMPLES = 2000
LEVEL = 0.95


def has_few_groups(y_true: Any, group: Any) -> bool:
    """Return whether a class has fewer than `FEW` groups: nothing that resamples them can be believed."""
    labels, group = np.asarray(y_true), np.asarray(group)
    return min(len(np.unique(group[labels == label])) for label in (0, 1)) < FEW


def grouped_proportion(hits: Any, group: Any) -> dict[str, Any]:
    """Return a share with its interval as in `compute_metrics`: value, ci_low, ci_high, method.

    Parameters
    ----------
    hits : array-like of 0 or 1, shape (n,)
    group : array-like, shape (n,)
        What counts together.
    """
    codes = pd.factorize(np.asarray(group, dtype=object))[0]
    return wilson_interval(np.bincount(codes, np.asarray(hits, float)), np.bincount(codes).astype(float), "no image")


def predictive_values(
    sensitivity: dict[str, Any], specificity: dict[str, Any], prevalence: float
) -> dict[str, dict[str, Any]]:
    """Return PPV and NPV as they would be at a prevalence (Bayes), each with its 95 % interval.

    The interval is that of the likelihood ratio, which is made of those of sensitivity and specificity (MOVER: Donner and
    Zou, Stat Methods Med Res 2012; 21: 347); the prevalence is taken as known.

    Parameters
    ----------
    sensitivity, specificity : dict
        Of `grouped_proportion`.
    prevalence : float
        Between 0 and 1, both excluded.

    Returns
    -------
    dict
        ``ppv`` and ``npv``: value, ci_low, ci_high, method.
    """
    (hit, clear), odds = (_span_of(entry) for entry in (sensitivity, specificity)), prevalence / (1 - prevalence)
    return {
        "ppv": _predictive(hit, 1 - clear[[0, 2, 1]], odds),
        "npv": _predictive(clear, 1 - hit[[0, 2, 1]], 1 / odds),
    }


def _span_of(entry: dict[str, Any]) -> np.ndarray:
    return np.array([entry["value"], entry["ci_low"], entry["ci_high"]], float)


def _predictive(right: np.ndarray, wrong: np.ndarray, odds: float) -> dict[str, Any]:
    """Return the share that is right of what is called so; `right` and `wrong` are rates: value, lower, upper end."""
    if np.isnan(right[0] + wrong[0]) or right[0] == wrong[0] == 0:
        reason = "no image is called so" if right[0] == wrong[0] == 0 else "one class only"
        return {"value": None, "ci_low": None, "ci_high": None, "reason": reason}
    low, high = _least_ratio(right, wrong), _least_ratio(wrong, right)
    return {
        "value": float(odds * right[0] / (odds * right[0] + wrong[0])),
        "ci_low": float(odds * low / (odds * low + 1)),
        "ci_high": float(odds / (odds + high)),
        "method": "MOVER",
    }


def _least_ratio(top: np.ndarray, bottom: np.ndarray) -> float:
    """Return the lower end of the interval of top / bottom."""
    (a, low, _), (b, _, high) = top, bottom
    root = np.sqrt(max(0.0, (a * b) ** 2 - low * (2 * a - low) * high * (2 * b - high)))
    return low * (2 * a - low) / (a * b + root) if low else 0.0


def grouped_mean(values: Any, group: Any, seed: int = 0) -> dict[str, Any]:
    """Return a mean with its interval, a BCa bootstrap of whole groups: value, ci_low, ci_high, method.

    Parameters
    ----------
    values : array-like of float, shape (n,)
    group : array-like, shape (n,)
        What counts together.
    seed : int
    """
    codes = pd.factorize(np.asarray(group, dtype=object))[0]
    sums, sizes = np.bincount(codes, np.asarray(values, float)), np.bincount(codes).astype(float)
    drawn = group_weights(len(sums), RESAMPLES, seed)
    value = float(sums.sum() / sizes.sum())
    left_out = (sums.sum() - sums) / np.maximum(sizes.sum() - sizes, 1)
    low, high = bca_interval(value, drawn @ sums / (drawn @ sizes), left_out if len(sums) > 1 else left_out[:0])
    return {"value": value, "ci_low": low, "ci_high": high, "method": "BCa bootstrap of groups"}


def wilson_interval(hits: np.ndarray, trials: np.ndarray, undefined: str) -> dict[str, Any]:
    """Return a share with Wilson's interval (1927) at the sample size that the groups' spread is worth (ratio estimator).

    Parameters
    ----------
    hits, trials : ndarray of float, shape (groups,)
        Of each group.
    undefined : str
        The reason where there is no trial.
    """
    n = trials.sum()
    if n == 0:
        return {"value": None, "ci_low": None, "ci_high": None, "reason": undefined}
    value = hits.sum() / n
    groups = int((trials > 0).sum())
    clustered = groups < n
    effective = n
    if clustered and groups > 1 and 0 < value < 1:
        variance = groups / (groups - 1) * ((hits - value * trials) ** 2).sum() / n**2
        effective = min(n, value * (1 - value) / variance) if variance else n  # all groups alike
    elif clustered:
        effective = groups
    quantile = stats.norm.ppf((1 + LEVEL) / 2)
    if clustered and groups > 1:
        quantile = stats.t.ppf((1 + LEVEL) / 2, groups - 1)
    square = quantile**2 / effective
    centre = (value + square / 2) / (1 + square)
    half = quantile * np.sqrt(value * (1 - value) / effective + square / (4 * effective)) / (1 + square)
    low, high = max(0.0, centre - half), min(1.0, centre + half)
    method = "Wilson, effective sample size" if clustered else "Wilson"
    return {
        "value": float(value),
        "ci_low": float(min(low, value)),
        "ci_high": float(max(high, value)),
        "method": method,
    }


def group_weights(groups: int, resamples: int, seed: int) -> np.ndarray:
    """Return how often each group is drawn in each resample: float, shape (resamples, groups)."""
    rng = np.random.default_rng([seed, 3])
    return rng.multinomial(groups, np.full(groups, 1 / groups), size=resamples).astype(float)


def bca_interval(value: float, drawn: np.ndarray, left_out: np.ndarray) -> tuple[float | None, float | None]:
    """Return the bias-corrected and accelerated interval (Efron 1987), or two Nones where there is none.

    Parameters
    ----------
    value : float
        The estimate.
    drawn : ndarray
        Its bootstrap replicates; missing ones (a resample without a class) are passed over.
    left_out : ndarray
        Its values with one group left out at a time.
    """
    drawn, left_out = drawn[np.isfinite(drawn)], left_out[np.isfinite(left_out)]
    if len(drawn) < 100 or len(left_out) < 2:
        return None, None
    below = (np.sum(drawn < value) + np.sum(drawn == value) / 2) / len(drawn)
    bias = stats.norm.ppf(np.clip(below, 1e-6, 1 - 1e-6))
    spread = left_out.mean() - left_out
    scale = (spread**2).sum() ** 1.5
    acceleration = (spread**3).sum() / (6 * scale) if scale > 0 else 0.0
    z = stats.norm.ppf([(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    at = stats.norm.cdf(bias + (bias + z) / (1 - acceleration * (bias + z)))
    low, high = np.quantile(drawn, at)
    return float(min(low, value)), float(max(high, value))
