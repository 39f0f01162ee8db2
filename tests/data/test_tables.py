import pandas as pd
import pytest

from xray_helpers.data.listing import list_data
from xray_helpers.data.manifest import build_manifest, data_folder
from xray_helpers.images.annotations import read_boxes
from xray_helpers.settings import NEGATIVE, POSITIVE, InputError, build_settings
from xray_helpers.study.folders import open_study


def write_table(folder, rows, name="set.csv", **options):
    table = pd.DataFrame(rows)
    table.to_csv(folder / name, index=False, **options)
    return str(folder / name)


def plain_rows(count=24):
    return [{"path": f"img/im0_{i:03d}.png", "label": i % 2} for i in range(count)]


@pytest.fixture
def images(tmp_path, make_images):
    make_images(tmp_path / "img", 24)
    return tmp_path


def test_labels_that_are_no_class_are_left_out_and_told(images):
    rows = plain_rows()
    for row, label in zip(rows[20:], ["-1", "", "2", "unknown"], strict=True):
        row["label"] = label
    listing = list_data(write_table(images, rows))
    assert listing.table["label"].value_counts().to_dict() == {POSITIVE: 10, NEGATIVE: 10}
    assert "4 rows with a label that is no class" in listing.notes[0]


def test_readers_who_agree_make_a_label_and_others_a_conflict(root, images):
    rows = [row | {"reader": f"R{r}", "quality": r} for row in plain_rows() for r in range(3)]
    rows[0]["label"] = 1  # the first of three readers of a picture without a fracture
    rows[3]["label"] = "uncertain"
    place = write_table(images, rows)
    shuffled = pd.read_csv(place).sample(frac=1, random_state=1)
    shuffled.to_csv(images / "shuffled.csv", index=False)
    first, second = (list_data(str(images / name)) for name in ("set.csv", "shuffled.csv"))
    pd.testing.assert_frame_equal(first.table.drop(columns="excluded"), second.table.drop(columns="excluded"))
    assert len(first.table) == 24
    assert "reader" not in first.table.columns
    assert any(
        "72 rows belong to 24 files" in note and "by 3 readers; 1 of them" in note for note in first.notes
    )
    assert any("rows of one file differ in quality" in note for note in first.notes)
    manifest, _ = build_manifest(build_settings(name="s", data=place))
    conflict = manifest[manifest["status"] == "excluded"]
    assert conflict["path"].tolist() == ["img/im0_000.png"]
    assert (
        conflict["reason"].iloc[0]
        == "label conflict: of its rows in set.csv 1 say Fractured and 2 say Non-Fractured"
    )
    assert manifest.set_index("path").loc["img/im0_001.png", "label"] == POSITIVE


def test_boxes_of_several_rows_are_joined_and_patients_must_agree(images):
    rows = [*plain_rows(), {"path": "img/im0_001.png", "label": 1}]
    for row, box in zip([rows[1], rows[-1]], ["1 2 3 4", "5 6 7 8"], strict=True):
        row["boxes"] = box
    table = list_data(write_table(images, rows)).table
    assert table.set_index("path").loc["img/im0_001.png", "boxes"] == "1 2 3 4; 5 6 7 8"
    for number, row in enumerate(rows):
        row["patient"] = f"p{number}"
    with pytest.raises(InputError, match=r"img/im0_001.png is listed with 2 values of patient"):
        list_data(write_table(images, rows))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_tables_as_spreadsheets_write_them(images, encoding, delimiter):
    rows = [row | {"Körperteil": "Schädel"} for row in plain_rows()]
    listing = list_data(write_table(images, rows, encoding=encoding, sep=delimiter))
    assert set(listing.table["Körperteil"]) == {"Schädel"}
    assert any("Windows-1252" in note for note in listing.notes) == (encoding == "cp1252")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is empty"),
        ("\n\n", "is empty"),
        ("path,label\nimg/im0_000.png,1,x\n", "line 2 has 3 cells where the header has 2"),
        (
            "path,label,x\nimg/im0_000.png,1,2\nimg/im0_001.png,1\n",
            "line 3 has 2 cells where the header has 3",
        ),
        ("path,label,Label\na,1,1\n", "two columns named 'label'"),
        ("path,label\n,1\n", "line 2 names no file"),
        ("path,label\n img/im0_000.png,1\n", r"the first is ' img/im0_000.png' in line 2: take the spaces"),
        ("path,label\nC:\\x\\a.png,1\n", "a path of Windows"),
        (
            "path,label\nnowhere/a.png,1\n",
            r"none of its 1 file can be opened; the first is 'nowhere/a.png' in line 2",
        ),
        (
            'path,label,note\nimg/im0_000.png,1,"x\nimg/im0_001.png,0,y\nimg/im0_002.png,0,z\n',
            "look for a quote",
        ),
        (
            'path,label,note\nimg/im0_000.png,1,"x\nimg/im0_001.png,0,y\nimg/im0_002.png,0,z"\n',
            "close its quote",
        ),
        ("path,label,,x\nimg/im0_000.png,1,2,3\n", "its column 3 has no name"),
        ("path,label\n", "a header but no rows"),
        ("PK\x03\x04 a workbook", "save its sheet as CSV"),
        ("path,kind\na,1\n", "lacks the column label"),
        ("path,label\na,fracturd\n", "the label 'fracturd' in line 2 is not understood"),
        ("path,label,split\na,1,somewhere\n", "'somewhere' is none of"),
    ],
)
def test_a_table_that_cannot_be_used_is_refused_in_a_sentence(images, text, words):
    (images / "x.csv").write_text(text)
    with pytest.raises(InputError, match=words):
        list_data(str(images / "x.csv"))


