"""Tables that list images, or that add columns to a folder's: labels, patients, readers, places."""

import os
import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from xray_helpers.data.labels import SPLIT_NAMES, calls_abnormal, label_cells
from xray_helpers.data.user_tables import UserTable, read_user_table
from xray_helpers.images.annotations import check_boxes, read_coco
from xray_helpers.images.patient_names import is_placeholder, word_key
from xray_helpers.settings import CLASS_NAMES, InputError

COLUMNS = (
    *("path", "label", "source_group", "patient", "group", "split", "fold", "sha256"),
    *("width", "height", "mode", "status", "reason", "note", "counted"),
)
ABNORMAL = ("Normal", "Abnormal")  # MURA's own names of its classes
_RESERVED = {  # names of columns that a study makes itself
    *({*COLUMNS} - {"path", "label", "patient", "split"}),
    *(
        "folder_split",
        "excluded",
        "hashed",
        "y_true",
        "y_prob",
        "y_pred",
        "certainty",
        "kind",
        "column",
        "value",
    ),
}
_KNOWN = (
    "path",
    "label",
    "patient",
    "split",
    "boxes",
    "reader",
)  # columns of a table that mean something here


class Listing(NamedTuple):
    """What a data folder or CSV lists, before any file is opened.

    Attributes
    ----------
    folder : Path
        What the paths are relative to.
    table : DataFrame
        path, label (a class name, or missing), patient, folder_split, excluded (why a file is left out, or
        missing), then the CSV's other columns. One row per file.
    notes : list of str
        What was decided on the way, a sentence each.
    others : dict
        Path of each file that is no image by its name, and why it is left aside.
    places : dict, optional
        Where each path lies, for tables whose files have no folder in common; their paths are numbers.
    class_names : (str, str)
        How the data themselves call the negative and the positive class.
    """

    folder: Path
    table: pd.DataFrame
    notes: list[str]
    others: dict[str, str] = {}  # noqa: RUF012
    places: Mapping[str, str] | None = None
    class_names: tuple[str, str] = CLASS_NAMES


def _frame(read: UserTable) -> pd.DataFrame:
    """Return a table with its line numbers as index; numbers are numbers in columns that are not known by
    name.
    """
    known = (*_KNOWN, "image_id", "fractured")
    names = [name.lower() if name.lower() in known else name for name in read.columns]
    if "patient" not in names:
        names = ["patient" if word_key(name) == "patientid" else name for name in names]
    names = [f"{name}_given" if name in _RESERVED else name for name in names]
    table = pd.DataFrame(read.rows, columns=names, index=read.lines, dtype="string")
    for name in names:
        cells = table[name].str.strip()
        table[name] = table[name].mask(cells.isin(["", "NaN", "nan", "NA", "N/A", "None", "null"]))
        if name not in (*_KNOWN, "image_id", "fractured"):
            try:
                table[name] = pd.to_numeric(table[name])
            except (ValueError, TypeError):
                continue
    return table


def list_csv(csv: Path) -> Listing:
    """Return what a table with the columns path and label lists; as `listing.list_data`."""
    read = read_user_table(csv)
    notes, table = list(read.notes), _frame(read)
    missing = {"path", "label"} - set(table.columns)
    if missing:
        raise InputError(
            f"{csv.name} lacks the column {' and '.join(sorted(missing))} (it has {', '.join(read.columns)})."
        )
    if not len(table):
        raise InputError(f"{csv.name} has a header but no rows: fill it.")
    if table["path"].isna().any():
        raise InputError(
            f"{csv.name}: line {table.index[table['path'].isna()][0]} names no file: fill its column path."
        )
    words = {word_key(word) for word in table["label"].dropna().unique()}
    table["label"], told = label_cells(table["label"], csv.name)
    notes.extend(told)
    _read_split(table, csv.name)
    for column in ("patient", "folder_split"):
        if column not in table.columns:
            table[column] = pd.Series(pd.NA, index=table.index, dtype="string")
    check_boxes(table, csv.name)
    folder, places, names = _locate(csv, tuple(read.column("path")))
    _check_files(table, names, folder, places, csv.name)
    table["path"] = table["path"].map(names)
    table = _merge_rows(table, "path", csv.name, notes)
    classes = ABNORMAL if calls_abnormal(words) else CLASS_NAMES
    return Listing(
        folder, table.sort_values("path", ignore_index=True), notes, places=places, class_names=classes
    )


def _read_split(table: pd.DataFrame, where: str) -> None:
    """Turn a column split into folder_split, in place."""
    if "split" in table.columns:
        bad = [word for word in table["split"].dropna().unique() if word_key(word) not in SPLIT_NAMES]
        if bad:
            raise InputError(f"{where}: the split {bad[0]!r} is none of train, validation, test.")
        split = table.pop("split").map(lambda word: SPLIT_NAMES[word_key(word)], na_action="ignore")
        table["folder_split"] = split.astype("string")


