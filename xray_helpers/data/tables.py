"""Tables that list images, or that add columns to a folder's images: labels, patients, readers, paths."""

import os
import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from xray_helpers.data.classes import USUAL, Question, ask, choose_reader
from xray_helpers.data.labels import SPLIT_NAMES, calls_abnormal, label_cells, read_label
from xray_helpers.data.user_tables import UserTable, read_user_table
from xray_helpers.images.annotations import check_boxes, find_masks
from xray_helpers.images.patient_names import is_placeholder, word_key
from xray_helpers.settings import CLASS_NAMES, Classes, InputError, number_of
from xray_helpers.study.tables import MANIFEST, PREDICTIONS

ABNORMAL = ("Normal", "Abnormal")  # MURA's own names of its classes
_INPUT = ("path", "label", "patient", "exam", "split", "boxes", "reader")  # columns of a table with a meaning
_TEXT = (*_INPUT, "image_id", "fractured")  # columns whose names may be in any case, and whose cells are text
_OWN = {
    "class_name",
    "folder_split",
    "excluded",
    "hashed",
    "hashed_exam",
    "certainty",
    "kind",
    "column",
    "value",
}
_RESERVED = ({*MANIFEST, *PREDICTIONS} | _OWN) - {*_INPUT}  # names of columns that a study makes itself
_ALSO = {"patient": ("patientid",), "exam": ("examid", "studyid", "studynumber")}  # other names of columns
_MISSING = ("", "NaN", "nan", "NA", "N/A", "None", "null")
_KEYS = ("path", "image_id", "filename", "file_name", "image")  # columns that name a folder's images
_SUFFIX = r"\.[A-Za-z]\w{1,4}$"  # of a file's name


class Listing(NamedTuple):
    """What a data folder or CSV lists, before any file is opened.

    Attributes
    ----------
    folder : Path
        What the paths are relative to.
    table : DataFrame
        path, label (Fractured, Non-Fractured, or missing), patient, exam, folder_split, excluded (why a file
        is left out, or missing), with three or more classes class_name, then the CSV's other columns. One row
        per file.
    notes : list of str
        What was decided on the way, one sentence each.
    others : dict
        Path of each file that is no image by its name, and why it is left out.
    places : dict, optional
        Absolute path by relative path, for tables whose files have no common folder; the relative paths are
        numbers then.
    classes : Classes
        How the data call the negative and the positive class, and three or more classes.
    """

    folder: Path
    table: pd.DataFrame
    notes: list[str]
    others: dict[str, str] = {}  # noqa: RUF012
    places: Mapping[str, str] | None = None
    classes: Classes = Classes()

    @property
    def class_names(self) -> tuple[str, str]:
        """How the data call the negative and the positive class."""
        return self.classes[:2]


def list_csv(csv: Path, question: Question = USUAL, *, labelled: bool = True) -> Listing:
    """Return what a table with the columns path and label lists; see `listing.list_data`.

    Unless it has to be `labelled`, the column label may be missing.
    """
    read = read_user_table(csv)
    notes, table = list(read.notes), _to_frame(read)
    if not labelled and "label" not in table.columns:
        table["label"] = pd.Series(pd.NA, index=table.index, dtype="string")
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
    abnormal = calls_abnormal(word_key(word) for word in table["label"].dropna().unique())
    read_cell = choose_reader(table["label"], question)
    if not question.complete:  # a set from elsewhere may have other classes as well
        table["label"] = table["label"].where(table["label"].map(read_cell).notna())
    table["label"], label_notes = label_cells(table["label"], csv.name, read=read_cell)
    notes.extend(label_notes)
    _read_split(table, csv.name)
    for column in ("patient", "exam", "folder_split"):
        if column not in table.columns:
            table[column] = pd.Series(pd.NA, index=table.index, dtype="string")
    check_boxes(table, csv.name)
    folder, places, names = _locate(csv, read.column("path"))
    _check_files(table, names, folder, places, csv.name)
    table["path"] = table["path"].map(names)
    table = _merge_rows(table, "path", csv.name, notes).sort_values("path", ignore_index=True)
    answers, classes = ask(table["label"], question, ABNORMAL if abnormal else CLASS_NAMES)
    notes += [classes.assumed] if classes.assumed else []
    return Listing(folder, table.assign(**answers), notes, places=places, classes=classes)


