"""What notebooks and pages say: tables as HTML, findings as sentences, warnings."""

import html
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from IPython.display import HTML, Image, Markdown

from xray_helpers.duplicates import Search
from xray_helpers.intervals import TOO_FEW, describe_count, effective_groups
from xray_helpers.localization import Judged, choose_controlled, choose_shown, read_shown
from xray_helpers.manifest import find_label_columns
from xray_helpers.metrics import METRIC_TITLES, describe
from xray_helpers.operating import describe_choice
from xray_helpers.planning import find_uneven_parts
from xray_helpers.radiographs import ImageFolder
from xray_helpers.records import STALE
from xray_helpers.settings import FEW, Settings, class_names
from xray_helpers.shortcut_verdicts import describe_controls, judge_border
from xray_helpers.splits import class_balance, describe_leak, measure_leak, used_part
from xray_helpers.thresholds import describe_rule

HEADLINE = ("auroc", "accuracy", "precision", "recall", "specificity", "f1")
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
    style = "border-left:6px solid;padding:.7rem 1rem;margin:.5rem 0;color:#3a1010;background:"  # for JupyterLab
    divs = [
        f'<div class="banner {kind}" style="{style}{color}">{html.escape(text)}</div>' for kind, color, text in texts
    ]
    return HTML("".join(divs)) if divs else None


def show_table(rows: pd.DataFrame | list[dict[str, Any]]) -> HTML:
    """Return a table for a notebook: no index, missing values blank, texts escaped; ``None.`` where it has no row."""
    if not len(rows):
        return HTML("<p>None.</p>")
    text = pd.DataFrame(rows).to_html(index=False, border=0, na_rep="", justify="left")
    return HTML(text.replace(f"(no interval: {TOO_FEW})", "(no interval)"))  # the same reason in every row


def list_scores(comparison: pd.DataFrame, metric: str) -> str:
    """Return ``VGG16 0.83, ResNet50 0.79.`` for a figure's alternative text."""
    words = [f"{row['model']} {row[metric]:.2f}" for row in comparison.to_dict("records") if pd.notna(row[metric])]
    return (", ".join(words) or "not defined") + "."


def list_parts(balance: pd.DataFrame) -> str:
    """Return how many images of each class every part holds, for alternative text; of `splits.class_balance`."""
    negative, positive = class_names()
    rows = balance.itertuples()
    return "; ".join(f"{row.split}: {row.fractured} {positive}, {row.non_fractured} {negative}" for row in rows)


def show_maps(
    model: str, test: pd.DataFrame, table: pd.DataFrame, judged: Judged, folder: ImageFolder, sentence: str
) -> list[Image]:
    """Draw maps over test images, and of a few of them the controls: two figures, or none where there are no maps.

    Parameters
    ----------
    model : str
    test : DataFrame
        ``predictions_test.csv``.
    table : DataFrame
        ``maps.csv``.
    judged : localization.Judged
    folder : ImageFolder
    sentence : str
        Of `localization.describe_maps`, for the alternative text.
    """
    from xray_helpers import plots, plots_evaluation

    def lay_out(rows: pd.DataFrame) -> tuple[list[np.ndarray], list[str]]:
        words = [f"true {class_names()[row.y_true]}, P = {row.y_prob:.2f}" for row in rows.itertuples()]
        return read_shown(rows, folder, judged.frame), words

    figures, alt = [], sentence.replace("**", "")
    if len(rows := choose_shown(test, judged.maps, 12)):
        pictures, words = lay_out(rows)
        overlays = [(judged.maps[path], judged.boxes[path]) for path in rows["path"]]
        title = f"{model}: Grad-CAM of {len(rows)} test images"
        figures.append(plots.show(plots_evaluation.plot_maps(pictures, overlays, words, title=title), alt))
    rows, controls = choose_controlled(test, table)
    if len(rows):
        pictures, words = lay_out(rows)
        title = f"{model}: maps of {len(rows)} test images, each in proportion to its own largest value"
        figure = plots_evaluation.plot_controls(pictures, controls, words, title=title)
        figures.append(
            plots.show(figure, f"{title}. A row an image; columns: the picture, {', '.join(controls)}. {alt}")
        )
    return figures


def describe_data(manifest: pd.DataFrame, balance: pd.DataFrame) -> str:
    """Return what the data can and cannot carry, in a few sentences."""
    used = manifest[manifest["status"] == "used"]
    parts = balance.set_index("split")
    known = used["patient"].notna()
    if known.all():
        level = f"Patients are known for all images ({used['patient'].nunique()} patients): the parts share none."
    elif known.any():
        level = f"Patients are known for {known.sum()} of {len(used)} images only; the others are kept apart by source."
    else:
        level = "Patients are unknown: the parts are disjoint at image-source level, patients unknown."
    test = parts.loc["test"]
    counted = int(parts["n"].sum())
    copies = f" of {len(used)} files, one per source; copies are for training only" if counted < len(used) else ""
    return (
        f"{counted} images in {used['group'].nunique()} groups count{copies}. {parts['fractured'].sum()} of them are "
        f"{class_names()[1]}. {level} Always naming the commoner class would be right for "
        f"{test['majority_accuracy']:.0%} of the {int(test['n'])} test images: no model below that is of use."
    )


