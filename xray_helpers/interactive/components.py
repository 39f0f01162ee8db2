"""The parts of the widgets: a radiograph with window, level, zoom and a map; curves; a pager; tables."""

import os
import re
from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path
from typing import Any

import cv2
import ipywidgets as w
import numpy as np
from IPython.core.formatters import format_display_data
from IPython.display import Image

from xray_helpers.explain.maps import scale_map
from xray_helpers.study.files import read_json

SIDE, SMALL = 420, 170  # pixels of the longer side of a radiograph, and of a thumbnail
FLOW = {"flex_flow": "row wrap", "grid_gap": "6px 12px"}  # what does not fit goes to the next line
_LONG = 28  # characters from which a table cell is wrapped
_FRAMES = {"known": (255, 209, 90), "found": (46, 157, 255)}  # blue, green, red
Frames = Sequence[tuple[np.ndarray, str]]
Shown = tuple[np.ndarray, np.ndarray | None] | tuple[np.ndarray, np.ndarray | None, Frames]
_BLUE, _RED = "#3d6f9e", "#b2432f"


def is_live() -> bool:
    """Return whether widgets work: in kernels of JupyterLab and Voilà, not of papermill or nbconvert."""
    return bool(os.environ.get("JPY_SESSION_NAME")) or is_page()


def is_page() -> bool:
    """Return whether the notebook is a page that Voilà serves."""
    return os.environ.get("SERVER_SOFTWARE", "").startswith("voila")


def show(build: Callable[[], w.Widget], still: Image) -> Any:
    """Return a widget, with a picture that stands for it on a saved page; in batch the picture alone.

    Parameters
    ----------
    build : callable
        Returns the widget.
    still : Image or Markdown
        Whatever Jupyter can display.
    """
    return _WidgetWithPicture(build(), still) if is_live() else still


class _WidgetWithPicture:
    """A widget that is a picture where there are no widgets."""

    def __init__(self, widget: w.Widget, still: Image) -> None:
        self.widget, self.still = widget, still

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict, dict]:
        data, metadata = format_display_data(self.still)  # Markdown has no _repr_mimebundle_
        bundle = self.widget._repr_mimebundle_(**kwargs)
        return {**data, **(bundle[0] if isinstance(bundle, tuple) else bundle)}, metadata


def table(
    caption: str, heads: Sequence[str], rows: Sequence[Sequence[str]], classes: Sequence[str] = ()
) -> str:
    """Return a small table as HTML; texts are escaped, `classes` names the second cell of each row."""
    cell = "text-align:left;padding:2px 12px 2px 0;line-height:1.4;white-space:"
    short = f"style='{cell}nowrap'"
    long = f"style='{cell}normal;overflow-wrap:anywhere;min-width:11em;max-width:22em'"
    lines = ""
    for row, name in zip(rows, classes or [""] * len(rows), strict=True):
        names = ["", f" class='{name}'" if name else "", *[""] * len(row)]
        cells = (
            f"<td {short if len(text) < _LONG else long}{named}>{escape(text)}</td>"
            for text, named in zip(row, names, strict=False)
        )
        lines += f"<tr>{''.join(cells)}</tr>"
    head = "".join(f"<th {short}>{escape(text)}</th>" for text in heads)
    title = f"<caption style='text-align:left;font-weight:600'>{escape(caption)}</caption>" if caption else ""
    style = "border-collapse:collapse;margin:0 0 8px"
    body = f"<table style='{style}'>{title}{f'<tr>{head}</tr>' if head else ''}{lines}</table>"
    return f"<div style='overflow-x:auto'>{body}</div>"


