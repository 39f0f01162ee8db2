"""Tables of users: delimited text files as spreadsheets and hospitals write them."""

import csv
import io
import re
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from xray_helpers.settings import InputError

_BYTE_ORDER_MARKS = {b"\xef\xbb\xbf": "utf-8-sig", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}
_DELIMITERS = ",;\t"


class UserTable(NamedTuple):
    """The cells of a table as text.

    Attributes
    ----------
    columns : list of str
        Without spaces around them; as written otherwise.
    rows : list of list of str
        As many cells as there are columns; nothing is trimmed.
    lines : list of int
        The line of the file on which each row ends, for messages.
    notes : list of str
        What was decided on the way, one sentence each.
    """

    columns: list[str]
    rows: list[list[str]]
    lines: list[int]
    notes: list[str]

    def column(self, name: str) -> list[str]:
        """Return the cells of a column, whatever the case of its name; empty cells if it does not exist."""
        at = next((i for i, column in enumerate(self.columns) if column.lower() == name), None)
        return [row[at] if at is not None else "" for row in self.rows]


def read_user_table(path: Path) -> UserTable:
    """Read a table with commas, semicolons or tabs, in UTF-8, UTF-16 or Windows-1252.

    Raises
    ------
    InputError
        When the file cannot be opened, is empty, names a column twice, or has rows longer or shorter than
        its header.
    """
    text, notes = _decode(path)
    if text.startswith("PK\x03\x04"):
        raise InputError(f"{path.name} is a workbook of Excel or the like: save its sheet as CSV.")
    if re.match(r"sep=.\r?\n", text):  # how Excel marks the delimiter
        text = text.split("\n", 1)[1]
    lines = text.splitlines()
    if not lines or not lines[0].strip():
        raise InputError(f"{path.name} cannot be read as a CSV: it is empty, or its first line is.")
    delimiter = max(_DELIMITERS, key=lines[0].count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        columns, rows, numbers = _parse(reader, path.name)
    except csv.Error as error:
        raise InputError(
            f"{path.name} cannot be read as a CSV: {error}; look for a quote that is not closed."
        ) from None
    if not all(columns):
        raise InputError(
            f"{path.name}: its column {columns.index('') + 1} has no name: give it one, or remove it."
        )
    [(name, count)] = Counter(column.lower() for column in columns).most_common(1)
    if count > 1:
        raise InputError(f"{path.name} has two columns named {name!r}: rename or remove one.")
    return UserTable(columns, rows, numbers, notes)


def _decode(path: Path) -> tuple[str, list[str]]:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(
            f"{path.name} cannot be opened ({error.strerror}): check that it is there."
        ) from None
    encoding = next((name for mark, name in _BYTE_ORDER_MARKS.items() if data.startswith(mark)), "utf-8")
    try:
        return data.decode(encoding), []
    except UnicodeDecodeError:
        if encoding == "utf-16":
            raise InputError(f"{path.name} cannot be read as a CSV: it is damaged UTF-16.") from None
    note = f"{path.name} is not in UTF-8: it was read as Windows-1252 (Latin-1); check names with accents."
    try:
        return data.decode("cp1252"), [note]
    except UnicodeDecodeError:
        return data.decode("latin-1"), [note]


def _parse(reader, name: str) -> tuple[list[str], list[list[str]], list[int]]:
    columns = [cell.strip() for cell in next(reader)]
    while columns and not columns[-1]:  # a delimiter at the end of each line adds no column
        columns.pop()
    rows, lines = [], []
    for row in reader:
        if not any(cell.strip() for cell in row):
            continue
        for cell in row:
            if "\n" in cell and any(delimiter in cell for delimiter in _DELIMITERS):
                raise InputError(
                    f"{name} cannot be read as a CSV: a cell before line {reader.line_num} holds several "
                    f"rows, beginning with {cell[:30]!r}: close its quote."
                )
        extra = [cell for cell in row[len(columns) :] if cell.strip()]
        if extra or len(row) < len(columns):
            raise InputError(
                f"{name} cannot be read as a CSV: line {reader.line_num} has {len(row)} cells where the "
                f"header has {len(columns)}; put quotes around cells that hold the delimiter."
            )
        rows.append(row[: len(columns)])
        lines.append(reader.line_num)
    return columns, rows, lines
