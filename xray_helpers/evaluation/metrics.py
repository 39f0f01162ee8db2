"""Scores of one model with 95 % intervals (`intervals`), and the operating threshold (`thresholds`)."""

from typing import Any

import numpy as np
import pandas as pd

from xray_helpers.evaluation import influence
from xray_helpers.evaluation.delong import delong_interval
from xray_helpers.evaluation.intervals import (
    MIN_GROUPS,
    PRIOR_AUROC,
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

PROPORTIONS = {  # name: (cells that count as right, cells of which they are a share), of tp, fp, tn, fn
    "accuracy": ((0, 2), (0, 1, 2, 3)),
    "precision": ((0,), (0, 1)),
    "recall": ((0,), (0, 3)),
    "specificity": ((2,), (2, 1)),
    "npv": ((2,), (2, 3)),
}
_OF_COUNTS = {
    "f1": influence.f1,
    "balanced_accuracy": influence.balanced_accuracy,
    "kappa": influence.kappa,
    "mcc": influence.mcc,
}
_OF_SCORES = {
    "auroc": influence.auroc,
    "average_precision": influence.average_precision,
    "brier": influence.brier,
}
METRIC_TITLES = {
    "auroc": "AUROC",
    "average_precision": "Average precision",
    "accuracy": "Accuracy",
    "balanced_accuracy": "Balanced accuracy",
    "precision": "Precision (PPV)",
    "recall": "Recall (sensitivity)",
    "specificity": "Specificity",
    "npv": "NPV",
    "f1": "F1",
    "kappa": "Cohen's kappa",
    "mcc": "Matthews correlation",
    "brier": "Brier score",
}
METRICS = tuple(METRIC_TITLES)
UNDEFINED = {
    "precision": "no image was called fractured",
    "npv": "no image was called non-fractured",
    "recall": "no fractured image",
    "specificity": "no non-fractured image",
    "f1": "no fractured image, true or called",
    "auroc": "one class only",
    "average_precision": "no fractured image",
    "balanced_accuracy": "one class only",
    "kappa": "truth and calls are all of one class",
    "mcc": "one class only, true or called",
}


def compute_metrics(
    y_true: np.ndarray,
    y_prob: np.ndarray,
    threshold: float,
    group: Any = None,
    *,
    weight: Any = None,
    resampled: bool = True,
) -> dict[str, Any]:
    """Compute scores with 95 % intervals at a threshold.

    Parameters
    ----------
    y_true : ndarray of int, shape (n,)
        1 = Fractured.
    y_prob : ndarray of float, shape (n,)
        P(Fractured).
    threshold : float
    group : array-like, shape (n,), optional
        What counts together in intervals; each image its own when left out.
    weight : array-like of float, shape (n,), optional
        How much each image counts in every score, such as 1 / the size of its group; tp, fp, tn, fn and n
        count images.
    resampled : bool
        Without it only shares have an interval, which saves time.

    Returns
    -------
    dict
        For each name in `METRICS` a dictionary value, ci_low, ci_high, method (a reason where there is no
        value, or no interval because a class has fewer than `intervals.MIN_GROUPS` effective groups; AUROC
        also delong_low, delong_high: DeLong's interval, which takes images for independent); then n,
        n_groups, n_effective (Kish's effective number of groups), n_effective_fractured,
        n_effective_non_fractured, prevalence, threshold, tp, fp, tn, fn.

    Raises
    ------
    InputError
        When a score is missing or no probability, or the lengths differ.
    """
    y_true, y_prob = check_predictions(y_true, y_prob)
    codes = np.arange(len(y_true)) if group is None else encode_groups(group)
    weight = _checked_weight(weight, len(y_true))
    called = y_prob >= threshold
    cells = np.where(called, np.where(y_true == 1, 0, 1), np.where(y_true == 1, 3, 2))
    result = {}
    for name, (right, among) in PROPORTIONS.items():
        of = np.isin(cells, among)
        result[name] = grouped_proportion(
            np.isin(cells[of], right), codes[of], weight[of], UNDEFINED.get(name, "no image")
        )
    parts = [
        effective_sample_size(np.bincount(codes[y_true == label], weight[y_true == label]))
        for label in (1, 0)
    ]
    for name, score in _OF_COUNTS.items():
        measured = influence.of_counts(score, cells, weight)
        result[name] = _interval(name, *measured, codes, y_true, weight, parts, resampled)
    for name, score in _OF_SCORES.items():
        measured = score(y_true, y_prob, weight)
        result[name] = _interval(name, *measured, codes, y_true, weight, parts, resampled)
    result["balanced_accuracy"] |= _between(
        result["recall"], result["specificity"], result["balanced_accuracy"]
    )
    result["auroc"] |= dict(zip(("delong_low", "delong_high"), _delong(y_true, y_prob), strict=True))
    counts = np.bincount(cells, minlength=4).tolist()
    return {name: result[name] for name in METRICS} | {
        "n": len(y_true),
        "n_groups": int(codes.max()) + 1,
        "n_effective": effective_sample_size(np.bincount(codes, weight)),
        "n_effective_fractured": parts[0],
        "n_effective_non_fractured": parts[1],
        "prevalence": float(weight @ y_true / weight.sum()),
        "threshold": float(threshold),
        **dict(zip(influence.CELLS, counts, strict=True)),
    }


def _interval(
    name: str,
    value: float,
    added: np.ndarray,
    codes: np.ndarray,
    y_true: np.ndarray,
    weight: np.ndarray,
    parts: list[float],
    resampled: bool,
) -> dict[str, Any]:
    """Return the entry of a score that is no share, from the influence of the images on it."""
    if not np.isfinite(value):
        return no_interval(None, UNDEFINED[name])
    if not resampled:
        return no_interval(value, "not asked for")
    if name == "brier":  # the lower, the better: a share of 1 is the worst
        spread = compute_group_statistics(added, codes, np.zeros(len(codes), int), weight)
        return bounded_interval(value, spread)
    spread = compute_group_statistics(added, codes, y_true, weight)._replace(effective=min(parts))
    if name != "auroc":
        return bounded_interval(value, spread, -1.0 if name in ("kappa", "mcc") else 0.0)
    if min(parts) >= MIN_GROUPS:
        spread = _with_prior(value, spread, *parts)
    return bounded_interval(value, spread, bias=0.5)


def _between(recall: dict[str, Any], specificity: dict[str, Any], entry: dict[str, Any]) -> dict[str, Any]:
    """Return the ends of a mean of two shares from those of either (MOVER: Donner and Zou 2012), where it has
    any.
    """
    if entry["ci_low"] is None or recall["ci_low"] is None or specificity["ci_low"] is None:
        return {}
    both, value = (recall, specificity), entry["value"]
    down, up = (np.sqrt(sum((e["value"] - e[end]) ** 2 for e in both)) / 2 for end in ("ci_low", "ci_high"))
    return {
        "ci_low": float(value - down),
        "ci_high": float(value + up),
        "method": "MOVER of sensitivity and specificity",
    }


def _with_prior(value: float, spread: GroupStatistics, positives: float, negatives: float) -> GroupStatistics:
    """Add a little of the variance that so many independent images would have (Hanley and McNeil 1982)."""
    both, alike = value / (2 - value), 2 * value**2 / (1 + value)
    square = value**2
    expected = value - square + (positives - 1) * (both - square) + (negatives - 1) * (alike - square)
    prior, known = expected / (positives * negatives), spread.freedom
    return spread._replace(variance=(known * spread.variance + PRIOR_AUROC * prior) / (known + PRIOR_AUROC))


def _checked_weight(weight: Any, n: int) -> np.ndarray:
    weight = np.ones(n) if weight is None else np.asarray(weight, float)
    if weight.shape != (n,) or not (np.isfinite(weight) & (weight > 0)).all():
        raise InputError(f"{n} images need {n} weights above 0.")
    return weight


def evaluate(
    test: pd.DataFrame,
    validation: pd.DataFrame,
    chosen: dict[str, Any],
    *,
    leak: float = 0.0,
    weight: np.ndarray | None = None,
) -> dict[str, Any]:
    """Return the content of ``metrics.json``: scores on test, and under ``validation`` the same there.

    Parameters
    ----------
    test, validation : DataFrame
        ``predictions_*.csv``: y_true, y_prob, group.
    chosen : dict
        ``threshold.json``: threshold, and how it was chosen: rule, target_sensitivity, chosen_on.
    leak : float
        Share of the test images with a sibling in train or validation: it stands beside every score.
    weight : ndarray of float, optional
        Of the test images, where copies of one source are judged: under ``weighted`` stand the scores with
        it.
    """
    threshold = chosen["threshold"]
    both = [compute_metrics(t["y_true"], t["y_prob"], threshold, t["group"]) for t in (test, validation)]
    found = both[0] | {"threshold_rule": describe_rule(chosen), "leak": leak, "validation": both[1]}
    if weight is not None:
        found["weighted"] = compute_metrics(
            test["y_true"], test["y_prob"], threshold, test["group"], weight=weight
        )
    return found


def metrics_table(scores: dict[str, Any]) -> pd.DataFrame:
    """Return a row a metric: metric, test, validation (value and interval as text), interval (its method)."""
    rows = []
    for name in METRICS:
        texts = {"test": describe(scores[name])}
        if "weighted" in scores:
            texts["each source once"] = describe(scores["weighted"][name])
        if "validation" in scores:
            texts["validation"] = describe(scores["validation"][name])
        if scores.get("leak"):
            texts["leaked test images"] = f"{scores['leak']:.0%}"
        rows.append({"metric": METRIC_TITLES[name]} | texts | {"interval": scores[name].get("method", "")})
    return pd.DataFrame(rows)


def _delong(y_true: np.ndarray, y_prob: np.ndarray) -> tuple[float | None, float | None]:
    if len(set(y_true)) < 2:
        return None, None
    low, high = delong_interval(y_true, y_prob)
    return (low, high) if np.isfinite(low) else (None, None)
