"""Several models evaluated on the same images: are their differences more than chance?"""

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import pandas as pd
from scipy import stats

from xray_helpers.evaluation.delong import compare_auroc
from xray_helpers.evaluation.influence import placements
from xray_helpers.evaluation.intervals import (
    MIN_GROUPS,
    describe_p,
    effective_sample_size,
    encode_groups,
    has_few_groups,
)
from xray_helpers.evaluation.log_odds import log_odds
from xray_helpers.evaluation.sign_flips import sign_flip_interval

ALPHA = 0.05
MARGIN = 0.01  # models whose AUROC differs less count as equal
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
    """Test each pair of models on AUROC and on decisions.

    Parameters
    ----------
    predictions : dict
        Of each model its ``predictions_test.csv``, all of the same images in the same order.

    Returns
    -------
    DataFrame
        One row per pair: first, second, difference (AUROC of the first less that of the second); ci_low,
        ci_high (95 %) and p of one test that swaps the models in whole groups (`sign_flips`), so that the
        interval excludes 0 exactly where p < 0.05; delong_p (takes images as independent, for comparison with
        other papers only); only_first, only_second (images that only one model gets right); decisions_p; and
        each p after Holm's correction over all pairs: p_holm, delong_p_holm, decisions_p_holm. Intervals and
        p are missing where a class has fewer than `intervals.MIN_GROUPS` effective groups.
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
        row = {"first": a, "second": b, "difference": float(parts.sum())}
        if not few:
            row |= dict(
                zip(("ci_low", "ci_high", "p"), difference_interval(parts, [y_true], codes), strict=True)
            )
            row["delong_p"] = compare_auroc(y_true, probabilities[a], probabilities[b]).p
            row["decisions_p"] = compare_decisions(right[a], right[b], codes)
        row["only_first"] = int((right[a] & ~right[b]).sum())
        row["only_second"] = int((right[b] & ~right[a]).sum())
        rows.append(row)
    table = pd.DataFrame(rows, columns=_COLUMNS)
    for column in ("p", "delong_p", "decisions_p"):
        table[f"{column}_holm"] = holm(table[column].to_numpy(float))
    return table


def compare_by_group(
    y_true: np.ndarray, first: np.ndarray, second: np.ndarray, codes: np.ndarray
) -> np.ndarray:
    """Return what each group contributes to the difference of two AUROCs.

    Swapping the models in a group flips the sign of its contribution. A positive contributes the share of
    both models' negatives that lie between its two scores, divided by the number of positives; negatives
    likewise. The AUROC difference after any swap is then exactly a sum over groups. Both models must be on
    one scale: standardised log-odds or ranks, whichever agree better, which swaps do not change (cf. Bandos,
    Rockette and Gur 2005, who permute ranks).

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
    by_scale = [np.bincount(codes, _contributions(y_true, *scores)) for scores in scales]
    return min(by_scale, key=lambda parts: (parts**2).sum())


def _standardise(y_prob: np.ndarray) -> np.ndarray:
    odds = log_odds(y_prob)
    return (odds - odds.mean()) / (odds.std() or 1.0)


