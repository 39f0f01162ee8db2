"""What a cell of a notebook shows: text, tables, banners and figures, as HTML."""

import html
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from IPython.display import HTML, Markdown

from xray_helpers.data.leaks import describe_leak, measure_leak
from xray_helpers.data.parts import class_balance, used_part
from xray_helpers.evaluation.intervals import TOO_FEW, effective_groups
from xray_helpers.evaluation.planning import find_uneven_parts
from xray_helpers.explain.images import choose_controls, choose_examples, load_examples
from xray_helpers.explain.localization import EvaluatedMaps
from xray_helpers.explain.shortcut_verdicts import describe_controls
from xray_helpers.images.radiographs import ImageFolder
from xray_helpers.settings import MIN_GROUPS, class_names
from xray_helpers.study.records import STALE

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RANDOM_BANNER = (
    "Random weights: no ImageNet weights were used, so the backbones see little, and the scores say nothing "
    "about what trained networks reach."
)


def escape(text: object) -> str:
    """Return text that shows as it is, in HTML and in Markdown."""
    return re.sub(r"([\\`*_{}\[\]#|$~])", r"\\\1", html.escape(str(text), quote=False))


def show_text(text: str) -> Markdown:
    """Return a paragraph for a notebook."""
    return Markdown(text)


def show_banner(*weights: str, manifest: pd.DataFrame | None = None, control: str = "") -> HTML | None:
    """Return the warnings a notebook opens with; None where there are none.

    Parameters
    ----------
    *weights : str
        ``random`` is warned of.
    manifest : DataFrame, optional
        A split that leaks, or is uneven, is warned of.
    control : str
        Of `shortcut_verdicts.describe_controls`.
    """
    texts = [("warn", "#fff1d6", control)] if control else []
    if manifest is not None and (leak := measure_leak(manifest, manifest["split"]))["groups"]:
        texts.append(("bad", "#fde7e7", describe_leak(leak)))
    if manifest is not None:
        texts += [("warn", "#fff1d6", text) for text in find_uneven_parts(manifest)]
    if "random" in weights:
        texts.append(("warn", "#fff1d6", RANDOM_BANNER))
    style = (
        "border-left:6px solid;padding:.7rem 1rem;margin:.5rem 0;color:#3a1010;background:"  # for JupyterLab
    )
    divs = [
        f'<div class="banner {kind}" style="{style}{color}">{html.escape(text)}</div>'
        for kind, color, text in texts
    ]
    return HTML("".join(divs)) if divs else None


def show_table(rows: pd.DataFrame | list[dict[str, Any]]) -> HTML:
    """Return a table for a notebook: no index, missing values blank, texts escaped; ``None.`` where it has no
    row.
    """
    if not len(rows):
        return HTML("<p>None.</p>")
    text = pd.DataFrame(rows).to_html(index=False, border=0, na_rep="", justify="left")
    return HTML(text.replace(f"(no interval: {TOO_FEW})", "(no interval)"))  # the same reason in every row


def draw_maps(
    model: str,
    test: pd.DataFrame,
    table: pd.DataFrame,
    maps: EvaluatedMaps,
    folder: ImageFolder,
    verdict: str,
) -> "list[Figure]":
    """Draw maps over test images, and of a few of them the controls: two figures; none without maps.

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
        Whether the maps may be believed, for the alternative texts.
    """
    from xray_helpers.plots.images import plot_controls, plot_saliency_maps
    from xray_helpers.plots.style import with_alt

    def lay_out(rows: pd.DataFrame) -> tuple[list[np.ndarray], list[str]]:
        captions = [f"true {class_names()[row.y_true]}, P = {row.y_prob:.2f}" for row in rows.itertuples()]
        return load_examples(rows, folder, maps.frame), captions

    figures = []
    if len(rows := choose_examples(test, maps.maps, 12)):
        pictures, captions = lay_out(rows)
        overlays = [(maps.maps[path], maps.boxes[path]) for path in rows["path"]]
        title = f"{model}: Grad-CAM of {len(rows)} test images"
        figures.append(plot_saliency_maps(pictures, overlays, captions, title=title))
    rows, controls = choose_controls(test, table)
    if len(rows):
        pictures, captions = lay_out(rows)
        title = f"{model}: maps of {len(rows)} test images, each in proportion to its own largest value"
        figures.append(plot_controls(pictures, controls, captions, title=title))
    verdict = verdict.replace("**", "")
    return [with_alt(figure, f"{figure.get_label()} {verdict}") for figure in figures]


