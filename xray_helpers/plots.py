"""A table in, axes out. Nothing here shows or saves, but for `show`, which a notebook's cell ends with."""

import base64
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from IPython.display import Image
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL.PngImagePlugin import PngInfo
from sklearn.metrics import roc_curve

from xray_helpers.metrics import METRIC_TITLES
from xray_helpers.settings import CLASS_NAMES, NEGATIVE, POSITIVE, class_names
from xray_helpers.studies import write_whole

CLASS_COLORS = {POSITIVE: "#b2432f", NEGATIVE: "#3d6f9e"}
SPLIT_COLORS = {"train": "#4c6a87", "validation": "#c98b2b", "test": "#5d8a4a"}
_MODEL_COLORS = {
    "InceptionV3": "#0072b2", "ResNet50": "#b85c00", "VGG16": "#007a5a", "DenseNet121": "#a8487f",
    "MobileNetV2": "#6b5b00",
}  # fmt: skip
_MODEL_MARKERS = {"InceptionV3": "o", "ResNet50": "s", "VGG16": "^", "DenseNet121": "D", "MobileNetV2": "v"}


def set_theme() -> None:
    """Set the style of the notebooks' figures and the number of digits of their tables."""
    sns.set_theme(
        style="whitegrid",
        rc={
            "figure.figsize": (7.2, 4.0), "figure.dpi": 110, "axes.titlesize": 11, "axes.titleweight": "bold",
            "axes.titlelocation": "left", "axes.labelsize": 10, "xtick.labelsize": 9, "ytick.labelsize": 9,
            "legend.fontsize": 9, "grid.color": "#e4e4e4", "axes.edgecolor": "#8a8a8a",
        },
    )  # fmt: skip
    pd.set_option("display.precision", 3, "display.max_rows", 30, "display.max_columns", 30)


def show(drawn: Figure | Axes, alt: str, path: Path | None = None) -> Image:
    """Return a figure as a picture with alternative text, and write it to `path` when one is given.

    Parameters
    ----------
    drawn : Figure or Axes
        Closed afterwards.
    alt : str
        What the figure shows, for who cannot see it.
    path : Path, optional
        A PNG file; the text goes with it.

    Returns
    -------
    Image
        Marked where it shows radiographs, so that a report can leave it out.
    """
    figure = drawn if isinstance(drawn, Figure) else drawn.figure
    radiographs = any(ax.images for ax in figure.axes)
    data = _png(figure, {"Description": alt} | ({"Radiographs": "yes"} if radiographs else {}))
    if path is not None:
        write_whole(path, lambda partial: partial.write_bytes(data))
    return Image(
        data=data, format="png", alt=alt, metadata={"alt": alt} | ({"radiographs": True} if radiographs else {})
    )


def _png(figure: Figure, words: dict[str, str] | None = None) -> bytes:
    buffer, info = io.BytesIO(), PngInfo()
    for key, text in (words or {}).items():
        info.add_itxt(key, text)
    figure.savefig(buffer, format="png", bbox_inches="tight", facecolor="white", pil_kwargs={"pnginfo": info})
    plt.close(figure)
    return buffer.getvalue()


def embed_picture(figure: Figure) -> str:
    """Return a figure as the address of a picture within a page; the figure is closed."""
    return "data:image/png;base64," + base64.b64encode(_png(figure)).decode()


def model_color(name: str) -> str:
    """Return the one colour of a model, the same in every figure."""
    if name in _MODEL_COLORS:
        return _MODEL_COLORS[name]
    return sns.color_palette("husl", 12).as_hex()[sum(name.encode()) % 12]


def new_axes(ax: Axes | None, **kwargs: Any) -> Axes:
    """Return `ax`, or the axes of a new figure."""
    return ax if ax is not None else plt.subplots(layout="constrained", **kwargs)[1]


