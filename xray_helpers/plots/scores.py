"""Curves, confusion matrices and bars of models: a table in, axes out."""

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn.metrics import roc_curve

from xray_helpers.evaluation.intervals import describe
from xray_helpers.evaluation.leakage import describe_leakage
from xray_helpers.evaluation.metrics import METRIC_TITLES
from xray_helpers.plots.style import (
    CLASS_COLORS,
    MODEL_MARKERS,
    SPLIT_COLORS,
    model_color,
    new_axes,
    with_alt,
)
from xray_helpers.settings import NEGATIVE, POSITIVE, class_names


def _list_scores(comparison: pd.DataFrame, metric: str) -> str:
    rows = comparison[comparison[metric].notna()]
    return ", ".join(f"{row['model']} {row[metric]:.2f}" for row in rows.to_dict("records")) or "not defined"


def plot_history(
    history: pd.DataFrame, *, measure: str = "loss", title: str = "", ax: Axes | None = None
) -> Axes:
    """Draw a learning curve on train and validation; columns epoch, best, `measure` with ``val_``, and maybe
    phase.
    """
    ax = new_axes(ax, figsize=(5.4, 3.4))
    ax.plot(history["epoch"], history[measure], color=SPLIT_COLORS["train"], marker="o", ms=4, label="train")
    ax.plot(
        history["epoch"],
        history[f"val_{measure}"],
        color=SPLIT_COLORS["validation"],
        marker="s",
        ms=4,
        linestyle="--",
        label="validation",
    )
    best = history.loc[history["best"], "epoch"]
    if len(best):
        ax.axvline(best.iloc[0], color="#666666", linestyle=":", label=f"kept: epoch {int(best.iloc[0])}")
    tuned = history.loc[history.get("phase") == "fine-tuning", "epoch"] if "phase" in history else ()
    if len(tuned):
        ax.axvspan(tuned.iloc[0] - 0.5, tuned.iloc[-1] + 0.5, color="#e9eef5", zorder=0, label="fine-tuning")
    ax.set(xlabel="epoch", ylabel=measure, title=title or f"Learning curve: {measure}")
    ax.xaxis.get_major_locator().set_params(integer=True)
    ax.legend()
    kept = f", epoch {int(best.iloc[0])} is kept" if len(best) else ""
    return with_alt(ax, f"{ax.get_title('left')}: {len(history)} epochs{kept}.")


def plot_roc(
    predictions: pd.DataFrame,
    *,
    model: str,
    threshold: float,
    rule: str = "",
    split: str = "test",
    ax: Axes | None = None,
) -> Axes:
    """Draw the ROC curve with its operating point, chosen by `rule`; columns y_true (1 = Fractured),
    y_prob.
    """
    ax = new_axes(ax, figsize=(4.4, 4.2))
    y_true = predictions["y_true"].to_numpy()
    ax.plot([0, 1], [0, 1], color="#8a8a8a", linestyle=":", label="chance")
    if 0 < y_true.sum() < len(y_true):
        false_positive, true_positive, _ = roc_curve(y_true, predictions["y_prob"])
        ax.plot(false_positive, true_positive, color=model_color(model), linewidth=2, label=model)
        called = predictions["y_prob"].to_numpy() >= threshold
        ax.plot(
            (called & (y_true == 0)).sum() / (y_true == 0).sum(),
            (called & (y_true == 1)).sum() / y_true.sum(),
            MODEL_MARKERS.get(model, "o"),
            color=model_color(model),
            ms=9,
            mec="white",
            label=f"threshold {threshold:.2f}"
            + (f":\n{rule.replace(' on ', chr(10) + 'on ')}" if rule else ""),
        )
    ax.set(
        xlabel="1 - specificity",
        ylabel="sensitivity (recall)",
        xlim=(-0.02, 1.02),
        ylim=(-0.02, 1.02),
        aspect="equal",
        title=f"{model}: ROC, {split}, n = {len(y_true)}",
    )
    ax.legend(loc="lower right")
    return with_alt(ax, f"{ax.get_title('left')}, with the operating point at threshold {threshold:.2f}.")


