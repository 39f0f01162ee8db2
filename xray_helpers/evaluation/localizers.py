"""Localizers beside each other and beside maps: their scores, what follows, and use with the classifier."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from xray_helpers.evaluation.detection import (
    CENTRE,
    RATES,
    RULES,
    Judged,
    Truth,
    bootstrap_groups,
    evaluate_image_scores,
    evaluate_marks,
    evaluate_masks,
    evaluate_pointing,
    judge_marks,
    sensitivity_at,
)
from xray_helpers.evaluation.intervals import (
    describe,
    encode_groups,
    flatten_entry,
    grouped_proportion,
    read_entry,
)
from xray_helpers.evaluation.log_odds import log_odds
from xray_helpers.evaluation.marks import overlap
from xray_helpers.evaluation.paired import MARGIN, compare_pairs
from xray_helpers.evaluation.subgroups import subgroup_columns
from xray_helpers.evaluation.thresholds import choose_threshold
from xray_helpers.evaluation.verdict import RULED_OUT, SHOWN, UNKNOWN, Verdict, compare_to_bound

HEAD = "dense head"
_NO_MASK = {name: {"value": None, "ci_low": None, "ci_high": None} for name in ("dice", "iou")}
_GAIN = 0.1  # of sensitivity, below which a lead over the maps is ruled out
CLASSIFIER, LOCALIZER, STACKED = "classifier", "localizer", "both, stacked"
Points = Mapping[str, tuple[float, float] | None]


def evaluate_method(
    model: str,
    method: str,
    marks: pd.DataFrame,
    points: Points,
    truth: Truth,
    seed: int = 0,
    masks: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Evaluate what one method found for one model on the images of `truth`.

    Parameters
    ----------
    model, method : str
    marks : DataFrame
        path, left, top, right, bottom, score.
    points : mapping
        Of `detection.evaluate_pointing`.
    truth : Truth
    seed : int
    masks : dict, optional
        Of `detection.evaluate_masks`.

    Returns
    -------
    dict
        model, method, n, n_groups, fractures, and entries: pointing, ap50, ap50_95, dice, iou, image_auroc
        (of the largest score), and ``rules`` as of `detection.evaluate_marks`.
    """
    top = marks.groupby("path")["score"].max()
    has_box = np.array([len(own) > 0 for own in truth.boxes], int)
    scores = np.array([top.get(path, 0.0) for path in truth.path], float)
    images = pd.DataFrame({"y_true": has_box, "y_prob": scores.clip(0, 1), "group": truth.group})
    found = {"model": model, "method": method} | evaluate_marks(marks, truth, seed)
    found |= {"pointing": evaluate_pointing(points, truth), "image_auroc": evaluate_image_scores(images)}
    return found | (masks or _NO_MASK)


def build_table(evaluated: list[dict[str, Any]]) -> pd.DataFrame:
    """Return `evaluate_method`'s results as ``localizers.csv``, one row per model and method.

    Returns
    -------
    DataFrame
        model, method, n, n_groups, fractures; pointing, ap50, ap50_95, dice, iou, image_auroc and, of each
        rule and number of false marks an image, columns such as ``centre inside at 1``; each with ``_low``
        and ``_high``.
    """
    rows = []
    for found in evaluated:
        row = {name: found[name] for name in ("model", "method", "n", "n_groups", "fractures")}
        for name in ("pointing", "ap50", "ap50_95", "dice", "iou", "image_auroc"):
            row |= flatten_entry(name, found[name], missing=np.nan)
        for rule, rates in found["rules"].items():
            for rate in RATES:
                row |= flatten_entry(f"{rule} at {rate:g}", rates[f"at_{rate:g}"], missing=np.nan)
        rows.append(row)
    columns = ["model", "method", "n", "n_groups", "fractures"]
    return pd.DataFrame(rows) if rows else pd.DataFrame(columns=columns)


