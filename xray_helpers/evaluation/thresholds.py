"""The operating threshold: how it is chosen, what it will reach, and between what values it could lie."""

from typing import Any

import numpy as np
import pandas as pd
from scipy import stats
from sklearn.metrics import roc_curve

from xray_helpers.evaluation.intervals import (
    LEVEL,
    compute_group_statistics,
    describe,
    encode_groups,
    grouped_proportion,
    has_few_groups,
)
from xray_helpers.settings import InputError

_GRID = 400  # thresholds at which Youden's J is looked at, at most


def check_predictions(y_true: Any, y_prob: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return labels as int and probabilities as float; raise `InputError` where one is missing or no
    probability.
    """
    y_true, y_prob = np.asarray(y_true, dtype=int), np.asarray(y_prob, dtype=float)
    if y_true.shape != y_prob.shape or y_true.ndim != 1 or not len(y_true):
        raise InputError(
            f"{len(y_true)} labels and {len(y_prob)} probabilities: one of each an image is needed."
        )
    bad = ~((y_prob >= 0) & (y_prob <= 1))
    if bad.any():
        raise InputError(f"{int(bad.sum())} of {len(y_prob)} probabilities are missing or not within 0 to 1.")
    return y_true, y_prob


def choose_threshold(
    y_true: np.ndarray, y_prob: np.ndarray, rule: str, target: float = 0.95, group: Any = None
) -> float:
    """Choose the operating threshold; to be called with predictions that test had no part in.

    Parameters
    ----------
    y_true, y_prob : ndarray, shape (n,)
    rule : {'youden', 'sensitivity', 'fixed'}
        Youden's J (sensitivity + specificity - 1, Youden 1950) at its largest; or the highest threshold at
        which the lower bound of sensitivity (one-sided 97.5 %, by groups) reaches `target`, and where none
        does, the highest at which sensitivity itself does; either taken midway to the next lower score, so
        that it does not hang on one image; or 0.5.
    target : float
        Sensitivity for the second rule.
    group : array-like, shape (n,), optional
        What counts together in that bound; each image its own when left out.

    Returns
    -------
    float
        An image is called fractured when its probability is at or above it.

    Raises
    ------
    InputError
        When validation has no fractured image to reach a sensitivity on.
    """
    if rule == "fixed":
        return 0.5
    y_true, y_prob = check_predictions(y_true, y_prob)
    scores = np.unique(y_prob)
    if rule == "sensitivity":
        positive = y_true == 1
        if not positive.any():
            raise InputError(
                "No fractured image in validation: a target sensitivity cannot be reached there."
            )
        codes = np.arange(len(y_true)) if group is None else encode_groups(group)
        best = _highest_that_reaches(y_prob[positive], codes[positive], target)
    else:
        false_positive, true_positive, thresholds = roc_curve(y_true, y_prob, drop_intermediate=False)
        best = float(thresholds[np.argmax(true_positive - false_positive)])
        if not np.isfinite(best):  # nothing separates: call nothing fractured
            return float(np.nextafter(scores[-1], 2))
    lower = scores[scores < best]
    return float((best + lower[-1]) / 2) if len(lower) else best


def _highest_that_reaches(positive: np.ndarray, codes: np.ndarray, target: float) -> float:
    """Return the highest score of a fractured image from which on sensitivity surely reaches the target, or
    at all.
    """
    levels = np.unique(positive)[::-1]
    plain = np.sort(positive)[::-1][int(np.ceil(target * len(positive) - 1e-9)) - 1]
    start = int(np.searchsorted(-levels, -plain))
    low, high = start, len(levels) - 1  # by bisection: the bound rises as the threshold falls
    if not _lower_bound(positive >= levels[high], codes) >= target:
        return float(plain)
    while low < high:
        middle = (low + high) // 2
        reached = _lower_bound(positive >= levels[middle], codes) >= target
        low, high = (low, middle) if reached else (middle + 1, high)
    return float(levels[low])


def _lower_bound(hits: np.ndarray, codes: np.ndarray) -> float:
    bound = grouped_proportion(hits, codes)["ci_low"]
    return -1.0 if bound is None else bound


def evaluate_sensitivity(validation: pd.DataFrame, threshold: float) -> dict[str, Any]:
    """Return the sensitivity on validation at a threshold with its interval: what it will reach elsewhere.

    Parameters
    ----------
    validation : DataFrame
        y_true, y_prob, group.
    threshold : float
    """
    positive = validation[validation["y_true"] == 1]
    return grouped_proportion(
        positive["y_prob"] >= threshold, positive["group"], undefined="no fractured image"
    )


def describe_rule(chosen: dict[str, Any]) -> str:
    """Return how the threshold was chosen, in a few words; of ``threshold.json``, with ``sensitivity`` where
    it is told.
    """
    where = chosen.get("chosen_on", "validation")
    words = {
        "fixed": "fixed",
        "youden": f"Youden's J on {where}",
        "sensitivity": f"sensitivity of {chosen['target_sensitivity']:g} on {where}",
    }
    text, reached = words[chosen["rule"]], chosen.get("sensitivity")
    if chosen["rule"] != "sensitivity" or not reached:
        return text
    low = reached["ci_low"]
    if low is not None and low >= chosen["target_sensitivity"]:
        return f"{text}, lower bound and all"
    return f"{text}, which is not sure to be reached: {describe(reached)} there"


def threshold_band(validation: pd.DataFrame, rule: str, target: float = 0.95) -> tuple[float, float]:
    """Return between what values the threshold would lie if it were chosen on all images there could be.

    A 95 % confidence set: for the rule ``sensitivity`` the thresholds whose interval of sensitivity holds the
    target; for ``youden`` the range of those whose J is not shown to be less than the largest. A probability
    within is uncertain. With fewer than `intervals.MIN_GROUPS` effective groups of a class nothing is known
    of it: it is 0 to 1.

    Parameters
    ----------
    validation : DataFrame
        y_true, y_prob, group.
    rule, target
        As for `choose_threshold`.
    """
    if rule == "fixed":
        return 0.5, 0.5
    y_true, y_prob = check_predictions(validation["y_true"], validation["y_prob"])
    codes = encode_groups(validation["group"])
    if has_few_groups(y_true, codes):
        return 0.0, 1.0
    return (
        _band_of_sensitivity(y_true, y_prob, codes, target)
        if rule == "sensitivity"
        else _band_of_youden(y_true, y_prob, codes)
    )


def _band_of_sensitivity(y_true: np.ndarray, y_prob: np.ndarray, codes: np.ndarray, target: float) -> tuple:
    positive, codes = y_prob[y_true == 1], codes[y_true == 1]
    levels = np.concatenate([[0.0], np.unique(positive)])

    def first(holds: Any) -> int:
        low, high = 0, len(levels)
        while low < high:
            middle = (low + high) // 2
            low, high = (
                (low, middle)
                if holds(grouped_proportion(positive >= levels[middle], codes))
                else (middle + 1, high)
            )
        return low

    surely = first(lambda entry: not entry["ci_low"] >= target)  # below, the target is surely reached
    surely_not = first(lambda entry: entry["ci_high"] < target)  # from here on it is surely missed
    return float(levels[max(surely - 1, 0)]), float(levels[surely_not]) if surely_not < len(levels) else 1.0


def _band_of_youden(y_true: np.ndarray, y_prob: np.ndarray, codes: np.ndarray) -> tuple[float, float]:
    levels = np.unique(np.quantile(y_prob, np.linspace(0, 1, _GRID), method="nearest"))
    best = choose_threshold(y_true, y_prob, "youden")
    ones, sign = np.ones(len(y_true)), np.where(y_true == 1, 1 / y_true.sum(), -1 / (1 - y_true).sum())
    kept = [best]
    for level in levels:
        loss = sign * ((y_prob >= best).astype(float) - (y_prob >= level))
        means = np.array([loss[y_true == label].sum() for label in (0, 1)]) / np.bincount(y_true)
        spread = compute_group_statistics(loss - means[y_true], codes, y_true, ones)
        if loss.sum() <= stats.t.ppf((1 + LEVEL) / 2, spread.freedom) * np.sqrt(spread.variance):
            kept.append(level)
    return float(min(kept)), float(max(kept))
