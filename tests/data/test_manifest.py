import itertools
import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xray_helpers.data.labels import read_label
from xray_helpers.data.listing import list_data
from xray_helpers.data.manifest import assign_groups, build_manifest, count_flow, find_label_columns
from xray_helpers.images.annotations import read_boxes, read_coco
from xray_helpers.settings import NEGATIVE, POSITIVE, InputError, build_settings


@pytest.mark.parametrize(
    ("word", "label"),
    [
        ("Fractured", POSITIVE),
        ("fractured", POSITIVE),
        ("FRACTURE", POSITIVE),
        ("positive", POSITIVE),
        (1, POSITIVE),
        ("1.0", POSITIVE),
        (True, POSITIVE),
        ("Non-Fractured", NEGATIVE),
        ("not fractured", NEGATIVE),
        ("Non_fractured", NEGATIVE),
        ("normal", NEGATIVE),
        (0, NEGATIVE),
        ("false", NEGATIVE),
        ("negative", NEGATIVE),
        ("images", None),
        ("fracture types", None),
        ("", None),
        ("2", None),
    ],
)
def test_labels(word, label):
    assert read_label(word) == label


def by_class(listing):
    return listing.table["label"].value_counts().to_dict()


def test_two_class_folders(tmp_path, make_images):
    make_images(tmp_path / "Fractured", 12, seed=1)
    make_images(tmp_path / "Non-Fractured", 15, seed=2, suffix=".jpg")
    assert by_class(list_data(str(tmp_path))) == {POSITIVE: 12, NEGATIVE: 15}


def test_train_val_test_folders_are_recorded(tmp_path, make_images):
    for seed, (part, name) in enumerate(
        itertools.product(["train", "val", "test"], ["fractured", "not fractured"])
    ):
        make_images(tmp_path / part / name, 10, seed=seed)
    table = list_data(str(tmp_path)).table
    assert table["folder_split"].value_counts().to_dict() == {"train": 20, "validation": 20, "test": 20}


def test_originals_are_read_and_augmented_copies_are_not(tmp_path, make_images):
    for seed, (part, name) in enumerate(
        itertools.product(["Original Dataset", "Augmented Dataset"], ["Fractured", "Non-Fractured"])
    ):
        make_images(tmp_path / part / name, 10, seed=seed)
    listing = list_data(str(tmp_path))
    assert listing.table["path"].str.startswith("Original Dataset/").all()
    assert "its 20 files are augmented" in listing.notes[0]


def test_mura_paths_give_patients_and_studies_labels(tmp_path, make_images):
    for patient in range(10):
        sign = "positive" if patient % 2 else "negative"
        folder = tmp_path / "train" / "XR_ELBOW" / f"patient{patient:05d}" / f"study1_{sign}"
        make_images(folder, 3, seed=patient)
    listing = list_data(str(tmp_path))
    assert by_class(listing) == {POSITIVE: 15, NEGATIVE: 15}
    assert listing.table["patient"].nunique() == 10
    assert set(listing.table["body_part"]) == {"elbow"}
    assert "not the same as fractured" in listing.notes[0]


def test_fracatlas_columns_are_joined(tmp_path, make_images):
    make_images(tmp_path / "images" / "Fractured", 10, seed=1)
    make_images(tmp_path / "images" / "Non_fractured", 10, seed=2)
    rows = [
        {"image_id": f"im{s}_{i:03d}.png", "hand": i % 2, "hardware": 0, "fractured": s % 2}
        for s in (1, 2)
        for i in range(10)
    ]
    pd.DataFrame(rows).to_csv(tmp_path / "dataset.csv", index=False)
    table = list_data(str(tmp_path)).table
    assert len(table) == 20
    assert table["hand"].sum() == 10
    assert "fractured" not in table.columns


def test_csv_with_patients_split_and_own_columns(tmp_path, make_images):
    make_images(tmp_path / "pics", 20)
    rows = [
        {
            "path": f"pics/im0_{i:03d}.png",
            "label": i % 2,
            "patient": i // 2,
            "split": "val" if i < 4 else "Train",
            "mode": "x",
        }
        for i in range(20)
    ]
    pd.DataFrame(rows).to_csv(tmp_path / "mine.csv", index=False)
    table = list_data(str(tmp_path / "mine.csv")).table
    assert table["label"].value_counts().to_dict() == {POSITIVE: 10, NEGATIVE: 10}
    assert table["folder_split"].value_counts().to_dict() == {"train": 16, "validation": 4}
    assert "mode_given" in table.columns


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("path,kind\na,1\n", "lacks the column label"),
        ("path,label\na,fracturd\n", "the label 'fracturd' in line 2 is not understood"),
        ("path,label,split\na,1,somewhere\n", "'somewhere' is none of"),
        ("", "cannot be read as a CSV"),
    ],
)
def test_bad_csv(tmp_path, content, words):
    (tmp_path / "x.csv").write_text(content)
    with pytest.raises(InputError, match=words):
        list_data(str(tmp_path / "x.csv"))


