"""Findings of one notebook in a few sentences, and the table of headline scores."""

from typing import Any

import pandas as pd

from xray_helpers.data.leaks import describe_leak, measure_leak
from xray_helpers.data.manifest import find_label_columns
from xray_helpers.evaluation.intervals import describe, describe_count, unflatten_entry
from xray_helpers.evaluation.metrics import METRIC_TITLES
from xray_helpers.evaluation.operating_point import describe_choice
from xray_helpers.evaluation.thresholds import describe_reach, describe_rule
from xray_helpers.evaluation.verdict import RULED_OUT, SHOWN, UNKNOWN, compare_to_bound
from xray_helpers.explain.shortcut_verdicts import BLANKED, assess_border
from xray_helpers.reports.display import escape
from xray_helpers.same_source.search import Search
from xray_helpers.settings import Settings, class_names, current_classes

_HEADLINE = ("auroc", "accuracy", "precision", "recall", "specificity", "f1")
_LOGGED = ("accuracy", "precision", "recall", "f1", "auroc")
_IS = {SHOWN: "is shown to be", RULED_OUT: "is shown not to be", UNKNOWN: "may or may not be"}


def describe_parts(manifest: pd.DataFrame) -> str:
    """Return at which level the parts are disjoint, or that they leak."""
    leak = measure_leak(manifest, manifest["split"])
    if leak["groups"]:
        return describe_leak(leak)
    used = manifest[manifest["status"] == "used"]
    known = used["patient"].notna()
    level = "patient level" if known.all() else "image-source level, patients unknown"
    if known.any() and not known.all():
        level = f"patient level for {known.sum()} of {len(used)} images, image-source level for the others"
    return f"No group is in two parts: disjoint at {level}."


def describe_data(manifest: pd.DataFrame, balance: pd.DataFrame) -> str:
    """Return how many images count, at which level the parts are disjoint, and what a useless model scores.

    Parameters
    ----------
    manifest : DataFrame
    balance : DataFrame
        Of `parts.class_balance`.
    """
    used = manifest[manifest["status"] == "used"]
    parts = balance.set_index("split")
    counted, test = int(parts["n"].sum()), parts.loc["test"]
    copies = ""
    if counted < len(used):
        copies = f" of {len(used)} files, one per source; copies are for training only"
    assumed = f"{current_classes().assumed} " if current_classes().assumed else ""
    return (
        f"{assumed}{counted} images in {used['group'].nunique()} groups count{copies}. "
        f"{parts['fractured'].sum()} of them are {class_names()[1]}. {describe_parts(manifest)} "
        "Always naming the more frequent class is "
        f"right for {test['majority_accuracy']:.0%} of the {int(test['n'])} test images: a model below that "
        "is useless."
    )


def describe_search(search: Search, manifest: pd.DataFrame, notes: list[str], weights: str | None) -> str:
    """Return what was found among the files, as a list in Markdown.

    Parameters
    ----------
    search : Search
    manifest : DataFrame
    notes : list of str
        Of the listing of the data.
    weights : str or None
        The weights of MobileNetV2 that proposed pairs; None if signatures did.
    """
    readable = manifest["status"].isin(["used", "not sampled"])
    sources = manifest.loc[readable, "source_group"].nunique()
    method = (
        "MobileNetV2 with ImageNet weights"
        if weights
        else "Fourier-Mellin signatures, since there are no ImageNet weights: single rotations, flips and "
        "re-encodings are found, combined crops and shears may be missed"
    )
    joined = search.links[search.links["decision"] == "joined"]["kind"].value_counts()
    kinds = ", ".join(f"{count} by {kind}" for kind, count in joined.items()) or "none"
    leaks = [
        f"The column {name} reveals the label: it makes no subgroups, and a model must not use it."
        for name in find_label_columns(manifest)
    ]
    lines = [
        *(escape(note) for note in [*notes, *leaks]),
        f"{readable.sum()} readable files come from {sources} sources.",
        f"Files joined to another: {kinds}. Pairs were proposed by {method}; alignment decided.",
    ]
    return "\n".join(f"- {line}" for line in lines)


def describe_training(
    model: str, history: pd.DataFrame, settings: Settings, chosen: dict[str, Any], epochs_by: str
) -> str:
    """Return how training ended, and how the threshold was chosen.

    Parameters
    ----------
    model : str
    history : DataFrame
        Of `finetuning.fine_tune`.
    settings : Settings
    chosen : dict
        ``threshold.json``.
    epochs_by : str
        What decided the number of epochs, from `resampling.describe_schedule`.
    """
    kept = history[history["best"]].iloc[0]
    tuned = int((history["phase"] == "fine-tuning").sum())
    head = len(history) - tuned
    length = f"used all {head} epochs"
    if head < settings.epochs:
        length = f"was trained for {head} of at most {settings.epochs} epochs"
    more = ""
    if tuned:
        outcome = (
            "."
            if kept["phase"] == "fine-tuning"
            else " without a gain beyond chance: the frozen backbone is kept."
        )
        more = f" Fine-tuning took {tuned} more epochs{outcome}"
    elif kept["epoch"] == len(history) == settings.epochs:
        more = " The last epoch was the best: more epochs may help."
    return (
        f"{model} {length}; epoch {kept['epoch']:.0f} is kept, with validation loss {kept['val_loss']:.3f}. "
        f"{epochs_by}{more} An image is called {class_names()[1]} from P = {chosen['threshold']:.3f} upwards "
        f"({describe_rule(chosen)}). "
        + " ".join(
            [describe_choice(chosen), *describe_reach(*chosen.get("uncertain", (0.5, 0.5)), class_names())]
        )
    )


