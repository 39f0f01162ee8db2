"""Scores of one model with 95 % intervals (`intervals`), and the operating threshold."""

from typing import Any

import numpy as np
import pandas as pd
from scipy import sparse
from sklearn.metrics import roc_curve

from xray_helpers.delong import delong_interval
from xray_helpers.intervals import LEVEL, RESAMPLES, bca_interval, group_weights, has_few_groups, wilson_interval
from xray_helpers.settings import FEW, InputError

PROPORTIONS = {  # name: (numerator, denominator) as indices of (tp, fp, tn, fn)
    "accuracy": ((0, 2), (0, 1, 2, 3)),
    "precision": ((0,), (0, 1)),
    "recall": ((0,), (0, 3)),
    "specificity": ((2,), (2, 1)),
    "npv": ((2,), (2, 3)),
}
RESAMPLED = ("f1", "balanced_accuracy", "kappa", "mcc", "auroc", "average_precision", "brier")
METRIC_TITLES = {
    "auroc": "AUROC", "average_precision": "Average precision", "accuracy": "Accuracy",
    "balanced_accuracy": "Balanced accuracy", "precision": "Precision (PPV)", "recall": "Recall (sensitivity)",
    "specificity": "Specificity", "npv": "NPV", "f1": "F1", "kappa": "Cohen's kappa",
    "mcc": "Matthews correlation", "brier": "Brier score",
}  # fmt: skip
METRICS = tuple(METRIC_TITLES)
UNDEFINED = {
    "precision": "no image was called fractured",
    "npv": "no image was called non-fractured",
    "recall": "no fractured image",
    "specificity": "no non-fractured image",
    "f1": "no fractured image, true or called",
    "auroc": "one class only",
    "average_precision": "no fractured image",
    "balanced_accuracy": "one class only",
    "kappa": "truth and calls are all of one class",
    "mcc": "one class only, true or called",
}


def choose_threshold(y_true: np.ndarray, y_prob: np.ndarray, rule: str, target: float = 0.95) -> float:
    """Choose the operating threshold; to be called with validation data only.

    Parameters
    ----------
    y_true, y_prob : ndarray, shape (n,)
    rule : {'youden', 'sensitivity', 'fixed'}
        Youden's J (sensitivity + specificity - 1, Youden 1950) at its largest; or the highest threshold whose
        sensitivity reaches `target`; either taken midway to the next lower score, so that it does not hang on one
        image; or 0.5.
    target : float
        Sensitivity for the second rule.

    Returns
    -------
    float
        An image is called fractured when its probability is at or above it.

    Raises
    ------
    InputError
        When validation has no fractured image to reach a sensitivity on.
    """
    if rule == "fixed":
        return 0.5
    y_true, y_prob = _checked(y_true, y_prob)
    scores = np.unique(y_prob)
    if rule == "sensitivity":
        positive = np.sort(y_prob[y_true == 1])[::-1]
        if not len(positive):
            raise InputError("No fractured image in validation: a target sensitivity cannot be reached there.")
        best = float(positive[int(np.ceil(target * len(positive) - 1e-9)) - 1])
    else:
        false_positive, true_positive, thresholds = roc_curve(y_true, y_prob, drop_intermediate=False)
        best = float(thresholds[np.argmax(true_positive - false_positive)])
        if not np.isfinite(best):  # nothing separates: call nothing fractured
            return float(np.nextafter(scores[-1], 2))
    lower = scores[scores < best]
    return float((best + lower[-1]) / 2) if len(lower) else best


def compute_metrics(
    y_true: np.ndarray,
    y_prob: np.ndarray,
    threshold: float,
    group: Any = None,
    *,
    seed: int = 0,
    resampled: bool = True,
) -> dict[str, Any]:
    """Compute scores with 95 % intervals at a threshold.

    Parameters
    ----------
    y_true : ndarray of int, shape (n,)
        1 = Fractured.
    y_prob : ndarray of float, shape (n,)
        P(Fractured).
    threshold : float
    group : array-like, shape (n,), optional
        What is resampled whole; each image its own when left out.
    seed : int
    resampled : bool
        Without it the scores that need a bootstrap have no interval, which saves time.

    Returns
    -------
    dict
        For each name in `METRICS` a dictionary value, ci_low, ci_high, method (value None and a reason
        where it is not defined; AUROC also delong_low, delong_high: DeLong's interval, which takes images for
        independent); then n, n_groups, prevalence, threshold, tp, fp, tn, fn.

    Raises
    ------
    InputError
        When a score is missing or no probability, or the lengths differ.
    """
    y_true, y_prob = _checked(y_true, y_prob)
    codes = np.arange(len(y_true)) if group is None else pd.factorize(np.asarray(group, dtype=object))[0]
    sums = GroupSums(y_true, y_prob, threshold, codes)
    result = {name: _proportion(sums, name) for name in PROPORTIONS} | _bootstrap(
        sums, seed, RESAMPLES if resampled else 0
    )
    result["auroc"] |= dict(zip(("delong_low", "delong_high"), _delong(y_true, y_prob), strict=True))
    tp, fp, tn, fn = (int(v) for v in sums.counts.sum(axis=0))
    return {name: result[name] for name in METRICS} | {
        "n": len(y_true),
        "n_groups": int(codes.max()) + 1,
        "prevalence": float(y_true.mean()),
        "threshold": float(threshold),
        "tp": tp,
        "fp": fp,
        "tn": tn,
        "fn": fn,
    }


