"""Where a model does worse: subgroups of images, and single ones."""

from typing import Any

import numpy as np
import pandas as pd

from xray_helpers.data.manifest import MOST_VALUES, find_label_columns
from xray_helpers.evaluation.metrics import compute_metrics
from xray_helpers.study.tables import MANIFEST, USER_COLUMNS

SHOWN = ("auroc", "recall", "specificity")
_OWN = {*MANIFEST, *USER_COLUMNS, "y_true"} - {"mode"}  # of the manifest: what makes no subgroup


def subgroup_columns(part: pd.DataFrame, manifest: pd.DataFrame | None = None) -> list[str]:
    """Return the columns of a manifest's part that make subgroups: the user's own and how files are stored.

    They have 2 to 12 values, and at least three images a value on average: measures such as coordinates make
    none, nor does a column that tells the label in the whole `manifest`, such as a count of fractures.
    """
    found, telling = [], set() if manifest is None else set(find_label_columns(manifest))
    for column in part.columns.difference([*_OWN, *telling], sort=False):
        values = part[column].dropna().astype(str)
        if 2 <= values.nunique() <= min(MOST_VALUES, len(values) / 3):
            found.append(column)
    return found


def evaluate_subgroups(
    predictions: pd.DataFrame, manifest: pd.DataFrame, threshold: float, columns: list[str]
) -> pd.DataFrame:
    """Judge each value of each column apart.

    Parameters
    ----------
    predictions : DataFrame
        ``predictions_test.csv``.
    manifest : DataFrame
        With path and the columns.
    threshold : float
    columns : list of str
        Images without a value of a column make the subgroup ``not stated``.

    Returns
    -------
    DataFrame
        column, value, n, n_groups, n_effective (Kish), fractured, and for AUROC, recall and specificity:
        value, ``_low``, ``_high`` (95 %, by groups), ``_reason`` where it, or its interval, is not defined.
        The first row, column ``all``, is the whole.
    """
    table = predictions.merge(manifest[["path", *columns]], on="path", how="left", validate="one_to_one")
    rows = [_evaluate(table, threshold) | {"column": "all", "value": "all images"}]
    for column in columns:
        values = table[column].astype("string").fillna("not stated")
        for value, part in table.groupby(values, sort=True):
            rows.append(_evaluate(part, threshold) | {"column": column, "value": str(value)})
    result = pd.DataFrame(rows)
    return result[["column", "value", *result.columns.drop(["column", "value"])]]


def _evaluate(part: pd.DataFrame, threshold: float) -> dict[str, Any]:
    scores = compute_metrics(part["y_true"], part["y_prob"], threshold, part["group"])
    row = {
        "n": scores["n"],
        "n_groups": scores["n_groups"],
        "n_effective": scores["n_effective"],
        "fractured": scores["tp"] + scores["fn"],
    }
    for name in SHOWN:
        entry = scores[name]
        known = {name: entry["value"], f"{name}_low": entry["ci_low"], f"{name}_high": entry["ci_high"]}
        row |= {key: np.nan if value is None else value for key, value in known.items()}
        row[f"{name}_reason"] = entry.get("reason", "")
    return row


def describe_subgroups(subgroups: pd.DataFrame) -> str:
    """Return what the subgroups tell, in sentences."""
    whole, parts = subgroups.iloc[0], subgroups.iloc[1:]
    if parts.empty:
        return (
            "The manifest has no column that makes subgroups: give a CSV with body part, view or the "
            "like to see them."
        )
    smallest = parts.loc[parts["n"].idxmin()]
    text = (
        f"The smallest of {len(parts)} subgroups, {smallest['column']} = {smallest['value']}, has "
        f"{smallest['n']} images "
        f"of {smallest['n_groups']} groups. "
    )
    known = parts["auroc_high"].notna()
    worse = parts[parts["auroc_high"] < whole["auroc"]]
    undefined = parts[parts["auroc"].isna()]
    if len(undefined):
        text += f"In {len(undefined)} of them AUROC is not defined, because they hold one class only. "
    if not known.any():
        return text + "None has an interval of AUROC, so whether it is worse in one of them is not known."
    if worse.empty:
        return text + (
            f"That AUROC is below the {whole['auroc']:.2f} of all images is not shown for any subgroup "
            "that has an "
            f"interval ({known.sum()} of {len(parts)}); in small ones it may be all the same."
        )
    names = "; ".join(
        f"{row.column} = {row.value} ({row.auroc:.2f}, n = {row.n})" for row in worse.itertuples()
    )
    return text + f"Below the {whole['auroc']:.2f} of all images, interval and all: {names}."
