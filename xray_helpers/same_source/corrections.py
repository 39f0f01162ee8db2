"""Pairs of files that a person joined or separated."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from xray_helpers.settings import InputError
from xray_helpers.study.files import build_table, write_csv
from xray_helpers.study.folders import from_root


def read_corrections(path: str, known: set[str]) -> pd.DataFrame:
    """Return the corrections that concern files at hand: action, sha256_a, sha256_b; none without a file.

    Raises
    ------
    InputError
        When the file lacks a column or names another action.
    """
    empty = build_table([], ["action", "sha256_a", "sha256_b"])
    if not path or not from_root(path).exists():
        return empty
    try:
        table = pd.read_csv(from_root(path), dtype=str)
        table = table[["action", "sha256_a", "sha256_b"]]
    except (KeyError, ValueError) as error:
        raise InputError(
            f"The corrections {Path(path).name} need the columns action, sha256_a, sha256_b ({error})."
        ) from None
    bad = set(table["action"]) - {"join", "separate"}
    if bad:
        raise InputError(
            f"The corrections {Path(path).name} name the action {bad.pop()!r}: write join or separate."
        )
    return table[table["sha256_a"].isin(known) & table["sha256_b"].isin(known)].reset_index(drop=True)


def write_corrections(path: str, rows: Iterable[tuple[str, str, str]]) -> Path:
    """Add rows (action, sha256_a, sha256_b) to the corrections, and return their file; a pair keeps its last
    action.

    Raises
    ------
    InputError
        When the study reads no corrections, or the file that is there cannot be understood.
    """
    place, kept = _open_corrections(path)
    new = pd.DataFrame(list(rows), columns=["action", "sha256_a", "sha256_b"])
    table = pd.concat([kept, new], ignore_index=True) if len(kept) else new
    return write_csv(place, table[~pd.Series(sorted_pairs(table)).duplicated(keep="last")])


def remove_correction(path: str, sha256_a: str, sha256_b: str) -> Path:
    """Take back what the corrections say of a pair, whichever is named first, and return their file.

    Raises
    ------
    InputError
        As `write_corrections`.
    """
    place, kept = _open_corrections(path)
    gone = tuple(sorted((sha256_a, sha256_b)))
    return write_csv(place, kept[np.array([pair != gone for pair in sorted_pairs(kept)], bool)])


def _open_corrections(path: str) -> tuple[Path, pd.DataFrame]:
    """Return the place of the corrections and all that is there, in columns of whatever name."""
    if not path:
        raise InputError(
            "This study reads no corrections (corrections is empty): name a file, such as "
            "data/corrections.csv, and run 01."
        )
    place = from_root(path)
    known = read_corrections(str(place), set())  # refuses what it cannot understand
    return place, pd.read_csv(place, dtype=str) if place.exists() else known


def sorted_pairs(table: pd.DataFrame) -> list[tuple[str, ...]]:
    """Return the two hashes of each correction, in alphabetical order."""
    ends = table[["sha256_a", "sha256_b"]].fillna("")
    return [tuple(sorted(both)) for both in ends.itertuples(index=False)]
