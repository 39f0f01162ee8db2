"""Figures of a federated training: the validation loss by round, and scores by site."""

import pandas as pd
from matplotlib.axes import Axes

from xray_helpers.evaluation.intervals import unflatten_entry
from xray_helpers.evaluation.site_scores import WAYS
from xray_helpers.plots.intervals import plot_intervals
from xray_helpers.plots.style import new_axes, with_alt


def plot_rounds(losses: pd.DataFrame, kept: int, *, ax: Axes | None = None) -> Axes:
    """Draw the validation loss by round; columns round, site (``all`` is the mean), loss."""
    ax = new_axes(ax, figsize=(5.4, 3.4))
    for site, rows in losses.groupby("site", sort=False):
        is_mean = site == "all"
        look = {"color": "black", "linewidth": 2.4} if is_mean else {"marker": "o", "ms": 4}
        ax.plot(rows["round"], rows["loss"], label="mean, by images" if is_mean else site, **look)
    ax.axvline(kept, color="#666666", linestyle=":", label=f"kept: round {kept}")
    ax.set(xlabel="round", ylabel="loss", title="Validation loss of the shared model, by site")
    ax.xaxis.get_major_locator().set_params(integer=True)
    ax.legend(fontsize="small")
    mean = losses[losses["site"] == "all"]["loss"]
    told = f"from {mean.iloc[0]:.3f} to {mean.iloc[-1]:.3f}; round {kept} is kept."
    return with_alt(ax, f"Validation loss by round and site; the mean goes {told}")


def plot_sites(scores: pd.DataFrame, *, title: str = "", ax: Axes | None = None) -> Axes:
    """Draw the AUROC of each way of training at each site; columns of `evaluation.score_sites`."""
    colors = dict(zip(WAYS, ("#8a8a8a", "#1f77b4", "#2ca02c", "#d98c00"), strict=True))
    rows = [
        {"label": f"{row['site']}, {row['way']}  (n = {row['n']})", "color": colors[row["way"]]}
        | unflatten_entry(row, "auroc")
        for row in scores.to_dict("records")
    ]
    ax = plot_intervals(rows, title=title or "AUROC by site, 95 % intervals", xlabel="AUROC", ax=ax)
    known = [row[key] for row in rows for key in ("value", "ci_low") if row[key] is not None]
    ax.set_xlim(min([0.45, *known]) - 0.03, 1.02)
    return ax
