"""The net benefit of deciding by a probability (Vickers and Elkin 2006)."""

import numpy as np
import pandas as pd
from scipy import stats

from xray_helpers.evaluation.intervals import LEVEL, compute_group_statistics, encode_groups, has_few_groups

CLAIMED_AT = tuple(
    round(0.1 * step, 1) for step in range(1, 10)
)  # threshold probabilities, fixed before any data is seen
WORTH = 0.02  # net benefit, in true positives an image, below which nothing is gained


def compute_decision_curve(predictions: pd.DataFrame, points: int = 99) -> pd.DataFrame:
    """Return the net benefit of acting on the model, on all, and on none (Vickers and Elkin 2006), and what
    is gained.

    At a threshold probability t, a false alarm is worth t / (1 - t) of a found fracture: net benefit is the
    share of true positives less that times the share of false ones.

    Returns
    -------
    DataFrame
        threshold, model, treat_all, treat_none: net benefit in true positives an image; gain (of the model
        over the better of all and none), gain_low, gain_high (95 %, by groups), claimed_low (lower bound for
        all of `CLAIMED_AT` at once, one-sided 95 %; of other thresholds missing). Without predictions' column
        group each image counts for itself.
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
    """Return what acting on the model adds to the better default, which must be beaten both ways."""
    claimed = np.isclose(threshold, CLAIMED_AT).any()
    ones, none = np.ones(len(codes)), np.zeros(len(codes), int)
    ends = []
    for gained in (by_model - by_all, by_model):
        value = float(gained.mean())
        spread = compute_group_statistics((gained - value) / len(gained), codes, none, ones)
        error = np.nan if few else np.sqrt(spread.variance)
        wide, claim = (
            stats.t.ppf([(1 + LEVEL) / 2, 1 - (1 - LEVEL) / len(CLAIMED_AT)], spread.freedom) * error
        )
        ends.append((value, value - wide, value + wide, value - claim if claimed else np.nan))
    return dict(
        zip(("gain", "gain_low", "gain_high", "claimed_low"), np.min(ends, axis=0).tolist(), strict=True)
    )


def describe_gain(curve: pd.DataFrame) -> str:
    """Return where acting on the model is worth more than treating all or none: shown, ruled out, or not
    known.
    """
    at = curve[np.isclose(curve["threshold"].to_numpy()[:, None], CLAIMED_AT).any(axis=1)]
    asked = f"{CLAIMED_AT[0]:g} to {CLAIMED_AT[-1]:g}, fixed in advance"
    if at.empty or at["gain_high"].isna().all():
        return (
            "Whether acting on the model is worth more than treating all or none alike is not known: "
            "too few groups."
        )
    better = at.loc[at["claimed_low"] > 0, "threshold"]
    if len(better):
        which = ", ".join(f"{t:.1f}" for t in better)
        return (
            f"Of the threshold probabilities {asked}, at {which} acting on the model is worth more than "
            "treating all or none."
        )
    if (at["gain_high"] < WORTH).all():
        return (
            f"At no threshold probability of {asked}, is acting on the model worth {WORTH:g} more than "
            "treating all or none."
        )
    return (
        "Nothing is shown to be gained over treating all or none alike at threshold probabilities of "
        f"{asked}."
    )
