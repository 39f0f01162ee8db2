"""What local images could mend: recalibration and a threshold, judged on images that they did not see.

Everything is cross-fitted by groups. The curve draws so many local images again and again, fits on them, and
judges on the rest.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import expit

from xray_helpers.evaluation.calibration import (
    evaluate_calibration_error,
    fit_logistic,
    fit_slope,
    fit_temperature,
    scale_probabilities,
)
from xray_helpers.evaluation.external import split_groups
from xray_helpers.evaluation.intervals import (
    TAILS,
    describe,
    encode_groups,
    flatten_entry,
    grouped_mean,
    has_few_groups,
    unflatten_entry,
)
from xray_helpers.evaluation.log_odds import log_odds
from xray_helpers.evaluation.thresholds import choose_threshold
from xray_helpers.study.seeds import derive_seed

AS_IT_IS, STUDYS = "as it is", "the study's temperature"
SIZES = (20, 40, 80, 160, 320, 640, 1280)  # local images on which is fitted
MOST = 0.6  # share of the images on which is fitted at most; the rest judge
DRAWS = 40
_FEWEST = 3  # images of a class without which nothing is fitted


def recalibrate_elsewhere(
    judged: pd.DataFrame | None, chosen: dict[str, Any], temperature: float, seed: int = 0
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the tables of `compare_recalibrations` and `draw_local_curve`; without labels empty ones."""
    nothing = pd.DataFrame({"y_true": [], "y_prob": [], "group": []})
    if judged is None:
        return pd.DataFrame(columns=["way", "log_loss", "gain"]), draw_local_curve(nothing, chosen, seed)
    table, _ = compare_recalibrations(judged, temperature, seed)
    return table, draw_local_curve(judged, chosen, seed)


