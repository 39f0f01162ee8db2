"""Gaps between subgroups: is the model worse for some images than for the rest of the same test part?"""

from typing import Any

import numpy as np
import pandas as pd

from xray_helpers.evaluation import influence
from xray_helpers.evaluation.intervals import (
    MIN_GROUPS,
    TOO_FEW,
    compute_group_statistics,
    describe,
    describe_p,
    effective_groups,
    encode_groups,
    has_few_groups,
    mean_interval,
    t_test,
)
from xray_helpers.evaluation.paired import ALPHA, holm
from xray_helpers.evaluation.subgroups import name_subgroups
from xray_helpers.evaluation.verdict import RULED_OUT, SHOWN, UNKNOWN
from xray_helpers.study.files import build_table

MARGIN = 0.05  # subgroups whose gap is smaller count as treated alike
_COLUMNS = ("column", "value", "score", "gap", "ci_low", "ci_high", "p", "p_holm", "n", "n_groups", "reason")
_SCORES = {"auroc": "AUROC", "recall": "sensitivity", "specificity": "specificity"}


def measure_gaps(
    test: pd.DataFrame, manifest: pd.DataFrame, columns: list[str], threshold: float
) -> pd.DataFrame:
    """Compare each subgroup with all other images, by groups.

    A patient with images both in the subgroup and outside counts as one, so the comparison is paired where
    possible. p-values are adjusted over all comparisons (Holm 1979).

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
        column, value, score (auroc, recall, specificity), gap (the score of the subgroup less that of the
        others), ci_low, ci_high (95 %), p, p_holm, n and n_groups (of the subgroup), reason (why there is no
        interval).
    """
    table = test.merge(manifest[["path", *columns]], on="path", how="left", validate="one_to_one")
    rows = []
    for column in columns:
        values = name_subgroups(table[column])
        names = sorted(values.unique())
        for name in names[: 1 if len(names) == 2 else None]:  # with two values, one gap is enough
            inside = (values == name).to_numpy(bool)
            n, n_groups = int(inside.sum()), table.loc[inside, "group"].nunique()
            subgroup = {"column": column, "value": str(name), "n": n, "n_groups": n_groups}
            rows += [
                subgroup | {"score": score} | _measure_gap(table, inside, score, threshold)
                for score in _SCORES
            ]
    gaps = build_table(rows, _COLUMNS)
    return gaps.assign(p_holm=holm(gaps["p"].to_numpy(float)))


def _measure_gap(table: pd.DataFrame, inside: np.ndarray, score: str, threshold: float) -> dict[str, Any]:
    y, codes = table["y_true"].to_numpy(), encode_groups(table["group"])
    p, added, values = table["y_prob"].to_numpy(float), np.zeros(len(table)), []
    label = {"recall": 1, "specificity": 0}.get(score)
    used = np.ones(len(y), bool) if label is None else y == label
    for part, sign in ((inside & used, 1), (~inside & used, -1)):
        if not part.any() or (label is None and len(set(y[part])) < 2):
            return {"reason": "one class only"}
        if label is None:
            value, added[part] = influence.auroc(y[part], p[part], np.ones(part.sum()))
            added[part] *= sign
        else:
            right = (p[part] >= threshold) == label
            value, added[part] = right.mean(), sign * (right - right.mean()) / part.sum()
        values.append(float(value))
    gap = values[0] - values[1]
    for part in (inside, ~inside):
        few = (
            has_few_groups(y[part], codes[part])
            if label is None
            else (effective_groups(codes[part & used]) < MIN_GROUPS)
        )
        if few:
            return {"gap": gap, "reason": TOO_FEW}
    spread = compute_group_statistics(added[used], codes[used], inside[used].astype(int))
    entry = mean_interval(gap, spread)
    return {
        "gap": gap,
        "ci_low": entry["ci_low"],
        "ci_high": entry["ci_high"],
        "p": t_test(gap, np.sqrt(spread.variance), spread.freedom),
        "reason": entry.get("reason", ""),
    }


def gaps_table(gaps: pd.DataFrame) -> list[dict[str, str]]:
    """Return the gaps as text, those with the smallest p first."""
    return [
        {
            "subgroup": f"{row['column']} = {row['value']}",
            "score": _SCORES[row["score"]],
            "less that of the others": describe(row | {"value": row["gap"]}),
            "p, adjusted": describe_p(row["p_holm"]),
            "n": f"{row['n']:.0f} in {row['n_groups']:.0f} groups",
        }
        for row in gaps.sort_values("p", na_position="last", kind="stable").to_dict("records")
    ]


def judge_gaps(gaps: pd.DataFrame) -> str:
    """Return whether a gap between subgroups is shown, all are ruled out within the margin, or not known."""
    if (gaps["p_holm"] < ALPHA).any():
        return SHOWN
    alike = (gaps["ci_low"] > -MARGIN) & (gaps["ci_high"] < MARGIN)
    return RULED_OUT if len(gaps) and alike.all() else UNKNOWN


def describe_gaps(gaps: pd.DataFrame) -> str:
    """Return how many gaps between subgroups are shown, ruled out within the margin, and not known."""
    if gaps.empty:
        return "No column makes subgroups, so gaps between them are not known."
    tested = gaps["p_holm"].notna()
    if not tested.any():
        return "There are too few groups to test any gap between subgroups. No gap is known or ruled out."
    differs = tested & (gaps["p_holm"] < ALPHA)
    alike = tested & (gaps["ci_low"] > -MARGIN) & (gaps["ci_high"] < MARGIN) & ~differs
    shown = "; ".join(
        f"{row.column} = {row.value}, {_SCORES[row.score]} {row.gap:+z.2f}"
        for row in gaps[differs].itertuples()
    )
    return (
        f"Gaps between subgroups, adjusted for {tested.sum()} comparisons: "
        f"{f'shown are {shown}' if shown else 'none is shown'}; {alike.sum()} are ruled out within "
        f"{MARGIN:g}, {len(gaps) - differs.sum() - alike.sum()} are not known."
    )
