"""What decisions at the threshold are worth: at other prevalences, where the model abstains, at a fixed
specificity.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from xray_helpers.evaluation.intervals import (
    LEVEL,
    TOO_FEW,
    describe,
    encode_groups,
    grouped_proportion,
    has_few_groups,
    no_interval,
    predictive_values,
)
from xray_helpers.evaluation.metrics import compute_metrics
from xray_helpers.study.seeds import derive_seed

PREVALENCES = (0.02, 0.05, 0.1, 0.2, 0.3, 0.5)
SPECIFICITIES = (0.8, 0.9, 0.95)
_RESAMPLES = 500
_ENDS = (("value", ""), ("ci_low", "_low"), ("ci_high", "_high"))


def list_prevalences(own: float = 0.0) -> list[float]:
    """Return the usual prevalences, rising, with one of a person's own where it is above 0."""
    return sorted({*PREVALENCES, own} - {0.0})


def tabulate_prevalences(scores: dict[str, Any], prevalences: Sequence[float] = PREVALENCES) -> pd.DataFrame:
    """Return what a positive and a negative call would be worth where fractures are rarer or commoner than
    here.

    Parameters
    ----------
    scores : dict
        Of `metrics.compute_metrics`.
    prevalences : sequence of float

    Returns
    -------
    DataFrame
        prevalence, ppv and npv, each with ``_low`` and ``_high`` (95 %, MOVER); a row per prevalence.
    """
    rows = []
    for prevalence in prevalences:
        found = predictive_values(scores["recall"], scores["specificity"], prevalence)
        rows.append({"prevalence": prevalence} | _flatten(found))
    return pd.DataFrame(rows)


def evaluate_decided(test: pd.DataFrame, threshold: float, band: Sequence[float]) -> dict[str, Any]:
    """Judge the images on which the model does not abstain.

    Parameters
    ----------
    test : DataFrame
        y_true, y_prob, group.
    threshold : float
    band : (float, float)
        Between which it abstains: where the threshold itself could lie.

    Returns
    -------
    dict
        abstained (share of images, with its interval), n (decided), and accuracy, recall and specificity
        among those decided; each value, ci_low, ci_high, or a reason.
    """
    low, high = band
    aside = test["y_prob"].between(low, high) & (low < high)
    decided = test[~aside]
    found = {"abstained": grouped_proportion(aside, test["group"]), "n": len(decided)}
    if not len(decided):
        return found | dict.fromkeys(
            ("accuracy", "recall", "specificity"), no_interval(None, "it abstains on every image")
        )
    scores = compute_metrics(decided["y_true"], decided["y_prob"], threshold, decided["group"])
    return found | {name: scores[name] for name in ("accuracy", "recall", "specificity")}


def find_sensitivities(
    test: pd.DataFrame, specificities: Sequence[float] = SPECIFICITIES, seed: int = 0
) -> list[dict[str, Any]]:
    """Return the sensitivity on these images at the threshold that has a given specificity on them.

    The threshold is read off the same images, so this compares models and papers; it is no operating point.
    Intervals resample whole groups, threshold and all (percentiles).

    Parameters
    ----------
    test : DataFrame
        y_true, y_prob, group.
    specificities : sequence of float
    seed : int

    Returns
    -------
    list of dict
        specificity, value, ci_low, ci_high, method, or a reason.
    """
    y, p, codes = test["y_true"].to_numpy(), test["y_prob"].to_numpy(), encode_groups(test["group"])
    if len(set(y)) < 2:
        return [{"specificity": at} | no_interval(None, "one class only") for at in specificities]
    order = np.argsort(p, kind="stable")
    y, p, codes = y[order], p[order], codes[order]
    value = _sensitivity_at(y, p, np.ones(len(y)), specificities)
    if has_few_groups(y, codes):
        return [
            {"specificity": at} | no_interval(v, TOO_FEW) for at, v in zip(specificities, value, strict=True)
        ]
    rng, groups = np.random.default_rng(derive_seed(seed, "sensitivity at specificity")), codes.max() + 1
    drawn = []
    for _ in range(_RESAMPLES):
        weight = np.bincount(rng.integers(0, groups, groups), minlength=groups)[codes].astype(float)
        if weight[y == 1].any() and weight[y == 0].any():
            drawn.append(_sensitivity_at(y, p, weight, specificities))
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    return [
        {
            "specificity": at,
            "value": v,
            "ci_low": min(lo, v),
            "ci_high": max(hi, v),
            "method": "bootstrap of groups",
        }
        for at, v, lo, hi in zip(specificities, value, low.tolist(), high.tolist(), strict=True)
    ]


def _sensitivity_at(
    y: np.ndarray, p: np.ndarray, weight: np.ndarray, specificities: Sequence[float]
) -> list[float]:
    """Weighted sensitivity above the smallest score that leaves each share of the negatives below it; `p`
    rises.
    """
    below = np.cumsum(weight * (y == 0))
    above = np.cumsum((weight * (y == 1))[::-1])[::-1]
    last = np.searchsorted(p, p, side="right") - 1  # all images of a score lie on one side
    found = []
    for at in specificities:
        first = int(np.searchsorted(below, at * below[-1] - 1e-9))
        after = int(last[min(first, len(p) - 1)]) + 1
        found.append(float(above[after] / above[0]) if after < len(p) else 0.0)
    return found


def _flatten(entries: dict[str, dict[str, Any]]) -> dict[str, Any]:
    row = {}
    for name, entry in entries.items():
        told = {name: entry["value"], f"{name}_low": entry["ci_low"], f"{name}_high": entry["ci_high"]}
        row |= {key: np.nan if value is None else value for key, value in told.items()}
    return row


def decisions_table(
    prevalences: pd.DataFrame, decided: dict[str, Any], fixed: list[dict[str, Any]]
) -> list[dict[str, str]]:
    """Return all of it as text for a reader: what is asked, and the answer with its interval."""
    rows = []
    for row in prevalences.to_dict("records"):
        entries = [{key: row[f"{name}{end}"] for key, end in _ENDS} for name in ("ppv", "npv")]
        answer = "PPV {}, NPV {}".format(*map(describe, entries))
        rows.append({"question": f"at a prevalence of {row['prevalence']:.0%}", "answer": answer})
    for entry in fixed:
        question = f"sensitivity where specificity is {entry['specificity']:.0%} here"
        rows.append({"question": question, "answer": describe(entry)})
    rows.append(
        {"question": "share of images on which it abstains", "answer": describe(decided["abstained"])}
    )
    for name in ("accuracy", "recall", "specificity"):
        title = f"{name.replace('recall', 'sensitivity')} among the {decided['n']} images that it decides"
        rows.append({"question": title, "answer": describe(decided[name])})
    return rows
