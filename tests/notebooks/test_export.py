"""A model of the series exported by the command: report, folder, and the file in the model's place."""

import os
import shutil
import subprocess
import sys

import pytest

from xray_helpers.data.manifest import data_folder
from xray_helpers.export.bundle import identify_training
from xray_helpers.export.page import drop_outdated_page
from xray_helpers.models.prediction import predict_files
from xray_helpers.reports.pages import write_index
from xray_helpers.reports.sharing import export_study
from xray_helpers.runner.export import run_export
from xray_helpers.runner.steps import why_rerun
from xray_helpers.settings import InputError
from xray_helpers.study.files import read_csv, read_json, write_json, write_text

for library in ("ai_edge_litert", "litert_quantizer"):
    pytest.importorskip(library, reason="make export")
pytestmark = pytest.mark.slow
MODEL, FORMAT = "MobileNetV2", "litert-int8"


@pytest.fixture(scope="module")
def exported(study, tmp_path_factory):
    """A copy of the study in a root of its own, and what the command line said; calibrated int8 alone."""
    root = tmp_path_factory.mktemp("exported")
    others = shutil.ignore_patterns(*(f"{name}*.keras" for name in ("VGG", "Res")), ".run.json")
    copy = shutil.copytree(study, root / "reports" / study.name, ignore=others)
    command = [sys.executable, "-m", "xray_helpers", "export", study.name, MODEL, "--to", FORMAT]
    env = os.environ | {"XRAY_HELPERS_ROOT": str(root)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
    assert done.returncode in (0, 1), done.stderr[-3000:]
    assert done.stdout.strip().endswith(f"{MODEL}/export/08_export.html"), done.stderr[-3000:]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XRAY_HELPERS_ROOT", str(root))
        yield copy, done


def test_every_decision_that_flips_is_listed_and_the_exit_status_is_the_verdict(exported):
    study, done = exported
    place = study / MODEL / "export"
    row = read_csv(place / "proof.csv").set_index("format").loc[FORMAT]
    assert read_csv(place / "flips.csv")["format"].tolist().count(FORMAT) == row["flips"]
    assert row["n"] == len(read_csv(study / MODEL / "predictions_test.csv"))
    assert 3 * row["mib"] < read_csv(place / "proof.csv").set_index("format").loc["keras", "mib"]
    verdict = read_json(place / FORMAT / "proof.json")["verdict"]
    assert verdict == row["verdict"]
    assert done.returncode == int(verdict == "do not use")
    assert ('Marked "do not use"' in done.stderr) == (verdict == "do not use")


@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_breaks_at_no_width_and_asks_nobody(exported, open_page, width):
    page = open_page(exported[0] / MODEL / "export" / "08_export.html", width)
    assert page.complaints == []
    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
    assert page.evaluate("[...document.images].filter(i => !i.naturalWidth || !i.alt).length") == 0


def test_the_index_lists_it_and_it_is_shared(exported, tmp_path):
    link = f'href="{MODEL}/export/08_export.html"'
    assert link in (exported[0] / "index.html").read_text()
    index = export_study(exported[0], tmp_path / "out", anonymous=True)
    assert link in index.read_text()
    assert (index.parent / MODEL / "export" / "08_export.html").exists()
    assert not list(index.parent.rglob("*.tflite"))
    shared = read_csv(index.parent / MODEL / "export" / "proof.csv")
    assert shared.equals(read_csv(exported[0] / MODEL / "export" / "proof.csv"))


def test_a_page_that_runs_the_model_is_linked_until_the_model_is_another(exported):
    study, _ = exported
    place = study / MODEL / "export" / "page"
    link = f'href="{MODEL}/export/page/page.html"'
    write_text(place / "page.html", "")
    write_json(place / "page.json", identify_training(study, MODEL))
    drop_outdated_page(study, MODEL)
    assert link in write_index(study).read_text()
    write_json(place / "page.json", identify_training(study, MODEL) | {"source": "another"})
    drop_outdated_page(study, MODEL)
    assert not place.exists()
    assert link not in write_index(study).read_text()


def test_again_there_is_nothing_to_do_until_a_file_was_damaged(exported, monkeypatch):
    study, _ = exported
    place = study / MODEL / "export"
    page, file, results = place / "08_export.html", place / FORMAT / "model.tflite", place / "results.json"
    began, kept = page.stat().st_mtime_ns, results.read_bytes()
    assert run_export(study.name, MODEL, [FORMAT])[0] == page
    assert page.stat().st_mtime_ns == began
    with pytest.raises(InputError, match="has no model 'VGG99': it has"):
        run_export(study.name, "VGG99", [FORMAT])
    whole = file.read_bytes()
    file.write_bytes(whole[:-1])
    monkeypatch.setattr("xray_helpers.runner.export.run_asked", lambda plan, _: (page, why(plan)))
    assert run_export(study.name, MODEL, [FORMAT])[1] == "results.json is missing or was changed"
    file.write_bytes(whole)
    results.write_bytes(kept)
    assert run_export(study.name, MODEL, [FORMAT])[1] in (
        "",
        f'Marked "do not use": {FORMAT}, see the report.',
    )


def why(plan):
    return why_rerun(plan.steps[-1], plan.steps, plan.settings, plan.folder)


def test_the_exported_file_answers_in_the_place_of_the_model(exported, tmp_path):
    study, _ = exported
    predicted = read_csv(study / MODEL / "export" / "proof.csv")
    test = read_csv(study / MODEL / "predictions_test.csv").head(2)
    files = [str(data_folder(study).path / path) for path in test["path"]]
    command = [sys.executable, "-m", "xray_helpers", "predict", study.name, MODEL, *files]
    if predicted.set_index("format").loc[FORMAT, "verdict"] == "do not use":
        refused = subprocess.run(
            [*command, "--engine", "litert"], capture_output=True, text=True, check=False
        )
        assert refused.returncode == 2
        assert "do not use" in refused.stderr
        return
    done = subprocess.run([*command, "--engine", "litert"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert f"come from the exported file {FORMAT}" in done.stdout
    own = predict_files(study, MODEL, files)["probability"]
    given = [float(line.split(" = ")[1].split(",")[0]) for line in done.stdout.splitlines() if "P(" in line]
    assert given == pytest.approx(own.tolist(), abs=predicted["largest"].max() + 0.001)
