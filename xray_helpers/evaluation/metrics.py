"""The metrics of a model, each with its 95 % interval.

A metric is one entry of `METRICS`. What is added there is in ``metrics.json``, in tables, plots and reports.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from xray_helpers.evaluation import influence
from xray_helpers.evaluation.delong import delong_interval
from xray_helpers.evaluation.intervals import (
    MIN_GROUPS,
    GroupStatistics,
    bounded_interval,
    compute_group_statistics,
    describe,
    effective_sample_size,
    encode_groups,
    grouped_proportion,
    no_interval,
)
from xray_helpers.evaluation.thresholds import check_predictions, describe_rule
from xray_helpers.settings import InputError

# As `intervals._PRIOR_GROUPS`, for AUROC; chosen by simulation (benchmarks/interval_coverage.py).
_PRIOR_GROUPS = 0.25


@dataclass(frozen=True)
class Sample:
    """The images that metrics are computed on; arrays of shape (n,).

    groups are those of `intervals.encode_groups`; cells says which of `influence.CELLS` each image falls in.
    """

    y_true: np.ndarray
    y_prob: np.ndarray
    weight: np.ndarray
    groups: np.ndarray
    cells: np.ndarray

    @cached_property
    def effective(self) -> tuple[float, float]:
        """Effective numbers of groups (Kish) with fractured and with non-fractured images."""
        parts = (self.y_true == 1, self.y_true == 0)
        return tuple(
            effective_sample_size(np.bincount(self.groups[part], self.weight[part])) for part in parts
        )


Function = Callable[[Sample], tuple[float, np.ndarray]]


def of_scores(function: Callable) -> Function:
    """Use a function of y_true, y_prob and weight that returns a score and its influence."""
    return lambda sample: function(sample.y_true, sample.y_prob, sample.weight)


def of_counts(function: Callable) -> Function:
    """Use a function of tp, fp, tn and fn that returns a score by arithmetic alone."""
    return lambda sample: influence.of_counts(function, sample.cells, sample.weight)


def logit_interval(sample: Sample, value: float, added: np.ndarray, low: float = 0.0) -> dict[str, Any]:
    """Return the interval of a score between `low` and 1 that depends on the class of an image."""
    spread = compute_group_statistics(added, sample.groups, sample.y_true, sample.weight)
    return bounded_interval(value, spread._replace(effective=min(sample.effective)), low)


def correlation_interval(sample: Sample, value: float, added: np.ndarray) -> dict[str, Any]:
    """Return the interval of a score between -1 and 1; none where all calls are the same, which leaves 0."""
    if value == 0 and not added.any():
        return no_interval(value, "all calls are the same")
    return logit_interval(sample, value, added, -1.0)


def error_interval(sample: Sample, value: float, added: np.ndarray) -> dict[str, Any]:
    """Return the interval of a mean error between 0 and 1, whatever the class of an image."""
    return bounded_interval(value, compute_group_statistics(added, sample.groups, weight=sample.weight))


def auroc_interval(sample: Sample, value: float, added: np.ndarray) -> dict[str, Any]:
    """Return the interval of AUROC."""
    spread = compute_group_statistics(added, sample.groups, sample.y_true, sample.weight)
    prior = independent_variance(value, *sample.effective) if min(sample.effective) >= MIN_GROUPS else 0.0
    return interval_of_auroc(value, spread._replace(effective=min(sample.effective)), prior)


def independent_variance(auroc: float, positives: float, negatives: float) -> float:
    """Return the variance of AUROC of so many independent images (Hanley and McNeil 1982)."""
    both, alike, square = auroc / (2 - auroc), 2 * auroc**2 / (1 + auroc), auroc**2
    expected = auroc - square + (positives - 1) * (both - square) + (negatives - 1) * (alike - square)
    return expected / (positives * negatives)


def interval_of_auroc(
    value: float, spread: GroupStatistics, prior: float, weight: float = _PRIOR_GROUPS
) -> dict[str, Any]:
    """Return the interval of an AUROC, or of a mean of some.

    Parameters
    ----------
    value : float
    spread : GroupStatistics
    prior : float
        The variance that independent images would have, some of which is averaged in.
    weight : float
        As how many groups it counts.
    """
    if spread.effective >= MIN_GROUPS:
        known = spread.freedom
        variance = (known * spread.variance + weight * prior) / (known + weight)
        spread = spread._replace(variance=variance)
    return bounded_interval(value, spread, bias=0.5)


def mean_of_rates_interval(sample: Sample, value: float, added: np.ndarray) -> dict[str, Any]:
    """Return the interval of the mean of sensitivity and specificity (MOVER: Donner and Zou 2012)."""
    entry = logit_interval(sample, value, added)
    rates = [METRICS[name].evaluate(sample) for name in ("recall", "specificity")]
    if any(found["ci_low"] is None for found in (entry, *rates)):
        return entry
    down, up = (
        float(np.sqrt(sum((rate["value"] - rate[end]) ** 2 for rate in rates)) / 2)
        for end in ("ci_low", "ci_high")
    )
    method = "MOVER of sensitivity and specificity"
    return entry | {"ci_low": value - down, "ci_high": value + up, "method": method}


def add_delong(sample: Sample) -> dict[str, float | None]:
    """Return DeLong's interval of AUROC, which takes images as independent."""
    names = ("delong_low", "delong_high")
    if len(set(sample.y_true)) < 2:
        return dict.fromkeys(names)
    ends = delong_interval(sample.y_true, sample.y_prob)
    return dict(zip(names, ends, strict=True)) if np.isfinite(ends[0]) else dict.fromkeys(names)