def plot_class_balance(balance: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Draw images of each class in each part; `balance` is `splits.class_balance`'s table."""
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
    return ax


def plot_sizes(manifest: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Draw width against height of the readable files; columns width, height, label."""
    ax = new_axes(ax, figsize=(5.2, 3.8))
    table = manifest.dropna(subset=["width", "height", "label"])
    for label, name in zip(CLASS_NAMES, class_names(), strict=True):
        rows = table[table["label"] == label]
        ax.scatter(rows["width"].astype(float), rows["height"].astype(float), s=22, alpha=0.5, label=name,
                   color=CLASS_COLORS[label], marker="o" if label == POSITIVE else "x")  # fmt: skip
    ax.set(xlabel="width (pixels)", ylabel="height (pixels)", title=f"Sizes of the files, n = {len(table)}")
    ax.legend()
    return ax


def plot_intensities(intensities: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Draw the distribution of mean grey levels by class; columns mean_grey (0-255), label."""
    ax = new_axes(ax, figsize=(6.4, 3.2))
    for label, name in zip(CLASS_NAMES, class_names(), strict=True):
        values = intensities.loc[intensities["label"] == label, "mean_grey"]
        ax.hist(values, bins=np.arange(0, 256, 8), density=True, histtype="step", linewidth=2, label=name,
                color=CLASS_COLORS[label], linestyle="-" if label == POSITIVE else "--")  # fmt: skip
    ax.set(xlabel="mean grey level of an image (0-255)", ylabel="density",
           title=f"Intensities by class, train, n = {len(intensities)}")  # fmt: skip
    ax.legend()
    return ax


def plot_radiographs(
    pixels: Iterable[np.ndarray], captions: Sequence[str], *, title: str = "", columns: int = 4,
    colors: Sequence[str] | None = None,
) -> Figure:  # fmt: skip
    """Draw radiographs in a grid, grey 0-255, a caption below each; `colors` frames them."""
    pictures = list(pixels)
    if not pictures:
        figure = plt.figure(figsize=(1.9 * columns, 1), layout="constrained")
        figure.text(0.5, 0.3, "none", ha="center")
        figure.suptitle(_plain(title), fontsize=11, fontweight="bold")
        return figure
    rows = -(-len(pictures) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(1.9 * columns, 2.2 * rows + 0.4), layout="constrained",
                                squeeze=False)  # fmt: skip
    for index, ax in enumerate(axes.flat):
        ax.set(xticks=[], yticks=[])
        ax.grid(visible=False)
        if index >= len(pictures):
            ax.set_axis_off()
            continue
        ax.imshow(pictures[index], cmap="gray", vmin=0, vmax=255)
        ax.set_xlabel(_plain(captions[index]), fontsize=8)
        for spine in ax.spines.values():
            spine.set(color=colors[index] if colors else "#8a8a8a", linewidth=2.5 if colors else 0.8)
    figure.suptitle(_plain(title), fontsize=11, fontweight="bold")
    return figure


def _plain(text: str) -> str:
    return str(text).replace("$", r"\$")  # a file's name is no formula


def plot_history(history: pd.DataFrame, *, measure: str = "loss", title: str = "", ax: Axes | None = None) -> Axes:
    """Draw a learning curve on train and validation; columns epoch, best, `measure` with ``val_``, and maybe phase."""
    ax = new_axes(ax, figsize=(5.4, 3.4))
    ax.plot(history["epoch"], history[measure], color=SPLIT_COLORS["train"], marker="o", ms=4, label="train")
    ax.plot(history["epoch"], history[f"val_{measure}"], color=SPLIT_COLORS["validation"], marker="s", ms=4,
            linestyle="--", label="validation")  # fmt: skip
    best = history.loc[history["best"], "epoch"]
    if len(best):
        ax.axvline(best.iloc[0], color="#666666", linestyle=":", label=f"kept: epoch {int(best.iloc[0])}")
    tuned = history.loc[history.get("phase") == "fine-tuning", "epoch"] if "phase" in history else ()
    if len(tuned):
        ax.axvspan(tuned.iloc[0] - 0.5, tuned.iloc[-1] + 0.5, color="#e9eef5", zorder=0, label="fine-tuning")
    ax.set(xlabel="epoch", ylabel=measure, title=title or f"Learning curve: {measure}")
    ax.xaxis.get_major_locator().set_params(integer=True)
    ax.legend()
    return ax


def plot_roc(predictions: pd.DataFrame, *, model: str, threshold: float, rule: str = "", split: str = "test",
             ax: Axes | None = None) -> Axes:  # fmt: skip
    """Draw the ROC curve with its operating point, chosen by `rule`; columns y_true (1 = Fractured), y_prob."""
    ax = new_axes(ax, figsize=(4.4, 4.2))
    y_true = predictions["y_true"].to_numpy()
    ax.plot([0, 1], [0, 1], color="#8a8a8a", linestyle=":", label="chance")
    if 0 < y_true.sum() < len(y_true):
        false_positive, true_positive, _ = roc_curve(y_true, predictions["y_prob"])
        ax.plot(false_positive, true_positive, color=model_color(model), linewidth=2, label=model)
        called = predictions["y_prob"].to_numpy() >= threshold
        ax.plot((called & (y_true == 0)).sum() / (y_true == 0).sum(), (called & (y_true == 1)).sum() / y_true.sum(),
                _MODEL_MARKERS.get(model, "o"), color=model_color(model), ms=9, mec="white",
                label=f"threshold {threshold:.2f}" + (f":\n{rule.replace(' on ', chr(10) + 'on ')}" if rule else ""))  # fmt: skip
    ax.set(xlabel="1 - specificity", ylabel="sensitivity (recall)", xlim=(-0.02, 1.02), ylim=(-0.02, 1.02),
           aspect="equal", title=f"{model}: ROC, {split}, n = {len(y_true)}")  # fmt: skip
    ax.legend(loc="lower right")
    return ax


def plot_confusion(
    counts: dict[str, Any] | pd.Series, *, model: str, split: str = "test", ax: Axes | None = None
) -> Axes:
    """Draw the 2 x 2 table with counts and shares of the true class; keys tp, fp, tn, fn, n, threshold."""
    ax = new_axes(ax, figsize=(4.0, 3.6))
    cells = np.array([[counts["tn"], counts["fp"]], [counts["fn"], counts["tp"]]], dtype=float)
    share = cells / np.maximum(cells.sum(axis=1, keepdims=True), 1)
    words = [[f"{int(n)}\n{s:.0%}" for n, s in zip(*row, strict=True)] for row in zip(cells, share, strict=True)]
    sns.heatmap(share, annot=words, fmt="", cmap="Blues", vmin=0, vmax=1, cbar=False, ax=ax, linewidths=1,
                xticklabels=class_names(), yticklabels=class_names(), annot_kws={"fontsize": 11})  # fmt: skip
    ax.set(xlabel="predicted", ylabel="actual")
    ax.set_title(f"{model}: {split}, n = {int(counts['n'])}, threshold {counts['threshold']:.2f}\n"
                 f"positive class: {class_names()[1]}", fontsize=10)  # fmt: skip
    ax.tick_params(axis="y", rotation=90)
    return ax


def plot_metrics(table: pd.DataFrame, *, title: str, baseline: float | None = None, ax: Axes | None = None) -> Axes:
    """Draw scores with 95 % intervals, a line a row; columns metric, value, ci_low, ci_high."""
    ax = new_axes(ax, figsize=(6.4, 3.6))
    rows = table.dropna(subset=["value"]).reset_index(drop=True)
    low = (rows["value"] - rows["ci_low"].astype(float).fillna(rows["value"])).clip(lower=0)
    high = (rows["ci_high"].astype(float).fillna(rows["value"]) - rows["value"]).clip(lower=0)
    ax.errorbar(rows["value"], rows.index, xerr=[low, high], fmt="o", color="#2f4858", capsize=3)
    ax.set_yticks(rows.index, [METRIC_TITLES.get(name, name) for name in rows["metric"]])
    if baseline is not None:
        ax.axvline(baseline, color="#8a8a8a", linestyle=":", label=f"accuracy of the majority class: {baseline:.2f}")
        ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16))
    ax.invert_yaxis()
    ax.set(xlim=(-0.02, 1.02), title=title, xlabel="value with 95 % interval")
    return ax