def describe_backbone(record: dict[str, Any]) -> str:
    """Return which weights a backbone has, their licence, and what happens to the pixels before it.

    Parameters
    ----------
    record : dict
        ``training.json``; an empty text for one of before these were recorded.
    """
    if "weights_of" not in record:
        return ""
    licence = f" (licence: {record['licence']})" if record["licence"] else ""
    return f"Weights: {record['weights_of']}{licence}. Pixels: {record['preprocessing']}."


def describe_engine(record: dict[str, Any]) -> str:
    """Return what computed the features, and how far they are from those of TensorFlow in float32.

    Parameters
    ----------
    record : dict
        Of `features.backend_record`; empty for features from the cache.
    """
    if not record:
        return "The features come from the cache."
    used, asked, difference = (
        f"{record['engine']}, {record['precision']}",
        record["asked"],
        record["difference"],
    )
    text = f"Features were computed by {record['engine']} in {record['precision']}"
    if record.get("int8"):
        return f"{text}. {_describe_int8(record['int8'])}"
    if difference is None:
        return f"{text}, because {asked} cannot run this network."
    if asked != used:
        return f"{text}, because {asked} differed by {difference:.2g} standard deviations."
    if asked == "tensorflow, float32":
        return f"{text}."
    return f"{text}; they differ from TensorFlow in float32 by {difference:.1e} standard deviations."


def _describe_int8(judged: dict[str, Any]) -> str:
    verdict = "can stand for" if judged["accepted"] else "cannot stand for, and were not used instead of,"
    aurocs = ""
    if judged["auroc"] is not None:
        aurocs = (
            f", and AUROC on validation of a logistic regression {judged['auroc']:.3f} against "
            f"{judged['auroc_exact']:.3f}"
        )
    return f"Features in int8 {verdict} those in float32: mean cosine {judged['cosine']:.4f}{aurocs}."


def describe_border(border: str, auroc: dict[str, Any]) -> str:
    """Return what an AUROC means if the border was blanked or nothing else was shown; else an empty text.

    Parameters
    ----------
    border : {'keep', 'blank', 'only'}
    auroc : dict
        value, ci_low, ci_high; out of fold on all images if known, as a small test part decides nothing.
    """
    if border == "keep":
        return ""
    if border == "blank":
        return f"{BLANKED} "
    return f"Control study: only border and corners were shown. {assess_border(auroc).sentence} "


def log_scores(model: str, scores: dict[str, Any], baseline: float) -> None:
    """Print a model's main scores for the log, one per line, and DeLong's interval of AUROC."""
    for name in _LOGGED:
        print(f"{model}: {METRIC_TITLES[name]} {describe(scores[name])}")
    print(f"{model}: test n = {describe_count(scores)}; majority class {baseline:.2f}")
    low, high = scores["auroc"]["delong_low"], scores["auroc"]["delong_high"]
    interval = "not defined" if low is None else f"{low:.2f} to {high:.2f}"
    print(
        f"{model}: AUROC by DeLong, for comparison with other papers, images taken as independent: {interval}"
    )


def describe_scores(
    model: str,
    scores: dict[str, Any],
    baseline: float,
    border: str = "keep",
    out_of_fold: dict[str, Any] | None = None,
) -> str:
    """Return what a model's scores on test mean, in a few sentences.

    Parameters
    ----------
    model : str
    scores : dict
        ``metrics.json``.
    baseline : float
        Accuracy of always predicting the more frequent class of test.
    border : {'keep', 'blank', 'only'}
    out_of_fold : dict, optional
        AUROC of all images, out of fold.
    """
    auroc, accuracy = scores["auroc"], scores["accuracy"]
    sentences = [
        f"On {describe_count(scores, 'test images')}, {model} has AUROC {describe(auroc)}.",
        f"It {_is_above(auroc, 0.5)} better than chance on test"
        + (
            f", and {_is_above(out_of_fold, 0.5)} better than chance on all images, out of fold."
            if out_of_fold
            else "."
        ),
        f"At the threshold {scores['threshold']:.2f} ({scores['threshold_rule']}) its accuracy is "
        f"{describe(accuracy)}, which {_is_above(accuracy, baseline)} above the {baseline:.2f} of the "
        "majority class.",
    ]
    if scores["leak"]:
        sentences.append(
            f"All this is inflated: {scores['leak']:.0%} of the test images have a sibling in train."
        )
    sentences += [text] if (text := describe_border(border, out_of_fold or auroc).strip()) else []
    positives = scores["tp"] + scores["fn"]
    sentences.append(
        f"It finds {scores['tp']} of {positives} images that are {class_names()[1]}: sensitivity "
        f"{describe(scores['recall'])}."
    )
    return " ".join(sentences)


def _is_above(entry: dict[str, Any], value: float) -> str:
    """Return whether a score is above a value, as the verb of a sentence."""
    return _IS[compare_to_bound(entry, value)]


def headline_table(comparison: pd.DataFrame) -> list[dict[str, str]]:
    """Return the rows of the index page's table, with texts such as ``0.83 (0.75 to 0.89)``."""
    rows = []
    for row in comparison.to_dict("records"):
        text = {"rank": row["rank"]} if len(comparison) > 1 else {}
        text["model"] = row["model"]
        for name in _HEADLINE:
            entry = unflatten_entry(row, name)
            if entry["value"] is None:
                text[METRIC_TITLES[name]] = "not defined"
            elif entry["ci_low"] is None:
                text[METRIC_TITLES[name]] = f"{entry['value']:.2f}"
            else:
                text[METRIC_TITLES[name]] = describe(entry)
        if row.get("leak"):
            text["test leaked"] = f"{row['leak']:.0%}"
        rows.append(text | {"n": describe_count(row).replace(" images", "")})
    return rows
