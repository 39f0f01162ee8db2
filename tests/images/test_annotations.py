import json

import pytest

from xray_helpers.images.annotations import read_coco


def coco_notes(folder, annotations, categories=(), name="a.json"):
    """Return boxes and notes of hand-made annotations of two images."""
    place = folder / "Annotations" / "COCO JSON"
    place.mkdir(parents=True, exist_ok=True)
    images = [{"id": 1, "file_name": "one.jpg"}, {"id": 2, "file_name": "two.jpg"}]
    record = {"images": images, "categories": list(categories), "annotations": annotations}
    (place / name).write_text(json.dumps(record))
    notes = []
    return read_coco(folder, notes), " ".join(notes)


def test_a_polygon_stands_for_a_box_that_is_missing_and_what_has_neither_is_counted(tmp_path):
    polygons = [[10, 20, 40, 25, 30, 60], [5, 30, 6, 31, 8, 30]]
    marks = [
        {"image_id": 1, "segmentation": polygons},
        {"image_id": 1, "bbox": [1, 2, 3, 4], "segmentation": polygons},
        {"image_id": 2, "bbox": [0, 0, 0, 0], "segmentation": [[1, 1, 3, 1, 3, 4]]},
        {"image_id": 2, "bbox": [], "segmentation": {"counts": [3, 4], "size": [9, 9]}},
        {"image_id": 2, "bbox": [1, 2, float("nan"), 4]},
        {"image_id": 2, "segmentation": [[1, 2, 3]]},
        {"image_id": 2, "bbox": [1, 2, 10**400, 3], "segmentation": []},
    ]
    boxes, notes = coco_notes(tmp_path, marks)
    assert boxes == {"one.jpg": "5 20 40 60; 1 2 4 6", "two.jpg": "1 1 3 4"}
    assert "a.json: 4 annotations are left out: they have neither a box nor a polygon" in notes
    assert "passed over" not in notes


def test_a_file_that_is_passed_over_leaves_nothing_behind(tmp_path):
    good, bad = {"image_id": 1, "bbox": [1, 2, 3, 4]}, {"image_id": 99, "bbox": [1, 2, 3, 4]}
    boxes, notes = coco_notes(tmp_path, [good, bad, good])
    assert boxes == {}
    assert "a.json is passed over" in notes
    boxes, _ = coco_notes(tmp_path, [good], name="b.json")
    assert boxes == {"one.jpg": "1 2 4 6"}


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
    boxes, notes = coco_notes(tmp_path, marks, categories)
    assert len(boxes.get("one.jpg", "").split(";")) == max(kept, 1)
    assert ("one.jpg" in boxes) == (kept > 0)
    assert (f"{2 - kept} annotations are left out: their categories name no fracture" in notes) == (kept < 2)
