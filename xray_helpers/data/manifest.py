"""One table of all files: readable or with its reason, its source, its patient, its group."""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from xray_helpers.data.listing import MIN_PER_CLASS, check_classes, list_data
from xray_helpers.data.tables import COLUMNS, Listing, locate_files
from xray_helpers.images.patient_names import without_placeholders
from xray_helpers.images.radiographs import ImageFolder, UnreadableError, check_picture, image_folder
from xray_helpers.settings import NEGATIVE, POSITIVE, Settings
from xray_helpers.study.files import read_json
from xray_helpers.study.folders import LOCAL, PHANTOMS, local_path, study_folder, write_class_names
from xray_helpers.synthetic.dataset import demo_phantoms

MOST_VALUES = 12  # of a column that makes subgroups


def build_manifest(settings: Settings) -> tuple[pd.DataFrame, list[str]]:
    """Read every file of the study's data and return the table of what was found; ``classes.json`` is
    written.

    Returns
    -------
    manifest : DataFrame
        path (relative to the data folder), label, source_group, patient, group (`assign_groups` fills them),
        split, fold (`splits` fills them), sha256, width, height (pixels), mode (Pillow's), status
        (``readable``, ``unreadable``, ``excluded`` or ``no image``), reason, note, then folder_split and the
        user's own.
    notes : list of str

    Raises
    ------
    InputError
        As `list_data`; also when too few files of a class are readable.
    """
    folder = study_folder(settings.name)
    listing = list_data(local_path(folder, "data", settings.data), settings.patient_pattern)
    write_class_names(folder, listing.class_names)
    manifest = inspect_files(listing, reading_of(settings.model_dump()))
    unlabelled = manifest["label"].isna() & (manifest["status"] == "readable")
    manifest.loc[unlabelled, ["status", "reason"]] = ["excluded", "no class in its path or its CSV row"]
    check_classes(manifest.loc[manifest["status"] == "readable", "label"], "the readable files")
    return manifest, listing.notes


def inspect_files(listing: Listing, reading: dict[str, Any] | None = None) -> pd.DataFrame:
    """Open every listed file, in parallel, and return the manifest's columns, groups and parts still missing.

    Parameters
    ----------
    listing : Listing
    reading : dict, optional
        How, where not by the defaults: the fields of `radiographs.ImageFolder`.
    """
    folder = ImageFolder(listing.folder, places=listing.places, **(reading or {}))
    with ThreadPoolExecutor() as pool:
        read = pool.map(lambda path: _inspect(folder, path), listing.table["path"])
        bar = tqdm(read, "reading", len(listing.table), mininterval=1, leave=False, unit="file")
        found = pd.DataFrame(
            list(bar), columns=["sha256", "width", "height", "mode", "status", "reason", "note", "hashed"]
        )
    manifest = pd.concat([listing.table.reset_index(drop=True), found], axis=1)
    hashed = manifest.pop("hashed").astype("string").replace("", pd.NA)
    manifest["patient"] = manifest["patient"].astype("string").fillna(hashed)
    readable = manifest["status"] == "readable"
    manifest.loc[readable, "patient"] = set_aside_patients(manifest.loc[readable, "patient"], listing.notes)
    excluded = manifest.pop("excluded")
    left_out = readable & excluded.notna()
    manifest.loc[left_out, "status"], manifest.loc[left_out, "reason"] = "excluded", excluded[left_out]
    aside = [
        {"path": path, "status": "no image", "reason": reason} for path, reason in listing.others.items()
    ]
    manifest = pd.concat([manifest, pd.DataFrame(aside)], ignore_index=True) if aside else manifest
    for column in ("source_group", "group", "split", "fold", "counted"):
        manifest[column] = pd.NA
    others = [column for column in manifest.columns if column not in COLUMNS]
    return manifest[[*COLUMNS, *others]]


