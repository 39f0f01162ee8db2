import numpy as np
import pandas as pd
import pytest
from dicom_files import build

from xray_helpers.data.exams import check_exams, describe_exams, exams_table
from xray_helpers.data.listing import list_data
from xray_helpers.data.manifest import assign_groups, build_manifest
from xray_helpers.data.splits import assign_splits
from xray_helpers.images.dicom import without_patient_id
from xray_helpers.images.radiographs import read_radiograph
from xray_helpers.settings import InputError, build_settings
from xray_helpers.study.files import read_csv, write_csv


def check(exam, patient, *, given=True):
    notes = []
    exam, patient = (pd.Series(values, dtype="string") for values in (exam, patient))
    return check_exams(exam, patient, pd.Series(given, exam.index), notes).tolist(), notes


def test_exams_of_mura_are_body_part_patient_and_study(root, tmp_path, make_images):
    for number in range(12):
        sign = "positive" if number % 2 else "negative"
        for study, body in ((1, "XR_ELBOW"), (2, "XR_ELBOW"), (1, "XR_HAND")):
            folder = tmp_path / "set" / body / f"patient{number:05d}" / f"study{study}_{sign}"
            make_images(folder, 2, seed=10 * number + study + 5 * (body == "XR_HAND"))
    table, _ = build_manifest(build_settings(name="s", data="set"))
    assert table["exam"].nunique() == 36
    assert set(table.groupby("exam").size()) == {2}
    assert table.loc[0, "exam"] == "ELBOW/patient00000/study1"
    counts = exams_table(table.assign(status="used", split="train")).set_index("part")
    assert counts.loc["all", ["exams", "2 images", "patients", "with several exams"]].tolist() == [
        36,
        36,
        12,
        12,
    ]


def test_exams_of_a_pattern_and_of_csv_columns(root, tmp_path, make_images):
    for number in range(24):
        label = "Fractured" if number % 2 else "normal"
        make_images(tmp_path / "set" / label / f"case{number // 2}", 1, seed=number)
    for pattern in (r"(case\d+)/", r"(set)?(?P<exam>case\d+)/"):
        table = list_data("set", exam_pattern=pattern).table
        assert sorted(table["exam"].unique())[:3] == ["case0", "case1", "case10"]
    paths = list_data("set").table["path"]
    for column in ("exam", "Exam", "exam_id", "StudyID", "study_number"):
        csv = pd.DataFrame({"path": paths, "label": [0, 1] * 12, column: [f"x{i // 3}" for i in range(24)]})
        csv.to_csv(tmp_path / "set" / "list.csv", index=False)
        table = list_data("set/list.csv").table
        assert table["exam"].tolist() == [f"x{i // 3}" for i in range(24)]
        assert column == "exam" or column not in table
    csv = csv.rename(columns={"study_number": "exam"})
    csv.assign(image_id=paths).drop(columns=["path", "label"]).to_csv(
        tmp_path / "set" / "dataset.csv", index=False
    )
    (tmp_path / "set" / "list.csv").unlink()
    joined = list_data("set").table.set_index("path")["exam"]
    assert joined[paths].tolist() == csv["exam"].tolist()
    assert list_data("set", exam_pattern=r"(case1\d+)/").table["exam"].nunique() > 2
    twice = pd.DataFrame({"path": [*paths, paths[0]], "label": [*[0, 1] * 12, 0]})
    twice["exam"] = [*csv["exam"], "another"]
    twice.to_csv(tmp_path / "set" / "list.csv", index=False)
    with pytest.raises(InputError, match="2 values of exam"):
        list_data("set/list.csv")


def test_the_exam_of_a_dicom_file_is_a_salted_hash(root, tmp_path, phantom):
    def read(**tags):
        build(phantom, **tags).save_as(tmp_path / "a.dcm", enforce_file_format=True)
        return read_radiograph(tmp_path / "a.dcm")

    one = read(StudyInstanceUID="1.2.3.99", PatientID="p1")
    other = read(StudyInstanceUID="1.2.3.98", PatientID="p1")
    assert len(one.exam) == 16
    assert one.exam != other.exam
    assert one.patient == other.patient != one.exam
    assert read(StudyInstanceUID="1.2.3.99").exam == one.exam
    assert read(StudyInstanceUID="1.2.3.99").patient != one.exam
    assert "1.2.3" not in str(one)
    assert read(PatientID="p1").exam == ""
    with without_patient_id():
        assert read(StudyInstanceUID="1.2.3.99").exam == ""