def _to_frame(read: UserTable) -> pd.DataFrame:
    """Return a table indexed by its lines; cells of columns unknown by name are numbers where they can be."""
    names = [name.lower() if name.lower() in _TEXT else name for name in read.columns]
    for column, others in _ALSO.items():
        if column not in names:
            other = next((name for name in names if word_key(name) in others), column)
            names = [column if name == other else name for name in names]
    names = [f"{name}_given" if name in _RESERVED else name for name in names]
    table = pd.DataFrame(read.rows, columns=names, index=read.lines, dtype="string")
    for name in names:
        table[name] = table[name].mask(table[name].str.strip().isin(_MISSING))
        if name not in _TEXT:
            try:
                table[name] = pd.to_numeric(table[name])
            except (ValueError, TypeError):
                continue
    return table


def _read_split(table: pd.DataFrame, where: str) -> None:
    """Turn a column split into folder_split, in place."""
    if "split" in table.columns:
        bad = [word for word in table["split"].dropna().unique() if word_key(word) not in SPLIT_NAMES]
        if bad:
            raise InputError(f"{where}: the split {bad[0]!r} is none of train, validation, test.")
        split = table.pop("split").map(lambda word: SPLIT_NAMES[word_key(word)], na_action="ignore")
        table["folder_split"] = split.astype("string")


def locate_files(csv: Path) -> tuple[Path, Mapping[str, str] | None]:
    """Return the folder that a table's paths are relative to, and `Listing.places`."""
    stat = csv.stat()
    return _locate_once(csv, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=4)
def _locate_once(csv: Path, *_: int) -> tuple[Path, Mapping[str, str] | None]:
    return _locate(csv, read_user_table(csv).column("path"))[:2]


def _locate(csv: Path, paths: list[str]) -> tuple[Path, dict[str, str] | None, dict[str, str]]:
    """Return the data root, `Listing.places`, and each path as it is stored.

    The data root is the table's own folder if all files are below it, else their common folder; no path of
    this machine above it is stored. If they have none, paths are stored as numbers.
    """
    own = Path(os.path.normpath(csv.parent.absolute()))
    absolute = {path: os.path.normpath(own / path.replace("\\", "/")) for path in dict.fromkeys(paths)}
    root = own
    if not all(file.startswith(f"{own}{os.sep}") for file in absolute.values()):
        try:
            root = Path(os.path.commonpath([os.path.dirname(file) for file in absolute.values()]))
        except ValueError:  # drives of Windows
            root = Path(own.anchor)
    if root == own or len(root.parts) >= 3:
        return (
            root,
            None,
            {path: Path(os.path.relpath(file, root)).as_posix() for path, file in absolute.items()},
        )
    # below / or /home, names of folders identify people and machines
    files = sorted(set(absolute.values()))
    numbers = {file: f"{number:06d}{Path(file).suffix}" for number, file in enumerate(files, 1)}
    places = {number: file for file, number in numbers.items()}
    return own, places, {path: numbers[file] for path, file in absolute.items()}


def _check_files(
    table: pd.DataFrame, names: dict[str, str], folder: Path, places: Mapping[str, str] | None, where: str
) -> None:
    """Raise `InputError` if none of the listed files exists."""
    for path in table["path"]:
        if os.path.lexists(places[names[path]] if places else folder / names[path]):
            return
    first = table["path"].iloc[0]
    hint = "write paths relative to the table's folder"
    if first != first.strip():
        hint = "take the spaces at its ends away"
    elif re.match(r"[A-Za-z]:", first) or "\\" in first:
        hint = "it is a path of Windows; write it relative to the table's folder, with forward slashes"
    raise InputError(
        f"{where}: none of its {number_of(len(table), 'file')} can be opened; the first is {first!r} in line "
        f"{table.index[0]}: {hint}."
    )