def plot_model_metric(comparison: pd.DataFrame, metric: str, *, baseline: float | None = None,
                      ax: Axes | None = None) -> Axes:  # fmt: skip
    """Draw one metric of all models with 95 % intervals; `comparison` is `comparison.compare_models`'s."""
    ax = new_axes(ax)
    defined = comparison[comparison[metric].notna()].reset_index(drop=True)
    for index, row in defined.iterrows():
        low, high = row[f"{metric}_low"], row[f"{metric}_high"]
        ax.bar(index, row[metric], color=model_color(row["model"]), width=0.65)
        if pd.notna(low):
            ax.vlines(index, low, high, color="#222222", linewidth=1.6)
        ax.annotate(f"{row[metric]:.2f}", (index, 0.02), ha="center", color="white", fontsize=9, fontweight="bold")
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
    return ax


def plot_evaluation_grid(comparison: pd.DataFrame, *, baseline: float | None = None) -> Figure:
    """Draw accuracy, precision, recall and F1 of all models, four panels."""
    figure, axes = plt.subplots(2, 2, figsize=(10, 7), layout="constrained")
    for ax, metric in zip(axes.flat, ("accuracy", "precision", "recall", "f1"), strict=True):
        plot_model_metric(comparison, metric, baseline=baseline if metric == "accuracy" else None, ax=ax)
    figure.suptitle(f"Positive class: {class_names()[1]}; lines are 95 % intervals", fontsize=10)
    return figure


