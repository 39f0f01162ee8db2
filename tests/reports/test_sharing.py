import numpy as np
import pandas as pd
import pytest
from PIL import Image

from xray_helpers.plots import images, style
from xray_helpers.reports.sharing import export_study
from xray_helpers.settings import build_settings
from xray_helpers.study.files import read_csv, read_json, write_csv, write_json, write_text
from xray_helpers.study.folders import shareable
from xray_helpers.study.machine import provenance

NAMES = [f"ward 7/Smith & Jones_{i}.png" for i in range(40)]


@pytest.fixture
def study(tmp_path, monkeypatch):
    """A study of images whose names and columns name patients."""
    monkeypatch.setenv("XRAY_HELPERS_ROOT", str(tmp_path))
    folder = tmp_path / "reports" / "s"
    record = {
        "settings": shareable(build_settings(name="s", data="phantoms")),
        **provenance(),
        "steps": [],
        "state": "done",
    }
    write_json(folder / "study.json", record)
    table = pd.DataFrame(
        {
            "path": NAMES,
            "label": ["Fractured", "Non-Fractured"] * 20,
            "group": NAMES,
            "source_group": NAMES,
            "patient": [f"MRN{i:05d}" for i in range(40)],
            "status": "used",
            "sha256": [f"c0ffee{i}" for i in range(40)],
            "split": ["train", "train", "validation", "test"] * 10,
            "width": 10,
            "height": 12,
            "mode": "L",
            "diagnosis": [f"text of {i}" for i in range(40)],
            "view": ["AP", "AP", "LAT", "LAT"] * 10,
        }
    )
    write_csv(folder / "manifest.csv", table)
    write_csv(
        folder / "links.csv", pd.DataFrame({"path_a": NAMES[:2], "path_b": NAMES[2:4], "sha256_a": "c0ffee"})
    )
    write_csv(folder / "VGG16" / "failures.csv", pd.DataFrame({"path": NAMES[:3], "kind": "confident error"}))
    write_text(
        folder / "VGG16" / "model_card.html",
        "<p>Smith &amp; Jones_7.png, and ward 7/Smith &amp; Jones_8.png</p>",
    )
    grid = images.plot_radiographs([np.eye(20, dtype=np.uint8)], ["x"], title="One")
    style.show(
        style.with_alt(grid, f"One radiograph, {NAMES[3]}."),
        folder / "figures" / "VGG16_sample_predictions.png",
    )
    return folder


def contents(folder):
    """Return all that can be read in a folder, texts of pictures too."""
    texts = []
    for path in sorted(folder.rglob("*")):
        if path.suffix == ".png":
            texts += [str(value) for value in Image.open(path).info.values()]
        elif path.is_file():
            texts.append(path.read_text())
    return "\n".join(texts)


def test_patients_are_hashed_and_columns_that_nothing_uses_stay(study, tmp_path):
    out = export_study(study, tmp_path / "sent").parent
    sent = read_csv(out / "manifest.csv")
    assert "diagnosis" not in sent.columns
    assert sent["view"].tolist() == ["AP", "AP", "LAT", "LAT"] * 10
    assert sent["patient"].nunique() == 40
    assert "MRN" not in contents(out)
    assert "text of" not in contents(out)
    assert "Smith" in contents(out)
    assert (tmp_path / "data" / "patients.salt").stat().st_mode & 0o777 == 0o600
    again = read_csv(export_study(study, tmp_path / "again").parent / "manifest.csv")
    assert again["patient"].equals(sent["patient"])


def test_numbers_stand_for_names(study, tmp_path):
    out = export_study(study, tmp_path / "sent", anonymous=True).parent
    told = contents(out)
    for word in ("Smith", "Jones", "ward", "c0ffee", "MRN"):
        assert word not in told
    sent = read_csv(out / "manifest.csv")
    assert sorted(sent["path"]) == [f"{number:06d}" for number in range(1, 41)]
    assert set(read_csv(out / "VGG16" / "failures.csv")["path"]) <= set(sent["path"])
    assert "sha256" not in sent.columns
    assert "Smith" in contents(study)  # the study itself stays as it was


def test_files_named_as_numbers_and_words_leave_the_numbers_of_tables_alone(study, tmp_path):
    names = {name: ["1", "2", "hand", "0.84", "test"][i] if i < 5 else name for i, name in enumerate(NAMES)}
    table = read_csv(study / "manifest.csv")
    for column in ("path", "group", "source_group"):
        table[column] = table[column].map(names)
    write_csv(study / "manifest.csv", table)
    write_csv(
        study / "costs.csv", pd.DataFrame({"model": ["VGG16"], "n": [12], "auroc": [0.84], "path": ["hand"]})
    )
    write_json(study / "VGG16" / "metrics.json", {"auroc": {"value": 0.84}, "n": 12})
    page = "<table><tr><td>hand</td><td>0.84</td><td>12 of 40 in test</td></tr></table> a hand"
    write_text(study / "VGG16" / "model_card.html", page)
    out = export_study(study, tmp_path / "sent", anonymous=True).parent
    sent = read_csv(out / "costs.csv").iloc[0]
    assert (sent["n"], sent["auroc"]) == (12, 0.84)
    assert len(sent["path"]) == 6
    assert read_json(out / "VGG16" / "metrics.json") == {"auroc": {"value": 0.84}, "n": 12}
    told = (out / "VGG16" / "model_card.html").read_text()
    assert "<td>hand</td>" not in told
    assert "12 of 40 in test" in told
    assert sorted(read_csv(out / "manifest.csv")["path"]) == [f"{number:06d}" for number in range(1, 41)]