@dataclass(frozen=True)
class Metric:
    """A score with an interval from the influence of each image.

    Parameters
    ----------
    title : str
    function : callable
        Of a `Sample`: the score and its influence, as `of_scores` and `of_counts` give it.
    undefined : str
        Why the score may have no value.
    interval : callable
        Of a sample, a score and its influence: the entry of the score.
    extra : callable, optional
        Of a sample: what else the entry holds.
    """

    title: str
    function: Function
    undefined: str = "not defined on these images"
    interval: Callable[[Sample, float, np.ndarray], dict[str, Any]] = logit_interval
    extra: Callable[[Sample], dict[str, Any]] | None = None

    def evaluate(self, sample: Sample) -> dict[str, Any]:
        """Return value, ci_low, ci_high, and method or reason."""
        value, added = self.function(sample)
        known = np.isfinite(value)
        entry = self.interval(sample, value, added) if known else no_interval(None, self.undefined)
        return entry | self.extra(sample) if self.extra else entry


@dataclass(frozen=True)
class Proportion:
    """A share of the images, with Wilson's interval: those in the cells `right` among those in `among`."""

    title: str
    right: tuple[str, ...]
    among: tuple[str, ...]
    undefined: str = "no image"

    def evaluate(self, sample: Sample) -> dict[str, Any]:
        """Return value, ci_low, ci_high, and method or reason."""
        right, among = ([influence.CELLS.index(cell) for cell in part] for part in (self.right, self.among))
        part = np.isin(sample.cells, among)
        hits = np.isin(sample.cells[part], right)
        return grouped_proportion(hits, sample.groups[part], sample.weight[part], self.undefined)


METRICS: dict[str, Metric | Proportion] = {
    "auroc": Metric("AUROC", of_scores(influence.auroc), "one class only", auroc_interval, add_delong),
    "average_precision": Metric(
        "Average precision", of_scores(influence.average_precision), "no fractured image"
    ),
    "accuracy": Proportion("Accuracy", ("tp", "tn"), influence.CELLS),
    "balanced_accuracy": Metric(
        "Balanced accuracy", of_counts(influence.balanced_accuracy), "one class only", mean_of_rates_interval
    ),
    "precision": Proportion("Precision (PPV)", ("tp",), ("tp", "fp"), "no image was called fractured"),
    "recall": Proportion("Recall (sensitivity)", ("tp",), ("tp", "fn"), "no fractured image"),
    "specificity": Proportion("Specificity", ("tn",), ("tn", "fp"), "no non-fractured image"),
    "npv": Proportion("NPV", ("tn",), ("tn", "fn"), "no image was called non-fractured"),
    "f1": Metric("F1", of_counts(influence.f1), "no fractured image, true or called"),
    "kappa": Metric(
        "Cohen's kappa",
        of_counts(influence.kappa),
        "truth and calls are all of one class",
        correlation_interval,
    ),
    "mcc": Metric(
        "Matthews correlation",
        of_counts(influence.mcc),
        "one class only, true or called",
        correlation_interval,
    ),
    "brier": Metric("Brier score", of_scores(influence.brier), interval=error_interval),
}
METRIC_TITLES = {name: metric.title for name, metric in METRICS.items()}


