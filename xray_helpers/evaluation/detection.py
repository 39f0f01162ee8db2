"""How well boxes are found: FROC, average precision, pointing game, Dice, and the score of an image.

Boxes found are judged against known ones on images whose truth is known: those with boxes, and those without
a fracture. FROC (Bunch et al. 1978; Chakraborty 1989) is the share of fractures that are found, by the number
of false marks an image. Average precision is that of COCO (Lin et al. 2014): greedy matching, 101 recalls.
Intervals resample whole groups of images.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from xray_helpers.evaluation.intervals import (
    MIN_GROUPS,
    TAILS,
    TOO_FEW,
    effective_groups,
    encode_groups,
    grouped_mean,
    grouped_proportion,
    interval_entry,
    no_interval,
)
from xray_helpers.evaluation.marks import centre_inside, overlap
from xray_helpers.evaluation.metrics import compute_metrics
from xray_helpers.study.seeds import derive_seed

RATES = (0.5, 1.0, 2.0)  # false marks an image
CENTRE = "centre inside"
RULES: dict[str, float] = {CENTRE: 0.0, "IoU 0.1": 0.1, "IoU 0.3": 0.3, "IoU 0.5": 0.5}  # of a hit
COCO_OVERLAPS = tuple(np.linspace(0.5, 0.95, 10).round(2).tolist())
_RECALLS = np.linspace(0, 1, 101).round(2)
_MOST = 100  # boxes an image that count for average precision, as in COCO
_RESAMPLES = 500
NO_BOX = "no fracture with a known box"


class Truth(NamedTuple):
    """Images whose truth is known, in one order.

    Attributes
    ----------
    path, group : ndarray of str, shape (n,)
    boxes : list of ndarray of float, shape (k, 4)
        Known fractures, in pixels; none where there is no fracture.
    """

    path: np.ndarray
    group: np.ndarray
    boxes: list[np.ndarray]


class Judged(NamedTuple):
    """Boxes found, the highest score first, and what they hit by one rule.

    Attributes
    ----------
    score : ndarray of float, shape (m,)
    image : ndarray of int, shape (m,)
        Row of `Truth`.
    hit : ndarray of int, shape (m,)
        Number of the fracture that a box finds first, or -1.
    again : ndarray of bool, shape (m,)
        Whether it hits a fracture that a higher box found: neither found nor false in FROC, false in AP.
    owner : ndarray of int, shape (fractures,)
        Image of each fracture.
    """

    score: np.ndarray
    image: np.ndarray
    hit: np.ndarray
    again: np.ndarray
    owner: np.ndarray


def list_truth(part: pd.DataFrame, boxes: Sequence[np.ndarray]) -> Truth:
    """Return the images whose truth is known: with boxes, or without a fracture.

    Parameters
    ----------
    part : DataFrame
        path, group, y_true.
    boxes : sequence of ndarray, shape (k, 4)
        Of `annotations.list_boxes`.
    """
    known = np.array([len(own) > 0 or y == 0 for own, y in zip(boxes, part["y_true"], strict=True)], bool)
    rows = part[known]
    kept = [
        own if y else own[:0]
        for own, y, is_known in zip(boxes, part["y_true"], known, strict=True)
        if is_known
    ]
    return Truth(rows["path"].to_numpy(object), rows["group"].to_numpy(object), kept)


def judge_marks(marks: pd.DataFrame, truth: Truth, rule: str | float = CENTRE) -> Judged:
    """Match the boxes found with the known ones, image by image, the highest score first.

    Each takes the fracture that it overlaps most among those not yet found.

    Parameters
    ----------
    marks : DataFrame
        path, left, top, right, bottom, score; images that are not in `truth` are left out.
    truth : Truth
    rule : str or float
        One of `RULES`, or the least IoU of a hit.
    """
    corners = marks[["left", "top", "right", "bottom"]].to_numpy(float)
    scores, by_path = marks["score"].to_numpy(float), marks.groupby("path").indices
    starts = np.cumsum([0, *map(len, truth.boxes)])
    parts: list[tuple[np.ndarray, ...]] = []
    for image, (path, known) in enumerate(zip(truth.path, truth.boxes, strict=True)):
        own = by_path.get(path, np.zeros(0, int))
        own = own[np.argsort(-scores[own], kind="stable")][:_MOST]
        hit, again = _match(corners[own], known, rule)
        parts.append(
            (scores[own], np.full(len(own), image), np.where(hit >= 0, hit + starts[image], -1), again)
        )
    score, image, hit, again = (np.concatenate(column) for column in zip(*parts, strict=True))
    order = np.argsort(-score, kind="stable")
    owner = np.repeat(np.arange(len(truth.boxes)), [len(own) for own in truth.boxes])
    return Judged(score[order], image[order], hit[order], again[order], owner)


def _match(found: np.ndarray, known: np.ndarray, rule: str | float) -> tuple[np.ndarray, np.ndarray]:
    hit, again = np.full(len(found), -1), np.zeros(len(found), bool)
    if not len(known):
        return hit, again
    shares = overlap(found, known)
    allowed = centre_inside(found, known) if rule == CENTRE else shares >= RULES.get(rule, rule) - 1e-10
    free = np.ones(len(known), bool)
    for row in range(len(found)):
        open_ = np.flatnonzero(allowed[row] & free)
        if len(open_):  # of equals the last, as in COCO
            hit[row] = open_[len(open_) - 1 - np.argmax(shares[row, open_][::-1])]
            free[hit[row]] = False
        else:
            again[row] = allowed[row].any()
    return hit, again


def froc_curve(judged: Judged, images: int) -> pd.DataFrame:
    """Return the FROC curve: threshold, false_marks (an image), sensitivity; from no mark to all."""
    false, found, last = _froc(judged, np.ones(images))
    start = {"threshold": [np.inf], "false_marks": [0.0], "sensitivity": [0.0]}
    rest = {"threshold": judged.score[last], "false_marks": false[last], "sensitivity": found[last]}
    return pd.concat([pd.DataFrame(start), pd.DataFrame(rest)], ignore_index=True)


def _froc(judged: Judged, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return false marks an image and sensitivity down to each mark, and the last marks of equal score."""
    own = weight[judged.image]
    false = np.cumsum(own * ((judged.hit < 0) & ~judged.again)) / weight.sum()
    found = np.cumsum(own * (judged.hit >= 0)) / max(weight[judged.owner].sum(), 1e-12)
    last = np.flatnonzero(np.diff(judged.score, append=-np.inf) < 0)
    return false, found, last