def judge(
    test: pd.DataFrame, validation: pd.DataFrame, chosen: dict[str, Any], *, leak: float = 0.0, seed: int = 0
) -> dict[str, Any]:
    """Return the content of ``metrics.json``: scores on test, and under ``validation`` the same there.

    Parameters
    ----------
    test, validation : DataFrame
        ``predictions_*.csv``: y_true, y_prob, group.
    chosen : dict
        ``threshold.json``: threshold, and how it was chosen on validation: rule, target_sensitivity.
    leak : float
        Share of the test images with a sibling in train or validation: it stands beside every score.
    seed : int
    """
    threshold = chosen["threshold"]
    both = [compute_metrics(t["y_true"], t["y_prob"], threshold, t["group"], seed=seed) for t in (test, validation)]
    return both[0] | {"threshold_rule": describe_rule(chosen), "leak": leak, "validation": both[1]}


def describe_rule(chosen: dict[str, Any]) -> str:
    """Return how the threshold was chosen, in a few words; of ``threshold.json``."""
    where = chosen.get("chosen_on", "validation")
    words = {"fixed": "fixed", "youden": f"Youden's J on {where}",
             "sensitivity": f"sensitivity of {chosen['target_sensitivity']:g} on {where}"}  # fmt: skip
    return words[chosen["rule"]]


def metrics_table(scores: dict[str, Any]) -> pd.DataFrame:
    """Return a row a metric: metric, test, validation (value and interval as text), interval (its method)."""
    rows = []
    for name in METRICS:
        texts = {"test": describe(scores[name])}
        if "validation" in scores:
            texts["validation"] = describe(scores["validation"][name])
        if scores.get("leak"):
            texts["leaked test images"] = f"{scores['leak']:.0%}"
        rows.append({"metric": METRIC_TITLES[name]} | texts | {"interval": scores[name].get("method", "")})
    return pd.DataFrame(rows)


def _checked(y_true: Any, y_prob: Any) -> tuple[np.ndarray, np.ndarray]:
    y_true, y_prob = np.asarray(y_true, dtype=int), np.asarray(y_prob, dtype=float)
    if y_true.shape != y_prob.shape or y_true.ndim != 1 or not len(y_true):
        raise InputError(f"{len(y_true)} labels and {len(y_prob)} probabilities: one of each an image is needed.")
    bad = ~((y_prob >= 0) & (y_prob <= 1))
    if bad.any():
        raise InputError(f"{int(bad.sum())} of {len(y_prob)} probabilities are missing or not within 0 to 1.")
    return y_true, y_prob


class GroupSums:
    """What each group adds to each score, so that a resample is a product with its group weights."""

    def __init__(self, y_true: np.ndarray, y_prob: np.ndarray, threshold: float, codes: np.ndarray) -> None:
        called = y_prob >= threshold
        cells = np.stack([y_true & called, (1 - y_true) & called, (1 - y_true) & ~called, y_true & ~called], axis=1)
        self.size = int(codes.max()) + 1
        member = sparse.coo_matrix((np.ones(len(codes)), (codes, np.arange(len(codes))))).tocsr()
        self.counts = member @ cells.astype(float)
        self.squared_error = member @ (y_prob - y_true) ** 2
        self.images = np.asarray(member.sum(axis=1))[:, 0]
        _, rank = np.unique(y_prob, return_inverse=True)
        shape = (self.size, rank.max() + 1)
        positive = y_true == 1
        self.positive = sparse.coo_matrix((positive.astype(float), (codes, rank)), shape).tocsr()
        self.negative = sparse.coo_matrix(((~positive).astype(float), (codes, rank)), shape).tocsr()

    def auroc(self, weights: np.ndarray) -> np.ndarray:
        """Return AUROC for each row of group weights, shape (rows, groups)."""
        return _auroc(weights @ self.positive, weights @ self.negative)

    def scores(self, weights: np.ndarray) -> dict[str, np.ndarray]:
        """Return the scores in `RESAMPLED` for each row of group weights, shape (rows, groups)."""
        tp, fp, tn, fn = (weights @ self.counts).T
        with np.errstate(divide="ignore", invalid="ignore"):
            result = {
                "f1": 2 * tp / (2 * tp + fp + fn),
                "balanced_accuracy": (tp / (tp + fn) + tn / (tn + fp)) / 2,
                "kappa": _kappa(tp, fp, tn, fn),
                "mcc": (tp * tn - fp * fn) / np.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)),
                "brier": (weights @ self.squared_error) / (weights @ self.images),
            }
            positive, negative = weights @ self.positive, weights @ self.negative
            result["auroc"] = _auroc(positive, negative)
            all_positive = positive.sum(axis=1)
            hits = np.cumsum(positive[:, ::-1], axis=1)
            called = hits + np.cumsum(negative[:, ::-1], axis=1)
            precision = np.divide(hits, called, out=np.zeros_like(hits), where=called > 0)
            result["average_precision"] = (precision * positive[:, ::-1]).sum(axis=1) / all_positive
        return result


