import itertools
import json

import numpy as np
import pandas as pd
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from xray_helpers.data.manifest import (
    assign_groups,
    build_manifest,
    count_flow,
    drop_placeholders,
    find_label_columns,
)
from xray_helpers.settings import NEGATIVE, POSITIVE, build_settings


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


def test_placeholders_and_a_patient_of_many_images_are_told():
    notes = []
    patients = pd.Series(["unknown"] * 30 + [f"p{i // 2}" for i in range(30)])
    assert drop_placeholders(patients, notes).isna().sum() == 30
    assert "30 images name a patient such as 'unknown'" in notes[0]
    patients = pd.Series(["A17"] * 30 + [f"p{i // 2}" for i in range(30)])
    assert (drop_placeholders(patients, notes := []) == patients).all()
    assert "One patient has 30 of 60 images" in notes[0]
    assert drop_placeholders(pd.Series(np.repeat([f"p{i}" for i in range(20)], 3)), notes := []).notna().all()
    assert notes == []


def test_boxes_beside_a_folder_are_read_and_masks_are_no_images(root, tmp_path, make_images):
    """The layout of FracAtlas: class folders, a table, and annotations in several formats."""
    make_images(tmp_path / "set" / "images" / "Fractured", 12, seed=1)
    make_images(tmp_path / "set" / "images" / "Non_fractured", 12, seed=2)
    mask = np.zeros((12, 10), np.uint8)
    mask[2:8, 3:9] = 255
    (tmp_path / "set" / "masks").mkdir()
    Image.fromarray(mask).save(tmp_path / "set" / "masks" / "im1_003.png")
    names = [f"im{seed}_{number:03d}.png" for seed in (1, 2) for number in range(12)]
    pd.DataFrame({"image_id": names, "hand": 1}).to_csv(tmp_path / "set" / "dataset.csv", index=False)
    images = [{"id": number, "file_name": name} for number, name in enumerate(names)]
    boxes = [{"image_id": number, "bbox": [1, 2, 3, 4]} for number in (0, 1, 15)]
    place = tmp_path / "set" / "Annotations" / "COCO JSON"
    place.mkdir(parents=True)
    record = {"images": images, "categories": [{"id": 0, "name": "fractured"}], "annotations": boxes}
    (place / "COCO_fracture_masks.json").write_text(json.dumps(record))
    table, notes = build_manifest(build_settings(name="s", data="set"))
    table = table.set_index("path")
    assert table["boxes"].dropna().to_dict() == {
        "images/Fractured/im1_000.png": "1 2 4 6",
        "images/Fractured/im1_001.png": "1 2 4 6",
        "images/Fractured/im1_003.png": "3 2 9 8",
    }
    assert table["fracture_mask"].notna().sum() == 1
    assert table.loc["masks/im1_003.png", "status"] == "no image"
    assert "labelled as not fractured" in table.loc["images/Non_fractured/im2_003.png", "note"]
    assert "hand" in table
    assert any("Boxes of fractures of 1 image were read from masks" in note for note in notes)
