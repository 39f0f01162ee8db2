import io
import json

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from xray_helpers.images.radiographs import Radiograph
from xray_helpers.interactive.reading_room import (
    build_csv,
    choose_model,
    describe_decision_rule,
    evaluate_files,
)
from xray_helpers.settings import InputError


class Reader:
    """A model that calls the mean grey its probability."""

    threshold, settings, localizer = 0.5, {}, None

    def resize(self, pixels):
        return pixels

    def recognise(self, picture: Radiograph):
        return "the model was trained on this very file" if picture.pixels.mean() > 250 else ""

    def predict(self, pictures: list[Radiograph]):
        p = float(pictures[0].pixels.mean() / 255)
        uncertain = 0.4 <= p <= 0.6
        decision = "" if uncertain else "Fractured" if p >= 0.5 else "Non-Fractured"
        return [{"probability": p, "decision": decision, "warning": pictures[0].note, "uncertain": uncertain}]


def png(grey):
    buffer = io.BytesIO()
    ramp = grey + np.arange(33, dtype=np.int16).reshape(1, -1) % 11 - 5  # of one grey alone nothing is judged
    Image.fromarray(np.repeat(ramp, 20, axis=0).astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def test_each_file_has_an_answer():
    blank = io.BytesIO()
    Image.fromarray(np.zeros((200, 300), np.uint8)).save(blank, "PNG")
    files = [
        ("high.png", png(250)),
        ("middle.png", png(128)),
        ("low.png", png(5)),
        ("text.png", b"words"),
        ("none.png", b""),
        ("blank.png", blank.getvalue()),
    ]
    answers = evaluate_files(Reader(), None, files)
    assert [row["answer"] for row in answers] == [
        "Fractured",
        "abstains",
        "Non-Fractured",
        *["no picture"] * 3,
    ]
    assert "no picture of a known format" in answers[3]["reason"]
    assert "empty" in answers[4]["reason"]
    assert answers[5]["reason"] == "it is almost one grey: there is no picture in it"
    assert "too small" in answers[0]["warning"]
    table = pd.read_csv(io.StringIO(build_csv(answers, "s", "A")), keep_default_na=False)
    assert table["file"].tolist() == [name for name, _ in files]
    assert table["decision"].tolist() == ["Fractured", "", "Non-Fractured", "", "", ""]
    assert set(zip(table["study"], table["model"], strict=True)) == {("s", "A")}
    assert "pixels" not in table.columns


def test_a_dicom_file_leaves_no_secret_on_the_disk(root):
    import pydicom

    ds = pydicom.Dataset()
    ds.PatientID, ds.Modality, ds.Rows, ds.Columns = "p1", "CR", 40, 40
    ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.PixelRepresentation = 1, "MONOCHROME2", 0
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelData = 8, 8, 7, bytes(range(200)) * 8
    ds["PixelData"].VR = "OB"
    ds.file_meta = pydicom.dataset.FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    buffer = io.BytesIO()
    ds.save_as(buffer, enforce_file_format=False, implicit_vr=False, little_endian=True)
    answers = evaluate_files(Reader(), None, [("a.dcm", buffer.getvalue())])
    assert "pixels" in answers[0], answers
    assert list(root.iterdir()) == []


def test_a_map_lies_over_the_picture_not_over_its_padding():
    class Cam:
        size = (64, 64)

        def __call__(self, pixels):
            return pixels.astype(np.float32)

    from xray_helpers.images.pixels import resize

    reader, picture = Reader(), np.zeros((50, 100), np.uint8)
    picture[5:15, 80:90] = (
        255  # in the middle of the padded picture's upper half, but near the edge of its own
    )
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG")
    for way in ("stretch", "pad"):
        reader.settings = {"resize": way}
        reader.resize = lambda pixels, way=way: resize(pixels, Cam.size, way)
        grid = evaluate_files(reader, Cam(), [("a.png", buffer.getvalue())])[0]["map"]
        assert grid.shape == ((32, 64) if way == "pad" else (64, 64))
        down, across = np.unravel_index(grid.argmax(), grid.shape) / np.array(grid.shape)
        assert (down, across) == pytest.approx((0.2, 0.85), abs=0.1)


@pytest.fixture
def room(tmp_path, monkeypatch):
    from xray_helpers.interactive import reading_room

    monkeypatch.setattr(
        reading_room, "Reader", lambda study, model: type("Net", (Reader,), {"model": None})()
    )
    monkeypatch.setattr(reading_room, "GradCam", lambda model: None)
    monkeypatch.setattr(reading_room, "describe_decision_rule", lambda study, model: "a rule")
    (tmp_path / "s" / "A").mkdir(parents=True)
    return reading_room.ReadingRoom(tmp_path / "s", "A")


def contents(widget):
    """All words and bytes that a widget and those in it hold."""
    own = [getattr(widget, "value", None)]
    return own + [value for child in getattr(widget, "children", ()) for value in contents(child)]


def test_forget_all_leaves_nothing_of_a_file(room):
    room._take({"new": [{"name": "secret.png", "content": png(250)}, {"name": "words.png", "content": b"x"}]})
    room.pager.turn(-1)
    assert room.view.images[0].value
    assert any("secret" in str(value) for value in contents(room.box))
    room.pager.turn(1)  # no picture there: none of the one before is kept in the hidden view
    assert not room.view.images[0].value
    assert "secret" not in room.view.captions[0].value
    room.pager.turn(-1)
    room.forget.click()
    assert not any(isinstance(value, bytes) and value for value in contents(room.box))
    assert not any("secret" in str(value) for value in contents(room.box))
    assert (room.answers, room.view._shown, room.pager._items) == ([], [], [])


def test_the_page_can_tell_when_the_next_files_may_come(room, monkeypatch):
    from xray_helpers.interactive import reading_room

    seen, judge = [], reading_room.evaluate_files
    monkeypatch.setattr(
        reading_room,
        "evaluate_files",
        lambda *given: seen.append((room.upload.disabled, room.status.value)) or judge(*given),
    )
    room._take({"new": [{"name": "a.png", "content": png(250)}, {"name": "b.png", "content": png(5)}]})
    assert [disabled for disabled, _ in seen] == [True, True]
    assert all("data-taken='0'" in words for _, words in seen)
    assert "data-taken='1'" in room.status.value
    assert not room.upload.disabled
    monkeypatch.setattr(reading_room, "evaluate_files", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        room._take({"new": [{"name": "c.png", "content": b"x"}]})
    assert "data-taken='2'" in room.status.value  # or what is dropped next would wait for ever
    assert not room.upload.disabled


def test_the_csv_is_named_after_study_and_model(room):
    room._take({"new": [{"name": "a.png", "content": png(250)}]})
    assert "download='reading_room_s_A.csv'" in room.csv.value
    assert "underline" in room.csv.value


def test_the_verdict_on_the_maps_is_in_the_caption(room, tmp_path):
    from xray_helpers.interactive.reading_room import ReadingRoom

    row = {
        "file": "a.png",
        "answer": "abstains",
        "probability": 0.5,
        "threshold": 0.5,
        "warning": "",
        "pixels": np.zeros((40, 40), np.uint8),
        "map": np.zeros((4, 4), np.float32),
        "frames": [(np.array([1.0, 2, 30, 20, 0.75]), "found")],
    }
    room._open(row)
    assert "its map is empty" in room.view.captions[0].value
    assert room.view.opacity.value > 0
    verdict = {"verdict": "**Do not believe** the maps. They hit 1 of 9.", "believed": False}
    (tmp_path / "s" / "A" / "maps_verdict.json").write_text(json.dumps(verdict))
    told = ReadingRoom(tmp_path / "s", "A")
    told._open(row)
    assert "<b>Do not believe</b> the maps.</small>" in told.view.captions[0].value
    assert told.view.opacity.value == 0


def test_a_reason_keeps_its_capitals(room):
    room._open({"file": "a.png", "reason": "it has 600 MB, too many for a radiograph: convert it"})
    assert "It has 600 MB, too many" in room.answer.value


def test_a_file_name_is_not_a_formula_in_a_spreadsheet():
    table = pd.read_csv(
        io.StringIO(build_csv(evaluate_files(Reader(), None, [("=cmd|x.png", png(9))]), "s", "A"))
    )
    assert table["file"].iloc[0] == "'=cmd|x.png"


def test_the_model_is_the_best_on_validation_not_on_test(tmp_path):
    entry = {"value": 0.8, "ci_low": 0.7, "ci_high": 0.9}
    for name, validation, test in (("A", 0.7, 0.99), ("B", 0.9, 0.6)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.keras").touch()
        scores = {
            "validation": {"auroc": entry | {"value": validation}},
            "auroc": entry | {"value": test},
            "n": 20,
            "n_groups": 10,
            "recall": entry,
            "specificity": entry,
            "threshold_rule": "fixed",
        }
        (tmp_path / name / "metrics.json").write_text(json.dumps(scores))
        (tmp_path / name / "threshold.json").write_text(
            json.dumps({"threshold": 0.5, "uncertain": [0.4, 0.6]})
        )
        probabilities = pd.DataFrame({"path": range(20), "y_prob": [0.4, 0.5, 0.6] + [0.7] * 17})
        probabilities.to_csv(tmp_path / name / "predictions_test.csv", index=False)
    assert choose_model(tmp_path) == "B"
    assert choose_model(tmp_path, "A") == "A"
    told = describe_decision_rule(tmp_path, "A")
    assert "sensitivity 0.80 (0.70 to 0.90)" in told
    assert "From 0.400 to 0.600 it abstains" in told
    assert "never" not in told
    for band, said in (
        ([0.0, 0.6], "abstains on all images up to 0.600, and never answers Non-Fractured."),
        ([0.4, 1.0], "abstains on all images from 0.400 on, and never answers Fractured."),
        ([0.0, 1.0], "It abstains on every image, and never decides."),
    ):
        (tmp_path / "A" / "threshold.json").write_text(json.dumps({"threshold": 0.5, "uncertain": band}))
        assert said in describe_decision_rule(tmp_path, "A")
    assert "Of the 20 test images it would abstain on 3" in told
    with pytest.raises(InputError, match="run it first"):
        choose_model(tmp_path / "A")


def test_what_cannot_be_served_is_refused_before_anything_starts(tmp_path, monkeypatch):
    import socket

    from xray_helpers.interactive.server import serve_room

    monkeypatch.setenv("XRAY_HELPERS_ROOT", str(tmp_path))
    with pytest.raises(InputError, match="no study"):
        serve_room("nowhere")
    folder = tmp_path / "reports" / "s" / "A"
    folder.mkdir(parents=True)
    (folder.parent / "study.json").write_text("{}")
    with pytest.raises(InputError, match="has no model 'B' that was trained and evaluated: it has none"):
        serve_room("s", "B")
    for name in ("model.keras", "metrics.json"):
        (folder / name).write_text("{}")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(InputError, match="cannot be served"):
            serve_room("s", "A", port=taken.getsockname()[1])
