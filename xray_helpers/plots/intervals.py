"""Values with their intervals, as forest plots and rankings: a table in, axes out."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from xray_helpers.evaluation.intervals import describe
from xray_helpers.evaluation.metrics import METRIC_TITLES
from xray_helpers.evaluation.variability import describe_spread
from xray_helpers.plots.style import model_color, new_axes, with_alt


def plot_forest(
    table: pd.DataFrame, *, metric: str = "auroc", title: str = "", ax: Axes | None = None
) -> Axes:
    """Draw a value with its interval a row; columns column, value, n, n_groups, `metric`, ``_low``,
    ``_high``.
    """
    table = table.reset_index(drop=True)
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
    ax.set(
        yticks=range(len(table)),
        yticklabels=labels,
        xlim=(0, 1.02),
        xlabel=METRIC_TITLES[metric],
        title=title or f"{METRIC_TITLES[metric]} by subgroup, 95 % intervals",
    )
    ax.invert_yaxis()
    ax.grid(visible=False, axis="y")
    known = table[table[metric].notna()].head(12)
    listed = [
        f"{label.split('  (')[0]} {_describe(row, metric)}"
        for label, row in zip(np.array(labels)[known.index], known.to_dict("records"), strict=True)
    ]
    return with_alt(ax, f"Forest plot: {ax.get_title('left')}. {'; '.join(listed)}.")


def _describe(row: dict, metric: str) -> str:
    """Return a value of a row with its interval."""
    return describe({"value": row[metric], "ci_low": row[f"{metric}_low"], "ci_high": row[f"{metric}_high"]})


def _instead(row: dict, metric: str) -> str:
    """Return what is known of a subgroup that has no AUROC: the sensitivity or specificity of its one
    class.
    """
    for name in ("recall", "specificity"):
        if pd.notna(row.get(name)):
            return f"one class; {METRIC_TITLES[name].lower()} {_describe(row, name)}"
    return f"not defined: {row.get(f'{metric}_reason', '')}"


def plot_spread(spread: pd.DataFrame, *, model: str, ax: Axes | None = None) -> Axes:
    """Draw how far AUROC moves by sample, seed and split; `variability.summarise`'s table."""
    ax = new_axes(ax, figsize=(7.0, 0.9 + 0.5 * len(spread)))
    for place, row in enumerate(spread.to_dict("records")):
        ax.plot([row["low"], row["high"]], [place, place], color=model_color(model), linewidth=3, alpha=0.55)
        ax.plot(row["auroc"], place, "o", color=model_color(model), ms=7)
    words = [f"{row.source} ({row.runs:.0f})" if row.runs > 1 else row.source for row in spread.itertuples()]
    ax.set(
        yticks=range(len(spread)),
        yticklabels=words,
        ylim=(len(spread) - 0.4, -0.6),
        xlabel="AUROC",
        title=f"{model}: how far the score moves",
    )
    ax.grid(visible=False, axis="y")
    return with_alt(ax, f"{model}: how far AUROC moves. {describe_spread(spread)}")


def plot_ranking(
    comparison: pd.DataFrame, pairs: pd.DataFrame, *, alpha: float = 0.05, ax: Axes | None = None
) -> Axes:
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
        ax.plot(
            [x, x],
            [start - 0.15, end + 0.15],
            color="#333333",
            linewidth=4,
            solid_capstyle="butt",
            clip_on=False,
        )
    ax.axvline(0.5, color="#8a8a8a", linestyle=":", linewidth=1)
    ax.set(
        yticks=range(len(order)),
        yticklabels=order["model"],
        xlim=(min(0.45, order["auroc_low"].min() - 0.02), 1.0),
        xlabel="AUROC, test, 95 % interval; bars at the right join models that are not told apart",
        title=f"Ranking, n = {order['n'].iloc[0]} images in {order['n_groups'].iloc[0]} groups",
    )
    ax.invert_yaxis()
    ax.grid(visible=False, axis="y")
    listed = ", ".join(f"{row['model']} {_describe(row, 'auroc')}" for row in order.to_dict("records"))
    return with_alt(ax, f"Ranking of {len(order)} models by AUROC: {listed}.")


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
