"""Pictures of how models were judged: a table in, axes out; as `plots`."""

from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn.metrics import precision_recall_curve, roc_curve

from xray_helpers.explain import scale_map
from xray_helpers.intervals import describe
from xray_helpers.metrics import METRIC_TITLES
from xray_helpers.plots import CLASS_COLORS, model_color, new_axes
from xray_helpers.settings import class_names


def plot_reliability(reliability: pd.DataFrame, *, model: str, ax: Axes | None = None) -> Axes:
    """Draw shares of fractures against probabilities, before and after scaling; `calibration.judge_calibration`'s table."""
    ax = new_axes(ax, figsize=(4.6, 4.2))
    ax.plot([0, 1], [0, 1], color="#8a8a8a", linestyle=":", label="perfect")
    styles = {"before": ("o", "-", model_color(model)), "after": ("s", "--", "#555555")}
    for scaling, part in reliability.groupby("scaling", sort=False):
        marker, line, color = styles[scaling]
        error = np.abs(part[["ci_low", "ci_high"]].to_numpy(float).T - part["fractured"].to_numpy())
        ax.errorbar(part["mean_probability"], part["fractured"], yerr=error, marker=marker, linestyle=line, color=color,
                    ms=5, capsize=2, linewidth=1.4, label=f"{scaling} scaling")  # fmt: skip
    n = int(reliability.loc[reliability["scaling"] == "before", "n"].sum())
    positive = class_names()[1]
    ax.set(xlabel=f"probability of {positive}, mean of a bin", ylabel=f"share that is {positive}")
    ax.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), title=f"{model}: calibration, test, n = {n}")
    ax.legend(loc="upper left")
    return ax


def plot_decision_curve(curve: pd.DataFrame, *, model: str, n: int, threshold: float, ax: Axes | None = None) -> Axes:
    """Draw net benefit against threshold probability; `calibration.decision_curve`'s table."""
    ax = new_axes(ax, figsize=(5.4, 4.2))
    ax.plot(curve["threshold"], curve["treat_all"], color="#8a8a8a", linestyle="--", label="treat all")
    ax.plot(curve["threshold"], curve["treat_none"], color="#8a8a8a", linestyle=":", label="treat none")
    ax.plot(curve["threshold"], curve["model"], color=model_color(model), linewidth=2, label=model)
    ax.axvline(threshold, color="#666666", linewidth=0.8, label=f"operating threshold {threshold:.2f}")
    top = max(curve["model"].max(), curve["treat_all"].max(), 0.05)
    ax.set(xlabel="threshold probability", ylabel="net benefit (true positives an image)", ylim=(-0.15 * top - 0.02, 1.1 * top),
           xlim=(0, 1), title=f"{model}: decision curve, test, n = {n}")  # fmt: skip
    ax.legend(loc="upper right")
    return ax


def plot_forest(table: pd.DataFrame, *, metric: str = "auroc", title: str = "", ax: Axes | None = None) -> Axes:
    """Draw a value with its interval a row; columns column, value, n, n_groups, `metric`, ``_low``, ``_high``."""
    ax = new_axes(ax, figsize=(7.4, 0.8 + 0.34 * len(table)))
    labels = []
    for place, row in enumerate(table.to_dict("records")):
        name = row["value"] if row["column"] == "all" else f"{row['column']} = {row['value']}"
        labels.append(f"{str(name)[:40]}  (n = {row['n']} in {row['n_groups']})".replace("$", r"\$"))
        value, low, high = (row[key] for key in (metric, f"{metric}_low", f"{metric}_high"))
        if pd.isna(value):
            ax.text(0.02, place, _instead(row, metric), va="center", fontsize=8, color="#555555")
            continue
        if pd.notna(low):
            ax.plot([low, high], [place, place], color="#4c6a87", linewidth=1.6)
        ax.plot(value, place, marker="D" if row["column"] == "all" else "o", color="#1f4e79", ms=6)
    if pd.notna(table[metric].iloc[0]):
        ax.axvline(table[metric].iloc[0], color="#8a8a8a", linestyle=":", linewidth=1)
    ax.set(yticks=range(len(table)), yticklabels=labels, xlim=(0, 1.02), xlabel=METRIC_TITLES[metric],
           title=title or f"{METRIC_TITLES[metric]} by subgroup, 95 % intervals")  # fmt: skip
    ax.invert_yaxis()
    ax.grid(visible=False, axis="y")
    return ax


def _instead(row: dict, metric: str) -> str:
    """Return what is known of a subgroup that has no AUROC: the sensitivity or specificity of its one class."""
    for name in ("recall", "specificity"):
        if pd.notna(row.get(name)):
            entry = {"value": row[name], "ci_low": row[f"{name}_low"], "ci_high": row[f"{name}_high"]}
            return f"one class; {METRIC_TITLES[name].lower()} {describe(entry)}"
    return f"not defined: {row.get(f'{metric}_reason', '')}"


