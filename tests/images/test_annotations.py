import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as rle

from xray_helpers.images.annotation_writers import write_boxes_csv, write_coco, write_voc, write_yolo
from xray_helpers.images.annotations import LEFT_OUT, annotate, list_boxes, list_masks, read_boxes


def manifest_of(*names, label="Fractured", size=(100, 80)):
    """A manifest of readable pictures, all of one width and height."""
    table = pd.DataFrame({"path": list(names)}, dtype="string")
    text = {"label": label, "status": "readable", "reason": pd.NA, "note": pd.NA}
    table = table.assign(**text).astype("string")
    return table.assign(width=size[0], height=size[1]).astype({"width": "Int64", "height": "Int64"})


def boxes_of(table):
    return {path: boxes.tolist() for path, boxes in zip(table["path"], list_boxes(table), strict=True)}


def read_coco(folder, annotations, categories=(), name="a.json", **size):
    """Return boxes and notes of hand-made annotations of two images."""
    place = folder / "Annotations" / "COCO JSON"
    place.mkdir(parents=True, exist_ok=True)
    images = [{"id": n, "file_name": f"{word}.jpg"} | size for n, word in ((1, "one"), (2, "two"))]
    record = {"images": images, "categories": list(categories), "annotations": annotations}
    (place / name).write_text(json.dumps(record))
    notes = []
    table = annotate(manifest_of("x/one.jpg", "two.jpg"), folder, notes)
    cells = table["boxes"] if "boxes" in table else pd.Series(pd.NA, table.index)
    return dict(zip(("one.jpg", "two.jpg"), cells, strict=True)), " ".join(notes), table


def test_a_polygon_stands_for_a_box_that_is_missing_and_what_has_neither_is_counted(tmp_path):
    polygons = [[10, 20, 40, 25, 30, 60], [5, 30, 6, 31, 8, 30]]
    marks = [
        {"image_id": 1, "segmentation": polygons},
        {"image_id": 1, "bbox": [1, 2, 3, 4], "segmentation": polygons},
        {"image_id": 2, "bbox": [0, 0, 0, 0], "segmentation": [[1, 1, 9, 1, 9, 12]]},
        {"image_id": 2, "bbox": [], "segmentation": {"counts": [3, 4], "size": [9, 9]}},
        {"image_id": 2, "bbox": [1, 2, float("nan"), 4]},
        {"image_id": 2, "segmentation": [[1, 2, 3]]},
        {"image_id": 2, "bbox": [1, 2, 10**400, 3], "segmentation": []},
    ]
    boxes, notes, table = read_coco(tmp_path, marks)
    assert boxes["one.jpg"].split("; ")[1] == "1 2 4 6"
    found = np.concatenate([box[:1] for box in list_boxes(table)])
    assert np.abs(found - [[5, 20, 40, 60], [1, 1, 9, 12]]).max() <= 1
    assert "a.json: 4 annotations are left out: they have neither a box nor a polygon" in notes
    assert "passed over" not in notes
    mask = list_masks(table)[0]
    assert mask.shape == (80, 100)
    assert mask[30, 28]
    assert not mask[70, 90]


def test_a_file_that_is_passed_over_leaves_nothing_behind(tmp_path):
    good, bad = {"image_id": 1, "bbox": [1, 2, 3, 4]}, {"image_id": 99, "bbox": [1, 2, 3, 4]}
    boxes, notes, table = read_coco(tmp_path, [good, bad, good])
    assert "boxes" not in table
    assert "a.json is passed over" in notes
    boxes, _, _ = read_coco(tmp_path, [good], name="b.json")
    assert boxes["one.jpg"] == "1 2 4 6"


@pytest.mark.parametrize(
    ("names", "kept"),
    [
        (["Fractured bone", "hardware"], 1),
        (["hardware", "FRACTURE", "non_fractured"], 1),
        (["no fracture", "hardware"], 0),
        (["hardware"], 2),
        (["hardware", "cast"], 2),
        ([], 2),
    ],
)
def test_only_categories_of_fractures_count_where_there_are_such(tmp_path, names, kept):
    marks = [{"image_id": 1, "category_id": number, "bbox": [number, 2, 3, 4]} for number in (0, 1)]
    categories = [{"id": number, "name": name} for number, name in enumerate(names)]
    boxes, notes, _ = read_coco(tmp_path, marks, categories)
    assert (0 if pd.isna(boxes["one.jpg"]) else boxes["one.jpg"].count(";") + 1) == kept
    assert (f"{2 - kept} annotations are left out: their categories name no fracture" in notes) == (kept < 2)


