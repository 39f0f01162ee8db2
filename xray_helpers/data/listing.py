"""List the images of a folder or table with what is known about each, before any file is opened."""

import os
import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pandas as pd

from xray_helpers.data.classes import MIN_PER_CLASS, USUAL, Question, ask, label_folders
from xray_helpers.data.labels import SPLIT_NAMES, calls_abnormal, is_numeral, label_paths, read_label
from xray_helpers.data.tables import ABNORMAL, Listing, join_table, list_csv
from xray_helpers.data.user_tables import read_user_table
from xray_helpers.images.patient_names import word_key
from xray_helpers.images.radiographs import SUFFIXES, escape_name, looks_like_picture
from xray_helpers.settings import CLASS_NAMES, InputError, number_of
from xray_helpers.study.folders import from_root, is_phantoms
from xray_helpers.synthetic.dataset import demo_phantoms

_MURA = re.compile(
    r"(?:^|/)(?:XR_(?P<body_part>[A-Z]+)/)?(?P<patient>patient\d+)/(?P<exam>study\d+)_(?P<label>\w+?)/"
)


def list_data(
    data: str,
    patient_pattern: str = "",
    exam_pattern: str = "",
    *,
    labelled: bool = True,
    question: Question = USUAL,
) -> Listing:
    """List the images of a folder or CSV with their labels, without opening them.

    Parameters
    ----------
    data : str
        ``phantoms``, ``phantoms:types``, a folder in one of the layouts of the README, or a CSV with the
        columns path and label, and optionally patient, exam, split, reader, boxes and any others. Relative
        to the
        repository's root.
    patient_pattern : str
        A regular expression on the relative path; its group ``patient``, or else its first group, is the
        patient.
    exam_pattern : str
        The same for the exam, and its group ``exam``.
    labelled : bool
        Whether both classes are required.
    question : Question
        Which classes there are, and which of them is positive; by default two, or those that are found.

    Raises
    ------
    InputError
        No such place, no images, one class only, or labels that cannot be understood.
    """
    source = demo_phantoms(data) if is_phantoms(data) else from_root(data)
    if source.is_dir():
        listing = _list_folder(source, question, labelled=labelled)
    elif source.is_file() and source.suffix.lower() in (".csv", ".tsv", ".txt"):
        listing = list_csv(source, question, labelled=labelled)
    else:
        raise InputError(f"There is no folder or CSV {source.name!r} at {source}: check --data.")
    table = listing.table
    for column, pattern in {"patient": patient_pattern, "exam": exam_pattern}.items():
        if pattern:
            found = table["path"].map(partial(_match_group, pattern, column)).astype("string")
            table[column] = found.fillna(table[column])
    if labelled or not len(table):
        labels = table.loc[table["excluded"].isna(), "label"]
        check_classes(labels, data, table, listing.notes, listing.class_names)
    return listing


def _match_group(pattern: str, name: str, path: str) -> str | None:
    found = re.search(pattern, path)
    return found and (found[name] if name in found.re.groupindex else found[1])


def check_classes(
    labels: pd.Series,
    where: str,
    listed: pd.DataFrame | None = None,
    notes: Sequence[str] = (),
    names: tuple[str, str] = CLASS_NAMES,
) -> None:
    """Raise `InputError` unless there are enough images of both classes.

    Parameters
    ----------
    labels : Series of str
        Of the images that count.
    where : str
        Where they are, for the message.
    listed : DataFrame, optional
        All images that were listed (path, label), to name folders without a class.
    notes : sequence of str
        Of which the message repeats those on images that were left out.
    names : (str, str)
        How the data call the negative and the positive class.
    """
    left_out = " ".join(["", *(note for note in notes if "do not count" in note or "conflict" in note)])
    if not len(labels) and listed is not None and len(listed):
        raise InputError(f"None of the {len(listed)} images in {where} is left with a class.{left_out}")
    if not len(labels):
        raise InputError(
            f"No images in {where}: it should hold folders such as Fractured and Non-Fractured with "
            f"{', '.join(SUFFIXES)} files, or be a CSV with the columns path and label."
        )
    counts = {name: int((labels == label).sum()) for label, name in zip(CLASS_NAMES, names, strict=True)}
    for name, count in counts.items():
        if count == 0:
            raise InputError(
                f"{len(labels)} images in {where}, but none of class {name} (found: {counts}"
                f"{_describe_unlabelled(listed)}): both classes are needed, named by a folder such as "
                f"Fractured / Non-Fractured, or by a CSV's column label.{left_out}"
            )
        if count < MIN_PER_CLASS:
            raise InputError(
                f"Only {number_of(count, 'image')} "
                f"of class {name} in {where}: at least {MIN_PER_CLASS} of each class "
                f"are needed to make train, validation and test parts.{left_out}"
            )


def _describe_unlabelled(listed: pd.DataFrame | None) -> str:
    if listed is None or listed["label"].notna().all():
        return ""
    paths = listed.loc[listed["label"].isna(), "path"]
    folders = sorted({folder for path in paths for folder in path.split("/")[:-1]})
    text = f"; of no class: {number_of(len(paths), 'image')}"
    if folders:
        text += f" in the folders {', '.join(folders[:8])}" + (", ..." if len(folders) > 8 else "")
    if {"0", "1"} <= set(folders):
        text += "; 0 and 1 are classes only where they are the one level that separates all files"
    return text


