"""The columns of a study's tables and their types, declared once for writing and for reading."""

from fnmatch import fnmatch

MANIFEST = {
    "path": "string",
    "label": "string",
    "source_group": "string",
    "patient": "string",
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
USER_COLUMNS = {
    "folder_split": "string",
    "boxes": "string",
    "fracture_mask": "string",
}  # of a manifest, when the data has them
LINKS = {
    "path_a": "string",
    "path_b": "string",
    "kind": "string",
    "decision": "string",
    "inliers": "float64",
    "correlation": "float64",
    "mirrored": "boolean",
    "transform": "string",
    "sha256_a": "string",
    "sha256_b": "string",
}
CORRECTIONS = {"action": "string", "sha256_a": "string", "sha256_b": "string"}
LABEL_CONFLICTS = {"source_group": "string", "files": "int64", "labels": "string", "paths": "string"}
PREDICTIONS = {
    "path": "string",
    "group": "string",
    "y_true": "int64",
    "y_prob": "float64",
    "y_pred": "int64",
    "fold": "int64",
}
_FILES = {"manifest.csv": MANIFEST | USER_COLUMNS, "links.csv": LINKS, "predictions_*.csv": PREDICTIONS}
_TEXT = {
    name: dtype
    for table in (*_FILES.values(), CORRECTIONS, LABEL_CONFLICTS)
    for name, dtype in table.items()
    if dtype == "string"
}


def column_types(file: str) -> dict[str, str]:
    """Return the types of the columns of a study's file; in files that are not declared, columns of text."""
    declared = (types for pattern, types in _FILES.items() if fnmatch(file, pattern))
    return _TEXT | next(declared, {})
