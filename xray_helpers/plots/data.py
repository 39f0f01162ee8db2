"""What images there are: classes, sizes and grey levels. A table in, axes out."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from xray_helpers.plots.style import CLASS_COLORS, new_axes, with_alt
from xray_helpers.settings import CLASS_NAMES, NEGATIVE, POSITIVE, class_names


def _list_parts(balance: pd.DataFrame) -> str:
    negative, positive = class_names()
    rows = balance.itertuples()
    return "; ".join(f"{r.split}: {r.fractured} {positive}, {r.non_fractured} {negative}" for r in rows)


def plot_class_balance(balance: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Draw images of each class in each part; `balance` is `parts.class_balance`'s table."""
    ax = new_axes(ax, figsize=(7.2, 2.6))
    left = np.zeros(len(balance))
    for column, label, name in (
        ("fractured", POSITIVE, class_names()[1]),
        ("non_fractured", NEGATIVE, class_names()[0]),
    ):
        bars = ax.barh(balance["split"], balance[column], left=left, color=CLASS_COLORS[label], label=name)
        ax.bar_label(bars, label_type="center", color="white", fontsize=9)
        left += balance[column].to_numpy()
    ax.invert_yaxis()
    ax.set(xlabel="images", title=f"Class balance by part, n = {int(balance['n'].sum())}")
    ax.grid(visible=False, axis="y")
    ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return with_alt(ax, f"Bar chart of images by class in each part. {_list_parts(balance)}.")


def plot_sizes(manifest: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Draw width against height of the readable files; columns width, height, label."""
    ax = new_axes(ax, figsize=(5.2, 3.8))
    table = manifest.dropna(subset=["width", "height", "label"])
    for label, name in zip(CLASS_NAMES, class_names(), strict=True):
        rows = table[table["label"] == label]
        ax.scatter(
            rows["width"].astype(float),
            rows["height"].astype(float),
            s=22,
            alpha=0.5,
            label=name,
            color=CLASS_COLORS[label],
            marker="o" if label == POSITIVE else "x",
        )
    ax.set(xlabel="width (pixels)", ylabel="height (pixels)", title=f"Sizes of the files, n = {len(table)}")
    ax.legend()
    return with_alt(ax, f"Scatter plot of width against height of {len(table)} images by class.")


def plot_intensities(intensities: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Draw the distribution of mean grey levels by class; columns mean_grey (0-255), label."""
    ax = new_axes(ax, figsize=(6.4, 3.2))
    for label, name in zip(CLASS_NAMES, class_names(), strict=True):
        values = intensities.loc[intensities["label"] == label, "mean_grey"]
        ax.hist(
            values,
            bins=np.arange(0, 256, 8),
            density=True,
            histtype="step",
            linewidth=2,
            label=name,
            color=CLASS_COLORS[label],
            linestyle="-" if label == POSITIVE else "--",
        )
    ax.set(
        xlabel="mean grey level of an image (0-255)",
        ylabel="density",
        title=f"Intensities by class, train, n = {len(intensities)}",
    )
    ax.legend()
    by_class = intensities.groupby("label")["mean_grey"].mean()
    means = ", ".join(f"{name}: mean {value:.0f}" for name, value in by_class.items())
    return with_alt(ax, f"Histogram of mean grey levels by class; {means}.")