def scores_table(evaluated: list[dict[str, Any]]) -> list[dict[str, str]]:
    """Return the scores of each model and method as text, with their intervals, for display."""
    return [
        {
            "model": found["model"],
            "what": f"{found['method']} ({found['n']} images, {found['fractures']} fractures)",
            "pointing game": describe(found["pointing"]),
            **{
                f"sensitivity at {rate:g}": describe(found["rules"][CENTRE][f"at_{rate:g}"]) for rate in RATES
            },
        }
        for found in evaluated
    ]


def precision_table(evaluated: list[dict[str, Any]]) -> list[dict[str, str]]:
    """Return average precision, the masks' Dice and IoU, and the AUROC of images as text, for display."""
    masks = {"dice": "Dice", "iou": "IoU of masks"}
    return [
        {"model": found["model"], "what": found["method"]}
        | {"AP50": describe(found["ap50"]), "AP50-95": describe(found["ap50_95"])}
        | {title: describe(found[n]) if found[n]["value"] is not None else "" for n, title in masks.items()}
        | {"AUROC of images": describe(found["image_auroc"])}
        for found in evaluated
    ]


def rules_table(evaluated: list[dict[str, Any]]) -> list[dict[str, str]]:
    """Return the sensitivity at one false mark an image by each rule of what a hit is, for display."""
    return [
        {"model": found["model"], "what": found["method"]}
        | {rule: describe(found["rules"][rule]["at_1"]) for rule in RULES}
        for found in evaluated
    ]


def measure_masks(maps: np.ndarray, targets: np.ndarray, part: pd.DataFrame, cut: float) -> dict[str, Any]:
    """Return mean Dice and IoU of masks at a cut of the maps, over the images with a fracture.

    Parameters
    ----------
    maps, targets : ndarray of float, shape (n, rows, columns)
    part : DataFrame
        group; the same rows.
    cut : float
    """
    rows = np.flatnonzero(targets.max(axis=(1, 2)) > 0)
    pairs = [(maps[row] >= cut, targets[row] >= min(0.5, targets[row].max())) for row in rows]
    return evaluate_masks(pairs, part["group"].to_numpy(object)[rows].tolist())


def evaluate_kinds(
    marks: pd.DataFrame, truth: Truth, part: pd.DataFrame, threshold: float, sizes: np.ndarray
) -> pd.DataFrame:
    """Return the share of fractures that are found, by the size of their box and by the manifest's columns.

    Parameters
    ----------
    marks : DataFrame
    truth : Truth
    part : DataFrame
        Rows of the manifest: path, width, height, and columns such as a type of fracture.
    threshold : float
        Marks from this score on count.
    sizes : ndarray of float
        Shares of the picture that boxes of train cover, whose thirds make three sizes.

    Returns
    -------
    DataFrame
        column, value, n (fractures), n_groups, recall, recall_low, recall_high; the first row is for all.
    """
    judged = judge_marks(marks[marks["score"] >= threshold], truth, CENTRE)
    rows = part.set_index("path").loc[truth.path[judged.owner]].reset_index()
    found = np.isin(np.arange(len(judged.owner)), judged.hit)
    group = truth.group[judged.owner]
    boxes = np.concatenate([np.zeros((0, 4)), *truth.boxes])
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    share = area / (rows["width"].astype(float) * rows["height"].astype(float)).to_numpy()
    ends = np.quantile(sizes, [1 / 3, 2 / 3])
    names = [f"below {ends[0]:.1%}", f"{ends[0]:.1%} to {ends[1]:.1%}", f"above {ends[1]:.1%}"]
    size = pd.Series(np.array(names, object)[np.searchsorted(ends, share, side="right")])
    columns = {"box, of the picture": size} | {name: rows[name] for name in _kind_columns(rows)}
    table = [{"column": "all", "value": "all fractures"} | _count(found, group)]
    for column, values in columns.items():
        order = names if values is size else sorted(values.dropna().astype(str).unique())
        for value in order:
            mine = (values.astype(str) == value).to_numpy()
            if mine.any():
                table.append({"column": column, "value": value} | _count(found[mine], group[mine]))
    return pd.DataFrame(table)


def _kind_columns(rows: pd.DataFrame) -> list[str]:
    """Return the class, where there are several, and the columns that make subgroups of fractures."""
    several = [name for name in ("class_name",) if name in rows]
    return [*several, *(name for name in subgroup_columns(rows) if name != "mode")]


