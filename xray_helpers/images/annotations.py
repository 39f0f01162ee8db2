"""Known locations of fractures: boxes in a table's cells, and in COCO annotations."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from xray_helpers.settings import InputError

_NEGATED = re.compile(r"(^|[^a-z])(no[nt]?|un|without)[^a-z]*fractur")  # such as "non_fractured"


def read_coco(folder: Path, notes: list[str]) -> dict[str, str]:
    """Return the boxes of fractures by file name, as ``left top right bottom; ...``.

    The annotations are the files in ``Annotations/COCO JSON`` of `folder`, where FracAtlas has them. An
    annotation without a box gets the bounds of its polygons. If only some of several categories name
    fractures, only these count. What is left out is added to `notes`.
    """
    boxes: dict[str, list[str]] = {}
    for file in sorted((folder / "Annotations" / "COCO JSON").glob("*.json")):
        try:
            found, other_category, no_location = _read_annotations(json.loads(file.read_text("utf-8")))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            notes.append(f"{file.name} is passed over: it is not in COCO's form ({type(error).__name__}).")
            continue
        for name, own in found.items():
            boxes.setdefault(name, []).extend(own)
        for count, reason in (
            (other_category, "their categories name no fracture"),
            (no_location, "they have neither a box nor a polygon"),
        ):
            if count:
                notes.append(f"{file.name}: {count} annotations are left out: {reason}.")
    if boxes:
        notes.append(f"Boxes of fractures of {len(boxes)} images were read from COCO annotations.")
    return {name: "; ".join(dict.fromkeys(own)) for name, own in boxes.items()}


def _read_annotations(record: dict[str, Any]) -> tuple[dict[str, list[str]], int, int]:
    """Return boxes by file name, and the counts of annotations of other categories and without location."""
    names = {image["id"]: Path(image["file_name"]).name for image in record["images"]}
    fractures = _fracture_categories(record.get("categories") or [])
    boxes, other_category, no_location = {}, 0, 0
    for annotation in record["annotations"]:
        name = names[annotation["image_id"]]
        if fractures is not None and str(annotation.get("category_id")) not in fractures:
            other_category += 1
        elif (box := _find_bounds(annotation)) is None:
            no_location += 1
        else:
            boxes.setdefault(name, []).append(" ".join(f"{value:g}" for value in box))
    return boxes, other_category, no_location


def _fracture_categories(categories: list[dict[str, Any]]) -> set[str] | None:
    """Return the categories that name fractures, or None if their names do not distinguish any."""
    names = {str(category["id"]): str(category.get("name")).lower() for category in categories}
    if len(names) < 2 or not any("fractur" in name for name in names.values()):
        return None
    return {key for key, name in names.items() if "fractur" in name and not _NEGATED.search(name)}


def _find_bounds(annotation: dict[str, Any]) -> np.ndarray | None:
    """Return left, top, right and bottom of the box, else of the polygons, or None if there are neither."""
    for read in (_read_box, _read_polygons):
        try:
            box = np.array([float(f"{value:g}") for value in read(annotation)])  # rounded as when written
        except (KeyError, ValueError, TypeError, OverflowError):
            continue
        if np.isfinite(box).all() and (box[:2] < box[2:]).all():
            return box
    return None


def _read_box(annotation: dict[str, Any]) -> np.ndarray:
    left, top, width, height = (float(value) for value in annotation["bbox"])
    return np.array([left, top, left + width, top + height])


def _read_polygons(annotation: dict[str, Any]) -> np.ndarray:
    if not isinstance(annotation["segmentation"], list):
        raise TypeError("run-length encoded masks are not read")
    polygons = [np.ravel(np.asarray(polygon, float)) for polygon in annotation["segmentation"]]
    points = np.concatenate(polygons).reshape(-1, 2)
    return np.concatenate([points.min(axis=0), points.max(axis=0)])


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
