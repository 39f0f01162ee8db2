"""Whether probabilities can be taken at face value: reliability, slope and intercept, temperature scaling."""

from typing import Any

import numpy as np
import pandas as pd
from scipy import optimize
from scipy.special import expit

from xray_helpers.evaluation.decision_curve import describe_gain
from xray_helpers.evaluation.intervals import (
    TOO_FEW,
    GroupStatistics,
    compute_group_statistics,
    describe,
    effective_sample_size,
    encode_groups,
    flatten_entry,
    grouped_proportion,
    has_few_groups,
    mean_interval,
    no_interval,
    t_half_width,
    unflatten_entry,
)
from xray_helpers.evaluation.log_odds import log_odds

BINS = 8
SLOPES = (0.8, 1.25)  # a calibration slope within these counts as right
_TEMPERATURES = (0.05, 20)


def fit_temperature(y_true: np.ndarray, y_prob: np.ndarray) -> float:
    """Return the temperature that minimises log-loss, within 0.05 to 20; for validation data only.

    Scaled probabilities are expit(logit(p) / temperature) (Guo et al. 2017), which keeps the order of images.
    It is 1 where there is one class only.
    """
    y_true, z = np.asarray(y_true), log_odds(y_prob)
    if len(set(y_true.tolist())) < 2:
        return 1.0

    def loss(log_temperature: float) -> float:
        scaled = z / np.exp(log_temperature)
        return float(np.mean(np.logaddexp(0, scaled) - y_true * scaled))

    found = optimize.minimize_scalar(loss, bounds=np.log(_TEMPERATURES), method="bounded")
    return float(np.exp(found.x))


def fit_temperature_interval(validation: pd.DataFrame) -> dict[str, Any]:
    """Return the temperature of `fit_temperature` as an entry with its 95 % interval by groups."""
    y, z = validation["y_true"].to_numpy(float), log_odds(validation["y_prob"])
    value, codes = fit_temperature(y, validation["y_prob"]), encode_groups(validation["group"])
    if has_few_groups(y, codes):
        return no_interval(value, TOO_FEW)
    slope, spreads = fit_logistic(z[:, None], y, np.zeros(len(y)), codes)
    if slope is None or slope[0] <= 0:
        return no_interval(value, "no temperature fits")
    entry = _slope_interval(float(slope[0]), spreads[0])
    if entry["ci_low"] is None or entry["ci_low"] <= 0:
        return no_interval(value, "the interval has no end")
    ends = sorted([1 / entry["ci_low"], 1 / entry["ci_high"]])
    return entry | {"value": value, "ci_low": min(ends[0], value), "ci_high": max(ends[1], value)}


def scale_probabilities(y_prob: np.ndarray, temperature: float) -> np.ndarray:
    """Return probabilities scaled by a temperature."""
    return expit(log_odds(y_prob) / temperature)


def reliability_table(predictions: pd.DataFrame, bins: int = BINS) -> pd.DataFrame:
    """Return how often images with similar probabilities are fractured.

    Parameters
    ----------
    predictions : DataFrame
        y_true, y_prob, group.
    bins : int
        They hold equal numbers of images as far as ties allow.

    Returns
    -------
    DataFrame
        One row per bin: mean_probability, fractured (share), ci_low, ci_high (95 %, by groups; NaN where
        there are too few), n, n_groups.
    """
    rows = []
    for _, part in predictions.groupby(_assign_bins(predictions["y_prob"], bins)):
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


def _assign_bins(y_prob: Any, bins: int) -> np.ndarray:
    edges = np.unique(np.quantile(y_prob, np.linspace(0, 1, bins + 1)))
    place = np.clip(np.searchsorted(edges, y_prob, side="right") - 1, 0, max(len(edges) - 2, 0))
    return np.unique(place, return_inverse=True)[1]


