"""The look of all figures: theme, colours, alternative texts; and `show`, the only function that saves."""

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from IPython.display import Image
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL.PngImagePlugin import PngInfo

from xray_helpers.settings import CLASS_NAMES, NEGATIVE, POSITIVE, class_names
from xray_helpers.study.files import atomic_write

CLASS_COLORS = {POSITIVE: "#b2432f", NEGATIVE: "#3d6f9e"}
SPLIT_COLORS = {"train": "#4c6a87", "validation": "#c98b2b", "test": "#5d8a4a"}
_MODEL_COLORS = {
    "InceptionV3": "#0072b2",
    "ResNet50": "#b85c00",
    "VGG16": "#007a5a",
    "DenseNet121": "#a8487f",
    "MobileNetV2": "#6b5b00",
}
MODEL_MARKERS = {"InceptionV3": "o", "ResNet50": "s", "VGG16": "^", "DenseNet121": "D", "MobileNetV2": "v"}
REFERENCE = {"color": "#7a7a7a", "linestyle": ":", "linewidth": 1.5}  # lines of chance, prevalence, baseline

T = TypeVar("T", Figure, Axes)


def set_theme() -> None:
    """Set the style of the notebooks' figures and the number of digits of their tables."""
    sns.set_theme(
        style="whitegrid",
        rc={
            "figure.figsize": (7.2, 4.0),
            "figure.dpi": 110,
            "axes.titlesize": 11,
            "axes.titleweight": "bold",
            "axes.titlelocation": "left",
            "axes.labelsize": 10,
            "xtick.labelsize": 9,
            "ytick.labelsize": 9,
            "legend.fontsize": 9,
            "grid.color": "#e4e4e4",
            "axes.edgecolor": "#8a8a8a",
        },
    )
    pd.set_option("display.precision", 3, "display.max_rows", 30, "display.max_columns", 30)


def with_alt(plot: T, text: str) -> T:
    """Set the alternative text of a figure, or of one of its axes, as its label, and return it.

    Parameters
    ----------
    plot : Figure or Axes
    text : str
        What it shows, for readers who cannot see it.
    """
    plot.set_label(text)
    return plot


def show(plot: Figure | Axes, path: Path | None = None) -> Image:
    """Return a figure as a picture with its alternative text, and write it to `path` when one is given.

    Parameters
    ----------
    plot : Figure or Axes
        Its alternative text is the one that `with_alt` set for the figure, else those of its axes, else the
        titles. The figure is closed.
    path : Path, optional
        A PNG file, which carries the text too.

    Returns
    -------
    Image
        Its metadata marks a figure that shows radiographs, so that a report can leave it out.

    Raises
    ------
    ValueError
        When the figure has no alternative text and no title.
    """
    figure = plot if isinstance(plot, Figure) else plot.figure
    texts = figure.get_label() or " ".join(filter(None, (ax.get_label() for ax in figure.axes)))
    titles = [
        figure.get_suptitle(),
        *(ax.get_title(side) for ax in figure.axes for side in ("left", "center")),
    ]
    alt = texts or "; ".join(filter(None, titles))
    if not alt:
        raise ValueError(
            "The figure has no alternative text: give it a title, or a text by figure.set_label(text)."
        )
    radiographs = any(ax.images for ax in figure.axes)
    data = _encode_png(figure, {"Description": alt} | ({"Radiographs": "yes"} if radiographs else {}))
    if path is not None:
        with atomic_write(path) as partial:
            partial.write_bytes(data)
    metadata = {"alt": alt} | ({"radiographs": True} if radiographs else {})
    return Image(data=data, format="png", metadata=metadata)


def _encode_png(figure: Figure, texts: dict[str, str] | None = None) -> bytes:
    buffer, info = io.BytesIO(), PngInfo()
    for key, text in (texts or {}).items():
        info.add_itxt(key, text)
    figure.savefig(buffer, format="png", bbox_inches="tight", facecolor="white", pil_kwargs={"pnginfo": info})
    plt.close(figure)
    return buffer.getvalue()


def embed_picture(figure: Figure) -> str:
    """Return a figure as a data URI for an HTML page, and close it."""
    return "data:image/png;base64," + base64.b64encode(_encode_png(figure)).decode()


def model_color(name: str) -> str:
    """Return the colour of a model, which is the same in every figure."""
    if name in _MODEL_COLORS:
        return _MODEL_COLORS[name]
    return sns.color_palette("husl", 12).as_hex()[sum(name.encode()) % 12]


def new_axes(ax: Axes | None, **kwargs: Any) -> Axes:
    """Return `ax`, or the axes of a new figure."""
    return ax if ax is not None else plt.subplots(layout="constrained", **kwargs)[1]


def draw_histograms(
    ax: Axes, values: Sequence[pd.Series], bins: np.ndarray, *, density: bool = False
) -> None:
    """Draw the distributions of the negative and the positive class as outlines, with n in the legend."""
    for y_true, (label, name, part) in enumerate(zip(CLASS_NAMES, class_names(), values, strict=True)):
        look = {"color": CLASS_COLORS[label], "linestyle": "-" if y_true else "--", "linewidth": 2}
        ax.hist(part, bins, density=density, histtype="step", label=f"{name}, n = {len(part)}", **look)
    ax.legend()


def escape_dollars(text: object) -> str:
    """Return text that matplotlib does not take for a formula."""
    return str(text).replace("$", r"\$")
