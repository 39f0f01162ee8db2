"""07 on a study that was trained: the same study under another name, whose localizer is on."""

import json
import re
import shutil
import subprocess
import sys

import pandas as pd
import pytest

from xray_helpers.cli import main
from xray_helpers.study.files import read_csv, read_json, write_csv
from xray_helpers.study.folders import notebooks_folder

pytestmark = pytest.mark.slow
MODEL = "MobileNetV2"


def run_07(name, place, localizer="head"):
    """Run 07 by papermill; return its report's text."""
    out = place / f"{name}.ipynb"
    values = {"name": name, "models": [MODEL], "localizer": localizer}
    parameters = place / "p.yaml"
    parameters.write_text(json.dumps(values))
    command = [sys.executable, "-m", "papermill", str(notebooks_folder() / "07_localize.ipynb"), str(out)]
    command += ["-f", str(parameters), "-k", "python3", "--no-progress-bar"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=place)
    assert done.returncode == 0, done.stderr[-3000:]
    return out.read_text()


def copy_study(study, name, **options):
    place = study.parent / name
    shutil.copytree(study, place, ignore=shutil.ignore_patterns("*.html", "*.ipynb", "figures", ".run.json"))
    return place


@pytest.fixture(scope="module")
def located(study, root_folder, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XRAY_HELPERS_ROOT", str(root_folder))
        folder = copy_study(study, "located")
        return folder, run_07("located", tmp_path_factory.mktemp("out"))


def test_a_head_is_trained_judged_and_shown(located):
    folder, report = located
    table = pd.read_csv(folder / "localizers.csv")
    assert {"dense head", "Grad-CAM", "centred blob"} <= set(table["method"])
    assert (table["n"] > 0).all()
    row = table.iloc[0]
    ends = row[["centre inside at 1_low", "centre inside at 1", "centre inside at 1_high"]].astype(float)
    assert ends.is_monotonic_increasing or ends.isna().any()
    marks, test = read_csv(folder / MODEL / "boxes_test.csv"), read_csv(folder / "manifest.csv")
    assert set(marks["path"]) <= set(test.loc[test["split"] == "test", "path"])
    joined = marks.merge(test, on="path")
    assert (joined["right"] <= joined["width"] + 1e-6).all()
    assert marks["score"].between(0, 1).all()
    record = read_json(folder / MODEL / "localizer.json")
    assert record["kind"] == "dense head"
    assert read_json(folder / "localizers.json")["models"][MODEL] == record
    alt = " ".join(re.findall(r'"alt": "([^"]*)"', report))
    for words in ("FROC", "loss of its dense head", "Blue frames: known fractures"):
        assert words in alt, words
    assert "AUROC than the classifier alone" in report


def test_boxes_of_files_are_written_in_the_form_of_coco(located, home, secret_csv, tmp_path, monkeypatch):
    from click.testing import CliRunner

    files = sorted(map(str, secret_csv.parent.glob("Fractured/*.png")))[:5]
    out = tmp_path / "boxes.json"
    done = CliRunner().invoke(main, ["predict", "located", MODEL, *files, "--boxes", str(out)])
    assert done.exit_code == 0, done.output
    found = json.loads(out.read_text())
    assert [image["file_name"] for image in found["images"]] == files
    assert all(0 <= mark["score"] <= 1 for mark in found["annotations"])
    refused = CliRunner().invoke(main, ["predict", "small", MODEL, *files, "--boxes", str(out)])
    assert refused.exit_code == 2
    assert "has no localizer" in refused.output


def test_the_error_browser_shows_known_and_found_boxes(located, home):
    from xray_helpers.interactive.predictions import _Frames

    folder, _ = located
    frames = _Frames(folder, MODEL)
    marks = read_csv(folder / MODEL / "boxes_test.csv")
    best = marks.sort_values("score", ascending=False)["path"].iloc[0]
    assert "found" in {kind for _, kind in frames.find(best)}
    assert any(kind == "known" for path in frames._known for _, kind in frames.find(path))
    assert frames.find("nowhere.png") == []


def test_a_set_without_annotations_says_so_and_goes_on(study, home, tmp_path):
    folder = copy_study(study, "unmarked")
    manifest = read_csv(folder / "manifest.csv")
    boxes = [name for name in manifest if name.startswith("box")]
    write_csv(folder / "manifest.csv", manifest.drop(columns=boxes))
    (folder / MODEL / "boxes_test.csv").write_text("of an earlier run")
    report = run_07("unmarked", tmp_path)
    assert "No fracture of this set has a known box" in report
    assert len(pd.read_csv(folder / "localizers.csv")) == 0
    assert not read_json(folder / "localizers.json")["usable"]
    assert not (folder / MODEL / "boxes_test.csv").exists()
