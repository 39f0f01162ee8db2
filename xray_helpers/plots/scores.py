"""Confusion matrices, scores of all models, one model at a glance, the effect of a leak, and costs."""

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from xray_helpers.evaluation.intervals import describe, unflatten_entry
from xray_helpers.evaluation.leakage import describe_leakage
from xray_helpers.plots.curves import plot_history, plot_roc
from xray_helpers.plots.intervals import list_scores, plot_metrics, plot_model_metric
from xray_helpers.plots.style import REFERENCE, draw_histograms, model_color, new_axes, with_alt
from xray_helpers.settings import class_names


def plot_confusion(
    counts: dict[str, Any] | pd.Series, *, model: str, split: str = "test", ax: Axes | None = None
) -> Axes:
    """Draw the 2 x 2 table with counts and shares of the true class; keys tp, fp, tn, fn, n, threshold."""
    ax = new_axes(ax, figsize=(4.0, 3.6))
    negative, positive = class_names()
    cells = np.array([[counts["tn"], counts["fp"]], [counts["fn"], counts["tp"]]], dtype=int)
    shares = cells / np.maximum(cells.sum(axis=1, keepdims=True), 1)
    texts = [f"{n}\n{share:.0%}" for n, share in zip(cells.flat, shares.flat, strict=True)]
    sns.heatmap(
        shares,
        annot=np.reshape(texts, (2, 2)),
        fmt="",
        cmap="Blues",
        vmin=0,
        vmax=1,
        cbar=False,
        ax=ax,
        linewidths=1,
        xticklabels=class_names(),
        yticklabels=class_names(),
        annot_kws={"fontsize": 11},
    )
    title = f"{model}: {split}, n = {int(counts['n'])}, threshold {counts['threshold']:.2f}"
    ax.set(xlabel="predicted", ylabel="actual")
    ax.set_title(f"{title}\npositive class: {positive}", fontsize=10)
    ax.tick_params(axis="y", rotation=90)
    found = (
        f"{counts['tp']} {positive} found, {counts['fn']} missed, {counts['tn']} {negative} recognised, "
        f"{counts['fp']} false alarms"
    )
    return with_alt(ax, f"Confusion matrix of {model} on {split}: {found}.")


