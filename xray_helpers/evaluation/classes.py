"""Three or more classes: each against the rest by the functions of two classes, averages, models.

Macro is the mean over classes, micro over all pairs of an image and a class, as in scikit-learn. All
intervals come from one pass over the same groups (`intervals`).
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from xray_helpers.evaluation import influence, metrics
from xray_helpers.evaluation.calibration import reliability_table
from xray_helpers.evaluation.class_predictions import class_probabilities, one_against_rest
from xray_helpers.evaluation.intervals import (
    MIN_GROUPS,
    bounded_interval,
    compute_group_statistics,
    describe,
    describe_p,
    encode_groups,
    grouped_proportion,
    no_interval,
    read_entry,
)
from xray_helpers.evaluation.paired import compare_by_group, compare_decisions, difference_interval, holm
from xray_helpers.settings import current_classes

# As `metrics._PRIOR_GROUPS`, for macro AUROC; chosen by simulation (benchmarks/class_coverage.py).
_PRIOR_GROUPS = 1.0
PER_CLASS = ("auroc", "average_precision", "recall", "specificity", "precision", "f1")


@dataclass(frozen=True)
class Sample:
    """The images that several classes are judged on.

    Attributes
    ----------
    true, said : ndarray of int, shape (n,)
        Places of the classes.
    groups : ndarray of int, shape (n,)
        Of `intervals.encode_groups`.
    each : tuple of `metrics.Sample`
        Each class against the rest.
    """

    true: np.ndarray
    said: np.ndarray
    groups: np.ndarray
    each: tuple[metrics.Sample, ...]

    @property
    def effective(self) -> float:
        """The effective number of groups of the class that has the fewest."""
        return min(sample.effective[0] for sample in self.each)


Function = Callable[[Sample], tuple[float, np.ndarray]]


def macro(function: metrics.Function) -> Function:
    """Return the mean over classes of a score of two classes, and its influence."""

    def mean(sample: Sample) -> tuple[float, np.ndarray]:
        values, added = zip(*map(function, sample.each), strict=True)
        return float(np.mean(values)), np.mean(added, axis=0)

    return mean


def micro(function: Callable) -> Function:
    """Return a score of all pairs of an image and a class, and the influence of the images."""

    def pooled(sample: Sample) -> tuple[float, np.ndarray]:
        y, p = (np.concatenate([getattr(one, name) for one in sample.each]) for name in ("y_true", "y_prob"))
        value, added = function(y, p, np.ones(len(y)))
        return value, added.reshape(len(sample.each), -1).sum(axis=0)

    return pooled


def _recall(tp: complex, fp: complex, tn: complex, fn: complex) -> complex:
    return tp / (tp + fn)


def _kappa(power: int) -> Function:
    """Return Cohen's kappa, with power 2 that of quadratic weights."""

    def kappa(sample: Sample) -> tuple[float, np.ndarray]:
        places = np.arange(len(sample.each))
        apart = np.abs(np.subtract.outer(places, places))
        return influence.disagreement(sample.true, sample.said, np.sign(apart) * apart**power)

    return kappa


class Average(NamedTuple):
    """A score of all classes: its title, its function, and whether it needs images of every class."""

    title: str
    function: Function
    every_class: bool = True
    low: float = 0.0


_AUROC, _PRECISION = influence.auroc, influence.average_precision
OVERALL = {
    "macro_auroc": Average("AUROC, macro", macro(metrics.of_scores(_AUROC))),
    "micro_auroc": Average("AUROC, micro", micro(_AUROC), False),
    "macro_average_precision": Average("Average precision, macro", macro(metrics.of_scores(_PRECISION))),
    "micro_average_precision": Average("Average precision, micro", micro(_PRECISION), False),
    "macro_f1": Average("F1, macro", macro(metrics.of_counts(influence.f1))),
    "accuracy": Average("Accuracy (F1, micro)", lambda sample: (0.0, sample.true), False),
    "balanced_accuracy": Average("Balanced accuracy", macro(metrics.of_counts(_recall))),
    "kappa": Average("Cohen's kappa", _kappa(0), False, -1.0),
    "weighted_kappa": Average("Kappa, quadratic weights", _kappa(2), False, -1.0),  # of ordered classes
}


def evaluate_classes(predictions: pd.DataFrame) -> dict[str, Any]:
    """Judge predictions of several classes; empty for those of two.

    Parameters
    ----------
    predictions : DataFrame
        class_true, class_pred, group and p_<class> of each of the study's classes.

    Returns
    -------
    dict
        ``classes``: of each class, against the rest, what `metrics.evaluate_calls` returns. ``overall``: an
        entry for each of `OVERALL` (weighted_kappa only for classes in a given order). ``confusion``: counts,
        rows what is true, columns what is said. ``n``, ``n_groups``. What depends on a class without images
        has no value, and the reason.
    """
    if "class_true" not in predictions:
        return {}
    sample = _build_sample(predictions)
    names, codes = current_classes().names, sample.groups
    confusion = np.zeros((len(names), len(names)), int)
    np.add.at(confusion, (sample.true, sample.said), 1)
    return {
        "classes": {
            name: _name_class(
                metrics.evaluate_calls(one.y_true, one.y_prob, sample.said == place, codes), name
            )
            for place, (name, one) in enumerate(zip(names, sample.each, strict=True))
        },
        "overall": _evaluate_overall(sample),
        "confusion": confusion.tolist(),
        "n": len(predictions),
        "n_groups": int(codes.max()) + 1,
    }