def test_dicom_exams_are_in_the_manifest_and_join_groups(root, tmp_path, make_images):
    rng = np.random.default_rng(0)
    for number in range(24):
        folder = tmp_path / "set" / ("Fractured" if number % 4 < 2 else "normal")
        folder.mkdir(parents=True, exist_ok=True)
        tags = {"StudyInstanceUID": f"1.2.777.{number // 2}"}
        pixels = rng.integers(0, 256, (40, 40), dtype=np.uint8)
        build(pixels, **tags).save_as(folder / f"{number:02d}.dcm", enforce_file_format=True)
    table, _ = build_manifest(build_settings(name="s", data="set"))
    assert table["exam"].nunique() == 12
    assert set(table.groupby("exam").size()) == {2}
    grouped = assign_groups(table.assign(patient=pd.NA), table["path"])
    assert grouped["group"].nunique() == 12
    write_csv(tmp_path / "manifest.csv", table)
    assert "1.2.777" not in (tmp_path / "manifest.csv").read_text()
    pd.testing.assert_series_equal(read_csv(tmp_path / "manifest.csv")["exam"], table["exam"])


def test_numbers_within_a_patient_are_exams_of_that_patient():
    exams, notes = check(["1", "1", "2", "1", "1", "1"], ["a", "a", "a", "b", "c", None])
    assert exams[:5] == ["a/1", "a/1", "a/2", "b/1", "c/1"]
    assert pd.isna(exams[5])  # whose exam 1 it is cannot be known
    assert "numbered within each patient" in notes[0]
    assert "that of 3 patients" in notes[0]


def test_an_exam_of_two_patients_is_reported_and_kept_together():
    exams, notes = check(["e1", "e1", "e2", "e3", "e4"], ["a", "b", "c", "d", "e"])
    assert exams == ["e1", "e1", "e2", "e3", "e4"]
    assert notes[0].startswith("1 exam has images of more than one patient: their images")
    hashed, notes = check(["1", "1", "1"], ["a", "b", "c"], given=False)  # a UID is not numbered by patient
    assert hashed == ["1", "1", "1"]
    assert notes[0].startswith("1 exam has images of more than one patient")


def test_names_of_very_many_images_are_no_exams():
    exams, notes = check(["wrist"] * 30 + ["hand"] * 25, [None] * 55)
    assert pd.isna(pd.Series(exams)).all()
    assert "55 images name an exam that has up to 30 images" in notes[0]
    exams, notes = check(["1.2.3"] * 30 + [f"e{i // 2}" for i in range(70)], [None] * 100)
    assert pd.Series(exams).isna().sum() == 30  # an anonymiser's one UID beside real ones
    assert "30 images name" in notes[0]
    exams, notes = check([f"e{i // 3}" for i in range(60)], [None] * 60)
    assert pd.Series(exams).nunique() == 20
    assert notes == []
    assert pd.isna(check(["unknown", "e1"], [None, None])[0][0])


def test_an_exam_is_never_in_two_parts():
    rng, rows = np.random.default_rng(3), []
    for number in range(300):
        label = ["Fractured", "Non-Fractured"][number % 2]
        exam = f"e{rng.integers(100)}" if number % 3 else None
        rows.append({"path": f"{number:03d}", "label": label, "exam": exam, "patient": None})
    table = pd.DataFrame(rows, dtype="string").assign(status="readable")
    table = assign_groups(table, table["path"])
    table = assign_splits(table, build_settings(name="s", data="set", use_subset=1.0))
    assert table.dropna(subset="exam").groupby("exam")["split"].nunique().max() == 1
    text = describe_exams(table)
    both = table.groupby("exam")["label"].nunique().ge(2).sum()
    assert f"{both} exams hold images of both classes" in text
    assert "100 images belong to no known exam" in text


def test_copies_of_a_source_are_not_images_of_an_exam():
    table = pd.DataFrame(
        {
            "exam": ["x", "x", "y"],
            "patient": pd.array(["a", "a", "b"], dtype="string"),
            "label": ["Fractured", "Fractured", "Non-Fractured"],
            "status": "used",
            "split": "test",
            "counted": pd.array([True, False, True], dtype="boolean"),
        }
    )
    row = exams_table(table).iloc[-1]
    assert (row["exams"], row["images"], row["1 image"], row["with several exams"]) == (2, 2, 2, 0)
    assert exams_table(table.drop(columns="exam")).empty  # a study of before there were exams
    assert "No exams are known" in describe_exams(table.assign(exam=pd.NA))


def test_exams_of_phantoms_change_no_group(phantom_csv):
    table = pd.read_csv(phantom_csv, dtype="string").assign(status="readable")
    source = table["copy_of"].fillna(table["path"])
    with_exams, without = (assign_groups(one, source) for one in (table, table.drop(columns="exam")))
    assert with_exams["group"].equals(without["group"])
    originals = table[table["copy_of"].isna()]
    assert originals.groupby("exam").size().max() == 2
    assert originals.groupby("patient")["exam"].nunique().max() == 2
    assert originals.groupby("exam")["patient"].nunique().max() == 1
