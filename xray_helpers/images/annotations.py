"""Known locations of fractures: found beside the pictures, checked, and kept in a manifest's columns.

Boxes are text in the column ``boxes``; the union of polygons and masks is text in ``fracture_mask``, COCO's
compressed run-length code at the picture's size. `annotation_formats` reads the files of other programs.
"""

import os
import re
from collections import Counter
from collections.abc import Iterable
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from pycocotools import mask as rle

from xray_helpers.images.annotation_formats import (
    NO_PICTURE,
    Mark,
    Picture,
    Pictures,
    fracture_names,
    read_coco,
    read_mask,
    read_voc,
    read_yolo,
    voc_names,
    yolo_names,
    yolo_numbers,
)
from xray_helpers.settings import NEGATIVE, InputError, number_of

_PHANTOM_BOX = ["box_left", "box_top", "box_right", "box_bottom"]
_MASK = re.compile(r"(^|/)(masks?|segmentations?)/|[_-]mask\.\w+$", re.IGNORECASE)  # paths of masks
_PLACE = re.compile(r"annot|coco|label|voc|yolo|instances", re.IGNORECASE)  # in paths of annotations
_SLACK = 2.0  # pixels by which a box may leave the picture, as rounding does; it is cut at the edge
_SHOWN = 5  # names that a note lists
LEFT_OUT = "boxes left out"  # begins the note of a picture whose annotations are in conflict
_ERRORS = (OSError, ValueError, KeyError, TypeError, AttributeError, SyntaxError)


def annotate(manifest: pd.DataFrame, folder: Path | None, notes: list[str]) -> pd.DataFrame:
    """Return a manifest with the annotations that lie beside its pictures, checked against them.

    A picture's annotations are those of the table's own column ``boxes``, else of the first of COCO, Pascal
    VOC, YOLO and masks that has any. Conflicts are kept out and noted, in `notes` and in the column note of
    the picture: boxes outside the picture, and boxes of a picture that is labelled as not fractured.

    Parameters
    ----------
    manifest : DataFrame
        path, label, width, height, status, reason, note, and optionally boxes.
    folder : Path or None
        Where annotations are looked for; None: nowhere.
    notes : list of str
        What was decided, one sentence each, is added.

    Returns
    -------
    DataFrame
        With boxes and, where outlines are known, fracture_mask. Pictures that are masks of others have the
        status ``no image``.
    """
    manifest = manifest.copy()
    masks = _set_masks_aside(manifest, notes)
    seen = manifest[manifest["width"].notna()]
    pictures = [
        Picture(str(row.path), (int(row.height), int(row.width))) for row in seen.itertuples(index=False)
    ]
    marks: dict[str, list[Mark]] = {}
    if "boxes" in manifest:
        given = dict(zip(seen["path"], map(read_boxes, seen["boxes"]), strict=True))
        marks = {path: [Mark(box) for box in boxes] for path, boxes in given.items() if len(boxes)}
    if folder is not None:
        _collect(folder, pictures, masks, marks, notes)
    return _keep_sound(manifest, {picture.path: picture for picture in pictures}, marks, notes)


def find_masks(paths: Iterable[str]) -> dict[str, str]:
    """Return the paths that are masks of other pictures by their names, each with that of its picture."""
    is_mask = {path: bool(_MASK.search(path)) for path in paths}
    stems = Pictures(Picture(path, (0, 0)) for path, mask in is_mask.items() if not mask)
    found = {}
    for path in (path for path, mask in is_mask.items() if mask):
        stem = re.sub(r"[_-]mask$", "", path.split("/")[-1].rsplit(".", 1)[0], flags=re.IGNORECASE)
        if (picture := stems.find(stem)) is not None:
            found[path] = picture.path
    return found


def _set_masks_aside(manifest: pd.DataFrame, notes: list[str]) -> dict[str, str]:
    """Give pictures that are masks of others the status ``no image``, in place; return picture by mask."""
    found = find_masks(manifest.loc[manifest["width"].notna(), "path"].astype(str))
    if found:
        rows = manifest["path"].isin(found)
        manifest.loc[rows, "status"], manifest.loc[rows, "label"] = "no image", pd.NA
        manifest.loc[rows, "reason"] = "the mask of another picture"
        notes.append(
            f"{len(found)} files are masks of other pictures, by their names: they locate fractures."
        )
    return found