def _contributions(y_true: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    found = np.zeros(len(y_true))
    for label, sign in ((1, 1.0), (0, -1.0)):
        part = y_true == label
        others = np.concatenate([first[~part], second[~part]])
        placed = [placements(scores[part], others, np.ones(len(others))) for scores in (first, second)]
        found[part] = sign * (placed[0] - placed[1]) / part.sum()
    return found


def difference_interval(
    parts: np.ndarray, labels: Sequence[np.ndarray], codes: np.ndarray
) -> tuple[float, float, float]:
    """Return the ends of the interval of a difference of AUROCs, or of their means over classes, and p.

    Parameters
    ----------
    parts : ndarray of float, shape (groups,)
        What each group contributes to the difference (`compare_by_group`).
    labels : sequence of ndarray of int, shape (n,)
        y_true of each class.
    codes : ndarray of int, shape (n,)
    """
    sizes = np.bincount(codes)
    even = np.mean([np.where(y == 1, 0.5 / y.sum(), 0.5 / (1 - y).sum()) for y in labels], axis=0)
    shares = np.bincount(codes, even)
    # Putting the models on one scale costs one to two groups (benchmarks/interval_coverage.py).
    return sign_flip_interval(parts, shares, float(np.sqrt(max(1 - 1.5 / effective_sample_size(sizes), 0))))


def compare_decisions(first: np.ndarray, second: np.ndarray, codes: np.ndarray) -> float:
    """Test whether two models are right equally often on the same images; return p.

    McNemar's exact test (1947) where each group is one image. Otherwise its form for groups: each group
    counts the images that only the first gets right less those that only the second does; the squared sum
    over the sum of squares is chi-squared with one degree of freedom if groups favour neither. With single
    images that is McNemar's chi-squared.
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
    if p is None:
        return "Whether all models are right equally often was not tested: one model, or too few groups."
    return f"Test that all models are right equally often, by groups: p {describe_p(p)}."


def compare_accuracies(predictions: dict[str, pd.DataFrame]) -> float | None:
    """Return the p of all models being right equally often, by groups; 1 where all agree.

    Cochran's question (1950) for groups: Hotelling's T squared of the sums over groups of (this model is
    right - share of models that are right). None for a single model, where a class has fewer than
    `intervals.MIN_GROUPS` effective groups, or where models differ in fewer than five groups per model.
    """
    first = next(iter(predictions.values()))
    right = np.stack(
        [(table["y_pred"] == table["y_true"]).to_numpy() for table in predictions.values()], axis=1
    )
    if right.shape[1] < 2 or has_few_groups(first["y_true"], first["group"]):
        return None
    deviation = right - right.mean(axis=1, keepdims=True)
    codes = encode_groups(first["group"])
    sums = np.stack([np.bincount(codes, column) for column in deviation.T], axis=1)
    rank, groups = int(np.linalg.matrix_rank(sums)), int((np.abs(sums) > 1e-12).any(axis=1).sum())
    if not rank:
        return 1.0
    if groups < 5 * rank:  # below, p is too small (benchmarks/interval_coverage.py)
        return None
    total = sums.sum(axis=0)
    q = float(total @ np.linalg.pinv(sums.T @ sums) @ total)
    return float(stats.f.sf((groups - rank) / rank * q / max(groups - q, 1e-12), rank, groups - rank))


def holm(p: np.ndarray) -> np.ndarray:
    """Return p-values after Holm's correction (1979); missing ones are not counted and stay missing."""
    out, known = np.full(len(p), np.nan), np.flatnonzero(np.isfinite(p))
    rising = known[np.argsort(p[known], kind="stable")]
    steps = p[rising] * np.arange(len(rising), 0, -1)
    out[rising] = np.minimum(np.maximum.accumulate(steps), 1) if len(rising) else steps
    return out


def pairs_table(pairs: pd.DataFrame) -> pd.DataFrame:
    """Return the pairs as text: models, difference of AUROC with its interval, and the corrected p-values."""
    interval = [
        f" ({low:+z.2f} to {high:+z.2f})" if np.isfinite(low) else ""
        for low, high in zip(pairs["ci_low"], pairs["ci_high"], strict=True)
    ]
    return pd.DataFrame(
        {
            "models": pairs["first"] + " - " + pairs["second"],
            "AUROC difference": pairs["difference"].map("{:+z.2f}".format) + interval,
            "p, groups": pairs["p_holm"].map(describe_p),
            "p, DeLong": pairs["delong_p_holm"].map(describe_p),
            "right alone": pairs["only_first"].astype(str) + " against " + pairs["only_second"].astype(str),
            "p, decisions": pairs["decisions_p_holm"].map(describe_p),
        }
    ).reset_index(drop=True)


def describe_pairs(pairs: pd.DataFrame, best: str) -> str:
    """Return from which models `best` differs, from which it may differ, and which are its equals."""
    if pairs.empty:
        return "There is one model only: there is nothing to compare."
    if pairs["p_holm"].isna().all():
        return (
            f"Nothing was tested: a class has fewer than {MIN_GROUPS} sources or patients, so any "
            "difference may be due to chance."
        )
    mine = pairs[(pairs["first"] == best) | (pairs["second"] == best)]
    others = pd.Series(np.where(mine["first"] == best, mine["second"], mine["first"]), index=mine.index)
    differs = mine["p_holm"] < ALPHA
    alike = ~differs & (mine["ci_low"] > -MARGIN) & (mine["ci_high"] < MARGIN)
    different, equal, unsure = (others[part].tolist() for part in (differs, alike, ~differs & ~alike))
    text = f"After correction for {len(pairs)} comparison{'s'[: len(pairs) > 1]}, the AUROC of {best} "
    if different:
        text += f"differs from that of {_join(different)}"
    else:
        text += "is not shown to differ from that of any other model"
    if unsure and different:
        text += f"; the difference from {_join(unsure)} may be due to chance"
    if equal:
        text += f"; it differs from that of {_join(equal)} by less than {MARGIN:g} either way"
    return text + "."


def _join(names: list[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