def evaluate_calibration_error(predictions: pd.DataFrame, bins: int = BINS) -> dict[str, Any]:
    """Return the expected calibration error as an entry, and what perfect probabilities would show by chance.

    The calibration error is the distance of the mean probability in a bin from the share of fractures there,
    averaged over images. It is not 0 for perfectly calibrated probabilities. Its expectation for them is that
    of half-normal distances whose variance is the measured one between groups, and at least that of
    independent images that are fractured as often as their probabilities say. The interval is centred on the
    error less that expectation; its width is that of the jackknife of groups.

    Parameters
    ----------
    predictions : DataFrame
        y_true, y_prob, group.
    bins : int

    Returns
    -------
    dict
        value, ci_low, ci_high, method or reason, by_chance.
    """
    codes, p = encode_groups(predictions["group"]), predictions["y_prob"].to_numpy(float)
    gap = (predictions["y_prob"] - predictions["y_true"]).to_numpy()
    place, n = _assign_bins(predictions["y_prob"], bins), len(predictions)
    groups = int(codes.max()) + 1
    by_group, members = np.zeros((2, groups, place.max() + 1))
    np.add.at(by_group, (codes, place), gap)
    np.add.at(members, (codes, place), 1)
    sums, sizes = by_group.sum(axis=0), np.bincount(codes)
    residual = by_group - members * (sums / members.sum(axis=0))  # from the mean of the bin
    present = (members > 0).sum(axis=0)
    spread = (residual**2).sum(axis=0) * present / np.maximum(present - 1, 1)
    spread = np.maximum(spread, np.bincount(place, p * (1 - p)))
    value = float(np.abs(sums).sum() / n)
    by_chance = float(np.sqrt(2 * spread / np.pi).sum() / n)
    if has_few_groups(predictions["y_true"], codes):
        return no_interval(value, TOO_FEW) | {"by_chance": by_chance}
    left_out = np.abs(sums - by_group).sum(axis=1) / np.maximum(n - sizes, 1)
    variance = ((left_out - left_out.mean()) ** 2).sum() * (groups - 1) / groups
    variance = max(variance, (1 - 2 / np.pi) * spread.sum() / n**2)  # at least that of half-normal distances
    half = t_half_width(np.sqrt(variance), max(effective_sample_size(sizes) - 1, 1))
    return {
        "value": value,
        "ci_low": max(0.0, value - by_chance - half),
        "ci_high": max(value, value - by_chance + half),
        "method": "jackknife of groups, less chance",
        "by_chance": by_chance,
    }


