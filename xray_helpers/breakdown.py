"""Where a model does worse: subgroups of images, and single ones."""

from typing import Any

import numpy as np
import pandas as pd

from xray_helpers.listed_tables import COLUMNS
from xray_helpers.manifest import MOST_VALUES, find_label_columns
from xray_helpers.metrics import compute_metrics

SHOWN = ("auroc", "recall", "specificity")
_OWN = {*COLUMNS, "y_true", "folder_split", "boxes"} - {"mode"}  # of the manifest: what makes no subgroup


def subgroup_columns(part: pd.DataFrame, manifest: pd.DataFrame | None = None) -> list[str]:
    """Return the columns of a manifest's part that make subgroups: the user's own and how files are stored.

    They have 2 to 12 values, and at least three images a value on average: measures such as coordinates make none, nor does
    a column that tells the label in the whole `manifest`, such as a count of fractures.
    """
    found, telling = [], set() if manifest is None else set(find_label_columns(manifest))
    for column in part.columns.difference([*_OWN, *telling], sort=False):
        values = part[column].dropna().astype(str)
        if 2 <= values.nunique() <= min(MOST_VALUES, len(values) / 3):
            found.append(column)
    return found


def judge_subgroups(
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
        column, value, n, n_groups, n_effective (Kish), fractured, and for AUROC, recall and specificity: value, ``_low``,
        ``_high`` (95 %, by groups), ``_reason`` where it, or its interval, is not defined. The first row, column ``all``,
        is the whole.
    """
    table = predictions.merge(manifest[["path", *columns]], on="path", how="left", validate="one_to_one")
    rows = [_judge(table, threshold) | {"column": "all", "value": "all images"}]
    for column in columns:
        values = table[column].astype("string").fillna("not stated")
        for value, part in table.groupby(values, sort=True):
            rows.append(_judge(part, threshold) | {"column": column, "value": str(value)})
    result = pd.DataFrame(rows)
    return result[["column", "value", *result.columns.drop(["column", "value"])]]


def _judge(part: pd.DataFrame, threshold: float) -> dict[str, Any]:
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
            "The manifest has no column that makes subgroups: give a CSV with body part, view or the like to see them."
        )
    smallest = parts.loc[parts["n"].idxmin()]
    text = (f"The smallest of {len(parts)} subgroups, {smallest['column']} = {smallest['value']}, has {smallest['n']} images "
            f"of {smallest['n_groups']} groups. ")  # fmt: skip
    known = parts["auroc_high"].notna()
    worse = parts[parts["auroc_high"] < whole["auroc"]]
    undefined = parts[parts["auroc"].isna()]
    if len(undefined):
        text += f"In {len(undefined)} of them AUROC is not defined, because they hold one class only. "
    if not known.any():
        return text + "None has an interval of AUROC, so whether it is worse in one of them is not known."
    if worse.empty:
        return text + (
            f"That AUROC is below the {whole['auroc']:.2f} of all images is not shown for any subgroup that has an "
            f"interval ({known.sum()} of {len(parts)}); in small ones it may be all the same."
        )
    names = "; ".join(f"{row.column} = {row.value} ({row.auroc:.2f}, n = {row.n})" for row in worse.itertuples())
    return text + f"Below the {whole['auroc']:.2f} of all images, interval and all: {names}."


def measure_certainty(p: pd.Series, threshold: float) -> np.ndarray:
    """Return how far probabilities are from the threshold, as a share of the way to 0 or 1."""
    room = np.where(p >= threshold, 1 - threshold, threshold)
    certainty = np.where(room > 0, np.abs(p - threshold) / np.where(room > 0, room, 1), 0.0)
    return np.round(np.minimum(certainty, 1.0), 9)


def find_failures(predictions: pd.DataFrame, threshold: float, count: int = 8) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the most confident errors, and the least certain images: of each at most `count`, one a group.

    Parameters
    ----------
    predictions : DataFrame
        ``predictions_test.csv``.
    threshold : float
        Of certainty: see `measure_certainty`.
    count : int

    Returns
    -------
    errors, unsure : DataFrame
        The predictions with certainty (0 to 1); errors by falling, unsure by rising certainty.
    """
    table = predictions.assign(certainty=measure_certainty(predictions["y_prob"], threshold))
    wrong = table[table["y_true"] != table["y_pred"]]
    ordered = (
        wrong.sort_values(["certainty", "path"], ascending=[False, True]),
        table.sort_values(["certainty", "path"]),
    )
    errors, unsure = (part.drop_duplicates("group").head(count).reset_index(drop=True) for part in ordered)
    return errors, unsure


def describe_failures(errors: pd.DataFrame, predictions: pd.DataFrame) -> str:
    """Return what goes wrong most confidently, in a sentence."""
    wrong = (predictions["y_true"] != predictions["y_pred"]).sum()
    if errors.empty:
        return f"None of {len(predictions)} test images is called wrongly."
    missed = int((errors["y_true"] == 1).sum())
    return (f"{wrong} of {len(predictions)} test images are called wrongly; of the {len(errors)} most confident errors "
            f"{missed} are missed fractures and {len(errors) - missed} false alarms.")  # fmt: skip
