"""The manifest: one table of all files, with source, patient and group, or why they are not used."""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from xray_helpers.data.classes import MIN_PER_CLASS, question_of
from xray_helpers.data.exams import check_exams
from xray_helpers.data.listing import check_classes, list_data
from xray_helpers.data.tables import Listing, locate_files
from xray_helpers.images.annotations import annotate
from xray_helpers.images.patient_names import without_placeholders
from xray_helpers.images.radiographs import ImageFolder, UnreadableError, check_picture, image_folder
from xray_helpers.settings import NEGATIVE, POSITIVE, Settings, current_classes, number_of
from xray_helpers.study.files import build_table, read_json
from xray_helpers.study.folders import LOCAL, is_phantoms, local_path, study_folder, write_classes
from xray_helpers.study.progress import progress
from xray_helpers.study.tables import MANIFEST, USER_COLUMNS
from xray_helpers.synthetic.dataset import demo_phantoms

MOST_VALUES = 12  # of a column that makes subgroups


def build_manifest(settings: Settings) -> tuple[pd.DataFrame, list[str]]:
    """Read every file of the study's data and return the table of what was found; writes ``classes.json``.

    Returns
    -------
    manifest : DataFrame
        The columns of `study.tables.MANIFEST`, then folder_split and the user's own. path is relative to the
        data folder, mode is Pillow's, status is ``readable``, ``unreadable``, ``excluded`` or ``no image``.
        `assign_groups` fills source_group and group, `splits.assign_splits` split and fold,
        `parts.mark_counted` counted.
    notes : list of str

    Raises
    ------
    InputError
        As `list_data`; also when too few files of a class are readable.
    """
    folder = study_folder(settings.name)
    place, asked = local_path(folder, "data", settings.data), question_of(settings)
    listing = list_data(place, settings.patient_pattern, settings.exam_pattern, question=asked)
    write_classes(folder, listing.classes)
    manifest = inspect_files(listing, reading_of(settings.model_dump()))
    manifest = annotate(manifest, None if listing.places else listing.folder, listing.notes)
    unlabelled = manifest["label"].isna() & (manifest["status"] == "readable")
    manifest.loc[unlabelled, ["status", "reason"]] = ["excluded", "no class in its path or its CSV row"]
    labels = manifest.loc[manifest["status"] == "readable", "label"]
    check_classes(labels, "the readable files", names=listing.class_names)
    return manifest, listing.notes


def inspect_files(listing: Listing, reading: dict[str, Any] | None = None) -> pd.DataFrame:
    """Open every listed file, in parallel, and return the manifest, groups and parts still missing.

    Parameters
    ----------
    listing : Listing
    reading : dict, optional
        Fields of `radiographs.ImageFolder` that differ from their defaults.
    """
    folder = ImageFolder(listing.folder, places=listing.places, **(reading or {}))
    with ThreadPoolExecutor() as pool:
        read = pool.map(lambda path: _inspect(folder, path), listing.table["path"])
        bar = progress(read, "reading", len(listing.table), mininterval=1, leave=False, unit="file")
        columns = ["sha256", "width", "height", "mode", "status", "reason", "note", "hashed", "hashed_exam"]
        found = build_table(list(bar), {name: MANIFEST.get(name, "string") for name in columns})
    manifest = pd.concat([listing.table.reset_index(drop=True), found], axis=1)
    from_header = manifest.pop("hashed").replace("", pd.NA)
    manifest["patient"] = manifest["patient"].astype("string").fillna(from_header)
    given = manifest["exam"].notna()
    from_header = manifest.pop("hashed_exam").replace("", pd.NA)
    manifest["exam"] = manifest["exam"].astype("string").fillna(from_header)
    readable = manifest["status"] == "readable"
    manifest.loc[readable, "patient"] = drop_placeholders(manifest.loc[readable, "patient"], listing.notes)
    exam, patient = (manifest.loc[readable, name] for name in ("exam", "patient"))
    manifest.loc[readable, "exam"] = check_exams(exam, patient, given[readable], listing.notes)
    excluded = manifest.pop("excluded")
    left_out = readable & excluded.notna()
    manifest.loc[left_out, "status"], manifest.loc[left_out, "reason"] = "excluded", excluded[left_out]
    if listing.others:
        others = pd.DataFrame(listing.others.items(), columns=["path", "reason"]).assign(status="no image")
        manifest = pd.concat([manifest, others], ignore_index=True)
    own = [column for column in manifest.columns if column not in MANIFEST]
    return manifest.reindex(columns=[*MANIFEST, *own]).astype(MANIFEST)


