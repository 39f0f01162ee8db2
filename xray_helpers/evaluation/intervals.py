"""95 % intervals of proportions, means, scores and predictive values, with images clustered in groups.

Images of one patient or source are not independent. Variances are therefore those of the jackknife that
leaves out one whole group at a time, linearised so that it takes one pass over the images. Quantiles are
Student's, at degrees of freedom that follow from the sizes of the groups (Satterthwaite). Below `MIN_GROUPS`
effective groups (Kish 1965) no interval is given.

An interval is an entry: a dictionary with value, ci_low, ci_high and method, or with a reason where there is
no value or no interval.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy import stats
from scipy.special import expit, logit

from xray_helpers.settings import MIN_GROUPS, number_of

LEVEL = 0.95
TAILS = np.array([(1 - LEVEL) / 2, (1 + LEVEL) / 2])
TOO_FEW = "not enough independent sources"
# The variance that independent images would have is averaged into the measured one, as if measured on so
# many more groups: the measured variance tends to be too small where the estimate is too good by chance. The
# number was chosen by simulation (benchmarks/interval_coverage.py).
_PRIOR_GROUPS = 0.5


class GroupStatistics(NamedTuple):
    """Variance of a score over groups, its degrees of freedom, and the effective number of groups."""

    variance: float
    freedom: float
    effective: float


def effective_sample_size(sizes: np.ndarray) -> float:
    """Return how many groups of equal size are worth as much as groups of these sizes (Kish 1965)."""
    sizes = np.asarray(sizes, float)
    return float(sizes.sum() ** 2 / (sizes**2).sum()) if sizes.any() else 0.0


def effective_groups(group: Any, weight: Any = None) -> float:
    """Return the effective number of groups of images, each of which counts with its weight."""
    codes = encode_groups(group)
    return effective_sample_size(np.bincount(codes, weight)) if len(codes) else 0.0


def encode_groups(group: Any) -> np.ndarray:
    """Return groups as numbers from 0 on, shape (n,)."""
    group = np.asarray(group)
    return pd.factorize(group if group.dtype.kind in "iu" else group.astype(object))[0]


def has_few_groups(y_true: Any, group: Any) -> bool:
    """Return whether a class has fewer than `MIN_GROUPS` effective groups, too few for an interval."""
    labels, group = np.asarray(y_true), encode_groups(group)
    return min(effective_groups(group[labels == label]) for label in (0, 1)) < MIN_GROUPS


def compute_group_statistics(
    influence: np.ndarray,
    codes: np.ndarray,
    strata: np.ndarray | None = None,
    weight: np.ndarray | None = None,
) -> GroupStatistics:
    """Return the jackknife variance of a score over groups.

    The sum of a group's influence is divided by 1 - its share of the class, which for a ratio is exactly
    what leaving it out does. Degrees of freedom are Satterthwaite's: within a class those of group sums
    whose variances follow from the sizes of the groups and the correlation within them, and over the classes
    weighted by what each adds to the variance.

    Parameters
    ----------
    influence : ndarray of float, shape (n,)
        Weight of each image times the derivative of the score by that weight.
    codes : ndarray of int, shape (n,)
        Of `encode_groups`.
    strata : ndarray of int, shape (n,), optional
        The class of each image, as a number; left out where the score does not depend on the class.
    weight : ndarray of float, shape (n,), optional
    """
    strata = np.zeros(len(codes), int) if strata is None else strata
    weight = np.ones(len(codes)) if weight is None else weight
    groups = int(codes.max()) + 1
    total, by_class, members, effective = np.zeros(groups), [], [], []
    for label in np.unique(strata):
        mine = strata == label
        here, u, w = codes[mine], influence[mine], weight[mine]
        if not u.any():
            continue
        sizes, sums = np.bincount(here, w, groups), np.bincount(here, u, groups)
        count = np.count_nonzero(sizes)
        left_out = sums / np.maximum(1 - sizes / sizes.sum(), 1e-9) * np.sqrt((count - 1) / count)
        squares = np.bincount(here, w**2, groups)
        by_class.append(((left_out**2).sum(), _freedom(sums, u, sizes, squares)))
        members.append(sizes)
        effective.append(effective_sample_size(sizes))
        total += left_out
    if not by_class:
        size = effective_sample_size(np.bincount(codes, weight))
        return GroupStatistics(0.0, max(size - 1, 1.0), size)
    parts, freedoms = np.array(by_class).T
    freedom = parts.sum() ** 2 / (parts**2 / freedoms).sum() if parts.any() else freedoms.min()
    if (np.count_nonzero(members, axis=0) > 1).any():  # a group with several classes counts once
        freedom = min(freedom, max(effective_sample_size(sum(members)) - 1, 1.0))
    return GroupStatistics(float((total**2).sum()), float(freedom), min(effective))


def _freedom(sums: np.ndarray, u: np.ndarray, sizes: np.ndarray, squares: np.ndarray) -> float:
    """Return the degrees of freedom of the group sums; the correlation in groups is estimated from them."""
    excess = (sizes**2).sum() / squares.sum() - 1
    correlation = np.clip(((sums**2).sum() / (u**2).sum() - 1) / excess, 0, 1) if excess > 1e-9 else 0.0
    expected = squares * (1 - correlation) + sizes**2 * correlation
    return max(effective_sample_size(expected) - 1, 1.0)


def t_half_width(error: Any, freedom: float) -> Any:
    """Return half the width of Student's 95 % interval."""
    return stats.t.ppf(TAILS[1], freedom) * error