@pytest.mark.parametrize("compressed", [True, False])
def test_masks_in_run_length_code_are_read(tmp_path, compressed):
    mask = np.zeros((80, 100), np.uint8)
    mask[20:31, 40:53] = 1
    code = rle.encode(np.asfortranarray(mask))["counts"].decode()
    if not compressed:
        flat = np.concatenate([[0], mask.ravel(order="F"), [0]])
        starts = np.flatnonzero(np.diff(flat))
        code = np.diff(np.concatenate([[0], starts, [mask.size]])).tolist()
    _, _, table = read_coco(tmp_path, [{"image_id": 1, "segmentation": {"size": [80, 100], "counts": code}}])
    assert list_boxes(table)[0].tolist() == [[40, 20, 53, 31]]
    assert (list_masks(table)[0] == mask).all()


@pytest.mark.parametrize("code", ["", "garbage;;;", "0" * 50, [-5, 8005], [9**20], "Wb0\x00"])
def test_damaged_run_length_codes_locate_nothing(tmp_path, code):
    marks = [{"image_id": 1, "segmentation": {"size": [80, 100], "counts": code}}]
    _, notes, table = read_coco(tmp_path, marks)
    assert "boxes" not in table
    assert "neither a box nor a polygon" in notes


def test_annotations_made_for_another_size_are_left_out(tmp_path):
    mark = {"image_id": 1, "bbox": [1, 2, 3, 4]}
    _, notes, table = read_coco(tmp_path, [mark], width=50, height=40)
    assert "boxes" not in table
    assert "1 annotations are left out: they were made for a picture of another size" in notes


def test_conflicts_are_kept_out_and_noted(tmp_path):
    table = manifest_of("good.png", "outside.png", "intact.png", "edge.png")
    table.loc[2, "label"] = "Non-Fractured"
    table["boxes"] = pd.array(["1 2 9 8", "1 2 9 8; 50 60 120 70", "1 2 9 8", "90 5 101.5 20"], "string")
    notes = []
    found = annotate(table, tmp_path, notes)
    expected = {"good.png": [[1, 2, 9, 8]], "edge.png": [[90, 5, 100, 20]]}
    assert boxes_of(found) == expected | {"outside.png": [], "intact.png": []}
    assert found["note"].fillna("").str.startswith(LEFT_OUT).tolist() == [False, True, True, False]
    text = " ".join(notes)
    assert "1 image are left out, as a box lies outside the picture: outside.png" in text
    assert "1 image are left out, as the picture is labelled as not fractured: intact.png" in text


def test_one_format_after_the_other_and_the_table_first(tmp_path):
    table = manifest_of("a.png", "b.png", "c.png")
    table["boxes"] = pd.array(["1 1 5 5", pd.NA, pd.NA], "string")
    pictures = table[["path", "width", "height"]]
    marks = pd.DataFrame(
        {"path": ["a.png", "b.png"], "left": 10.0, "top": 11.0, "right": 20.0, "bottom": 30.0}
    )
    write_coco(tmp_path / "annotations" / "all.json", pictures, marks)
    write_voc(tmp_path / "voc", pictures, marks.assign(path=["b.png", "c.png"], left=40.0, right=60.0))
    notes = []
    found = annotate(table, tmp_path, notes)
    expected = {"a.png": [[1, 1, 5, 5]], "b.png": [[10, 11, 20, 30]], "c.png": [[40, 11, 60, 30]]}
    assert boxes_of(found) == expected
    assert "Boxes of fractures of 1 image were read from Pascal VOC annotations." in notes
    assert "COCO annotations of 1 image are left out: they have others already." in notes


