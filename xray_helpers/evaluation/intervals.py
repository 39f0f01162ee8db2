"""95 % intervals of scores, shares, means and predictive values, from what each image adds to them.

Images of one patient or source are not independent: variances are those of whole groups left out in turn (the
jackknife, linearised, so that it costs one pass over the images), quantiles are Student's at the degrees of
freedom that the sizes of the groups leave (Satterthwaite), and below `MIN_GROUPS` effective groups (Kish
1965) there is no interval at all.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy import stats
from scipy.special import expit, logit

from xray_helpers.settings import MIN_GROUPS

LEVEL = 0.95
TOO_FEW = "not enough independent sources"
# How many pseudo-groups with the variance of a simple model are added to the measured variance, which is too
# small by chance
# just where the estimate is too good by chance. Both were set by simulation
# (benchmarks/interval_coverage.py).
_PRIOR_SHARE, PRIOR_AUROC = 0.5, 0.25


class GroupStatistics(NamedTuple):
    """What groups leave of certainty: the variance of a score, its degrees of freedom, effective groups of
    the scarcer class.
    """

    variance: float
    freedom: float
    effective: float


def effective_sample_size(sizes: np.ndarray) -> float:
    """Return how many equal groups are worth as much as groups of these sizes: (sum of t) squared / sum of t
    squared.
    """
    sizes = np.asarray(sizes, float)
    return float(sizes.sum() ** 2 / (sizes**2).sum()) if sizes.any() else 0.0


def effective_groups(group: Any, weight: Any = None) -> float:
    """Return the effective number of groups (Kish 1965) of images; each counts with its weight.

    Parameters
    ----------
    group : array-like, shape (n,)
    weight : array-like of float, shape (n,), optional
    """
    codes = encode_groups(group)
    return effective_sample_size(np.bincount(codes, weight)) if len(codes) else 0.0


def encode_groups(group: Any) -> np.ndarray:
    """Return groups as numbers from 0 on, shape (n,)."""
    group = np.asarray(group)
    return pd.factorize(group if group.dtype.kind in "iu" else group.astype(object))[0]


def has_few_groups(y_true: Any, group: Any) -> bool:
    """Return whether a class has fewer than `MIN_GROUPS` effective groups: nothing that rests on them can be
    believed.
    """
    labels, group = np.asarray(y_true), encode_groups(group)
    return min(effective_groups(group[labels == label]) for label in (0, 1)) < MIN_GROUPS


def compute_group_statistics(
    influence: np.ndarray, codes: np.ndarray, strata: np.ndarray, weight: np.ndarray
) -> GroupStatistics:
    """Return the jackknife variance of a score over groups, and what it rests on.

    The sums of a group's influence are divided by 1 - its share of the class, as leaving it out would do
    exactly for a ratio. Degrees of freedom are Satterthwaite's: of group sums whose variances follow from the
    sizes of the groups and the correlation within them, and over the classes by what each adds to the
    variance.

    Parameters
    ----------
    influence : ndarray of float, shape (n,)
        Weight times the derivative of the score by the weight, of each image.
    codes : ndarray of int, shape (n,)
        Of `encode_groups`.
    strata : ndarray of int, shape (n,)
        0 or 1: the class; all 0 where the score knows none.
    weight : ndarray of float, shape (n,)
    """
    groups = int(codes.max()) + 1
    total, by_class, members, effective = np.zeros(groups), [], [], []
    for label in np.unique(strata):
        mine = strata == label
        here, u, w = codes[mine], influence[mine], weight[mine]
        sizes, sums = np.bincount(here, w, groups), np.bincount(here, u, groups)
        count = np.count_nonzero(sizes)
        if not u.any():
            continue
        left_out = sums / np.maximum(1 - sizes / sizes.sum(), 1e-9) * np.sqrt((count - 1) / count)
        squares = np.bincount(here, w**2, groups)
        by_class.append(((left_out**2).sum(), _freedom(sums, u, sizes, squares)))
        members.append(sizes)
        effective.append(effective_sample_size(sizes))
        total += left_out
    if not by_class:
        return GroupStatistics(
            0.0,
            max(effective_sample_size(np.bincount(codes, weight)) - 1, 1.0),
            effective_sample_size(np.bincount(codes, weight)),
        )
    parts, freedoms = np.array(by_class).T
    freedom = parts.sum() ** 2 / (parts**2 / freedoms).sum() if parts.any() else freedoms.min()
    if len(members) > 1 and (np.minimum(*members) > 0).any():  # groups with both classes are not two groups
        freedom = min(freedom, max(effective_sample_size(sum(members)) - 1, 1.0))
    return GroupStatistics(float((total**2).sum()), float(freedom), min(effective))


def _freedom(sums: np.ndarray, u: np.ndarray, sizes: np.ndarray, squares: np.ndarray) -> float:
    """Degrees of freedom of a sum of squared group sums; correlation within groups is estimated from the same
    sums.
    """
    excess = (sizes**2).sum() / squares.sum() - 1
    correlation = np.clip(((sums**2).sum() / (u**2).sum() - 1) / excess, 0, 1) if excess > 1e-9 else 0.0
    expected = squares * (1 - correlation) + sizes**2 * correlation
    return max(effective_sample_size(expected) - 1, 1.0)


def no_interval(value: float | None, reason: str) -> dict[str, Any]:
    """Return a value, or None, without an interval, and why."""
    return {"value": value, "ci_low": None, "ci_high": None, "reason": reason}


def interval_entry(value: float, low: float, high: float, method: str) -> dict[str, Any]:
    """Return a value and its interval, which always holds it."""
    return {
        "value": float(value),
        "ci_low": float(min(low, value)),
        "ci_high": float(max(high, value)),
        "method": method,
    }


def perfect_bound(effective: float) -> float:
    """Return the one-sided 97.5 % lower bound of a share of which nothing was missed (Clopper and Pearson
    1934).
    """
    return float(((1 - LEVEL) / 2) ** (1 / effective))


def bounded_interval(
    value: float, spread: GroupStatistics, low: float = 0.0, *, bias: float = 0.0
) -> dict[str, Any]:
    """Return the interval of a score between `low` and 1, Student's t on its logit; a one-sided bound at
    either end.

    Parameters
    ----------
    value : float
    spread : Spread
    low : float
        0, or -1 for correlations: their logit is twice Fisher's z.
    bias : float
        How much of the logit's own bias (half its variance times its curvature) is taken off.
    """
    share, span = (value - low) / (1 - low), 1 - low
    if spread.effective <= 0:
        return no_interval(value, TOO_FEW)
    if share <= 1e-12 or share >= 1 - 1e-12:
        bound = perfect_bound(spread.effective)
        ends = (bound, 1.0) if share > 0.5 else (0.0, 1 - bound)
        return interval_entry(value, *(low + span * end for end in ends), "one-sided exact bound")
    if spread.effective < MIN_GROUPS:
        return no_interval(value, TOO_FEW)
    error = np.sqrt(spread.variance) / span / (share * (1 - share))
    centre = logit(share) - np.clip(bias * error**2 * (2 * share - 1) / 2, -error, error)
    ends = expit(centre + stats.t.ppf([(1 - LEVEL) / 2, (1 + LEVEL) / 2], spread.freedom) * error)
    return interval_entry(value, *(low + span * ends), "jackknife of groups, t on the logit")


def mean_interval(value: float, spread: GroupStatistics, level: float = LEVEL) -> dict[str, Any]:
    """Return Student's interval of a mean, or of any score without bounds."""
    if spread.effective < MIN_GROUPS:
        return no_interval(value, TOO_FEW)
    half = stats.t.ppf((1 + level) / 2, spread.freedom) * np.sqrt(spread.variance)
    return interval_entry(value, value - half, value + half, "jackknife of groups, t")


