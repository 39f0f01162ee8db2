"""Annotations as other programs write them: COCO, Pascal VOC, YOLO, and masks as pictures.

Each reader yields what it finds, one `Mark` per fracture, for pictures that are known by name and size. What
cannot be used is counted in notes, so that nothing is dropped silently.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import yaml
from defusedxml import ElementTree
from pycocotools import mask as rle

NEGATED = re.compile(r"(^|[^a-z])(no[nt]?|un|without)[^a-z]*fractur")  # such as "non_fractured"
NO_LOCATION = "they have neither a box nor a polygon"
OTHER_CATEGORY = "their categories name no fracture"
NO_NAMES = "which of several classes are fractures is not said: name them in a data.yaml beside them"
NO_PICTURE = "they name no picture here, or several"
OTHER_SIZE = "they were made for a picture of another size"


class Mark(NamedTuple):
    """One fracture.

    Attributes
    ----------
    box : ndarray of float, shape (4,)
        left, top, right, bottom in pixels of the picture.
    outline : dict, optional
        Its mask, run-length encoded as by pycocotools: size (height, width) and counts (bytes).
    """

    box: np.ndarray
    outline: dict[str, Any] | None = None


class Picture(NamedTuple):
    """A picture that annotations may name: its path in the manifest, its height and width."""

    path: str
    shape: tuple[int, int]


class Pictures:
    """Pictures by the names that annotations use: their path, their file name, or that without ending."""

    def __init__(self, pictures: Iterable[Picture]) -> None:
        self._known: dict[str, Picture | None] = {}
        for picture in pictures:
            name = picture.path.split("/")[-1]
            for key in dict.fromkeys((picture.path, name, name.rsplit(".", 1)[0])):
                self._known[key] = None if key in self._known else picture

    def find(self, name: str) -> Picture | None:
        """Return the picture that a name means; None where there is none, or several."""
        name = str(name).replace("\\", "/")
        last = name.split("/")[-1]
        for key in (name, last, last.rsplit(".", 1)[0]):
            if key in self._known:
                return self._known[key]
        return None


Found = Iterator[tuple[str, Mark]]


def fracture_names(names: Iterable[str]) -> set[str] | None:
    """Return the categories that name fractures, or None where they do not distinguish any.

    One category, whatever its name, stands for fractures.
    """
    names = {str(name) for name in names}
    if len(names) < 2 or not any("fractur" in name.lower() for name in names):
        return None
    return {name for name in names if "fractur" in name.lower() and not NEGATED.search(name.lower())}


def read_coco(file: Path, pictures: Pictures, skipped: Counter) -> Found:
    """Read a COCO file: boxes, else polygons or run-length encoded masks, which are kept beside a box.

    Parameters
    ----------
    file : Path
    pictures : Pictures
    skipped : Counter
        Counts annotations that are not used, by the reason.

    Yields
    ------
    (path, Mark)

    Raises
    ------
    ValueError, KeyError, TypeError, AttributeError, OSError
        If the file is not in COCO's form.
    """
    record = json.loads(file.read_text("utf-8"))
    images = {image["id"]: image for image in record["images"]}
    categories = {str(each["id"]): str(each.get("name")) for each in record.get("categories") or []}
    fractures = fracture_names(categories.values())
    for annotation in record["annotations"]:
        image = images[annotation["image_id"]]
        picture, name = pictures.find(image["file_name"]), categories.get(str(annotation.get("category_id")))
        if picture is None:
            skipped[NO_PICTURE] += 1
        elif fractures is not None and name not in fractures:
            skipped[OTHER_CATEGORY] += 1
        elif not _same_size(picture, image.get("height"), image.get("width")):
            skipped[OTHER_SIZE] += 1
        else:
            outline = _outline_of(annotation.get("segmentation"), picture.shape)
            box = _box_of(annotation.get("bbox"))
            box = _bounds(outline) if box is None and outline is not None else box
            if box is None:
                skipped[NO_LOCATION] += 1
            else:
                yield picture.path, Mark(box, outline)


def read_voc(file: Path, pictures: Pictures, names: set[str] | None, skipped: Counter) -> Found:
    """Read a Pascal VOC file, whose pixels are counted from 1 and whose corners belong to the box.

    `names` are those of `voc_names` that mean fractures; see `read_coco` for the rest.
    """
    record = ElementTree.parse(file).getroot()
    picture = pictures.find(file.stem) or pictures.find(record.findtext("filename") or "")
    sides = [_number(record.findtext(f"size/{side}")) for side in ("height", "width")]
    for found in record.iter("object"):
        box = found.find("bndbox")
        corners = [
            _number(box.findtext(end)) if box is not None else None
            for end in ("xmin", "ymin", "xmax", "ymax")
        ]
        if picture is None:
            skipped[NO_PICTURE] += 1
        elif names is not None and (found.findtext("name") or "") not in names:
            skipped[OTHER_CATEGORY] += 1
        elif not _same_size(picture, *sides):
            skipped[OTHER_SIZE] += 1
        elif None in corners or not _is_box(corners := np.array(corners) - [1, 1, 0, 0]):
            skipped[NO_LOCATION] += 1
        else:
            yield picture.path, Mark(corners)


def voc_names(files: Iterable[Path]) -> set[str]:
    """Return the names of all objects in Pascal VOC files; files that cannot be read have none."""
    found: set[str] = set()
    for file in files:
        try:
            record = ElementTree.parse(file).getroot()
        except (ValueError, SyntaxError, OSError):
            continue
        found |= {each.findtext("name") or "" for each in record.iter("object")}
    return found


def yolo_numbers(files: Iterable[Path]) -> set[int]:
    """Return the numbers of the classes in YOLO files; lines that cannot be read have none."""
    found: set[int] = set()
    for file in files:
        with suppress(OSError, ValueError):
            found |= {int(line.split()[0]) for line in file.read_text("utf-8").splitlines() if line.strip()}
    return found


def read_yolo(file: Path, pictures: Pictures, names: Mapping[int, str] | None, skipped: Counter) -> Found:
    """Read a YOLO file: a class, then centre and size of a box or the corners of a polygon, in shares.

    `names` are those of `yolo_names`, or None where there are several classes without names; see `read_coco`
    for the rest.
    """
    picture, fractures = pictures.find(file.stem), fracture_names((names or {}).values())
    for line in file.read_text("utf-8").splitlines():
        if not line.strip():
            continue
        kind, *numbers = (float(word) for word in line.split())
        if picture is None:
            skipped[NO_PICTURE] += 1
            continue
        if names is None:
            skipped[NO_NAMES] += 1
            continue
        if fractures is not None and names.get(int(kind)) not in fractures:
            skipped[OTHER_CATEGORY] += 1
            continue
        height, width = picture.shape
        outline = None
        if len(numbers) == 4:
            (x, y, across, down), scale = numbers, np.array([width, height, width, height])
            box = np.array([x - across / 2, y - down / 2, x + across / 2, y + down / 2]) * scale
        else:
            points = np.array(numbers[: len(numbers) // 2 * 2]).reshape(-1, 2) * [width, height]
            outline = _outline_of([points.ravel().tolist()], picture.shape)
            box = np.concatenate([points.min(axis=0), points.max(axis=0)]) if len(points) > 2 else np.zeros(4)
        if _is_box(box):
            yield picture.path, Mark(box, outline)
        else:
            skipped[NO_LOCATION] += 1


def yolo_names(file: Path, folder: Path) -> dict[int, str]:
    """Return the names of YOLO's classes for a file: the nearest ``*.yaml`` or ``classes.txt`` above it."""
    for place in (file.parent, *file.parent.parents):
        for described in sorted((*place.glob("*.yaml"), *place.glob("*.yml"))):
            try:
                names = (yaml.safe_load(described.read_text("utf-8")) or {}).get("names")
            except (yaml.YAMLError, ValueError, AttributeError, OSError):
                continue
            if names:
                pairs = names.items() if isinstance(names, dict) else enumerate(names)
                return {int(key): str(name) for key, name in pairs}
        for listed in ("classes.txt", "obj.names"):
            if (place / listed).is_file():
                lines = (place / listed).read_text("utf-8", errors="replace").splitlines()
                return dict(enumerate(line.strip() for line in lines if line.strip()))
        if place == folder:
            break
    return {}


