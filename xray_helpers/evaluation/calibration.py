"""Whether a probability means what it says: reliability, slope and intercept, temperature scaling, the
decision curve.
"""

from typing import Any

import numpy as np
import pandas as pd
from scipy import optimize, stats
from scipy.special import expit, logit

from xray_helpers.evaluation.decision_curve import describe_gain
from xray_helpers.evaluation.intervals import (
    LEVEL,
    MIN_GROUPS,
    GroupStatistics,
    compute_group_statistics,
    describe,
    effective_sample_size,
    encode_groups,
    grouped_proportion,
    has_few_groups,
    mean_interval,
    no_interval,
)

BINS = 8
SLOPES = (0.8, 1.25)  # between these a slope means that the probabilities are as sure as they should be
_EDGE = 1e-7  # probabilities are kept this far from 0 and 1 where their logarithm is taken


def fit_temperature(y_true: np.ndarray, y_prob: np.ndarray) -> float:
    """Return the temperature that makes log-loss least; to be called with validation data only.

    Scaled probabilities are expit(logit(p) / temperature) (Guo et al. 2017): the order of images stays.
    Within 0.05 to 20; 1 where one class only tells nothing.
    """
    y_true, z = np.asarray(y_true), _logit(y_prob)
    if len(set(y_true.tolist())) < 2:
        return 1.0

    def loss(log_temperature: float) -> float:
        scaled = z / np.exp(log_temperature)
        return float(np.mean(np.logaddexp(0, scaled) - y_true * scaled))

    found = optimize.minimize_scalar(loss, bounds=(np.log(0.05), np.log(20)), method="bounded")
    return float(np.exp(found.x))


def scale_probabilities(y_prob: np.ndarray, temperature: float) -> np.ndarray:
    """Return the probabilities at a temperature."""
    return expit(_logit(y_prob) / temperature)


def _logit(y_prob: np.ndarray) -> np.ndarray:
    return logit(np.clip(np.asarray(y_prob, dtype=float), _EDGE, 1 - _EDGE))


def reliability_table(predictions: pd.DataFrame, bins: int = BINS) -> pd.DataFrame:
    """Return how often images of like probability are fractured.

    Parameters
    ----------
    predictions : DataFrame
        y_true, y_prob, group.
    bins : int
        Of as equal numbers of images as ties allow.

    Returns
    -------
    DataFrame
        A row a bin: mean_probability, fractured (share), ci_low, ci_high (95 %, by groups; missing where
        there are too few), n, n_groups.
    """
    rows = []
    for _, part in predictions.groupby(_bin_of(predictions["y_prob"], bins)):
        share = grouped_proportion(part["y_true"], part["group"])
        rows.append(
            {
                "mean_probability": part["y_prob"].mean(),
                "fractured": share["value"],
                "ci_low": share["ci_low"],
                "ci_high": share["ci_high"],
                "n": len(part),
                "n_groups": part["group"].nunique(),
            }
        )
    return pd.DataFrame(rows)


def calibration_error(reliability: pd.DataFrame) -> float:
    """Return the expected calibration error: the mean distance of a bin's probability and share, by
    images.
    """
    gap = (reliability["mean_probability"] - reliability["fractured"]).abs()
    return float(np.average(gap, weights=reliability["n"]))


def evaluate_calibration_error(predictions: pd.DataFrame, bins: int = BINS) -> dict[str, Any]:
    """Return the expected calibration error with its interval, and what perfect probabilities would show by
    chance.

    The error of perfectly calibrated probabilities is not 0: in each bin chance alone leaves a distance. Its
    expectation there follows from the spread over groups, at least that of independent images which are
    fractured as often as their probabilities say (the mean of half-normal distances); the interval is about
    the error less that, and as wide as the error with one group left out at a time tells.

    Parameters
    ----------
    predictions : DataFrame
        y_true, y_prob, group.
    bins : int

    Returns
    -------
    dict
        value, ci_low, ci_high (missing, and a reason, where a class has too few groups), by_chance.
    """
    codes, gap = (
        encode_groups(predictions["group"]),
        (predictions["y_prob"] - predictions["y_true"]).to_numpy(),
    )
    place, n = _bin_of(predictions["y_prob"], bins), len(predictions)
    groups = int(codes.max()) + 1
    by_group = np.zeros((groups, place.max() + 1))
    np.add.at(by_group, (codes, place), gap)
    sums, sizes = by_group.sum(axis=0), np.bincount(codes)
    members = np.zeros_like(by_group)
    np.add.at(members, (codes, place), 1)
    residual = by_group - members * (sums / members.sum(axis=0))  # about each bin's own mean
    present = (members > 0).sum(axis=0)
    spread = (residual**2).sum(axis=0) * present / np.maximum(present - 1, 1)
    p = predictions["y_prob"].to_numpy(float)
    spread = np.maximum(
        spread, np.bincount(place, p * (1 - p))
    )  # a bin of one image has no spread to be seen
    value = float(np.abs(sums).sum() / n)
    by_chance = float(np.sqrt(2 * spread / np.pi).sum() / n)
    if has_few_groups(predictions["y_true"], codes):
        return no_interval(value, f"fewer than {MIN_GROUPS} effective groups of a class") | {
            "by_chance": by_chance
        }
    left_out = np.abs(sums - by_group).sum(axis=1) / np.maximum(n - sizes, 1)
    variance = ((left_out - left_out.mean()) ** 2).sum() * (groups - 1) / groups
    variance = max(variance, (1 - 2 / np.pi) * spread.sum() / n**2)  # at least that of distances by chance
    half = stats.t.ppf((1 + LEVEL) / 2, max(effective_sample_size(sizes) - 1, 1)) * np.sqrt(variance)
    ends = max(0.0, value - by_chance - half), max(value, value - by_chance + half)
    return {
        "value": value,
        "ci_low": ends[0],
        "ci_high": ends[1],
        "method": "jackknife of groups, less chance",
        "by_chance": by_chance,
    }


