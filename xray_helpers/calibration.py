"""Whether a probability means what it says: reliability, temperature scaling, and the decision curve."""

from typing import Any

import numpy as np
import pandas as pd
from scipy import optimize
from scipy.special import expit, logit

from xray_helpers.intervals import grouped_proportion

BINS = 8
_EDGE = 1e-7  # probabilities are kept this far from 0 and 1 where their logarithm is taken


def fit_temperature(y_true: np.ndarray, y_prob: np.ndarray) -> float:
    """Return the temperature that makes log-loss least; to be called with validation data only.

    Scaled probabilities are expit(logit(p) / temperature) (Guo et al. 2017): the order of images stays. Within 0.05 to
    20; 1 where one class only tells nothing.
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
        A row a bin: mean_probability, fractured (share), ci_low, ci_high (95 %, by groups), n, n_groups.
    """
    edges = np.unique(np.quantile(predictions["y_prob"], np.linspace(0, 1, bins + 1)))
    place = np.clip(np.searchsorted(edges, predictions["y_prob"], side="right") - 1, 0, max(len(edges) - 2, 0))
    rows = []
    for _, part in predictions.groupby(place):
        share = grouped_proportion(part["y_true"], part["group"])
        rows.append({"mean_probability": part["y_prob"].mean(), "fractured": share["value"],
                     "ci_low": share["ci_low"], "ci_high": share["ci_high"],
                     "n": len(part), "n_groups": part["group"].nunique()})  # fmt: skip
    return pd.DataFrame(rows)


def calibration_error(reliability: pd.DataFrame) -> float:
    """Return the expected calibration error: the mean distance of a bin's probability and share, by images."""
    gap = (reliability["mean_probability"] - reliability["fractured"]).abs()
    return float(np.average(gap, weights=reliability["n"]))


def judge_calibration(validation: pd.DataFrame, test: pd.DataFrame) -> tuple[dict[str, Any], pd.DataFrame]:
    """Fit the temperature on validation and look at test before and after it.

    Parameters
    ----------
    validation, test : DataFrame
        ``predictions_*.csv``.

    Returns
    -------
    scores : dict
        temperature, and for ``before`` and ``after``: calibration_error, brier, log_loss on test.
    tables : DataFrame
        `reliability_table` of test with the column scaling: before or after.
    """
    temperature = fit_temperature(validation["y_true"], validation["y_prob"])
    scores: dict[str, Any] = {"temperature": temperature}
    tables = []
    for name, t in (("before", 1.0), ("after", temperature)):
        scaled = test.assign(y_prob=scale_probabilities(test["y_prob"], t))
        table = reliability_table(scaled)
        p = np.clip(scaled["y_prob"], _EDGE, 1 - _EDGE)
        chosen = np.where(scaled["y_true"] == 1, p, 1 - p)
        scores[name] = {"calibration_error": calibration_error(table),
                        "brier": float(np.mean((scaled["y_prob"] - scaled["y_true"]) ** 2)),
                        "log_loss": float(-np.log(chosen).mean())}  # fmt: skip
        tables.append(table.assign(scaling=name))
    return scores, pd.concat(tables, ignore_index=True)


def decision_curve(predictions: pd.DataFrame, points: int = 99) -> pd.DataFrame:
    """Return the net benefit of acting on the model, on all, and on none (Vickers and Elkin 2006).

    At a threshold probability t, a false alarm is worth t / (1 - t) of a found fracture: net benefit is the share of
    true positives less that times the share of false ones.

    Returns
    -------
    DataFrame
        threshold, model, treat_all, treat_none: net benefit in true positives an image.
    """
    y, p = predictions["y_true"].to_numpy(), predictions["y_prob"].to_numpy()
    thresholds = np.linspace(0, 1, points + 2)[1:-1]
    called = p[None] >= thresholds[:, None]
    weight = thresholds / (1 - thresholds)
    model = (called & (y == 1)).mean(axis=1) - (called & (y == 0)).mean(axis=1) * weight
    everyone = y.mean() - (1 - y.mean()) * weight
    return pd.DataFrame({"threshold": thresholds, "model": model, "treat_all": everyone, "treat_none": 0.0})


def describe_calibration(scores: dict[str, Any], curve: pd.DataFrame) -> str:
    """Return what calibration and decision curve mean, in sentences."""
    before, after = scores["before"]["calibration_error"], scores["after"]["calibration_error"]
    text = f"On average a probability is {before:.2f} off the share of fractures it stands for"
    if scores["temperature"] > 1.1:
        text += "; the model is too sure of itself"
    elif scores["temperature"] < 0.9:
        text += "; the model is less sure than it could be"
    if not 0.06 < scores["temperature"] < 19:
        text += ". No temperature fits validation: scaling cannot mend it. "
    else:
        text += f". Scaled by the temperature {scores['temperature']:.2f} from validation, it is {after:.2f} off. "
    better = curve[curve["model"] > curve[["treat_all", "treat_none"]].max(axis=1) + 1e-12]
    if better.empty:
        return text + "At no threshold is acting on the model worth more than treating all or none alike."
    low, high = better["threshold"].min(), better["threshold"].max()
    return text + (
        f"Between threshold probabilities of {low:.2f} and {high:.2f} there are some at which acting on the model is worth "
        "more than treating all or none alike."
    )