def read_verdict(study: Path, model: str) -> tuple[str, bool | None]:
    """Return the verdict of 03a on the saliency maps of a model.

    Returns
    -------
    sentence : str
        The first sentence, as HTML; empty where the maps were not assessed.
    believed : bool or None
        Whether the maps can be believed; None where that is not known.
    """
    record = read_json(study / model / "maps_verdict.json", default={})
    sentence, dot, _ = (record.get("verdict") or "").partition(". ")
    html = re.sub(r"\*\*(.+?)\*\*", r"<b>\1</b>", escape(sentence + dot.strip())).replace("**", "")
    return html, record.get("believed")


def describe_map(grid: np.ndarray | None) -> str:
    """Return what bright means in a map, or that the map is empty; an empty string where there is no map."""
    if grid is None:
        return ""
    if grid.max() <= 0:
        return "its map is empty: nothing speaks for a fracture"
    return "bright: what speaks for a fracture, in proportion to this map's own largest value"


def describe_frames(frames: Frames) -> str:
    """Return what the frames over a picture mean; an empty string where there are none."""
    kinds = {kind for _, kind in frames}
    scores = [f"{box[4]:.2f}" for box, kind in frames if kind == "found" and len(box) > 4]
    words = ["blue: a known fracture"] if "known" in kinds else []
    words += [f"orange: found by the localizer (score {', '.join(scores)})"] if scores else []
    return "; ".join(words)


def write_caption(*lines: str) -> str:
    """Return a caption no wider than its picture; `lines` are HTML, and empty ones are left out."""
    first, *others = filter(None, lines)
    small = "".join(f"<br><small>{line}</small>" for line in others)
    return f"<div style='overflow-wrap:anywhere;line-height:1.4'>{first}{small}</div>"


def draw_radiograph(
    pixels: np.ndarray,
    grid: np.ndarray | None = None,
    *,
    window: int = 255,
    level: int = 128,
    zoom: float = 1.0,
    centre: tuple[float, float] = (0.5, 0.5),
    opacity: float = 0.0,
    side: int = SIDE,
    frames: Frames = (),
) -> bytes:
    """Return a radiograph as a PNG file.

    Parameters
    ----------
    pixels : ndarray of uint8, shape (height, width), 0-255
    grid : ndarray of float, shape (rows, columns), optional
        A map over the whole picture, drawn in proportion to its largest value.
    window, level : int
        The number of grey levels from black to white, and the level in the middle.
    zoom : float
        1 shows the whole picture.
    centre : (float, float)
        The point in the middle, down and across, as shares of the picture.
    opacity : float
        Of the map where it is highest, 0-1.
    side : int
        Longer side of the PNG in pixels.
    frames : sequence of (box, kind)
        left, top, right and bottom in pixels of the picture, and ``known`` (blue) or ``found`` (orange).
    """
    lengths = [min(length, max(8, round(length / zoom))) for length in pixels.shape]
    starts = [
        int(np.clip(round(at * whole - part / 2), 0, whole - part))
        for at, whole, part in zip(centre, pixels.shape, lengths, strict=True)
    ]
    cut = tuple(slice(start, start + part) for start, part in zip(starts, lengths, strict=True))
    scale = side / max(lengths)
    size = tuple(max(1, round(length * scale)) for length in lengths)
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    picture = cv2.resize(pixels[cut], size[::-1], interpolation=method).astype(np.float32)
    grey = np.clip((picture - (level - window / 2)) * (255 / max(window, 1)), 0, 255)
    colour = np.repeat(grey[..., None], 3, axis=2)
    if grid is not None and opacity > 0 and grid.max() > 0:
        heat = scale_map(scale_map(grid / grid.max(), pixels.shape)[cut], size).clip(0, 1)
        tint = cv2.applyColorMap((heat * 255).astype(np.uint8), cv2.COLORMAP_INFERNO).astype(np.float32)
        share = (heat * opacity)[..., None]
        colour = colour * (1 - share) + tint * share
    for box, kind in frames:
        corners = (np.reshape(box[:4], (2, 2)) - (starts[1], starts[0])) * (size[1] / lengths[1])
        (left, top), (right, bottom) = corners.round().astype(int).tolist()
        cv2.rectangle(colour, (left, top), (right, bottom), _FRAMES[kind], 2, cv2.LINE_AA)
    return cv2.imencode(".png", colour.clip(0, 255).astype(np.uint8))[1].tobytes()


