"""The columns of a study's tables and their types, declared once for writing and for reading."""

from collections.abc import Iterable
from fnmatch import fnmatch
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

MANIFEST = {
    "path": "string",
    "label": "string",
    "source_group": "string",
    "patient": "string",
    "exam": "string",
    "group": "string",
    "split": "string",
    "fold": "Int64",
    "sha256": "string",
    "width": "Int64",
    "height": "Int64",
    "mode": "string",
    "status": "string",
    "reason": "string",
    "note": "string",
    "counted": "boolean",
}
USER_COLUMNS = {  # of a manifest, when the data has them
    "class_name": "string",
    "folder_split": "string",
    "boxes": "string",
    "fracture_mask": "string",
}
LINKS = {
    "path_a": "string",
    "path_b": "string",
    "kind": "string",
    "decision": "string",
    "inliers": "float64",
    "correlation": "float64",
    "mirrored": "boolean",
    "negative": "boolean",
    "transform": "string",
    "sha256_a": "string",
    "sha256_b": "string",
}
PATIENTS = {
    "path_a": "string",
    "path_b": "string",
    "evidence": "float64",
    "look": "float64",
    "exposure": "float64",
    "frame": "float64",
    "name": "float64",
    "points": "float64",
    "sha256_a": "string",
    "sha256_b": "string",
}
CORRECTIONS = {"action": "string", "sha256_a": "string", "sha256_b": "string"}
LABEL_CONFLICTS = {"source_group": "string", "files": "int64", "labels": "string", "paths": "string"}
CLASS_PREFIX = "p_"  # of the columns of predictions that hold the probability of one of several classes
PREDICTIONS = {
    "path": "string",
    "group": "string",
    "y_true": "int64",
    "y_prob": "float64",
    "y_pred": "int64",
    "fold": "int64",
}
SEVERAL_CLASSES = {"y_true": "string", "y_pred": "string", "positive": "int64", "called": "int64"}
CLASSES_TABLE = {"class": "string", "metric": "string", "reason": "string"}
_FILES = {
    "manifest.csv": MANIFEST | USER_COLUMNS,
    "links.csv": LINKS,
    "predictions_*.csv": PREDICTIONS,
    "classes.csv": CLASSES_TABLE,
}
_TEXT = {
    name: dtype
    for table in (*_FILES.values(), CORRECTIONS, LABEL_CONFLICTS)
    for name, dtype in table.items()
    if dtype == "string"
}


def column_types(file: str, columns: Iterable[str] = ()) -> dict[str, str]:
    """Return the types of the columns of a study's file; in files that are not declared, columns of text.

    Parameters
    ----------
    file : str
        Its name.
    columns : iterable of str, optional
        Those it has, as predictions of three or more classes have others.
    """
    declared = (types for pattern, types in _FILES.items() if fnmatch(file, pattern))
    types = _TEXT | next(declared, {})
    return types | SEVERAL_CLASSES if "positive" in columns and fnmatch(file, "predictions_*.csv") else types


def encode_predictions(table: "pd.DataFrame") -> "pd.DataFrame":
    """Return predictions as they are written: with three or more classes, y_true and y_pred are their names.

    Parameters
    ----------
    table : DataFrame
        y_true, y_pred (0 or 1), and with three or more classes class_true and class_pred.

    Returns
    -------
    DataFrame
        Of two classes as it was. Else y_true and y_pred are names, and the binary question stands in
        positive (1 where it is true), y_prob, and called (1 at or above the threshold).
    """
    if "class_true" not in table:
        return table
    table = table.rename(columns={"y_true": "positive", "y_pred": "called"})
    table = table.rename(columns={"class_true": "y_true", "class_pred": "y_pred"})
    last = ("positive", "y_prob", "called", "fold")
    order = sorted(table.columns, key=lambda name: (name in last, name.startswith(CLASS_PREFIX)))
    return table[order]


def decode_predictions(table: "pd.DataFrame") -> "pd.DataFrame":
    """Return what `encode_predictions` was given."""
    if not {"positive", "y_prob"} <= set(table.columns):
        return table
    table = table.rename(columns={"y_true": "class_true", "y_pred": "class_pred"})
    return table.rename(columns={"positive": "y_true", "called": "y_pred"})