def grouped_mean(values: Any, group: Any) -> dict[str, Any]:
    """Return a mean with its interval over groups: value, ci_low, ci_high, method or reason.

    Parameters
    ----------
    values : array-like of float, shape (n,)
    group : array-like, shape (n,)
        What counts together.
    """
    values, codes = np.asarray(values, float), encode_groups(group)
    value = float(values.mean())
    ones = np.ones(len(values))
    return mean_interval(
        value,
        compute_group_statistics((values - value) / len(values), codes, np.zeros(len(values), int), ones),
    )


def grouped_proportion(
    hits: Any, group: Any, weight: Any = None, undefined: str = "no image"
) -> dict[str, Any]:
    """Return a share with Wilson's interval (1927) at the sample size that the groups' spread is worth.

    Parameters
    ----------
    hits : array-like of 0 or 1, shape (n,)
    group : array-like, shape (n,)
        What counts together.
    weight : array-like of float, shape (n,), optional
    undefined : str
        The reason where there is no image.

    Returns
    -------
    dict
        value, ci_low, ci_high, method; a reason where there is no value or no interval. At 0 or 1 one end is
        the value itself, and the other a one-sided exact bound at the effective number of groups; else there
        is no interval below `MIN_GROUPS` effective groups. Where each image is a group of its own, it is
        Wilson's interval as it stands.
    """
    hits = np.asarray(hits, float)
    weight = np.ones(len(hits)) if weight is None else np.asarray(weight, float)
    if not weight.sum():
        return no_interval(None, undefined)
    codes = encode_groups(group)
    value = float(weight @ hits / weight.sum())
    spread = compute_group_statistics(
        weight * (hits - value) / weight.sum(), codes, np.zeros(len(hits), int), weight
    )
    images, alone = effective_sample_size(weight), len(np.unique(codes)) == len(codes) and np.ptp(weight) == 0
    if value in (0.0, 1.0) or spread.effective < MIN_GROUPS:
        return bounded_interval(value, spread)
    if alone:
        effective, quantile = images, stats.norm.ppf((1 + LEVEL) / 2)
    else:
        even = value * (1 - value)
        known, prior = spread.freedom, _PRIOR_SHARE
        variance = (known * spread.variance + prior * even / spread.effective) / (known + prior)
        effective, quantile = min(images, even / variance), stats.t.ppf((1 + LEVEL) / 2, spread.freedom)
    square = quantile**2 / effective
    centre = (value + square / 2) / (1 + square)
    half = quantile * np.sqrt(value * (1 - value) / effective + square / (4 * effective)) / (1 + square)
    method = "Wilson" if alone else "Wilson, effective sample size"
    return interval_entry(value, max(0.0, centre - half), min(1.0, centre + half), method)


