"""Scores by exam: the images of one examination pooled, beside the scores by image."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from xray_helpers.evaluation.comparison import flatten_metrics
from xray_helpers.evaluation.exam_pooling import fit_attention, pool_exams
from xray_helpers.evaluation.intervals import (
    describe,
    describe_count,
    flatten_entry,
    read_entry,
    unflatten_entry,
)
from xray_helpers.evaluation.metrics import METRICS, compute_metrics, evaluate
from xray_helpers.evaluation.operating_point import choose_operating_point, describe_choice
from xray_helpers.evaluation.paired import compare_pairs, describe_pairs, pairs_table
from xray_helpers.settings import Settings, class_names
from xray_helpers.study.files import build_table, read_csv, read_json

OVERALL = "overall"
NO_EXAMS = "No exams are known, so there are no scores by exam."
POOLED = {
    "mean": "the mean of its images' probabilities",
    "max": "the largest of its images' probabilities",
    "attention": "a mean of its images' probabilities, weighted by an attention learned on validation",
}
_PREDICTIONS = {
    "path": "string",
    "group": "string",
    "images": "int64",
    "body_part": "string",
    "y_true": "int64",
    "y_prob": "float64",
    "y_pred": "int64",
    "y_mean": "float64",
}
_KAPPAS = ("kappa_mean", "kappa")  # at 0.5 by the mean of the images, as MURA's; by the study's own rule
_KAPPA = ["body_part", "n", "n_groups", "fractured"] + [
    f"{name}{end}" for name in _KAPPAS for end in ("", "_low", "_high", "_reason")
]
_SHOWN = ("auroc", "accuracy", "recall", "specificity", "kappa")


class ExamScores(NamedTuple):
    """What is known of a model by exam; empty tables where no exams are.

    Attributes
    ----------
    scores : dict
        ``metrics_exams.json``: the scores of `metrics.evaluate` by exam, with exams, images and unknown
        (numbers in test), how (the pooling asked for), pooling (what attention learned), threshold_choice
        (a sentence), kappa_mean (Cohen's kappa as the paper of MURA has it). Where there are none, exams and
        reason alone.
    predictions : DataFrame
        ``predictions_exams.csv``, of test: path (of an exam's first image), group, images, body_part, y_true,
        y_prob, y_pred (at the threshold for exams), y_mean (the mean of the images' probabilities).
    kappa : DataFrame
        ``kappa_exams.csv``, of `score_kappa`.
    """

    scores: dict[str, Any]
    predictions: pd.DataFrame
    kappa: pd.DataFrame


def evaluate_exams(
    parts: dict[str, pd.DataFrame],
    manifest: pd.DataFrame,
    chosen: dict[str, Any],
    how: str = "mean",
    *,
    seed: int,
    leak: float = 0.0,
) -> ExamScores:
    """Evaluate a model by exam.

    The threshold for exams is chosen by the study's rule on the exams of those images on which that for
    images was chosen: validation, or train and validation out of fold where these have more sources. Test
    exams inform nothing.

    Parameters
    ----------
    parts : dict
        ``test``, ``validation`` and ``threshold`` (on which the threshold for images was chosen) to
        predictions of images: path, group, y_true, y_prob.
    manifest : DataFrame
        path, exam, and body_part where it is known.
    chosen : dict
        ``threshold.json`` of the images: rule and target_sensitivity.
    how : {'mean', 'max', 'attention'}
    seed : int
        Of the folds by which attention is judged.
    leak : float
        As for `metrics.evaluate`.
    """
    rows = manifest.set_index("path")
    exam = rows["exam"] if "exam" in rows else pd.Series(pd.NA, rows.index, dtype="string")
    test, validation = parts["test"], parts["validation"]
    known = test["path"].map(exam).dropna()
    if known.empty:
        return _none(0, NO_EXAMS)
    attention, evidence = None, {}
    if how == "attention":
        attention, evidence = fit_attention(validation, exam, seed=seed)
    pooled = {name: pool_exams(part, exam, how, attention) for name, part in parts.items()}
    exams = pooled["test"]
    lacking = [name for name in ("test", "validation") if set(pooled[name]["y_true"]) != {0, 1}]
    if lacking:
        reason = f"There are no scores by exam: the known exams of {lacking[0]} are not of both classes."
        return _none(len(exams), reason)
    settings = Settings(threshold_rule=chosen["rule"], target_sensitivity=chosen["target_sensitivity"])
    point, _ = choose_operating_point(pooled["validation"], pooled["threshold"], settings)
    mean = exams if how == "mean" else pool_exams(test, exam)
    exams["y_mean"] = mean["y_prob"]
    exams["y_pred"] = (exams["y_prob"] >= point["threshold"]).astype(int)
    exams["body_part"] = _body_parts(rows, exam, exams["path"])
    kappa = score_kappa(exams)
    counts = {"exams": len(exams), "images": len(known), "unknown": len(test) - len(known)}
    scores = evaluate(exams, pooled["validation"], point, leak=leak)
    scores |= counts | {"how": how, "pooling": evidence, "threshold_choice": describe_choice(point)}
    scores["kappa_mean"] = read_entry(kappa.iloc[-1], *(f"kappa_mean{end}" for end in ("", "_low", "_high")))
    return ExamScores(scores, exams[[*_PREDICTIONS]].astype(_PREDICTIONS), kappa)


def _none(exams: int, reason: str) -> ExamScores:
    empty = build_table([], _PREDICTIONS)
    return ExamScores({"exams": exams, "reason": reason}, empty, build_table([], _KAPPA))


def _body_parts(rows: pd.DataFrame, exam: pd.Series, first: pd.Series) -> pd.Series:
    """Return the body part of each exam, known by its first path; ``several`` where its images differ."""
    if "body_part" not in rows:
        return pd.Series(pd.NA, first.index, dtype="string")
    of_exam = rows["body_part"].astype("string").groupby(exam)
    part = of_exam.first().mask(of_exam.nunique().ge(2), "several")
    return first.map(exam).map(part).astype("string")


def score_kappa(exams: pd.DataFrame) -> pd.DataFrame:
    """Score exams by Cohen's kappa of calls and truth, for each body part and overall.

    As in the paper of MURA (Rajpurkar et al. 2017, arXiv 1712.06957), which calls an exam abnormal where the
    arithmetic mean of its views' probabilities exceeds 0.5; beside it at the study's own threshold.

    Parameters
    ----------
    exams : DataFrame
        `ExamScores.predictions`.

    Returns
    -------
    DataFrame
        body_part (the last is ``overall``), n, n_groups, fractured (exams), kappa_mean and kappa, each with
        ``_low``, ``_high`` (95 %, by groups) and ``_reason`` (why it, or its interval, is not known).
    """
    named = exams["body_part"].fillna("not stated")
    parts = dict(iter(exams.groupby(named))) if exams["body_part"].notna().any() else {}
    rows = []
    for name, part in (parts | {OVERALL: exams}).items():
        row = {"body_part": name, "n": len(part), "n_groups": part["group"].nunique()}
        row["fractured"] = int(part["y_true"].sum())
        for column, score, threshold in (("kappa_mean", "y_mean", 0.5), ("kappa", "y_pred", 0.5)):
            entry = compute_metrics(part["y_true"], part[score], threshold, part["group"])["kappa"]
            row |= flatten_entry(column, entry, missing=np.nan) | {
                f"{column}_reason": entry.get("reason", "")
            }
        rows.append(row)
    return pd.DataFrame(rows, columns=_KAPPA)


def kappa_table(kappa: pd.DataFrame, threshold: float) -> pd.DataFrame:
    """Return the rows of `score_kappa` as text: body part, exams, fractured, and both kappas."""

    def texts(name: str) -> list[str]:
        reasons = kappa[f"{name}_reason"].fillna("")
        rows = zip(kappa.to_dict("records"), reasons, strict=True)
        return [describe(unflatten_entry(row, name) | {"reason": reason}, 3) for row, reason in rows]

    return pd.DataFrame(
        {
            "body part": kappa["body_part"],
            "exams": kappa["n"],
            class_names()[1].lower(): kappa["fractured"],
            "kappa, mean of the images at 0.5": texts("kappa_mean"),
            f"kappa, this study's score at {threshold:.2f}": texts("kappa"),
        }
    )


def exam_metrics_table(scores: dict[str, Any], images: dict[str, Any]) -> pd.DataFrame:
    """Return one row per metric as text: by exam on test and validation, and by image on test.

    Parameters
    ----------
    scores, images : dict
        ``metrics_exams.json`` and ``metrics.json``.
    """
    rows = []
    for name, metric in METRICS.items():
        row = {"metric": metric.title, "exams, test": _by_exam(scores[name])}
        row |= {"images, test": describe(images[name])}
        rows.append(row | {"exams, validation": _by_exam(scores["validation"][name])})
    return pd.DataFrame(rows)


def _by_exam(entry: dict[str, Any]) -> str:
    return describe(entry).replace("image", "exam")


def describe_pooling(scores: dict[str, Any]) -> str:
    """Return how exams were scored from their images, and on what their threshold was chosen."""
    unknown = f" {scores['unknown']} test images belong to no known exam." if scores["unknown"] else ""
    learned = scores["pooling"].get("sentence", "")
    pooled = POOLED[scores["how"] if scores["pooling"].get("kept", True) else "mean"]
    return (
        f"An exam's probability is {pooled}; by the reference standard it is "
        f"{class_names()[1]} if any of its images is. {learned}{' ' if learned else ''}The threshold for "
        f"exams is {scores['threshold']:.2f} ({scores['threshold_rule']}). {scores['threshold_choice']}"
        f"{unknown}"
    )


def describe_exam_scores(model: str, scores: dict[str, Any]) -> str:
    """Return a model's main scores by exam in a sentence, or why there are none."""
    if "reason" in scores:
        return scores["reason"]
    names = {"sensitivity": "recall", "specificity": "specificity", "Cohen's kappa": "kappa"}
    at = ", ".join(f"{word} {_by_exam(scores[name])}" for word, name in names.items())
    return (
        f"By exam, on {describe_count(scores, 'test exams')} ({scores['images']} images), {model} has AUROC "
        f"{_by_exam(scores['auroc'])}; at the threshold for exams {at}."
    )


def describe_exams_of(folder: Path, model: str) -> str:
    """Return `describe_exam_scores` of a model of a study; empty where there are no scores by exam."""
    scores = read_json(folder / model / "metrics_exams.json", default={"reason": NO_EXAMS})
    return "" if "reason" in scores else describe_exam_scores(model, scores)


def show_exams(model: str, found: ExamScores, images: dict[str, Any]) -> list[pd.DataFrame | str]:
    """Return what a report shows of a model by exam: one sentence where no exams are known."""
    text = describe_exam_scores(model, found.scores)
    if "reason" in found.scores:
        return [text]
    caption = (
        "Cohen's kappa by exam with 95 % intervals by groups, as the paper of MURA gives it (Rajpurkar et "
        "al. 2017): an exam is called where the arithmetic mean of its images' probabilities reaches 0.5. "
        "Beside it the same at this study's own threshold for exams."
    )
    table = kappa_table(found.kappa, found.scores["threshold"])
    return [describe_pooling(found.scores), exam_metrics_table(found.scores, images), text, caption, table]


def compare_exams(study: Path, models: list[str]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Compare models by exam, and beside it by image.

    Returns
    -------
    table : DataFrame
        Two rows per model, level ``exams`` and ``images``: model, level, the columns of
        `comparison.flatten_metrics`, and kappa_mean with ``_low`` and ``_high``. Empty where no exams are
        known.
    pairs : DataFrame
        Of `paired.compare_pairs`, on the exams.
    """
    rows, predictions = [], {}
    for name in models:
        by_exam = read_json(study / name / "metrics_exams.json", default={"reason": NO_EXAMS})
        if "reason" in by_exam:
            continue
        mean = flatten_entry("kappa_mean", by_exam["kappa_mean"], missing=np.nan)
        levels = {"exams": by_exam, "images": read_json(study / name / "metrics.json")}
        for level, scores in levels.items():
            row = {"model": name, "level": level} | flatten_metrics(scores)
            rows.append(row | (mean if level == "exams" else {}))
        predictions[name] = read_csv(study / name / "predictions_exams.csv")
    if not rows:
        return build_table([], ["model", "level"]), build_table([], ["first", "second"])
    return pd.DataFrame(rows), compare_pairs(predictions)


def show_compared_exams(table: pd.DataFrame, pairs: pd.DataFrame, chosen: str) -> list[pd.DataFrame | str]:
    """Return what a report shows of models compared by exam: one sentence where no exams are known.

    Parameters
    ----------
    table, pairs : DataFrame
        Of `compare_exams`.
    chosen : str
        The model whose differences are described.
    """
    if table.empty:
        return [NO_EXAMS]
    exams = table[table["level"] == "exams"]
    rows = []
    for row in table.to_dict("records"):
        by = "exam" if row["level"] == "exams" else "image"
        text = {"model": row["model"], "by": by}
        text |= {METRICS[name].title: _short(row, name) for name in _SHOWN}
        mean = _short(row, "kappa_mean") if by == "exam" else ""
        rows.append(text | {"kappa at 0.5 (MURA)": mean, "n": f"{row['n']} {by}s, {row['n_groups']} groups"})
    results = ["**By exam**, and beside it by image, each at its own threshold:", pd.DataFrame(rows)]
    if len(pairs):
        results += [pairs_table(pairs)]
    if chosen in set(exams["model"]) and len(exams) > 1:
        results += [f"By exam: {describe_pairs(pairs, chosen)}"]
    return results


def _short(row: dict[str, Any], name: str) -> str:
    return describe(unflatten_entry(row, name)).split(" (no interval")[0].split(" (not known")[0]
