"""Three or more classes: the confusion matrix, and how far the probability of each can be believed."""

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from xray_helpers.plots.style import REFERENCE, model_color, new_axes, with_alt


def plot_class_confusion(scores: dict[str, Any], *, model: str, ax: Axes | None = None) -> Axes | None:
    """Draw counts, and shares of the true class, of `classes.evaluate_classes`; None for two classes."""
    if not scores:
        return None
    names, counts = list(scores["classes"]), np.array(scores["confusion"])
    side = 1.6 + 0.85 * len(names)
    ax = new_axes(ax, figsize=(side + 0.6, side))
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    texts = [f"{n}\n{share:.0%}" for n, share in zip(counts.flat, shares.flat, strict=True)]
    looks = {"fmt": "", "cmap": "Blues", "vmin": 0, "vmax": 1, "cbar": False, "linewidths": 1}
    sns.heatmap(shares, annot=np.reshape(texts, counts.shape), ax=ax, **looks)
    ax.set_xticklabels(names, rotation=30, ha="right")
    ax.set_yticklabels(names, rotation=0)
    ax.set(xlabel="predicted (most probable)", ylabel="actual")
    ax.set_title(f"{model}: {len(names)} classes, test, n = {scores['n']}", fontsize=10)
    right = ", ".join(f"{name} {counts[i, i]} of {counts[i].sum()}" for i, name in enumerate(names))
    return with_alt(ax, f"Confusion matrix of {model} on test; right of each class: {right}.")


def plot_class_reliability(reliability: pd.DataFrame, *, model: str) -> Figure | None:
    """Draw for each class the share that is of it against its probability; None for two classes.

    `reliability` is the table of `classes.class_reliability`.
    """
    if reliability.empty:
        return None
    names = list(reliability["class"].unique())
    columns = 2 if len(names) <= 4 else 3  # readable on a phone
    rows = -(-len(names) // columns)
    size = (2.6 * columns, 2.6 * rows + 0.4)
    figure, axes = plt.subplots(
        rows, columns, figsize=size, layout="constrained", squeeze=False, sharex=True, sharey=True
    )
    for ax in axes.flat[len(names) :]:
        ax.set_axis_off()
    for ax, name in zip(axes.flat, names, strict=False):
        part = reliability[reliability["class"] == name]
        ends = part[["ci_low", "ci_high"]].to_numpy(float).T
        ax.plot([0, 1], [0, 1], **REFERENCE)
        error = np.abs(ends - part["share"].to_numpy())
        look = {"fmt": "o-", "color": model_color(model), "ms": 4, "capsize": 2}
        ax.errorbar(part["mean_probability"], part["share"], yerr=error, **look)
        ax.set_title(f"{name}, n = {int(part['n'].sum())}", fontsize=9)
    figure.supxlabel("probability of the class, mean of a bin", fontsize=9)
    figure.supylabel("share that is of it", fontsize=9)
    figure.suptitle(f"{model}: calibration of each class against the rest, test", fontsize=10)
    return with_alt(figure, f"Reliability diagrams of {model} on test, one per class: {', '.join(names)}.")