def t_test(value: float, error: float, freedom: float) -> float:
    """Return the two-sided p of Student's test that a value is 0; 1 or 0 where it has no error."""
    return float(2 * stats.t.sf(abs(value) / error, freedom)) if error > 0 else float(value == 0)


def no_interval(value: float | None, reason: str) -> dict[str, Any]:
    """Return the entry of a value without an interval, or of no value at all."""
    return {"value": value, "ci_low": None, "ci_high": None, "reason": reason}


def interval_entry(value: float, low: float, high: float, method: str) -> dict[str, Any]:
    """Return the entry of a value and an interval, which is widened to contain it."""
    low, high = float(min(low, value)), float(max(high, value))
    return {"value": float(value), "ci_low": low, "ci_high": high, "method": method}


def bounded_interval(
    value: float, spread: GroupStatistics, low: float = 0.0, *, bias: float = 0.0
) -> dict[str, Any]:
    """Return the interval of a score between `low` and 1: Student's t on its logit.

    At either end it is a one-sided exact bound at the effective number of groups (Clopper and Pearson 1934).

    Parameters
    ----------
    value : float
    spread : GroupStatistics
    low : float
        0, or -1 for correlations, whose logit is twice Fisher's z.
    bias : float
        The share of the logit's own bias (half its variance times its curvature) that is subtracted.
    """
    share, span = (value - low) / (1 - low), 1 - low
    if spread.effective <= 0:
        return no_interval(value, TOO_FEW)
    if share <= 1e-12 or share >= 1 - 1e-12:
        bound = float(((1 - LEVEL) / 2) ** (1 / spread.effective))
        ends = (bound, 1.0) if share > 0.5 else (0.0, 1 - bound)
        return interval_entry(value, *(low + span * end for end in ends), "one-sided exact bound")
    if spread.effective < MIN_GROUPS:
        return no_interval(value, TOO_FEW)
    error = np.sqrt(spread.variance) / span / (share * (1 - share))
    centre = logit(share) - np.clip(bias * error**2 * (2 * share - 1) / 2, -error, error)
    ends = expit(centre + stats.t.ppf(TAILS, spread.freedom) * error)
    return interval_entry(value, *(low + span * ends), "jackknife of groups, t on the logit")