def plot_confusion(
    counts: dict[str, Any] | pd.Series, *, model: str, split: str = "test", ax: Axes | None = None
) -> Axes:
    """Draw the 2 x 2 table with counts and shares of the true class; keys tp, fp, tn, fn, n, threshold."""
    ax = new_axes(ax, figsize=(4.0, 3.6))
    cells = np.array([[counts["tn"], counts["fp"]], [counts["fn"], counts["tp"]]], dtype=float)
    share = cells / np.maximum(cells.sum(axis=1, keepdims=True), 1)
    words = [
        [f"{int(n)}\n{s:.0%}" for n, s in zip(*row, strict=True)] for row in zip(cells, share, strict=True)
    ]
    sns.heatmap(
        share,
        annot=words,
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
    ax.set(xlabel="predicted", ylabel="actual")
    ax.set_title(
        f"{model}: {split}, n = {int(counts['n'])}, threshold {counts['threshold']:.2f}\n"
        f"positive class: {class_names()[1]}",
        fontsize=10,
    )
    ax.tick_params(axis="y", rotation=90)
    negative, positive = class_names()
    found = (
        f"{counts['tp']} {positive} found, {counts['fn']} missed, {counts['tn']} {negative} recognised, "
        f"{counts['fp']} false alarms"
    )
    return with_alt(ax, f"Confusion matrix of {model} on {split}: {found}.")


def plot_metrics(
    table: pd.DataFrame, *, title: str, baseline: float | None = None, ax: Axes | None = None
) -> Axes:
    """Draw scores with 95 % intervals, a line a row; columns metric, value, ci_low, ci_high."""
    ax = new_axes(ax, figsize=(6.4, 3.6))
    rows = table.dropna(subset=["value"]).reset_index(drop=True)
    low = (rows["value"] - rows["ci_low"].astype(float).fillna(rows["value"])).clip(lower=0)
    high = (rows["ci_high"].astype(float).fillna(rows["value"]) - rows["value"]).clip(lower=0)
    ax.errorbar(rows["value"], rows.index, xerr=[low, high], fmt="o", color="#2f4858", capsize=3)
    ax.set_yticks(rows.index, [METRIC_TITLES.get(name, name) for name in rows["metric"]])
    if baseline is not None:
        ax.axvline(
            baseline, color="#8a8a8a", linestyle=":", label=f"accuracy of the majority class: {baseline:.2f}"
        )
        ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16))
    ax.invert_yaxis()
    ax.set(xlim=(-0.02, 1.02), title=title, xlabel="value with 95 % interval")
    listed = ", ".join(f"{row['metric']} {describe(row)}" for row in rows.to_dict("records"))
    return with_alt(ax, f"{title}: {listed}.")


def plot_model_metric(
    comparison: pd.DataFrame, metric: str, *, baseline: float | None = None, ax: Axes | None = None
) -> Axes:
    """Draw one metric of all models with 95 % intervals; `comparison` is `comparison.compare_models`'s."""
    ax = new_axes(ax)
    defined = comparison[comparison[metric].notna()].reset_index(drop=True)
    for index, row in defined.iterrows():
        low, high = row[f"{metric}_low"], row[f"{metric}_high"]
        ax.bar(index, row[metric], color=model_color(row["model"]), width=0.65)
        if pd.notna(low):
            ax.vlines(index, low, high, color="#222222", linewidth=1.6)
        ax.annotate(
            f"{row[metric]:.2f}", (index, 0.02), ha="center", color="white", fontsize=9, fontweight="bold"
        )
    ax.set_xticks(range(len(defined)), defined["model"], rotation=20, ha="right")
    if baseline is not None:
        ax.axhline(baseline, color="#555555", linestyle=":", label=f"majority class {baseline:.2f}")
        ax.legend(loc="upper right")
    n = int(comparison["n"].iloc[0])
    missing = len(comparison) - len(defined)
    note = f", not defined for {missing}" if missing else ""
    slots = max(len(defined), 4)  # so that one model's bar is no wall
    ax.set(xlim=(-0.6, slots - 0.4), ylim=(0, 1.05), title=f"{METRIC_TITLES[metric]}, test, n = {n}{note}")
    ax.grid(visible=False, axis="x")
    return with_alt(ax, f"Bar chart of {METRIC_TITLES[metric]}: {_list_scores(comparison, metric)}.")


