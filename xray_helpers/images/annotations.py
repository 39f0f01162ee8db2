"""Where fractures are known to be: boxes of a table's cell, and of annotations in COCO's form."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from xray_helpers.settings import InputError

_DENIED = re.compile(r"(^|[^a-z])(no[nt]?|un|without)[^a-z]*fractur")  # such as "non_fractured"


def read_coco(folder: Path, notes: list[str]) -> dict[str, str]:
    """Return the fractures' boxes by file name, as ``left top right bottom; ...``, from annotations in COCO's
    form.

    Parameters
    ----------
    folder : Path
        Of FracAtlas; files that are no such annotations are passed over whole, with a note. An annotation
        without a box has the bounds of its polygons. Where some of several categories name fractures, those
        alone count.
    notes : list of str
        Is added to.
    """
    found: dict[str, list[str]] = {}
    for file in sorted((folder / "Annotations" / "COCO JSON").glob("*.json")):
        try:
            boxes, others, without = _read_marks(json.loads(file.read_text(encoding="utf-8")))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            notes.append(f"{file.name} is passed over: it is not in COCO's form ({type(error).__name__}).")
            continue
        for name, own in boxes.items():
            found.setdefault(name, []).extend(own)
        if others:
            notes.append(
                f"{file.name}: {others} annotations are left out: their categories name no fracture."
            )
        if without:
            notes.append(
                f"{file.name}: {without} annotations are left out: they have neither a box nor a polygon."
            )
    if found:
        notes.append(f"Boxes of fractures of {len(found)} images were read from COCO annotations.")
    return {name: "; ".join(dict.fromkeys(boxes)) for name, boxes in found.items()}


def _read_marks(record: dict[str, Any]) -> tuple[dict[str, list[str]], int, int]:
    """Return a file's boxes by file name, and how many annotations are of other categories, and have no
    place.
    """
    names = {image["id"]: Path(image["file_name"]).name for image in record["images"]}
    counted, found, others, without = _fracture_categories(record.get("categories") or []), {}, 0, 0
    for mark in record["annotations"]:
        name = names[mark["image_id"]]
        if counted is not None and str(mark.get("category_id")) not in counted:
            others += 1
        elif (box := _bounds(mark)) is None:
            without += 1
        else:
            found.setdefault(name, []).append(" ".join(f"{value:g}" for value in box))
    return found, others, without


def _fracture_categories(categories: list[dict[str, Any]]) -> set[str] | None:
    """Return the categories that name fractures, where that tells some of several from others; else None: all
    count.
    """
    names = {str(category["id"]): str(category.get("name")).lower() for category in categories}
    if len(names) < 2 or not any("fractur" in name for name in names.values()):
        return None
    return {key for key, name in names.items() if "fractur" in name and not _DENIED.search(name)}


def _bounds(mark: dict[str, Any]) -> np.ndarray | None:
    """Return left, top, right, bottom of an annotation: of its box, else of its polygons; None where there is
    neither.
    """
    for read in (_bounds_of_box, _bounds_of_polygons):
        try:
            box = np.array([float(f"{value:g}") for value in read(mark)])  # as it will be written
        except (KeyError, ValueError, TypeError, OverflowError):
            continue
        if np.isfinite(box).all() and (box[:2] < box[2:]).all():
            return box
    return None


def _bounds_of_box(mark: dict[str, Any]) -> np.ndarray:
    left, top, width, height = (float(value) for value in mark["bbox"])
    return np.array([left, top, left + width, top + height])


def _bounds_of_polygons(mark: dict[str, Any]) -> np.ndarray:
    if not isinstance(mark["segmentation"], list):
        raise TypeError("a mask by run lengths")
    points = np.concatenate(
        [np.ravel(np.asarray(polygon, float)) for polygon in mark["segmentation"]]
    ).reshape(-1, 2)
    return np.concatenate([points.min(axis=0), points.max(axis=0)])


def read_boxes(cell: object) -> np.ndarray:
    """Return the boxes in a cell such as ``10 20 40 60; 1 2 4 6``: left, top, right, bottom, float of shape
    (k, 4).

    Raises
    ------
    ValueError
        When a box is not four numbers, the left below the right and the top above the bottom.
    """
    pieces = [] if pd.isna(cell) else [piece.split() for piece in str(cell).split(";") if piece.strip()]
    boxes = np.array([[float(number) for number in piece] for piece in pieces] or np.zeros((0, 4)))
    if boxes.shape != (len(pieces), 4) or not np.isfinite(boxes).all():
        raise ValueError("not four numbers a box")
    if not (boxes[:, :2] < boxes[:, 2:]).all():
        raise ValueError("not left < right and top < bottom")
    return boxes


def check_boxes(table: pd.DataFrame, name: str) -> None:
    """Refuse boxes that could not be used, before anything is trained.

    Parameters
    ----------
    table : DataFrame
        path and, where there are any, boxes.
    name : str
        Of its file, for the sentence.

    Raises
    ------
    InputError
        Which names the row.
    """
    cells = table.reindex(columns=["path", "boxes"]).dropna()
    for path, cell in zip(cells["path"], cells["boxes"], strict=True):
        try:
            read_boxes(cell)
        except ValueError:
            raise InputError(
                f"{name}: the boxes {str(cell)!r} of {path} are not understood: write left top right "
                "bottom in pixels, "
                "parted by spaces, with left < right and top < bottom, and a semicolon between two boxes."
            ) from None