def _list_folder(folder: Path, question: Question, *, labelled: bool) -> Listing:
    notes: list[str] = []
    paths, others = _walk(folder)
    paths = _drop_augmented(paths, notes)
    table = pd.DataFrame({"path": paths}, dtype="string")
    names, mura = CLASS_NAMES, table["path"].str.extract(_MURA)
    is_mura = bool(mura["patient"].notna().any())
    if is_mura or (_names_labels(folder / "dataset.csv") and not question.given):
        labels = label_paths(paths, strict=labelled)
    else:
        labels = label_folders(paths, question, notes, strict=labelled)
    folder_split = [_find_split(path) for path in paths]
    columns = {"label": labels, "patient": None, "exam": None, "folder_split": folder_split, "excluded": None}
    table = table.assign(**{name: pd.Series(value, table.index, "string") for name, value in columns.items()})
    if is_mura:
        names = ABNORMAL
        notes.append("MURA-style paths: 'positive' means abnormal, which is not the same as fractured.")
        table["patient"] = mura["patient"]
        table["exam"] = mura["body_part"].fillna("") + "/" + mura["patient"] + "/" + mura["exam"]
        table["exam"] = table["exam"].str.removeprefix("/")
        table["label"] = _label_studies(table, mura["label"], strict=labelled)
        if mura["body_part"].notna().any():
            table["body_part"] = mura["body_part"].str.lower()
    elif calls_abnormal(word_key(name) for path in paths for name in path.split("/")[:-1]):
        names = ABNORMAL
    by_folder, has_table = table["label"].notna().any(), (folder / "dataset.csv").is_file()
    if by_folder or not has_table:
        answers, classes = ask(table["label"], question, names)
        table = table.assign(**answers)
    if has_table:
        table = join_table(table, folder / "dataset.csv", notes, question)
    if not by_folder and has_table:
        answers, classes = ask(table["label"], question, names)
        table = table.assign(**answers)
    notes += [classes.assumed] if classes.assumed else []
    return Listing(folder, table, notes, others, classes=classes)


def _names_labels(csv: Path) -> bool:
    """Return whether a table beside folders has labels, so that folders of unknown names are no classes."""
    if not csv.is_file():
        return False
    return bool({"label", "fractured"} & {name.strip().lower() for name in read_user_table(csv).columns})


def _label_studies(table: pd.DataFrame, names: pd.Series, *, strict: bool) -> pd.Series:
    """Return the class of each study's folder, such as study1_positive, else of the folders around it."""
    studies = names.map(lambda name: None if is_numeral(name) else read_label(name), na_action="ignore")
    studies = studies.astype("string")
    conflict = (studies != table["label"]).fillna(False).astype(bool)
    if conflict.any() and strict:
        first = table[conflict].iloc[0]
        raise InputError(
            f"{int(conflict.sum())} of {len(table)} paths name both classes, such as {first['path']}: its "
            f"study's folder says {studies[conflict].iloc[0]}, a folder around it says {first['label']}. "
            "Rename or move one of them, or list the images with their labels in a CSV."
        )
    return studies.fillna(table["label"]).mask(conflict)


def _drop_augmented(paths: list[str], notes: list[str]) -> list[str]:
    """Return the paths without folders of augmented copies that stand beside their originals."""
    folders = {path.split("/")[0] for path in paths if "/" in path}
    copies = sorted(name for name in folders if word_key(name).startswith("augmented"))
    originals = sorted(name for name in folders if word_key(name).startswith("original"))
    kept = [path for path in paths if path.split("/")[0] not in copies]
    if not originals or len(kept) == len(paths):
        return paths
    notes.append(
        f"Read without {', '.join(map(repr, copies))}: its {len(paths) - len(kept)} files are augmented "
        f"copies of the pictures in {', '.join(map(repr, originals))}."
    )
    return kept


def _find_split(path: str) -> str | None:
    keys = [word_key(name) for name in path.split("/")[:-1]]
    return next((SPLIT_NAMES[key] for key in keys if key in SPLIT_NAMES), None)


def _walk(folder: Path) -> tuple[list[str], dict[str, str]]:
    """Return the paths of images, with forward slashes, and of all other files with why they are none.

    data/cache and hidden folders are left out.
    """
    paths, others = [], {}
    cache = from_root("data/cache")
    for here, folders, names in os.walk(folder):
        relative = Path(here).relative_to(folder)
        for name in folders:
            if os.path.islink(os.path.join(here, name)):
                path = escape_name((relative / name).as_posix())
                others[path] = "is a link to a folder: put the folder itself there"
        folders[:] = sorted(f for f in folders if not f.startswith(".") and Path(here, f) != cache)
        for name in names:
            path = escape_name((relative / name).as_posix())
            if name.startswith("."):
                others[path] = "is hidden, a system's own file: nothing to do"
            elif name.lower().endswith(SUFFIXES) or _is_picture(os.path.join(here, name)):
                paths.append(path)
            else:
                others[path] = "is no image by its name, nor by its first bytes: nothing to do"
    return sorted(paths), others


def list_files(place: Path) -> list[tuple[Path, str, str]]:
    """Return folder, name in it, and why it is no image (or "") for a file, or for each file of a folder."""
    if not place.is_dir():
        file = Path(os.path.realpath(place))
        return [(file.parent, escape_name(file.name), "")]
    paths, others = _walk(place)
    return [(place, path, others.get(path, "")) for path in sorted([*paths, *others])]


def _is_picture(path: str) -> bool:
    """Return whether a file without a known ending begins like a picture, as in exports of hospitals."""
    if not os.path.isfile(path):
        return False
    try:
        with open(path, "rb") as handle:
            return looks_like_picture(handle.read(132))
    except OSError:
        return False
