"""The images of train, validation and test: which count, and how many there are of each class."""

import hashlib
from typing import Any

import numpy as np
import pandas as pd

from xray_helpers.settings import POSITIVE, SPLITS, InputError

_ROTATED = (
    0.02  # share of the corners by which a copy is blacker than another of its source when it was rotated
)
_KEY = ("path", "sha256", "label", "group", "split", "fold", "counted")  # columns that results hang on


def mark_counted(manifest: pd.DataFrame, corners: pd.Series, count: str) -> pd.DataFrame:
    """Return the manifest with ``counted``: whether an image is judged where its part is; copies are for
    training only.

    Parameters
    ----------
    manifest : DataFrame
        With sources and parts.
    corners : Series of float
        Share of each picture's corners that is black, 0 to 1: what rotation within the frame leaves
        (`Search.corners`).
    count : {'sources', 'files'}
        ``sources``: of each source one picture, the nearest to the original: not rotated within black
        corners, then the largest, then the first by hash. ``files``: all.
    """
    used = manifest[manifest["status"] == "used"]
    counted = pd.Series(pd.NA, index=manifest.index, dtype="boolean")
    counted[used.index] = count == "files"
    if count == "sources":
        black = corners[used.index].fillna(0.0)
        turned = black > black.groupby(used["source_group"]).transform("min") + _ROTATED
        ranked = used.assign(turned=turned, area=-(used["width"] * used["height"]).astype(float))
        first = ranked.sort_values(["turned", "area", "sha256", "path"]).drop_duplicates("source_group")
        counted[first.index] = True
    return manifest.assign(counted=counted)


def manifest_key(manifest: pd.DataFrame) -> str:
    """Return a hash of which images are used, with what labels, groups and parts: what every result hangs
    on.
    """
    used = manifest.reindex(columns=_KEY)[manifest["status"] == "used"]
    text = used.astype("string").fillna("").sort_values("path").to_csv(index=False, lineterminator="\n")
    return hashlib.sha256(text.encode()).hexdigest()


def check_made_with(manifest: pd.DataFrame, record: dict[str, Any], model: str, notebook: str = "02") -> None:
    """Raise `InputError` where a record (``training.json`` or ``metrics.json``) was made with another
    manifest.
    """
    if record.get("manifest") != manifest_key(manifest):
        raise InputError(
            f"The results of {model} belong to another manifest.csv than the one in the study's folder (01 "
            "was run again since, "
            f"with other images, corrections or parts): run {notebook} again for {model}, and then what "
            "follows it."
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
    """Count the images that are judged, or would be, one row per part.

    Returns
    -------
    DataFrame
        split, files (used; copies are for training only), n (images counted: one per source), groups,
        effective (number of groups of equal size that tell as much: (sum of sizes)^2 / sum of squared sizes,
        Kish 1965), fractured, non_fractured, prevalence (share fractured), majority_accuracy (of always
        naming the commoner class).
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
    """Return 1 / the number of judged files of each row's source, in the order of `used_part`; None where
    each is judged once.

    Copies are judged with ``count = files`` only.
    """
    part = used_part(manifest, split)
    files = (
        part.groupby("source_group")["path"].transform("size")
        if "source_group" in part
        else pd.Series(1, part.index)
    )
    return None if (files == 1).all() else (1 / files).to_numpy()


def used_part(manifest: pd.DataFrame, split: str, *, copies: bool = False) -> pd.DataFrame:
    """Return the rows used in one part, in path order, with ``y_true`` (1 = Fractured).

    Of each source one row is returned (``counted`` in the manifest), or with `copies` every file.
    """
    part = manifest[(manifest["status"] == "used") & (manifest["split"] == split)]
    if not copies and "counted" in part:
        part = part[part["counted"].astype("boolean").fillna(True).astype(bool)]
    part = part.sort_values("path", ignore_index=True)
    return part.assign(y_true=(part["label"] == POSITIVE).astype(int))