def read_mask(file: Path, picture: Picture, skipped: Counter) -> Found:
    """Read a mask as a picture: what is brighter than half of its brightest pixel is fracture.

    Each connected part is one mark.
    """
    pixels = cv2.imdecode(np.frombuffer(file.read_bytes(), np.uint8), cv2.IMREAD_GRAYSCALE)
    if pixels is None or pixels.shape != picture.shape:
        skipped["it cannot be read" if pixels is None else OTHER_SIZE] += 1
        return
    mask = pixels > pixels.max() / 2
    count, parts, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
    for part in range(1, count):
        left, top, width, height = stats[part, :4].astype(float)
        outline = rle.encode(np.asfortranarray(parts == part, dtype=np.uint8))
        yield picture.path, Mark(np.array([left, top, left + width, top + height]), outline)


def _outline_of(segmentation: Any, shape: tuple[int, int]) -> dict[str, Any] | None:
    """Return polygons, or a run-length encoded mask of the picture's size, as one mask; None if unusable."""
    try:
        if isinstance(segmentation, dict):
            if [int(side) for side in segmentation["size"]] != list(shape):
                return None
            counts = segmentation["counts"]
            counts = counts if isinstance(counts, list) else _run_lengths(str(counts))
            if sum(counts) != shape[0] * shape[1] or min(counts) < 0:
                return None  # pycocotools would show whatever is in memory
            found = rle.frPyObjects({"size": list(shape), "counts": counts}, *shape)
        else:
            # clipped: pycocotools writes a polygon that leaves the picture where it should not
            limits = np.array(shape[::-1], float)
            polygons = [np.clip(np.asarray(p, float).reshape(-1, 2), 0, limits) for p in segmentation]
            if not polygons or any(len(p) < 3 or not np.isfinite(p).all() for p in polygons):
                return None
            found = rle.merge(rle.frPyObjects([p.ravel().tolist() for p in polygons], *shape))
        return found if rle.decode(found).any() else None
    except (KeyError, TypeError, ValueError, OverflowError, MemoryError):
        return None


