"""Learning curves, ROC curves, and the operating point on them."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn.metrics import auc, precision_recall_curve, roc_curve

from xray_helpers.plots.intervals import list_scores
from xray_helpers.plots.style import MODEL_MARKERS, REFERENCE, SPLIT_COLORS, model_color, new_axes, with_alt

_LINE_STYLES = ("-", "--", "-.", (0, (5, 1)), (0, (3, 1, 1, 1)))


def plot_history(
    history: pd.DataFrame, *, measure: str = "loss", title: str = "", ax: Axes | None = None
) -> Axes:
    """Draw a learning curve on train and validation.

    Columns epoch, best (the epoch that is kept), `measure`, `measure` after ``val_``, and optionally phase.
    """
    ax = new_axes(ax, figsize=(5.4, 3.4))
    for split, column, style in (("train", measure, "o-"), ("validation", f"val_{measure}", "s--")):
        ax.plot(history["epoch"], history[column], style, color=SPLIT_COLORS[split], ms=4, label=split)
    best = history.loc[history["best"], "epoch"]
    if len(best):
        ax.axvline(best.iloc[0], color="#666666", linestyle=":", label=f"kept: epoch {best.iloc[0]:.0f}")
    tuned = history.loc[history["phase"] == "fine-tuning", "epoch"] if "phase" in history else best.head(0)
    if len(tuned):
        ax.axvspan(tuned.iloc[0] - 0.5, tuned.iloc[-1] + 0.5, color="#e9eef5", zorder=0, label="fine-tuning")
    title = title or f"Learning curve: {measure}"
    ax.set(xlabel="epoch", ylabel=measure, title=title)
    ax.xaxis.get_major_locator().set_params(integer=True)
    ax.legend()
    kept = f", epoch {best.iloc[0]:.0f} is kept" if len(best) else ""
    return with_alt(ax, f"Learning curve, {title}: {len(history)} epochs{kept}.")


def plot_roc(
    predictions: pd.DataFrame,
    *,
    model: str,
    threshold: float,
    rule: str = "",
    split: str = "test",
    ax: Axes | None = None,
) -> Axes:
    """Draw the ROC curve and the operating point that `rule` chose; columns y_true (1: Fractured), y_prob."""
    title = f"{model}: ROC, {split}, n = {len(predictions)}"
    ax = _new_roc_axes(title, ax, figsize=(4.4, 4.2))
    if predictions["y_true"].nunique() == 2:
        _draw_roc(ax, predictions, color=model_color(model), linewidth=2, label=model)
        short = rule.partition(",")[0]  # what follows, such as what was reached, is too wide for a legend
        chosen_by = ":\n" + short.replace(" on ", "\non ") if rule else ""
        look = {"color": model_color(model), "marker": MODEL_MARKERS.get(model, "o"), "ms": 9, "mec": "white"}
        ax.plot(
            *_operating_point(predictions, threshold),
            linestyle="",
            label=f"threshold {threshold:.2f}{chosen_by}",
            **look,
        )
    ax.legend(loc="lower right")
    return with_alt(ax, f"{title}, with the operating point at threshold {threshold:.2f}.")


def plot_roc_models(
    predictions: dict[str, pd.DataFrame], comparison: pd.DataFrame, *, ax: Axes | None = None
) -> Axes:
    """Draw the ROC curves of all models; `comparison` is the table of `comparison.compare_models`."""
    ax = _new_roc_axes(f"ROC of all models, test, n = {int(comparison['n'].iloc[0])}", ax, figsize=(5.6, 5.2))
    areas = comparison.set_index("model")["auroc"]
    for index, (name, table) in enumerate(predictions.items()):
        if pd.notna(areas[name]):
            style = _LINE_STYLES[index % len(_LINE_STYLES)]
            _draw_roc(ax, table, color=model_color(name), linestyle=style, label=f"{name}: {areas[name]:.2f}")
    ax.legend(loc="lower right", title="AUROC")
    return with_alt(ax, f"ROC curves. AUROC: {list_scores(comparison, 'auroc')}.")


def plot_roc_parts(
    parts: dict[str, pd.DataFrame], *, model: str, by: str = "part", ax: Axes | None = None
) -> Axes:
    """Draw the ROC curves of one model on several parts; those of one class are left out.

    `parts` maps names to predictions; columns y_true, y_prob. The title says what the curves differ `by`.
    """
    ax = _new_roc_axes(f"{model}: ROC by {by}", ax, figsize=(5.0, 4.8))
    areas = []
    for (name, table), style in zip(parts.items(), _LINE_STYLES, strict=False):
        if table["y_true"].nunique() == 2:
            area = auc(*roc_curve(table["y_true"], table["y_prob"])[:2])
            areas.append(f"{name}, n = {len(table)}: {area:.2f}")
            _draw_roc(ax, table, color=model_color(model), linestyle=style, label=areas[-1])
    ax.legend(loc="lower right", title="AUROC")
    return with_alt(ax, f"ROC curves of {model}. AUROC: {', '.join(areas)}.")


def plot_operating_points(predictions: pd.DataFrame, *, model: str, threshold: float) -> Figure:
    """Draw the operating point on three curves: ROC, precision and recall, both rates by threshold."""
    y_true, y_prob = predictions["y_true"].to_numpy(), predictions["y_prob"].to_numpy()
    alarms, hits = _operating_point(predictions, threshold)
    figure, (roc, pr, rates) = plt.subplots(1, 3, figsize=(11, 3.6), layout="constrained")
    plot_roc(predictions, model=model, threshold=threshold, ax=roc)
    roc.set_title("ROC")
    precision, recall, _ = precision_recall_curve(y_true, y_prob)
    pr.plot(recall, precision, color=model_color(model), linewidth=2)
    if (called := y_prob >= threshold).any():
        marker = MODEL_MARKERS.get(model, "o")
        pr.plot(hits, y_true[called].mean(), marker, color=model_color(model), ms=9, mec="white")
    pr.axhline(y_true.mean(), **REFERENCE)
    pr.set(xlabel="recall", ylabel="precision", title="Precision and recall", ylim=(0, 1.03))
    false_positive, true_positive, thresholds = roc_curve(y_true, y_prob, drop_intermediate=False)
    rates.plot(thresholds.clip(0, 1), true_positive, color="#b2432f", label="sensitivity")
    rates.plot(thresholds.clip(0, 1), 1 - false_positive, "--", color="#3d6f9e", label="specificity")
    rates.axvline(threshold, color="#2f4858", linewidth=1)
    rates.set(xlabel="threshold", xlim=(0, 1), title=f"Threshold {threshold:.3f}")
    rates.legend(loc="lower center")
    title = f"{model}: operating point on test, n = {len(predictions)}"
    figure.suptitle(title, x=0.01, ha="left", fontweight="bold")
    at = f"At threshold {threshold:.3f}: sensitivity {hits:.2f}, specificity {1 - alarms:.2f}."
    return with_alt(figure, f"ROC, precision and recall, and both rates by threshold, {model}. {at}")


def _new_roc_axes(title: str, ax: Axes | None, figsize: tuple[float, float]) -> Axes:
    ax = new_axes(ax, figsize=figsize)
    ax.plot([0, 1], [0, 1], **REFERENCE, label="chance")
    ax.set(xlabel="1 - specificity", ylabel="sensitivity (recall)", title=title)
    ax.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
    return ax


def _draw_roc(ax: Axes, predictions: pd.DataFrame, **look: object) -> None:
    false_positive, true_positive, _ = roc_curve(predictions["y_true"], predictions["y_prob"])
    ax.plot(false_positive, true_positive, **({"linewidth": 1.8} | look))


def _operating_point(predictions: pd.DataFrame, threshold: float) -> tuple[float, float]:
    """Return 1 - specificity and sensitivity at a threshold."""
    called, y_true = predictions["y_prob"] >= threshold, predictions["y_true"]
    return tuple(np.mean(called[y_true == label]) for label in (0, 1))