def _auroc(positive: np.ndarray, negative: np.ndarray) -> np.ndarray:
    """AUROC of each row from the weights of either class at each score, rising; not finite with one class only."""
    below = np.cumsum(negative, axis=1) - negative / 2  # ties count half
    with np.errstate(divide="ignore", invalid="ignore"):
        return (positive * below).sum(axis=1) / (positive.sum(axis=1) * negative.sum(axis=1))


def _kappa(tp: np.ndarray, fp: np.ndarray, tn: np.ndarray, fn: np.ndarray) -> np.ndarray:
    """Cohen's kappa (1960) of calls and truth: agreement beyond what their margins give by chance."""
    n = tp + fp + tn + fn
    chance = ((tp + fp) * (tp + fn) + (tn + fn) * (tn + fp)) / n**2
    return ((tp + tn) / n - chance) / (1 - chance)


def threshold_band(
    validation: pd.DataFrame, rule: str, target: float = 0.95, *, seed: int = 0, resamples: int = 500
) -> tuple[float, float]:
    """Return between what values the threshold would lie with other validation images: a probability within is uncertain.

    The rule is applied to resamples of whole groups; the band is the middle 95 % of what comes out. With fewer than
    `FEW` groups of a class nothing is known of it: it is 0 to 1.

    Parameters
    ----------
    validation : DataFrame
        y_true, y_prob, group.
    rule, target
        As for `choose_threshold`.
    seed, resamples : int
    """
    codes = pd.factorize(validation["group"])[0]
    y_true, y_prob = _checked(validation["y_true"], validation["y_prob"])
    chosen = []
    if has_few_groups(y_true, codes):
        return 0.0, 1.0
    for weights in group_weights(int(codes.max()) + 1, resamples, seed):
        rows = np.repeat(np.arange(len(codes)), weights[codes].astype(int))
        if len(set(y_true[rows])) == 2:
            chosen.append(choose_threshold(y_true[rows], y_prob[rows], rule, target))
    return tuple(float(edge) for edge in np.quantile(chosen or [0.0, 1.0], ((1 - LEVEL) / 2, (1 + LEVEL) / 2)))


def _proportion(sums: GroupSums, name: str) -> dict[str, Any]:
    numerator, denominator = PROPORTIONS[name]
    hits, trials = sums.counts[:, numerator].sum(axis=1), sums.counts[:, denominator].sum(axis=1)
    return wilson_interval(hits, trials, UNDEFINED.get(name, "no image"))


def _delong(y_true: np.ndarray, y_prob: np.ndarray) -> tuple[float | None, float | None]:
    if len(set(y_true)) < 2:
        return None, None
    low, high = delong_interval(y_true, y_prob)
    return (low, high) if np.isfinite(low) else (None, None)


def _bootstrap(sums: GroupSums, seed: int, resamples: int, chunk: int = 500) -> dict[str, Any]:
    def run(weights: np.ndarray) -> pd.DataFrame:
        parts = [pd.DataFrame(sums.scores(weights[i : i + chunk])) for i in range(0, len(weights), chunk)]
        return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=RESAMPLED, dtype=float)

    value = run(np.ones((1, sums.size))).iloc[0]
    few = min(int((part.sum(axis=1) > 0).sum()) for part in (sums.positive, sums.negative)) < FEW
    drawn = run(group_weights(sums.size, 0 if few else resamples, seed))
    left_out = run(1 - np.eye(sums.size)) if sums.size > 1 and resamples else drawn.iloc[:0]
    result = {}
    for name in RESAMPLED:
        if not np.isfinite(value[name]):
            result[name] = {"value": None, "ci_low": None, "ci_high": None, "reason": UNDEFINED[name]}
            continue
        low, high = bca_interval(value[name], drawn[name].to_numpy(), left_out[name].to_numpy())
        result[name] = {
            "value": float(value[name]), "ci_low": low, "ci_high": high, "method": "BCa bootstrap of groups",
        }  # fmt: skip
    return result


def describe(entry: dict[str, Any], digits: int = 2) -> str:
    """Return ``0.83 (0.75 to 0.89)``, or the reason why there is no value."""
    if entry["value"] is None:
        return f"not defined ({entry['reason']})"
    if entry["ci_low"] is None:
        return f"{entry['value']:.{digits}f} (no interval: too few groups)"
    return f"{entry['value']:.{digits}f} ({entry['ci_low']:.{digits}f} to {entry['ci_high']:.{digits}f})"