def _name_class(scores: dict[str, Any], name: str) -> dict[str, Any]:
    """Let the reasons of what is not defined speak of the class, instead of fractured and not."""
    words = {"non-fractured image": "other image", "called non-fractured": f"called other than {name}"}
    words |= {"fractured image": f"image of class {name}", "called fractured": f"called {name}"}
    for entry in scores.values():
        for word, own in words.items():
            if isinstance(entry, dict) and "reason" in entry:
                entry["reason"] = entry["reason"].replace(word, own)
    return scores


def _build_sample(predictions: pd.DataFrame) -> Sample:
    names, codes = current_classes().names, encode_groups(predictions["group"])
    true, said = (
        pd.Categorical(predictions[column], categories=names).codes.astype(int)
        for column in ("class_true", "class_pred")
    )
    each = []
    for place, y_prob in enumerate(class_probabilities(predictions).T):
        y_true, called = (true == place).astype(int), said == place
        cells = np.where(called, np.where(y_true == 1, 0, 1), np.where(y_true == 1, 3, 2))
        each.append(metrics.Sample(y_true, y_prob, np.ones(len(true)), codes, cells))
    return Sample(true, said, codes, tuple(each))


def _evaluate_overall(sample: Sample) -> dict[str, Any]:
    """Return the entry of each of `OVERALL`."""
    names = current_classes().names
    absent = [name for place, name in enumerate(names) if not (sample.true == place).any()]
    found = {}
    for name, average in OVERALL.items():
        if name == "accuracy":
            found[name] = grouped_proportion(sample.true == sample.said, sample.groups)
        elif absent and average.every_class:
            found[name] = no_interval(None, f"no image of class {' or '.join(absent)}")
        elif name != "weighted_kappa" or current_classes().ordered:
            found[name] = _interval(sample, name, *average.function(sample))
    return found


def _interval(sample: Sample, name: str, value: float, added: np.ndarray) -> dict[str, Any]:
    if not np.isfinite(value):
        return no_interval(None, "truth and calls are all of one class")
    spread = compute_group_statistics(added, sample.groups, sample.true)._replace(effective=sample.effective)
    if name == "balanced_accuracy":
        return _mean_of_recalls(sample, bounded_interval(value, spread))
    if name != "macro_auroc":
        return bounded_interval(value, spread, OVERALL[name].low)
    if len(sample.each) == 2:  # both classes have the same AUROC
        positive = current_classes().names.index(current_classes().positives[0])
        return metrics.METRICS["auroc"].evaluate(sample.each[positive])
    prior = 0.0
    if sample.effective >= MIN_GROUPS:
        alone = [metrics.independent_variance(value, *one.effective) for one in sample.each]
        prior = float(np.mean(alone)) / (len(alone) - 1)  # as if k - 1 of the scores were independent
    return metrics.interval_of_auroc(value, spread, prior, _PRIOR_GROUPS)


def _mean_of_recalls(sample: Sample, entry: dict[str, Any]) -> dict[str, Any]:
    """Return the interval of the mean of sensitivities from theirs (MOVER: Donner and Zou 2012)."""
    recalls = [metrics.METRICS["recall"].evaluate(one) for one in sample.each]
    if any(found["ci_low"] is None for found in (entry, *recalls)):
        return entry
    down, up = (
        float(np.sqrt(sum((found["value"] - found[end]) ** 2 for found in recalls)) / len(recalls))
        for end in ("ci_low", "ci_high")
    )
    value = entry["value"]
    return entry | {"ci_low": value - down, "ci_high": value + up, "method": "MOVER of sensitivities"}


def classes_table(scores: dict[str, Any]) -> pd.DataFrame:
    """Return one row per class as text: class, images, and each of `PER_CLASS` with its interval."""
    rows = []
    for name, found in scores.get("classes", {}).items():
        row = {"class": name, "images": found["tp"] + found["fn"]}
        rows.append(row | {metrics.METRICS[key].title: describe(found[key]) for key in PER_CLASS})
    return pd.DataFrame(rows)


def overall_table(scores: dict[str, Any]) -> pd.DataFrame:
    """Return the scores of all classes together as text: score, test (with its interval)."""
    rows = [(OVERALL[name].title, describe(entry)) for name, entry in scores.get("overall", {}).items()]
    return pd.DataFrame(rows, columns=["score", "test"])


