"""Several models judged on the same images: are their differences more than chance?"""

from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from xray_helpers.delong import compare_auroc
from xray_helpers.intervals import RESAMPLES, bca_interval, group_weights, has_few_groups
from xray_helpers.metrics import GroupSums
from xray_helpers.settings import FEW

ALPHA = 0.05
_COLUMNS = (
    "first", "second", "difference", "ci_low", "ci_high", "p", "delong_p", "only_first", "only_second", "decisions_p",
)  # fmt: skip


def compare_pairs(predictions: dict[str, pd.DataFrame], seed: int = 0) -> pd.DataFrame:
    """Test each pair of models on AUROC and on decisions; p-values are Holm's, over all pairs.

    Parameters
    ----------
    predictions : dict
        A model's name to its ``predictions_test.csv``, all of the same images in the same order.
    seed : int

    Returns
    -------
    DataFrame
        A row a pair: first, second, difference (AUROC of the first less the second's), ci_low, ci_high (95 %, BCa, groups
        resampled for both models alike), p (of that bootstrap), delong_p (takes images for independent), only_first,
        only_second (images that one model alone gets right), decisions_p, and each p after Holm: p_holm, delong_p_holm,
        decisions_p_holm. Intervals and p are missing where a class has fewer than `FEW` groups.
    """
    names = list(predictions)
    first = predictions[names[0]]
    y_true, codes = first["y_true"].to_numpy(), pd.factorize(first["group"])[0]
    probabilities = {name: table["y_prob"].to_numpy() for name, table in predictions.items()}
    right = {name: (table["y_pred"] == table["y_true"]).to_numpy() for name, table in predictions.items()}
    auroc = bootstrap_auroc(y_true, probabilities, codes, seed)
    rows = []
    for a, b in combinations(names, 2):
        value, drawn, left_out = (auroc[a][part] - auroc[b][part] for part in range(3))
        low, high = (np.nan if end is None else end for end in bca_interval(float(value), drawn, left_out))
        delong = compare_auroc(y_true, probabilities[a], probabilities[b])
        rows.append({"first": a, "second": b, "difference": float(value), "ci_low": low, "ci_high": high,
                     "p": bootstrap_p(drawn), "delong_p": delong.p,
                     "only_first": int((right[a] & ~right[b]).sum()), "only_second": int((right[b] & ~right[a]).sum()),
                     "decisions_p": compare_decisions(right[a], right[b], codes)})  # fmt: skip
    table = pd.DataFrame(rows, columns=_COLUMNS)
    if has_few_groups(y_true, codes):
        table[["ci_low", "ci_high", "p", "delong_p", "decisions_p"]] = np.nan
    for column in ("p", "delong_p", "decisions_p"):
        table[f"{column}_holm"] = holm(table[column].to_numpy(float))
    return table


def bootstrap_auroc(
    y_true: np.ndarray, probabilities: dict[str, np.ndarray], codes: np.ndarray, seed: int
) -> dict[str, tuple[float, np.ndarray, np.ndarray]]:
    """Return for each model its AUROC, that of each resample of groups (the same for all), and without each group."""
    size = int(codes.max()) + 1
    weights = group_weights(size, RESAMPLES, seed)
    found = {}
    for name, y_prob in probabilities.items():
        sums = GroupSums(y_true, y_prob, 0.5, codes)
        found[name] = tuple(
            np.concatenate([sums.auroc(block[at : at + 500]) for at in range(0, len(block), 500)])
            for block in (np.ones((1, size)), weights, 1 - np.eye(size))
        )
    return {name: (float(value[0]), drawn, left_out) for name, (value, drawn, left_out) in found.items()}


def bootstrap_p(drawn: np.ndarray) -> float:
    """Return twice the share of resampled differences on the rarer side of 0, at least 2 / (resamples + 1), at most 1."""
    drawn = drawn[np.isfinite(drawn)]
    rarer = min((drawn <= 0).sum(), (drawn >= 0).sum())
    return float(min(1.0, 2 * (rarer + 1) / (len(drawn) + 1)))