def fit_slope(predictions: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """Return slope and intercept of calibration as entries (Cox 1958; Van Calster et al. 2019).

    Parameters
    ----------
    predictions : DataFrame
        y_true, y_prob, group.

    Returns
    -------
    dict
        ``slope`` of the logistic regression of the truth on the log-odds (1 is right, less is overconfident)
        and ``intercept`` with the slope fixed at 1 (0 is right, less means that probabilities are too high).
    """
    y, z = predictions["y_true"].to_numpy(float), log_odds(predictions["y_prob"])
    codes = encode_groups(predictions["group"])
    if len(set(y.tolist())) < 2:
        return {name: no_interval(None, "one class only") for name in ("slope", "intercept")}
    x = np.stack([np.ones(len(z)), z], axis=1)
    line, spreads = fit_logistic(x, y, np.zeros(len(y)), codes)
    level, level_spreads = fit_logistic(x[:, :1], y, z, codes)
    few = has_few_groups(y, codes)
    if line is None or np.ptp(z) == 0:
        slope = no_interval(None, "the classes are separated, or all probabilities are equal")
    else:
        value = float(line[1])
        slope = no_interval(value, TOO_FEW) if few else _slope_interval(value, spreads[1])
    if level is None:
        return {"slope": slope, "intercept": no_interval(None, "the fit does not converge")}
    value = float(level[0])
    return {
        "slope": slope,
        "intercept": no_interval(value, TOO_FEW) if few else mean_interval(value, level_spreads[0]),
    }


def _slope_interval(value: float, spread: GroupStatistics) -> dict[str, Any]:
    """Return Student's interval of a slope, its upper end at least that on a log scale: slopes are skewed."""
    entry = mean_interval(value, spread)
    if entry["ci_low"] is None or value <= 0:
        return entry
    on_log_scale = value * np.exp(min((entry["ci_high"] - value) / value, 3.0))
    return entry | {"ci_high": float(max(entry["ci_high"], on_log_scale))}


def fit_logistic(
    x: np.ndarray, y: np.ndarray, offset: np.ndarray, codes: np.ndarray
) -> tuple[np.ndarray | None, list[GroupStatistics]]:
    """Return the coefficients of a logistic regression and the spread of each; None if it does not converge.

    Newton's method on Firth's score (1993), which removes most of the bias away from 0 in small samples.
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
    influence = (x * (y - mean)[:, None]) @ np.linalg.inv(information)
    return beta, [compute_group_statistics(column, codes) for column in influence.T]


def evaluate_calibration(validation: pd.DataFrame, test: pd.DataFrame) -> tuple[dict[str, Any], pd.DataFrame]:
    """Fit the temperature on validation, and evaluate test before and after scaling.

    Parameters
    ----------
    validation, test : DataFrame
        ``predictions_*.csv``.

    Returns
    -------
    scores : dict
        temperature (with temperature_low, temperature_high), and for ``before`` and ``after``:
        calibration_error (with _low, _high, _by_chance), slope and intercept (with _low, _high), brier and
        log_loss on test.
    tables : DataFrame
        `reliability_table` of test with the column scaling: before or after; the latter only where a
        temperature fits validation.
    """
    temperature = fit_temperature_interval(validation)
    scores: dict[str, Any] = flatten_entry("temperature", temperature)
    tables = []
    for name, t in (("before", 1.0), ("after", temperature["value"])):
        scaled = test.assign(y_prob=scale_probabilities(test["y_prob"], t))
        error, lines = evaluate_calibration_error(scaled), fit_slope(scaled)
        p = np.clip(scaled["y_prob"], 1e-7, 1 - 1e-7)
        scores[name] = {
            **flatten_entry("calibration_error", error),
            "calibration_error_by_chance": error["by_chance"],
            **flatten_entry("slope", lines["slope"]),
            **flatten_entry("intercept", lines["intercept"]),
            "brier": float(np.mean((scaled["y_prob"] - scaled["y_true"]) ** 2)),
            "log_loss": float(-np.log(np.where(scaled["y_true"] == 1, p, 1 - p)).mean()),
        }
        if name == "before" or _fits(temperature["value"]):
            tables.append(reliability_table(scaled).assign(scaling=name))
    return scores, pd.concat(tables, ignore_index=True)


def calibration_table(scores: dict[str, Any]) -> list[dict[str, str]]:
    """Return the scores of `evaluate_calibration` as text, before and, where a temperature fits, after it."""
    return [
        {
            "scaling": name,
            "calibration error": describe(unflatten_entry(scores[name], "calibration_error")),
            "of perfect ones, by chance": f"{scores[name]['calibration_error_by_chance']:.2f}",
            "slope (1: perfect)": describe(unflatten_entry(scores[name], "slope")),
            "intercept (0: perfect)": describe(unflatten_entry(scores[name], "intercept")),
        }
        for name in ("before", "after")[: 1 + _fits(scores["temperature"])]
    ]


def describe_calibration(scores: dict[str, Any], curve: pd.DataFrame) -> str:
    """Return what calibration and decision curve mean, in sentences that rest on intervals."""
    error = unflatten_entry(scores["before"], "calibration_error")
    text = f"On average a probability differs by {describe(error)} from the share of fractures observed"
    by_chance = scores["before"].get("calibration_error_by_chance")
    if by_chance is not None and np.isfinite(by_chance):
        text += f", where perfect probabilities would differ by {by_chance:.2f} by chance"
    text += f"; {_describe_slope(unflatten_entry(scores['before'], 'slope'))}. "
    temperature = unflatten_entry(scores, "temperature")
    if not _fits(temperature["value"]):
        return f"{text}No temperature fits validation, so scaling does not help. {describe_gain(curve)}"
    fitted = f"{temperature['value']:.2f}" if temperature["ci_low"] is None else describe(temperature)
    after = scores["after"]["calibration_error"]
    return f"{text}Scaled by the temperature {fitted} from validation, the difference is {after:.2f}. " + (
        describe_gain(curve)
    )


def _fits(temperature: float) -> bool:
    """Return whether a temperature lies inside the range that was searched, not at an end of it."""
    return 0.06 < temperature < 19


def _describe_slope(slope: dict[str, Any]) -> str:
    """Return whether the model is overconfident: shown, ruled out within `SLOPES`, or not known."""
    if slope["value"] is None or slope["ci_low"] is None:
        return "whether the model is overconfident is not known"
    evidence = f"(calibration slope {describe(slope)})"
    if slope["ci_high"] < 1:
        return f"the model is overconfident {evidence}"
    if slope["ci_low"] > 1:
        return f"the model is underconfident {evidence}"
    if SLOPES[0] < slope["ci_low"] and slope["ci_high"] < SLOPES[1]:
        return f"the model is neither overconfident nor underconfident {evidence}"
    return f"whether the model is overconfident is not known {evidence}"
