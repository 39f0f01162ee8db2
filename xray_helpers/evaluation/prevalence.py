"""Decisions at the threshold: at other prevalences, with abstention, and at a fixed specificity."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from xray_helpers.evaluation.intervals import (
    TAILS,
    TOO_FEW,
    describe,
    encode_groups,
    flatten_entry,
    grouped_proportion,
    has_few_groups,
    interval_entry,
    no_interval,
    predictive_values,
    unflatten_entry,
)
from xray_helpers.evaluation.metrics import compute_metrics
from xray_helpers.study.seeds import derive_seed

PREVALENCES = (0.02, 0.05, 0.1, 0.2, 0.3, 0.5)
SPECIFICITIES = (0.8, 0.9, 0.95)
_RESAMPLES = 500
_OF_DECIDED = {"accuracy": "accuracy", "recall": "sensitivity", "specificity": "specificity"}


def list_prevalences(own: float = 0.0) -> list[float]:
    """Return the usual prevalences in rising order, with the user's own where it is above 0."""
    return sorted({*PREVALENCES, own} - {0.0})


def tabulate_prevalences(scores: dict[str, Any], prevalences: Sequence[float] = PREVALENCES) -> pd.DataFrame:
    """Return the predictive values where fractures are rarer or more frequent than here.

    Parameters
    ----------
    scores : dict
        Of `metrics.compute_metrics`.
    prevalences : sequence of float

    Returns
    -------
    DataFrame
        One row per prevalence: prevalence, ppv and npv, each with ``_low`` and ``_high`` (95 %, MOVER).
    """
    rows = []
    for prevalence in prevalences:
        row = {"prevalence": prevalence}
        for name, entry in predictive_values(scores["recall"], scores["specificity"], prevalence).items():
            row |= flatten_entry(name, entry, missing=np.nan)
        rows.append(row)
    return pd.DataFrame(rows)


def evaluate_decided(test: pd.DataFrame, threshold: float, band: Sequence[float]) -> dict[str, Any]:
    """Evaluate the images on which the model does not abstain.

    Parameters
    ----------
    test : DataFrame
        y_true, y_prob, group.
    threshold : float
    band : (float, float)
        The model abstains on probabilities between these: where the threshold itself could lie.

    Returns
    -------
    dict
        n (of images decided), and as entries abstained (share of images), and accuracy, recall and
        specificity of the images decided.
    """
    low, high = band
    abstained = test["y_prob"].between(low, high) & (low < high)
    decided = test[~abstained]
    found = {"abstained": grouped_proportion(abstained, test["group"]), "n": len(decided)}
    if not len(decided):
        return found | dict.fromkeys(_OF_DECIDED, no_interval(None, "it abstains on every image"))
    scores = compute_metrics(decided["y_true"], decided["y_prob"], threshold, decided["group"])
    return found | {name: scores[name] for name in _OF_DECIDED}


def find_sensitivities(
    test: pd.DataFrame, specificities: Sequence[float] = SPECIFICITIES, seed: int = 0
) -> list[dict[str, Any]]:
    """Return the sensitivity on these images at the threshold that has a given specificity on them.

    The threshold is read off the same images, so this serves to compare models and papers; it is not an
    operating point. Intervals are percentiles of a bootstrap of groups that chooses the threshold each time.

    Parameters
    ----------
    test : DataFrame
        y_true, y_prob, group.
    specificities : sequence of float
    seed : int

    Returns
    -------
    list of dict
        specificity, value, ci_low, ci_high, and method or reason.
    """
    y, p, codes = test["y_true"].to_numpy(), test["y_prob"].to_numpy(), encode_groups(test["group"])
    if len(set(y)) < 2:
        return [{"specificity": at} | no_interval(None, "one class only") for at in specificities]
    order = np.argsort(p, kind="stable")
    y, p, codes = y[order], p[order], codes[order]
    values = _sensitivity_at(y, p, np.ones(len(y)), specificities)
    if has_few_groups(y, codes):
        entries = [no_interval(value, TOO_FEW) for value in values]
        return [{"specificity": at} | entry for at, entry in zip(specificities, entries, strict=True)]
    rng, groups = np.random.default_rng(derive_seed(seed, "sensitivity at specificity")), codes.max() + 1
    drawn = []
    for _ in range(_RESAMPLES):
        weight = np.bincount(rng.integers(0, groups, groups), minlength=groups)[codes].astype(float)
        if weight[y == 1].any() and weight[y == 0].any():
            drawn.append(_sensitivity_at(y, p, weight, specificities))
    ends = np.quantile(drawn, TAILS, axis=0).T
    return [
        {"specificity": at} | interval_entry(value, *span, "bootstrap of groups")
        for at, value, span in zip(specificities, values, ends, strict=True)
    ]


def _sensitivity_at(
    y: np.ndarray, p: np.ndarray, weight: np.ndarray, specificities: Sequence[float]
) -> list[float]:
    """Return the weighted sensitivity at the lowest threshold of each specificity; `p` is in rising order."""
    below = np.cumsum(weight * (y == 0))
    above = np.cumsum((weight * (y == 1))[::-1])[::-1]
    last = np.searchsorted(p, p, side="right") - 1  # images with equal scores are on the same side
    found = []
    for at in specificities:
        first = int(np.searchsorted(below, at * below[-1] - 1e-9))
        after = int(last[min(first, len(p) - 1)]) + 1
        found.append(float(above[after] / above[0]) if after < len(p) else 0.0)
    return found


def decisions_table(
    prevalences: pd.DataFrame, decided: dict[str, Any], fixed: list[dict[str, Any]]
) -> list[dict[str, str]]:
    """Return the results as text: a question, and the answer with its interval."""
    answers = {}
    for row in prevalences.to_dict("records"):
        ppv, npv = (describe(unflatten_entry(row, name)) for name in ("ppv", "npv"))
        answers[f"at a prevalence of {row['prevalence']:.0%}"] = f"PPV {ppv}, NPV {npv}"
    for entry in fixed:
        answers[f"sensitivity where specificity is {entry['specificity']:.0%} here"] = describe(entry)
    answers["share of images on which it abstains"] = describe(decided["abstained"])
    for name, title in _OF_DECIDED.items():
        answers[f"{title} among the {decided['n']} images that it decides"] = describe(decided[name])
    return [{"question": question, "answer": answer} for question, answer in answers.items()]
