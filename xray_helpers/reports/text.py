"""What notebooks and pages say: tables as HTML, findings as sentences, warnings."""

from typing import Any

import pandas as pd

from xray_helpers.data.manifest import find_label_columns
from xray_helpers.evaluation.intervals import describe, describe_count
from xray_helpers.evaluation.metrics import METRIC_TITLES
from xray_helpers.evaluation.operating_point import describe_choice
from xray_helpers.evaluation.thresholds import describe_rule
from xray_helpers.explain.shortcut_verdicts import BLANKED, assess_border
from xray_helpers.reports.display import escape
from xray_helpers.same_source.search import Search
from xray_helpers.settings import Settings, class_names

HEADLINE = ("auroc", "accuracy", "precision", "recall", "specificity", "f1")


def describe_data(manifest: pd.DataFrame, balance: pd.DataFrame) -> str:
    """Return what the data can and cannot carry, in a few sentences."""
    used = manifest[manifest["status"] == "used"]
    parts = balance.set_index("split")
    known = used["patient"].notna()
    if known.all():
        level = (
            f"Patients are known for all images ({used['patient'].nunique()} patients): the parts share none."
        )
    elif known.any():
        level = (
            f"Patients are known for {known.sum()} of {len(used)} images only; the others are kept "
            "apart by source."
        )
    else:
        level = "Patients are unknown: the parts are disjoint at image-source level, patients unknown."
    test = parts.loc["test"]
    counted = int(parts["n"].sum())
    copies = (
        f" of {len(used)} files, one per source; copies are for training only" if counted < len(used) else ""
    )
    return (
        f"{counted} images in {used['group'].nunique()} groups count{copies}. {parts['fractured'].sum()} "
        "of them are "
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
            "Fourier-Mellin signatures, since there are no ImageNet weights: single rotations, flips and "
            "re-encodings are "
            "found, combined crops and shears may be missed"
        )
    )
    joined = search.links[search.links["decision"] == "joined"]["kind"].value_counts()
    kinds = ", ".join(f"{count} by {kind}" for kind, count in joined.items()) or "none"
    tells = [
        f"The column {name} tells the label: it makes no subgroups, and a model that used it would be "
        "cheating."
        for name in find_label_columns(manifest)
    ]
    lines = [
        *(escape(note) for note in [*notes, *tells]),
        f"{readable.sum()} readable files come from {sources} sources.",
        f"Files joined to another: {kinds}. Pairs were proposed by {how}; alignment decided.",
    ]
    return "\n".join(f"- {line}" for line in lines)


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
        Of `resampling.describe_schedule`: what decided the number of epochs.
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
        more += (
            "." if kept["phase"] == "fine-tuning" else " and brought nothing: the frozen backbone is kept."
        )
    last = kept["epoch"] == len(history) and head == settings.epochs and not tuned.any()
    more += " The last epoch was the best: more epochs may help." if last else ""
    return (
        f"{model} {how}; epoch {kept['epoch']:.0f} is kept, with validation loss {kept['val_loss']:.3f}. "
        f"{epochs_by}{more} "
        f"An image is called {class_names()[1]} from P = {chosen['threshold']:.3f} upwards "
        f"({describe_rule(chosen)}). "
        f"{describe_choice(chosen)}"
    )


def describe_engine(record: dict[str, Any]) -> str:
    """Return what computed the features (`features.backend_record`), and how far that was from float32
    TensorFlow.
    """
    if not record:
        return "The features come from the cache."
    text = f"Computed by {record['engine']} in {record['precision']}"
    if record["asked"] != f"{record['engine']}, {record['precision']}":
        return f"{text}, because {record['asked']} was off by {record['difference']:.2g} standard deviations."
    exact = record["asked"] == "tensorflow, float32"
    return (
        f"{text}."
        if exact
        else f"{text}; {record['difference']:.1e} standard deviations off float32 TensorFlow."
    )


def describe_border(border: str, auroc: dict[str, Any]) -> str:
    """Return what an AUROC means where the border was blanked or all else was; nothing for images as they
    are.

    Parameters
    ----------
    border : {'keep', 'blank', 'only'}
    auroc : dict
        value, ci_low, ci_high; out of fold of all images, as a small test part decides nothing.
    """
    if border == "keep":
        return ""
    if border == "blank":
        return f"{BLANKED} "
    return f"Control study, only border and corners were shown. {assess_border(auroc).sentence} "


def log_scores(model: str, scores: dict[str, Any], baseline: float) -> None:
    """Print a model's main scores, a line each, for the log; DeLong's interval, which takes images for
    independent, too.
    """
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
    """Return what a model's scores mean, in a few sentences; `out_of_fold`, where known, decides about the
    border.
    """
    auroc, accuracy, recall = scores["auroc"], scores["accuracy"], scores["recall"]
    text = f"On {describe_count(scores, 'test images')}, {model} has AUROC {describe(auroc)}. "
    text += _beside_chance(auroc, out_of_fold)
    text += (
        f"At the threshold {scores['threshold']:.2f} ({scores['threshold_rule']}) its accuracy is "
        f"{describe(accuracy)}; "
    )
    text += (
        f"whether that is above the {baseline:.2f} of the majority class is {_beside(accuracy, baseline)}. "
    )
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
    """Return whether a model is better than chance, on test and, where that is known, on all images out of
    fold.
    """
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
            told = (
                describe({"value": value, "ci_low": low, "ci_high": high})
                if pd.notna(low)
                else f"{value:.2f}"
            )
            text[METRIC_TITLES[name]] = told if pd.notna(value) else "not defined"
        if row.get("leak"):
            text["test leaked"] = f"{row['leak']:.0%}"
        rows.append(text | {"n": describe_count(row).replace(" images", "")})
    return rows
