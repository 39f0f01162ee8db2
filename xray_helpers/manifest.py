"""A folder (or a CSV) in, one table out: a row a file, readable or with its reason."""

import os
import re
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from tqdm import tqdm

from xray_helpers.boxes import check_boxes, read_coco
from xray_helpers.phantoms import demo_phantoms
from xray_helpers.radiographs import (
    SUFFIXES,
    ImageFolder,
    UnreadableError,
    escape_name,
    image_folder,
    looks_like_picture,
    note_oddities,
)
from xray_helpers.settings import NEGATIVE, POSITIVE, InputError, Settings
from xray_helpers.studies import LOCAL, PHANTOMS, from_root, local_path, read_json, study_folder

COLUMNS = (
    "path", "label", "source_group", "patient", "group", "split", "fold", "sha256",
    "width", "height", "mode", "status", "reason", "note",
)  # fmt: skip
MIN_PER_CLASS = 10  # readable images; fewer cannot be parted in three

_POSITIVE_NAMES = {"fractured", "fracture", "fractures", "positive", "broken"}
_NEGATIVE_NAMES = {"notfractured", "nonfractured", "nofracture", "nonfracture", "unfractured", "negative",
                   "normal", "healthy", "intact"}  # fmt: skip
_SPLIT_NAMES = {
    "train": "train", "training": "train",
    "val": "validation", "valid": "validation", "validation": "validation",
    "test": "test", "testing": "test",
}  # fmt: skip
_MURA = re.compile(r"(?:^|/)(?:XR_(?P<body_part>[A-Z]+)/)?(?P<patient>patient\d+)/study\d+_(?P<label>\w+?)/")


class Listing(NamedTuple):
    """What a data folder or CSV lists, before any file is opened.

    Attributes
    ----------
    folder : Path
        What the paths are relative to.
    table : DataFrame
        path, label (a class name, or missing), patient, folder_split, then the CSV's other columns.
    notes : list of str
        What was decided on the way, a sentence each.
    others : dict
        Path of each file that is no image by its name, and why it is left aside.
    """

    folder: Path
    table: pd.DataFrame
    notes: list[str]
    others: dict[str, str] = {}  # noqa: RUF012


def _key(word: object) -> str:
    return re.sub(r"[^a-z0-9]", "", str(word).lower())


def read_label(word: object) -> str | None:
    """Return the class name that a folder's name or a CSV's value stands for, or None.

    Understands 1/0, true/false, yes/no and the usual spellings; ``not fractured`` is not ``fractured``.
    """
    key = _key(re.sub(r"\.0$", "", str(word)))
    if key in _POSITIVE_NAMES | {"1", "true", "yes"}:
        return POSITIVE
    if key in _NEGATIVE_NAMES | {"0", "false", "no"}:
        return NEGATIVE
    return None


def list_data(data: str, patient_pattern: str = "", *, labelled: bool = True) -> Listing:
    """List the images of a folder or CSV with their labels, opening none of them.

    Parameters
    ----------
    data : str
        ``phantoms``, a folder in one of the layouts of the README, or a CSV with the columns path and
        label, and optionally patient, split, and any others. Relative to the repository's root.
    patient_pattern : str
        A regular expression on the relative path whose first group is the patient.
    labelled : bool
        Whether both classes must be there.

    Raises
    ------
    InputError
        No such place, no images, or one class only.
    """
    source = demo_phantoms() if data == PHANTOMS else from_root(data)
    if source.is_dir():
        listing = _list_folder(source)
    elif source.is_file() and source.suffix.lower() == ".csv":
        listing = _list_csv(source)
    else:
        raise InputError(f"There is no folder or CSV {source.name!r} at {source}: check --data.")
    if patient_pattern:
        found = listing.table["path"].str.extract(patient_pattern)[0]
        listing.table["patient"] = found.fillna(listing.table["patient"])
    if labelled or not len(listing.table):
        _check_classes(listing.table["label"], "phantoms" if data == PHANTOMS else data)
    return listing