def test_masks_as_pictures_are_set_aside_and_locate_fractures(tmp_path):
    (tmp_path / "masks").mkdir()
    mask = np.zeros((80, 100), np.uint8)
    mask[10:20, 30:50], mask[60:70, 5:9] = 255, 255
    Image.fromarray(mask).save(tmp_path / "masks" / "a.png")
    Image.fromarray(mask.T).save(tmp_path / "masks" / "b.png")
    table = manifest_of("images/a.jpg", "images/b.jpg", "masks/a.png", "masks/b.png", "masks/other.png")
    notes = []
    found = annotate(table, tmp_path, notes)
    assert found["status"].tolist() == ["readable"] * 2 + ["no image"] * 2 + ["readable"]
    assert boxes_of(found)["images/a.jpg"] == [[30, 10, 50, 20], [5, 60, 9, 70]]
    assert (list_masks(found)[0] == (mask > 0)).all()
    assert "masks annotations: 1 annotations are left out: they were made for a picture of another" in str(
        notes
    )


def test_yolo_polygons_and_the_names_of_its_classes(tmp_path):
    (tmp_path / "labels").mkdir()
    (tmp_path / "data.yaml").write_text("names: {0: text, 1: fracture}\n")
    lines = ["0 0.5 0.5 0.1 0.1", "1 0.1 0.25 0.5 0.25 0.5 0.75", "1 0.5 0.5 0.2 0.5", "1 0.5 0.5 0 0.5"]
    (tmp_path / "labels" / "one.txt").write_text("\n".join(lines))
    (tmp_path / "labels" / "two.txt").write_text("no numbers")
    (tmp_path / "notes.txt").write_text("no annotations, as no picture is called so")
    notes = []
    found = annotate(manifest_of("one.png", "two.png"), tmp_path, notes)
    assert np.allclose(list_boxes(found)[0], [[10, 20, 50, 60], [40, 20, 60, 60]])
    assert "two.txt is passed over: it is not in YOLO's form (ValueError)." in notes
    assert "YOLO annotations: 1 annotations are left out: their categories name no fracture." in notes


def test_an_xml_file_cannot_open_other_files_or_grow_without_bounds(tmp_path):
    secret = tmp_path / "secret.txt"
    secret.write_text("fracture")
    entity = f'<!DOCTYPE a [<!ENTITY x SYSTEM "file://{secret}">]>'
    box = "<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>9</xmax><ymax>9</ymax></bndbox>"
    text = f"{entity}<annotation><object><name>&x;</name>{box}</object></annotation>"
    (tmp_path / "one.xml").write_text(text)
    notes = []
    found = annotate(manifest_of("one.png"), tmp_path, notes)
    assert "boxes" not in found
    assert "one.xml is passed over" in notes[0]


SIZES = st.tuples(st.integers(20, 3000), st.integers(20, 3000))
SHARES = st.lists(st.tuples(*[st.floats(0, 0.9), st.floats(0.05, 1)] * 2), min_size=1, max_size=4)


@settings(max_examples=30, deadline=None)
@given(size=SIZES, shares=SHARES)
def test_a_round_trip_keeps_every_box_to_half_a_pixel(tmp_path_factory, size, shares):
    width, height = size
    boxes = []
    for left, across, top, down in shares:
        x, y = left * (width - 4), top * (height - 4)
        boxes.append([x, y, x + 3 + across * (width - x - 3), y + 3 + down * (height - y - 3)])
    _, kept = np.unique(np.round(boxes), axis=0, return_index=True)
    boxes = np.round(boxes, 1)[kept]
    table = manifest_of("a/one.png", "a/two.png", size=size)
    pictures = table[["path", "width", "height"]]
    marks = pd.DataFrame(boxes, columns=["left", "top", "right", "bottom"]).assign(path="a/one.png")
    for write, name in ((write_coco, "coco.json"), (write_voc, ""), (write_yolo, "")):
        place = tmp_path_factory.mktemp("out")
        write(place / name, pictures, marks)
        found = list_boxes(annotate(table, place, []))
        assert [len(each) for each in found] == [len(boxes), 0]
        assert np.abs(found[0] - boxes).max() <= 0.5
    cells = pd.read_csv(write_boxes_csv(place / "boxes.csv", pictures, marks), dtype="string")["boxes"]
    assert np.abs(read_boxes(cells[0]) - boxes).max() <= 0.5
    assert pd.isna(cells[1])
