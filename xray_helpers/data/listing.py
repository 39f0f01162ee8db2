"""A folder or a table in; out comes which images there are and what is known of each, before any is
opened.
"""

import os
import re
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from xray_helpers.data.labels import SPLIT_NAMES, calls_abnormal, is_numeral, label_paths, read_label
from xray_helpers.data.tables import ABNORMAL, Listing, join_table, list_csv
from xray_helpers.images.patient_names import word_key
from xray_helpers.images.radiographs import SUFFIXES, escape_name, looks_like_picture
from xray_helpers.settings import CLASS_NAMES, NEGATIVE, POSITIVE, InputError
from xray_helpers.study.folders import PHANTOMS, from_root
from xray_helpers.synthetic.dataset import demo_phantoms

MIN_PER_CLASS = 10  # readable images; fewer cannot be split into three parts
_MURA = re.compile(r"(?:^|/)(?:XR_(?P<body_part>[A-Z]+)/)?(?P<patient>patient\d+)/study\d+_(?P<label>\w+?)/")


def list_data(data: str, patient_pattern: str = "", *, labelled: bool = True) -> Listing:
    """List the images of a folder or CSV with their labels, opening none of them.

    Parameters
    ----------
    data : str
        ``dataset``, a folder in one of the layouts of the README, or a CSV with the columns path and
        label, and optionally patient, split, reader, boxes and any others. Relative to the repository's root.
    patient_pattern : str
        A regular expression on the relative path whose group ``patient``, or else whose first group, is the
        patient.
    labelled : bool
        Whether both classes must be there.

    Raises
    ------
    InputError
        No such place, no images, one class only, or labels that cannot be understood.
    """
    source = demo_phantoms() if data == PHANTOMS else from_root(data)
    if source.is_dir():
        listing = _list_folder(source, labelled=labelled)
    elif source.is_file() and source.suffix.lower() in (".csv", ".tsv", ".txt"):
        listing = list_csv(source)
    else:
        raise InputError(f"There is no folder or CSV {source.name!r} at {source}: check --data.")
    table = listing.table
    if patient_pattern:
        found = table["path"].map(lambda path: _match_patient(patient_pattern, path)).astype("string")
        table["patient"] = found.fillna(table["patient"])
    if labelled or not len(table):
        check_classes(
            table.loc[table["excluded"].isna(), "label"],
            "phantoms" if data == PHANTOMS else data,
            table,
            listing.notes,
        )
    return listing


def _match_patient(pattern: str, path: str) -> str | None:
    found = re.search(pattern, path)
    return found and (found["patient"] if "patient" in found.re.groupindex else found[1])


def check_classes(
    labels: pd.Series, where: str, listed: pd.DataFrame | None = None, notes: Sequence[str] = ()
) -> None:
    """Raise `InputError` unless there are enough images of both classes; what was left out before is told
    with it.
    """
    counts = {name: int((labels == name).sum()) for name in (POSITIVE, NEGATIVE)}
    left_out = " ".join(["", *(note for note in notes if "do not count" in note or "conflict" in note)])
    if not len(labels) and listed is not None and len(listed):
        raise InputError(f"None of the {len(listed)} images in {where} is left with a class.{left_out}")
    if not len(labels):
        raise InputError(
            f"No images in {where}: it should hold folders such as Fractured and Non-Fractured with "
            f"{', '.join(SUFFIXES)} files, or be a CSV with the columns path and label."
        )
    for name, count in counts.items():
        if count == 0:
            raise InputError(
                f"{len(labels)} images in {where}, but none of class {name} (found: "
                f"{counts}{_list_folders(listed)}): both "
                "classes are needed, named by a folder such as Fractured / Non-Fractured, or by a CSV's "
                f"column label.{left_out}"
            )
        if count < MIN_PER_CLASS:
            raise InputError(
                f"Only {count} images of class {name} in {where}: at least {MIN_PER_CLASS} of each class "
                f"are needed to make train, validation and test parts.{left_out}"
            )