def _collect(
    folder: Path,
    pictures: list[Picture],
    masks: dict[str, str],
    marks: dict[str, list[Mark]],
    notes: list[str],
) -> None:
    """Add to `marks` what the files of a folder tell of pictures that have none yet, format by format."""
    names, by_path = Pictures(p for p in pictures if p.path not in masks), {p.path: p for p in pictures}
    files = _list_files(folder)
    voc = [file for file in files if file.suffix == ".xml"]
    wanted = fracture_names(voc_names(voc)) if voc else None
    texts = [file for file in files if file.suffix == ".txt" and file.stem != "classes"]
    yolo = [file for file in texts if names.find(file.stem)]
    unnamed = None if len(yolo_numbers(yolo)) > 1 else {}
    places = [file.relative_to(folder).parent.as_posix() for file in texts if not names.find(file.stem)]
    lost = sum(bool(_PLACE.search(place)) for place in places)
    if lost:
        notes.append(f"{lost} text files beside annotations are left out: {NO_PICTURE}.")
    readers = {
        "COCO": [(file, partial(read_coco, file, names)) for file in files if file.suffix == ".json"],
        "Pascal VOC": [(file, partial(read_voc, file, names, wanted)) for file in voc],
        "YOLO": [
            (file, partial(read_yolo, file, names, yolo_names(file, folder) or unnamed)) for file in yolo
        ],
        "masks": [
            (folder / mask, partial(read_mask, folder / mask, by_path[path])) for mask, path in masks.items()
        ],
    }
    for kind, own in readers.items():
        found = _read_all(kind, own, notes)
        new = {path: each for path, each in found.items() if path not in marks}
        if new:
            notes.append(
                f"Boxes of fractures of {number_of(len(new), 'image')} were read from {kind} annotations."
            )
        if len(found) > len(new):
            count = len(found) - len(new)
            notes.append(
                f"{kind} annotations of {number_of(count, 'image')} are left out: they have others already."
            )
        marks |= new


def _list_files(folder: Path) -> list[Path]:
    """Return the files that may hold annotations, sorted by name."""
    found = []
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        inside = Path(place).relative_to(folder).as_posix()
        for name in sorted(names):
            is_text = name.endswith((".xml", ".txt")) and not name.startswith(".")
            if is_text or (name.endswith(".json") and (inside == "." or _PLACE.search(f"{inside}/{name}"))):
                found.append(Path(place) / name)
    return found


def _read_all(kind: str, readers: list[tuple[Path, partial]], notes: list[str]) -> dict[str, list[Mark]]:
    """Return the marks of all files of one format, by picture; a file that cannot be read leaves nothing."""
    found, skipped, bad, seen = {}, {}, [], set()
    for file, read in readers:
        counts: Counter = Counter()
        try:
            own = list(read(counts))
        except _ERRORS as error:
            if kind == "COCO" and not _PLACE.search(f"{file.parent.name}/{file.name}"):
                continue  # a JSON file of something else, beside the pictures
            bad.append(f"{file.name} is passed over: it is not in {kind}'s form ({type(error).__name__}).")
            continue
        for path, mark in own:
            key = (path, *np.round(mark.box, 2))
            if key not in seen:  # the same box may stand in several files
                seen.add(key)
                found.setdefault(path, []).append(mark)
        where = file.name if kind == "COCO" else f"{kind} annotations"
        skipped.setdefault(where, Counter()).update(counts)
    notes.extend(bad[:_SHOWN] + ([f"… and {len(bad) - _SHOWN} more."] if len(bad) > _SHOWN else []))
    for where, counts in skipped.items():
        notes.extend(f"{where}: {n} annotations are left out: {reason}." for reason, n in counts.items())
    return found


