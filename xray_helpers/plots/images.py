"""Grids of radiographs, with captions, decisions or maps over them: pictures in, a figure out."""

from collections.abc import Iterable, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from xray_helpers.explain.maps import scale_map
from xray_helpers.plots.style import with_alt
from xray_helpers.settings import class_names

_LISTED = 16  # captions that an alternative text repeats


def plot_radiographs(
    pixels: Iterable[np.ndarray],
    captions: Sequence[str],
    *,
    title: str = "",
    columns: int = 4,
    colors: Sequence[str] | None = None,
) -> Figure:
    """Draw radiographs in a grid, grey 0-255, a caption below each; `colors` frames them."""
    pictures = list(pixels)
    if not pictures:
        figure = plt.figure(figsize=(1.9 * columns, 1), layout="constrained")
        figure.text(0.5, 0.3, "none", ha="center")
        figure.suptitle(_plain(title), fontsize=11, fontweight="bold")
        return with_alt(figure, f"{title}: none.")
    rows = -(-len(pictures) // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(1.9 * columns, 2.2 * rows + 0.4), layout="constrained", squeeze=False
    )
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
    listed = "; ".join(str(caption).replace("\n", ", ") for caption in captions[:_LISTED])
    return with_alt(figure, f"{len(pictures)} radiographs. {title}. {listed}.")


def _plain(text: str) -> str:
    return str(text).replace("$", r"\$")  # a file's name is no formula


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
    figure = plot_radiographs(pixels, captions, title=title, colors=colors)
    right = int((sample["y_true"] == sample["y_pred"]).sum())
    return with_alt(figure, f"{title}, with predicted and actual class; {right} are right.")


def plot_groups(
    groups: Sequence[tuple[str, Sequence[np.ndarray], Sequence[str]]], *, columns: int = 8
) -> Figure:
    """Draw groups of same-source pictures, a strip each: (title, pictures, captions); at most `columns` a
    strip.
    """
    figure, axes = plt.subplots(
        len(groups), columns, figsize=(1.5 * columns, 2.0 * len(groups)), layout="constrained", squeeze=False
    )
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
    listed = "; ".join(str(title) for title, _, _ in groups[:_LISTED])
    return with_alt(figure, f"Strips of {len(groups)} groups of pictures of one source each. {listed}.")


def plot_saliency_maps(
    pictures: Sequence[np.ndarray],
    overlays: Sequence[tuple[np.ndarray, np.ndarray]],
    captions: Sequence[str],
    *,
    title: str,
    columns: int = 6,
) -> Figure:
    """Draw radiographs with their maps over them, in proportion to each map's largest value, and boxes where
    known.

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
            ax.add_patch(
                plt.Rectangle((left, top), right - left, bottom - top, fill=False, ec="#5ad1ff", lw=1.4)
            )
        ax.set_xlabel(caption, fontsize=8)
    figure.suptitle(title, x=0.01, ha="left", fontweight="bold", fontsize=11)
    return with_alt(figure, f"{title}. {'; '.join(captions[:_LISTED])}.")


def plot_controls(
    pictures: Sequence[np.ndarray],
    maps: dict[str, Sequence[np.ndarray]],
    captions: Sequence[str],
    *,
    title: str,
) -> Figure:
    """Draw a row a radiograph: itself, then each kind of map over it, in proportion to each map's largest
    value.

    Parameters
    ----------
    pictures : sequence of uint8 arrays, shape (height, width), 0-255
    maps : dict
        Name to maps of the pictures, float, shape (rows, columns); one that says the same everywhere is
        called empty.
    captions : sequence of str
    title : str
    """
    size = (2.1 * (1 + len(maps)), 0.5 + 2.25 * len(pictures))
    figure, axes = plt.subplots(
        len(pictures), 1 + len(maps), figsize=size, layout="constrained", squeeze=False
    )
    for row, picture, caption, *grids in zip(axes, pictures, captions, *maps.values(), strict=True):
        for ax, grid in zip(row, [None, *grids], strict=True):
            _draw_map(ax, picture, grid)
            if grid is not None and not np.ptp(grid):
                ax.set_xlabel("empty", fontsize=9)
        row[0].set_xlabel(caption, fontsize=9)
    for ax, name in zip(axes[0], ["the picture", *maps], strict=True):
        ax.set_title(name, fontsize=9, loc="center")
    figure.suptitle(title, x=0.01, ha="left", fontweight="bold", fontsize=11)
    return with_alt(figure, f"{title}. One row per image; columns: the picture, {', '.join(maps)}.")


def _draw_map(ax: Axes, picture: np.ndarray, grid: np.ndarray | None) -> None:
    ax.imshow(picture, cmap="gray", vmin=0, vmax=255)
    if grid is not None:
        heat = scale_map(grid / (grid.max() or 1), picture.shape).clip(0, 1)
        ax.imshow(heat, cmap="inferno", alpha=0.55 * heat, vmin=0, vmax=1)
    ax.set(xticks=[], yticks=[])
    ax.grid(visible=False)
