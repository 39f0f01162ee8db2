"""Grids of radiographs, with captions, decisions or maps over them: pictures in, a figure out."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from xray_helpers.explain.maps import scale_map
from xray_helpers.plots.style import escape_dollars, with_alt
from xray_helpers.settings import class_names

_MAX_LISTED = 16  # captions that the alternative text repeats


@dataclass(frozen=True)
class Panel:
    """A radiograph in a grid.

    Attributes
    ----------
    picture : ndarray of uint8, shape (height, width), 0-255
    caption, title : str
        Below and above it.
    frame : str
        The colour of its frame; the theme's where it is empty.
    map : ndarray of float, shape (rows, columns), optional
        Laid over the picture, in proportion to its own largest value.
    boxes : ndarray, shape (k, 4)
        left, top, right, bottom in pixels.
    """

    picture: np.ndarray
    caption: str = ""
    title: str = ""
    frame: str = ""
    map: np.ndarray | None = None
    boxes: Sequence[np.ndarray] = ()

    def draw(self, ax: Axes) -> None:
        """Draw it on axes that were switched off."""
        ax.set_axis_on()
        ax.imshow(self.picture, cmap="gray", vmin=0, vmax=255)
        if self.map is not None:
            heat = scale_map(self.map / (self.map.max() or 1), self.picture.shape).clip(0, 1)
            ax.imshow(heat, cmap="inferno", alpha=0.55 * heat, vmin=0, vmax=1)
        for left, top, right, bottom in self.boxes:
            size = (right - left, bottom - top)
            ax.add_patch(plt.Rectangle((left, top), *size, fill=False, edgecolor="#5ad1ff", linewidth=1.4))
        if self.frame:
            ax.spines[:].set(color=self.frame, linewidth=2.5)
        ax.set_xlabel(escape_dollars(self.caption), fontsize=8)
        ax.set_title(escape_dollars(self.title), fontsize=9)


def plot_panels(
    panels: Sequence[Panel | None], columns: int, *, title: str = "", size: tuple[float, float] = (1.9, 2.2)
) -> Figure:
    """Draw radiographs in a grid, row by row.

    Parameters
    ----------
    panels : sequence of Panel or None
        None leaves a place empty.
    columns : int
    title : str
    size : (float, float)
        Width and height of a panel in inches.
    """
    rows = -(-len(panels) // columns)
    figure, axes = plt.subplots(
        max(rows, 1),
        columns,
        figsize=(size[0] * columns, max(size[1] * rows, 0.5) + 0.4),
        layout="constrained",
        squeeze=False,
        subplot_kw={"xticks": [], "yticks": []},
    )
    for ax in axes.flat:
        ax.set_axis_off()
    for ax, panel in zip(axes.flat, panels, strict=False):
        if panel is not None:
            panel.draw(ax)
    if title:
        figure.suptitle(escape_dollars(title), x=0.01, ha="left", fontsize=11, fontweight="bold")
    return figure


def plot_radiographs(
    pixels: Iterable[np.ndarray],
    captions: Sequence[str],
    *,
    title: str = "",
    columns: int = 4,
    colors: Sequence[str] | None = None,
) -> Figure:
    """Draw radiographs, grey 0-255, each with a caption below, in frames of `colors`."""
    frames = colors or [""] * len(captions)
    panels = [
        Panel(picture, caption, frame=frame)
        for picture, caption, frame in zip(pixels, captions, frames, strict=True)
    ]
    figure = plot_panels(panels, columns, title=title)
    if not panels:
        figure.text(0.01, 0.1, "none")
    return with_alt(
        figure, ". ".join(filter(None, (f"{len(panels)} radiographs", title, _list(captions)))) + "."
    )


def plot_sample_predictions(
    pixels: Iterable[np.ndarray], sample: pd.DataFrame, *, model: str, threshold: float
) -> Figure:
    """Draw radiographs with predicted and actual class; columns y_true, y_pred, y_prob."""
    is_right = sample["y_true"] == sample["y_pred"]
    captions = [
        f"{'right' if right else 'WRONG'}: predicted {class_names()[row.y_pred]}\n"
        f"actual {class_names()[row.y_true]}, P = {row.y_prob:.2f}"
        for row, right in zip(sample.itertuples(), is_right, strict=True)
    ]
    title = f"{model}: {len(sample)} random test images, threshold {threshold:.2f}"
    colors = ["#2e7d4f" if right else "#c22d2d" for right in is_right]
    figure = plot_radiographs(pixels, captions, title=title, colors=colors)
    return with_alt(figure, f"{title}, with predicted and actual class; {is_right.sum()} are right.")


def plot_groups(
    groups: Sequence[tuple[str, Sequence[np.ndarray], Sequence[str]]], *, columns: int = 8
) -> Figure:
    """Draw groups of same-source pictures, one row each: title, pictures and captions, at most `columns`."""
    panels: list[Panel | None] = []
    for title, pictures, captions in groups:
        titles = [title] + [""] * (len(pictures) - 1)
        row = [Panel(*each) for each in zip(pictures, captions, titles, strict=True)]
        panels += (row + [None] * columns)[:columns]
    figure = plot_panels(panels, columns, size=(1.5, 2.0))
    listed = _list([title for title, _, _ in groups])
    return with_alt(figure, f"Strips of {len(groups)} groups of pictures of one source each. {listed}.")


def plot_saliency_maps(
    pictures: Sequence[np.ndarray],
    overlays: Sequence[tuple[np.ndarray, np.ndarray]],
    captions: Sequence[str],
    *,
    title: str,
    columns: int = 6,
) -> Figure:
    """Draw radiographs with their maps over them, and the boxes of known fractures.

    Parameters
    ----------
    pictures : sequence of ndarray of uint8, shape (height, width), 0-255
    overlays : sequence of (map, boxes)
        See `Panel`.
    captions : sequence of str
    title : str
    columns : int
    """
    panels = [
        Panel(picture, caption, map=grid, boxes=boxes)
        for picture, caption, (grid, boxes) in zip(pictures, captions, overlays, strict=True)
    ]
    figure = plot_panels(panels, columns, title=title)
    return with_alt(figure, f"{title}. {_list(captions)}.")


def plot_controls(
    pictures: Sequence[np.ndarray],
    maps: dict[str, Sequence[np.ndarray]],
    captions: Sequence[str],
    *,
    title: str,
) -> Figure:
    """Draw one row per radiograph: the picture, then each kind of map over it.

    Parameters
    ----------
    pictures : sequence of ndarray of uint8, shape (height, width), 0-255
    maps : dict
        The name of each kind, and its maps of the pictures, see `Panel`; a map of one value is captioned
        ``empty``.
    captions : sequence of str
    title : str
    """
    panels = []
    for index, (picture, caption) in enumerate(zip(pictures, captions, strict=True)):
        panels.append(Panel(picture, caption, "" if index else "the picture"))
        for name, grids in maps.items():
            about = "" if np.ptp(grids[index]) else "empty"
            panels.append(Panel(picture, about, "" if index else name, map=grids[index]))
    figure = plot_panels(panels, 1 + len(maps), title=title, size=(2.1, 2.25))
    return with_alt(figure, f"{title}. One row per image; columns: the picture, {', '.join(maps)}.")


def _list(captions: Sequence[str]) -> str:
    return "; ".join(str(caption).replace("\n", ", ") for caption in captions[:_MAX_LISTED])