def mean_interval(value: float, spread: GroupStatistics) -> dict[str, Any]:
    """Return Student's interval of a mean, or of any score without bounds."""
    if spread.effective < MIN_GROUPS:
        return no_interval(value, TOO_FEW)
    half = t_half_width(np.sqrt(spread.variance), spread.freedom)
    return interval_entry(value, value - half, value + half, "jackknife of groups, t")


def grouped_mean(values: Any, group: Any) -> dict[str, Any]:
    """Return the entry of a mean over images, with its interval over groups."""
    values = np.asarray(values, float)
    value = float(values.mean())
    return mean_interval(
        value, compute_group_statistics((values - value) / len(values), encode_groups(group))
    )


def grouped_proportion(
    hits: Any, group: Any, weight: Any = None, undefined: str = "no image"
) -> dict[str, Any]:
    """Return the entry of a proportion with Wilson's interval (1927) at its effective sample size.

    At 0 or 1 one end is the value itself and the other a one-sided exact bound. Otherwise there is no
    interval below `MIN_GROUPS` effective groups. Where each image is its own group, it is the ordinary
    Wilson interval.

    Parameters
    ----------
    hits : array-like of 0 or 1, shape (n,)
    group : array-like, shape (n,)
    weight : array-like of float, shape (n,), optional
    undefined : str
        The reason given where there is no image.
    """
    hits = np.asarray(hits, float)
    weight = np.ones(len(hits)) if weight is None else np.asarray(weight, float)
    if not weight.sum():
        return no_interval(None, undefined)
    codes = encode_groups(group)
    value = float(weight @ hits / weight.sum())
    spread = compute_group_statistics(weight * (hits - value) / weight.sum(), codes, weight=weight)
    if value in (0.0, 1.0) or spread.effective < MIN_GROUPS:
        return bounded_interval(value, spread)
    size = effective_sample_size(weight)
    if len(np.unique(codes)) == len(codes) and np.ptp(weight) == 0:
        quantile, method = stats.norm.ppf(TAILS[1]), "Wilson"
    else:
        even, known = value * (1 - value), spread.freedom
        prior = _PRIOR_GROUPS * even / spread.effective
        size = min(size, even / ((known * spread.variance + prior) / (known + _PRIOR_GROUPS)))
        quantile, method = stats.t.ppf(TAILS[1], known), "Wilson, effective sample size"
    square = quantile**2 / size
    centre = (value + square / 2) / (1 + square)
    half = quantile * np.sqrt(value * (1 - value) / size + square / (4 * size)) / (1 + square)
    return interval_entry(value, max(0.0, centre - half), min(1.0, centre + half), method)


def predictive_values(
    sensitivity: dict[str, Any], specificity: dict[str, Any], prevalence: float
) -> dict[str, dict[str, Any]]:
    """Return PPV and NPV at a given prevalence (Bayes), each as an entry.

    The interval is that of the likelihood ratio, built from those of sensitivity and specificity (MOVER:
    Donner and Zou, Stat Methods Med Res 2012; 21: 347). The prevalence is taken as known.

    Parameters
    ----------
    sensitivity, specificity : dict
        Of `grouped_proportion`.
    prevalence : float
        Between 0 and 1, both excluded.

    Returns
    -------
    dict
        ``ppv`` and ``npv``.
    """
    sensitive, specific = (
        np.array([entry[key] for key in ("value", "ci_low", "ci_high")], float)
        for entry in (sensitivity, specificity)
    )
    odds = prevalence / (1 - prevalence)
    return {
        "ppv": _predictive_value(sensitive, 1 - specific[[0, 2, 1]], odds),
        "npv": _predictive_value(specific, 1 - sensitive[[0, 2, 1]], 1 / odds),
    }


