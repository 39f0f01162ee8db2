"""A model on a set from elsewhere against its own test part: what is lost, by the threshold and by the order.

The images of both sets are independent: no group is in both. The loss in balanced accuracy is split in two:
what the best threshold there, chosen by the study's own rule and cross-fitted, would win back, and the rest,
which no threshold can win back, as the order of the images is worse.
"""

from typing import Any

import numpy as np
import pandas as pd
from sklearn.model_selection import StratifiedGroupKFold

from xray_helpers.evaluation import influence
from xray_helpers.evaluation.gaps import MARGIN, measure_gaps
from xray_helpers.evaluation.intervals import (
    TOO_FEW,
    compute_group_statistics,
    describe,
    describe_count,
    encode_groups,
    flatten_entry,
    has_few_groups,
    mean_interval,
    no_interval,
    predictive_values,
    unflatten_entry,
)
from xray_helpers.evaluation.metrics import compute_metrics
from xray_helpers.evaluation.thresholds import choose_threshold
from xray_helpers.evaluation.verdict import RULED_OUT, SHOWN, UNKNOWN, compare_to_bound
from xray_helpers.study.seeds import derive_seed

FOLDS = 5
REPORTED = ("auroc", "recall", "specificity", "balanced_accuracy", "precision", "npv", "brier")
TITLES = {"auroc": "AUROC", "recall": "sensitivity", "specificity": "specificity"}
HERE, THERE, OWN = "own test part", "there", "there, at a threshold of its own"
LEFT_OUT, INCLUDED, ALONE = "without shared images", "with shared images", "shared images alone"


def score_sets(predictions: pd.DataFrame, threshold: float, *, keep_shared: bool = False) -> pd.DataFrame:
    """Score a model on an external set without the images that the study shares, with them, and on these.

    Parameters
    ----------
    predictions : DataFrame
        y_true, y_prob, group, excluded.
    threshold : float
        Of the study.
    keep_shared : bool
        Whether the row with shared images comes first, as the one that counts.

    Returns
    -------
    DataFrame
        images (`LEFT_OUT`, and where something is shared `INCLUDED` and `ALONE`), n, n_groups, n_effective,
        prevalence, threshold, tp, fp, tn, fn, and `REPORTED`, each with ``_low`` and ``_high`` (95 %).
    """
    excluded = predictions["excluded"].to_numpy(bool)
    sets = {LEFT_OUT: ~excluded}
    if excluded.any():
        sets |= {INCLUDED: np.ones(len(excluded), bool), ALONE: excluded}
    rows, first = [], INCLUDED if keep_shared else LEFT_OUT
    for name, chosen in sorted(sets.items(), key=lambda item: item[0] != first):
        part = predictions[chosen]
        if not len(part):
            continue
        scores = compute_metrics(part["y_true"], part["y_prob"], threshold, part["group"])
        row = {"images": name}
        keys = ("n", "n_groups", "n_effective", "prevalence", "threshold", *influence.CELLS)
        row |= {key: scores[key] for key in keys}
        for metric in REPORTED:
            row |= flatten_entry(metric, scores[metric], missing=np.nan)
        rows.append(row)
    return pd.DataFrame(rows)


def compare_sets(internal: pd.DataFrame, external: pd.DataFrame, threshold: float) -> pd.DataFrame:
    """Return the scores of an external set less those of the study's test part, for independent groups.

    Parameters
    ----------
    internal, external : DataFrame
        path, group, y_true, y_prob.
    threshold : float

    Returns
    -------
    DataFrame
        Of `gaps.measure_gaps`: score (auroc, recall, specificity), gap, ci_low, ci_high, p, p_holm, reason.
    """
    both = []
    for name, part in (("external", external), ("internal", internal)):
        marked = part[["y_true", "y_prob"]].assign(
            path=f"{name}/" + part["path"], group=f"{name}/" + part["group"].astype(str), set=name
        )
        both.append(marked)
    table = pd.concat(both, ignore_index=True)
    return measure_gaps(table.drop(columns="set"), table[["path", "set"]], ["set"], threshold)


def choose_own_thresholds(
    predictions: pd.DataFrame, chosen: dict[str, Any], seed: int = 0, column: str = "y_prob"
) -> np.ndarray:
    """Return for each image the threshold that the images of other groups of its set would choose.

    Parameters
    ----------
    predictions : DataFrame
        y_true, `column`, group.
    chosen : dict
        ``threshold.json``: rule (a fixed threshold becomes Youden's) and target_sensitivity.
    seed : int
    column : str

    Returns
    -------
    ndarray of float, shape (n,)
        NaN where there are too few groups to make folds.
    """
    thresholds = np.full(len(predictions), np.nan)
    rule = "youden" if chosen["rule"] == "fixed" else chosen["rule"]
    for rest, held in split_groups(predictions, seed):
        part = predictions.iloc[rest]
        options = (rule, chosen.get("target_sensitivity", 0.95), part["group"].to_numpy())
        thresholds[held] = choose_threshold(part["y_true"].to_numpy(), part[column].to_numpy(), *options)
    return thresholds