def predictive_values(
    sensitivity: dict[str, Any], specificity: dict[str, Any], prevalence: float
) -> dict[str, dict[str, Any]]:
    """Return PPV and NPV as they would be at a prevalence (Bayes), each with its 95 % interval.

    The interval is that of the likelihood ratio, which is made of those of sensitivity and specificity
    (MOVER: Donner and Zou, Stat Methods Med Res 2012; 21: 347); the prevalence is taken as known.

    Parameters
    ----------
    sensitivity, specificity : dict
        Of `grouped_proportion`.
    prevalence : float
        Between 0 and 1, both excluded.

    Returns
    -------
    dict
        ``ppv`` and ``npv``: value, ci_low, ci_high, method; a reason where there is no value or no interval.
    """
    (hit, clear), odds = (
        (_span_of(entry) for entry in (sensitivity, specificity)),
        prevalence / (1 - prevalence),
    )
    return {
        "ppv": _predictive(hit, 1 - clear[[0, 2, 1]], odds),
        "npv": _predictive(clear, 1 - hit[[0, 2, 1]], 1 / odds),
    }


def _span_of(entry: dict[str, Any]) -> np.ndarray:
    return np.array([entry["value"], entry["ci_low"], entry["ci_high"]], float)


def _predictive(right: np.ndarray, wrong: np.ndarray, odds: float) -> dict[str, Any]:
    """Return the share that is right of what is called so; `right` and `wrong` are rates: value, lower, upper
    end.
    """
    if np.isnan(right[0] + wrong[0]) or right[0] == wrong[0] == 0:
        return no_interval(None, "no image is called so" if right[0] == wrong[0] == 0 else "one class only")
    value = float(odds * right[0] / (odds * right[0] + wrong[0]))
    if np.isnan([*right, *wrong]).any():
        return no_interval(value, TOO_FEW)
    low, high = _least_ratio(right, wrong), _least_ratio(wrong, right)
    ends = float(odds * low / (odds * low + 1)), float(odds / (odds + high))
    return {"value": value, "ci_low": ends[0], "ci_high": ends[1], "method": "MOVER"}


def _least_ratio(top: np.ndarray, bottom: np.ndarray) -> float:
    """Return the lower end of the interval of top / bottom."""
    (a, low, _), (b, _, high) = top, bottom
    root = np.sqrt(max(0.0, (a * b) ** 2 - low * (2 * a - low) * high * (2 * b - high)))
    return low * (2 * a - low) / (a * b + root) if low else 0.0


def describe(entry: dict[str, Any], digits: int = 2) -> str:
    """Return ``0.83 (0.75 to 0.89)``, ``1.00 (at least 0.61)``, or the reason why there is no value or no
    interval.
    """
    value, low, high = entry["value"], entry["ci_low"], entry["ci_high"]
    if value is None or np.isnan(value):
        return f"not defined ({entry.get('reason', 'not known')})"
    if low is None or np.isnan(low):
        return f"{value:.{digits}f} (no interval: {entry.get('reason', TOO_FEW)})"
    while f"{low:.{digits}f}" == f"{high:.{digits}f}" and low < high and digits < 6:
        digits += 1
    told, low_told, high_told = (f"{number:z.{digits}f}" for number in (value, low, high))
    if value in (-1, 0, 1) and low < high == value:  # nothing was missed: the other end is a bound
        return f"{told} (at least {low_told})"
    if value in (-1, 0, 1) and value == low < high:
        return f"{told} (at most {high_told})"
    return f"{told} ({low_told} to {high_told})"


def describe_count(counts: Mapping[str, Any], what: str = "images") -> str:
    """Return ``120 images in 30 groups, worth 12 equal ones``; the last words where groups are of unequal
    size.

    Parameters
    ----------
    counts : mapping
        n, n_groups, and n_effective (Kish) where it is known.
    what : str
    """
    text = f"{counts['n']} {what} in {counts['n_groups']} groups"
    worth = counts.get("n_effective")
    uneven = worth is not None and not pd.isna(worth) and worth < 0.9 * counts["n_groups"]
    return text + (f", worth {worth:.1f} equal ones" if uneven else "")


def describe_p(p: float) -> str:
    """Return a p-value for a reader: three digits, ``< 0.001``, or ``not tested``."""
    if not np.isfinite(p):
        return "not tested"
    return "< 0.001" if p < 0.001 else f"{p:.3f}"