def plot_spread(spread: pd.DataFrame, *, model: str, ax: Axes | None = None) -> Axes:
    """Draw how far AUROC moves by sample, seed and split; `repeats.summarise`'s table."""
    ax = new_axes(ax, figsize=(7.0, 0.9 + 0.5 * len(spread)))
    for place, row in enumerate(spread.to_dict("records")):
        ax.plot([row["low"], row["high"]], [place, place], color=model_color(model), linewidth=3, alpha=0.55)
        ax.plot(row["auroc"], place, "o", color=model_color(model), ms=7)
    words = [f"{row.source} ({row.runs:.0f})" if row.runs > 1 else row.source for row in spread.itertuples()]
    ax.set(yticks=range(len(spread)), yticklabels=words, ylim=(len(spread) - 0.4, -0.6), xlabel="AUROC",
           title=f"{model}: how far the score moves")  # fmt: skip
    ax.grid(visible=False, axis="y")
    return ax


def plot_roc_parts(parts: dict[str, pd.DataFrame], *, model: str, ax: Axes | None = None) -> Axes:
    """Draw one model's ROC curves on several parts: a name and its predictions (y_true, y_prob); one-class parts are left out."""
    ax = new_axes(ax, figsize=(5.0, 4.8))
    ax.plot([0, 1], [0, 1], color="#8a8a8a", linestyle=":", label="chance")
    for (name, table), style in zip(parts.items(), ("-", "--", "-."), strict=False):
        if table["y_true"].nunique() < 2:
            continue
        false_positive, true_positive, _ = roc_curve(table["y_true"], table["y_prob"])
        area = np.trapezoid(true_positive, false_positive)
        words = f"{name}, n = {len(table)}: {area:.2f}"
        ax.plot(false_positive, true_positive, linestyle=style, color=model_color(model), linewidth=1.8, label=words)
    ax.set(xlabel="1 - specificity", ylabel="sensitivity (recall)", aspect="equal", xlim=(-0.02, 1.02),
           ylim=(-0.02, 1.02), title=f"{model}: ROC by part")  # fmt: skip
    ax.legend(loc="lower right", title="AUROC")
    return ax


def plot_ranking(comparison: pd.DataFrame, pairs: pd.DataFrame, *, alpha: float = 0.05, ax: Axes | None = None) -> Axes:
    """Draw models by AUROC with intervals; a bar joins those next to each other that no test tells apart.

    Parameters
    ----------
    comparison : DataFrame
        Of `comparison.compare_models`.
    pairs : DataFrame
        Of `paired.compare_pairs`: p_holm.
    """
    ax = new_axes(ax, figsize=(7.4, 1.3 + 0.42 * len(comparison)))
    order = comparison.sort_values("auroc", ascending=False, ignore_index=True)
    for place, row in enumerate(order.itertuples()):
        ax.plot([row.auroc_low, row.auroc_high], [place, place], color=model_color(row.model), linewidth=2)
        ax.plot(row.auroc, place, "o", color=model_color(row.model), ms=7)
    alike = {frozenset((row.first, row.second)) for row in pairs.itertuples() if not row.p_holm < alpha}
    for number, (start, end) in enumerate(_cliques(order["model"].tolist(), alike)):
        x = 1.04 + 0.03 * number
        ax.plot([x, x], [start - 0.15, end + 0.15], color="#333333", linewidth=4, solid_capstyle="butt", clip_on=False)
    ax.axvline(0.5, color="#8a8a8a", linestyle=":", linewidth=1)
    ax.set(yticks=range(len(order)), yticklabels=order["model"], xlim=(min(0.45, order["auroc_low"].min() - 0.02), 1.0),
           xlabel="AUROC, test, 95 % interval; bars at the right join models that are not told apart",
           title=f"Ranking, n = {order['n'].iloc[0]} images in {order['n_groups'].iloc[0]} groups")  # fmt: skip
    ax.invert_yaxis()
    ax.grid(visible=False, axis="y")
    return ax


def _cliques(order: list[str], alike: set[frozenset]) -> list[tuple[int, int]]:
    """Return the longest runs of neighbours in the order of which every pair is alike."""
    runs: list[tuple[int, int]] = []
    for start in range(len(order)):
        end = start
        while end + 1 < len(order) and all(
            frozenset((order[end + 1], name)) in alike for name in order[start : end + 1]
        ):
            end += 1
        if end > start and not any(s <= start and end <= e for s, e in runs):
            runs.append((start, end))
    return runs