def describe_search(search: Search, manifest: pd.DataFrame, notes: list[str], weights: str | None) -> str:
    """Return what was found among the files, as a list in Markdown."""
    readable = manifest["status"].isin(["used", "not sampled"])
    sources = manifest.loc[readable, "source_group"].nunique()
    how = (
        "MobileNetV2 with ImageNet weights"
        if weights
        else (
            "Fourier-Mellin signatures, since there are no ImageNet weights: single rotations, flips and re-encodings are "
            "found, combined crops and shears may be missed"
        )
    )
    joined = search.links[search.links["decision"] == "joined"]["kind"].value_counts()
    kinds = ", ".join(f"{count} by {kind}" for kind, count in joined.items()) or "none"
    tells = [f"The column {name} tells the label: it makes no subgroups, and a model that used it would be cheating."
             for name in find_label_columns(manifest)]  # fmt: skip
    lines = [
        *(escape(note) for note in [*notes, *tells]),
        f"{readable.sum()} readable files come from {sources} sources.",
        f"Files joined to another: {kinds}. Pairs were proposed by {how}; alignment decided.",
    ]
    return "\n".join(f"- {line}" for line in lines)


def build_strips(groups: list[pd.DataFrame], read: Callable[[list[str]], list[np.ndarray]]) -> list[tuple]:
    """Return title, pictures and captions of each group for `plots.plot_groups`: its different files, at most eight."""
    strips = []
    for group in groups:
        some = group.drop_duplicates("sha256").head(8)
        title = f"{len(group)} files, {len(set(group['sha256']))} different"
        strips.append((title, read(list(some["path"])), [str(label) for label in some["label"].fillna("")]))
    return strips


def describe_training(
    model: str, history: pd.DataFrame, settings: Settings, chosen: dict[str, Any], epochs_by: str
) -> str:
    """Return how training ended, in a few sentences.

    Parameters
    ----------
    model : str
    history : DataFrame
        Of `finetuning.fine_tune`.
    settings : Settings
    chosen : dict
        ``threshold.json``.
    epochs_by : str
        Of `repeats.describe_schedule`: what decided the number of epochs.
    """
    kept = history[history["best"]].iloc[0]
    tuned = history["phase"] == "fine-tuning"
    head = int((~tuned).sum())
    how = (
        f"was trained for {head} of at most {settings.epochs} epochs"
        if head < settings.epochs
        else f"used all {head} epochs"
    )
    more = f" Fine-tuning took {tuned.sum()} epochs more" if tuned.any() else ""
    if more:
        more += "." if kept["phase"] == "fine-tuning" else " and brought nothing: the frozen backbone is kept."
    last = kept["epoch"] == len(history) and head == settings.epochs and not tuned.any()
    more += " The last epoch was the best: more epochs may help." if last else ""
    return (
        f"{model} {how}; epoch {kept['epoch']:.0f} is kept, with validation loss {kept['val_loss']:.3f}. {epochs_by}{more} "
        f"An image is called {class_names()[1]} from P = {chosen['threshold']:.3f} upwards ({describe_rule(chosen)}). "
        f"{describe_choice(chosen)}"
    )


def describe_engine(record: dict[str, Any]) -> str:
    """Return what computed the features (`features.engine_record`), and how far that was from float32 TensorFlow."""
    if not record:
        return "The features come from the cache."
    text = f"Computed by {record['engine']} in {record['precision']}"
    if record["asked"] != f"{record['engine']}, {record['precision']}":
        return f"{text}, because {record['asked']} was off by {record['difference']:.2g} standard deviations."
    exact = record["asked"] == "tensorflow, float32"
    return f"{text}." if exact else f"{text}; {record['difference']:.1e} standard deviations off float32 TensorFlow."


def describe_border(border: str, auroc: dict[str, Any]) -> str:
    """Return what an AUROC means where the border was blanked or all else was; nothing for images as they are.

    Parameters
    ----------
    border : {'keep', 'blank', 'only'}
    auroc : dict
        value, ci_low, ci_high; out of fold of all images, as a small test part decides nothing.
    """
    if border == "keep":
        return ""
    if border == "blank":
        return "Border and corners were blanked: compare with a study that keeps them; what is lost came from there. "
    return f"Control study, only border and corners were shown. {judge_border(auroc).sentence} "


