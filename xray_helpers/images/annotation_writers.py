"""Boxes for other programs: COCO, Pascal VOC, YOLO and CSV.

A table of marks has one row per box: path, left, top, right, bottom (pixels of the picture), and optionally
score (0-1). A table of pictures has path, width and height; pictures without a box are written too.
"""

from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, SubElement, indent, tostring

import pandas as pd

from xray_helpers.images.annotations import write_boxes
from xray_helpers.study.files import write_csv, write_json, write_text

CATEGORY = "fracture"
_CORNERS = ["left", "top", "right", "bottom"]


def build_coco(pictures: pd.DataFrame, marks: pd.DataFrame, category: str = CATEGORY) -> dict[str, Any]:
    """Return pictures and marks in COCO's form: images, categories and annotations, with their scores."""
    numbers = {path: number for number, path in enumerate(pictures["path"], start=1)}
    images = [
        {"id": numbers[row.path], "file_name": row.path, "width": int(row.width), "height": int(row.height)}
        for row in pictures.itertuples(index=False)
    ]
    annotations = []
    for number, row in enumerate(marks.to_dict("records"), start=1):
        left, top, right, bottom = (round(float(row[end]), 2) for end in _CORNERS)
        width, height = round(right - left, 2), round(bottom - top, 2)
        entry = {"id": number, "image_id": numbers[row["path"]], "category_id": 1, "iscrowd": 0}
        entry |= {"bbox": [left, top, width, height], "area": round(width * height, 2)}
        annotations.append(entry | ({"score": round(float(row["score"]), 6)} if "score" in row else {}))
    return {"images": images, "categories": [{"id": 1, "name": category}], "annotations": annotations}


def write_coco(file: Path, pictures: pd.DataFrame, marks: pd.DataFrame) -> Path:
    """Write one COCO file."""
    return write_json(file, build_coco(pictures, marks))


def write_voc(folder: Path, pictures: pd.DataFrame, marks: pd.DataFrame) -> list[Path]:
    """Write a Pascal VOC file for each picture; its corners are whole pixels, counted from 1."""
    written = []
    for picture in pictures.itertuples(index=False):
        root = Element("annotation")
        SubElement(root, "filename").text = picture.path.split("/")[-1]
        size = SubElement(root, "size")
        for side, value in (("width", picture.width), ("height", picture.height), ("depth", 1)):
            SubElement(size, side).text = str(int(value))
        for row in marks[marks["path"] == picture.path].to_dict("records"):
            found = SubElement(root, "object")
            SubElement(found, "name").text = CATEGORY
            box = SubElement(found, "bndbox")
            for end, key, first in (("xmin", "left", 1), ("ymin", "top", 1), ("xmax", "right", 0)):
                SubElement(box, end).text = str(round(row[key]) + first)
            SubElement(box, "ymax").text = str(round(row["bottom"]))
        indent(root)
        written.append(write_text(folder / f"{_stem(picture.path)}.xml", tostring(root, "unicode")))
    return written


def write_yolo(folder: Path, pictures: pd.DataFrame, marks: pd.DataFrame) -> list[Path]:
    """Write a YOLO file for each picture, and ``data.yaml`` with the name of the one class."""
    written = [write_text(folder / "data.yaml", f"nc: 1\nnames: [{CATEGORY}]\n")]
    for picture in pictures.itertuples(index=False):
        lines = []
        for row in marks[marks["path"] == picture.path].to_dict("records"):
            across, down = row["right"] - row["left"], row["bottom"] - row["top"]
            x, y = row["left"] + across / 2, row["top"] + down / 2
            shares = (x / picture.width, y / picture.height, across / picture.width, down / picture.height)
            lines.append("0 " + " ".join(f"{share:.8f}" for share in shares))
        text = "".join(f"{line}\n" for line in lines)
        written.append(write_text(folder / f"{_stem(picture.path)}.txt", text))
    return written


def write_boxes_csv(file: Path, pictures: pd.DataFrame, marks: pd.DataFrame) -> Path:
    """Write a CSV with the columns path and boxes, as `annotations.read_boxes` reads them."""
    cells = {path: write_boxes(own[_CORNERS].to_numpy(float)) for path, own in marks.groupby("path")}
    return write_csv(file, pictures[["path"]].assign(boxes=pictures["path"].map(cells)))


def _stem(path: str) -> str:
    return path.split("/")[-1].rsplit(".", 1)[0]