def test_bad_folders(tmp_path, make_images):
    with pytest.raises(InputError, match="There is no folder or CSV"):
        list_data(str(tmp_path / "nowhere"))
    with pytest.raises(InputError, match="No images in"):
        list_data(str(tmp_path))
    make_images(tmp_path / "Fractured", 12)
    with pytest.raises(InputError, match="none of class Non-Fractured"):
        list_data(str(tmp_path))
    make_images(tmp_path / "normal", 3)
    with pytest.raises(InputError, match="Only 3 images of class Non-Fractured"):
        list_data(str(tmp_path))


def test_unreadable_files_are_listed_and_left_out(root, tmp_path, make_images):
    make_images(tmp_path / "set" / "Fractured", 12, seed=1)
    make_images(tmp_path / "set" / "normal", 12, seed=2)
    make_images(tmp_path / "set" / "else", 1, seed=3)
    (tmp_path / "set" / "normal" / "empty.png").write_bytes(b"")
    (tmp_path / "set" / "normal" / "note.txt").write_text("no image")
    table, _ = build_manifest(build_settings(name="s", data="set"))
    assert len(table) == 27
    assert table.set_index("path").loc["normal/note.txt", "status"] == "no image"
    assert table.set_index("path").loc["normal/empty.png", "reason"].startswith("is empty")
    assert table.set_index("path").loc["else/im3_000.png", "status"] == "excluded"
    flow = count_flow(table).set_index("step")["files"]
    assert flow["found"] == 27
    assert flow["readable"] == 24
    assert flow["left out: is empty"] == 1
    assert (
        flow["found"]
        == flow["readable"] + flow[[step for step in flow.index if step.startswith("left out")]].sum()
    )


def test_patient_pattern(root, tmp_path, make_images):
    make_images(tmp_path / "set" / "Fractured" / "pat7", 12, seed=1)
    make_images(tmp_path / "set" / "normal" / "pat8", 12, seed=2)
    table, _ = build_manifest(build_settings(name="s", data="set", patient_pattern=r"(pat\d+)/"))
    table = assign_groups(table, table["path"])
    assert table.groupby("patient").size().to_dict() == {"pat7": 12, "pat8": 12}
    assert table["group"].nunique() == 2


def test_groups_are_the_union_of_bytes_and_patients():
    table = pd.DataFrame(
        {
            "path": list("abcdef"),
            "sha256": ["1", "1", "2", "3", "4", None],
            "patient": pd.array([None, "p", "p", "q", None, None], dtype="string"),
            "status": ["readable"] * 5 + ["unreadable"],
        }
    )
    grouped = assign_groups(table, pd.Series(["a", "a", "c", "d", "e", None]))
    assert grouped["group"].tolist()[:5] == ["a", "a", "a", "d", "e"]
    assert grouped["source_group"].tolist()[:5] == ["a", "a", "c", "d", "e"]
    assert pd.isna(grouped["group"].iloc[5])


@given(
    st.lists(st.tuples(st.integers(0, 6), st.one_of(st.none(), st.integers(0, 6))), min_size=1, max_size=30)
)
def test_groups_against_a_plain_search(rows):
    table = pd.DataFrame({"path": [f"{i:02d}" for i in range(len(rows))], "status": "readable"})
    table["patient"] = pd.array([None if b is None else str(b) for _, b in rows], dtype="string")
    groups = assign_groups(table, pd.Series([str(a) for a, _ in rows]))["group"].to_numpy(str)
    label = list(range(len(rows)))
    for _ in rows:  # relax until nothing changes
        for i, j in itertools.combinations(range(len(rows)), 2):
            same_b = rows[i][1] is not None and rows[i][1] == rows[j][1]
            if rows[i][0] == rows[j][0] or same_b:
                label[i] = label[j] = min(label[i], label[j])
    expected = np.array(label)
    assert groups.tolist() == [f"{i:02d}" for i in expected]


def test_fractures_boxes_are_read_from_coco_annotations(tmp_path):
    for folder, names in (("Fractured", range(12)), ("Non_fractured", range(12, 24))):
        (tmp_path / "images" / folder).mkdir(parents=True)
        for number in names:
            (tmp_path / "images" / folder / f"IMG{number}.jpg").write_bytes(b"x")
    pd.DataFrame({"image_id": [f"IMG{n}.jpg" for n in range(24)], "hand": 1}).to_csv(
        tmp_path / "dataset.csv", index=False
    )
    place = tmp_path / "Annotations" / "COCO JSON"
    place.mkdir(parents=True)
    coco = {
        "images": [{"id": 7, "file_name": "IMG3.jpg"}, {"id": 8, "file_name": "IMG4.jpg"}],
        "categories": [],
        "annotations": [
            {"image_id": 7, "bbox": [10, 20, 30, 40]},
            {"image_id": 7, "bbox": [1.5, 2, 3, 4]},
            {"image_id": 8, "bbox": [5, 5, 0, 9]},
        ],
    }
    (place / "COCO_fracture_masks.json").write_text(json.dumps(coco))
    (place / "other.json").write_text("{}")
    listing = list_data(str(tmp_path))
    boxes = listing.table.set_index("path")["boxes"]
    assert boxes["images/Fractured/IMG3.jpg"] == "10 20 40 60; 1.5 2 4.5 6"
    assert boxes.notna().sum() == 1
    assert any("other.json is passed over" in note for note in listing.notes)


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