def locate_files(csv: Path) -> tuple[Path, Mapping[str, str] | None]:
    """Return the folder that a table's paths are relative to, and where each lies if they have no folder in
    common.
    """
    stat = csv.stat()
    return _read_places(csv, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=4)
def _read_places(csv: Path, *_: int) -> tuple[Path, Mapping[str, str] | None]:
    folder, places, _ = _locate(csv, tuple(read_user_table(csv).column("path")))
    return folder, places


def _locate(csv: Path, paths: tuple[str, ...]) -> tuple[Path, dict[str, str] | None, dict[str, str]]:
    """Return the data root, the places by number where there is none, and each path as it is stored.

    No path of this machine above the data root reaches a table or a page: the root is the table's own folder
    where all files lie below it, else the folder that they have in common.
    """
    own = Path(os.path.normpath(csv.parent.absolute()))
    whole = {path: os.path.normpath(own / path.replace("\\", "/")) for path in dict.fromkeys(paths)}
    root = own
    if not all(place.startswith(f"{own}{os.sep}") for place in whole.values()):
        try:
            root = Path(os.path.commonpath([os.path.dirname(place) for place in whole.values()]))
        except ValueError:  # drives of Windows
            root = Path(own.anchor)
    if len(root.parts) < 3 and root != own:  # such as / and /home: what lies below names people and machines
        numbers = {
            place: f"{number:06d}{Path(place).suffix}"
            for number, place in enumerate(sorted(set(whole.values())), 1)
        }
        return (
            own,
            {number: place for place, number in numbers.items()},
            {p: numbers[whole[p]] for p in whole},
        )
    return root, None, {path: Path(os.path.relpath(place, root)).as_posix() for path, place in whole.items()}


def _check_files(
    table: pd.DataFrame, names: dict[str, str], folder: Path, places: Mapping[str, str] | None, csv: str
) -> None:
    """Raise `InputError` where not one of the listed files is there."""
    for path in table["path"]:
        if os.path.lexists(places[names[path]] if places else folder / names[path]):
            return
    if len(table):
        first = table["path"].iloc[0]
        hint = "write paths relative to the table's folder"
        if first != first.strip():
            hint = "take the spaces at its ends away"
        elif re.match(r"[A-Za-z]:", first) or "\\" in first:
            hint = "it is a path of Windows; write it relative to the table's folder, with forward slashes"
        raise InputError(
            f"{csv}: none of its {len(table)} files can be opened; the first is {first!r} in line "
            f"{table.index[0]}: {hint}."
        )


def _merge_rows(table: pd.DataFrame, key: str, where: str, notes: list[str]) -> pd.DataFrame:
    """Return one row per file: readers who agree make its label, readers who disagree exclude it.

    Rows without a class do not vote. Boxes of all rows count; of other columns only what all rows of a file
    say stays.

    Returns
    -------
    DataFrame
        As `table`, without a column reader, and with excluded: why a file is left out, or missing.
    """
    readers = table["reader"].nunique() if "reader" in table.columns else 0
    table = table.drop(columns="reader", errors="ignore").assign(
        excluded=pd.array([None] * len(table), "string")
    )
    repeated = table[key].duplicated(keep=False)
    if not repeated.any():
        return table
    if "patient" in table.columns:
        patients = table["patient"].str.strip()
        nobody = patients.map(is_placeholder, na_action="ignore").astype("boolean").fillna(False)
        nobody = repeated & nobody.astype(bool)
        table["patient"] = patients.mask(nobody)
    files = table[repeated].groupby(key, sort=False)
    merged, values = files.first(), files.nunique()
    for column in ("patient", "folder_split"):
        torn = values.index[values[column] > 1] if column in values.columns else []
        if len(torn):
            raise InputError(
                f"{where}: {torn[0]} is listed with {values.loc[torn[0], column]} values of "
                f"{column.removeprefix('folder_')}: give each file one."
            )
    merged = merged.mask(values > 1)
    if "boxes" in merged.columns:
        merged["boxes"] = files["boxes"].agg(lambda cells: "; ".join(dict.fromkeys(cells.dropna())) or pd.NA)
    torn = values.index[values["label"] > 1]
    votes = pd.crosstab(table.loc[repeated, key], table.loc[repeated, "label"])
    for file in torn:
        said = " and ".join(f"{count} say {name}" for name, count in votes.loc[file].items())
        merged.loc[file, "excluded"] = f"label conflict: of its rows in {where} {said}"
    told = f"{where}: {int(repeated.sum())} rows belong to {len(merged)} files that are listed several times"
    told += f", by {readers} readers" if readers else ""
    notes.append(f"{told}; {len(torn)} of them have both labels and are left out as label conflicts.")
    differ = [name for name in values.columns[(values > 1).any()] if name not in ("label", "boxes")]
    if differ:
        notes.append(
            f"{where}: rows of one file differ in {', '.join(differ)}; there these files have no value."
        )
    return pd.concat([table[~repeated], merged.reset_index()], ignore_index=True)


