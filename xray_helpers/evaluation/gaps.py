"""Gaps between subgroups: is the model worse for some than for the others of the same test images?"""

from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from xray_helpers.evaluation import influence
from xray_helpers.evaluation.intervals import (
    MIN_GROUPS,
    TOO_FEW,
    compute_group_statistics,
    describe,
    describe_p,
    encode_groups,
    has_few_groups,
    mean_interval,
)
from xray_helpers.evaluation.paired import ALPHA, holm
from xray_helpers.study.files import build_table

MARGIN = 0.05  # a gap below which subgroups may count as treated alike
_COLUMNS = ("column", "value", "score", "gap", "ci_low", "ci_high", "p", "p_holm", "n", "n_groups", "reason")
_SCORES = {"auroc": "AUROC", "recall": "sensitivity", "specificity": "specificity"}


def measure_gaps(
    test: pd.DataFrame, manifest: pd.DataFrame, columns: list[str], threshold: float
) -> pd.DataFrame:
    """Compare each subgroup with all other images, by groups; p is adjusted over all comparisons (Holm 1979).

    A patient with images in the subgroup and beside it counts as one, so that the comparison is paired where
    it can be.

    Parameters
    ----------
    test : DataFrame
        ``predictions_test.csv``: path, group, y_true, y_prob.
    manifest : DataFrame
        With path and the columns.
    columns : list of str
        Of `subgroups.subgroup_columns`.
    threshold : float

    Returns
    -------
    DataFrame
        column, value, score (auroc, recall, specificity), gap (the subgroup's score less the others'),
        ci_low, ci_high (95 %), p, p_holm, n and n_groups (of the subgroup), reason (why there is no
        interval).
    """
    table = test.merge(manifest[["path", *columns]], on="path", how="left", validate="one_to_one")
    rows = []
    for column in columns:
        values = table[column].astype("string").fillna("not stated")
        names = sorted(values.unique())
        for name in names[: 1 if len(names) == 2 else None]:  # of two, one gap says all
            inside = (values == name).to_numpy(bool)
            counts = {"n": int(inside.sum()), "n_groups": table.loc[inside, "group"].nunique()}
            rows += [
                {"column": column, "value": str(name), "score": score}
                | counts
                | _gap(table, inside, score, threshold)
                for score in _SCORES
            ]
    found = build_table(rows, _COLUMNS)
    return found.assign(p_holm=holm(found["p"].to_numpy(float)))


def _gap(table: pd.DataFrame, inside: np.ndarray, score: str, threshold: float) -> dict[str, Any]:
    y, codes = table["y_true"].to_numpy(), encode_groups(table["group"])
    p, added, values = table["y_prob"].to_numpy(float), np.zeros(len(table)), []
    for part, sign in ((inside, 1), (~inside, -1)):
        wanted = {"recall": 1, "specificity": 0}.get(score)
        mine = part if wanted is None else part & (y == wanted)
        if not mine.any() or (wanted is None and len(set(y[part])) < 2):
            return {"reason": "one class only"}
        if score == "auroc":
            value, added[mine] = influence.auroc(y[mine], p[mine], np.ones(mine.sum()))
            added[mine] *= sign
        else:
            right = (p[mine] >= threshold) == wanted
            value, added[mine] = right.mean(), sign * (right - right.mean()) / mine.sum()
        values.append(float(value))
    gap = values[0] - values[1]
    used = np.ones(len(y), bool) if score == "auroc" else y == wanted
    few = [
        has_few_groups(y[part], codes[part]) if score == "auroc" else _few(codes[part & used])
        for part in (inside, ~inside)
    ]
    if any(few):
        return {"gap": gap, "reason": TOO_FEW}
    spread = compute_group_statistics(added[used], codes[used], inside[used].astype(int), np.ones(used.sum()))
    entry, error = mean_interval(gap, spread), np.sqrt(spread.variance)
    p_value = float(2 * stats.t.sf(abs(gap) / error, spread.freedom)) if error > 0 else float(gap == 0)
    return {
        "gap": gap,
        "ci_low": entry["ci_low"],
        "ci_high": entry["ci_high"],
        "p": p_value,
        "reason": entry.get("reason", ""),
    }


def _few(codes: np.ndarray) -> bool:
    sizes = np.bincount(codes)
    return sizes.sum() ** 2 / (sizes**2).sum() < MIN_GROUPS


def gaps_table(gaps: pd.DataFrame) -> list[dict[str, str]]:
    """Return the gaps as text for a reader, the most certain first."""
    rows = []
    for row in gaps.sort_values("p", na_position="last", kind="stable").to_dict("records"):
        entry = {
            "value": row["gap"],
            "ci_low": row["ci_low"],
            "ci_high": row["ci_high"],
            "reason": row["reason"],
        }
        rows.append(
            {
                "subgroup": f"{row['column']} = {row['value']}",
                "score": _SCORES[row["score"]],
                "less that of the others": describe(entry),
                "p, adjusted": describe_p(row["p_holm"]),
                "n": f"{row['n']:.0f} in {row['n_groups']:.0f} groups",
            }
        )
    return rows


def describe_gaps(gaps: pd.DataFrame) -> str:
    """Return whether subgroups are treated alike: gaps that are shown, ruled out within the margin, and not
    known.
    """
    if gaps.empty:
        return "No column makes subgroups, so gaps between them are not known."
    tested = gaps["p_holm"].notna()
    if not tested.any():
        return (
            "No gap between subgroups could be tested: there are too few groups in them, so gaps are "
            "not known."
        )
    shown = gaps[tested & (gaps["p_holm"] < ALPHA)]
    alike = tested & (gaps["ci_low"] > -MARGIN) & (gaps["ci_high"] < MARGIN) & ~gaps.index.isin(shown.index)
    unknown = len(gaps) - len(shown) - int(alike.sum())
    words = "; ".join(
        f"{row.column} = {row.value}, {_SCORES[row.score]} {row.gap:+.2f}" for row in shown.itertuples()
    )
    text = f"Gaps between subgroups, adjusted for {int(tested.sum())} comparisons: "
    text += f"shown are {words}" if words else "none is shown"
    return text + f"; {int(alike.sum())} are ruled out within {MARGIN:g}, {unknown} are not known."