def _check_classes(labels: pd.Series, where: str) -> None:
    counts = {name: int((labels == name).sum()) for name in (POSITIVE, NEGATIVE)}
    if not len(labels):
        raise InputError(
            f"No images in {where}: it should hold folders such as Fractured and Non-Fractured with "
            f"{', '.join(SUFFIXES)} files, or be a CSV with the columns path and label."
        )
    for name, count in counts.items():
        if count == 0:
            raise InputError(
                f"{len(labels)} images in {where}, but none of class {name} (found: {counts}): both classes "
                "are needed, named by a folder such as Fractured / Non-Fractured, or by a CSV's column label."
            )
        if count < MIN_PER_CLASS:
            raise InputError(
                f"Only {count} images of class {name} in {where}: at least {MIN_PER_CLASS} of each class "
                "are needed to make train, validation and test parts."
            )


def _list_folder(folder: Path) -> Listing:
    notes: list[str] = []
    paths, others = _walk(folder)
    top = {_key(path.split("/")[0]): path.split("/")[0] for path in paths}
    for original in [name for key, name in top.items() if key.startswith("original")]:
        copies = [name for key, name in top.items() if key.startswith("augmented")]
        dropped = [path for path in paths if path.split("/")[0] in copies]
        if dropped:
            paths = [path for path in paths if path.split("/")[0] == original]
            notes.append(
                f"Read from '{original}' only: the {len(dropped)} files of '{copies[0]}' are augmented "
                "copies of the same pictures."
            )
    rows = [_row_from_path(path) for path in paths]
    table = pd.DataFrame(rows, columns=["path", "label", "patient", "folder_split", "body_part"])
    if any("study" in path and _MURA.search(path) for path in paths):
        notes.append("MURA-style paths: 'positive' means abnormal, which is not the same as fractured.")
    table = table.dropna(axis="columns", how="all").reindex(
        columns=[
            "path",
            "label",
            "patient",
            "folder_split",
            *(["body_part"] if table["body_part"].any() else []),
        ]
    )
    extra = folder / "dataset.csv"
    if extra.is_file():
        table = _join_fracatlas(table, extra, notes)
    return Listing(folder, table, notes, others)


def _walk(folder: Path) -> tuple[list[str], dict[str, str]]:
    """Return the paths of images, with forward slashes, and of all other files with why they are none.

    data/cache and hidden folders are left out.
    """
    paths, others = [], {}
    cache = from_root("data/cache")
    for here, folders, names in os.walk(folder):
        relative = Path(here).relative_to(folder)
        links = [f for f in folders if os.path.islink(os.path.join(here, f))]
        others |= {
            escape_name((relative / f).as_posix()): "is a link to a folder: put the folder itself there" for f in links
        }
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
    """Return folder, name in it, and why it is no image (or an empty string) of a file, or of each file of a folder."""
    if not place.is_dir():
        whole = Path(os.path.realpath(place))
        return [(whole.parent, escape_name(whole.name), "")]
    paths, others = _walk(place)
    return [(place, path, others.get(path, "")) for path in sorted([*paths, *others])]


def _is_picture(path: str) -> bool:
    """Return whether a file without a known ending begins like a picture, as hospitals' exports do."""
    if not os.path.isfile(path):
        return False
    try:
        with open(path, "rb") as handle:
            return looks_like_picture(handle.read(132))
    except OSError:
        return False


def _row_from_path(path: str) -> dict:
    folders = path.split("/")[:-1]
    row = {
        "path": path,
        "label": next((label for f in reversed(folders) if (label := read_label(f))), None),
        "folder_split": next((_SPLIT_NAMES[_key(f)] for f in folders if _key(f) in _SPLIT_NAMES), None),
    }
    mura = _MURA.search(path)
    if mura:
        row |= {"patient": mura["patient"], "label": read_label(mura["label"]) or row["label"]}
        row["body_part"] = (mura["body_part"] or "").lower() or None
    return row


def _join_fracatlas(table: pd.DataFrame, csv: Path, notes: list[str]) -> pd.DataFrame:
    extra = pd.read_csv(csv)
    if "image_id" not in extra.columns:
        return table
    keep = [c for c in extra.columns if c not in (*table.columns, *COLUMNS, "fractured")]
    table = table.assign(image_id=table["path"].str.split("/").str[-1])
    notes.append(f"Columns of {csv.name} joined by file name: {', '.join(c for c in keep if c != 'image_id')}.")
    table = table.merge(extra[keep].drop_duplicates("image_id"), on="image_id", how="left")
    boxes = read_coco(csv.parent, notes)
    if boxes and "boxes" not in table.columns:
        table["boxes"] = table["image_id"].map(boxes)
    check_boxes(table, csv.name)
    return table.drop(columns="image_id")


