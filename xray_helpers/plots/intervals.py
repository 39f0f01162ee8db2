"""Values with their 95 % intervals: subgroups, spread, ranking, the scores of one model and of all."""

from collections.abc import Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes

from xray_helpers.evaluation.intervals import describe, read_entry, unflatten_entry
from xray_helpers.evaluation.metrics import METRIC_TITLES
from xray_helpers.evaluation.variability import describe_spread
from xray_helpers.plots.style import REFERENCE, escape_dollars, model_color, new_axes, with_alt

_MAX_LISTED = 12  # rows that the alternative text repeats


def plot_intervals(
    rows: Sequence[dict[str, Any]],
    *,
    title: str,
    xlabel: str = "AUROC",
    reference: float | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw values with their intervals, one row each, from top to bottom.

    Parameters
    ----------
    rows : sequence of dict
        label, value, ci_low, ci_high (None where there is none), and optionally color, marker, and note: a
        text that stands in the place of a missing value.
    title, xlabel : str
    reference : float, optional
        A dotted line.
    ax : Axes, optional
    """
    ax = new_axes(ax, figsize=(7.4, 1.0 + 0.42 * len(rows)))
    texts = []
    for place, row in enumerate(rows):
        color = row.get("color", "#1f4e79")
        note = row.get("note", "not defined")
        texts.append(f"{row['label']}: {note if row['value'] is None else describe(row)}")
        if row["value"] is None:
            where = {"transform": ax.get_yaxis_transform(), "va": "center"}
            ax.text(0.02, place, note, fontsize=8, color="#555555", **where)
            continue
        if row["ci_low"] is not None:
            ax.plot([row["ci_low"], row["ci_high"]], [place, place], color=color, linewidth=2, alpha=0.75)
        ax.plot(row["value"], place, row.get("marker", "o"), color=color, ms=7)
    if reference is not None:
        ax.axvline(reference, **REFERENCE)
    ax.set_yticks(range(len(rows)), [escape_dollars(row["label"]) for row in rows])
    ax.set(ylim=(len(rows) - 0.4, -0.6), xlabel=xlabel, title=title)
    ax.grid(visible=False, axis="y")
    more = f"; and {len(rows) - _MAX_LISTED} more" if len(rows) > _MAX_LISTED else ""
    return with_alt(ax, f"{title}. {'; '.join(texts[:_MAX_LISTED])}{more}.")


def plot_forest(
    table: pd.DataFrame, *, metric: str = "auroc", title: str = "", ax: Axes | None = None
) -> Axes:
    """Draw a metric of all images, in the first row, and of subgroups.

    Columns column, value, n, n_groups, and `metric` with ``_low`` and ``_high``; where it is not defined,
    recall or specificity with theirs, or a reason.
    """
    rows = []
    for row in table.to_dict("records"):
        is_all = row["column"] == "all"
        name = str(row["value"]) if is_all else f"{row['column']} = {row['value']}"
        label = f"{name[:40]}  (n = {row['n']} in {row['n_groups']})"
        look = {"marker": "D" if is_all else "o", "note": _describe_one_class(row, metric)}
        rows.append({"label": label} | unflatten_entry(row, metric) | look)
    title = title or f"{METRIC_TITLES[metric]} by subgroup, 95 % intervals"
    ax = plot_intervals(rows, title=title, xlabel=METRIC_TITLES[metric], reference=rows[0]["value"], ax=ax)
    ax.set_xlim(0, 1.02)
    return ax


def _describe_one_class(row: dict[str, Any], metric: str) -> str:
    """Return the sensitivity or specificity of a subgroup of one class, which has no AUROC."""
    for name in ("recall", "specificity"):
        if pd.notna(row.get(name)):
            return f"one class; {METRIC_TITLES[name].lower()} {describe(unflatten_entry(row, name))}"
    return f"not defined: {row.get(f'{metric}_reason', '')}"


def plot_spread(spread: pd.DataFrame, *, model: str, ax: Axes | None = None) -> Axes:
    """Draw how far AUROC moves with the sample, the seed and the split; `variability.summarise`'s table."""
    rows = []
    for row in spread.to_dict("records"):
        label = f"{row['source']} ({row['runs']:.0f})" if row["runs"] > 1 else row["source"]
        rows.append({"label": label, "color": model_color(model)} | read_entry(row, "auroc", "low", "high"))
    ax = plot_intervals(rows, title=f"{model}: how far the score moves", ax=ax)
    return with_alt(ax, f"{ax.get_label()} {describe_spread(spread)}")


def plot_ranking(
    comparison: pd.DataFrame, pairs: pd.DataFrame, *, alpha: float = 0.05, ax: Axes | None = None
) -> Axes:
    """Draw models by AUROC; bars at the right join neighbours of which no two differ significantly.

    Parameters
    ----------
    comparison : DataFrame
        Of `comparison.compare_models`.
    pairs : DataFrame
        Of `paired.compare_pairs`: first, second, p_holm.
    alpha : float
        A pair differs when p_holm lies below.
    ax : Axes, optional
    """
    order = comparison.sort_values("auroc", ascending=False, ignore_index=True)
    rows = [
        {"label": row["model"], "color": model_color(row["model"])} | unflatten_entry(row, "auroc")
        for row in order.to_dict("records")
    ]
    title = f"Ranking, n = {order['n'].iloc[0]} images in {order['n_groups'].iloc[0]} groups"
    xlabel = "AUROC, test, 95 % interval; bars at the right join models that do not differ significantly"
    ax = plot_intervals(rows, title=title, xlabel=xlabel, reference=0.5, ax=ax)
    ax.set_xlim(min(0.45, order["auroc_low"].min() - 0.02), 1.0)
    alike = {frozenset((row.first, row.second)) for row in pairs.itertuples() if not row.p_holm < alpha}
    bar = {"color": "#333333", "linewidth": 4, "solid_capstyle": "butt", "clip_on": False}
    for number, (start, end) in enumerate(_cliques(order["model"].tolist(), alike)):
        ax.plot([1.04 + 0.03 * number] * 2, [start - 0.15, end + 0.15], **bar)
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


def plot_metrics(
    metrics: dict[str, Any], names: Sequence[str], *, title: str, baseline: float, ax: Axes | None = None
) -> Axes:
    """Draw scores of one model, of ``metrics.json``; `baseline` is the accuracy of the majority class."""
    rows = [{"label": METRIC_TITLES[name]} | metrics[name] for name in names]
    marked = f"accuracy of the majority class: {baseline:.2f}"
    ax = plot_intervals(rows, title=title, xlabel=f"value with 95 % interval\ndotted: {marked}", ax=ax)
    ax.axvline(baseline, **REFERENCE, label=marked)
    ax.set_xlim(-0.02, 1.02)
    return ax


def plot_model_metric(
    comparison: pd.DataFrame, metric: str, *, baseline: float | None = None, ax: Axes | None = None
) -> Axes:
    """Draw one metric of all models as bars; `comparison` is the table of `comparison.compare_models`."""
    ax = new_axes(ax)
    defined = comparison[comparison[metric].notna()]
    names, values = defined["model"], defined[metric].astype(float)
    ends = defined[[f"{metric}_low", f"{metric}_high"]].to_numpy(float)
    ax.bar(names, values, color=[model_color(name) for name in names], width=0.65)
    ax.vlines(names, *ends.T, color="#222222", linewidth=1.6)
    for name, value in zip(names, values, strict=True):
        ax.text(name, 0.02, f"{value:.2f}", ha="center", color="white", fontsize=9, fontweight="bold")
    if baseline is not None:
        ax.axhline(baseline, **REFERENCE, label=f"majority class {baseline:.2f}")
        ax.legend(loc="upper right")
    missing = len(comparison) - len(defined)
    note = f", not defined for {missing}" if missing else ""
    title = f"{METRIC_TITLES[metric]}, test, n = {int(comparison['n'].iloc[0])}{note}"
    slots = max(len(defined), 4)  # a single bar does not fill the axes
    ax.set(xlim=(-0.6, slots - 0.4), ylim=(0, 1.05), title=title)
    ax.tick_params(axis="x", rotation=20)
    ax.grid(visible=False, axis="x")
    return with_alt(ax, f"Bar chart of {METRIC_TITLES[metric]}: {list_scores(comparison, metric)}.")


def list_scores(comparison: pd.DataFrame, metric: str) -> str:
    """Return ``VGG16 0.83, ResNet50 0.79``, for alternative texts."""
    rows = comparison[comparison[metric].notna()]
    return ", ".join(f"{row['model']} {row[metric]:.2f}" for row in rows.to_dict("records")) or "not defined"