def fit_slope(predictions: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """Return slope and intercept of calibration with 95 % intervals by groups (Cox 1958; Van Calster et al.
    2019).

    Parameters
    ----------
    predictions : DataFrame
        y_true, y_prob, group.

    Returns
    -------
    dict
        ``slope`` of the logistic regression of the truth on the log-odds (1 is right; less: too sure) and
        ``intercept`` with the slope held at 1 (0 is right; less: probabilities too high): value, ci_low,
        ci_high, method or reason.
    """
    y, z = predictions["y_true"].to_numpy(float), _logit(predictions["y_prob"])
    codes = encode_groups(predictions["group"])
    if len(set(y.tolist())) < 2:
        return {name: no_interval(None, "one class only") for name in ("slope", "intercept")}
    both = np.stack([np.ones(len(z)), z], axis=1)
    line, spreads = _fit_logistic(both, y, np.zeros(len(y)), codes)
    level, above = _fit_logistic(both[:, :1], y, z, codes)
    few = has_few_groups(y, codes)
    if line is None or np.ptp(z) == 0:
        slope = no_interval(None, "the classes are parted, or all probabilities are one")
    elif few:
        slope = no_interval(float(line[1]), f"fewer than {MIN_GROUPS} effective groups of a class")
    else:
        slope = _slope_interval(float(line[1]), spreads[1])
    if level is None:
        return {"slope": slope, "intercept": no_interval(None, "the fit has no end")}
    told = f"fewer than {MIN_GROUPS} effective groups of a class"
    intercept = no_interval(float(level[0]), told) if few else mean_interval(float(level[0]), above[0])
    return {"slope": slope, "intercept": intercept}


def _slope_interval(value: float, spread: GroupStatistics) -> dict[str, Any]:
    """Return the wider of Student's interval of a slope and that of its logarithm, end by end: few groups
    leave it skewed.
    """
    entry = mean_interval(value, spread)
    if entry["ci_low"] is None or value <= 0:
        return entry
    grown = value * np.exp(min((entry["ci_high"] - value) / value, 3.0))
    return entry | {"ci_high": float(max(entry["ci_high"], grown))}


def _fit_logistic(
    x: np.ndarray, y: np.ndarray, offset: np.ndarray, codes: np.ndarray
) -> tuple[np.ndarray | None, list[GroupStatistics]]:
    """Return the coefficients of a logistic regression and the spread of each; Nones where the fit has no
    end.

    Newton's method on Firth's score (1993), which takes off most of the bias away from 0 that few images
    bring.
    """
    beta = np.zeros(x.shape[1])
    for _ in range(50):
        mean = expit(x @ beta + offset)
        weighted = x * (mean * (1 - mean))[:, None]
        information = x.T @ weighted
        if np.linalg.cond(information) > 1e12:
            return None, []
        leverage = np.einsum("ij,jk,ik->i", weighted, np.linalg.inv(information), x)
        step = np.linalg.solve(information, x.T @ (y - mean + leverage * (0.5 - mean)))
        beta = beta + np.clip(step, -2, 2)
        if np.abs(beta).max() > 100:
            return None, []
        if np.abs(step).max() < 1e-9:
            break
    added = (x * (y - mean)[:, None]) @ np.linalg.inv(information)
    ones, none = np.ones(len(y)), np.zeros(len(y), int)
    return beta, [compute_group_statistics(column, codes, none, ones) for column in added.T]


def _bin_of(y_prob: Any, bins: int) -> np.ndarray:
    edges = np.unique(np.quantile(y_prob, np.linspace(0, 1, bins + 1)))
    place = np.clip(np.searchsorted(edges, y_prob, side="right") - 1, 0, max(len(edges) - 2, 0))
    return np.unique(place, return_inverse=True)[1]


def fit_temperature_interval(validation: pd.DataFrame) -> dict[str, Any]:
    """Return the temperature of `fit_temperature` with its 95 % interval by groups: value, ci_low, ci_high or
    reason.
    """
    y, z = validation["y_true"].to_numpy(float), _logit(validation["y_prob"])
    value, codes = fit_temperature(y, validation["y_prob"]), encode_groups(validation["group"])
    if has_few_groups(y, codes):
        return no_interval(value, f"fewer than {MIN_GROUPS} effective groups of a class")
    slope, spreads = _fit_logistic(z[:, None], y, np.zeros(len(y)), codes)
    if slope is None or slope[0] <= 0:
        return no_interval(value, "no temperature fits")
    entry = _slope_interval(float(slope[0]), spreads[0])
    if entry["ci_low"] is None or entry["ci_low"] <= 0:
        return no_interval(value, "too wide to be told")
    ends = sorted([1 / entry["ci_low"], 1 / entry["ci_high"]])
    return {
        "value": value,
        "ci_low": min(ends[0], value),
        "ci_high": max(ends[1], value),
        "method": entry["method"],
    }


def calibration_table(scores: dict[str, Any]) -> list[dict[str, str]]:
    """Return `evaluate_calibration`'s scores as text, a row before and after scaling."""
    return [
        {
            "scaling": name,
            "calibration error": describe(_entry("calibration_error", scores[name])),
            "of perfect ones, by chance": f"{scores[name]['calibration_error_by_chance']:.2f}",
            "slope (1: perfect)": describe(_entry("slope", scores[name])),
            "intercept (0: perfect)": describe(_entry("intercept", scores[name])),
        }
        for name in ("before", "after")
    ]


def evaluate_calibration(validation: pd.DataFrame, test: pd.DataFrame) -> tuple[dict[str, Any], pd.DataFrame]:
    """Fit the temperature on validation and look at test before and after it.

    Parameters
    ----------
    validation, test : DataFrame
        ``predictions_*.csv``.

    Returns
    -------
    scores : dict
        temperature (with temperature_low, temperature_high), and for ``before`` and ``after``:
        calibration_error (with _low, _high, _by_chance), slope and intercept (with _low, _high), brier,
        log_loss on test.
    tables : DataFrame
        `reliability_table` of test with the column scaling: before or after.
    """
    entry = fit_temperature_interval(validation)
    scores: dict[str, Any] = _flat("temperature", entry)
    tables = []
    for name, t in (("before", 1.0), ("after", entry["value"])):
        scaled = test.assign(y_prob=scale_probabilities(test["y_prob"], t))
        error, lines = evaluate_calibration_error(scaled), fit_slope(scaled)
        p = np.clip(scaled["y_prob"], _EDGE, 1 - _EDGE)
        chosen = np.where(scaled["y_true"] == 1, p, 1 - p)
        scores[name] = {
            **_flat("calibration_error", error),
            "calibration_error_by_chance": error["by_chance"],
            **_flat("slope", lines["slope"]),
            **_flat("intercept", lines["intercept"]),
            "brier": float(np.mean((scaled["y_prob"] - scaled["y_true"]) ** 2)),
            "log_loss": float(-np.log(chosen).mean()),
        }
        tables.append(reliability_table(scaled).assign(scaling=name))
    return scores, pd.concat(tables, ignore_index=True)


def _flat(name: str, entry: dict[str, Any]) -> dict[str, Any]:
    return {name: entry["value"], f"{name}_low": entry["ci_low"], f"{name}_high": entry["ci_high"]}


def _entry(name: str, scores: dict[str, Any]) -> dict[str, Any]:
    """Return a flat value and its ends as an entry for `intervals.describe`; what is missing in a CSV is
    None.
    """
    value, *ends = (
        None if (found := scores.get(f"{name}{end}")) is None or np.isnan(found) else float(found)
        for end in ("", "_low", "_high")
    )
    return {"value": value, "ci_low": ends[0], "ci_high": ends[1]}


def describe_calibration(scores: dict[str, Any], curve: pd.DataFrame) -> str:
    """Return what calibration and decision curve mean, in sentences that rest on intervals."""
    before, after = (_entry("calibration_error", scores[when]) for when in ("before", "after"))
    text = f"On average a probability is {describe(before)} off the share of fractures it stands for"
    by_chance = scores["before"].get("calibration_error_by_chance")
    if by_chance is not None and np.isfinite(by_chance):
        text += f", where perfect ones would be {by_chance:.2f} off by chance"
    text += f"; {_describe_slope(_entry('slope', scores['before']))}. "
    temperature = _entry("temperature", scores)
    if not 0.06 < scores["temperature"] < 19:
        text += "No temperature fits validation: scaling cannot mend it. "
    else:
        told = describe(temperature) if temperature["ci_low"] is not None else f"{temperature['value']:.2f}"
        text += f"Scaled by the temperature {told} from validation, it is {after['value']:.2f} off. "
    return text + describe_gain(curve)


def _describe_slope(slope: dict[str, Any]) -> str:
    """Return whether the model is too sure: shown, ruled out within `SLOPES`, or not known."""
    if slope["value"] is None or slope["ci_low"] is None:
        return "whether the model is too sure of itself is not known"
    told = f"calibration slope {describe(slope)}"
    if slope["ci_high"] < 1:
        return f"the model is too sure of itself ({told})"
    if slope["ci_low"] > 1:
        return f"the model is less sure than it could be ({told})"
    if SLOPES[0] < slope["ci_low"] and slope["ci_high"] < SLOPES[1]:
        return f"the model is as sure as it should be ({told})"
    return f"whether the model is too sure of itself is not known ({told})"
