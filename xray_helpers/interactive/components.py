"""What widgets are made of: a radiograph with window, level, zoom and a map over it; curves that move;
pages.
"""

import html
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import ipywidgets as w
import numpy as np
from IPython.display import Image

from xray_helpers.explain.maps import scale_map
from xray_helpers.study.files import read_json

SIDE, SMALL = 420, 170  # pixels of a shown radiograph, and of a small one
FLOW = {"flex_flow": "row wrap", "grid_gap": "6px 12px"}  # what does not fit goes to the next line
_LONG = 28  # letters from which a cell of a table is wrapped
_INK, _BLUE, _RED = "var(--jp-ui-font-color1, #222)", "#3d6f9e", "#b2432f"


def is_live() -> bool:
    """Return whether somebody can click: in JupyterLab's kernels and Voilà's, not in papermill's or
    nbconvert's.
    """
    return bool(os.environ.get("JPY_SESSION_NAME")) or is_page()


def is_page() -> bool:
    """Return whether the notebook is a page that Voilà serves."""
    return os.environ.get("SERVER_SOFTWARE", "").startswith("voila")


def show(widget: Callable[[], w.Widget], still: Image) -> Any:
    """Return the widget for who can click, with its picture for a saved page; else the picture alone.

    Parameters
    ----------
    widget : callable
        Builds it.
    still : Image
        Of `style.show`.
    """
    if not is_live():
        return still
    return _Both(widget(), still)


class _Both:
    """A widget that is a picture where there are no widgets."""

    def __init__(self, widget: w.Widget, still: Image) -> None:
        self.widget, self.still = widget, still

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict, dict]:
        data, metadata = self.still._repr_mimebundle_(**kwargs)
        bundle = self.widget._repr_mimebundle_(**kwargs)
        return {**data, **(bundle[0] if isinstance(bundle, tuple) else bundle)}, metadata


def text(words: str, *, bold: bool = False) -> str:
    """Return words as HTML that holds nothing but words."""
    safe = html.escape(words)
    return f"<b>{safe}</b>" if bold else safe


def table(
    caption: str, heads: Sequence[str], rows: Sequence[Sequence[str]], classes: Sequence[str] = ()
) -> str:
    """Return a small table as HTML: words of caption and cells, escaped; `classes` names the second cell of
    each row.
    """
    cell = "text-align:left;padding:2px 12px 2px 0;line-height:1.4;white-space:"
    short, long = (
        f"style='{cell}nowrap'",
        f"style='{cell}normal;overflow-wrap:anywhere;min-width:11em;max-width:22em'",
    )
    named = [f" class='{name}'" for name in classes] or [""] * len(rows)
    lines = "".join(
        "<tr>"
        + "".join(
            f"<td {short if len(word) < _LONG else long}{named[i] if j == 1 else ''}>{text(word)}</td>"
            for j, word in enumerate(row)
        )
        + "</tr>"
        for i, row in enumerate(rows)
    )
    head = "".join(f"<th {short}>{text(word)}</th>" for word in heads)
    title = f"<caption style='text-align:left;font-weight:600'>{text(caption)}</caption>" if caption else ""
    shown = (
        "<table style='border-collapse:collapse;margin:0 0 "
        f"8px'>{title}{f'<tr>{head}</tr>' if head else ''}{lines}</table>"
    )
    return f"<div style='overflow-x:auto'>{shown}</div>"


def read_verdict(study: Path, model: str) -> tuple[str, bool | None]:
    """Return what 03 found of a model's maps: its first sentence as HTML, and whether they are to be
    believed.

    An empty sentence and None where 03 has not looked; None, too, where that is not known.
    """
    found = read_json(study / model / "maps_verdict.json", default={})
    sentence, dot, _ = (found.get("verdict") or "").partition(". ")
    words = re.sub(r"\*\*(.+?)\*\*", r"<b>\1</b>", text(sentence + dot.strip())).replace("**", "")
    return words, found.get("believed")


def describe_map(grid: np.ndarray | None) -> str:
    """Return what is bright in a map, or that nothing is; an empty string where there is no map."""
    if grid is None:
        return ""
    if grid.max() <= 0:
        return "its map is empty: nothing speaks for a fracture"
    return "bright: what speaks for a fracture, in proportion to this map's own largest value"


