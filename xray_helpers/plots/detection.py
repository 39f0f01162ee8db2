"""FROC curves, and radiographs with the boxes that are known and that were found."""

from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from xray_helpers.plots.images import Panel, plot_panels
from xray_helpers.plots.style import escape_dollars, model_color, new_axes, with_alt

FOUND = "#ff9d2e"  # frames of boxes found; known ones are blue
_STYLES = {"dense head": "-", "detector": "-", "Grad-CAM": "--", "occlusion": "-.", "centred blob": ":"}
_SHOWN = 4.0  # most false marks an image that are drawn


def plot_froc(curves: Sequence[tuple[str, str, pd.DataFrame]], *, title: str, ax: Axes | None = None) -> Axes:
    """Draw FROC curves.

    Parameters
    ----------
    curves : sequence of (model, method, DataFrame)
        Of `detection.froc_curve`: false_marks, sensitivity.
    title : str
    ax : Axes, optional
    """
    ax = new_axes(ax, figsize=(6.4, 4.4))
    at_one = []
    for model, method, curve in curves:
        kept = curve[curve["false_marks"] <= _SHOWN]
        x = [*kept["false_marks"], _SHOWN]
        y = [*kept["sensitivity"], kept["sensitivity"].max()]
        style = _STYLES.get(method, "-")
        look = {"color": model_color(model), "linestyle": style, "linewidth": 2}
        look |= {"alpha": 1 if style == "-" else 0.7, "label": f"{model}, {method}"}
        ax.step(x, y, where="post", **look)
        below = curve.loc[curve["false_marks"] <= 1, "sensitivity"].max()
        at_one.append(f"{model}, {method}: {below:.2f}")
    for rate in (0.5, 1, 2):
        ax.axvline(rate, color="#c8c8c8", linewidth=0.8, zorder=0)
    ax.set(xlim=(0, _SHOWN), ylim=(0, 1.02), title=escape_dollars(title))
    ax.set(xlabel="false marks an image", ylabel="share of fractures found")
    ax.legend(loc="lower right", fontsize=8)
    return with_alt(ax, f"{title}. Sensitivity at one false mark an image: {'; '.join(at_one)}.")


@dataclass(frozen=True)
class MarkedPanel(Panel):
    """A radiograph with known boxes (`boxes`, blue) and boxes found (orange, dashed).

    Attributes
    ----------
    found : ndarray of float, shape (k, 5)
        left, top, right, bottom in pixels, score.
    """

    found: Sequence[np.ndarray] = ()

    def draw(self, ax: Axes) -> None:
        """See `Panel`."""
        super().draw(ax)
        for left, top, right, bottom, score in self.found:
            size, look = (right - left, bottom - top), {"fill": False, "linewidth": 1.6, "linestyle": "--"}
            ax.add_patch(plt.Rectangle((left, top), *size, edgecolor=FOUND, **look))
            above = top > 0.08 * self.picture.shape[0]
            where = {"xy": (left, top if above else bottom), "va": "bottom" if above else "top"}
            ax.annotate(f"{score:.2f}", color=FOUND, fontsize=7.5, ha="left", annotation_clip=True, **where)


def plot_marks(
    pictures: Sequence[np.ndarray],
    known: Sequence[np.ndarray],
    found: Sequence[np.ndarray],
    captions: Sequence[str],
    *,
    title: str,
    titles: Sequence[str] = (),
    columns: int = 4,
) -> Figure:
    """Draw radiographs with the boxes of known fractures, and the boxes found with their scores.

    Parameters
    ----------
    pictures : sequence of ndarray of uint8, shape (height, width), 0-255
    known : sequence of ndarray of float, shape (k, 4)
    found : sequence of ndarray of float, shape (k, 5)
    captions, titles : sequence of str
        Below and above each.
    title : str
    columns : int
    """
    titles = list(titles) or [""] * len(captions)
    rows = zip(pictures, captions, titles, known, found, strict=True)
    panels = [
        MarkedPanel(picture, caption, above, boxes=boxes, found=marks)
        for picture, caption, above, boxes, marks in rows
    ]
    figure = plot_panels(panels, columns, title=title)
    listed = "; ".join(
        f"{above} {caption}".strip().replace("\n", ", ")
        for above, caption in zip(titles, captions, strict=True)
    )
    return with_alt(figure, f"{title}. Blue frames: known fractures; orange: boxes found. {listed}.")