def plot_evaluation_grid(comparison: pd.DataFrame, *, baseline: float | None = None) -> Figure:
    """Draw accuracy, precision, recall and F1 of all models, four panels."""
    figure, axes = plt.subplots(2, 2, figsize=(10, 7), layout="constrained")
    for ax, metric in zip(axes.flat, ("accuracy", "precision", "recall", "f1"), strict=True):
        plot_model_metric(comparison, metric, baseline=baseline if metric == "accuracy" else None, ax=ax)
    figure.suptitle(f"Positive class: {class_names()[1]}; lines are 95 % intervals", fontsize=10)
    scores = _list_scores(comparison, "accuracy")
    return with_alt(figure, f"Bar charts of accuracy, precision, recall and F1. Accuracy: {scores}.")


def plot_confusion_grid(comparison: pd.DataFrame, *, columns: int = 3) -> Figure:
    """Draw the confusion matrices of all models; columns model, n, threshold, tp, fp, tn, fn."""
    columns = min(columns, len(comparison))
    rows = -(-len(comparison) // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(3.7 * columns, 3.5 * rows), layout="constrained", squeeze=False
    )
    for ax in axes.flat[len(comparison) :]:
        ax.set_axis_off()
    for ax, (_, row) in zip(axes.flat, comparison.iterrows(), strict=False):
        plot_confusion(row, model=row["model"], ax=ax)
    missed = ", ".join(f"{row.model} {row.fn}" for row in comparison.itertuples())
    return with_alt(figure, f"Confusion matrices. Missed fractures: {missed}.")


def plot_roc_models(
    predictions: dict[str, pd.DataFrame], comparison: pd.DataFrame, *, ax: Axes | None = None
) -> Axes:
    """Draw the ROC curves of all models on one pair of axes."""
    ax = new_axes(ax, figsize=(5.6, 5.2))
    rows = comparison.set_index("model")
    styles = ["-", "--", "-.", (0, (5, 1)), (0, (3, 1, 1, 1))]
    for index, (name, table) in enumerate(predictions.items()):
        if pd.isna(rows.loc[name, "auroc"]):
            continue
        false_positive, true_positive, _ = roc_curve(table["y_true"], table["y_prob"])
        ax.plot(
            false_positive,
            true_positive,
            color=model_color(name),
            linewidth=1.8,
            linestyle=styles[index % len(styles)],
            label=f"{name}: {rows.loc[name, 'auroc']:.2f}",
        )
    ax.plot([0, 1], [0, 1], color="#8a8a8a", linestyle=":", label="chance: 0.50")
    n = int(comparison["n"].iloc[0])
    ax.set(
        xlabel="1 - specificity",
        ylabel="sensitivity (recall)",
        aspect="equal",
        xlim=(-0.02, 1.02),
        ylim=(-0.02, 1.02),
        title=f"ROC of all models, test, n = {n}",
    )
    ax.legend(loc="lower right", title="AUROC")
    return with_alt(ax, f"ROC curves. AUROC: {_list_scores(comparison, 'auroc')}.")