def sensitivity_at(judged: Judged, weight: np.ndarray, rates: Sequence[float] = RATES) -> np.ndarray:
    """Return the share of fractures found where there are at most so many false marks an image.

    Parameters
    ----------
    judged : Judged
    weight : ndarray of float, shape (images,)
    rates : sequence of float

    Returns
    -------
    ndarray of float, shape (len(rates),)
    """
    false, found, last = _froc(judged, weight)
    at = np.searchsorted(false[last], np.asarray(rates) + 1e-9, side="right") - 1
    return np.where(at >= 0, found[last][at] if len(last) else 0.0, 0.0)


def best_threshold(judged: Judged, images: int) -> float:
    """Return the score from which on marks have the highest F1, midway to the next lower score.

    Of equals the lowest is taken; without marks it is 1.
    """
    curve, known = froc_curve(judged, images).iloc[1:], len(judged.owner)
    found, false = curve["sensitivity"] * known, curve["false_marks"] * images
    scores = 2 * found / (found + false + known) if known else found
    if curve.empty:
        return 1.0
    thresholds, last = curve["threshold"].to_numpy(), np.flatnonzero(scores >= scores.max() - 1e-9)[-1]
    return float(thresholds[last : last + 2].mean())


def average_precision(judged: Judged, weight: np.ndarray) -> float:
    """Return COCO's average precision at one IoU: over 101 recalls, the mean of the best precision beyond.

    Not a number where no fracture has a weight.
    """
    own, total = weight[judged.image], weight[judged.owner].sum()
    if not total:
        return float("nan")
    true, false = np.cumsum(own * (judged.hit >= 0)), np.cumsum(own * (judged.hit < 0))
    precision = np.maximum.accumulate((true / np.maximum(true + false, 1e-12))[::-1])[::-1]
    at = np.searchsorted(true / total, _RECALLS - 1e-12, side="left")
    return float(np.append(precision, 0.0)[np.minimum(at, len(precision))].mean())