def _count(found: np.ndarray, group: np.ndarray) -> dict[str, Any]:
    entry = grouped_proportion(found, group)
    return {"n": len(found), "n_groups": len(set(group))} | flatten_entry("recall", entry, missing=np.nan)


def compare_marks(
    first: pd.DataFrame, second: pd.DataFrame, truth: Truth, seed: int = 0
) -> dict[str, dict[str, Any]]:
    """Return by how much the first finds more at one false mark an image, on the same images, by each rule.

    The interval resamples groups, both methods together.
    """
    pairs = {rule: [judge_marks(marks, truth, rule) for marks in (first, second)] for rule in RULES}

    def lead(one: Judged, other: Judged, weight: np.ndarray) -> float:
        return float(sensitivity_at(one, weight, [1])[0] - sensitivity_at(other, weight, [1])[0])

    has_box = np.array([len(own) > 0 for own in truth.boxes], bool)
    entries = bootstrap_groups(
        lambda weight: np.array([lead(*pair, weight) for pair in pairs.values()]),
        encode_groups(truth.group),
        has_box,
        seed,
    )
    return dict(zip(pairs, entries, strict=True))


def assess_lead(
    model: str, leads: dict[str, dict[str, Any]], method: str = HEAD, other: str = "Grad-CAM"
) -> Verdict:
    """Decide whether a localizer finds more than a classifier's maps, at one false mark an image."""
    entry = leads[CENTRE]
    state = compare_to_bound(entry, 0.0)
    state = (
        state if state == SHOWN else (RULED_OUT if compare_to_bound(entry, _GAIN) == RULED_OUT else UNKNOWN)
    )
    said = {
        SHOWN: f"finds more fractures than {other}",
        RULED_OUT: f"does not find {_GAIN:.0%} more fractures than {other}",
        UNKNOWN: f"may or may not find more fractures than {other}",
    }[state]
    text = f"{model}: the {method} {said} at one false mark an image (difference {describe(entry)})."
    return Verdict(state, text)


def stack_scores(
    model: str, classifier: dict[str, pd.DataFrame], localizer: dict[str, pd.DataFrame]
) -> dict[str, pd.DataFrame]:
    """Return test predictions of the classifier, of the largest value of the map, and of both stacked.

    The stack is a logistic regression of both log odds, fitted on validation. Thresholds of the map and of
    the stack are Youden's on validation; that of the classifier is its own.

    Parameters
    ----------
    model : str
    classifier : dict
        validation and test: ``predictions_*.csv``.
    localizer : dict
        validation and test: path, y_prob.

    Returns
    -------
    dict
        Name to a table as ``predictions_test.csv``, all of the same images in the same order.
    """
    from sklearn.linear_model import LogisticRegression

    joined = {
        split: table.merge(
            localizer[split].rename(columns={"y_prob": "map"}), on="path", validate="one_to_one"
        )
        for split, table in classifier.items()
    }
    odds = {
        split: np.column_stack([log_odds(t["y_prob"]), log_odds(t["map"])]) for split, t in joined.items()
    }
    y = joined["validation"]["y_true"].to_numpy()
    if len(set(y)) < 2:
        return {}
    stack = LogisticRegression(C=1.0).fit(odds["validation"], y)
    both = {split: stack.predict_proba(own)[:, 1] for split, own in odds.items()}
    found = {f"{model}, {CLASSIFIER}": joined["test"].drop(columns="map")}
    scores = {LOCALIZER: {split: t["map"].to_numpy() for split, t in joined.items()}, STACKED: both}
    for name, own in scores.items():
        threshold = choose_threshold(y, own["validation"], "youden")
        table = joined["test"][["path", "group", "y_true"]].assign(y_prob=own["test"])
        found[f"{model}, {name}"] = table.assign(y_pred=(own["test"] >= threshold).astype(int))
    return found