def join_table(table: pd.DataFrame, csv: Path, notes: list[str]) -> pd.DataFrame:
    """Join a table beside folders, such as FracAtlas', by path or file name; labels that contradict exclude
    the image.

    Raises
    ------
    InputError
        When no row names a file of the folder, or a name that several files have.
    """
    extra = _frame(read := read_user_table(csv))
    notes.extend(read.notes)
    key = next(
        (name for name in ("path", "image_id", "filename", "file_name", "image") if name in extra.columns),
        None,
    )
    if key is None:
        notes.append(f"{csv.name} is left aside: it has no column image_id to join it by.")
        return table
    extra["joined"] = _match_files(extra[key], list(table["path"]), csv.name, key)
    _read_split(extra, csv.name)
    lost = int(extra["joined"].isna().sum())
    if lost:
        notes.append(f"{csv.name}: {lost} of its {len(extra)} rows name no file here.")
    extra = extra.dropna(subset=["joined"])
    labels = [name for name in ("fractured", "label") if name in extra.columns]
    cells = [label_cells(extra[name], csv.name, "have their folder's") for name in labels]
    for _, told in cells:
        notes.extend(told)
    given = pd.concat([found for found, _ in cells] or [pd.Series(pd.NA, extra.index, dtype="string")])
    rows = pd.concat([extra.drop(columns=labels)] * max(len(cells), 1)).assign(
        label=given.to_numpy()
    )  # two columns are two votes
    rows = (
        rows.drop_duplicates(["joined", "label", *(c for c in ("boxes",) if c in rows)])
        if len(cells) > 1
        else rows
    )
    rows = _merge_rows(rows.reset_index(drop=True), "joined", csv.name, notes)
    rows = rows.rename(columns={"label": "label_given", "excluded": "excluded_given"})
    for column in ("patient", "folder_split"):
        if column in rows.columns:
            table[column] = table[column].fillna(table["path"].map(rows.set_index("joined")[column]))
    keep = [c for c in rows.columns if c not in (*table.columns, *COLUMNS)]
    shown = [c for c in keep if c not in ("joined", "label_given", "excluded_given", "image_id", key)]
    if shown:
        notes.append(
            f"Columns of {csv.name} joined by {'path' if key == 'path' else 'file name'}: {', '.join(shown)}."
        )
    table = table.merge(rows[keep], left_on="path", right_on="joined", how="left")
    _compare_labels(table, csv.name, notes)
    boxes = read_coco(csv.parent, notes)
    if boxes and "boxes" not in table.columns:
        names = table["path"].str.split("/").str[-1]
        table["boxes"] = names.map(boxes).mask(names.duplicated(keep=False))
    check_boxes(table, csv.name)
    return table.drop(columns=["joined", "label_given", "excluded_given", "image_id"], errors="ignore")


def _match_files(cells: pd.Series, paths: list[str], where: str, key: str) -> pd.Series:
    """Return the path that each cell names: as it is, by its last part, or by that without its ending."""
    asked = cells.astype("string").str.strip().str.replace("\\", "/").str.removeprefix("./")
    names = pd.Series(paths, dtype="string").str.split("/").str[-1]
    stems = names.str.replace(r"\.[A-Za-z]\w{1,4}$", "", regex=True)
    last = asked.str.split("/").str[-1]
    for wanted, have in (
        (asked, pd.Series(paths, dtype="string")),
        (last, names),
        (last, stems),
        (last.str.replace(r"\.[A-Za-z]\w{1,4}$", "", regex=True), stems),
    ):
        hit = wanted.isin(have).fillna(False)
        if not hit.any():
            continue
        several = have[have.duplicated(keep=False) & have.isin(wanted[hit])]
        if len(several):
            count = int((have == several.iloc[0]).sum())
            raise InputError(
                f"{where}: {several.iloc[0]!r} in its column {key} is the name of {count} files here: "
                "write paths relative to "
                "the folder in a column path."
            )
        return wanted.map(dict(zip(have, paths, strict=True))).astype("string")
    raise InputError(
        f"{where}: none of its {len(cells)} rows names a file of the folder, such as {cells.iloc[0]!r} in "
        "line "
        f"{cells.index[0]}: write the files' names in the column {key}, or rename the table."
        if len(cells)
        else f"{where} has a header but no rows: fill it, or remove it."
    )


def _compare_labels(table: pd.DataFrame, name: str, notes: list[str]) -> None:
    given = table["label_given"]
    table["excluded"] = table["excluded"].fillna(table["excluded_given"])
    differ = (given.notna() & table["label"].notna() & (given != table["label"])).fillna(False).astype(bool)
    if differ.any():
        table.loc[differ, "excluded"] = (
            "label conflict: its folder says " + table["label"] + f", {name} says " + given
        )[differ]
        notes.append(
            f"Label conflict: of {int(differ.sum())} images the folder says one class and {name} the "
            "other, such as "
            f"{table.loc[differ, 'path'].iloc[0]}; they are left out."
        )
    lacking = table["label"].isna() & given.notna()
    if lacking.any():
        table.loc[lacking, "label"] = given[lacking]
        notes.append(f"The labels of {int(lacking.sum())} images are those of {name}.")