def plot_confusion_grid(comparison: pd.DataFrame, *, columns: int = 3) -> Figure:
    """Draw the confusion matrices of all models; columns model, n, threshold, tp, fp, tn, fn."""
    columns = min(columns, len(comparison))
    rows = -(-len(comparison) // columns)
    size = (3.7 * columns, 3.5 * rows)
    figure, axes = plt.subplots(rows, columns, figsize=size, layout="constrained", squeeze=False)
    for ax in axes.flat[len(comparison) :]:
        ax.set_axis_off()
    for ax, row in zip(axes.flat, comparison.to_dict("records"), strict=False):
        plot_confusion(row, model=row["model"], ax=ax)
    missed = ", ".join(f"{row.model} {row.fn}" for row in comparison.itertuples())
    return with_alt(figure, f"Confusion matrices. Missed fractures: {missed}.")


def plot_evaluation_grid(comparison: pd.DataFrame, *, baseline: float | None = None) -> Figure:
    """Draw accuracy, precision, recall and F1 of all models, in four panels; of one model in one."""
    names = ("accuracy", "precision", "recall", "f1")
    if len(comparison) == 1:
        row = comparison.to_dict("records")[0]
        ax = new_axes(None, figsize=(8, 3))
        title = f"{row['model']}, test, n = {row['n']}; positive class: {class_names()[1]}"
        scores = {name: unflatten_entry(row, name) for name in names}
        plot_metrics(scores, names, title=title, baseline=baseline, ax=ax)
        return with_alt(ax.figure, ax.get_label())
    figure, axes = plt.subplots(2, 2, figsize=(10, 7), layout="constrained")
    for ax, metric in zip(axes.flat, names, strict=True):
        plot_model_metric(comparison, metric, baseline=baseline if metric == "accuracy" else None, ax=ax)
    figure.suptitle(f"Positive class: {class_names()[1]}; lines are 95 % intervals", fontsize=10)
    accuracies = list_scores(comparison, "accuracy")
    return with_alt(figure, f"Bar charts of accuracy, precision, recall and F1. Accuracy: {accuracies}.")


def plot_evaluation(
    history: pd.DataFrame, predictions: pd.DataFrame, metrics: dict[str, Any], *, model: str, baseline: float
) -> Figure:
    """Draw one model at a glance: learning curves, ROC, confusion matrix, scores, predicted probabilities."""
    figure, axes = plt.subplots(2, 3, figsize=(14, 8), layout="constrained")
    threshold, n = metrics["threshold"], metrics["n"]
    plot_history(history, measure="loss", ax=axes[0, 0])
    plot_history(history, measure="accuracy", ax=axes[1, 0])
    plot_roc(predictions, model=model, threshold=threshold, rule=metrics["threshold_rule"], ax=axes[0, 1])
    plot_confusion(metrics, model=model, ax=axes[1, 1])
    names = ("auroc", "accuracy", "precision", "recall", "specificity", "f1")
    plot_metrics(metrics, names, title=f"Scores, test, n = {n}", baseline=baseline, ax=axes[0, 2])
    ax = axes[1, 2]
    ax.axvline(threshold, color="#666666", linestyle=":", label=f"threshold {threshold:.2f}")
    draw_histograms(
        ax, [predictions.loc[predictions["y_true"] == y, "y_prob"] for y in (0, 1)], np.linspace(0, 1, 21)
    )
    title = f"Predicted probabilities, test, n = {n}"
    ax.set(xlabel=f"P({class_names()[1]})", ylabel="images", title=title)
    area = describe(metrics["auroc"])
    panels = f"learning curves, ROC with AUROC {area}, confusion matrix, scores, predicted probabilities"
    return with_alt(figure, f"Six panels on {model}: {panels}.")


def plot_leakage(inflation: pd.DataFrame, *, model: str, ax: Axes | None = None) -> Axes:
    """Draw the effect of a leak on AUROC; `inflation` is the table of `leakage.measure_leakage`."""
    ax = with_alt(new_axes(ax, figsize=(7.6, 3.4)), describe_leakage(inflation))
    splits = list(dict.fromkeys(inflation["split"]))
    if not splits:
        ax.set_axis_off()
        ax.text(0.5, 0.5, "not measured", ha="center")
        return ax
    for labels, offset, look in (
        ("true", -0.12, {"fmt": "o", "color": "#2f4858", "label": "labels as they are"}),
        ("shuffled", 0.12, {"fmt": "X", "color": "#b2432f", "label": "labels shuffled per source"}),
    ):
        rows = inflation[inflation["labels"] == labels]
        places = [splits.index(name) + offset for name in rows["split"]]
        sd = rows["auroc_sd"].fillna(0)
        sides = [sd.clip(upper=rows["auroc"]), sd.clip(upper=1 - rows["auroc"])]  # no AUROC is above 1
        ax.errorbar(rows["auroc"], places, xerr=sides, ms=9, capsize=3, **look)
        for place, auroc in zip(places, rows["auroc"], strict=True):
            beside = {"xytext": (0, 9 if offset < 0 else -17), "textcoords": "offset points", "ha": "center"}
            ax.annotate(f"{auroc:.2f}", (auroc, place), fontsize=9, **beside)
    ax.axvline(0.5, **REFERENCE, label="chance")
    ax.set_yticks(range(len(splits)), splits)
    ax.set(xlim=(0.2, 1.03), ylim=(len(splits) - 0.5, -0.6))
    ax.set_xlabel("AUROC, lines are one standard deviation over folds, cut at 1")
    ax.set_title(f"What a leak is worth: {model} features, n = {int(inflation['n'].iloc[0])}")
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=3)
    return ax


def plot_cost(comparison: pd.DataFrame, costs: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Draw AUROC against milliseconds per image; the markers grow with the number of parameters.

    Columns of `costs` are model, latency_ms and parameters.
    """
    ax = new_axes(ax, figsize=(6.4, 3.8))
    table = comparison.merge(costs, on="model").dropna(subset=["latency_ms"])
    for row in table.itertuples():
        look = {"color": model_color(row.model)}
        ax.plot([row.latency_ms] * 2, [row.auroc_low, row.auroc_high], alpha=0.5, **look)
        label = f"{row.model}, {row.parameters / 1e6:.0f} M parameters"
        size = 4 + np.sqrt(row.parameters / 1e5)
        ax.plot(row.latency_ms, row.auroc, "o", ms=size, alpha=0.85, label=label, **look)
    ax.margins(x=0.25)
    ax.set(xlabel="milliseconds per image, 16 at a time, on this machine", ylabel="AUROC, test")
    ax.set_title("AUROC against cost")
    legend = ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    for handle in legend.legend_handles:
        handle.set_markersize(7)
    listed = ", ".join(f"{row.model} {row.latency_ms:.0f} ms" for row in table.itertuples())
    return with_alt(ax, f"AUROC against milliseconds per image: {listed}.")