def flatten_classes(scores: dict[str, Any]) -> pd.DataFrame:
    """Return one row per score: class (``all``: of all classes), metric, value, low, high, n, reason."""
    entries = [("all", name, entry, scores["n"]) for name, entry in scores.get("overall", {}).items()]
    for name, found in scores.get("classes", {}).items():
        entries += [(name, key, found[key], found["tp"] + found["fn"]) for key in PER_CLASS]
    rows = [
        (*key, *map(entry.get, ("value", "ci_low", "ci_high")), n, entry.get("reason", ""))
        for *key, entry, n in entries
    ]
    return pd.DataFrame(rows, columns=["class", "metric", "value", "low", "high", "n", "reason"])


def class_reliability(predictions: pd.DataFrame) -> pd.DataFrame:
    """Return `calibration.reliability_table` of each class against the rest; empty for two classes.

    Returns
    -------
    DataFrame
        class, mean_probability, share (that is of the class), ci_low, ci_high, n, n_groups.
    """
    tables = [
        pd.DataFrame(columns=["class", "mean_probability", "share", "ci_low", "ci_high", "n", "n_groups"])
    ]
    for name in current_classes().names if "class_true" in predictions else ():
        table = reliability_table(one_against_rest(predictions, name))
        tables.append(table.rename(columns={"fractured": "share"}).assign(**{"class": name}))
    return pd.concat(tables[1:] or tables, ignore_index=True)[list(tables[0])]


def compare_classes(predictions: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Test each pair of models on macro AUROC, and on how often the most probable class is right.

    Parameters
    ----------
    predictions : dict
        Of each model its predictions, all of the same images in the same order.

    Returns
    -------
    DataFrame
        As `paired.compare_pairs`, with difference that of macro AUROC, whose contributions of groups are the
        mean over classes. Empty for two classes, and where one has fewer than `intervals.MIN_GROUPS`
        effective groups.
    """
    several = {name: table for name, table in predictions.items() if "class_true" in table}
    samples = {name: _build_sample(table) for name, table in several.items()}
    rows = []
    for a, b in combinations(samples, 2):
        first, second = samples[a], samples[b]
        if min(first.effective, *(one.effective[1] for one in first.each)) < MIN_GROUPS:
            continue
        pairs = [
            (x.y_true, x.y_prob, y.y_prob, first.groups) for x, y in zip(first.each, second.each, strict=True)
        ]
        parts = np.mean([compare_by_group(*pair) for pair in pairs], axis=0)
        ends = difference_interval(parts, [one.y_true for one in first.each], first.groups)
        right = [sample.true == sample.said for sample in (first, second)]
        row = {"first": a, "second": b, "difference": float(parts.sum())}
        row |= dict(zip(("ci_low", "ci_high", "p"), ends, strict=True))
        row |= {
            "only_first": int((right[0] & ~right[1]).sum()),
            "only_second": int((right[1] & ~right[0]).sum()),
        }
        rows.append(row | {"decisions_p": compare_decisions(*right, first.groups)})
    columns = ["first", "second", "difference", "ci_low", "ci_high", "p"]
    table = pd.DataFrame(rows, columns=[*columns, "only_first", "only_second", "decisions_p"])
    return table.assign(
        **{f"{name}_holm": holm(table[name].to_numpy(float)) for name in ("p", "decisions_p")}
    )


def class_pairs_table(pairs: pd.DataFrame) -> pd.DataFrame:
    """Return the pairs of `compare_classes` as text."""
    ends = zip(pairs["difference"], pairs["ci_low"], pairs["ci_high"], strict=True)
    columns = {
        "models": pairs["first"] + " - " + pairs["second"],
        "macro AUROC difference": [f"{v:+z.2f} ({low:+z.2f} to {high:+z.2f})" for v, low, high in ends],
        "p, groups": pairs["p_holm"].map(describe_p),
        "right alone": pairs["only_first"].astype(str) + " against " + pairs["only_second"].astype(str),
        "p, accuracy": pairs["decisions_p_holm"].map(describe_p),
    }
    return pd.DataFrame(columns)


def describe_classes(model: str, table: pd.DataFrame, n: int) -> str:
    """Return in a sentence or two what a model reaches on all classes, and of which it finds least.

    Parameters
    ----------
    model : str
    table : DataFrame
        Of `flatten_classes`; the text is empty where it is.
    n : int
        The number of test images.
    """
    if table.empty:
        return ""
    entry = {
        (row["class"], row["metric"]): read_entry(row, "value", "low", "high") | {"reason": row["reason"]}
        for row in table.to_dict("records")
    }
    names = list(dict.fromkeys(table.loc[table["class"] != "all", "class"]))
    text = (
        f"{model} names the right one of {len(names)} classes in {describe(entry['all', 'accuracy'])} of {n} "
        f"test images; macro AUROC {describe(entry['all', 'macro_auroc'])}, Cohen's kappa "
        f"{describe(entry['all', 'kappa'])}."
    )
    known = {name: entry[name, "recall"] for name in names if entry[name, "recall"]["value"] is not None}
    if not known:
        return text
    weakest = min(known, key=lambda name: known[name]["value"])
    return f"{text} It finds least of {weakest}: sensitivity {describe(known[weakest])}."