def write_caption(*lines: str) -> str:
    """Return lines of HTML, of which empty ones are left out, as a caption no wider than its picture."""
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
) -> bytes:
    """Return a PNG of a radiograph as it is looked at.

    Parameters
    ----------
    pixels : ndarray of uint8, shape (height, width), 0-255
    grid : ndarray of float, shape (rows, columns), optional
        A map over the whole picture; drawn in proportion to its largest value.
    window, level : int
        Grey levels from black to white, and the one in the middle.
    zoom : float
        1 shows all.
    centre : (float, float)
        What is in the middle, down and across, as shares of the picture.
    opacity : float
        Of the map where it is highest, 0-1.
    side : int
        Of the longer side of what is returned, in pixels.
    """
    shown = [max(8, round(length / zoom)) for length in pixels.shape]
    top, left = (
        int(np.clip(round(at * length - part / 2), 0, length - part)) if length > part else 0
        for at, length, part in zip(centre, pixels.shape, shown, strict=True)
    )
    cut = (slice(top, top + shown[0]), slice(left, left + shown[1]))
    scale = side / max(pixels[cut].shape)
    size = tuple(max(1, round(length * scale)) for length in pixels[cut].shape)
    picture = cv2.resize(
        pixels[cut], size[::-1], interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    )
    grey = np.clip((picture.astype(np.float32) - (level - window / 2)) * (255 / max(window, 1)), 0, 255)
    colour = np.repeat(grey[..., None], 3, axis=2)
    if grid is not None and opacity > 0 and grid.max() > 0:
        heat = scale_map(scale_map(grid / grid.max(), pixels.shape)[cut], size).clip(0, 1)
        tint = cv2.applyColorMap((heat * 255).astype(np.uint8), cv2.COLORMAP_INFERNO).astype(np.float32)
        share = (heat * opacity)[..., None]
        colour = colour * (1 - share) + tint * share
    return cv2.imencode(".png", colour.astype(np.uint8))[1].tobytes()


class RadiographView:
    """Radiographs side by side under one set of controls; `box` is what is shown."""

    def __init__(self, count: int = 1, side: int = SIDE) -> None:
        self._shown: list[tuple[np.ndarray, np.ndarray | None]] = []
        self.images = [
            w.Image(format="png", layout=w.Layout(max_width="100%", object_fit="contain"))
            for _ in range(count)
        ]
        self.captions = [w.HTML() for _ in range(count)]
        options = {
            "continuous_update": True,
            "layout": w.Layout(width="300px"),
            "style": {"description_width": "70px"},
        }
        self.window = w.IntSlider(255, 10, 400, description="window", **options)
        self.level = w.IntSlider(128, 0, 255, description="level", **options)
        self.zoom = w.FloatSlider(1, min=1, max=8, step=0.25, description="zoom", **options)
        self.down = w.FloatSlider(0.5, min=0, max=1, step=0.02, description="down", readout=False, **options)
        self.across = w.FloatSlider(
            0.5, min=0, max=1, step=0.02, description="across", readout=False, **options
        )
        self.opacity = w.FloatSlider(0.5, min=0, max=1, step=0.05, description="map", **options)
        of_picture = (self.window, self.level, self.zoom, self.down, self.across)
        self._whole = {control: control.value for control in of_picture}
        for control in (*of_picture, self.opacity):
            control.observe(self._draw, "value")
        self.whole = w.Button(
            description="whole picture", layout=w.Layout(width="140px", margin="2px 0 2px 78px")
        )
        self.whole.on_click(lambda _: self._show_whole(self._shown))
        self._side, wide = side, w.Layout(max_width=f"{side}px")
        pictures = [w.VBox(pair, layout=wide) for pair in zip(self.images, self.captions, strict=True)]
        self.box = w.HBox(
            [*pictures, w.VBox([*of_picture, self.whole, self.opacity])], layout=w.Layout(**FLOW)
        )

    def _show_whole(self, shown: Sequence[tuple[np.ndarray, np.ndarray | None]]) -> None:
        """Show pictures whole, in all their greys; the map's opacity stays."""
        self._shown = []  # so that they are drawn once
        for control, value in self._whole.items():
            control.value = value
        self._shown = list(shown)
        self._draw()

    def show(self, shown: Sequence[tuple[np.ndarray, np.ndarray | None]], captions: Sequence[str]) -> None:
        """Show pictures with their maps (or None), whole and in all their greys; captions are HTML."""
        for image in self.images:
            image.layout.display = None
        for caption, words in zip(self.captions, captions, strict=True):
            caption.value = words
        self._show_whole(shown)

    def clear(self, words: str = "") -> None:
        """Show no picture, and keep none; `words`, HTML, say why."""
        self._show_whole([])
        for image, caption in zip(self.images, self.captions, strict=True):
            image.value, caption.value, image.layout.display = b"", "", "none"
        self.captions[0].value = words

    def _draw(self, _: Any = None) -> None:
        for image, (pixels, grid) in zip(self.images, self._shown, strict=False):
            image.value = draw_radiograph(
                pixels,
                grid,
                window=self.window.value,
                level=self.level.value,
                zoom=self.zoom.value,
                centre=(self.down.value, self.across.value),
                opacity=self.opacity.value,
                side=self._side,
            )


