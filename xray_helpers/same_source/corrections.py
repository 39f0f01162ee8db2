"""Corrections: pairs of files that a user joined or separated."""

from collections.abc import Iterable
from datetime import datetime
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
    last = ~pd.Series([key[:2] for key in _list_keys(table)], table.index, object).duplicated(keep="last")
    return table.loc[both & last, [*CORRECTIONS]].reset_index(drop=True)


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


def write_corrections(path: str, rows: Iterable[tuple[str, str, str]]) -> pd.DataFrame:
    """Add rows (action, sha256_a, sha256_b) to the corrections, as one action, and return what was added.

    The column ``saved`` holds their time. Of several corrections of a pair the last counts.

    Raises
    ------
    InputError
        When the study reads no corrections, or the existing file cannot be understood.
    """
    file = _corrections_file(path)
    kept, new = _read(file), pd.DataFrame(list(rows), columns=[*CORRECTIONS])
    new["saved"] = datetime.now().isoformat()
    write_csv(file, pd.concat([kept, new], ignore_index=True) if len(kept) else new)
    return new


def list_corrections(path: str, known: set[str]) -> list[pd.DataFrame]:
    """Return the corrections of `known` files, those that were saved together in one table."""
    table = _read(from_root(path)) if path else build_table([], CORRECTIONS)
    table = table[table["sha256_a"].isin(known) & table["sha256_b"].isin(known)]
    by_hand = pd.Series(table.index.astype(str), table.index)
    return [rows for _, rows in table.groupby(table.get("saved", by_hand).fillna(by_hand), sort=False)]


def remove_corrections(path: str, rows: pd.DataFrame) -> Path:
    """Remove corrections, and return their file; what they replaced counts again.

    Parameters
    ----------
    path : str
    rows : DataFrame
        action, sha256_a, sha256_b and, where they have one, ``saved``; whichever file of a pair is first.

    Raises
    ------
    InputError
        As `write_corrections`.
    """
    file = _corrections_file(path)
    table, gone = _read(file), set(_list_keys(rows))
    return write_csv(file, table[np.array([key not in gone for key in _list_keys(table)], bool)])


def _corrections_file(path: str) -> Path:
    if not path:
        raise InputError(
            "This study reads no corrections (corrections is empty): name a file, such as "
            "data/corrections.csv, and run 01."
        )
    return from_root(path)


def _list_keys(table: pd.DataFrame) -> list[tuple[str, ...]]:
    """Return the two hashes of each correction, in alphabetical order, and when it was saved."""
    ends = table.reindex(columns=["sha256_a", "sha256_b", "saved"]).astype(object).fillna("")
    return [(*sorted(row[:2]), row[2]) for row in ends.itertuples(index=False)]
