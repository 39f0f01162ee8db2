"""The operating threshold: how it is chosen, the sensitivity to expect, and how uncertain it is."""

import bisect
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from sklearn.metrics import roc_curve

from xray_helpers.evaluation.intervals import (
    compute_group_statistics,
    describe,
    encode_groups,
    grouped_proportion,
    has_few_groups,
    t_half_width,
)
from xray_helpers.settings import InputError

_GRID = 400  # thresholds at which Youden's J is computed, at most


def check_predictions(y_true: Any, y_prob: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return labels as int and probabilities as float, or raise `InputError` where they cannot be used."""
    y_true, y_prob = np.asarray(y_true, dtype=int), np.asarray(y_prob, dtype=float)
    if y_true.shape != y_prob.shape or y_true.ndim != 1 or not len(y_true):
        raise InputError(
            f"{len(y_true)} labels and {len(y_prob)} probabilities: one of each is needed per image."
        )
    bad = ~((y_prob >= 0) & (y_prob <= 1))
    if bad.any():
        raise InputError(f"{int(bad.sum())} of {len(y_prob)} probabilities are missing or not within 0 to 1.")
    return y_true, y_prob


def choose_threshold(
    y_true: np.ndarray, y_prob: np.ndarray, rule: str, target: float = 0.95, group: Any = None
) -> float:
    """Choose the operating threshold on predictions that do not include test.

    Parameters
    ----------
    y_true, y_prob : ndarray, shape (n,)
    rule : {'youden', 'sensitivity', 'fixed'}
        ``youden``: the largest Youden's J (sensitivity + specificity - 1, Youden 1950). ``sensitivity``: the
        highest threshold at which the lower bound of sensitivity (one-sided 97.5 %, by groups) reaches
        `target`, or where none does, the highest at which sensitivity itself does. Both are placed midway to
        the next lower score, so that they do not depend on a single image. ``fixed``: 0.5.
    target : float
        The sensitivity of the second rule.
    group : array-like, shape (n,), optional
        Images of one group are not independent; left out, each image is its own group.

    Returns
    -------
    float
        An image is called fractured when its probability is at or above it.

    Raises
    ------
    InputError
        When there is no fractured image to reach a sensitivity on.
    """
    if rule == "fixed":
        return 0.5
    y_true, y_prob = check_predictions(y_true, y_prob)
    scores = np.unique(y_prob)
    if rule == "sensitivity":
        positive = y_true == 1
        if not positive.any():
            raise InputError("No fractured image in validation: a target sensitivity needs some.")
        codes = np.arange(len(y_true)) if group is None else encode_groups(group)
        best = _threshold_of_sensitivity(y_prob[positive], codes[positive], target)
    else:
        false_positive, true_positive, thresholds = roc_curve(y_true, y_prob, drop_intermediate=False)
        best = float(thresholds[np.argmax(true_positive - false_positive)])
        if not np.isfinite(best):  # no threshold separates the classes: call no image fractured
            return float(np.nextafter(scores[-1], 2))
    lower = scores[scores < best]
    return float((best + lower[-1]) / 2) if len(lower) else best


def _first_index(low: int, high: int, holds: Callable[[int], bool]) -> int:
    """Return the first index from `low` on at which a condition holds, by bisection; `high` where none is."""
    return low + bisect.bisect_left(range(low, high), True, key=holds)


def _threshold_of_sensitivity(positive: np.ndarray, codes: np.ndarray, target: float) -> float:
    """Return the highest threshold at which the bound of sensitivity, or else its value, is the target."""
    levels = np.unique(positive)[::-1]
    by_value = np.sort(positive)[::-1][int(np.ceil(target * len(positive) - 1e-9)) - 1]

    def is_reached(index: int) -> bool:
        bound = grouped_proportion(positive >= levels[index], codes)["ci_low"]
        return bound is not None and bound >= target

    start, last = int(np.searchsorted(-levels, -by_value)), len(levels) - 1
    if not is_reached(last):
        return float(by_value)
    return float(levels[_first_index(start, last, is_reached)])


def evaluate_sensitivity(validation: pd.DataFrame, threshold: float) -> dict[str, Any]:
    """Return the sensitivity on validation at a threshold, with the interval to expect on other images."""
    positive = validation[validation["y_true"] == 1]
    return grouped_proportion(
        positive["y_prob"] >= threshold, positive["group"], undefined="no fractured image"
    )


def describe_rule(chosen: dict[str, Any]) -> str:
    """Return how the threshold was chosen, in a few words, from the content of ``threshold.json``."""
    part = chosen.get("chosen_on", "validation")
    if chosen["rule"] == "fixed":
        return "fixed"
    if chosen["rule"] == "youden":
        return f"Youden's J on {part}"
    target, reached = chosen["target_sensitivity"], chosen.get("sensitivity")
    text = f"sensitivity of {target:g} on {part}"
    if not reached:
        return text
    if reached["ci_low"] is not None and reached["ci_low"] >= target:
        return f"{text}, reached by its lower bound"
    return f"{text}, which may not be reached elsewhere: {describe(reached)} there"


def threshold_band(validation: pd.DataFrame, rule: str, target: float = 0.95) -> tuple[float, float]:
    """Return the range in which the threshold would lie if it were chosen on the whole population.

    A 95 % confidence set: for the rule ``sensitivity`` the thresholds whose interval of sensitivity contains
    the target; for ``youden`` the range of those whose J is not shown to be below the largest. With fewer
    than `intervals.MIN_GROUPS` effective groups of a class it is 0 to 1.

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
    if rule == "sensitivity":
        return _band_of_sensitivity(y_prob[y_true == 1], codes[y_true == 1], target)
    return _band_of_youden(y_true, y_prob, codes)


def describe_reach(low: float, high: float, names: Sequence[str]) -> list[str]:
    """Return a sentence where the band of abstention reaches 0 or 1, so that an answer is never given."""
    never = [name for name, ends in zip(names, (low <= 0, high >= 1), strict=True) if ends and low < high]
    if len(never) == 2:
        return ["It abstains on every image, and never decides."]
    where = f"up to {high:.3f}" if low <= 0 else f"from {low:.3f} on"
    return [f"It abstains on all images {where}, and never answers {name}." for name in never]


def _band_of_sensitivity(positive: np.ndarray, codes: np.ndarray, target: float) -> tuple[float, float]:
    levels = np.concatenate([[0.0], np.unique(positive)])

    def bound(index: int, end: str) -> float:
        return grouped_proportion(positive >= levels[index], codes)[end]

    unsure = _first_index(0, len(levels), lambda index: not bound(index, "ci_low") >= target)
    missed = _first_index(0, len(levels), lambda index: bound(index, "ci_high") < target)
    return float(levels[max(unsure - 1, 0)]), float(levels[missed]) if missed < len(levels) else 1.0


def _band_of_youden(y_true: np.ndarray, y_prob: np.ndarray, codes: np.ndarray) -> tuple[float, float]:
    levels = np.unique(np.quantile(y_prob, np.linspace(0, 1, _GRID), method="nearest"))
    best = choose_threshold(y_true, y_prob, "youden")
    sign = np.where(y_true == 1, 1 / y_true.sum(), -1 / (1 - y_true).sum())
    kept = [best]
    for level in levels:
        loss = sign * ((y_prob >= best).astype(float) - (y_prob >= level))
        means = np.array([loss[y_true == label].sum() for label in (0, 1)]) / np.bincount(y_true)
        spread = compute_group_statistics(loss - means[y_true], codes, y_true)
        if loss.sum() <= t_half_width(np.sqrt(spread.variance), spread.freedom):
            kept.append(level)
    return float(min(kept)), float(max(kept))