def test_no_path_above_the_data_root_is_kept(root, tmp_path, make_images):
    make_images(tmp_path / "hospital" / "a", 12, seed=1)
    make_images(tmp_path / "hospital" / "b", 12, seed=2)
    files = sorted((tmp_path / "hospital").rglob("*.png"))
    (tmp_path / "lists").mkdir()
    place = write_table(tmp_path / "lists", [{"path": str(p), "label": i % 2} for i, p in enumerate(files)])
    settings = build_settings(name="s", data=place)
    study = open_study(settings)
    table, _ = build_manifest(settings)
    assert table["path"].tolist() == [p.relative_to(tmp_path / "hospital").as_posix() for p in files]
    assert (table["status"] == "readable").all()
    assert data_folder(study).read(table["path"].iloc[0]).sha256 == table["sha256"].iloc[0]


def test_files_without_a_folder_in_common_get_numbers(root, tmp_path, make_images, monkeypatch):
    make_images(tmp_path / "a", 12, seed=1)
    make_images(tmp_path / "b", 12, seed=2)
    from xray_helpers.data import tables

    files = sorted(tmp_path.rglob("*.png"))
    monkeypatch.setattr(tables.os.path, "commonpath", lambda places: "/")  # as if a and b lay on two disks
    (tmp_path / "lists").mkdir()
    place = write_table(tmp_path / "lists", [{"path": str(p), "label": i % 2} for i, p in enumerate(files)])
    settings = build_settings(name="s", data=place)
    study = open_study(settings)
    table, _ = build_manifest(settings)
    assert table["path"].tolist() == [f"{number:06d}.png" for number in range(1, 25)]
    assert data_folder(study).read("000013.png").sha256 == table["sha256"].iloc[12]


# --- tables beside folders ----------------------------------------------------------------------------


@pytest.fixture
def atlas(tmp_path, make_images):
    make_images(tmp_path / "images" / "Fractured", 12, seed=1)
    make_images(tmp_path / "images" / "Non_fractured", 12, seed=2)
    rows = [
        {"image_id": f"im{s}_{i:03d}.png", "fractured": int(s == 1), "hand": i % 2}
        for s in (1, 2)
        for i in range(12)
    ]
    return tmp_path, rows


def test_a_folder_and_a_table_that_contradict_are_a_conflict(root, atlas):
    folder, rows = atlas
    rows[0]["fractured"], rows[12]["fractured"], rows[13]["fractured"] = 0, 1, -1
    write_table(folder, rows, "dataset.csv")
    listing = list_data(str(folder))
    assert any("Label conflict: of 2 images" in note for note in listing.notes)
    table, _ = build_manifest(build_settings(name="s", data=str(folder)))
    reasons = table[table["status"] == "excluded"].set_index("path")["reason"]
    assert set(reasons.index) == {"images/Fractured/im1_000.png", "images/Non_fractured/im2_000.png"}
    assert any(
        "1 rows with a label that is no class have their folder's: -1 (1)" in note for note in listing.notes
    )
    assert "its folder says Fractured, dataset.csv says Non-Fractured" in reasons.iloc[0]


def test_a_table_labels_what_its_folders_do_not(tmp_path, make_images):
    make_images(tmp_path / "images", 24)
    rows = [{"image_id": f"im0_{i:03d}.png", "fractured": i % 2} for i in range(24)]
    write_table(tmp_path, rows, "dataset.csv")
    listing = list_data(str(tmp_path))
    assert listing.table["label"].value_counts().to_dict() == {POSITIVE: 12, NEGATIVE: 12}
    assert any("labels of 24 images are those of dataset.csv" in note for note in listing.notes)


def test_ids_without_endings_are_joined_and_names_that_match_nothing_are_refused(atlas):
    folder, rows = atlas
    write_table(folder, [row | {"image_id": row["image_id"][:-4]} for row in rows], "dataset.csv")
    assert list_data(str(folder)).table["hand"].sum() == 12
    write_table(folder, [row | {"image_id": number} for number, row in enumerate(rows)], "dataset.csv")
    with pytest.raises(InputError, match=r"dataset\.csv: none of its 24 rows names a file .* '0' in line 2"):
        list_data(str(folder))