def build_strips(groups: list[pd.DataFrame], read: Callable[[list[str]], list[np.ndarray]]) -> list[tuple]:
    """Return title, pictures and captions of each group for `images.plot_groups`: its different files, at
    most eight.
    """
    strips = []
    for group in groups:
        some = group.drop_duplicates("sha256").head(8)
        title = f"{len(group)} files, {len(set(group['sha256']))} different"
        strips.append((title, read(list(some["path"])), [str(label) for label in some["label"].fillna("")]))
    return strips


def _few_groups(manifest: pd.DataFrame) -> list[str]:
    """Return a sentence a part on which nothing can rest, for want of sources or patients."""
    told = []
    for split, rests in (("validation", "choices that rest on it alone"), ("test", "the scores")):
        groups = used_part(manifest, split).groupby("label")["group"]
        worth = groups.apply(effective_groups)
        if len(worth) and worth.min() < MIN_GROUPS:
            shown = ", ".join(
                f"{count} of {label}" + (f", worth {worth[label]:.1f}" if worth[label] < count - 0.05 else "")
                for label, count in groups.nunique().items()
            )
            told.append(
                f"The {split} part has few sources or patients ({shown}): {rests} are a matter of luck; "
                "scores out of "
                "fold, in 03, rest on all images."
            )
    return told


def study_banners(
    study: dict[str, Any], manifest: pd.DataFrame | None, found: dict[str, dict[str, str]] | None = None
) -> list[tuple[str, str]]:
    """Return what a reader must know first, as pairs of kind (``bad`` or ``warn``) and sentence.

    Parameters
    ----------
    study : dict
        ``study.json``.
    manifest : DataFrame, optional
    found : dict, optional
        Of `shortcut_verdicts.read_shortcuts`.
    """
    banners = [("bad", each["banner"]) for each in (found or {}).values() if each["banner"]]
    if control := describe_controls(study["settings"]):
        banners.append(("warn", control))
    failed = [step["name"] for step in study.get("steps", []) if step["state"] == "failed"]
    if failed:
        banners.append(("bad", f"{len(failed)} of {len(study['steps'])} steps failed: {', '.join(failed)}."))
    stale = [step["name"] for step in study.get("steps", []) if step["state"] == STALE]
    if stale:
        told = (
            f"{len(stale)} of {len(study['steps'])} steps are stale, as files that they read were "
            "changed later by a"
        )
        told += (
            f" notebook run by hand: {', '.join(stale)}. Their results are not shown; run the study's "
            "command again."
        )
        banners.append(("bad", told))
    if study["settings"]["weights"] == "random":
        banners.append(("warn", RANDOM_BANNER))
    if manifest is not None:
        leak = measure_leak(manifest, manifest["split"])
        if leak["groups"]:
            banners.insert(0, ("bad", describe_leak(leak) + " Scores below are inflated."))
        balance = class_balance(manifest).set_index("split")
        if "test" in balance.index and balance.loc["test", "n"] < 100:
            banners.append(
                ("warn", f"The test part is small: {balance.loc['test', 'n']} images; look at the intervals.")
            )
        banners += [("warn", text) for text in [*find_uneven_parts(manifest), *_few_groups(manifest)]]
        noted = manifest.loc[manifest["status"] == "used", "note"].dropna() if "note" in manifest else []
        if len(noted):
            kinds = ", ".join(sorted({re.sub(r"\d+ ", "", text) for text in noted}))
            banners.append(
                ("warn", f"{len(noted)} files used have a note ({kinds}); manifest.csv names them.")
            )
        left_out = manifest["status"].isin(["unreadable", "excluded"]).sum()
        if left_out:
            banners.append(
                (
                    "warn",
                    f"{left_out} of {len(manifest)} files were left out; manifest.csv names the reasons.",
                )
            )
    return banners