def reading_of(settings: dict[str, Any]) -> dict[str, Any]:
    """Return the settings on how files are read; studies of earlier versions may lack some."""
    return {name: settings[name] for name in ImageFolder._fields[1:-1] if name in settings}


def data_folder(study: Path) -> ImageFolder:
    """Return the folder that a study's manifest is relative to, and how its files are read.

    Raises
    ------
    InputError
        When the study does not know where its data is on this machine.
    """
    return open_images(local_path(study, "data", LOCAL), read_json(study / "study.json")["settings"])


def open_images(source: str, settings: dict[str, Any]) -> ImageFolder:
    """Return the folder that the paths of a data set are relative to, and how a study reads files.

    Parameters
    ----------
    source : str
        A folder or CSV on this machine, or ``phantoms``.
    settings : dict
        Of the study.
    """
    path = demo_phantoms(source) if is_phantoms(source) else Path(source)
    folder, places = (path, None) if path.is_dir() else locate_files(path)
    return ImageFolder(folder, places=places, **reading_of(settings))


def _inspect(folder: ImageFolder, path: str) -> dict[str, Any]:
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
        "hashed_exam": radiograph.exam,
    }
    try:  # nothing is learned from pictures that a trained model would refuse
        note = check_picture(radiograph).note
    except UnreadableError as error:
        return found | {"status": "excluded", "reason": str(error), "note": radiograph.note or pd.NA}
    return found | {"status": "readable", "note": note or pd.NA}


def assign_groups(manifest: pd.DataFrame, source: pd.Series) -> pd.DataFrame:
    """Fill ``source_group`` and ``group``, the union of source, patient and exam.

    Groups are named by their smallest path, so that they do not depend on the order of files.

    Parameters
    ----------
    manifest : DataFrame
        path, patient, exam, status.
    source : Series of str
        The source group of each row (`search.find_same_source`).
    """
    manifest = manifest.copy()
    readable = manifest["status"] == "readable"
    manifest["source_group"] = source.astype("string").where(readable)
    keys = [name for name in ("source_group", "patient", "exam") if name in manifest]
    pairs = [_pair_with_first(manifest[column]) for column in keys]
    component = connected_components(len(manifest), np.concatenate(pairs))
    group = manifest.groupby(component)["path"].transform("min")
    manifest["group"] = group.astype("string").where(readable)
    return manifest


def _pair_with_first(keys: pd.Series) -> np.ndarray:
    """Return pairs (n, 2) of each position and the first with the same value; missing values have none."""
    positions = pd.Series(np.arange(len(keys)))
    first = positions.groupby(keys.to_numpy()).transform("first").dropna()
    return np.column_stack([first.index, first]).astype(int)


def connected_components(count: int, pairs: np.ndarray) -> np.ndarray:
    """Return the number of the component of each of `count` nodes, joined by `pairs` (n, 2) of nodes."""
    from scipy.sparse import coo_matrix, csgraph

    graph = coo_matrix((np.ones(len(pairs)), tuple(pairs.T)), shape=(count, count))
    return csgraph.connected_components(graph, directed=False)[1]