def _merge_rows(table: pd.DataFrame, key: str, where: str, notes: list[str]) -> pd.DataFrame:
    """Return one row per file: readers who agree make its label, readers who disagree exclude it.

    Rows without a class do not vote. Boxes of all rows are joined; cells of other columns are kept if all
    rows of a file agree.

    Returns
    -------
    DataFrame
        As `table`, without a column reader, and with excluded: why a file is left out, or missing.
    """
    readers = table["reader"].nunique() if "reader" in table.columns else 0
    table = table.drop(columns="reader", errors="ignore")
    table["excluded"] = pd.Series(pd.NA, index=table.index, dtype="string")
    repeated = table[key].duplicated(keep=False)
    if not repeated.any():
        return table
    if "patient" in table.columns:
        patients = table["patient"].str.strip()
        unknown = patients.map(is_placeholder, na_action="ignore").astype("boolean").fillna(False)
        table["patient"] = patients.mask(repeated & unknown.astype(bool))
    files = table[repeated].groupby(key, sort=False)
    merged, values = files.first(), files.nunique()
    for column in values.columns.intersection(["patient", "exam", "folder_split"]):
        counts = values.loc[values[column] > 1, column]
        if len(counts):
            raise InputError(
                f"{where}: {counts.index[0]} is listed with {counts.iloc[0]} values of "
                f"{column.removeprefix('folder_')}: give each file one."
            )
    merged = merged.mask(values > 1)
    if "boxes" in merged.columns:
        merged["boxes"] = files["boxes"].agg(lambda cells: "; ".join(dict.fromkeys(cells.dropna())) or pd.NA)
    conflicts = values.index[values["label"] > 1]
    votes = pd.crosstab(table.loc[repeated, key], table.loc[repeated, "label"])
    for file in conflicts:
        opinions = " and ".join(f"{count} say {name}" for name, count in votes.loc[file].items())
        merged.loc[file, "excluded"] = f"label conflict: of its rows in {where} {opinions}"
    by_readers = f", by {readers} readers" if readers else ""
    notes.append(
        f"{where}: {int(repeated.sum())} rows belong to {number_of(len(merged), 'file')} listed several times"
        f"{by_readers}; {len(conflicts)} of them have both labels and are left out as label conflicts."
    )
    differ = [name for name in values.columns[(values > 1).any()] if name not in ("label", "boxes")]
    if differ:
        notes.append(
            f"{where}: rows of one file differ in {', '.join(differ)}; there these files have no value."
        )
    return pd.concat([table[~repeated], merged.reset_index()], ignore_index=True)


def join_table(table: pd.DataFrame, csv: Path, notes: list[str], question: Question = USUAL) -> pd.DataFrame:
    """Return a folder's images with the columns of a table beside them, such as FracAtlas's.

    Rows are joined by path or by file name. Images whose labels contradict are excluded.

    Raises
    ------
    InputError
        When no row names a file of the folder, or a row names several.
    """
    read = read_user_table(csv)
    extra = _to_frame(read)
    notes.extend(read.notes)
    key = next((name for name in _KEYS if name in extra.columns), None)
    if key is None:
        notes.append(f"{csv.name} is left aside: it has no column image_id to join it by.")
        return table
    masks = find_masks(table["path"])  # which have the names of their pictures
    named = [path for path in table["path"] if path not in masks]
    extra["joined"] = _match_files(extra[key], named, csv.name, key)
    _read_split(extra, csv.name)
    lost = int(extra["joined"].isna().sum())
    if lost:
        notes.append(f"{csv.name}: {lost} of its {len(extra)} rows name no file here.")
    asked = USUAL if table["label"].notna().any() else question  # folders' labels are two by now
    rows = _read_votes(extra.dropna(subset=["joined"]), csv.name, notes, asked)
    rows = _merge_rows(rows, "joined", csv.name, notes)
    rows = rows.rename(columns={"label": "label_given", "excluded": "excluded_given"})
    for column in rows.columns.intersection(["patient", "exam", "folder_split"]):
        table[column] = table[column].fillna(table["path"].map(rows.set_index("joined")[column]))
    technical = ["joined", "label_given", "excluded_given", "image_id"]
    added = [name for name in rows.columns if name not in (*table.columns, *MANIFEST)]
    shown = [name for name in added if name not in (*technical, key)]
    if shown:
        by = "path" if key == "path" else "file name"
        notes.append(f"Columns of {csv.name} joined by {by}: {', '.join(shown)}.")
    table = table.merge(rows[added], left_on="path", right_on="joined", how="left")
    _compare_labels(table, csv.name, notes)
    check_boxes(table, csv.name)
    return table.drop(columns=technical, errors="ignore")


