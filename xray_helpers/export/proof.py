"""What an export costs: size, time and memory, and every decision that it changes on the test images.

Both models see the same pictures, so all differences are paired. An export is marked `DO_NOT_USE` where it
loses more of a score than the margin and chance alone does not explain that: the whole 95 % interval of the
loss lies above 0, or there are too few groups for an interval, so that the measured loss has to do. It is
`FINE` where every loss is ruled out to reach the margin, or where no probability moves by `SAME`. In between
it is not known.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from xray_helpers.evaluation.calibration import evaluate_calibration_error, fit_slope
from xray_helpers.evaluation.external import TITLES, describe_signed
from xray_helpers.evaluation.intervals import (
    TOO_FEW,
    encode_groups,
    flatten_entry,
    grouped_proportion,
    has_few_groups,
    interval_entry,
    no_interval,
)
from xray_helpers.evaluation.paired import compare_by_group, difference_interval
from xray_helpers.evaluation.verdict import RULED_OUT, SHOWN, compare_to_bound
from xray_helpers.export.alone import ProcessError, run_alone
from xray_helpers.export.bundle import EXPORT, write_bundle
from xray_helpers.export.formats import FORMATS, KERAS, Converter, choose_formats
from xray_helpers.export.runtimes import measure
from xray_helpers.models.head import as_probabilities, build_predictions
from xray_helpers.models.out_of_distribution import OODDetector, feature_distance
from xray_helpers.settings import InputError
from xray_helpers.study.files import read_json
from xray_helpers.study.machine import cores

DO_NOT_USE, FINE, UNKNOWN = "do not use", "may be used", "not known"
SAME = 0.001  # with smaller differences of all probabilities, a model counts as the same
_COSTS = ("mib", "one_thread", "all_threads", "memory")


def convert_formats(study: Path, model: str, to: list[str], *, int8: bool) -> dict[str, str]:
    """Convert a model to formats, each in a process of its own, the original first.

    Returns
    -------
    dict
        By the name of each format an empty text, or why it could not be converted.

    Raises
    ------
    InputError
        As `choose_formats`.
    """
    chosen, reasons = choose_formats(to, int8=int8), {}
    with Converter(study, model) as converter:
        for form in (KERAS, *(one for one in chosen if one != KERAS)):
            print(f"converting to {form.name}")
            try:
                converter.convert(form, study / model / EXPORT / form.name)
                reasons[form.name] = ""
            except InputError as error:
                reasons[form.name] = str(error)
    return reasons


def measure_formats(
    study: Path, model: str, reasons: dict[str, str], pixels: np.ndarray
) -> tuple[pd.DataFrame, dict[str, tuple[np.ndarray, np.ndarray]]]:
    """Measure what each converted file costs, and what it answers.

    Parameters
    ----------
    study : Path
    model : str
    reasons : dict
        Of `convert_formats`; a reason is added where a file does not run.
    pixels : ndarray of uint8, shape (n, height, width)
        The test images.

    Returns
    -------
    costs : DataFrame
        format, mib, one_thread and all_threads (milliseconds for a picture), memory (MiB).
    answers : dict
        By format: outputs (n, 1) or (n, k), and features (n, d).
    """
    place, rows, answers = study / model / EXPORT, [], {}
    pictures, out = place / "pictures.npy", place / "answers.npz"
    np.save(pictures, pixels)
    try:
        for name in [name for name, reason in reasons.items() if not reason]:
            print(f"measuring {name}")
            file = place / name / FORMATS[name].file
            values = {"name": name, "file": file, "pictures": pictures}
            try:
                one = run_alone(measure, **values, threads=1, out=out)
                every = run_alone(measure, **values, threads=cores())
            except ProcessError as error:
                reasons[name] = f"{name} was written, but does not run: {error}"
                continue
            size = sum(part.stat().st_size for part in file.parent.glob(f"{file.stem}.*")) / 2**20
            with np.load(out) as found:
                answers[name] = found["outputs"], found["features"]
            rows.append((name, size, one["milliseconds"], every["milliseconds"], one["memory"]))
    finally:
        for path in (pictures, out):
            path.unlink(missing_ok=True)
    return pd.DataFrame(rows, columns=["format", *_COSTS]), answers


def compare_formats(
    study: Path,
    model: str,
    test: pd.DataFrame,
    answers: dict[str, tuple[np.ndarray, np.ndarray]],
    margin: float,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Compare each format with the original on the same test images.

    Parameters
    ----------
    study : Path
    model : str
    test : DataFrame
        Of `parts.used_part`.
    answers : dict
        Of `measure_formats`.
    margin : float
        The loss of AUROC, sensitivity or specificity that is accepted.

    Returns
    -------
    scores : DataFrame
        One row per format: format, n, n_groups, largest, mean (differences of P(positive)), auroc, recall and
        specificity (the loss of each, with ``_low`` and ``_high``), flips (decisions that differ), unlike
        (images whose warning differs), calibration_error and slope, verdict, why.
    flips : DataFrame
        format, path, y_true, before, after (probabilities), called_before, called_after; most changed first.
    """
    threshold = float(read_json(study / model / "threshold.json")["threshold"])
    detector, tables, unlike = OODDetector.load(study / model / "familiarity.npz"), {}, {}
    for name, (outputs, features) in answers.items():
        tables[name] = build_predictions(test, as_probabilities(outputs), threshold)
        unlike[name] = feature_distance(features, detector.features) > detector.limit
    before, rows, flips = tables[KERAS.name], [], []
    for name, after in tables.items():
        change = (after["y_prob"] - before["y_prob"]).abs()
        losses = measure_losses(before, after)
        verdict, why = judge(losses, float(change.max()), margin)
        row = {"format": name, "n": len(test), "n_groups": test["group"].nunique()}
        row |= {"largest": change.max(), "mean": change.mean()}
        for score, entry in losses.items():
            row |= flatten_entry(score, entry)
        flipped = after["y_pred"] != before["y_pred"]
        row |= {"flips": int(flipped.sum()), "unlike": int((unlike[name] != unlike[KERAS.name]).sum())}
        row |= {"calibration_error": evaluate_calibration_error(after)["value"]}
        row |= {"slope": fit_slope(after)["slope"]["value"], "verdict": verdict, "why": why}
        rows.append(row)
        columns = {"format": name, "before": before["y_prob"], "after": after["y_prob"]}
        columns |= {"called_before": before["y_pred"], "called_after": after["y_pred"], "change": change}
        flips.append(test[["path", "y_true"]].assign(**columns)[flipped])
    found = pd.concat(flips).sort_values(["format", "change"], ascending=[True, False], ignore_index=True)
    columns = ["format", "path", "y_true", "before", "after", "called_before", "called_after"]
    return pd.DataFrame(rows), found[columns]