def _run_lengths(code: str) -> list[int]:
    """Return the numbers in COCO's compressed code: five bits a letter, from the third on differences."""
    counts, value, bits = [], 0, 0
    for letter in code.encode("ascii"):
        if not 48 <= letter < 112:
            raise ValueError("a letter that the code does not have")
        value |= (letter - 48 & 31) << bits
        bits += 5
        if letter - 48 & 32:
            continue
        if letter - 48 & 16:
            value -= 1 << bits
        counts.append(value + counts[-2] if len(counts) > 2 else value)
        value, bits = 0, 0
    return counts


def _bounds(outline: dict[str, Any]) -> np.ndarray:
    left, top, width, height = rle.toBbox(outline)
    return np.array([left, top, left + width, top + height])


def _box_of(values: Any) -> np.ndarray | None:
    try:
        left, top, width, height = (float(value) for value in values)
    except (TypeError, ValueError, OverflowError):
        return None
    box = np.array([left, top, left + width, top + height])
    return box if _is_box(box) else None


def _is_box(box: np.ndarray) -> bool:
    return bool(np.isfinite(box).all() and (box[:2] < box[2:]).all())


def _same_size(picture: Picture, height: Any, width: Any) -> bool:
    """Return whether annotations that state a size were made for this picture."""
    stated = (_number(height), _number(width))
    return not all(stated) or stated == picture.shape


def _number(text: Any) -> float | None:
    try:
        value = float(text)
    except (TypeError, ValueError, OverflowError):
        return None
    return value if np.isfinite(value) else None