class Pager:
    """Two buttons and a place in a list; `open_` is called with the item, or None where there is none."""

    def __init__(self, open_: Callable[[Any], None]) -> None:
        self._open, self._items, self.at = open_, [], 0
        self.previous, self.next = (
            w.Button(description=words, layout=w.Layout(width="100px")) for words in ("‹ previous", "next ›")
        )
        self.where = w.HTML()
        self.previous.on_click(lambda _: self.turn(-1))
        self.next.on_click(lambda _: self.turn(1))
        self.box = w.HBox([self.previous, self.where, self.next])

    def load(self, items: Sequence[Any]) -> None:
        """Begin anew with other items."""
        self._items, self.at = items, 0
        self.turn(0)

    def turn(self, pages: int) -> None:
        """Go some pages on, or back."""
        self.at = max(0, min(len(self._items) - 1, self.at + pages))
        self.previous.disabled = self.at == 0
        self.next.disabled = self.at >= len(self._items) - 1
        self.where.value = (
            f"&nbsp;{self.at + 1} of {len(self._items)}&nbsp;" if self._items else "&nbsp;none&nbsp;"
        )
        self._open(self._items[self.at] if self._items else None)


def draw_curves(
    curves: dict[str, tuple[np.ndarray, np.ndarray]],
    *,
    title: str,
    labels: tuple[str, str],
    limits: tuple[tuple[float, float], tuple[float, float]] = ((0, 1), (0, 1)),
    point: tuple[float, float] | None = None,
    side: int = 250,
) -> str:
    """Return line curves as an SVG of a few kilobytes, which is redrawn without lag.

    Parameters
    ----------
    curves : dict
        Name to x and y; thinned to 200 points each. The second is dashed.
    title, labels : str
        Above; below and at the left.
    limits : ((float, float), (float, float))
        Of x and y.
    point : (float, float), optional
        What is marked.
    side : int
    """

    def place(x: Any, y: Any) -> tuple[np.ndarray, np.ndarray]:
        (x0, x1), (y0, y1) = limits
        return 40 + (np.asarray(x) - x0) / (x1 - x0) * side, 24 + (
            1 - (np.asarray(y) - y0) / (y1 - y0)
        ) * side

    parts = []
    for number, (name, (x, y)) in enumerate(curves.items()):
        keep = np.unique(np.linspace(0, len(x) - 1, min(200, len(x))).astype(int))
        points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(*place(x[keep], y[keep]), strict=True))
        ink = f'stroke="{_BLUE}"' if number == 0 else f'stroke="{_RED}" stroke-dasharray="5 4"'
        parts.append(f'<polyline points="{points}" fill="none" stroke-width="2" {ink}/>')
        if len(curves) > 1:
            colour = _BLUE if number == 0 else _RED
            parts.append(
                f'<text x="{50 + 100 * number}" y="38" fill="{colour}" font-size="11">{text(name)}</text>'
            )
    if point is not None:
        a, b = place(*point)
        parts.append(
            f'<circle class="operating-point" cx="{a:.1f}" cy="{b:.1f}" r="6" fill="{_RED}" stroke="white"/>'
        )
    for share in (0, 0.5, 1):
        x, y = (low + share * (high - low) for low, high in limits)
        a, b = place(x, y)
        parts.append(f'<text x="{a:.0f}" y="{side + 38}" text-anchor="middle">{x:.2g}</text>')
        parts.append(f'<text x="36" y="{b + 4:.0f}" text-anchor="end">{y:.2g}</text>')
    below, left = (text(label) for label in labels)
    middle, turned = 40 + side / 2, f'transform="translate(10 {24 + side / 2}) rotate(-90)"'
    return (
        f'<svg width="{side + 56}" height="{side + 60}" role="img" aria-label="{text(title)}" font-size="10" '
        f'style="color:{_INK};fill:currentColor;max-width:100%">'
        f'<text x="40" y="14" font-size="12" font-weight="bold">{text(title)}</text>'
        f'<rect x="40" y="24" width="{side}" height="{side}" fill="none" stroke="#8a8a8a"/>'
        f'<text x="{middle}" y="{side + 54}" text-anchor="middle" font-size="11">{below}</text>'
        f'<text {turned} text-anchor="middle" font-size="11">{left}</text>{"".join(parts)}</svg>'
    )