def compare_with_classifier(predictions: dict[str, pd.DataFrame]) -> tuple[pd.DataFrame, list[Verdict]]:
    """Test the map's largest value and the stack against the classifier; see `paired.compare_pairs`.

    Returns
    -------
    pairs : DataFrame
        The two pairs with the classifier, ``difference`` being the gain over it.
    verdicts : list of Verdict
        Shown, where the interval of the gain in AUROC lies above 0; ruled out, where it lies below 0.01.
    """
    names = list(predictions)
    if not names:
        return pd.DataFrame(), []
    order = [names[1], names[2], names[0]]  # so that differences are gains over the classifier
    pairs = compare_pairs({name: predictions[name] for name in order})
    pairs = pairs[pairs["second"] == names[0]].reset_index(drop=True)
    verdicts = []
    for row in pairs.to_dict("records"):
        entry = read_entry(row, "difference")
        state = compare_to_bound(entry, 0.0)
        if state != SHOWN:
            state = RULED_OUT if compare_to_bound(entry, MARGIN) == RULED_OUT else UNKNOWN
        said = {
            SHOWN: "is shown to have a higher AUROC than the classifier alone",
            RULED_OUT: f"does not have an AUROC higher by {MARGIN:g} than the classifier alone",
            UNKNOWN: "may or may not have a higher AUROC than the classifier alone",
        }[state]
        verdicts.append(Verdict(state, f"{row['first']}: it {said} (difference {describe(entry)})."))
    return pairs, verdicts


def marks_of(marks: pd.DataFrame, path: str, threshold: float) -> np.ndarray:
    """Return the marks of one image from a threshold on: left, top, right, bottom, score; shape (k, 5)."""
    own = marks[(marks["path"] == path) & (marks["score"] >= threshold)]
    return own[["left", "top", "right", "bottom", "score"]].to_numpy(float)


def choose_cases(
    marks: pd.DataFrame, truth: Truth, threshold: float, seed: int = 0, count: int = 4
) -> pd.DataFrame:
    """Return images to show: the best, the worst, and some drawn at random; one per group within each kind.

    The best have their fracture's box met most closely; the worst are missed fractures and the false marks of
    the highest score, in turn.

    Returns
    -------
    DataFrame
        path, kind (``best``, ``worst`` or ``random``), words (what happened).
    """
    judged = judge_marks(marks[marks["score"] >= threshold], truth, CENTRE)
    known = np.array([len(own) for own in truth.boxes])
    found = np.bincount(judged.owner[judged.hit[judged.hit >= 0]], minlength=len(known))
    false = np.bincount(judged.image[(judged.hit < 0) & ~judged.again], minlength=len(known))
    highest = pd.Series(judged.score[judged.hit < 0]).groupby(judged.image[judged.hit < 0]).max()
    table = pd.DataFrame(
        {"path": truth.path, "group": truth.group, "known": known, "found": found, "false": false}
    )
    table["closest"] = [
        _closest(marks, threshold, path, boxes) for path, boxes in zip(truth.path, truth.boxes, strict=True)
    ]
    table["highest"] = highest.reindex(table.index).fillna(0.0)
    best = table[(table["known"] > 0) & (table["found"] > 0)].sort_values("closest", ascending=False)
    missed = table[table["found"] < table["known"]].sort_values("highest", ascending=False)
    alarms = table[(table["known"] == 0) & (table["false"] > 0)].sort_values("highest", ascending=False)
    turns = [each.drop_duplicates("group").reset_index() for each in (missed, alarms)]
    worst = pd.concat(turns).sort_index(kind="stable").set_index("index")
    drawn = table.sample(frac=1, random_state=seed)
    kinds = {"best": best, "worst": worst, "random": drawn}
    parts = [rows.drop_duplicates("group").head(count).assign(kind=kind) for kind, rows in kinds.items()]
    chosen = pd.concat(parts)
    words = [
        (f"{row.found} of {row.known} found" if row.known else "no fracture") + f", {row.false} false"
        for row in chosen.itertuples()
    ]
    return chosen.assign(words=words)[["path", "kind", "words"]].reset_index(drop=True)


def _closest(marks: pd.DataFrame, threshold: float, path: str, boxes: np.ndarray) -> float:
    shares = overlap(marks_of(marks, path, threshold)[:, :4], boxes)
    return float(shares.max()) if shares.size else 0.0