@pytest.mark.parametrize("text", ["", "image_id,hand\na,1,2\n", "image_id,hand\n"])
def test_a_table_beside_folders_that_cannot_be_read_is_refused(atlas, text):
    folder, _ = atlas
    (folder / "dataset.csv").write_text(text)
    with pytest.raises(InputError, match=r"dataset\.csv"):
        list_data(str(folder))


def test_integer_ids_are_text(tmp_path, make_images):
    for number in range(24):
        make_images(tmp_path / "images" / ("Fractured" if number % 2 else "Normal"), 1, seed=number)
    files = sorted((tmp_path / "images").rglob("*.png"))
    for number, file in enumerate(files):
        file.rename(file.with_name(f"{number:04d}.png"))
    write_table(
        tmp_path, [{"image_id": f"{number:04d}", "view": "AP"} for number in range(24)], "dataset.csv"
    )
    assert (list_data(str(tmp_path)).table["view"] == "AP").all()


# --- patients -----------------------------------------------------------------------------------------


def test_a_named_group_of_the_pattern_is_the_patient(images):
    place = write_table(images, plain_rows())
    for pattern in (r"(?P<patient>im0_0\d)", r"(im)0_(?P<patient>0\d)", r"(im0_0\d)"):
        assert list_data(place, pattern).table["patient"].nunique() == 3


def test_one_patient_for_all_is_none_and_is_told(root, images):
    place = write_table(images, [row | {"patient": "ANON4711"} for row in plain_rows()])
    table, notes = build_manifest(build_settings(name="s", data=place))
    assert table["patient"].isna().all()
    assert any("All 24 images have the same patient" in note and "patient_pattern" in note for note in notes)


def test_patients_splits_and_labels_of_a_joined_table_count(atlas, root):
    folder, rows = atlas
    for number, row in enumerate(rows):
        row |= {
            "PatientID": f"p{number // 2}",
            "split": "test" if number < 6 else "train",
            "label": row["fractured"],
        }
    rows[3]["label"] = 0
    write_table(folder, rows, "dataset.csv")
    table, _ = build_manifest(build_settings(name="s", data=str(folder)))
    table = table[table["status"] != "no image"]
    assert table["patient"].nunique() == 12
    assert table["folder_split"].value_counts().to_dict() == {"train": 18, "test": 6}
    assert table.loc[table["status"] == "excluded", "path"].tolist() == ["images/Fractured/im1_003.png"]


def test_names_that_several_files_have_are_joined_by_path_or_refused(tmp_path, make_images):
    for label, seed in (("Fractured", 1), ("Normal", 2)):
        make_images(tmp_path / label, 12, seed=seed)
        for number, file in enumerate(sorted((tmp_path / label).iterdir())):
            file.rename(file.with_name(f"{number}.png"))
    rows = [{"path": f"Fractured/{number}.png", "hardware": 1} for number in range(12)]
    write_table(tmp_path, rows, "dataset.csv")
    table = list_data(str(tmp_path)).table.set_index("path")["hardware"]
    assert table.notna().sum() == 12
    assert table[table.notna()].index.str.startswith("Fractured/").all()
    write_table(
        tmp_path, [{"image_id": f"{number}.png", "hardware": 1} for number in range(12)], "dataset.csv"
    )
    with pytest.raises(InputError, match="is the name of 2 files here: write paths"):
        list_data(str(tmp_path))


def test_excels_first_line_and_columns_of_the_studys_own_names(images, root):
    rows = [
        row
        | {"excluded": "no", "y_prob": 0.5, "hashed": "x", "folder_split": "holdout", "Patient_ID": f"p{i}"}
        for i, row in enumerate(plain_rows())
    ]
    place = write_table(images, rows, sep=";")
    (images / "set.csv").write_text("sep=;\n" + (images / "set.csv").read_text())
    table, _ = build_manifest(build_settings(name="s", data=place))
    assert (table["status"] == "readable").all()
    assert table["patient"].nunique() == 24
    assert table["folder_split"].isna().all()
    assert {"excluded_given", "y_prob_given", "hashed_given", "folder_split_given"} <= set(table.columns)


def test_a_named_patient_and_a_placeholder_for_one_file_do_not_contradict(images):
    rows = [row | {"patient": name} for row in plain_rows() for name in ("p1 ", "unknown")]
    assert set(list_data(write_table(images, rows)).table["patient"]) == {"p1"}


def test_what_excluded_all_images_is_told_where_they_are_refused(images):
    rows = [row | {"label": label} for row in plain_rows() for label in (0, 1)]
    with pytest.raises(InputError, match=r"None of the 24 images .* 24 of them have both labels"):
        list_data(write_table(images, rows))


def test_fracatlas_columns_are_joined(atlas):
    folder, rows = atlas
    write_table(folder, rows, "dataset.csv")
    table = list_data(str(folder)).table
    assert len(table) == 24
    assert table["hand"].sum() == 12
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
    ) as refusal:
        list_data(csv_with_boxes(tmp_path, ["10 20 30 40", cell]))
    assert repr(cell) in str(refusal.value)
