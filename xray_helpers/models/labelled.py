"""Files and tables given to a trained model: what is in them, and a score where they are labelled."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from xray_helpers.data.external import describe_refusal, list_as_study
from xray_helpers.data.listing import list_files
from xray_helpers.data.manifest import assign_groups
from xray_helpers.evaluation.intervals import describe, describe_count
from xray_helpers.evaluation.metrics import compute_metrics
from xray_helpers.images.patient_names import without_placeholders
from xray_helpers.images.radiographs import ImageFolder, escape_name
from xray_helpers.same_source.search import find_same_source
from xray_helpers.settings import POSITIVE, Classes, InputError

_TABLES = (".csv", ".tsv", ".txt")


def list_given(given: str, settings: dict[str, Any], classes: Classes) -> list[dict[str, Any]]:
    """Return a row for each file of what a user names: a file, a folder, or a table with the column path.

    Parameters
    ----------
    given : str
    settings, classes
        Of the study, as for `external.list_as_study`.

    Returns
    -------
    list of dict
        file (as it is shown), place (folder, and name in it), reason (why it is no image, or empty), label (a
        class, or missing) and patient (or missing).

    Raises
    ------
    InputError
        When a table cannot be understood.
    """
    path = Path(given)
    if path.is_file() and path.suffix.lower() in _TABLES:
        return _list_table(path, settings, classes)
    labels = _find_labels(path, settings, classes)
    rows = []
    for folder, name, reason in list_files(path):
        shown = f"{given.rstrip('/')}/{name}" if folder == path else given
        known = labels.get(name, (pd.NA, pd.NA)) if folder == path else (pd.NA, pd.NA)
        row = {"file": escape_name(shown), "place": (folder, name), "reason": reason}
        rows.append(row | {"label": known[0], "patient": known[1]})
    return rows


def _list_table(path: Path, settings: dict[str, Any], classes: Classes) -> list[dict[str, Any]]:
    listing = list_as_study(str(path.absolute()), settings, classes)
    table, rows = listing.table, []
    for row in table.to_dict("records"):
        file = Path(listing.places[row["path"]] if listing.places else listing.folder / row["path"])
        shown = os.path.relpath(file, path.parent)
        label = row["label"] if pd.isna(row.get("excluded")) else pd.NA
        rows.append(
            {
                "file": escape_name(shown),
                "place": (file.parent, file.name),
                "reason": "",
                "label": label,
                "patient": row.get("patient", pd.NA),
            }
        )
    return rows


def _find_labels(path: Path, settings: dict[str, Any], classes: Classes) -> dict[str, tuple[Any, Any]]:
    """Return class and patient of the files of a folder, as far as its layout tells."""
    if not path.is_dir():
        return {}
    try:
        table = list_as_study(str(path.absolute()), settings, classes).table
    except InputError:
        return {}
    table = table[table["excluded"].isna()]
    return dict(zip(table["path"], zip(table["label"], table["patient"], strict=True), strict=True))


def score_labelled(rows: list[dict[str, Any]], threshold: float) -> str:
    """Return in a sentence how good the answers on labelled files are; empty where none is labelled.

    Files that the model was trained or chosen on are left out. Intervals count the images of one source, or
    of one patient, together.

    Parameters
    ----------
    rows : list of dict
        label, patient, place, sha256, probability, seen (whether the model was trained or chosen on it).
    threshold : float
    """
    table = pd.DataFrame([row for row in rows if pd.notna(row.get("probability"))])
    if table.empty or table["label"].isna().all():
        return ""
    labelled = table[table["label"].notna()].reset_index(drop=True)
    judged = labelled[~labelled["seen"].astype(bool)].reset_index(drop=True)
    left_out = len(labelled) - len(judged)
    note = f" {left_out} more are left out: the model was trained or chosen on them." if left_out else ""
    refused = describe_refusal(judged["label"].astype("string"))
    if refused:
        return f"{refused}{note}"
    group = _group_files(judged)
    y_true = (judged["label"] == POSITIVE).to_numpy(int)
    scores = compute_metrics(y_true, judged["probability"].to_numpy(float), threshold, group)
    return (
        f"On {describe_count(scores, 'labelled images')}: AUROC {describe(scores['auroc'])}, sensitivity "
        f"{describe(scores['recall'])}, specificity {describe(scores['specificity'])} at the threshold "
        f"{threshold:.3f}.{note}"
    )


def _group_files(table: pd.DataFrame) -> np.ndarray:
    """Return the group of each file: the union of its source and its patient."""
    names = [f"{number:06d}" for number in range(len(table))]
    places = {
        name: os.path.realpath(Path(folder) / file)
        for name, (folder, file) in zip(names, table["place"], strict=True)
    }
    manifest = pd.DataFrame({"path": names, "sha256": table["sha256"], "status": "readable"})
    if "shape" in table:
        manifest[["height", "width"]] = table["shape"].tolist()
    manifest["patient"] = without_placeholders(table["patient"].astype("string"))
    found = find_same_source(manifest, ImageFolder(Path(), places=places))
    return assign_groups(manifest, found.source)["group"].to_numpy()
