"""What a cell of a notebook shows: paragraphs, tables, banners and rows of pictures."""

import html
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from IPython.display import HTML, Markdown

from xray_helpers.evaluation.external import TITLES
from xray_helpers.evaluation.intervals import TOO_FEW
from xray_helpers.explain.images import choose_controls, choose_examples, load_examples
from xray_helpers.explain.localization import EvaluatedMaps
from xray_helpers.images.radiographs import ImageFolder
from xray_helpers.reports.banners import notebook_banners
from xray_helpers.settings import class_names

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_STYLE = "border-left:6px solid;padding:.7rem 1rem;margin:.5rem 0;color:#3a1010;background:"  # in JupyterLab
_COLORS = {"warn": "#fff1d6", "bad": "#fde7e7"}


def escape(text: object) -> str:
    """Return text that appears unchanged in HTML and in Markdown."""
    return re.sub(r"([\\`*_{}\[\]#|$~])", r"\\\1", html.escape(str(text), quote=False))


def show_text(text: str) -> Markdown:
    """Return a paragraph for a notebook."""
    return Markdown(text)


def show_banner(
    *weights: str,
    manifest: pd.DataFrame | None = None,
    control: str = "",
    settings: dict[str, Any] | None = None,
) -> HTML | None:
    """Return the warnings at the top of a notebook; None if there are none.

    Parameters
    ----------
    *weights : str
        The weights of the backbones; ``random`` gives a warning.
    manifest : DataFrame, optional
        Leaks between its parts, and uneven parts, give warnings.
    control : str
        Of `shortcut_verdicts.describe_controls`.
    settings : dict, optional
        Of ``study.json``: a part of the images, or few epochs, give a warning.
    """
    divs = [
        f'<div class="banner {kind}" style="{_STYLE}{_COLORS[kind]}">{html.escape(text)}</div>'
        for kind, text in notebook_banners(weights, manifest, control, settings or {})
    ]
    return HTML("".join(divs)) if divs else None


def show_table(rows: pd.DataFrame | list[dict[str, Any]]) -> HTML:
    """Return a table for a notebook without its index, or ``None.`` if it is empty.

    Texts are escaped, missing values are blank.
    """
    if not len(rows):
        return HTML("<p>None.</p>")
    text = pd.DataFrame(rows).rename(columns=_title).to_html(index=False, border=0, na_rep="", justify="left")
    return HTML(text.replace(f"(no interval: {TOO_FEW})", "(no interval)"))  # the same reason in every row


def _title(column: Any) -> Any:
    """Return a column's name in words; those that are words already, or names of classes, stay."""
    if not re.fullmatch(r"[a-z0-9]+(_[a-z0-9]+)*", str(column)):
        return column
    return " ".join(TITLES.get(word, word) for word in str(column).split("_"))


def draw_maps(
    model: str,
    test: pd.DataFrame,
    table: pd.DataFrame,
    maps: EvaluatedMaps,
    folder: ImageFolder,
    verdict: str,
) -> "list[Figure]":
    """Draw maps over test images, and a few of them beside their controls.

    Parameters
    ----------
    model : str
    test : DataFrame
        ``predictions_test.csv``.
    table : DataFrame
        ``maps.csv``.
    maps : localization.EvaluatedMaps
    folder : ImageFolder
    verdict : str
        Whether the maps can be trusted, for the alternative texts.

    Returns
    -------
    list of Figure
        Two, or none without maps.
    """
    from xray_helpers.plots.images import plot_controls, plot_saliency_maps
    from xray_helpers.plots.style import with_alt

    def load(rows: pd.DataFrame) -> tuple[list[np.ndarray], list[str]]:
        captions = [f"true {class_names()[row.y_true]}, P = {row.y_prob:.2f}" for row in rows.itertuples()]
        return load_examples(rows, folder, maps.frame), captions

    figures = []
    rows = choose_examples(test, maps.maps, 12)
    if len(rows):
        pictures, captions = load(rows)
        overlays = [(maps.maps[path], maps.boxes[path]) for path in rows["path"]]
        title = f"{model}: Grad-CAM of {len(rows)} test images"
        figures.append(plot_saliency_maps(pictures, overlays, captions, title=title))
    rows, controls = choose_controls(test, table)
    if len(rows):
        pictures, captions = load(rows)
        title = f"{model}: maps of {len(rows)} test images, each in proportion to its own largest value"
        figures.append(plot_controls(pictures, controls, captions, title=title))
    verdict = verdict.replace("**", "")
    return [with_alt(figure, f"{figure.get_label()} {verdict}") for figure in figures]


def build_strips(groups: list[pd.DataFrame], read: Callable[[list[str]], list[np.ndarray]]) -> list[tuple]:
    """Return the rows of `images.plot_groups`: title, pictures and captions of each group.

    Parameters
    ----------
    groups : list of DataFrame
        path, sha256 and label of the files of one source; at most eight different ones are shown.
    read : callable
        Returns the pictures of a list of paths.
    """
    strips = []
    for group in groups:
        shown = group.drop_duplicates("sha256").head(8)
        title = f"{len(group)} files, {group['sha256'].nunique()} different"
        strips.append((title, read(list(shown["path"])), [str(label) for label in shown["label"].fillna("")]))
    return strips