def log_scores(model: str, scores: dict[str, Any], baseline: float) -> None:
    """Print a model's main scores, a line each, for the log; DeLong's interval, which takes images for independent, too."""
    for name in ("accuracy", "precision", "recall", "f1", "auroc"):
        print(f"{model}: {METRIC_TITLES[name]} {describe(scores[name])}")
    print(f"{model}: test n = {describe_count(scores)}; majority class {baseline:.2f}")
    low, high = scores["auroc"]["delong_low"], scores["auroc"]["delong_high"]
    told = "not defined" if low is None else f"{low:.2f} to {high:.2f}"
    print(f"{model}: AUROC by DeLong, for comparison with other papers, images taken as independent: {told}")


def describe_scores(
    model: str,
    scores: dict[str, Any],
    baseline: float,
    border: str = "keep",
    out_of_fold: dict[str, Any] | None = None,
) -> str:
    """Return what a model's scores mean, in a few sentences; `out_of_fold`, where known, decides about the border."""
    auroc, accuracy, recall = scores["auroc"], scores["accuracy"], scores["recall"]
    text = f"On {describe_count(scores, 'test images')}, {model} has AUROC {describe(auroc)}. "
    text += _beside_chance(auroc, out_of_fold)
    text += f"At the threshold {scores['threshold']:.2f} ({scores['threshold_rule']}) its accuracy is {describe(accuracy)}; "
    text += f"whether that is above the {baseline:.2f} of the majority class is {_beside(accuracy, baseline)}. "
    if scores["leak"]:
        text += f"All this is inflated: {scores['leak']:.0%} of the test images have a sibling in train. "
    text += describe_border(border, out_of_fold or auroc)
    found = f"It finds {scores['tp']} of {scores['tp'] + scores['fn']} images that are {class_names()[1]}"
    return f"{text}{found}: sensitivity {describe(recall)}."


def _beside(entry: dict[str, Any], value: float) -> str:
    """Return ``shown``, ``ruled out`` or ``not known``: whether a score is above a value."""
    if entry["ci_low"] is None:
        return "not known"
    return "shown" if entry["ci_low"] > value else "ruled out" if entry["ci_high"] <= value else "not known"


def _beside_chance(auroc: dict[str, Any], out_of_fold: dict[str, Any] | None) -> str:
    """Return whether a model is better than chance, on test and, where that is known, on all images out of fold."""
    test = _beside(auroc, 0.5)
    text = f"That it is better than chance is {test} on test"
    return text + (f", and {_beside(out_of_fold, 0.5)} on all images out of fold. " if out_of_fold else ". ")


def headline_table(comparison: pd.DataFrame) -> list[dict[str, str]]:
    """Return the rows of the index page's table: texts such as ``0.83 (0.75 to 0.89)``."""
    rows = []
    for row in comparison.to_dict("records"):
        text = {"rank": row["rank"], "model": row["model"]}
        for name in HEADLINE:
            value, low, high = row[name], row[f"{name}_low"], row[f"{name}_high"]
            told = describe({"value": value, "ci_low": low, "ci_high": high}) if pd.notna(low) else f"{value:.2f}"
            text[METRIC_TITLES[name]] = told if pd.notna(value) else "not defined"
        if row.get("leak"):
            text["test leaked"] = f"{row['leak']:.0%}"
        rows.append(text | {"n": describe_count(row).replace(" images", "")})
    return rows


def _few_groups(manifest: pd.DataFrame) -> list[str]:
    """Return a sentence a part on which nothing can rest, for want of sources or patients."""
    told = []
    for split, rests in (("validation", "choices that rest on it alone"), ("test", "the scores")):
        groups = used_part(manifest, split).groupby("label")["group"]
        worth = groups.apply(effective_groups)
        if len(worth) and worth.min() < FEW:
            shown = ", ".join(
                f"{count} of {label}" + (f", worth {worth[label]:.1f}" if worth[label] < count - 0.05 else "")
                for label, count in groups.nunique().items()
            )
            told.append(f"The {split} part has few sources or patients ({shown}): {rests} are a matter of luck; scores out of "
                        "fold, in 03, rest on all images.")  # fmt: skip
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
        told = f"{len(stale)} of {len(study['steps'])} steps are stale, as files that they read were changed later by a"
        told += (
            f" notebook run by hand: {', '.join(stale)}. Their results are not shown; run the study's command again."
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
            banners.append(("warn", f"{len(noted)} files used have a note ({kinds}); manifest.csv names them."))
        left_out = manifest["status"].isin(["unreadable", "excluded"]).sum()
        if left_out:
            banners.append(
                (
                    "warn",
                    f"{left_out} of {len(manifest)} files were left out; manifest.csv names the reasons.",
                )
            )
    return banners
