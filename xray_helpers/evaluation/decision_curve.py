"""The net benefit of deciding by a probability (Vickers and Elkin 2006)."""

import numpy as np
import pandas as pd
from scipy import stats

from xray_helpers.evaluation.intervals import (
    LEVEL,
    TAILS,
    compute_group_statistics,
    encode_groups,
    has_few_groups,
)

# Threshold probabilities for which a claim is made, fixed before any data is seen.
CLAIMED = tuple(round(0.1 * step, 1) for step in range(1, 10))
MARGIN = 0.02  # a net benefit, in true positives per image, below which nothing is gained


def compute_decision_curve(predictions: pd.DataFrame, points: int = 99) -> pd.DataFrame:
    """Return the net benefit of acting on the model, on all images and on none, and what the model adds.

    At a threshold probability t, a false alarm costs t / (1 - t) of what a detected fracture is worth: net
    benefit is the share of true positives less that multiple of the share of false positives.

    Parameters
    ----------
    predictions : DataFrame
        y_true, y_prob, and group where images are not independent.
    points : int

    Returns
    -------
    DataFrame
        One row per threshold: threshold; model, treat_all, treat_none (net benefit in true positives per
        image); gain (of the model over the better of all and none), gain_low, gain_high (95 %, by groups);
        claimed_low (lower bound for all of `CLAIMED` at once, one-sided 95 %; NaN at other thresholds).
    """
    y, p = predictions["y_true"].to_numpy(), predictions["y_prob"].to_numpy()
    codes = encode_groups(predictions["group"]) if "group" in predictions else np.arange(len(y))
    few = has_few_groups(y, codes)
    rows = []
    for t in np.linspace(0, 1, points + 2)[1:-1]:
        worth = np.where(y == 1, 1.0, -t / (1 - t))  # of calling an image fractured
        by_model = (p >= t) * worth
        row = {"threshold": t, "model": by_model.mean(), "treat_all": worth.mean(), "treat_none": 0.0}
        rows.append(row | _gain(by_model, worth, codes, few, float(t)))
    return pd.DataFrame(rows)


def _gain(
    by_model: np.ndarray, by_all: np.ndarray, codes: np.ndarray, few: bool, threshold: float
) -> dict[str, float]:
    """Return what acting on the model adds to the better of all and none: it must beat both."""
    claimed = np.isclose(threshold, CLAIMED).any()
    ends = []
    for gained in (by_model - by_all, by_model):
        value = float(gained.mean())
        spread = compute_group_statistics((gained - value) / len(gained), codes)
        error = np.nan if few else np.sqrt(spread.variance)
        half, claim = stats.t.ppf([TAILS[1], 1 - (1 - LEVEL) / len(CLAIMED)], spread.freedom) * error
        ends.append((value, value - half, value + half, value - claim if claimed else np.nan))
    names = ("gain", "gain_low", "gain_high", "claimed_low")
    return dict(zip(names, np.min(ends, axis=0).tolist(), strict=True))


def describe_gain(curve: pd.DataFrame) -> str:
    """Return where acting on the model beats treating all or none: shown, ruled out, or not known."""
    at = curve[np.isclose(curve["threshold"].to_numpy()[:, None], CLAIMED).any(axis=1)]
    thresholds = f"{CLAIMED[0]:g} to {CLAIMED[-1]:g}, fixed in advance"
    if at.empty or at["gain_high"].isna().all():
        return "Whether acting on the model is better than treating all or none is not known: too few groups."
    better = at.loc[at["claimed_low"] > 0, "threshold"]
    if len(better):
        return (
            "Acting on the model is better than treating all or none at the threshold probabilities "
            f"{', '.join(f'{t:.1f}' for t in better)} (of {thresholds})."
        )
    if (at["gain_high"] < MARGIN).all():
        return (
            f"At no threshold probability ({thresholds}) does acting on the model gain {MARGIN:g} over "
            "treating all or none."
        )
    return f"No gain over treating all or none is shown at threshold probabilities of {thresholds}."
