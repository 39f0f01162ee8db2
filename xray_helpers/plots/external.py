"""A model tested elsewhere: scores of both sets, its probabilities, and what local images bring."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from xray_helpers.evaluation.intervals import unflatten_entry
from xray_helpers.evaluation.metrics import METRIC_TITLES
from xray_helpers.plots.intervals import plot_intervals
from xray_helpers.plots.style import CLASS_COLORS, REFERENCE, model_color, new_axes, with_alt
from xray_helpers.settings import CLASS_NAMES, class_names

_HERE, _THERE = "#5d8a4a", "#7a4f9a"  # the colour of the test part, and that of the set from elsewhere
_WAY_STYLES = ("o-", "s--")


def plot_external_scores(scores: dict[str, dict[str, Any]], *, title: str, ax: Axes | None = None) -> Axes:
    """Draw AUROC, sensitivity and specificity of one model, on its own test part and on other sets.

    Parameters
    ----------
    scores : dict
        By the name of a set: a flat row with auroc, recall and specificity, each with ``_low`` and ``_high``,
        n and n_groups. The first is the study's own test part.
    title : str
    ax : Axes, optional
    """
    rows = []
    for metric in ("auroc", "recall", "specificity"):
        for place, (name, row) in enumerate(scores.items()):
            label = f"{METRIC_TITLES[metric]}, {name} (n = {row['n']:.0f} in {row['n_groups']:.0f})"
            look = {"color": _THERE if place else _HERE, "marker": "s" if place else "o"}
            rows.append({"label": label} | unflatten_entry(row, metric) | look)
    ax = plot_intervals(rows, title=title, xlabel="value with 95 % interval", ax=ax)
    ax.set_xlim(0, 1.02)
    return ax


def plot_probabilities(
    internal: pd.DataFrame, external: pd.DataFrame, *, model: str, threshold: float
) -> Figure:
    """Draw the probabilities of both classes, in the study's test part and elsewhere, with the threshold.

    Columns y_true and y_prob.
    """
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(7.4, 3.2), sharex=True, layout="constrained")
    bins, texts = np.linspace(0, 1, 26), []
    for ax, (name, part) in zip(axes, (("own test part", internal), ("there", external)), strict=True):
        for y_true, (label, shown) in enumerate(zip(CLASS_NAMES, class_names(), strict=True)):
            values = part.loc[part["y_true"] == y_true, "y_prob"]
            if not len(values):
                continue
            look = {"color": CLASS_COLORS[label], "linestyle": "-" if y_true else "--", "linewidth": 2}
            weights = np.full(len(values), 1 / len(values))
            ax.hist(values, bins, weights=weights, histtype="step", label=f"{shown}, {len(values)}", **look)
            above = float((values >= threshold).mean())
            texts.append(f"{name}, {shown}: {above:.0%} of {len(values)} at or above the threshold")
        ax.axvline(threshold, **REFERENCE)
        ax.set(title=f"{name}, n = {len(part)}", xlabel=f"P({class_names()[1]})")
        ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2)
    axes[0].set_ylabel("share of the class")
    return with_alt(figure, f"Probabilities of {model}, threshold {threshold:.2f}. {'; '.join(texts)}.")


def plot_local_curve(curve: pd.DataFrame, *, model: str, chosen: dict[str, Any]) -> Figure:
    """Draw what so many local images bring; `recalibration.draw_local_curve`'s table.

    `chosen` is ``threshold.json``.
    """
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(7.6, 3.6), layout="constrained")
    left.axhline(0, **REFERENCE)
    texts = []
    for style, color, (way, part) in zip(
        _WAY_STYLES, (model_color(model), "#555555"), curve.groupby("way", sort=False), strict=False
    ):
        part = part.sort_values("images")
        left.fill_between(part["images"], part["gain_low"], part["gain_high"], color=color, alpha=0.18)
        left.plot(part["images"], part["gain"], style, color=color, ms=5, label=way)
        gains = ", ".join(f"{row.images}: {row.gain:+z.3f}" for row in part.itertuples())
        texts.append(f"gain in log-loss with {way} by local images: {gains}")
    left.set(ylabel="gain in log-loss", title="Recalibration")
    rates = curve[curve["sensitivity"].notna()].sort_values("images")
    looks = (
        ("sensitivity", "o-", CLASS_COLORS[CLASS_NAMES[1]]),
        ("specificity", "s--", CLASS_COLORS[CLASS_NAMES[0]]),
    )
    for name, style, color in looks:
        right.fill_between(
            rates["images"], rates[f"{name}_low"], rates[f"{name}_high"], color=color, alpha=0.18
        )
        right.plot(rates["images"], rates[name], style, color=color, ms=5, label=name)
        reached = ", ".join(f"{row['images']}: {row[name]:.2f}" for row in rates.to_dict("records"))
        texts.append(f"{name} at a threshold of its own by local images: {reached}")
    if chosen["rule"] == "sensitivity":
        right.axhline(chosen["target_sensitivity"], **REFERENCE, label="target sensitivity")
    right.set(ylabel="on all other images", title="A threshold of its own", ylim=(0, 1.02))
    for ax in (left, right):
        ax.set_xscale("log")
        sizes = sorted(curve["images"].unique())
        ax.set_xticks(sizes, [str(size) for size in sizes])
        ax.minorticks_off()
        ax.set_xlabel("local images it is fitted on")
        ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2))
    return with_alt(figure, f"{model}: what local images bring. {'; '.join(texts)}.")


def plot_gain(table: pd.DataFrame, *, model: str, ax: Axes | None = None) -> Axes:
    """Draw how much log-loss falls by each recalibration; `recalibration.compare_recalibrations`' table."""
    rows = [
        {"label": row["way"], "color": model_color(model)} | unflatten_entry(row, "gain")
        for row in table.to_dict("records")[1:]
    ]
    n = int(table["n"].iloc[0])
    title = f"{model}: gain by recalibration there, cross-fitted, n = {n}"
    return plot_intervals(
        rows,
        title=title,
        xlabel="log-loss as it is less that, 95 % interval",
        reference=0,
        ax=new_axes(ax, figsize=(7.4, 2.8)),
    )
