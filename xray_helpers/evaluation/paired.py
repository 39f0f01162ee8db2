"""Several models judged on the same images: are their differences more than chance?"""

from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats
from scipy.special import logit

from xray_helpers.evaluation.delong import compare_auroc
from xray_helpers.evaluation.influence import placements
from xray_helpers.evaluation.intervals import (
    MIN_GROUPS,
    describe_p,
    effective_sample_size,
    encode_groups,
    has_few_groups,
)
from xray_helpers.evaluation.sign_flips import sign_flip_interval

ALPHA = 0.05
MARGIN = 0.01  # a difference of AUROC below which two models may count as equal
_EDGE = 1e-7  # probabilities are kept this far from 0 and 1 where their logarithm is taken
_COLUMNS = (
    "first",
    "second",
    "difference",
    "ci_low",
    "ci_high",
    "p",
    "delong_p",
    "only_first",
    "only_second",
    "decisions_p",
)


def compare_pairs(predictions: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Test each pair of models on AUROC and on decisions; p-values are Holm's, over all pairs.

    Parameters
    ----------
    predictions : dict
        A model's name to its ``predictions_test.csv``, all of the same images in the same order.

    Returns
    -------
    DataFrame
        A row a pair: first, second, difference (AUROC of the first less the second's), ci_low, ci_high (95 %)
        and p of one test, in which the models are swapped in whole groups (`signflips`): the interval
        excludes 0 just where p < 0.05; delong_p (takes images for independent: for comparison with other
        papers only), only_first, only_second (images that one model alone gets right), decisions_p, and each
        p after Holm: p_holm, delong_p_holm, decisions_p_holm. Intervals and p are missing where a class has
        fewer than `intervals.MIN_GROUPS` effective groups.
    """
    names = list(predictions)
    first = predictions[names[0]]
    y_true, codes = first["y_true"].to_numpy(), encode_groups(first["group"])
    probabilities = {name: table["y_prob"].to_numpy(float) for name, table in predictions.items()}
    right = {name: (table["y_pred"] == table["y_true"]).to_numpy() for name, table in predictions.items()}
    few = has_few_groups(y_true, codes)
    rows = []
    for a, b in combinations(names, 2):
        parts = compare_by_group(y_true, probabilities[a], probabilities[b], codes)
        low, high, p = (np.nan,) * 3 if few else _test_auroc(parts, y_true, codes)
        tested = (
            (np.nan,) * 2
            if few
            else (
                compare_auroc(y_true, probabilities[a], probabilities[b]).p,
                compare_decisions(right[a], right[b], codes),
            )
        )
        rows.append(
            {
                "first": a,
                "second": b,
                "difference": float(parts.sum()),
                "ci_low": low,
                "ci_high": high,
                "p": p,
                "delong_p": tested[0],
                "only_first": int((right[a] & ~right[b]).sum()),
                "only_second": int((right[b] & ~right[a]).sum()),
                "decisions_p": tested[1],
            }
        )
    table = pd.DataFrame(rows, columns=_COLUMNS)
    for column in ("p", "delong_p", "decisions_p"):
        table[f"{column}_holm"] = holm(table[column].to_numpy(float))
    return table


def compare_by_group(
    y_true: np.ndarray, first: np.ndarray, second: np.ndarray, codes: np.ndarray
) -> np.ndarray:
    """Return what each group adds to the difference of two AUROCs, so that swapping the models there turns
    its sign.

    A positive adds the share of both models' negatives between its two scores, over the number of positives;
    negatives likewise: the AUROC of any swap is then a sum over groups exactly. Both models must be on one
    scale: standardised log-odds, or ranks, whichever agree better, as swaps do not change which that is (cf.
    Bandos, Rockette and Gur 2005, who permute ranks).

    Parameters
    ----------
    y_true : ndarray of int, shape (n,)
    first, second : ndarray of float, shape (n,)
        P(Fractured).
    codes : ndarray of int, shape (n,)

    Returns
    -------
    ndarray of float, shape (groups,)
    """
    scales = ([_standardise(first), _standardise(second)], [stats.rankdata(first), stats.rankdata(second)])
    found = [np.bincount(codes, _added(y_true, *scores)) for scores in scales]
    return min(found, key=lambda parts: (parts**2).sum())


def _standardise(y_prob: np.ndarray) -> np.ndarray:
    odds = logit(np.clip(y_prob, _EDGE, 1 - _EDGE))
    return (odds - odds.mean()) / (odds.std() or 1.0)


def _added(y_true: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    added = np.zeros(len(y_true))
    for label, sign in ((1, 1.0), (0, -1.0)):
        mine, others = y_true == label, np.concatenate([first[y_true != label], second[y_true != label]])
        ones = np.ones(len(others))
        added[mine] = (
            sign
            * (placements(first[mine], others, ones) - placements(second[mine], others, ones))
            / mine.sum()
        )
    return added


def _test_auroc(parts: np.ndarray, y_true: np.ndarray, codes: np.ndarray) -> tuple[float, float, float]:
    sizes = np.bincount(codes)
    shares = np.bincount(codes, np.where(y_true == 1, 0.5 / y_true.sum(), 0.5 / (1 - y_true).sum()))
    # putting the models on one scale takes freedom, found to be worth one to two groups
    # (benchmarks/interval_coverage.py)
    return sign_flip_interval(parts, shares, float(np.sqrt(max(1 - 1.5 / effective_sample_size(sizes), 0))))


def compare_decisions(first: np.ndarray, second: np.ndarray, codes: np.ndarray) -> float:
    """Test whether two models are right equally often on the same images; return p.

    McNemar's exact test (1947) where each group is one image. Else, as images of a group are not independent,
    its form on groups: the sum over groups of (right by the first alone - right by the second alone),
    squared, over the sum of the squares, is chi-squared with one degree of freedom if each group is as likely
    to favour either; with single images that is McNemar's chi-squared.
    """
    net = first.astype(int) - second.astype(int)
    if len(np.unique(codes)) == len(codes):
        from statsmodels.stats.contingency_tables import mcnemar

        table = [[0, int((net == 1).sum())], [int((net == -1).sum()), 0]]
        return float(mcnemar(table, exact=True).pvalue) if net.any() else 1.0
    by_group = np.bincount(codes, net)
    squares = (by_group**2).sum()
    return float(stats.chi2.sf(by_group.sum() ** 2 / squares, 1)) if squares else 1.0


def describe_accuracies(predictions: dict[str, pd.DataFrame]) -> str:
    """Return `compare_accuracies` as a sentence."""
    p = compare_accuracies(predictions)
    told = "not tested, because there is one model, or too few groups" if p is None else f"p {describe_p(p)}"
    return f"If all models were right equally often, by groups: {told}."


def compare_accuracies(predictions: dict[str, pd.DataFrame]) -> float | None:
    """Return p that all models are right equally often, by groups; 1 where all agree.

    Cochran's question (1950) in a form for groups: Hotelling's T squared of the groups' sums of (right by
    this model - mean of all models), against none. None for one model, where a class has fewer than
    `intervals.MIN_GROUPS` effective groups, or where fewer than five groups a model are judged differently by
    some.
    """
    first = next(iter(predictions.values()))
    right = np.stack(
        [(table["y_pred"] == table["y_true"]).to_numpy() for table in predictions.values()], axis=1
    )
    if right.shape[1] < 2 or has_few_groups(first["y_true"], first["group"]):
        return None
    apart = right - right.mean(axis=1, keepdims=True)
    codes = encode_groups(first["group"])
    sums = np.stack([np.bincount(codes, column) for column in apart.T], axis=1)
    rank, groups = int(np.linalg.matrix_rank(sums)), int((np.abs(sums) > 1e-12).any(axis=1).sum())
    if not rank:
        return 1.0
    if groups < 5 * rank:  # found liberal below (benchmarks/interval_coverage.py)
        return None
    total = sums.sum(axis=0)
    q = float(total @ np.linalg.pinv(sums.T @ sums) @ total)
    return float(stats.f.sf((groups - rank) / rank * q / max(groups - q, 1e-12), rank, groups - rank))


def holm(p: np.ndarray) -> np.ndarray:
    """Return p-values after Holm's correction (1979) for how many there are; missing ones stay missing."""
    out, known = np.full(len(p), np.nan), np.flatnonzero(np.isfinite(p))
    rising = known[np.argsort(p[known], kind="stable")]
    steps = p[rising] * np.arange(len(rising), 0, -1)
    out[rising] = np.minimum(np.maximum.accumulate(steps), 1) if len(rising) else steps
    return out


def pairs_table(pairs: pd.DataFrame) -> pd.DataFrame:
    """Return the pairs for a reader: models, difference of AUROC with its interval, and the corrected
    p-values.
    """
    rows = []
    for row in pairs.itertuples():
        interval = f" ({row.ci_low:+.2f} to {row.ci_high:+.2f})" if np.isfinite(row.ci_low) else ""
        rows.append(
            {
                "models": f"{row.first} - {row.second}",
                "AUROC difference": f"{row.difference:+.2f}{interval}",
                "p, groups": describe_p(row.p_holm),
                "p, DeLong": describe_p(row.delong_p_holm),
                "right alone": f"{row.only_first} against {row.only_second}",
                "p, decisions": describe_p(row.decisions_p_holm),
            }
        )
    return pd.DataFrame(
        rows, columns=["models", "AUROC difference", "p, groups", "p, DeLong", "right alone", "p, decisions"]
    )


def describe_pairs(pairs: pd.DataFrame, best: str) -> str:
    """Return in a sentence from which models `best` is told apart, from which it is not, and which are its
    equals.
    """
    if pairs.empty:
        return "One model alone: there is nothing to compare."
    if pairs["p_holm"].isna().all():
        return (
            f"Nothing was tested: a class has fewer than {MIN_GROUPS} sources or patients, so any "
            "difference may be chance."
        )
    mine = pairs[(pairs["first"] == best) | (pairs["second"] == best)]
    others = pd.Series(np.where(mine["first"] == best, mine["second"], mine["first"]), index=mine.index)
    told = mine["p_holm"] < ALPHA
    alike = ~told & (mine["ci_low"] > -MARGIN) & (mine["ci_high"] < MARGIN)
    sure, equal, unsure = (others[which].tolist() for which in (told, alike, ~told & ~alike))
    text = f"After correction for {len(pairs)} comparisons, {best} "
    text += (
        f"is told apart from {_listed(sure)} by AUROC"
        if sure
        else "is told apart from no other model by AUROC"
    )
    if unsure and sure:
        text += f"; between it and {_listed(unsure)} the difference may be chance"
    if equal:
        text += f"; from {_listed(equal)} it differs by less than {MARGIN:g} either way"
    return text + "."


def _listed(names: Any) -> str:
    names = list(names)
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + " and " + names[-1]