def count_flow(manifest: pd.DataFrame) -> pd.DataFrame:
    """Count files from found to used, by class, one row per step.

    Returns
    -------
    DataFrame
        step, files, Fractured, Non-Fractured, or instead each of three or more classes; each reason to leave
        files out is a step.
    """
    status = manifest["status"]
    left_out = status.isin(["unreadable", "excluded", "no image"])
    reasons = manifest.loc[left_out, "reason"].str.replace(r" *\(.*\)|:.*", "", regex=True)
    reasons = reasons.str.replace(r"\d+", "some", regex=True)
    steps = {"found": status.notna()}
    steps |= {f"left out: {reason}": left_out & (reasons == reason) for reason in sorted(reasons.unique())}
    steps |= {"readable": ~left_out, "not sampled": status == "not sampled", "used": status == "used"}
    if "counted" in manifest:
        counted = manifest["counted"].fillna(False).astype(bool)
        copies, split = (status == "used") & ~counted, manifest["split"]
        steps |= {
            "copies of a source in test or validation, not evaluated": copies & (split != "train"),
            "copies of a source in train, for training only": copies & (split == "train"),
            "images that are evaluated or trained on: what every n counts": counted,
        }
    rows, several = [], "class_name" in manifest
    column, names = ("class_name", _list_classes(manifest)) if several else ("label", (POSITIVE, NEGATIVE))
    for step, mask in steps.items():
        labels = manifest.loc[mask.fillna(False), column]
        counts = {name: int((labels == name).sum()) for name in names}
        rows.append({"step": step, "files": len(labels)} | counts)
    return pd.DataFrame(rows)


def _list_classes(manifest: pd.DataFrame) -> list[str]:
    """Return the names of three or more classes, in the study's order as far as that is known."""
    there = sorted(manifest["class_name"].dropna().unique())
    return [*current_classes().names, *(name for name in there if name not in current_classes().names)]


def read_pictures(paths: Iterable[str], folder: ImageFolder | Path) -> list[np.ndarray]:
    """Read a few pictures at their own size: uint8, (height, width), 0-255."""
    return [image_folder(folder).read(path).pixels for path in paths]


def find_label_columns(manifest: pd.DataFrame) -> list[str]:
    """Return the user's own columns that give away the label of at least 99 % of the used images.

    A column, such as a count of fractures, may do so by its values where there are at most 12, by being
    empty, or, if it is a number, by being at its minimum.
    """
    used = manifest[(manifest["status"] == "used") & manifest["label"].notna()]
    found = []
    for column in manifest.columns.difference([*MANIFEST, *USER_COLUMNS], sort=False):
        values = used[column]
        readings = [values.isna()]
        if values.nunique() <= MOST_VALUES:
            readings.append(values.astype("string").fillna(""))
        elif pd.api.types.is_numeric_dtype(values):
            readings.append(values == values.min())
        if any(_predicts(reading, used["label"]) for reading in readings):
            found.append(column)
    return found


def _predicts(reading: pd.Series, label: pd.Series) -> bool:
    counts = pd.crosstab(reading, label)
    return counts.shape[1] == 2 and len(counts) > 1 and counts.max(axis=1).sum() >= 0.99 * len(label)


def drop_placeholders(patients: pd.Series, notes: list[str]) -> pd.Series:
    """Return patients, with those missing that stand for nobody in particular; adds to `notes`.

    Parameters
    ----------
    patients : Series of str
        Of the readable images; missing where unknown.
    notes : list of str
    """
    named = without_placeholders(patients)
    total, counts = len(patients), named.value_counts()
    advice = "give patient_pattern where paths name patients, or a CSV with a column patient"
    placeholders = patients[patients.notna() & named.isna()]
    if len(placeholders):
        notes.append(
            f"{number_of(len(placeholders), 'image names', 'images name')} "
            f"a patient such as {placeholders.iloc[0]!r}, which stands for "
            f"an unknown one: they are grouped by source only; {advice}."
        )
    if len(counts) == 0 or counts.iloc[0] < 2 * MIN_PER_CLASS:
        return named
    if counts.iloc[0] == total:
        notes.append(
            f"All {total} images have the same patient, as in anonymised exports: they are grouped by source "
            f"only, so that images of one patient may be in train and test; {advice}."
        )
        return named.mask(named.notna())
    if counts.iloc[0] > total / 5:
        notes.append(
            f"One patient has {counts.iloc[0]} of {total} images, which stay in one part: if that name "
            f"stands for an unknown patient, {advice} (patient_pattern='(.+)' makes each image a patient)."
        )
    return named
