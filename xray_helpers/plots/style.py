"""The look of all figures: theme, colours, alternative texts; and `show`, the only function that saves."""

import base64
import io
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from IPython.display import Image
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL.PngImagePlugin import PngInfo

from xray_helpers.settings import NEGATIVE, POSITIVE
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


def with_alt(plot: Any, text: str) -> Any:
    """Give the figure of a plot its alternative text, kept as the label of the figure, and return the plot.

    Parameters
    ----------
    plot : Figure or Axes
    text : str
        What the figure shows, for readers who cannot see it.
    """
    figure = plot if isinstance(plot, Figure) else plot.figure
    figure.set_label(text)
    return plot


def show(plot: Figure | Axes, path: Path | None = None) -> Image:
    """Return a figure as a picture with its alternative text, and write it to `path` when one is given.

    Parameters
    ----------
    plot : Figure or Axes
        With a text of `with_alt`; without one the titles take its place. It is closed.
    path : Path, optional
        A PNG file; the text goes with it.

    Returns
    -------
    Image
        Marked where it shows radiographs, so that a report can leave it out.
    """
    figure = plot if isinstance(plot, Figure) else plot.figure
    titles = [figure.get_suptitle(), *(ax.get_title(loc) for ax in figure.axes for loc in ("left", "center"))]
    alt = figure.get_label() or "; ".join(filter(None, titles))
    radiographs = any(ax.images for ax in figure.axes)
    data = _png(figure, {"Description": alt} | ({"Radiographs": "yes"} if radiographs else {}))
    if path is not None:
        with atomic_write(path) as partial:
            partial.write_bytes(data)
    metadata = {"alt": alt} | ({"radiographs": True} if radiographs else {})
    return Image(data=data, format="png", alt=alt, metadata=metadata)


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