def _keep_sound(
    manifest: pd.DataFrame, pictures: dict[str, Picture], marks: dict[str, list[Mark]], notes: list[str]
) -> pd.DataFrame:
    """Return the manifest with the columns of marks that are not in conflict with picture or label."""
    labels, boxes, outlines = manifest.set_index("path")["label"], {}, {}
    conflicts: dict[str, list[str]] = {}
    for path, own in marks.items():
        height, width = pictures[path].shape
        low, high = np.zeros(4) - _SLACK, np.array([width, height, width, height]) + _SLACK
        if labels.get(path) == NEGATIVE:
            reason = "the picture is labelled as not fractured"
        elif any((mark.box < low).any() or (mark.box > high).any() for mark in own):
            reason = "a box lies outside the picture"
        else:
            cut = [np.clip(mark.box, 0, [width, height, width, height]) for mark in own]
            boxes[path] = write_boxes(cut)
            if all(mark.outline is not None for mark in own):
                outlines[path] = rle.merge([mark.outline for mark in own])["counts"].decode("ascii")
            continue
        conflicts.setdefault(reason, []).append(path)
    if not marks:
        return manifest
    manifest["boxes"] = manifest["path"].map(boxes).astype("string")
    if outlines:
        manifest["fracture_mask"] = manifest["path"].map(outlines).astype("string")
    for reason, paths in conflicts.items():
        rows = manifest["path"].isin(paths)
        before = manifest.loc[rows, "note"] + "; "
        manifest.loc[rows, "note"] = before.fillna("") + f"{LEFT_OUT}: {reason}"
        listed = ", ".join(sorted(paths)[:_SHOWN]) + (", …" if len(paths) > _SHOWN else "")
        notes.append(
            f"Conflict: the boxes of {number_of(len(paths), 'image')} are left out, as {reason}: {listed}."
        )
    return manifest


def write_boxes(boxes: object) -> str:
    """Return boxes as the text that `read_boxes` reads; hundredths of a pixel are kept."""
    return "; ".join(" ".join(f"{round(float(value), 2):.10g}" for value in box) for box in boxes)


def list_boxes(part: pd.DataFrame) -> list[np.ndarray]:
    """Return the known boxes of each row of a manifest, in pixels of the picture.

    Parameters
    ----------
    part : DataFrame
        ``boxes``, or, for phantoms, box_left, box_top, box_right, box_bottom; both may be missing.

    Returns
    -------
    list of ndarray of float, shape (k, 4)
        left, top, right, bottom; k = 0 where none is known.
    """
    singles = part.reindex(columns=_PHANTOM_BOX).apply(pd.to_numeric, errors="coerce").to_numpy(float)
    cells = part["boxes"] if "boxes" in part else [None] * len(part)
    found = [read_boxes(cell) for cell in cells]
    return [
        single[None] if not len(boxes) and np.isfinite(single).all() else boxes
        for boxes, single in zip(found, singles, strict=True)
    ]


def list_masks(part: pd.DataFrame) -> list[np.ndarray | None]:
    """Return the known mask of each row of a manifest, bool of the picture's shape, or None.

    Parameters
    ----------
    part : DataFrame
        width, height, and optionally fracture_mask.
    """
    cells = part["fracture_mask"] if "fracture_mask" in part else [None] * len(part)
    shapes = zip(part["height"], part["width"], strict=True)
    return [
        None
        if pd.isna(cell)
        else rle.decode({"size": [int(side) for side in shape], "counts": cell.encode("ascii")}).astype(bool)
        for cell, shape in zip(cells, shapes, strict=True)
    ]


def read_boxes(cell: object) -> np.ndarray:
    """Return the boxes in a cell such as ``10 20 40 60; 1 2 4 6``.

    Returns
    -------
    ndarray of float, shape (k, 4)
        Left, top, right and bottom of each box, in pixels.

    Raises
    ------
    ValueError
        If a box is not four finite numbers, with left < right and top < bottom.
    """
    boxes = [] if pd.isna(cell) else [box.split() for box in str(cell).split(";") if box.strip()]
    corners = np.array([[float(number) for number in box] for box in boxes] or np.zeros((0, 4)))
    if corners.shape != (len(boxes), 4) or not np.isfinite(corners).all():
        raise ValueError("a box is four numbers")
    if not (corners[:, :2] < corners[:, 2:]).all():
        raise ValueError("a box has left < right and top < bottom")
    return corners


def check_boxes(table: pd.DataFrame, name: str) -> None:
    """Raise InputError for the first cell of the column boxes that `read_boxes` cannot read.

    `table` has the columns path and, optionally, boxes; `name` is that of its file, for the message.
    """
    cells = table.reindex(columns=["path", "boxes"]).dropna()
    for path, cell in zip(cells["path"], cells["boxes"], strict=True):
        try:
            read_boxes(cell)
        except ValueError:
            raise InputError(
                f"{name}: the boxes {str(cell)!r} of {path} cannot be read: write left top right bottom in "
                "pixels, separated by spaces, with left < right and top < bottom, and a semicolon between "
                "two boxes."
            ) from None