def _list_csv(csv: Path) -> Listing:
    text = ("path", "label", "patient", "split", "boxes")
    try:
        table = pd.read_csv(csv, dtype=dict.fromkeys(text, "string"))
    except (ValueError, UnicodeDecodeError, pd.errors.ParserError) as error:
        raise InputError(f"{csv.name} cannot be read as a CSV: {error}.") from None
    missing = {"path", "label"} - set(table.columns)
    if missing:
        raise InputError(
            f"{csv.name} lacks the column {' and '.join(sorted(missing))} (it has {', '.join(table.columns)})."
        )
    unknown = [word for word in table["label"].dropna().unique() if read_label(word) is None]
    if unknown:
        raise InputError(
            f"{csv.name}: the label {unknown[0]!r} is not understood: write {POSITIVE} or {NEGATIVE}, or 1 and 0."
        )
    if "split" in table.columns:
        bad = [word for word in table["split"].dropna().unique() if _key(word) not in _SPLIT_NAMES]
        if bad:
            raise InputError(f"{csv.name}: the split {bad[0]!r} is none of train, validation, test.")
        table["folder_split"] = table.pop("split").map(lambda w: _SPLIT_NAMES[_key(w)], na_action="ignore")
    table["label"] = table["label"].map(read_label, na_action="ignore")
    table["path"] = table["path"].str.replace("\\", "/")
    check_boxes(table, csv.name)
    for column in ("patient", "folder_split"):
        if column not in table.columns:
            table[column] = pd.NA
    taken = [column for column in table.columns if column in set(COLUMNS) - {"path", "label", "patient"}]
    table = table.rename(columns={column: f"{column}_given" for column in taken})
    return Listing(csv.parent, table.sort_values("path", ignore_index=True), [])


def build_manifest(settings: Settings) -> tuple[pd.DataFrame, list[str]]:
    """Read every file of the study's data and return the table of what was found.

    Returns
    -------
    manifest : DataFrame
        path (relative to the data folder), label, source_group, patient, group (`assign_groups` fills them),
        split, fold (`splits` fills them), sha256, width, height (pixels), mode (Pillow's), status
        (``readable``, ``unreadable``, ``excluded`` or ``no image``), reason, note, then folder_split and the user's own.
    notes : list of str

    Raises
    ------
    InputError
        As `list_data`; also when too few files of a class are readable.
    """
    source = local_path(study_folder(settings.name), "data", settings.data)
    listing = list_data(source, settings.patient_pattern)
    manifest = inspect_files(listing, reading_of(settings.model_dump()))
    unlabelled = manifest["label"].isna() & (manifest["status"] == "readable")
    manifest.loc[unlabelled, ["status", "reason"]] = ["excluded", "no class in its path or its CSV row"]
    _check_classes(manifest.loc[manifest["status"] == "readable", "label"], "the readable files")
    return manifest, listing.notes


def inspect_files(listing: Listing, reading: dict[str, Any] | None = None) -> pd.DataFrame:
    """Open every listed file, in parallel, and return the manifest's columns, groups and parts still missing.

    Parameters
    ----------
    listing : Listing
    reading : dict, optional
        How, where not by the defaults: the fields of `radiographs.ImageFolder`.
    """
    folder = ImageFolder(listing.folder, **(reading or {}))
    with ThreadPoolExecutor() as pool:
        read = pool.map(lambda path: _inspect(folder, path), listing.table["path"])
        bar = tqdm(read, "reading", len(listing.table), mininterval=1, leave=False, unit="file")
        found = pd.DataFrame(
            list(bar), columns=["sha256", "width", "height", "mode", "status", "reason", "note", "hashed"]
        )
    manifest = pd.concat([listing.table.reset_index(drop=True), found], axis=1)
    hashed = manifest.pop("hashed").astype("string").replace("", pd.NA)
    manifest["patient"] = manifest["patient"].astype("string").fillna(hashed)
    aside = [{"path": path, "status": "no image", "reason": reason} for path, reason in listing.others.items()]
    manifest = pd.concat([manifest, pd.DataFrame(aside)], ignore_index=True) if aside else manifest
    repeated = manifest["path"].duplicated() & (manifest["status"] == "readable")
    manifest.loc[repeated, ["status", "reason"]] = ["excluded", "listed twice"]
    for column in ("source_group", "group", "split", "fold"):
        manifest[column] = pd.NA
    others = [column for column in manifest.columns if column not in COLUMNS]
    return manifest[[*COLUMNS, *others]]