def _fit_intercept(y: np.ndarray, p: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    z = log_odds(p)
    found, _ = fit_logistic(np.ones((len(z), 1)), y.astype(float), z, np.arange(len(z)))
    return (lambda q: q) if found is None else lambda q: expit(log_odds(q) + found[0])


def _fit_temperature(y: np.ndarray, p: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    temperature = fit_temperature(y, p)
    return lambda q: scale_probabilities(q, temperature)


def _fit_line(y: np.ndarray, p: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    z = log_odds(p)
    x = np.column_stack([np.ones(len(z)), z])
    found, _ = fit_logistic(x, y.astype(float), np.zeros(len(z)), np.arange(len(z)))
    return (lambda q: q) if found is None else lambda q: expit(found[0] + found[1] * log_odds(q))


WAYS = {
    "its own intercept": _fit_intercept,
    "its own temperature": _fit_temperature,
    "its own intercept and slope": _fit_line,
}
_CURVES = ("its own intercept", "its own intercept and slope")


def log_loss(y: np.ndarray, p: np.ndarray) -> np.ndarray:
    """Return the log-loss of each image, shape (n,)."""
    z = log_odds(p)
    return np.logaddexp(0, z) - y * z


def compare_recalibrations(
    predictions: pd.DataFrame, temperature: float, seed: int = 0
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Recalibrate an external set in several ways, cross-fitted by groups, and judge each.

    Parameters
    ----------
    predictions : DataFrame
        y_true, y_prob, group.
    temperature : float
        Of the study, fitted on its validation part.
    seed : int

    Returns
    -------
    table : DataFrame
        way, log_loss (mean), gain (log-loss as it is less that; above 0 is better), slope, intercept and
        calibration_error, each with ``_low`` and ``_high`` (95 %), n, n_groups.
    probabilities : DataFrame
        One column per way; each image by a fit that saw neither it nor its group.
    """
    y, p = predictions["y_true"].to_numpy(), predictions["y_prob"].to_numpy(float)
    found = {AS_IT_IS: p, STUDYS: scale_probabilities(p, temperature)}
    folds = split_groups(predictions, seed)
    for way, fit in WAYS.items() if folds else ():
        fitted = p.copy()
        for rest, held in folds:
            fitted[held] = fit(y[rest], p[rest])(p[held])
        found[way] = fitted
    rows = []
    for way, fitted in found.items():
        scaled = predictions[["y_true", "group"]].assign(y_prob=fitted)
        line, before, after = fit_slope(scaled), log_loss(y, p), log_loss(y, fitted)
        row = {"way": way, "log_loss": float(after.mean()), "n": len(y)}
        row |= flatten_entry("gain", _mean_of(before - after, predictions), missing=np.nan)
        for name in ("slope", "intercept"):
            row |= flatten_entry(name, line[name], missing=np.nan)
        row |= flatten_entry("calibration_error", evaluate_calibration_error(scaled), missing=np.nan)
        rows.append(row | {"n_groups": predictions["group"].nunique()})
    return pd.DataFrame(rows), pd.DataFrame(found, index=predictions.index)


def _mean_of(values: np.ndarray, predictions: pd.DataFrame) -> dict[str, Any]:
    entry = grouped_mean(values, predictions["group"])
    if has_few_groups(predictions["y_true"], predictions["group"]):
        return {"value": entry["value"], "ci_low": None, "ci_high": None}
    return entry


def draw_local_curve(predictions: pd.DataFrame, chosen: dict[str, Any], seed: int = 0) -> pd.DataFrame:
    """Return what so many local images bring: by recalibration, and by a threshold of their own.

    For each number of images, whole groups are drawn `DRAWS` times; what is fitted on them is judged on all
    others. An image's gain is its mean over the draws that judged it; the interval of the mean counts groups.
    Draws with fewer than three images of a class fit nothing, and gain nothing. Draws of more than twice the
    number, or that leave fewer than three images of a class, are left out; so is a number with less than half
    of its draws.

    Parameters
    ----------
    predictions : DataFrame
        y_true, y_prob, group.
    chosen : dict
        ``threshold.json``: threshold, rule and target_sensitivity.
    seed : int

    Returns
    -------
    DataFrame
        One row per number of images and way: images, way, gain (in log-loss, with ``_low`` and ``_high``,
        95 % by groups), helped (share of draws with a gain); and of the threshold, in the rows of the first
        way: balanced_gain (balanced accuracy, own less transferred threshold), sensitivity and specificity,
        each the mean over draws with ``_low`` and ``_high``, between which 95 % of the draws lie; better
        (share of draws with a gain in balanced accuracy), reached (share of draws within 0.05 of the target).
    """
    y, p = predictions["y_true"].to_numpy(), predictions["y_prob"].to_numpy(float)
    codes = encode_groups(predictions["group"])
    rows = []
    for size in [size for size in SIZES if size <= MOST * len(y)]:
        rng = np.random.default_rng(derive_seed(seed, "local images", str(size)))
        drawn = [_draw_groups(codes, size, rng) for _ in range(DRAWS)]
        drawn = [fit for fit in drawn if fit.sum() <= 2 * size and _can_judge(y[~fit])]
        if len(drawn) < DRAWS / 2:  # with a few large groups there are no draws of this size
            continue
        ways = [_curve_row(y, p, drawn, way, predictions) | {"images": size} for way in _CURVES]
        ways[0] |= _threshold_row(y, p, codes, drawn, chosen)
        rows += ways
    columns = ["images", "way", "gain", "gain_low", "gain_high", "helped"]
    rates = [
        f"{name}{end}"
        for name in ("sensitivity", "specificity", "balanced_gain")
        for end in ("", "_low", "_high")
    ]
    return pd.DataFrame(rows).reindex(columns=[*columns, *rates, "better", "reached"])


def _draw_groups(codes: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """Return which images are in groups drawn until there are `size` of them."""
    order = rng.permutation(codes.max() + 1)
    total = np.cumsum(np.bincount(codes)[order])
    return np.isin(codes, order[: int(np.searchsorted(total, size)) + 1])


def _can_judge(y: np.ndarray) -> bool:
    return min(np.bincount(y, minlength=2)) >= _FEWEST


def _curve_row(
    y: np.ndarray, p: np.ndarray, drawn: list[np.ndarray], way: str, predictions: pd.DataFrame
) -> dict[str, Any]:
    sums, counts, means = np.zeros(len(y)), np.zeros(len(y)), []
    before = log_loss(y, p)
    for fit in drawn:
        rest = ~fit
        fitted = p[rest]
        if min(np.bincount(y[fit], minlength=2)) >= _FEWEST:
            fitted = WAYS[way](y[fit], p[fit])(p[rest])
        gain = before[rest] - log_loss(y[rest], fitted)
        sums[rest] += gain
        counts[rest] += 1
        means.append(gain.mean())
    judged = counts > 0
    entry = _mean_of(sums[judged] / counts[judged], predictions[judged])
    row = {"way": way, "helped": float(np.mean(np.array(means) > 0))}
    return row | flatten_entry("gain", entry, missing=np.nan)


def _threshold_row(
    y: np.ndarray, p: np.ndarray, codes: np.ndarray, drawn: list[np.ndarray], chosen: dict[str, Any]
) -> dict[str, Any]:
    rule = "youden" if chosen["rule"] == "fixed" else chosen["rule"]
    target = chosen.get("target_sensitivity", 0.95)
    rates = []
    for fit in drawn:
        rest = ~fit
        threshold = float(chosen["threshold"])
        transferred = _rates(y[rest], p[rest], threshold)
        if min(np.bincount(y[fit], minlength=2)) >= _FEWEST:
            threshold = choose_threshold(y[fit], p[fit], rule, target, codes[fit])
        own = _rates(y[rest], p[rest], threshold)
        rates.append([*own, np.mean(own) - np.mean(transferred)])
    found, row = np.array(rates), {}
    for column, name in enumerate(("sensitivity", "specificity", "balanced_gain")):
        ends = np.nanquantile(found[:, column], TAILS)
        row |= {name: np.nanmean(found[:, column]), f"{name}_low": ends[0], f"{name}_high": ends[1]}
    row["better"] = float(np.mean(found[:, 2] > 0))
    row["reached"] = float(np.mean(found[:, 0] >= target - 0.05))
    return row


def _rates(y: np.ndarray, p: np.ndarray, threshold: float) -> tuple[float, float]:
    """Return sensitivity and specificity; NaN without images of the class."""
    called = p >= threshold
    return tuple(
        float((called[y == label] == label).mean()) if (y == label).any() else np.nan for label in (1, 0)
    )


def recalibration_table(table: pd.DataFrame) -> list[dict[str, str]]:
    """Return the first table of `compare_recalibrations` as text."""
    return [
        {
            "probabilities": row["way"],
            "log-loss": f"{row['log_loss']:.3f}",
            "gain": "" if row["way"] == AS_IT_IS else _describe_gain(row),
            "slope (1: perfect)": describe(unflatten_entry(row, "slope")),
            "intercept (0: perfect)": describe(unflatten_entry(row, "intercept")),
            "calibration error": describe(unflatten_entry(row, "calibration_error")),
            "n": f"{row['n']} in {row['n_groups']} groups",
        }
        for row in table.to_dict("records")
    ]


def _describe_gain(row: dict[str, Any]) -> str:
    if pd.isna(row["gain_low"]):
        return f"{row['gain']:+z.3f} (no interval)"
    return f"{row['gain']:+z.3f} ({row['gain_low']:+z.3f} to {row['gain_high']:+z.3f})"


def describe_recalibration(table: pd.DataFrame) -> str:
    """Return which recalibration is shown to help, in a sentence."""
    own = table[table["way"].isin(WAYS)]
    if own.empty:
        return "There are too few groups of a class to recalibrate there."
    helping = own[own["gain_low"] > 0].sort_values("log_loss")
    if len(helping):
        row = helping.iloc[0].to_dict()
        return f"Recalibrated by {row['way']}, log-loss falls by {_describe_gain(row)[1:]}: that is shown."
    if (own["gain_high"] <= 0.01).all():
        return "Recalibration is shown not to lower log-loss by more than 0.01."
    return "Whether recalibration helps there is not known."


def describe_curve(curve: pd.DataFrame, chosen: dict[str, Any]) -> str:
    """Return how many local images it takes until recalibration, and a threshold of their own, pay."""
    if curve.empty:
        return "There are too few images to say how many would be needed."
    sentences = []
    for way, part in curve.groupby("way", sort=False):
        paying = _first_lasting(part["images"], part["gain_low"] > 0)
        sure = _first_lasting(part["images"], part["helped"] >= 0.95)
        if paying is None:
            sentences.append(f"{way} is not shown to pay with up to {part['images'].max()} local images")
        else:
            always = f", and in 19 of 20 draws from {sure} on" if sure else ", though not in 19 of 20 draws"
            sentences.append(f"{way} pays on average from {paying} local images on{always}")
    rows = curve[curve["sensitivity"].notna()]
    target, rule = chosen.get("target_sensitivity", 0.95), chosen["rule"]
    if rule == "sensitivity":
        enough, what = rows["reached"] >= 0.95, f"comes within 0.05 of the sensitivity of {target:g}"
    else:
        enough, what = rows["better"] >= 0.95, "is better than the transferred one"
    first = _first_lasting(rows["images"], enough)
    most = rows["images"].max()
    text = f"a threshold of its own {what} in 19 of 20 draws from {first} local images on"
    if first is None:
        last = rows.iloc[-1]
        share = last["reached"] if rule == "sensitivity" else last["better"]
        text = f"a threshold of its own, chosen on {most} local images, {what} in {share:.0%} of the draws"
    joined = "; ".join([*sentences, text])
    return f"{joined[:1].upper()}{joined[1:]}."


def _first_lasting(images: pd.Series, holds: pd.Series) -> int | None:
    """Return the smallest number from which on something holds for all larger ones, or None."""
    found = None
    for number, good in zip(images[::-1], holds[::-1], strict=True):
        if not good:
            break
        found = int(number)
    return found