def reading_of(settings: dict[str, Any]) -> dict[str, Any]:
    """Return those of a study's settings that say how files are read; the defaults where an older study says
    none.
    """
    return {name: settings[name] for name in ImageFolder._fields[1:-1] if name in settings}


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
    folder, places = (path, None) if path.is_dir() else locate_files(path)
    return ImageFolder(folder, places=places, **reading_of(settings))


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
        note = check_picture(radiograph).note
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
        The source group of each row (`search.find_same_source`).
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

    nodes, rows, columns = len(keys), [np.empty(0, int)], [np.empty(0, int)]
    for column in keys.columns:
        codes, values = pd.factorize(keys[column])
        rows.append(np.flatnonzero(codes >= 0))
        columns.append(nodes + codes[codes >= 0])
        nodes += len(values)
    edges = np.concatenate(rows), np.concatenate(columns)
    graph = coo_matrix((np.ones(len(edges[0])), edges), shape=(nodes, nodes))
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
    kinds = (
        manifest.loc[left_out, "reason"]
        .str.replace(r" *\(.*\)|:.*", "", regex=True)
        .str.replace(r"\d+", "some", regex=True)
    )
    steps += [(f"left out: {kind}", left_out & (kinds == kind)) for kind in sorted(kinds.unique())]
    steps += [
        ("readable", ~left_out),
        ("not sampled", manifest["status"] == "not sampled"),
        ("used", manifest["status"] == "used"),
    ]
    if "counted" in manifest:
        counted = manifest["counted"].astype("boolean").fillna(False).astype(bool)
        copies = (manifest["status"] == "used") & ~counted
        steps += [
            (
                "copies of a source in test or validation, not judged",
                copies & manifest["split"].ne("train").fillna(False),
            ),
            (
                "copies of a source in train, for training only",
                copies & manifest["split"].eq("train").fillna(False),
            ),
            ("images that are judged or trained on: what every n counts", counted),
        ]
    rows = []
    for step, mask in steps:
        row = {"step": step, "files": int(mask.sum())}
        rows.append(
            row | {name: int((manifest.loc[mask, "label"] == name).sum()) for name in (POSITIVE, NEGATIVE)}
        )
    return pd.DataFrame(rows)


def read_pictures(paths: Iterable[str], folder: ImageFolder | Path) -> list[np.ndarray]:
    """Read a few pictures at their own size: uint8, (height, width), 0-255."""
    return [image_folder(folder).read(path).pixels for path in paths]


def find_label_columns(manifest: pd.DataFrame) -> list[str]:
    """Return the user's own columns that tell the label of at least 99 % of the used images, such as a count
    of fractures.

    A column tells it by its values where there are at most 12, by being empty, or, as a number, by being its
    smallest.
    """
    used = manifest[(manifest["status"] == "used") & manifest["label"].notna()]
    found = []
    for column in manifest.columns.difference([*COLUMNS, "folder_split", "boxes"], sort=False):
        values = used[column]
        readings = [values.isna()]
        if values.nunique() <= MOST_VALUES:
            readings.append(values.astype("string").fillna(""))
        elif pd.api.types.is_numeric_dtype(values):
            readings.append(values == values.min())
        if any(_tells(reading, used["label"]) for reading in readings):
            found.append(column)
    return found


def _tells(reading: pd.Series, label: pd.Series) -> bool:
    counts = pd.crosstab(reading, label)
    return counts.shape[1] == 2 and len(counts) > 1 and counts.max(axis=1).sum() >= 0.99 * len(label)


def set_aside_patients(patients: pd.Series, notes: list[str]) -> pd.Series:
    """Return patients with those missing that are no one in particular; what was found is told.

    Parameters
    ----------
    patients : Series of str
        Of the readable images; missing where unknown.
    notes : list of str
        Is added to.
    """
    named = without_placeholders(patients)
    advice = "give patient_pattern where paths tell patients, or a CSV with a column patient"
    nameless = int(patients.notna().sum() - named.notna().sum())
    if nameless:
        notes.append(
            f"{nameless} images name a patient such as "
            f"{patients[patients.notna() & named.isna()].iloc[0]!r}, which stands for "
            f"an unknown one: they are grouped by source only; {advice}."
        )
    counts = named.value_counts()
    if len(counts) == 1 and counts.iloc[0] == len(patients) >= 2 * MIN_PER_CLASS:
        notes.append(
            f"All {len(patients)} images have the same patient, as anonymised exports do: images are taken "
            "as they are, grouped "
            f"by source only, so that images of one patient may lie in train and test; {advice}."
        )
        return named.mask(named.notna())
    if len(counts) and counts.iloc[0] > len(patients) / 5 and counts.iloc[0] >= 2 * MIN_PER_CLASS:
        notes.append(
            f"One patient has {counts.iloc[0]} of {len(patients)} images, which stay in one part: if that "
            "name stands for an "
            f"unknown patient, {advice} (patient_pattern='(.+)' takes each image for a patient)."
        )
    return named
