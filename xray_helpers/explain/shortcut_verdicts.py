"""Whether a score may come from a shortcut, in three answers; and which studies are controls, not candidates.

A shortcut is shown where its AUROC out of fold lies above 0.5 by more than `MARGIN` in the whole of its
interval, ruled out within that margin where the whole interval lies below, and not known otherwise: absence
of evidence is no all-clear.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from xray_helpers.evaluation.intervals import describe
from xray_helpers.evaluation.metrics import compute_metrics
from xray_helpers.evaluation.paired import compare_pairs
from xray_helpers.explain.shortcuts import ALL, FAMILIES, flat_auroc
from xray_helpers.study.files import read_json

MARGIN = 0.05  # of AUROC above 0.5 beyond which a shortcut counts as shown, and within which as ruled out
SHOWN, RULED_OUT, UNKNOWN = "shown", "ruled out", "not known"
WHOLE, BORDER = "whole picture", "border and corners alone"
FILE = "shortcuts_verdict.json"
REMEDIES = (
    "Remedies: bring all files to one size and one encoding, from the originals; crop what is no body "
    "part, markers and "
    "borders first; match the classes on what tells them apart, or judge within one size and source."
)
_STRETCH = stats.norm.ppf(1 - 0.025 / (1 + len(FAMILIES))) / stats.norm.ppf(
    0.975
)  # Bonferroni's, of a half interval
_CONTROLS = {
    ("border", "only"): "the network is shown border and corners alone",
    ("border", "blank"): "border and corners are blanked",
    ("normalization", "unit"): "all backbones are fed [0, 1], not what they were trained on",
    ("weights", "random"): "the backbones were never trained",
}


class Finding(NamedTuple):
    """A verdict on one question.

    Attributes
    ----------
    state : str
        `SHOWN`, `RULED_OUT` or `UNKNOWN`.
    sentence : str
        Which says so, and on what it rests.
    """

    state: str
    sentence: str


class AssessedShortcuts(NamedTuple):
    """The outcome of `assess_shortcuts`.

    Attributes
    ----------
    table : DataFrame
        ``<model>/shortcuts.csv``: what (whole picture, border and corners alone, measures), auroc, low, high,
        n, n_groups, difference (AUROC of the whole picture less this one), difference_low, difference_high
        (95 %, paired by group).
    border, surface : Finding
        Whether border and corners, and what is measured of files, predict the label.
    banner : str
        What the first page has to say: which shortcut scores as the model does; empty where none is shown to.
    """

    table: pd.DataFrame
    border: Finding
    surface: Finding
    banner: str


def list_controls(settings: Mapping[str, Any]) -> list[str]:
    """Return why a study of these settings is a control and no candidate, such as ``border = only``; mostly
    nothing.
    """
    return [f"{name} = {value}" for name, value in _CONTROLS if settings.get(name) == value]


def describe_controls(settings: Mapping[str, Any]) -> str:
    """Return in a sentence that a study is a control, and why; an empty text where it is none."""
    found = [
        f"{name} = {value} ({why})" for (name, value), why in _CONTROLS.items() if settings.get(name) == value
    ]
    if not found:
        return ""
    return (
        f"Control study, no candidate: {', '.join(found)}. Its scores are a yardstick for other "
        "studies, whatever they are."
    )


def evaluate_alone(entry: Mapping[str, Any]) -> str:
    """Return whether an AUROC out of fold shows that a shortcut predicts the label; `entry` has ci_low and
    ci_high.
    """
    low, high = entry.get("ci_low"), entry.get("ci_high")
    if low is not None and low > 0.5 + MARGIN:
        return SHOWN
    return RULED_OUT if high is not None and high < 0.5 + MARGIN else UNKNOWN


def evaluate_border(entry: Mapping[str, Any] | None) -> Finding:
    """Return whether border and corners alone predict the label.

    Parameters
    ----------
    entry : mapping, optional
        AUROC out of fold of all images, as of `variability.score_out_of_fold`; none where it was not
        measured.
    """
    if entry is None or (entry.get("value") is None and entry.get("ci_low") is None):
        told = (
            "Whether border and corners alone predict the label is not known: it was not measured out of fold"
        )
        return Finding(UNKNOWN, f"{told} (shortcuts = off, repeats = 0, or fewer than three folds).")
    state = evaluate_alone(entry)
    reached = (
        f"AUROC {describe(dict(entry))} out of fold" if entry.get("value") is not None else "out of fold"
    )
    words = {
        SHOWN: f"Border and corners alone, where markers sit, predict the label: {reached}. WARNING: the "
        "images hold a "
        "shortcut.",
        RULED_OUT: f"Border and corners alone do not predict the label by more than {MARGIN:g} above "
        f"chance: {reached}.",
        UNKNOWN: f"Whether border and corners alone predict the label is not known: {reached} is neither "
        "shown to lie more "
        f"than {MARGIN:g} above chance, nor to lie below that.",
    }
    return Finding(state, words[state])


def evaluate_measures(table: pd.DataFrame) -> Finding:
    """Return whether what is measured of files and corners predicts the label.

    All measures together and their families decide, at a level that allows for how many they are
    (Bonferroni); single measures only say what it is, as the best of many is lucky.

    Parameters
    ----------
    table : DataFrame
        ``shortcuts.csv``.
    """
    deciding = table[table["kind"] != "single"]
    if deciding.empty:
        told = (
            "Whether size, storage, exposure or corners of the files predict the label is not known: it "
            "was not measured"
        )
        return Finding(UNKNOWN, f"{told} (shortcuts = off, or too few folds with both classes).")
    states = [evaluate_alone(_widen(_entry(row))) for _, row in deciding.iterrows()]
    all_low = {evaluate_alone(_entry(row)) for _, row in deciding.iterrows()} == {RULED_OUT}
    n = f"n = {deciding['n'].iloc[0]} images of {deciding['n_groups'].iloc[0]} groups"
    together = _message(deciding.iloc[0])
    if SHOWN in states:
        best = deciding[np.array(states) == SHOWN].iloc[:4]
        single = _shown_singles(table).head(1)
        named = ", ".join(_message(row) for _, row in pd.concat([best, single]).iterrows())
        return Finding(
            SHOWN, f"What is no anatomy predicts the label: AUROC out of fold of {named}; {n}. {REMEDIES}"
        )
    if all_low:
        told = f"do not predict the label by more than {MARGIN:g} above chance"
        return Finding(
            RULED_OUT, f"Size, storage, exposure and corners of the files {told}: {together} ({n})."
        )
    told = "Whether size, storage, exposure or corners of the files predict the label is not known"
    return Finding(UNKNOWN, f"{told}: AUROC out of fold of {together}; {n}.")


def _widen(entry: dict[str, Any]) -> dict[str, Any]:
    """Return an entry with its lower end as far away as one of five intervals that hold together at 95 %."""
    if entry["ci_low"] is None:
        return entry
    return entry | {"ci_low": entry["value"] - _STRETCH * (entry["value"] - entry["ci_low"])}


def _shown_singles(table: pd.DataFrame) -> pd.DataFrame:
    """Return single measures that are shown to predict the label, of families that are, the strongest
    first.
    """
    shown = {row["measure"] for _, row in table.iterrows() if evaluate_alone(_entry(row)) == SHOWN}
    whole = {name for name, columns in FAMILIES.items() if name in shown for name in columns}
    allowed = shown if ALL in shown else shown & whole
    return table[(table["kind"] == "single") & table["measure"].isin(allowed)].sort_values(
        "auroc", ascending=False
    )


def _entry(row: Any) -> dict[str, Any]:
    ends = (("value", "auroc"), ("ci_low", "low"), ("ci_high", "high"))
    return {key: None if pd.isna(row[name]) else float(row[name]) for key, name in ends} | {
        "reason": "not known"
    }


def _message(row: Any) -> str:
    alone = " alone" if row["kind"] == "single" else ""
    return f"{row['words']}{alone} {describe(_entry(row))}"


def assess_shortcuts(
    model: str,
    whole: pd.DataFrame,
    border: pd.DataFrame,
    scores: pd.DataFrame,
    table: pd.DataFrame,
    shown: str = "keep",
) -> AssessedShortcuts:
    """Judge a model beside what border and files alone reach, all out of fold, on the same images.

    Parameters
    ----------
    model : str
    whole, border : DataFrame
        Of `resampling.cross_validate`: ``predictions_oof.csv`` and ``predictions_border.csv``.
    scores : DataFrame
        Of `shortcuts.predict_by_surface`: ``predictions_shortcuts.csv``.
    table : DataFrame
        ``shortcuts.csv``.
    shown : {'keep', 'blank', 'only'}
        What of the border the model itself was shown: where not all, the study is a control.
    """
    surface, first = evaluate_measures(table), {} if whole.empty else {"what": WHOLE} | _assess(whole)
    rows, reaching, found = [], {}, _assess_control(shown, first)
    for kind, words, predictions in _list_candidates(border, scores, table):
        row = _assess_against(whole, predictions) if first else {}
        if not row:
            continue
        rows.append({"what": words} | row)
        entry = _entry(row)
        if kind == "border" and shown == "keep":
            found = evaluate_border(entry)
            found = Finding(found.state, f"{found.sentence} {_describe_difference(row)}")
        predicts = evaluate_alone(entry) == SHOWN and (kind == "border" or surface.state == SHOWN)
        if predicts and (row["auroc"] >= first["low"] or not row["difference_low"] > 0):
            told = (f"{words} alone" if kind == "single" else words, entry)
            part = kind if kind in ("border", "single") else "family"  # one of each is named, the strongest
            reaching[part] = max(told, reaching.get(part, told), key=lambda each: each[1]["value"])
    banner = _describe_reaching(model, list(reaching.values()), first) if shown == "keep" else ""
    return AssessedShortcuts(
        pd.DataFrame([first, *rows] if first else [], columns=_TABLE), found, surface, banner
    )


def _assess_control(shown: str, whole: dict[str, Any]) -> Finding:
    if shown == "blank":
        told = (
            "Border and corners were blanked: compare with a study that keeps them; what is lost came "
            "from there."
        )
        return Finding(UNKNOWN, told)
    return evaluate_border(_entry(whole) if shown == "only" and whole else None)


def _list_candidates(
    border: pd.DataFrame, scores: pd.DataFrame, table: pd.DataFrame
) -> list[tuple[str, str, pd.DataFrame]]:
    """Return kind, words and predictions (path, y_prob) of border, all measures, the two best families, the
    best single.
    """
    found = [("border", BORDER, border[["path", "y_prob"]])] if len(border) else []
    families = table[table["kind"] != "single"].head(3)
    for part in (families, _shown_singles(table).head(1)) if len(scores) else ():
        found += [
            (row.kind, row.words, scores[["path", row.measure]].set_axis(["path", "y_prob"], axis=1))
            for row in part.itertuples()
        ]
    return found


_TABLE = ["what", "auroc", "low", "high", "n", "n_groups", "difference", "difference_low", "difference_high"]


def _assess(predictions: pd.DataFrame) -> dict[str, Any]:
    y, p, group = (predictions[name] for name in ("y_true", "y_prob", "group"))
    entry = compute_metrics(y, p, 0.5, group)["auroc"]
    return flat_auroc(entry) | {"n": len(predictions), "n_groups": group.nunique()}


def _assess_against(whole: pd.DataFrame, predictions: pd.DataFrame) -> dict[str, Any]:
    """Return the AUROC of a shortcut, and of how much the whole picture lies above it on the same images."""
    both = whole.merge(predictions, on="path", suffixes=("", "_alone"))
    if both.empty or both["y_true"].nunique() < 2:
        return {}
    base = both[["path", "group", "y_true"]]
    pair = {
        name: base.assign(y_prob=both[column], y_pred=(both[column] >= 0.5).astype(int))
        for name, column in (("whole", "y_prob"), ("alone", "y_prob_alone"))
    }
    compared = compare_pairs(pair).iloc[0]
    ends = {"difference": "difference", "difference_low": "ci_low", "difference_high": "ci_high"}
    return _assess(pair["alone"]) | {name: float(compared[key]) for name, key in ends.items()}


def _describe_difference(row: Mapping[str, Any]) -> str:
    low, high = row["difference_low"], row["difference_high"]
    if pd.isna(low):
        return "Whether the whole picture tells more is not known: there are too few groups."
    by = f"{row['difference']:+.2f} ({low:+.2f} to {high:+.2f}), paired by group"
    if low > 0:
        return f"The whole picture tells more: {by}."
    if high < MARGIN:
        return f"The whole picture tells no more than that, within {MARGIN:g}: {by}."
    return f"It is not shown that the whole picture tells more: {by}."


def _describe_reaching(model: str, reaching: list[tuple[str, dict[str, Any]]], whole: dict[str, Any]) -> str:
    if not reaching:
        return ""
    told = "; ".join(f"{words} {describe(entry)}" for words, entry in reaching)
    return (
        f"A shortcut reaches what {model} reaches: AUROC out of fold of {told}; of the network on whole "
        "pictures "
        f"{describe(_entry(whole))}. Its score alone does not show that it sees fractures. {REMEDIES}"
    )


def describe_assessment(weighed: AssessedShortcuts) -> str:
    """Return both verdicts, and the banner where there is one, as sentences."""
    return " ".join(filter(None, (weighed.banner, record_of(weighed)["verdict"])))


def record_of(weighed: AssessedShortcuts) -> dict[str, str]:
    """Return the content of ``shortcuts_verdict.json``: border and surface (states), verdict, banner
    (sentences).
    """
    told = f"{weighed.border.sentence} {weighed.surface.sentence}"
    told = told.replace(f" {REMEDIES}", "") if weighed.banner else told  # the banner names them
    return {
        "border": weighed.border.state,
        "surface": weighed.surface.state,
        "verdict": told,
        "banner": weighed.banner,
    }


def read_shortcuts(
    folder: Path, models: Iterable[str], stale: Iterable[str] = ()
) -> dict[str, dict[str, str]]:
    """Return ``shortcuts_verdict.json`` of each model that has one which is not `stale`, by model."""
    names = [
        name for name in models if (folder / name / FILE).exists() and f"{name}/{FILE}" not in set(stale)
    ]
    return {name: read_json(folder / name / FILE) for name in names}