def compare_decisions(first: np.ndarray, second: np.ndarray, codes: np.ndarray) -> float:
    """Test whether two models are right equally often on the same images; return p.

    McNemar's exact test (1947) where each group is one image. Else, as images of a group are not independent, its form on
    groups: the sum over groups of (right by the first alone - right by the second alone), squared, over the sum of the
    squares, is chi-squared with one degree of freedom if each group is as likely to favour either; with single images
    that is McNemar's chi-squared.
    """
    net = first.astype(int) - second.astype(int)
    if len(np.unique(codes)) == len(codes):
        from statsmodels.stats.contingency_tables import mcnemar

        table = [[0, int((net == 1).sum())], [int((net == -1).sum()), 0]]
        return float(mcnemar(table, exact=True).pvalue) if net.any() else 1.0
    by_group = np.bincount(codes, net)
    squares = (by_group**2).sum()
    return float(stats.chi2.sf(by_group.sum() ** 2 / squares, 1)) if squares else 1.0


def compare_accuracies(predictions: dict[str, pd.DataFrame]) -> float | None:
    """Return p of Cochran's Q (1950), that all models are right equally often; 1 where all agree.

    It takes images for independent, so with groups it is a first look: pairs are tested by groups. None for one model, or
    where a class has fewer than `FEW` groups.
    """
    first = next(iter(predictions.values()))
    right = np.stack([(table["y_pred"] == table["y_true"]).to_numpy() for table in predictions.values()], axis=1)
    if right.shape[1] < 2 or has_few_groups(first["y_true"], first["group"]):
        return None
    if (right.all(axis=1) | ~right.any(axis=1)).all():
        return 1.0
    from statsmodels.stats.contingency_tables import cochrans_q

    return float(cochrans_q(right.astype(int)).pvalue)


def holm(p: np.ndarray) -> np.ndarray:
    """Return p-values after Holm's correction (1979) for how many there are; missing ones stay missing."""
    from statsmodels.stats.multitest import multipletests

    out, known = np.full(len(p), np.nan), np.isfinite(p)
    if known.any():
        out[known] = multipletests(p[known], method="holm")[1]
    return out


def pairs_table(pairs: pd.DataFrame) -> pd.DataFrame:
    """Return the pairs for a reader: models, difference of AUROC with its interval, and the corrected p-values."""
    rows = []
    for row in pairs.itertuples():
        interval = f" ({row.ci_low:+.2f} to {row.ci_high:+.2f})" if np.isfinite(row.ci_low) else ""
        rows.append({"models": f"{row.first} - {row.second}",
                     "AUROC difference": f"{row.difference:+.2f}{interval}",
                     "p, groups": _p(row.p_holm), "p, DeLong": _p(row.delong_p_holm),
                     "right alone": f"{row.only_first} against {row.only_second}",
                     "p, decisions": _p(row.decisions_p_holm)})  # fmt: skip
    return pd.DataFrame(
        rows, columns=["models", "AUROC difference", "p, groups", "p, DeLong", "right alone", "p, decisions"]
    )


def _p(value: float) -> str:
    return f"{value:.3f}" if np.isfinite(value) else "not tested"


def describe_pairs(pairs: pd.DataFrame, best: str) -> str:
    """Return in sentences from which models the first-ranked one is told apart."""
    if pairs.empty:
        return "One model alone: there is nothing to compare."
    if pairs["p_holm"].isna().all():
        return f"Nothing was tested: a class has fewer than {FEW} sources or patients, so any difference may be chance."
    mine = pairs[(pairs["first"] == best) | (pairs["second"] == best)]
    others = np.where(mine["first"] == best, mine["second"], mine["first"])
    sure = others[(mine["p_holm"] < ALPHA).to_numpy()].tolist()
    unsure = [name for name in others if name not in sure]
    text = f"After correction for {len(pairs)} comparisons, {best} "
    text += f"is told apart from {_listed(sure)} by AUROC" if sure else "is told apart from no other model by AUROC"
    return text + (f"; between it and {_listed(unsure)} the difference may be chance." if unsure and sure else ".")


def _listed(names: Any) -> str:
    names = list(names)
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + " and " + names[-1]