class RadiographView:
    """Radiographs side by side under one set of controls; `box` is the widget."""

    def __init__(self, count: int = 1, side: int = SIDE) -> None:
        self._side = side
        self._shown: list[Shown] = []
        whole = w.Layout(max_width="100%", object_fit="contain")
        self.images = [w.Image(format="png", layout=whole) for _ in range(count)]
        self.captions = [w.HTML() for _ in range(count)]
        look = {"layout": w.Layout(width="300px"), "style": {"description_width": "70px"}}
        share = {"min": 0, "max": 1, "step": 0.02, "readout": False} | look
        self.window = w.IntSlider(255, 10, 400, description="window", **look)
        self.level = w.IntSlider(128, 0, 255, description="level", **look)
        self.zoom = w.FloatSlider(1, min=1, max=8, step=0.25, description="zoom", **look)
        self.down = w.FloatSlider(0.5, description="down", **share)
        self.across = w.FloatSlider(0.5, description="across", **share)
        self.opacity = w.FloatSlider(0.5, min=0, max=1, step=0.05, description="map", **look)
        sliders = (self.window, self.level, self.zoom, self.down, self.across)
        self._defaults = {slider: slider.value for slider in sliders}
        for slider in (*sliders, self.opacity):
            slider.observe(self._draw, "value")
        layout = w.Layout(width="140px", margin="2px 0 2px 78px")
        self.whole = w.Button(description="whole picture", layout=layout)
        self.whole.on_click(lambda _: self._show_whole(self._shown))
        wide = w.Layout(max_width=f"{side}px")
        pictures = [w.VBox(pair, layout=wide) for pair in zip(self.images, self.captions, strict=True)]
        controls = w.VBox([*sliders, self.whole, self.opacity])
        self.box = w.HBox([*pictures, controls], layout=w.Layout(**FLOW))

    def _show_whole(self, shown: Sequence[Shown]) -> None:
        """Show whole pictures in all their greys; the opacity of the map stays."""
        self._shown = []  # so that the sliders draw nothing
        for slider, value in self._defaults.items():
            slider.value = value
        self._shown = list(shown)
        self._draw()

    def show(self, shown: Sequence[Shown], captions: Sequence[str]) -> None:
        """Show pictures with their maps (or None) and frames, whole and in all greys; captions are HTML."""
        for image in self.images:
            image.layout.display = None
        for widget, caption in zip(self.captions, captions, strict=True):
            widget.value = caption
        self._show_whole(shown)

    def clear(self, reason: str = "") -> None:
        """Show no picture, and keep none in memory; `reason` is HTML."""
        self._show_whole([])
        for image, caption in zip(self.images, self.captions, strict=True):
            image.value, caption.value, image.layout.display = b"", "", "none"
        self.captions[0].value = reason

    def _draw(self, _: Any = None) -> None:
        look = {name: getattr(self, name).value for name in ("window", "level", "zoom", "opacity")}
        look |= {"centre": (self.down.value, self.across.value), "side": self._side}
        for image, (pixels, grid, *frames) in zip(self.images, self._shown, strict=False):
            image.value = draw_radiograph(pixels, grid, frames=frames[0] if frames else (), **look)


