"""Reliability, decision curves, operating points and the threshold band: a table in, axes out."""

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn.metrics import precision_recall_curve, roc_curve

from xray_helpers.plots.style import CLASS_COLORS, model_color, new_axes, with_alt
from xray_helpers.settings import class_names


def plot_reliability(reliability: pd.DataFrame, *, model: str, ax: Axes | None = None) -> Axes:
    """Draw shares of fractures against probabilities, before and after scaling;
    `calibration.evaluate_calibration`'s table.
    """
    ax = new_axes(ax, figsize=(4.6, 4.2))
    ax.plot([0, 1], [0, 1], color="#8a8a8a", linestyle=":", label="perfect")
    styles = {"before": ("o", "-", model_color(model)), "after": ("s", "--", "#555555")}
    for scaling, part in reliability.groupby("scaling", sort=False):
        marker, line, color = styles[scaling]
        error = np.abs(part[["ci_low", "ci_high"]].to_numpy(float).T - part["fractured"].to_numpy())
        ax.errorbar(
            part["mean_probability"],
            part["fractured"],
            yerr=error,
            marker=marker,
            linestyle=line,
            color=color,
            ms=5,
            capsize=2,
            linewidth=1.4,
            label=f"{scaling} scaling",
        )
    n = int(reliability.loc[reliability["scaling"] == "before", "n"].sum())
    positive = class_names()[1]
    ax.set(xlabel=f"probability of {positive}, mean of a bin", ylabel=f"share that is {positive}")
    ax.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), title=f"{model}: calibration, test, n = {n}")
    ax.legend(loc="upper left")
    before = reliability[reliability["scaling"] == "before"]
    listed = ", ".join(f"{row.mean_probability:.2f} to {row.fractured:.2f}" for row in before.itertuples())
    alt = f"Reliability diagram of {model} on test; before scaling, probability to share: {listed}."
    return with_alt(ax, alt)


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
    ax.set(
        xlabel="threshold probability",
        ylabel="net benefit (true positives an image)",
        ylim=(-0.15 * top - 0.02, 1.1 * top),
        xlim=(0, 1),
        title=f"{model}: decision curve, test, n = {n}",
    )
    ax.legend(loc="upper right")
    best = np.maximum(curve["treat_all"], curve["treat_none"])
    above = curve.loc[curve["model"] > best, "threshold"]
    gain = f"above both at {len(above)} of {len(curve)} threshold probabilities"
    return with_alt(ax, f"Decision curve of {model} against treating all and none: {gain}.")


def plot_roc_parts(parts: dict[str, pd.DataFrame], *, model: str, ax: Axes | None = None) -> Axes:
    """Draw one model's ROC curves on several parts: a name and its predictions (y_true, y_prob); one-class
    parts are left out.
    """
    ax = new_axes(ax, figsize=(5.0, 4.8))
    ax.plot([0, 1], [0, 1], color="#8a8a8a", linestyle=":", label="chance")
    areas = []
    for (name, table), style in zip(parts.items(), ("-", "--", "-."), strict=False):
        if table["y_true"].nunique() < 2:
            continue
        false_positive, true_positive, _ = roc_curve(table["y_true"], table["y_prob"])
        area = np.trapezoid(true_positive, false_positive)
        areas.append(f"{name}, n = {len(table)}: {area:.2f}")
        ax.plot(
            false_positive,
            true_positive,
            linestyle=style,
            color=model_color(model),
            linewidth=1.8,
            label=areas[-1],
        )
    ax.set(
        xlabel="1 - specificity",
        ylabel="sensitivity (recall)",
        aspect="equal",
        xlim=(-0.02, 1.02),
        ylim=(-0.02, 1.02),
        title=f"{model}: ROC by part",
    )
    ax.legend(loc="lower right", title="AUROC")
    return with_alt(ax, f"ROC curves of {model}. AUROC: {', '.join(areas)}.")


def plot_operating_points(predictions: pd.DataFrame, *, model: str, threshold: float) -> Figure:
    """Draw ROC, precision and recall, and sensitivity and specificity against the threshold, with the
    operating point.
    """
    y_true, y_prob = predictions["y_true"].to_numpy(), predictions["y_prob"].to_numpy()
    false_positive, true_positive, thresholds = roc_curve(y_true, y_prob, drop_intermediate=False)
    precision, recall, _ = precision_recall_curve(y_true, y_prob)
    called = y_prob >= threshold
    hits, alarms = called[y_true == 1].mean(), called[y_true == 0].mean()
    figure, (roc, pr, both) = plt.subplots(1, 3, figsize=(11, 3.6), layout="constrained")
    roc.plot(false_positive, true_positive, color=model_color(model))
    roc.plot(alarms, hits, "o", color="#b2432f", ms=9)
    roc.plot([0, 1], [0, 1], ":", color="#8a8a8a")
    roc.set(xlabel="1 − specificity", ylabel="sensitivity", title="ROC")
    pr.plot(recall, precision, color=model_color(model))
    if called.any():
        pr.plot(hits, y_true[called].mean(), "o", color="#b2432f", ms=9)
    pr.axhline(y_true.mean(), ls=":", color="#8a8a8a")
    pr.set(xlabel="recall", ylabel="precision", title="Precision and recall", ylim=(0, 1.03))
    inner = np.clip(thresholds, 0, 1)
    both.plot(inner, true_positive, color="#b2432f", label="sensitivity")
    both.plot(inner, 1 - false_positive, "--", color="#3d6f9e", label="specificity")
    both.axvline(threshold, color="#2f4858", lw=1)
    both.set(xlabel="threshold", xlim=(0, 1), title=f"Threshold {threshold:.3f}")
    both.legend(loc="lower center")
    figure.suptitle(
        f"{model}: operating point on test, n = {len(predictions)}", x=0.01, ha="left", fontweight="bold"
    )
    at = f"At threshold {threshold:.3f}: sensitivity {hits:.2f}, specificity {1 - alarms:.2f}."
    return with_alt(figure, f"ROC, precision and recall, and both rates by threshold, {model}. {at}")


def plot_band(
    predictions: pd.DataFrame, chosen: dict[str, Any], *, model: str, ax: Axes | None = None
) -> Axes:
    """Draw probabilities by class, the threshold, and the band around it in which a decision would be luck.

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
    bins = np.linspace(0, 1, 26)
    for y_true, label in enumerate(class_names()):
        p = predictions.loc[predictions["y_true"] == y_true, "y_prob"]
        ax.hist(p, bins, color=CLASS_COLORS[label], alpha=0.6, label=f"{label}, n = {len(p)}")
    low, high = chosen.get("uncertain", (chosen["threshold"],) * 2)
    ax.axvspan(low, high, color="#c98b2b", alpha=0.2, label=f"uncertain, {low:.2f} to {high:.2f}")
    ax.axvline(chosen["threshold"], color="#2f4858", label=f"threshold {chosen['threshold']:.2f}")
    ax.set(
        xlabel=f"P({class_names()[1]})",
        ylabel="test images",
        title=f"{model}: probabilities on test",
        xlim=(0, 1),
    )
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.18), ncols=2)
    chosen_at = f"threshold {chosen['threshold']:.2f}, uncertain from {low:.2f} to {high:.2f}"
    return with_alt(ax, f"Probabilities of {len(predictions)} test images of {model} by class, {chosen_at}.")
