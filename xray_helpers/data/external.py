"""A set from elsewhere, read through the same door as a study's own images; labels may be missing."""

import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from xray_helpers.data.classes import MIN_PER_CLASS, USUAL, Question
from xray_helpers.data.listing import list_data
from xray_helpers.data.manifest import assign_groups, data_folder, inspect_files, open_images, reading_of
from xray_helpers.data.parts import mark_counted, used_part
from xray_helpers.data.tables import ABNORMAL, Listing
from xray_helpers.images.radiographs import ImageFolder, find_file
from xray_helpers.settings import (
    CLASS_NAMES,
    NEGATIVE,
    POSITIVE,
    Classes,
    InputError,
    class_names,
    current_classes,
)
from xray_helpers.study.files import hash_of

EXCLUDED_PARTS = ("train", "validation")  # of a study: a model has seen, or was chosen on, what is in them


def reach_study(study: Path) -> ImageFolder | None:
    """Return the folder of a study's own images, or None where they are not on this machine."""
    try:
        return data_folder(study)
    except (InputError, OSError):
        return None


class ExternalSet(NamedTuple):
    """A set from elsewhere.

    Attributes
    ----------
    table : DataFrame
        A manifest: its readable files are ``used``, in the part ``test``.
    images : ImageFolder
        Where its files are, read as the study reads its own.
    notes : list of str
        What was decided on the way, one sentence each.
    refused : str
        Why no score is given, in one sentence; empty where both classes are labelled.
    """

    table: pd.DataFrame
    images: ImageFolder
    notes: list[str]
    refused: str

    @property
    def fingerprint(self) -> str:
        """A hash of the contents of its files and their labels."""
        rows = self.table.loc[self.table["status"] == "used", ["sha256", "label"]].astype("string")
        return hash_of(sorted(rows.fillna("").agg(" ".join, axis=1)))


def read_external(place: str, settings: dict[str, Any], patient_pattern: str = "") -> ExternalSet:
    """Read every file of a set from elsewhere.

    Parameters
    ----------
    place : str
        A folder in one of the layouts of the README, a CSV (the column label may be missing), or phantoms.
    settings : dict
        Of the study: how files are read.
    patient_pattern : str
        As for `listing.list_data`.

    Raises
    ------
    InputError
        When there is no such place, or no image in it.
    """
    listing = list_as_study(place, settings, current_classes(), patient_pattern)
    table = inspect_files(listing, reading_of(settings))
    readable = table["status"] == "readable"
    labels = table.loc[readable, "label"]
    refused = describe_refusal(labels)
    if not refused:
        unlabelled = readable & table["label"].isna()
        table.loc[unlabelled, ["status", "reason"]] = ["excluded", "no class in its path or its CSV row"]
    used = table["status"] == "readable"
    table.loc[used, ["status", "split"]] = ["used", "test"]
    notes = list(listing.notes)
    if listing.class_names != class_names():
        there, here = listing.class_names[1], class_names()[1]
        notes.append(f"The positive class is called {there} there and {here} in the study: is it the same?")
    return ExternalSet(table, open_images(place, settings), notes, refused)


def list_as_study(
    place: str, settings: dict[str, Any], classes: Classes, patient_pattern: str = ""
) -> Listing:
    """List a set from elsewhere, with the labels that its classes have in a study.

    Classes of the study may be missing there. Images whose class the study does not know have no label, and
    of a study that asks for more than a fracture, those that are labelled as fractured or not have none
    either.

    Parameters
    ----------
    place : str
        As for `read_external`.
    settings : dict
        Of the study: positive and merge.
    classes : Classes
        Of the study.
    patient_pattern : str
    """
    positive, merge = settings.get("positive", POSITIVE), settings.get("merge") or {}
    usual = classes[:2] in (CLASS_NAMES, ABNORMAL)
    question = USUAL
    if merge:
        question = Question(positive=positive, merge=merge, complete=False)
    elif classes.names or not usual:
        question = Question(classes.names or tuple(classes[:2]), positive, complete=False)
    listing = list_data(place, patient_pattern, labelled=False, question=question)
    table = listing.table
    if classes.names and "class_name" in table:
        known = {name: POSITIVE if name in classes.positives else NEGATIVE for name in classes.names}
        table["label"] = table["class_name"].map(known).astype("string")
    if usual and question != USUAL and table["label"].isna().all():
        return list_data(place, patient_pattern, labelled=False)
    return listing


def describe_refusal(labels: pd.Series) -> str:
    """Return in one sentence why labels do not suffice for scores; empty where they do."""
    counts = {label: int((labels == label).sum()) for label in (POSITIVE, NEGATIVE)}
    if min(counts.values()) >= MIN_PER_CLASS:
        return ""
    if not any(counts.values()):
        return (
            f"No score is given: none of the {len(labels)} readable images has a label; name the classes by "
            "folders such as Fractured and Non-Fractured, or in a CSV's column label."
        )
    found = " and ".join(f"{count} {label}" for label, count in counts.items())
    return (
        f"No score is given: {found} are labelled among {len(labels)} readable images, where at least "
        f"{MIN_PER_CLASS} of each class are needed."
    )


def group_external(
    external: ExternalSet, source: pd.Series, corners: pd.Series, shared: pd.DataFrame, count: str
) -> ExternalSet:
    """Return the set with its groups, which images count, and what it shares with the study.

    Parameters
    ----------
    external : ExternalSet
    source, corners : Series
        Of `cross_set.find_shared`: the source of each row, and how black its corners are.
    shared : DataFrame
        Of the same: shared_part and shared_with of each row.
    count : {'sources', 'files'}
        As in the study.

    Returns
    -------
    ExternalSet
        Its table has the columns shared_part (of the study in which an image of the same source or patient
        is, or missing), shared_with (that image), and excluded: whether an image of its group is in train or
        validation.
    """
    used = external.table["status"]
    grouped = assign_groups(external.table.assign(status=used.replace("used", "readable")), source)
    table = mark_counted(grouped.assign(status=used), corners, count)
    table = table.assign(**{name: shared[name] for name in shared})
    seen = table["shared_part"].isin(EXCLUDED_PARTS)
    by_group = seen.groupby(table["group"]).transform("any").reindex(table.index)
    return external._replace(table=table.assign(excluded=by_group.fillna(False).astype(bool)))


def counted_images(external: ExternalSet) -> pd.DataFrame:
    """Return the images that count, as `parts.used_part` does; y_true is 0 where there is no label."""
    return used_part(external.table.assign(label=external.table["label"].fillna("")), "test")


def find_places(images: ImageFolder, paths: pd.Series) -> list[str]:
    """Return the absolute path of each file of a data folder."""
    if images.places:
        return [images.places[path] for path in paths]
    return [str(find_file(Path(images.path).absolute(), path)) for path in paths]


def within_reach(images: ImageFolder | None, table: pd.DataFrame) -> np.ndarray:
    """Return which files of a table are on this machine; none without a folder."""
    if images is None:
        return np.zeros(len(table), bool)
    return np.array([os.path.exists(place) for place in find_places(images, table["path"])], bool)