def measure_losses(before: pd.DataFrame, after: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """Return by how much AUROC, sensitivity and specificity fall, as entries; less than 0 where they rise.

    Parameters
    ----------
    before, after : DataFrame
        y_true, y_prob, y_pred, group of the same images.
    """
    y, codes = before["y_true"].to_numpy(int), encode_groups(before["group"])
    if len(set(y.tolist())) < 2:
        auroc = no_interval(None, "one class only")
    else:
        parts = compare_by_group(y, *(each["y_prob"].to_numpy(float) for each in (before, after)), codes)
        value = float(parts.sum())
        few = has_few_groups(y, codes)
        ends = () if few else difference_interval(parts, [y], codes)[:2]
        auroc = no_interval(value, TOO_FEW) if few else interval_entry(value, *ends, "sign flips of groups")
    rates = {
        score: _lose_rate(before, after, y == label) for score, label in (("recall", 1), ("specificity", 0))
    }
    return {"auroc": auroc} | rates


def _lose_rate(before: pd.DataFrame, after: pd.DataFrame, part: np.ndarray) -> dict[str, Any]:
    """Return the loss of a rate: images that turn wrong less those that turn right, paired and by groups.

    The interval is made of those of the two shares (Zou and Donner 2008), which leaves it an end other than 0
    where no image flips.
    """
    right = [(each["y_pred"] == each["y_true"]).to_numpy()[part] for each in (before, after)]
    group = before["group"].to_numpy()[part]
    lost = grouped_proportion(right[0] & ~right[1], group)
    won = grouped_proportion(~right[0] & right[1], group)
    if lost["value"] is None:
        return no_interval(None, "no image of the class")
    value = lost["value"] - won["value"]
    if lost["ci_low"] is None or won["ci_low"] is None:
        return no_interval(value, TOO_FEW)
    low = value - np.hypot(lost["value"] - lost["ci_low"], won["ci_high"] - won["value"])
    high = value + np.hypot(lost["ci_high"] - lost["value"], won["value"] - won["ci_low"])
    return interval_entry(value, low, high, "of two shares, Zou and Donner")


def judge(losses: dict[str, dict[str, Any]], largest: float, margin: float) -> tuple[str, str]:
    """Return the verdict on an export, and why, in a sentence.

    Parameters
    ----------
    losses : dict
        Of `measure_losses`.
    largest : float
        The largest difference of a probability.
    margin : float
    """
    known = {score: entry for score, entry in losses.items() if entry["value"] is not None}
    if not np.isfinite(largest):
        return DO_NOT_USE, "It gives no probability for some images."
    if largest < SAME:
        return FINE, f"No probability differs by {SAME:g} or more: it counts as the same model."
    worse = {
        score: entry
        for score, entry in known.items()
        if entry["value"] > margin and (entry["ci_low"] is None or compare_to_bound(entry, 0.0) == SHOWN)
    }
    if worse:
        why = f"It loses more than {margin:g} of {_tell(worse)}."
        if bare := [TITLES[score] for score, entry in worse.items() if entry["ci_low"] is None]:
            why += f" No interval could be computed for {', '.join(bare)}: the measured loss alone decides."
        return DO_NOT_USE, why
    open_ = {score: entry for score, entry in known.items() if compare_to_bound(entry, margin) != RULED_OUT}
    if open_ or not known:
        told = _tell(open_) or "any score, as the test images are of one class"
        return UNKNOWN, f"These images cannot rule out a loss of {margin:g} or more of {told}."
    return FINE, f"A loss of {margin:g} or more is ruled out: {_tell(known)}."


def _tell(losses: dict[str, dict[str, Any]]) -> str:
    return ", ".join(f"{TITLES[score]} {describe_signed(entry)}" for score, entry in losses.items())


def hand_over(study: Path, model: str, costs: pd.DataFrame, scores: pd.DataFrame) -> dict[str, Any]:
    """Complete the folder of each format, and return what ``results.json`` keeps: a row for each."""
    joined = costs.merge(scores, on="format").astype(object)
    rows = joined.where(joined.notna(), None).to_dict("records")
    for row in rows:
        write_bundle(study, model, FORMATS[row["format"]], row)
    return {row["format"]: row for row in rows}