def reading_of(settings: dict[str, Any]) -> dict[str, Any]:
    """Return those of a study's settings that say how files are read; the defaults where an older study says none."""
    return {name: settings[name] for name in ImageFolder._fields[1:] if name in settings}


def data_folder(study: Path) -> ImageFolder:
    """Return the folder that a study's manifest is relative to, and how its files are read.

    Raises
    ------
    InputError
        When the study does not know where its data lies on this machine.
    """
    source = local_path(study, "data", LOCAL)
    path = demo_phantoms() if source == PHANTOMS else Path(source)
    settings = read_json(study / "study.json")["settings"]
    return ImageFolder(path if path.is_dir() else path.parent, **reading_of(settings))


def _inspect(folder: ImageFolder, path: str) -> dict:
    try:
        radiograph = folder.read(path)
    except UnreadableError as error:
        return {"status": "unreadable", "reason": str(error)}
    height, width = radiograph.pixels.shape
    found = {
        "sha256": radiograph.sha256,
        "width": width,
        "height": height,
        "mode": radiograph.mode,
        "hashed": radiograph.patient,
    }
    try:  # what a trained model would not judge is nothing to learn from
        note = note_oddities(radiograph).note
    except UnreadableError as error:
        return found | {"status": "excluded", "reason": str(error), "note": radiograph.note or pd.NA}
    return found | {"status": "readable", "reason": pd.NA, "note": note or pd.NA}


def assign_groups(manifest: pd.DataFrame, source: pd.Series) -> pd.DataFrame:
    """Fill ``source_group`` and ``group``, the union of source and patient.

    Groups are named by the smallest path in them, so that they do not depend on the files' order.

    Parameters
    ----------
    manifest : DataFrame
        path, patient, status.
    source : Series of str
        The source group of each row (`duplicates.find_same_source`).
    """
    manifest = manifest.copy()
    readable = manifest["status"] == "readable"
    manifest["source_group"] = source.astype("string").where(readable)
    both = pd.concat([manifest["source_group"], "patient:" + manifest["patient"].astype("string")], axis=1)
    manifest["group"] = _first_path(manifest, connected_components(both)).where(readable)
    return manifest


def _first_path(manifest: pd.DataFrame, key: pd.Series) -> pd.Series:
    return manifest.groupby(key)["path"].transform("min").astype("string")


def connected_components(keys: pd.DataFrame) -> pd.Series:
    """Return a number a row such that rows sharing a value in any column have the same number.

    Missing values join nothing.
    """
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components as components

    nodes, edges = len(keys), []
    for column in keys.columns:
        codes, values = pd.factorize(keys[column])
        edges += [(row, nodes + code) for row, code in enumerate(codes) if code >= 0]
        nodes += len(values)
    rows, columns = zip(*edges, strict=True) if edges else ((), ())
    graph = coo_matrix(([1] * len(edges), (rows, columns)), shape=(nodes, nodes))
    return pd.Series(components(graph, directed=False)[1][: len(keys)], index=keys.index)


def count_flow(manifest: pd.DataFrame) -> pd.DataFrame:
    """Count files from found to used, by class: one row a step of the flow.

    Returns
    -------
    DataFrame
        step, files, Fractured, Non-Fractured; the reasons of what was left out stand as steps of their own.
    """
    left_out = manifest["status"].isin(["unreadable", "excluded", "no image"])
    steps = [("found", pd.Series(True, index=manifest.index))]
    kinds = manifest.loc[left_out, "reason"].str.replace(r"\(.*\)|\d+", "", regex=True)
    steps += [(f"left out: {kind}", left_out & (kinds == kind)) for kind in sorted(kinds.unique())]
    steps += [
        ("readable", ~left_out),
        ("not sampled", manifest["status"] == "not sampled"),
        ("used", manifest["status"] == "used"),
    ]
    rows = []
    for step, mask in steps:
        row = {"step": step, "files": int(mask.sum())}
        rows.append(row | {name: int((manifest.loc[mask, "label"] == name).sum()) for name in (POSITIVE, NEGATIVE)})
    return pd.DataFrame(rows)


def read_pictures(paths: Iterable[str], folder: ImageFolder | Path) -> list[np.ndarray]:
    """Read a few pictures at their own size: uint8, (height, width), 0-255."""
    return [image_folder(folder).read(path).pixels for path in paths]