def csv_with_boxes(folder, cells):
    rows = [{"path": f"im{i}.png", "label": "Fractured" if i % 2 else "normal"} for i in range(24)]
    table = pd.DataFrame(rows).assign(boxes=pd.Series(cells))
    (folder / "im0.png").touch()
    table.to_csv(folder / "set.csv", index=False)
    return str(folder / "set.csv")


def test_boxes_of_a_csv_are_read_empty_pieces_aside(tmp_path):
    table = list_data(csv_with_boxes(tmp_path, ["10 20 30 40; 1.5 2 4.5 6;", "", " ; ", None])).table
    boxes = [
        read_boxes(cell)
        for cell in table.set_index("path")["boxes"][["im0.png", "im1.png", "im2.png", "im3.png"]]
    ]
    assert boxes[0].tolist() == [[10, 20, 30, 40], [1.5, 2, 4.5, 6]]
    assert [len(found) for found in boxes[1:]] == [0, 0, 0]


@pytest.mark.parametrize(
    "cell",
    [
        "10,20,30,40",
        "1 2 3",
        "1 2 3 4 5",
        "1 2 3 4; 5 6",
        "30 20 10 40",
        "10 40 30 20",
        "a b c d",
        "0 0 nan 9",
        "0 0 inf 9",
        "7",
    ],
)
def test_boxes_that_cannot_be_used_are_refused_before_anything_is_trained(tmp_path, cell):
    with pytest.raises(
        InputError, match=r"set.csv: the boxes '.*' of im1.png .* left top right bottom"
    ) as told:
        list_data(csv_with_boxes(tmp_path, ["10 20 30 40", cell]))
    assert repr(cell) in str(told.value)


def test_columns_that_tell_the_label_are_named():
    rng = np.random.default_rng(0)
    label = np.repeat([POSITIVE, NEGATIVE], 100)
    fractured = label == POSITIVE
    table = pd.DataFrame(
        {
            "path": [f"{i}.png" for i in range(200)],
            "label": label,
            "status": "used",
            "boxes": np.where(fractured, "1 1 2 2", None),
            "fracture_count": np.where(fractured, rng.integers(1, 4, 200), 0),
            "area": np.where(fractured, rng.random(200), 0.0),
            "comment": np.where(fractured, [f"text {i}" for i in range(200)], None),
            "view": rng.choice(["AP", "LAT"], 200),
            "age": rng.integers(3, 90, 200),
            "constant": 1,
            "id": np.arange(200),
        }
    )
    assert find_label_columns(table) == ["fracture_count", "area", "comment"]
    table.loc[0, ["fracture_count", "area"]] = 0
    assert find_label_columns(table)[:2] == ["fracture_count", "area"]  # a mistake of one image hides nothing
    assert find_label_columns(table.assign(status="not sampled")) == []


def test_studies_that_contradict_their_class_folder_are_refused(tmp_path, make_images):
    for label, sign in (("Fractured", "negative"), ("Normal", "positive")):
        for patient in range(6):
            make_images(tmp_path / label / f"patient{patient:05d}" / f"study1_{sign}", 2, seed=patient)
    with pytest.raises(InputError, match="name both classes"):
        list_data(str(tmp_path))


def test_numbered_studies_are_no_classes(tmp_path, make_images):
    for label in ("Fractured", "Normal"):
        for number in range(6):
            make_images(tmp_path / label / f"patient{number}" / f"study1_{number % 2}", 2, seed=number)
    table = list_data(str(tmp_path)).table
    assert (
        table["label"] == table["path"].str.startswith("Fractured").map({True: POSITIVE, False: NEGATIVE})
    ).all()


def test_folders_beside_originals_and_copies_stay(tmp_path, make_images):
    for seed, part in enumerate(["original_train", "original_test", "augmented_train", "Hospital2"]):
        for label in ("Fractured", "Normal"):
            make_images(tmp_path / part / label, 12, seed=seed)
    listing = list_data(str(tmp_path))
    assert len(listing.table) == 72
    assert "its 24 files are augmented copies" in listing.notes[0]


def test_one_abnormal_folder_renames_no_class(tmp_path, make_images):
    for seed, part in enumerate(["Fractured", "Normal", "Abnormal/Fractured"]):
        make_images(tmp_path / part, 12, seed=seed)
    assert list_data(str(tmp_path)).class_names == (NEGATIVE, POSITIVE)
    (tmp_path / "set").mkdir()
    for seed, part in enumerate(["Abnormal", "Normal"]):
        make_images(tmp_path / "set" / part, 12, seed=seed)
    assert list_data(str(tmp_path / "set")).class_names == ("Normal", "Abnormal")