def plot_evaluation(
    history: pd.DataFrame, predictions: pd.DataFrame, metrics: dict[str, Any], *, model: str, baseline: float
) -> Figure:
    """Draw one model at a glance: learning curves, ROC, confusion matrix, scores with intervals."""
    figure, axes = plt.subplots(2, 3, figsize=(14, 8), layout="constrained")
    plot_history(history, measure="loss", ax=axes[0, 0])
    plot_history(history, measure="accuracy", ax=axes[1, 0])
    plot_roc(
        predictions,
        model=model,
        threshold=metrics["threshold"],
        rule=metrics["threshold_rule"],
        ax=axes[0, 1],
    )
    plot_confusion(metrics, model=model, ax=axes[1, 1])
    names = ("auroc", "accuracy", "precision", "recall", "specificity", "f1")
    table = pd.DataFrame([{"metric": name} | metrics[name] for name in names])
    plot_metrics(table, title=f"Scores, test, n = {metrics['n']}", baseline=baseline, ax=axes[0, 2])
    ax = axes[1, 2]
    for value, label, name in ((1, POSITIVE, class_names()[1]), (0, NEGATIVE, class_names()[0])):
        ax.hist(
            predictions.loc[predictions["y_true"] == value, "y_prob"],
            bins=np.linspace(0, 1, 21),
            histtype="step",
            linewidth=2,
            color=CLASS_COLORS[label],
            linestyle="-" if value else "--",
            label=f"actual {name}",
        )
    ax.axvline(
        metrics["threshold"], color="#666666", linestyle=":", label=f"threshold {metrics['threshold']:.2f}"
    )
    ax.set(
        xlabel=f"P({class_names()[1]})",
        ylabel="images",
        title=f"Predicted probabilities, test, n = {metrics['n']}",
    )
    ax.legend()
    area = describe(metrics["auroc"])
    return with_alt(
        figure, f"Six panels on {model}: learning curves, ROC with AUROC {area}, confusion matrix, scores."
    )


def plot_leakage(inflation: pd.DataFrame, *, model: str, ax: Axes | None = None) -> Axes:
    """Draw what a leak is worth; `inflation` is `leakage.measure_leakage`'s table."""
    ax = new_axes(ax, figsize=(7.6, 3.4))
    splits = list(dict.fromkeys(inflation["split"]))
    if not splits:
        ax.set_axis_off()
        ax.text(0.5, 0.5, "not measured", ha="center")
        return with_alt(ax, describe_leakage(inflation))
    looks = {
        "true": ("o", "#2f4858", "labels as they are"),
        "shuffled": ("X", "#b2432f", "labels shuffled per source"),
    }
    for labels, (marker, color, words) in looks.items():
        rows = inflation[inflation["labels"] == labels]
        places = [splits.index(name) + (0.12 if labels == "shuffled" else -0.12) for name in rows["split"]]
        ax.errorbar(
            rows["auroc"],
            places,
            xerr=rows["auroc_sd"].fillna(0),
            fmt=marker,
            ms=9,
            color=color,
            capsize=3,
            label=words,
        )
        for place, row in zip(places, rows.itertuples(), strict=True):
            ax.annotate(
                f"{row.auroc:.2f}",
                (row.auroc, place),
                xytext=(0, 9),
                textcoords="offset points",
                ha="center",
                fontsize=9,
            )
    ax.axvline(0.5, color="#8a8a8a", linestyle=":", label="chance")
    ax.set_yticks(range(len(splits)), splits)
    ax.set(
        xlim=(0.2, 1.03),
        ylim=(len(splits) - 0.5, -0.6),
        xlabel="AUROC, lines are one standard deviation over folds",
        title=f"What a leak is worth: {model} features, n = {int(inflation['n'].iloc[0])}",
    )
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=3)
    return with_alt(ax, describe_leakage(inflation))


def plot_cost(comparison: pd.DataFrame, costs: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Draw AUROC against milliseconds an image, bubbles as large as the networks; columns model, latency_ms,
    parameters.
    """
    ax = new_axes(ax, figsize=(6.4, 3.8))
    table = comparison.merge(costs, on="model").dropna(subset=["latency_ms"])
    for row in table.itertuples():
        ax.plot(
            [row.latency_ms] * 2, [row.auroc_low, row.auroc_high], color=model_color(row.model), alpha=0.5
        )
        words = f"{row.model}, {row.parameters / 1e6:.0f} M parameters"
        size = 4 + np.sqrt(row.parameters / 1e5)
        ax.plot(
            row.latency_ms, row.auroc, "o", ms=size, color=model_color(row.model), alpha=0.85, label=words
        )
    ax.margins(x=0.25)
    ax.set(
        xlabel="milliseconds an image, 16 at a time, on this machine",
        ylabel="AUROC, test",
        title="AUROC against cost",
    )
    legend = ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    for handle in legend.legend_handles:
        handle.set_markersize(7)
    listed = ", ".join(f"{row.model} {row.latency_ms:.0f} ms" for row in table.itertuples())
    return with_alt(ax, f"AUROC against milliseconds an image: {listed}.")