def plot_cost(comparison: pd.DataFrame, costs: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Draw AUROC against milliseconds an image, bubbles as large as the networks; columns model, latency_ms, parameters."""
    ax = new_axes(ax, figsize=(6.4, 3.8))
    table = comparison.merge(costs, on="model").dropna(subset=["latency_ms"])
    for row in table.itertuples():
        ax.plot([row.latency_ms] * 2, [row.auroc_low, row.auroc_high], color=model_color(row.model), alpha=0.5)
        words = f"{row.model}, {row.parameters / 1e6:.0f} M parameters"
        size = 4 + np.sqrt(row.parameters / 1e5)
        ax.plot(row.latency_ms, row.auroc, "o", ms=size, color=model_color(row.model), alpha=0.85, label=words)
    ax.margins(x=0.25)
    ax.set(xlabel="milliseconds an image, 16 at a time, on this machine", ylabel="AUROC, test",
           title="AUROC against cost")  # fmt: skip
    legend = ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    for handle in legend.legend_handles:
        handle.set_markersize(7)
    return ax


def plot_operating_points(predictions: pd.DataFrame, *, model: str, threshold: float) -> Figure:
    """Draw ROC, precision and recall, and sensitivity and specificity against the threshold, with the operating point."""
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
    figure.suptitle(f"{model}: operating point on test, n = {len(predictions)}", x=0.01, ha="left", fontweight="bold")
    return figure


def plot_maps(
    pictures: Sequence[np.ndarray], overlays: Sequence[tuple[np.ndarray, np.ndarray]], captions: Sequence[str], *,
    title: str, columns: int = 6,
) -> Figure:  # fmt: skip
    """Draw radiographs with their maps over them, in proportion to each map's largest value, and boxes where known.

    Parameters
    ----------
    pictures : sequence of uint8 arrays, shape (height, width), 0-255
    overlays : sequence of (map, boxes)
        float arrays, shape (rows, columns), and (k, 4): left, top, right, bottom in pixels.
    captions : sequence of str
    title : str
    columns : int
    """
    rows = -(-len(pictures) // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(1.9 * columns, 2.35 * rows), layout="constrained", squeeze=False
    )
    for ax in axes.flat[len(pictures) :]:
        ax.set_axis_off()
    for ax, picture, (grid, known), caption in zip(axes.flat, pictures, overlays, captions, strict=False):
        _draw_map(ax, picture, grid)
        for left, top, right, bottom in known:
            ax.add_patch(plt.Rectangle((left, top), right - left, bottom - top, fill=False, ec="#5ad1ff", lw=1.4))
        ax.set_xlabel(caption, fontsize=8)
    figure.suptitle(title, x=0.01, ha="left", fontweight="bold", fontsize=11)
    return figure


def plot_controls(
    pictures: Sequence[np.ndarray], maps: dict[str, Sequence[np.ndarray]], captions: Sequence[str], *, title: str
) -> Figure:
    """Draw a row a radiograph: itself, then each kind of map over it, in proportion to each map's largest value.

    Parameters
    ----------
    pictures : sequence of uint8 arrays, shape (height, width), 0-255
    maps : dict
        Name to maps of the pictures, float, shape (rows, columns); one that says the same everywhere is called empty.
    captions : sequence of str
    title : str
    """
    size = (2.1 * (1 + len(maps)), 0.5 + 2.25 * len(pictures))
    figure, axes = plt.subplots(len(pictures), 1 + len(maps), figsize=size, layout="constrained", squeeze=False)
    for row, picture, caption, *grids in zip(axes, pictures, captions, *maps.values(), strict=True):
        for ax, grid in zip(row, [None, *grids], strict=True):
            _draw_map(ax, picture, grid)
            if grid is not None and not np.ptp(grid):
                ax.set_xlabel("empty", fontsize=9)
        row[0].set_xlabel(caption, fontsize=9)
    for ax, name in zip(axes[0], ["the picture", *maps], strict=True):
        ax.set_title(name, fontsize=9, loc="center")
    figure.suptitle(title, x=0.01, ha="left", fontweight="bold", fontsize=11)
    return figure


def _draw_map(ax: Axes, picture: np.ndarray, grid: np.ndarray | None) -> None:
    ax.imshow(picture, cmap="gray", vmin=0, vmax=255)
    if grid is not None:
        heat = scale_map(grid / (grid.max() or 1), picture.shape).clip(0, 1)
        ax.imshow(heat, cmap="inferno", alpha=0.55 * heat, vmin=0, vmax=1)
    ax.set(xticks=[], yticks=[])
    ax.grid(visible=False)


def plot_band(predictions: pd.DataFrame, chosen: dict[str, Any], *, model: str, ax: Axes | None = None) -> Axes:
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
    ax.set(xlabel=f"P({class_names()[1]})", ylabel="test images", title=f"{model}: probabilities on test", xlim=(0, 1))
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.18), ncols=2)
    return ax