def _list_folders(listed: pd.DataFrame | None) -> str:
    if listed is None or listed["label"].notna().all():
        return ""
    paths = listed.loc[listed["label"].isna(), "path"]
    folders = sorted({folder for path in paths for folder in path.split("/")[:-1]})
    words = ", ".join(folders[:8]) + (", ..." if len(folders) > 8 else "")
    if {"0", "1"} <= set(folders):
        words += "; 0 and 1 are classes only where they are the one level that separates all files"
    return f"; of no class: {len(paths)} images" + (f" in the folders {words}" if folders else "")


def _list_folder(folder: Path, *, labelled: bool) -> Listing:
    notes: list[str] = []
    paths, others = _walk(folder)
    paths = _leave_augmented(paths, notes)
    table = pd.DataFrame({"path": paths}, dtype="string")
    table["label"] = pd.array(label_paths(paths, strict=labelled), dtype="string")
    table["patient"] = pd.array([None] * len(paths), dtype="string")
    table["folder_split"] = pd.array([_find_split(path) for path in paths], dtype="string")
    table["excluded"] = pd.array([None] * len(paths), dtype="string")
    names = CLASS_NAMES
    mura = table["path"].str.extract(_MURA)
    if mura["patient"].notna().any():
        names = ABNORMAL
        notes.append("MURA-style paths: 'positive' means abnormal, which is not the same as fractured.")
        table["patient"] = mura["patient"]
        table["label"] = _label_studies(table, mura["label"], strict=labelled)
        if mura["body_part"].notna().any():
            table["body_part"] = mura["body_part"].str.lower()
    elif (words := {word_key(name) for path in paths for name in path.split("/")[:-1]}) and calls_abnormal(
        words
    ):
        names = ABNORMAL
    if (folder / "dataset.csv").is_file():
        table = join_table(table, folder / "dataset.csv", notes)
    return Listing(folder, table, notes, others, class_names=names)


def _label_studies(table: pd.DataFrame, words: pd.Series, *, strict: bool) -> pd.Series:
    """Return the class of each study's folder, such as study1_positive, else that of other folders; both must
    agree.
    """
    studies = words.map(
        lambda word: None if is_numeral(word) else read_label(word), na_action="ignore"
    ).astype("string")
    torn = (
        (studies.notna() & table["label"].notna() & (studies != table["label"])).fillna(False).to_numpy(bool)
    )
    if torn.any() and strict:
        path = table.loc[torn, "path"].iloc[0]
        raise InputError(
            f"{int(torn.sum())} of {len(table)} paths name both classes, such as {path}: its study's "
            "folder says "
            f"{studies[torn].iloc[0]}, a folder around it says {table.loc[torn, 'label'].iloc[0]}. Rename "
            "or move one of them, "
            "or list the images with their labels in a CSV."
        )
    return studies.fillna(table["label"]).mask(torn)


def _leave_augmented(paths: list[str], notes: list[str]) -> list[str]:
    folders = {path.split("/")[0] for path in paths if "/" in path}
    copies = sorted(name for name in folders if word_key(name).startswith("augmented"))
    originals = sorted(name for name in folders if word_key(name).startswith("original"))
    kept = [path for path in paths if path.split("/")[0] not in copies]
    if not originals or len(kept) == len(paths):
        return paths
    notes.append(
        f"Read without {', '.join(map(repr, copies))}: its {len(paths) - len(kept)} files are augmented "
        "copies of the same "
        f"pictures, which stand in {', '.join(map(repr, originals))}."
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
        links = [f for f in folders if os.path.islink(os.path.join(here, f))]
        others |= {
            escape_name((relative / f).as_posix()): "is a link to a folder: put the folder itself there"
            for f in links
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
    """Return folder, name in it, and why it is no image (or an empty string) of a file, or of each file of a
    folder.
    """
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
