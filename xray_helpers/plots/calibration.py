"""Reliability, decision curves, and the threshold with the band around it."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from xray_helpers.plots.style import REFERENCE, draw_histograms, model_color, new_axes, with_alt
from xray_helpers.settings import class_names


def plot_reliability(
    reliability: pd.DataFrame, *, model: str, part: str = "test", ax: Axes | None = None
) -> Axes:
    """Draw the share of fractures against the predicted probability, before and after scaling.

    `reliability` is the second table of `calibration.evaluate_calibration`.
    """
    ax = new_axes(ax, figsize=(4.6, 4.2))
    ax.plot([0, 1], [0, 1], **REFERENCE, label="perfect")
    looks = {
        "before": {"fmt": "o-", "color": model_color(model)},
        "after": {"fmt": "s--", "color": "#555555"},
    }
    for scaling, rows in reliability.groupby("scaling", sort=False):
        error = np.abs(rows[["ci_low", "ci_high"]].to_numpy(float).T - rows["fractured"].to_numpy())
        look = looks[scaling] | {"ms": 5, "capsize": 2, "linewidth": 1.4, "label": f"{scaling} scaling"}
        ax.errorbar(rows["mean_probability"], rows["fractured"], yerr=error, **look)
    before = reliability[reliability["scaling"] == "before"]
    positive = class_names()[1]
    ax.set(xlabel=f"probability of {positive}, mean of a bin", ylabel=f"share that is {positive}")
    ax.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    ax.set_title(f"{model}: calibration, {part}, n = {int(before['n'].sum())}")
    ax.legend(loc="upper left")
    listed = ", ".join(f"{row.mean_probability:.2f} to {row.fractured:.2f}" for row in before.itertuples())
    text = f"Reliability diagram of {model}, {part}; before scaling, probability to share: {listed}."
    return with_alt(ax, text)


def plot_decision_curve(
    curve: pd.DataFrame, *, model: str, n: int, threshold: float, ax: Axes | None = None
) -> Axes:
    """Draw net benefit against threshold probability; `decision_curve.compute_decision_curve`'s table."""
    ax = new_axes(ax, figsize=(5.4, 4.2))
    ax.plot(curve["threshold"], curve["treat_all"], color="#8a8a8a", linestyle="--", label="treat all")
    ax.plot(curve["threshold"], curve["treat_none"], color="#8a8a8a", linestyle=":", label="treat none")
    ax.plot(curve["threshold"], curve["model"], color=model_color(model), linewidth=2, label=model)
    ax.axvline(threshold, color="#666666", linewidth=0.8, label=f"operating threshold {threshold:.2f}")
    top = max(curve["model"].max(), curve["treat_all"].max(), 0.05)
    ax.set(xlabel="threshold probability", ylabel="net benefit (true positives per image)")
    ax.set(xlim=(0, 1), ylim=(-0.15 * top - 0.02, 1.1 * top))
    ax.set_title(f"{model}: decision curve, test, n = {n}")
    ax.legend(loc="upper right")
    above = (curve["model"] > curve[["treat_all", "treat_none"]].max(axis=1)).sum()
    gain = f"above both at {above} of {len(curve)} threshold probabilities"
    return with_alt(ax, f"Decision curve of {model} against treating all and none: {gain}.")


def plot_band(
    predictions: pd.DataFrame, chosen: dict[str, Any], *, model: str, ax: Axes | None = None
) -> Axes:
    """Draw probabilities by class, the threshold, and the band around it in which the model abstains.

    Parameters
    ----------
    predictions : DataFrame
        ``predictions_test.csv``.
    chosen : dict
        ``threshold.json``.
    model : str
    ax : Axes, optional
    """
    ax = new_axes(ax, figsize=(7.2, 3.2))
    threshold = chosen["threshold"]
    low, high = chosen.get("uncertain", (threshold, threshold))
    by_class = [predictions.loc[predictions["y_true"] == y, "y_prob"] for y in (0, 1)]
    draw_histograms(ax, by_class, np.linspace(0, 1, 26))
    ax.axvspan(low, high, color="#c98b2b", alpha=0.2, label=f"uncertain, {low:.2f} to {high:.2f}")
    ax.axvline(threshold, color="#2f4858", label=f"threshold {threshold:.2f}")
    ax.set(xlabel=f"P({class_names()[1]})", ylabel="test images", xlim=(0, 1))
    ax.set_title(f"{model}: probabilities on test")
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.18), ncols=2)
    text = f"threshold {threshold:.2f}, uncertain from {low:.2f} to {high:.2f}"
    return with_alt(ax, f"Probabilities of {len(predictions)} test images of {model} by class, {text}.")