class Pager:
    """Two buttons and a place in a list; `show_item` is called with the item, or None for an empty list."""

    def __init__(self, show_item: Callable[[Any], None]) -> None:
        self._show_item, self._items, self.at = show_item, [], 0
        layout = w.Layout(width="100px")
        self.previous = w.Button(description="‹ previous", layout=layout)
        self.next = w.Button(description="next ›", layout=layout)
        self.where = w.HTML()
        self.previous.on_click(lambda _: self.turn(-1))
        self.next.on_click(lambda _: self.turn(1))
        self.box = w.HBox([self.previous, self.where, self.next])

    def load(self, items: Sequence[Any]) -> None:
        """Show the first of other items."""
        self._items, self.at = items, 0
        self.turn(0)

    def turn(self, pages: int) -> None:
        """Go forward by a number of items, or back."""
        self.at = max(0, min(len(self._items) - 1, self.at + pages))
        self.previous.disabled = self.at == 0
        self.next.disabled = self.at >= len(self._items) - 1
        place = f"{self.at + 1} of {len(self._items)}" if self._items else "none"
        self.where.value = f"&nbsp;{place}&nbsp;"
        self._show_item(self._items[self.at] if self._items else None)


def draw_curves(
    curves: dict[str, tuple[np.ndarray, np.ndarray]],
    *,
    title: str,
    labels: tuple[str, str],
    limits: tuple[tuple[float, float], tuple[float, float]] = ((0, 1), (0, 1)),
    point: tuple[float, float] | None = None,
    side: int = 250,
) -> str:
    """Return curves as an SVG picture of a few kilobytes, small enough to follow a slider.

    Parameters
    ----------
    curves : dict
        One or two names, and the x and y of each; thinned to 200 points. The second is dashed.
    title : str
    labels : (str, str)
        Of the horizontal and the vertical axis.
    limits : ((float, float), (float, float))
        Of x and y.
    point : (float, float), optional
        A marked point.
    side : int
        Of the axes in pixels.
    """

    def to_pixels(x: Any, y: Any) -> tuple[np.ndarray, np.ndarray]:
        (x0, x1), (y0, y1) = limits
        return 40 + (np.asarray(x) - x0) / (x1 - x0) * side, 24 + (y1 - np.asarray(y)) / (y1 - y0) * side

    parts = []
    for number, (name, (x, y)) in enumerate(curves.items()):
        color, dashes = (_RED, "5 4") if number else (_BLUE, "none")
        keep = np.unique(np.linspace(0, len(x) - 1, min(200, len(x))).astype(int))
        points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(*to_pixels(x[keep], y[keep]), strict=True))
        stroke = f'stroke="{color}" stroke-width="2" stroke-dasharray="{dashes}"'
        parts.append(f'<polyline points="{points}" fill="none" {stroke}/>')
        if len(curves) > 1:
            where = f'x="{50 + 100 * number}" y="38"'
            parts.append(f'<text {where} fill="{color}" font-size="11">{escape(name)}</text>')
    if point is not None:
        a, b = to_pixels(*point)
        where = f'cx="{a:.1f}" cy="{b:.1f}" r="6"'
        parts.append(f'<circle class="operating-point" {where} fill="{_RED}" stroke="white"/>')
    for share in (0, 0.5, 1):
        x, y = (low + share * (high - low) for low, high in limits)
        a, b = to_pixels(x, y)
        parts.append(f'<text x="{a:.0f}" y="{side + 38}" text-anchor="middle">{x:.2g}</text>')
        parts.append(f'<text x="36" y="{b + 4:.0f}" text-anchor="end">{y:.2g}</text>')
    below, left = map(escape, labels)
    turn = f'transform="translate(10 {24 + side / 2}) rotate(-90)"'
    return (
        f'<svg width="{side + 56}" height="{side + 60}" role="img" aria-label="{escape(title)}" '
        'font-size="10" style="color:var(--jp-ui-font-color1, #222);fill:currentColor;max-width:100%">'
        f'<text x="40" y="14" font-size="12" font-weight="bold">{escape(title)}</text>'
        f'<rect x="40" y="24" width="{side}" height="{side}" fill="none" stroke="#8a8a8a"/>'
        f'<text x="{40 + side / 2}" y="{side + 54}" text-anchor="middle" font-size="11">{below}</text>'
        f'<text {turn} text-anchor="middle" font-size="11">{left}</text>{"".join(parts)}</svg>'
    )
