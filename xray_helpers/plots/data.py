"""The images of a study: classes by part, sizes and grey levels."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from xray_helpers.plots.style import CLASS_COLORS, draw_histograms, new_axes, with_alt
from xray_helpers.settings import CLASS_NAMES, class_names


def plot_class_balance(balance: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Draw images of each class in each part; `balance` is the table of `parts.class_balance`."""
    ax = new_axes(ax, figsize=(7.2, 2.6))
    left = np.zeros(len(balance))
    for column, label, name in zip(
        ("fractured", "non_fractured"), CLASS_NAMES[::-1], class_names()[::-1], strict=True
    ):
        bars = ax.barh(balance["split"], balance[column], left=left, color=CLASS_COLORS[label], label=name)
        ax.bar_label(bars, label_type="center", color="white", fontsize=9)
        left += balance[column].to_numpy()
    ax.invert_yaxis()
    ax.set(xlabel="images", title=f"Class balance by part, n = {int(balance['n'].sum())}")
    ax.grid(visible=False, axis="y")
    ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    negative, positive = class_names()
    rows = balance.itertuples()
    counts = "; ".join(f"{r.split}: {r.fractured} {positive}, {r.non_fractured} {negative}" for r in rows)
    return with_alt(ax, f"Bar chart of images by class in each part. {counts}.")


def plot_sizes(manifest: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Draw width against height of the readable files, larger circles for more files; columns width, height,
    label.
    """
    ax = new_axes(ax, figsize=(5.2, 3.8))
    table = manifest.dropna(subset=["width", "height", "label"])
    sizes = table.groupby(["width", "height", "label"]).size().rename("files").reset_index()
    sizes = sizes.sort_values("files", ascending=False)  # the smaller of two circles lies above the larger
    area = 20 + 900 * sizes["files"] / max(sizes["files"].max(), 50)
    look = {"c": sizes["label"].map(CLASS_COLORS), "alpha": 0.7, "edgecolor": "white"}
    ax.scatter(sizes["width"].astype(float), sizes["height"].astype(float), s=area, **look)
    for label, name in zip(CLASS_NAMES, class_names(), strict=True):
        ax.scatter([], [], color=CLASS_COLORS[label], label=f"{name}, n = {(table['label'] == label).sum()}")
    ax.set(xlabel="width (pixels)", ylabel="height (pixels)", title=f"Sizes of the files, n = {len(table)}")
    ax.legend()
    text = f"Scatter plot of width against height of {len(table)} images by class, circles by number."
    return with_alt(ax, text)


def plot_intensities(intensities: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Draw the distribution of mean grey levels by class; columns mean_grey (0-255), label."""
    ax = new_axes(ax, figsize=(6.4, 3.2))
    by_class = [intensities.loc[intensities["label"] == label, "mean_grey"] for label in CLASS_NAMES]
    draw_histograms(ax, by_class, np.arange(0, 256, 8), density=True)
    ax.set(xlabel="mean grey level of an image (0-255)", ylabel="density")
    ax.set_title(f"Intensities by class, train, n = {len(intensities)}")
    means = (f"{name}: mean {part.mean():.0f}" for name, part in zip(class_names(), by_class, strict=True))
    return with_alt(ax, f"Histogram of mean grey levels by class; {', '.join(means)}.")