def plot_confusion_grid(comparison: pd.DataFrame, *, columns: int = 3) -> Figure:
    """Draw the confusion matrices of all models; columns model, n, threshold, tp, fp, tn, fn."""
    columns = min(columns, len(comparison))
    rows = -(-len(comparison) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(3.7 * columns, 3.5 * rows), layout="constrained", squeeze=False)
    for ax in axes.flat[len(comparison) :]:
        ax.set_axis_off()
    for ax, (_, row) in zip(axes.flat, comparison.iterrows(), strict=False):
        plot_confusion(row, model=row["model"], ax=ax)
    return figure


def plot_roc_models(predictions: dict[str, pd.DataFrame], comparison: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Draw the ROC curves of all models on one pair of axes."""
    ax = new_axes(ax, figsize=(5.6, 5.2))
    rows = comparison.set_index("model")
    styles = ["-", "--", "-.", (0, (5, 1)), (0, (3, 1, 1, 1))]
    for index, (name, table) in enumerate(predictions.items()):
        if pd.isna(rows.loc[name, "auroc"]):
            continue
        false_positive, true_positive, _ = roc_curve(table["y_true"], table["y_prob"])
        ax.plot(false_positive, true_positive, color=model_color(name), linewidth=1.8,
                linestyle=styles[index % len(styles)], label=f"{name}: {rows.loc[name, 'auroc']:.2f}")  # fmt: skip
    ax.plot([0, 1], [0, 1], color="#8a8a8a", linestyle=":", label="chance: 0.50")
    n = int(comparison["n"].iloc[0])
    ax.set(xlabel="1 - specificity", ylabel="sensitivity (recall)", aspect="equal", xlim=(-0.02, 1.02),
           ylim=(-0.02, 1.02), title=f"ROC of all models, test, n = {n}")  # fmt: skip
    ax.legend(loc="lower right", title="AUROC")
    return ax


def plot_evaluation(history: pd.DataFrame, predictions: pd.DataFrame, metrics: dict[str, Any], *, model: str,
                    baseline: float) -> Figure:  # fmt: skip
    """Draw one model at a glance: learning curves, ROC, confusion matrix, scores with intervals."""
    figure, axes = plt.subplots(2, 3, figsize=(14, 8), layout="constrained")
    plot_history(history, measure="loss", ax=axes[0, 0])
    plot_history(history, measure="accuracy", ax=axes[1, 0])
    plot_roc(predictions, model=model, threshold=metrics["threshold"], rule=metrics["threshold_rule"],
             ax=axes[0, 1])  # fmt: skip
    plot_confusion(metrics, model=model, ax=axes[1, 1])
    names = ("auroc", "accuracy", "precision", "recall", "specificity", "f1")
    table = pd.DataFrame([{"metric": name} | metrics[name] for name in names])
    plot_metrics(table, title=f"Scores, test, n = {metrics['n']}", baseline=baseline, ax=axes[0, 2])
    ax = axes[1, 2]
    for value, label, name in ((1, POSITIVE, class_names()[1]), (0, NEGATIVE, class_names()[0])):
        ax.hist(predictions.loc[predictions["y_true"] == value, "y_prob"], bins=np.linspace(0, 1, 21),
                histtype="step", linewidth=2, color=CLASS_COLORS[label], linestyle="-" if value else "--",
                label=f"actual {name}")  # fmt: skip
    ax.axvline(metrics["threshold"], color="#666666", linestyle=":", label=f"threshold {metrics['threshold']:.2f}")
    ax.set(xlabel=f"P({class_names()[1]})", ylabel="images", title=f"Predicted probabilities, test, n = {metrics['n']}")
    ax.legend()
    return figure


def plot_sample_predictions(
    pixels: Iterable[np.ndarray], sample: pd.DataFrame, *, model: str, threshold: float
) -> Figure:
    """Draw radiographs with predicted and actual class; columns y_true, y_pred, y_prob, path."""
    captions, colors = [], []
    for row in sample.itertuples():
        right = row.y_true == row.y_pred
        captions.append(
            f"{'right' if right else 'WRONG'}: predicted {class_names()[row.y_pred]}\n"
            f"actual {class_names()[row.y_true]}, P = {row.y_prob:.2f}"
        )
        colors.append("#2e7d4f" if right else "#c22d2d")
    title = f"{model}: {len(sample)} random test images, threshold {threshold:.2f}"
    return plot_radiographs(pixels, captions, title=title, colors=colors)


def plot_inflation(inflation: pd.DataFrame, *, model: str, ax: Axes | None = None) -> Axes:
    """Draw what a leak is worth; `inflation` is `inflation.measure_inflation`'s table."""
    ax = new_axes(ax, figsize=(7.6, 3.4))
    splits = list(dict.fromkeys(inflation["split"]))
    if not splits:
        ax.set_axis_off()
        ax.text(0.5, 0.5, "not measured", ha="center")
        return ax.axes
    looks = {"true": ("o", "#2f4858", "labels as they are"), "shuffled": ("X", "#b2432f", "labels shuffled per source")}
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
    ax.set(xlim=(0.2, 1.03), ylim=(len(splits) - 0.5, -0.6), xlabel="AUROC, lines are one standard deviation over folds",
           title=f"What a leak is worth: {model} features, n = {int(inflation['n'].iloc[0])}")  # fmt: skip
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=3)
    return ax


def plot_groups(groups: Sequence[tuple[str, Sequence[np.ndarray], Sequence[str]]], *, columns: int = 8) -> Figure:
    """Draw groups of same-source pictures, a strip each: (title, pictures, captions); at most `columns` a strip."""
    figure, axes = plt.subplots(len(groups), columns, figsize=(1.5 * columns, 2.0 * len(groups)), layout="constrained",
                                squeeze=False)  # fmt: skip
    for row, (title, pictures, captions) in zip(axes, groups, strict=True):
        for index, ax in enumerate(row):
            if index >= len(pictures):
                ax.set_axis_off()
                continue
            ax.imshow(pictures[index], cmap="gray", vmin=0, vmax=255)
            ax.set(xticks=[], yticks=[])
            ax.grid(visible=False)
            ax.set_xlabel(_plain(captions[index]), fontsize=7)
        row[0].set_title(_plain(title), fontsize=9)
    return figure
