"""Where a model does worse: subgroups of the test images."""

from typing import Any

import numpy as np
import pandas as pd

from xray_helpers.data.manifest import MOST_VALUES, find_label_columns
from xray_helpers.evaluation.intervals import flatten_entry
from xray_helpers.evaluation.metrics import compute_metrics
from xray_helpers.settings import number_of
from xray_helpers.study.tables import MANIFEST, USER_COLUMNS

SHOWN = ("auroc", "recall", "specificity")
_OWN = {*MANIFEST, *USER_COLUMNS, "y_true"} - {"mode"}  # columns of the manifest that make no subgroups


def subgroup_columns(part: pd.DataFrame, manifest: pd.DataFrame | None = None) -> list[str]:
    """Return the columns of a manifest's part that make subgroups: the user's own and how files are stored.

    They have 2 to 12 values, and at least three images per value on average, so that measures such as
    coordinates are left out. So is a column that gives the label away in the whole `manifest`, such as a
    count of fractures.
    """
    found, leaking = [], set() if manifest is None else set(find_label_columns(manifest))
    for column in part.columns.difference([*_OWN, *leaking], sort=False):
        values = part[column].dropna().astype(str)
        if 2 <= values.nunique() <= min(MOST_VALUES, len(values) / 3):
            found.append(column)
    return found


def name_subgroups(column: pd.Series) -> pd.Series:
    """Return which subgroup each image belongs to; images without a value are ``not stated``."""
    return column.astype("string").fillna("not stated")


def evaluate_subgroups(
    predictions: pd.DataFrame, manifest: pd.DataFrame, threshold: float, columns: list[str]
) -> pd.DataFrame:
    """Evaluate the images of each value of each column separately.

    Parameters
    ----------
    predictions : DataFrame
        ``predictions_test.csv``.
    manifest : DataFrame
        With path and the columns.
    threshold : float
    columns : list of str
        Of `subgroup_columns`.

    Returns
    -------
    DataFrame
        column, value, n, n_groups, n_effective (Kish), fractured, and for AUROC, recall and specificity:
        value, ``_low``, ``_high`` (95 %, by groups), ``_reason`` (why it, or its interval, is not defined).
        The first row, column ``all``, is for all images.
    """
    table = predictions.merge(manifest[["path", *columns]], on="path", how="left", validate="one_to_one")
    rows = [{"column": "all", "value": "all images"} | _evaluate(table, threshold)]
    for column in columns:
        for value, part in table.groupby(name_subgroups(table[column]), sort=True):
            rows.append({"column": column, "value": str(value)} | _evaluate(part, threshold))
    return pd.DataFrame(rows)


def _evaluate(part: pd.DataFrame, threshold: float) -> dict[str, Any]:
    scores = compute_metrics(part["y_true"], part["y_prob"], threshold, part["group"])
    row = {name: scores[name] for name in ("n", "n_groups", "n_effective")}
    row["fractured"] = scores["tp"] + scores["fn"]
    for name in SHOWN:
        row |= flatten_entry(name, scores[name], missing=np.nan)
        row[f"{name}_reason"] = scores[name].get("reason", "")
    return row


def describe_subgroups(subgroups: pd.DataFrame) -> str:
    """Return in which subgroups AUROC is below that of all images, in sentences."""
    overall, parts = subgroups.iloc[0], subgroups.iloc[1:]
    if parts.empty:
        return (
            "The manifest has no column that makes subgroups: provide a CSV with body part, view or similar "
            "columns to see them."
        )
    smallest = parts.loc[parts["n"].idxmin()]
    text = (
        f"The smallest of {len(parts)} subgroups, {smallest['column']} = {smallest['value']}, has "
        f"{number_of(smallest['n'], 'image')} of {number_of(smallest['n_groups'], 'group')}. "
    )
    known = parts["auroc_high"].notna()
    worse = parts[parts["auroc_high"] < overall["auroc"]]
    undefined = parts["auroc"].isna().sum()
    if undefined:
        text += f"In {undefined} of them AUROC is not defined, because they hold one class only. "
    if not known.any():
        return text + "None has an interval of AUROC, so whether it is worse in one of them is not known."
    if worse.empty:
        return text + (
            f"AUROC is not shown to be below the {overall['auroc']:.2f} of all images in any of the "
            f"{known.sum()} subgroups (of {len(parts)}) that have an interval; in small ones it still may be."
        )
    names = "; ".join(
        f"{row.column} = {row.value} ({row.auroc:.2f}, n = {row.n})" for row in worse.itertuples()
    )
    return f"{text}The whole interval is below the {overall['auroc']:.2f} of all images in: {names}."