def _predictive_value(right: np.ndarray, wrong: np.ndarray, odds: float) -> dict[str, Any]:
    """Return the share of correct calls; `right` and `wrong` are rates: value, lower end, upper end."""
    if right[0] == wrong[0] == 0:
        return no_interval(None, "no image is called so")
    if np.isnan(right[0] + wrong[0]):
        return no_interval(None, "one class only")
    value = float(odds * right[0] / (odds * right[0] + wrong[0]))
    if np.isnan([*right, *wrong]).any():
        return no_interval(value, TOO_FEW)
    low, high = _lower_ratio(right, wrong), _lower_ratio(wrong, right)
    ends = float(odds * low / (odds * low + 1)), float(odds / (odds + high))
    return {"value": value, "ci_low": ends[0], "ci_high": ends[1], "method": "MOVER"}


def _lower_ratio(top: np.ndarray, bottom: np.ndarray) -> float:
    """Return the lower end of the interval of top / bottom."""
    (a, low, _), (b, _, high) = top, bottom
    root = np.sqrt(max(0.0, (a * b) ** 2 - low * (2 * a - low) * high * (2 * b - high)))
    return low * (2 * a - low) / (a * b + root) if low else 0.0


def flatten_entry(name: str, entry: dict[str, Any], missing: Any = None) -> dict[str, Any]:
    """Return an entry as the columns ``name``, ``name_low`` and ``name_high``; None becomes `missing`."""
    row = {name: entry["value"], f"{name}_low": entry["ci_low"], f"{name}_high": entry["ci_high"]}
    return {key: missing if value is None else value for key, value in row.items()}


def read_entry(
    row: Mapping[str, Any], value: str, low: str = "ci_low", high: str = "ci_high"
) -> dict[str, float | None]:
    """Return value, ci_low and ci_high from three columns of a row; None where a number is missing."""
    columns = {"value": value, "ci_low": low, "ci_high": high}
    return {key: None if pd.isna(row.get(column)) else float(row[column]) for key, column in columns.items()}


def unflatten_entry(row: Mapping[str, Any], name: str) -> dict[str, float | None]:
    """Return the entry that `flatten_entry` made into columns of a row."""
    return read_entry(row, name, f"{name}_low", f"{name}_high")


def describe(entry: dict[str, Any], digits: int = 2) -> str:
    """Return ``0.83 (0.75 to 0.89)``, ``1.00 (at least 0.61)``, or why there is no value or no interval."""
    value, low, high = entry["value"], entry["ci_low"], entry["ci_high"]
    if value is None or np.isnan(value):
        return f"not defined ({entry.get('reason', 'not known')})"
    if low is None or np.isnan(low):
        return f"{value:.{digits}f} (no interval: {entry.get('reason', TOO_FEW)})"
    while f"{low:.{digits}f}" == f"{high:.{digits}f}" and low < high and digits < 6:
        digits += 1
    value_text, low_text, high_text = (f"{number:z.{digits}f}" for number in (value, low, high))
    if value in (-1, 0, 1) and low < high == value:  # a perfect score has a bound on one side
        return f"{value_text} (at least {low_text})"
    if value in (-1, 0, 1) and value == low < high:
        return f"{value_text} (at most {high_text})"
    return f"{value_text} ({low_text} to {high_text})"


def describe_count(counts: Mapping[str, Any], what: str = "images") -> str:
    """Return ``120 images in 30 groups, worth 12 equal ones``, the end only where group sizes are unequal."""
    text = f"{number_of(counts['n'], what[:-1])} in {number_of(counts['n_groups'], 'group')}"
    effective = counts.get("n_effective")
    uneven = pd.notna(effective) and effective < 0.9 * counts["n_groups"]
    return text + (f", worth {effective:.1f} equal ones" if uneven else "")


def describe_p(p: float) -> str:
    """Return a p-value as text: three digits, ``< 0.001``, or ``not tested``."""
    if not np.isfinite(p):
        return "not tested"
    return "< 0.001" if p < 0.001 else f"{p:.3f}"