def split_groups(predictions: pd.DataFrame, seed: int = 0) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return up to five folds by group, stratified by class: positions to fit on, and to judge on."""
    y = predictions["y_true"].to_numpy()
    groups = encode_groups(predictions["group"])
    fewest = min((len(np.unique(groups[y == label])) for label in (0, 1)), default=0)
    if fewest < 2:
        return []
    folds = StratifiedGroupKFold(
        min(FOLDS, fewest), shuffle=True, random_state=derive_seed(seed, "external folds")
    )
    parts = list(folds.split(np.zeros(len(y)), y, groups))
    return [(rest, held) for rest, held in parts if len(set(y[rest])) == 2]


def split_loss(
    internal: pd.DataFrame, external: pd.DataFrame, chosen: dict[str, Any], seed: int = 0
) -> pd.DataFrame:
    """Split what a model loses elsewhere in what the threshold and what the order of images is to blame for.

    Parameters
    ----------
    internal, external : DataFrame
        y_true, y_prob, group.
    chosen : dict
        ``threshold.json``.
    seed : int

    Returns
    -------
    DataFrame
        what (`HERE`, `THERE`, `OWN`, then ``lost``, ``lost by the threshold``, ``lost by the order``),
        recall, specificity and balanced_accuracy with ``_low`` and ``_high`` (95 %); of the last three rows
        balanced_accuracy alone, a difference. Their threshold part is paired, as it is of the same images.
    """
    threshold = float(chosen["threshold"])
    own = choose_own_thresholds(external, chosen, seed)
    calls = {
        HERE: (internal, internal["y_prob"].to_numpy() >= threshold),
        THERE: (external, external["y_prob"].to_numpy() >= threshold),
    }
    if np.isfinite(own).all():
        calls[OWN] = (external, external["y_prob"].to_numpy() >= own)
    rows, values = [], {}
    for name, (table, called) in calls.items():
        scores = compute_metrics(table["y_true"], called.astype(float), 0.5, table["group"])
        row = {"what": name, "n": scores["n"], "n_groups": scores["n_groups"]}
        for metric in ("recall", "specificity", "balanced_accuracy"):
            row |= flatten_entry(metric, scores[metric], missing=np.nan)
        rows.append(row)
        values[name] = _balanced_accuracy(table, called)
    lost = {"lost": (HERE, THERE)}
    if OWN in calls:
        lost |= {"lost by the threshold": (OWN, THERE), "lost by the order": (HERE, OWN)}
    for name, (first, second) in lost.items():
        entry = _subtract(values[first], values[second], paired=first != HERE)
        rows.append({"what": name} | flatten_entry("balanced_accuracy", entry, missing=np.nan))
    return pd.DataFrame(rows)


def _balanced_accuracy(table: pd.DataFrame, called: np.ndarray) -> tuple:
    """Return balanced accuracy, the influence of each image, groups and classes."""
    y, codes = table["y_true"].to_numpy(int), encode_groups(table["group"])
    cells = np.where(called, np.where(y == 1, 0, 1), np.where(y == 1, 3, 2))
    value, added = influence.of_counts(influence.balanced_accuracy, cells, np.ones(len(y)))
    return value, added, codes, y


def _subtract(first: tuple, second: tuple, *, paired: bool) -> dict[str, Any]:
    """Return the entry of a difference, of the same images or of independent ones."""
    value = first[0] - second[0]
    if not np.isfinite(value):
        return no_interval(None, "one class only")
    if has_few_groups(first[3], first[2]) or has_few_groups(second[3], second[2]):
        return no_interval(value, TOO_FEW)
    if paired:
        added, codes, strata = first[1] - second[1], first[2], first[3]
    else:
        added = np.concatenate([first[1], -second[1]])
        codes = np.concatenate([first[2], second[2] + first[2].max() + 1])
        strata = np.repeat([0, 1], [len(first[1]), len(second[1])])
    return mean_interval(value, compute_group_statistics(added, codes, strata))


def transport_predictive_values(scores: pd.DataFrame, prevalence: float) -> list[dict[str, str]]:
    """Return PPV and NPV there, and what the rates there would give at the study's own prevalence.

    Parameters
    ----------
    scores : DataFrame
        Of `score_sets`.
    prevalence : float
        Of the study's test part.
    """
    row = scores.iloc[0].to_dict()
    rows = [
        {
            "prevalence": f"{row['prevalence']:.0%}, as there",
            "PPV": describe(unflatten_entry(row, "precision")),
            "NPV": describe(unflatten_entry(row, "npv")),
            "n": describe_count(row),
        }
    ]
    rates = (unflatten_entry(row, "recall"), unflatten_entry(row, "specificity"))
    found = predictive_values(*rates, prevalence)
    at = {"prevalence": f"{prevalence:.0%}, as in the study"}
    return [*rows, at | {"PPV": describe(found["ppv"]), "NPV": describe(found["npv"]), "n": rows[0]["n"]}]


def loss_table(loss: pd.DataFrame) -> list[dict[str, str]]:
    """Return the table of `split_loss` as text."""
    rows = []
    for row in loss.to_dict("records"):
        is_score = pd.notna(row.get("recall"))
        rows.append(
            {
                "": row["what"],
                "sensitivity": describe(unflatten_entry(row, "recall")) if is_score else "",
                "specificity": describe(unflatten_entry(row, "specificity")) if is_score else "",
                "balanced accuracy": describe(unflatten_entry(row, "balanced_accuracy")),
                "n": f"{row['n']:.0f} in {row['n_groups']:.0f} groups" if is_score else "",
            }
        )
    return rows


def judge_difference(row: dict[str, Any], margin: float = MARGIN) -> str:
    """Return whether a score is lower elsewhere: shown, ruled out by more than the margin, or not known."""
    low, high = row.get("ci_low"), row.get("ci_high")
    if pd.isna(low) or pd.isna(high):
        return UNKNOWN
    if high < 0:
        return SHOWN
    return RULED_OUT if low > -margin else UNKNOWN


def describe_difference(model: str, gaps: pd.DataFrame, scores: pd.DataFrame) -> str:
    """Return how a model fares elsewhere against its own test part, by AUROC, in sentences.

    Parameters
    ----------
    model : str
    gaps : DataFrame
        Of `compare_sets`.
    scores : DataFrame
        Of `score_sets`.
    """
    row = scores.iloc[0].to_dict()
    text = (
        f"{model} has AUROC {describe(unflatten_entry(row, 'auroc'))} there, on "
        f"{describe_count(row)}, sensitivity {describe(unflatten_entry(row, 'recall'))} and specificity "
        f"{describe(unflatten_entry(row, 'specificity'))} at the threshold of the study"
    )
    told = []
    for gap in gaps.to_dict("records"):
        title, state = TITLES[gap["score"]], judge_difference(gap)
        entry = describe_signed(gap | {"value": gap["gap"]})
        if state == SHOWN:
            told.append(f"{title} is lower than on the study's own test part: {entry}")
        elif state == RULED_OUT:
            told.append(f"{title} is not lower by {MARGIN:g} or more: {entry}")
        else:
            told.append(f"whether {title} is lower is not known: {entry}")
    sentence = "; ".join(told)
    return f"{text}. {sentence[:1].upper()}{sentence[1:]}."


def describe_signed(entry: dict[str, Any]) -> str:
    """Return a difference with its sign and interval, such as ``-0.08 (-0.15 to -0.01)``."""
    value, low, high = entry["value"], entry.get("ci_low"), entry.get("ci_high")
    if value is None or pd.isna(value):
        return f"not defined: {entry.get('reason') or 'not known'}"
    if low is None or pd.isna(low):
        return f"{value:+z.2f} (no interval: {entry.get('reason') or TOO_FEW})"
    return f"{value:+z.2f} ({low:+z.2f} to {high:+z.2f})"


def describe_loss(loss: pd.DataFrame) -> str:
    """Return what is lost, and what of it another threshold could win back, in sentences."""
    rows = {row["what"]: unflatten_entry(row, "balanced_accuracy") for row in loss.to_dict("records")}
    lost = rows["lost"]
    shown = "is lost there" if is_above_zero(lost) else "is lost there, which is not shown to be above 0"
    text = f"Of balanced accuracy {describe(lost)} {shown}."
    if "lost by the threshold" not in rows:
        return f"{text} There are too few groups of a class to choose a threshold there."
    parts = []
    for name, can in (("threshold", "another would win that back"), ("order", "no threshold can")):
        entry = rows[f"lost by the {name}"]
        told = "" if is_above_zero(entry) else ", not shown to be above 0"
        what = "the threshold" if name == "threshold" else "the order of images"
        parts.append(f"{what} loses {describe(entry)}{told} ({can})")
    return f"{text} Of this {', and '.join(parts)}."


def is_above_zero(entry: dict[str, Any]) -> bool:
    """Return whether the whole interval lies above 0."""
    return compare_to_bound(entry, 0.0) == SHOWN
