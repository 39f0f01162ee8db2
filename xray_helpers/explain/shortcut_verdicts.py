"""Whether a score may come from a shortcut, and which studies are controls: decisions and their sentences.

A shortcut is shown where the whole interval of its out-of-fold AUROC lies more than `MARGIN` above 0.5, ruled
out within that margin where the whole interval lies below, and not known otherwise.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from xray_helpers.evaluation.intervals import describe, read_entry
from xray_helpers.evaluation.paired import compare_pairs
from xray_helpers.evaluation.verdict import RULED_OUT, SHOWN, UNKNOWN, Verdict, compare_to_bound
from xray_helpers.explain.shortcuts import ALL, FAMILIES, score_auroc
from xray_helpers.study.files import read_json

MARGIN = 0.05  # of AUROC above 0.5: a shortcut is shown beyond it, and ruled out within it
WHOLE, BORDER = "whole picture", "border and corners alone"
FILE = "shortcuts_verdict.json"
BLANKED = (
    "Border and corners were blanked: compare with a study that keeps them to see how much of the score they "
    "account for."
)
REMEDIES = (
    "Remedies: bring all files to one size and one encoding, from the originals; crop markers, borders and "
    "whatever is not the body part first; match the classes on what separates them, or evaluate within one "
    "size and source."
)
# Bonferroni: half-width at the level of all families together, relative to that of a single 95 % interval
_STRETCH = stats.norm.ppf(1 - 0.025 / (1 + len(FAMILIES))) / stats.norm.ppf(0.975)
_CONTROLS = {
    ("border", "only"): "the network is shown border and corners alone",
    ("border", "blank"): "border and corners are blanked",
    ("normalization", "unit"): "all backbones get [0, 1], not the values that they were trained on",
    ("weights", "random"): "the backbones were never trained",
}
_TABLE = ["what", "auroc", "low", "high", "n", "n_groups", "difference", "difference_low", "difference_high"]


class ShortcutAssessment(NamedTuple):
    """The result of `assess_shortcuts`."""

    # ``<model>/shortcuts.csv``: what (whole picture, border and corners alone, measures), auroc, low, high,
    # n, n_groups, difference (AUROC of the whole picture less this one) with its interval, paired by group
    table: pd.DataFrame
    border: Verdict  # whether border and corners predict the label
    surface: Verdict  # whether properties of the files do
    banner: str  # warning for the first page, if a shortcut is shown to score as high as the model


def list_controls(settings: Mapping[str, Any]) -> list[str]:
    """Return the settings that make a study a control, such as ``border = only``; usually none."""
    return [f"{name} = {value}" for name, value in _CONTROLS if settings.get(name) == value]


def describe_controls(settings: Mapping[str, Any]) -> str:
    """Return a sentence that a study is a control, and why; an empty text if it is not."""
    reasons = [
        f"{name} = {value} ({why})" for (name, value), why in _CONTROLS.items() if settings.get(name) == value
    ]
    if not reasons:
        return ""
    found = ", ".join(reasons)
    return f"Control study, no candidate: {found}. Its scores are only a yardstick for other studies."


def assess_border(entry: Mapping[str, Any] | None) -> Verdict:
    """Decide whether border and corners alone predict the label.

    Parameters
    ----------
    entry : mapping, optional
        Out-of-fold AUROC of all images, as from `variability.score_out_of_fold`; None where it was not
        measured.
    """
    if entry is None or entry["value"] is None:
        reason = "it was not measured out of fold (shortcuts = off, repeats = 0, or fewer than three folds)"
        return _predicts("border and corners alone", UNKNOWN, reason)
    verdict = _predicts(
        "border and corners alone, where markers sit,",
        compare_to_bound(entry, 0.5 + MARGIN),
        f"AUROC {describe(dict(entry))} out of fold",
    )
    if verdict.state == SHOWN:
        return Verdict(SHOWN, f"{verdict.sentence} WARNING: the images hold a shortcut.")
    return verdict


def _predicts(what: str, state: str, evidence: str) -> Verdict:
    """Word the verdict on whether something predicts the label."""
    start = what[0].upper() + what[1:]
    sentences = {
        SHOWN: f"{start} predict the label: {evidence}.",
        RULED_OUT: f"{start} do not predict the label by more than {MARGIN:g} above chance: {evidence}.",
        UNKNOWN: f"Whether {what} predict the label is not known: {evidence}.",
    }
    return Verdict(state, sentences[state])


def assess_surface(table: pd.DataFrame) -> Verdict:
    """Decide whether properties of files and corners predict the label.

    All measures together and their families decide, at a level corrected for their number (Bonferroni).
    Single measures only illustrate, as the best of many is high by chance.

    Parameters
    ----------
    table : DataFrame
        ``shortcuts.csv``.
    """
    what = "size, storage, exposure or corners of the files"
    deciding = table[table["kind"] != "single"]
    if deciding.empty:
        reason = "it was not measured (shortcuts = off, or too few folds with both classes)"
        return _predicts(what, UNKNOWN, reason)
    counts = f"n = {deciding['n'].iloc[0]} images of {deciding['n_groups'].iloc[0]} groups"
    states = np.array([_assess_row(row, _STRETCH) for _, row in deciding.iterrows()])
    if SHOWN in states:
        named = pd.concat([deciding[states == SHOWN].iloc[:4], _shown_singles(table).head(1)])
        scores = ", ".join(_describe_row(row) for _, row in named.iterrows())
        verdict = _predicts(what, SHOWN, f"AUROC out of fold of {scores}; {counts}")
        return Verdict(SHOWN, f"{verdict.sentence} {REMEDIES}")
    state = RULED_OUT if (states == RULED_OUT).all() else UNKNOWN
    return _predicts(what, state, f"AUROC out of fold of {_describe_row(deciding.iloc[0])}; {counts}")


def _assess_row(row: Mapping[str, Any], stretch: float = 1.0) -> str:
    """Return whether an AUROC lies above chance; `stretch` widens the lower half of its interval."""
    entry = _read_auroc(row)
    if entry["ci_low"] is not None:
        entry["ci_low"] = entry["value"] - stretch * (entry["value"] - entry["ci_low"])
    return compare_to_bound(entry, 0.5 + MARGIN)


def _read_auroc(row: Mapping[str, Any]) -> dict[str, Any]:
    return read_entry(row, "auroc", "low", "high")


def _describe_row(row: Mapping[str, Any]) -> str:
    alone = " alone" if row["kind"] == "single" else ""
    return f"{row['words']}{alone} {describe(_read_auroc(row))}"


def _shown_singles(table: pd.DataFrame) -> pd.DataFrame:
    """Return the single measures that are shown to predict the label, if their family is; the best first."""
    shown = {row["measure"] for _, row in table.iterrows() if _assess_row(row) == SHOWN}
    members = {column for name, columns in FAMILIES.items() if name in shown for column in columns}
    allowed = shown if ALL in shown else shown & members
    singles = table[(table["kind"] == "single") & table["measure"].isin(allowed)]
    return singles.sort_values("auroc", ascending=False)


def assess_shortcuts(
    model: str,
    whole: pd.DataFrame,
    border: pd.DataFrame,
    scores: pd.DataFrame,
    table: pd.DataFrame,
    shown: str = "keep",
) -> ShortcutAssessment:
    """Compare a model with what border and files alone reach, all out of fold, on the same images.

    Parameters
    ----------
    model : str
    whole, border : DataFrame
        ``predictions_oof.csv`` and ``predictions_border.csv``, from `resampling.cross_validate`.
    scores : DataFrame
        ``predictions_shortcuts.csv``, from `shortcuts.predict_by_surface`.
    table : DataFrame
        ``shortcuts.csv``.
    shown : {'keep', 'blank', 'only'}
        What the model itself was shown of the border; unless all of it, the study is a control.
    """
    surface, reference = assess_surface(table), {} if whole.empty else {"what": WHOLE} | score_auroc(whole)
    border_verdict, rows, reaching = _assess_control(shown, reference), [], {}
    for kind, words, predictions in _list_candidates(border, scores, table) if reference else ():
        row = _compare_with_whole(whole, predictions)
        if not row:
            continue
        rows.append({"what": words, "words": words, "kind": kind} | row)
        if kind == "border" and shown == "keep":
            state, sentence = assess_border(_read_auroc(row))
            border_verdict = Verdict(state, f"{sentence} {_describe_difference(row)}")
        predicts = _assess_row(row) == SHOWN and (kind == "border" or surface.state == SHOWN)
        if predicts and (row["auroc"] >= reference["low"] or not row["difference_low"] > 0):
            part = kind if kind in ("border", "single") else "family"  # the strongest of each is named
            reaching[part] = max(rows[-1], reaching.get(part, rows[-1]), key=lambda each: each["auroc"])
    banner = _describe_reaching(model, reaching.values(), reference) if shown == "keep" and reaching else ""
    compared = pd.DataFrame([reference, *rows] if reference else [], columns=_TABLE)
    return ShortcutAssessment(compared, border_verdict, surface, banner)


def _assess_control(shown: str, whole: dict[str, Any]) -> Verdict:
    """Return the verdict on the border without predictions from the border alone."""
    if shown == "blank":
        return Verdict(UNKNOWN, BLANKED)
    return assess_border(_read_auroc(whole) if shown == "only" and whole else None)


def _list_candidates(
    border: pd.DataFrame, scores: pd.DataFrame, table: pd.DataFrame
) -> list[tuple[str, str, pd.DataFrame]]:
    """Return kind, words and predictions (path, y_prob) of what is compared with the model.

    That is the border, all measures together, the two best families, and the best single measure.
    """
    candidates = [("border", BORDER, border[["path", "y_prob"]])] if len(border) else []
    if scores.empty:
        return candidates
    best = pd.concat([table[table["kind"] != "single"].head(3), _shown_singles(table).head(1)])
    return candidates + [
        (row.kind, row.words, scores[["path", row.measure]].set_axis(["path", "y_prob"], axis=1))
        for row in best.itertuples()
    ]


def _compare_with_whole(whole: pd.DataFrame, predictions: pd.DataFrame) -> dict[str, Any]:
    """Return the AUROC of a shortcut, and its difference to the whole picture on the same images."""
    both = whole.merge(predictions, on="path", suffixes=("", "_alone"))
    if both.empty or both["y_true"].nunique() < 2:
        return {}
    pair = {
        name: both[["path", "group", "y_true"]].assign(
            y_prob=both[column], y_pred=(both[column] >= 0.5).astype(int)
        )
        for name, column in (("whole", "y_prob"), ("alone", "y_prob_alone"))
    }
    compared = compare_pairs(pair).iloc[0]
    ends = {"difference": "difference", "difference_low": "ci_low", "difference_high": "ci_high"}
    return score_auroc(pair["alone"]) | {name: float(compared[key]) for name, key in ends.items()}


def _describe_difference(row: Mapping[str, Any]) -> str:
    low, high = row["difference_low"], row["difference_high"]
    if pd.isna(low):
        return "Whether the whole picture predicts better is not known: there are too few groups."
    by = f"difference of AUROC {row['difference']:+z.2f} ({low:+z.2f} to {high:+z.2f}), paired by group"
    if low > 0:
        return f"The whole picture predicts better: {by}."
    if high < MARGIN:
        return f"The whole picture predicts no better than that, within {MARGIN:g}: {by}."
    return f"It is not shown that the whole picture predicts better: {by}."


def _describe_reaching(model: str, rows: Iterable[Mapping[str, Any]], whole: Mapping[str, Any]) -> str:
    return (
        f"A shortcut reaches what {model} reaches: AUROC out of fold of "
        f"{'; '.join(_describe_row(row) for row in rows)}; of the network on whole pictures "
        f"{describe(_read_auroc(whole))}. Its score alone does not show that it sees fractures. {REMEDIES}"
    )


def describe_shortcuts(assessment: ShortcutAssessment) -> str:
    """Return both verdicts, and the banner if there is one, as sentences."""
    return " ".join(filter(None, (assessment.banner, shortcut_record(assessment)["verdict"])))


def shortcut_record(assessment: ShortcutAssessment) -> dict[str, str]:
    """Return the content of ``shortcuts_verdict.json``.

    That is border and surface (states), verdict and banner (sentences).
    """
    border, surface, banner = assessment.border, assessment.surface, assessment.banner
    verdict = f"{border.sentence} {surface.sentence}"
    if banner:  # which names the remedies
        verdict = verdict.replace(f" {REMEDIES}", "")
    return {"border": border.state, "surface": surface.state, "verdict": verdict, "banner": banner}


def read_shortcuts(
    folder: Path, models: Iterable[str], stale: Iterable[str] = ()
) -> dict[str, dict[str, str]]:
    """Return ``shortcuts_verdict.json`` by model, for models that have one which is not in `stale`."""
    paths, stale = {name: f"{name}/{FILE}" for name in models}, set(stale)
    return {
        name: read_json(folder / path)
        for name, path in paths.items()
        if path not in stale and (folder / path).exists()
    }