def _read_votes(rows: pd.DataFrame, where: str, notes: list[str], question: Question) -> pd.DataFrame:
    """Return rows with the classes of their columns fractured and label; with both, each row counts twice."""
    columns = [name for name in ("fractured", "label") if name in rows.columns]
    labels = []
    for name in columns:
        read = choose_reader(rows[name], question) if name == "label" else read_label
        classes, label_notes = label_cells(rows[name], where, "have their folder's", read)
        labels.append(classes)
        notes.extend(label_notes)
    rows = rows.drop(columns=columns)
    if not labels:
        return rows.assign(label=pd.Series(pd.NA, rows.index, dtype="string")).reset_index(drop=True)
    votes = pd.concat([rows.assign(label=classes) for classes in labels], ignore_index=True)
    if len(labels) == 1:
        return votes
    return votes.drop_duplicates(
        ["joined", "label", *votes.columns.intersection(["boxes"])], ignore_index=True
    )


def _match_files(cells: pd.Series, paths: list[str], where: str, key: str) -> pd.Series:
    """Return the path that each cell names: as it is, by its file name, or by that without its ending."""
    if not len(cells):
        raise InputError(f"{where} has a header but no rows: fill it, or remove it.")
    wanted = cells.astype("string").str.strip().str.replace("\\", "/").str.removeprefix("./")
    wanted_name = wanted.str.split("/").str[-1]
    full = pd.Series(paths, dtype="string")
    names = full.str.split("/").str[-1]
    stems = names.str.replace(_SUFFIX, "", regex=True)
    for asked, known in (
        (wanted, full),
        (wanted_name, names),
        (wanted_name, stems),
        (wanted_name.str.replace(_SUFFIX, "", regex=True), stems),
    ):
        found = asked.isin(known)
        if not found.any():
            continue
        ambiguous = known[known.duplicated(keep=False) & known.isin(asked[found])]
        if len(ambiguous):
            raise InputError(
                f"{where}: {ambiguous.iloc[0]!r} in its column {key} is the name of "
                f"{int((known == ambiguous.iloc[0]).sum())} files here: write paths relative to the folder "
                "in a column path."
            )
        return asked.map(dict(zip(known, paths, strict=True))).astype("string")
    raise InputError(
        f"{where}: none of its {len(cells)} rows names a file of the folder, such as {cells.iloc[0]!r} in "
        f"line {cells.index[0]}: write the files' names in the column {key}, or rename the table."
    )


def _compare_labels(table: pd.DataFrame, where: str, notes: list[str]) -> None:
    """Exclude images whose folder and table name different classes, and fill missing classes, in place."""
    given = table["label_given"]
    table["excluded"] = table["excluded"].fillna(table["excluded_given"])
    differ = (given != table["label"]).fillna(False).astype(bool)
    if differ.any():
        reasons = "label conflict: its folder says " + table["label"] + f", {where} says " + given
        table.loc[differ, "excluded"] = reasons[differ]
        notes.append(
            f"Label conflict: of {number_of(differ.sum(), 'image')} "
            f"the folder says one class and {where} the other, "
            f"such as {table.loc[differ, 'path'].iloc[0]}; they are left out."
        )
    missing = table["label"].isna() & given.notna()
    if missing.any():
        table.loc[missing, "label"] = given[missing]
        notes.append(f"The labels of {number_of(missing.sum(), 'image')} are those of {where}.")
