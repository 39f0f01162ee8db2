"""Where fractures are known to be: boxes of a table's cell, and of annotations in COCO's form."""

import json
from pathlib import Path

import numpy as np
import pandas as pd

from xray_helpers.settings import InputError


def read_coco(folder: Path, notes: list[str]) -> dict[str, str]:
    """Return the fractures' boxes by file name, as ``left top right bottom; ...``, from annotations in COCO's form.

    Parameters
    ----------
    folder : Path
        Of FracAtlas; files that are no such annotations are passed over with a note.
    notes : list of str
        Is added to.
    """
    found: dict[str, list[str]] = {}
    for file in sorted((folder / "Annotations" / "COCO JSON").glob("*.json")):
        try:
            record = json.loads(file.read_text(encoding="utf-8"))
            names = {image["id"]: Path(image["file_name"]).name for image in record["images"]}
            for mark in record["annotations"]:
                left, top, width, height = (float(value) for value in mark["bbox"])
                if not (width > 0 and height > 0):
                    continue  # a mark of nothing
                box = " ".join(f"{value:g}" for value in (left, top, left + width, top + height))
                found.setdefault(names[mark["image_id"]], []).append(box)
        except (OSError, ValueError, KeyError, TypeError) as error:
            notes.append(f"{file.name} is passed over: it is not in COCO's form ({type(error).__name__}).")
    if found:
        notes.append(f"Boxes of fractures of {len(found)} images were read from COCO annotations.")
    return {name: "; ".join(dict.fromkeys(boxes)) for name, boxes in found.items()}


def read_boxes(cell: object) -> np.ndarray:
    """Return the boxes in a cell such as ``10 20 40 60; 1 2 4 6``: left, top, right, bottom, float of shape (k, 4).

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
                f"{name}: the boxes {str(cell)!r} of {path} are not understood: write left top right bottom in pixels, "
                "parted by spaces, with left < right and top < bottom, and a semicolon between two boxes."
            ) from None
