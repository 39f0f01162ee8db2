import numpy as np
import pandas as pd
import pytest
from PIL import Image

from xray_helpers.plots import images, style
from xray_helpers.reports.sharing import export_study
from xray_helpers.settings import InputError
from xray_helpers.study.files import read_csv, read_json, write_csv, write_json, write_text

NAMES = [f"ward 7/Smith & Jones_{i}.png" for i in range(40)]


@pytest.fixture
def study(make_study):
    """A study of images whose names and columns name patients."""
    folder = make_study(record={"steps": [], "state": "done"})
    table = pd.DataFrame(
        {
            "path": NAMES,
            "label": ["Fractured", "Non-Fractured"] * 20,
            "group": NAMES,
            "source_group": NAMES,
            "patient": [f"MRN{i:05d}" for i in range(40)],
            "exam": [f"ACC{i // 2:05d}" for i in range(40)],
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


def test_patients_are_hashed_and_columns_that_nothing_uses_are_left_out(study, tmp_path):
    out = export_study(study, tmp_path / "sent").parent
    sent = read_csv(out / "manifest.csv")
    assert "diagnosis" not in sent.columns
    assert sent["view"].tolist() == ["AP", "AP", "LAT", "LAT"] * 10
    assert (sent["patient"].nunique(), sent["exam"].nunique()) == (40, 20)
    assert "MRN" not in contents(out)
    assert "ACC" not in contents(out)
    assert "text of" not in contents(out)
    assert "Smith" in contents(out)
    assert (tmp_path / "data" / "patients.salt").stat().st_mode & 0o777 == 0o600
    again = read_csv(export_study(study, tmp_path / "again").parent / "manifest.csv")
    assert again["patient"].equals(sent["patient"])


def test_anonymous_exports_replace_file_names_by_numbers(study, tmp_path):
    out = export_study(study, tmp_path / "sent", anonymous=True).parent
    text = contents(out)
    for word in ("Smith", "Jones", "ward", "c0ffee", "MRN", "ACC"):
        assert word not in text
    sent = read_csv(out / "manifest.csv")
    assert sorted(sent["path"]) == [f"{number:06d}" for number in range(1, 41)]
    assert set(read_csv(out / "VGG16" / "failures.csv")["path"]) <= set(sent["path"])
    assert "sha256" not in sent.columns
    assert "Smith" in contents(study)  # the study itself stays as it was


def test_file_names_that_are_words_or_numbers_are_replaced_in_cells_only(study, tmp_path):
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
    text = (out / "VGG16" / "model_card.html").read_text()
    assert "<td>hand</td>" not in text
    assert "12 of 40 in test" in text
    assert sorted(read_csv(out / "manifest.csv")["path"]) == [f"{number:06d}" for number in range(1, 41)]


def test_a_persons_own_notebooks_are_left_out(folder, tmp_path):
    (folder / "lab").mkdir()
    (folder / "lab" / "02_train_model.ipynb").write_text("{}")
    (folder / "lab" / "mine.csv").write_text("x")
    export_study(folder, tmp_path / "sent")
    assert not (tmp_path / "sent" / "lab").exists()
    assert (tmp_path / "sent" / "manifest.csv").exists()


def test_an_export_without_images_removes_the_radiographs_of_an_earlier_one(study, tmp_path):
    picture = "figures/VGG16_sample_predictions.png"
    export_study(study, tmp_path / "sent")
    assert (tmp_path / "sent" / picture).exists()
    export_study(study, tmp_path / "sent", images=False)
    assert not list((tmp_path / "sent").rglob("*sample_predictions*"))


def test_a_folder_with_other_files_is_refused_and_kept(study, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "index.html").write_text("my own")
    with pytest.raises(InputError, match="give another folder"):
        export_study(study, tmp_path / "mine")
    assert (tmp_path / "mine" / "index.html").read_text() == "my own"
