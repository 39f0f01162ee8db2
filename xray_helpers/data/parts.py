"""The images of train, validation and test: which of them count, and how many there are of each class."""

import hashlib
from typing import Any

import numpy as np
import pandas as pd

from xray_helpers.settings import POSITIVE, SPLITS, InputError, current_classes, number_of

_ROTATED = 0.02  # a copy is taken as rotated if its black share of corners is this much above another's
_KEY = ["path", "sha256", "label", "group", "split", "fold", "counted"]  # columns that decide results


def mark_counted(manifest: pd.DataFrame, corners: pd.Series, count: str) -> pd.DataFrame:
    """Return the manifest with ``counted``: whether an image is evaluated; others are for training only.

    Parameters
    ----------
    manifest : DataFrame
        With sources and parts.
    corners : Series of float
        Share of each picture's corners that is black, 0 to 1: what rotation within the frame leaves
        (`Search.corners`).
    count : {'sources', 'files'}
        ``sources``: of each source the picture nearest to the original: not rotated, then the largest, then
        the first by hash. ``files``: all.
    """
    used = manifest[manifest["status"] == "used"]
    counted = pd.Series(pd.NA, index=manifest.index, dtype="boolean")
    counted[used.index] = count == "files"
    if count == "sources":
        black = corners[used.index].fillna(0.0)
        rotated = black > black.groupby(used["source_group"]).transform("min") + _ROTATED
        ranked = used.assign(rotated=rotated, area=-(used["width"] * used["height"]).astype(float))
        first = ranked.sort_values(["rotated", "area", "sha256", "path"]).drop_duplicates("source_group")
        counted[first.index] = True
    return manifest.assign(counted=counted)


def manifest_key(manifest: pd.DataFrame) -> str:
    """Return a hash of the images used with their labels, groups and parts, on which all results depend."""
    columns = [*_KEY, *manifest.columns.intersection(["class_name"])]
    used = manifest.reindex(columns=columns)[manifest["status"] == "used"]
    text = used.astype("string").fillna("").sort_values("path").to_csv(index=False, lineterminator="\n")
    return hashlib.sha256(text.encode()).hexdigest()


def check_made_with(manifest: pd.DataFrame, record: dict[str, Any], model: str, notebook: str = "02") -> None:
    """Raise `InputError` if a record (``training.json``, ``metrics.json``) belongs to another manifest."""
    if record.get("manifest") != manifest_key(manifest):
        raise InputError(
            f"The results of {model} belong to another manifest.csv than the one in the study's folder (01 "
            "was run again since, with other images, corrections or parts): run "
            f"{notebook} again for {model}, and then the notebooks that follow it."
        )


def check_parts(manifest: pd.DataFrame) -> None:
    """Raise `InputError` unless every part holds both classes."""
    table = class_balance(manifest)
    for split in SPLITS:
        row = table[table["split"] == split]
        if row.empty or row[["fractured", "non_fractured"]].eq(0).any(axis=None):
            raise InputError(
                f"The {split} part lacks a class ({row.to_dict('records')}): too few independent images; "
                "add images, or raise use_subset."
            )


def class_balance(manifest: pd.DataFrame) -> pd.DataFrame:
    """Count the images of each part, one row per part.

    Returns
    -------
    DataFrame
        split, files (used, including copies, which are for training only), n (images counted: one per
        source), groups, effective (number of groups of equal size that carry as much information: (sum of
        sizes)^2 / sum of squared sizes, Kish 1965), fractured, non_fractured, prevalence (share fractured),
        majority_accuracy (of always predicting the more frequent class).
    """
    rows = []
    for split in SPLITS:
        part = used_part(manifest, split)
        if not len(part):
            continue
        positive, sizes = int(part["y_true"].sum()), part["group"].value_counts()
        share = positive / len(part)
        rows.append(
            {
                "split": split,
                "files": len(used_part(manifest, split, copies=True)),
                "n": len(part),
                "groups": len(sizes),
                "effective": round(float(sizes.sum() ** 2 / (sizes**2).sum()), 1),
                "fractured": positive,
                "non_fractured": len(part) - positive,
                "prevalence": share,
                "majority_accuracy": max(share, 1 - share),
            }
        )
    return pd.DataFrame(rows)


def weigh_copies(manifest: pd.DataFrame, split: str) -> np.ndarray | None:
    """Return the weight of each row of `used_part`, 1 / number of files of its source, or None if all are 1.

    Copies are part of it with ``count = files`` only.
    """
    part = used_part(manifest, split)
    if "source_group" not in part or not part["source_group"].duplicated().any():
        return None
    return (1 / part.groupby("source_group")["path"].transform("size")).to_numpy()


def used_part(manifest: pd.DataFrame, split: str, *, copies: bool = False) -> pd.DataFrame:
    """Return the rows used in one part, in path order, with ``y_true`` (1 = Fractured).

    Of each source one row is returned (``counted`` in the manifest), or with `copies` every file.
    """
    part = manifest[(manifest["status"] == "used") & (manifest["split"] == split)]
    if not copies and "counted" in part:
        part = part[part["counted"].fillna(True).astype(bool)]
    part = part.sort_values("path", ignore_index=True)
    return part.assign(y_true=(part["label"] == POSITIVE).astype(int))


def training_target(part: pd.DataFrame) -> np.ndarray:
    """Return what the head learns of rows of `used_part`, shape (n,): y_true, or the place of the class."""
    if "class_name" not in part:
        return part["y_true"].to_numpy()
    return part["class_name"].map(current_classes().names.index).to_numpy(int)


def count_classes(manifest: pd.DataFrame) -> pd.DataFrame:
    """Count images and groups of three or more classes in each part, one row per class.

    Returns
    -------
    DataFrame
        class, then for each part its images counted and, in parentheses, the groups they belong to; note
        (which parts lack the class, so that its scores are not defined there). Empty for two classes.
    """
    rows = []
    for name in current_classes().names if "class_name" in manifest else ():
        row, missing = {"class": name}, []
        for split in SPLITS:
            part = used_part(manifest, split)
            mine = part[part["class_name"] == name]
            row[split] = f"{len(mine)} ({number_of(mine['group'].nunique(), 'group')})"
            missing += [] if len(mine) else [split]
        note = f"no image in {' and '.join(missing)}: too few sources to have one in each part"
        rows.append(row | {"note": note if missing else ""})
    return pd.DataFrame(rows)