def compute_metrics(
    y_true: np.ndarray, y_prob: np.ndarray, threshold: float, group: Any = None, *, weight: Any = None
) -> dict[str, Any]:
    """Compute all `METRICS` with 95 % intervals at a threshold.

    Parameters
    ----------
    y_true : ndarray of int, shape (n,)
        1 = Fractured.
    y_prob : ndarray of float, shape (n,)
        P(Fractured).
    threshold : float
        An image is called fractured at or above it.
    group : array-like, shape (n,), optional
        Images of one group are not independent; left out, each image is its own group.
    weight : array-like of float, shape (n,), optional
        How much each image counts in every score, such as 1 / the size of its group; tp, fp, tn, fn and n
        count images.

    Returns
    -------
    dict
        An entry for each name in `METRICS`: value, ci_low, ci_high, method (or a reason where there is no
        value, or no interval because a class has fewer than `intervals.MIN_GROUPS` effective groups; AUROC
        also has delong_low and delong_high). Then n, n_groups, n_effective (Kish's effective number of
        groups), n_effective_fractured, n_effective_non_fractured, prevalence, threshold, tp, fp, tn, fn.

    Raises
    ------
    InputError
        When a probability is missing or out of range, or the lengths differ.
    """
    y_true, y_prob = check_predictions(y_true, y_prob)
    scores = evaluate_calls(y_true, y_prob, y_prob >= threshold, group, weight)
    return scores | {"threshold": float(threshold)}


def evaluate_calls(
    y_true: np.ndarray, y_prob: np.ndarray, called: np.ndarray, group: Any = None, weight: Any = None
) -> dict[str, Any]:
    """Compute all `METRICS` of probabilities and of calls that were made of them in any way.

    Parameters
    ----------
    y_true, y_prob, group, weight
        As for `compute_metrics`.
    called : ndarray of bool, shape (n,)
        Whether an image is called positive.

    Returns
    -------
    dict
        As of `compute_metrics`, without threshold.
    """
    groups = np.arange(len(y_true)) if group is None else encode_groups(group)
    weight = np.ones(len(y_true)) if weight is None else np.asarray(weight, float)
    if weight.shape != y_true.shape or not (np.isfinite(weight) & (weight > 0)).all():
        raise InputError(f"{len(y_true)} images need {len(y_true)} weights above 0.")
    cells = np.where(called, np.where(y_true == 1, 0, 1), np.where(y_true == 1, 3, 2))
    sample = Sample(y_true, y_prob, weight, groups, cells)
    counts = np.bincount(cells, minlength=4).tolist()
    return {name: metric.evaluate(sample) for name, metric in METRICS.items()} | {
        "n": len(y_true),
        "n_groups": int(groups.max()) + 1,
        "n_effective": effective_sample_size(np.bincount(groups, weight)),
        "n_effective_fractured": sample.effective[0],
        "n_effective_non_fractured": sample.effective[1],
        "prevalence": float(weight @ y_true / weight.sum()),
        **dict(zip(influence.CELLS, counts, strict=True)),
    }


def evaluate(
    test: pd.DataFrame,
    validation: pd.DataFrame,
    chosen: dict[str, Any],
    *,
    leak: float = 0.0,
    weight: np.ndarray | None = None,
) -> dict[str, Any]:
    """Return the content of ``metrics.json``: scores on test, and under ``validation`` those on validation.

    Parameters
    ----------
    test, validation : DataFrame
        ``predictions_*.csv``: y_true, y_prob, group.
    chosen : dict
        ``threshold.json``: threshold, and how it was chosen: rule, target_sensitivity, chosen_on.
    leak : float
        Share of the test images with a sibling in train or validation, reported beside every score.
    weight : ndarray of float, optional
        Of the test images, where test holds copies of one source: weighted scores are under ``weighted``.
    """
    threshold = chosen["threshold"]
    scores, of_validation = (
        compute_metrics(part["y_true"], part["y_prob"], threshold, part["group"])
        for part in (test, validation)
    )
    scores |= {"threshold_rule": describe_rule(chosen), "leak": leak, "validation": of_validation}
    if weight is not None:
        scores["weighted"] = compute_metrics(
            test["y_true"], test["y_prob"], threshold, test["group"], weight=weight
        )
    return scores


def metrics_table(scores: dict[str, Any]) -> pd.DataFrame:
    """Return one row per metric: metric, test and validation (as text), interval (its method)."""
    rows = []
    for name, metric in METRICS.items():
        row = {"metric": metric.title, "test": describe(scores[name])}
        if "weighted" in scores:
            row["each source once"] = describe(scores["weighted"][name])
        if "validation" in scores:
            row["validation"] = describe(scores["validation"][name])
        if scores.get("leak"):
            row["leaked test images"] = f"{scores['leak']:.0%}"
        rows.append(row | {"interval": scores[name].get("method", "")})
    return pd.DataFrame(rows)