def evaluate_marks(marks: pd.DataFrame, truth: Truth, seed: int = 0) -> dict[str, Any]:
    """Evaluate boxes found by all rules.

    Parameters
    ----------
    marks : DataFrame
        path, left, top, right, bottom, score.
    truth : Truth
    seed : int

    Returns
    -------
    dict
        n (images), n_groups, fractures; ``ap50`` and ``ap50_95`` as entries; ``rules``: of each rule the
        entries ``at_0.5``, ``at_1`` and ``at_2``: sensitivity at so many false marks an image.
    """
    codes, count = encode_groups(truth.group), len(truth.path)
    judged = {rule: judge_marks(marks, truth, rule) for rule in RULES}
    overlaps = [judge_marks(marks, truth, least) for least in COCO_OVERLAPS]

    def compute(weight: np.ndarray) -> np.ndarray:
        found = [sensitivity_at(each, weight) for each in judged.values()]
        precisions = [average_precision(each, weight) for each in overlaps]
        return np.concatenate([*found, [precisions[0], np.mean(precisions)]])

    has_box = np.array([len(own) > 0 for own in truth.boxes], bool)
    entries = iter(bootstrap_groups(compute, codes, has_box, seed))
    rules = {rule: {f"at_{rate:g}": next(entries) for rate in RATES} for rule in RULES}
    counts = {"n": count, "n_groups": len(set(codes)), "fractures": sum(map(len, truth.boxes))}
    return counts | {"rules": rules, "ap50": next(entries), "ap50_95": next(entries)}


def bootstrap_groups(
    compute: Callable[[np.ndarray], np.ndarray], codes: np.ndarray, needed: np.ndarray, seed: int = 0
) -> list[dict[str, Any]]:
    """Return entries of scores, with percentiles of a bootstrap of groups as their intervals.

    Parameters
    ----------
    compute : callable
        From the weight of each image, shape (n,), to scores.
    codes : ndarray of int, shape (n,)
        Of `encode_groups`.
    needed : ndarray of bool, shape (n,)
        Images without which no score is defined, such as those with a fracture; fewer than `MIN_GROUPS`
        effective groups of them give no interval.
    seed : int
    """
    values = compute(np.ones(len(codes)))
    if not needed.any():
        return [no_interval(None, NO_BOX) for _ in values]
    if effective_groups(codes[needed]) < MIN_GROUPS:
        return [no_interval(float(value), TOO_FEW) for value in values]
    rng, groups, drawn = np.random.default_rng(derive_seed(seed, "marks")), codes.max() + 1, []
    for _ in range(_RESAMPLES):
        weight = np.bincount(rng.integers(0, groups, groups), minlength=groups)[codes].astype(float)
        if weight[needed].any():
            drawn.append(compute(weight))
    ends = np.quantile(drawn, TAILS, axis=0).T
    return [
        interval_entry(float(value), *span, "bootstrap of groups")
        for value, span in zip(values, ends, strict=True)
    ]


def evaluate_pointing(points: Mapping[str, tuple[float, float] | None], truth: Truth) -> dict[str, Any]:
    """Return the share of images with fractures whose highest place lies in a box (Zhang et al. 2018).

    `points` has x and y by path, in pixels; None, of a map that points nowhere, is a miss.
    """
    hits, groups = [], []
    for path, group, boxes in zip(truth.path, truth.group, truth.boxes, strict=True):
        if len(boxes) and path in points:
            point = points[path]
            x, y = point or (-1.0, -1.0)
            inside = (boxes[:, 0] <= x) & (x <= boxes[:, 2]) & (boxes[:, 1] <= y) & (y <= boxes[:, 3])
            hits.append(bool(inside.any()))
            groups.append(group)
    return grouped_proportion(hits, groups, undefined=NO_BOX) | {"n": len(hits)}


def evaluate_masks(pairs: Sequence[tuple[np.ndarray, np.ndarray]], group: Sequence[str]) -> dict[str, Any]:
    """Return mean Dice and IoU of masks found and known, each an entry, over images with a fracture.

    Parameters
    ----------
    pairs : sequence of (found, known)
        bool, of one shape.
    group : sequence of str
    """
    if not pairs:
        return dict.fromkeys(("dice", "iou"), no_interval(None, NO_BOX))
    common = np.array([(found & known).sum() for found, known in pairs], float)
    both = np.array([found.sum() + known.sum() for found, known in pairs], float)
    scores = {"dice": 2 * common / np.maximum(both, 1), "iou": common / np.maximum(both - common, 1)}
    return {name: grouped_mean(values, np.array(group, object)) for name, values in scores.items()}


def evaluate_image_scores(predictions: pd.DataFrame) -> dict[str, Any]:
    """Return the AUROC of an image's largest score as an entry; columns y_true, y_prob, group."""
    if predictions["y_true"].nunique() < 2:
        return no_interval(None, "one class only")
    scores = compute_metrics(predictions["y_true"], predictions["y_prob"], 0.5, predictions["group"])
    return scores["auroc"]
