"""Corrections: pairs of files that a user joined or separated."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from xray_helpers.settings import InputError
from xray_helpers.study.files import build_table, write_csv
from xray_helpers.study.folders import from_root
from xray_helpers.study.tables import CORRECTIONS


def read_corrections(path: str, known: set[str]) -> pd.DataFrame:
    """Return the corrections (action, sha256_a, sha256_b) whose files are both `known`; none without a file.

    Raises
    ------
    InputError
        When the file lacks a column or names another action.
    """
    table = _read(from_root(path)) if path else build_table([], CORRECTIONS)
    both = table["sha256_a"].isin(known) & table["sha256_b"].isin(known)
    return table.loc[both, [*CORRECTIONS]].reset_index(drop=True)


def _read(file: Path) -> pd.DataFrame:
    """Return all corrections of a file, with its other columns; an empty table if it does not exist."""
    if not file.exists():
        return build_table([], CORRECTIONS)
    try:
        table = pd.read_csv(file, dtype=str)
        unknown = set(table[[*CORRECTIONS]]["action"]) - {"join", "separate"}
    except (KeyError, ValueError) as error:
        raise InputError(
            f"The corrections {file.name} need the columns action, sha256_a, sha256_b ({error})."
        ) from None
    if unknown:
        raise InputError(
            f"The corrections {file.name} name the action {unknown.pop()!r}: write join or separate."
        )
    return table


def write_corrections(path: str, rows: Iterable[tuple[str, str, str]]) -> Path:
    """Add rows (action, sha256_a, sha256_b) to the corrections and return their file.

    Of several corrections of a pair the last is kept.

    Raises
    ------
    InputError
        When the study reads no corrections, or the existing file cannot be understood.
    """
    file = _corrections_file(path)
    kept, new = _read(file), pd.DataFrame(list(rows), columns=[*CORRECTIONS])
    table = pd.concat([kept, new], ignore_index=True) if len(kept) else new
    return write_csv(file, table[~pd.Series(_sorted_pairs(table)).duplicated(keep="last")])


def remove_correction(path: str, sha256_a: str, sha256_b: str) -> Path:
    """Remove the corrections of a pair, whichever of its files is named first, and return their file.

    Raises
    ------
    InputError
        As `write_corrections`.
    """
    file = _corrections_file(path)
    table, pair = _read(file), tuple(sorted((sha256_a, sha256_b)))
    return write_csv(file, table[np.array([other != pair for other in _sorted_pairs(table)], bool)])


def _corrections_file(path: str) -> Path:
    if not path:
        raise InputError(
            "This study reads no corrections (corrections is empty): name a file, such as "
            "data/corrections.csv, and run 01."
        )
    return from_root(path)


def _sorted_pairs(table: pd.DataFrame) -> list[tuple[str, ...]]:
    """Return the two hashes of each correction, in alphabetical order."""
    ends = table[["sha256_a", "sha256_b"]].fillna("")
    return [tuple(sorted(pair)) for pair in ends.itertuples(index=False)]
