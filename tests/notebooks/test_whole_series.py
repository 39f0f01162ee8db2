"""The real series on small phantoms: by the command, by raw papermill, and as JupyterLab runs it."""

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pandas as pd
import papermill
import pytest
from hostile import write_hostile_folder
from PIL import Image

from xray_helpers.reports.sharing import export_study
from xray_helpers.runner.series import run_study
from xray_helpers.settings import InputError, build_settings
from xray_helpers.study.files import read_csv, read_json
from xray_helpers.study.folders import notebooks_folder

pytestmark = pytest.mark.slow


def test_every_file_of_the_contract_is_there(study):
    models = build_settings().models
    names = {p.relative_to(study).as_posix() for p in study.rglob("*") if p.is_file()}
    expected = {
        "index.html",
        "study.json",
        "manifest.csv",
        "links.csv",
        "shortcuts.csv",
        "predictions_shortcuts.csv",
        "comparison.csv",
        "inflation.csv",
        "pairs.csv",
        "ensembles.csv",
        "costs.csv",
        "disagreements.csv",
        "engine.json",
        "exams.csv",
        "pairs_exams.csv",
        "reporting_checklist.html",
    }
    expected |= {f"figures/models_{name}.png" for name in ("evaluation_grid", "confusion_grid", "inflation")}
    expected |= {
        f"{n}{end}"
        for n in ("01_data_exploration", "04_compare_models", "07_localize")
        for end in (".ipynb", ".html")
    }
    for model in models:
        own = (
            "model.keras",
            "history.csv",
            "predictions_val.csv",
            "predictions_test.csv",
            "metrics.json",
            "predictions_oof.csv",
            "predictions_border.csv",
            "shortcuts.csv",
            "shortcuts_verdict.json",
            "repeats.csv",
            "familiarity.npz",
            "spread.csv",
            "calibration.csv",
            "reliability.csv",
            "decision_curve.csv",
            "subgroups.csv",
            "failures.csv",
            "metrics_exams.json",
            "predictions_exams.csv",
            "kappa_exams.csv",
            "model_card.md",
            "model_card.html",
            "predictions_threshold.csv",
        )
        expected |= {f"{model}/{file}" for file in own}
        expected |= {
            f"{model}/{n}{end}"
            for n in ("02_train_model", "03_evaluate_model", "03a_where_it_looked")
            for end in (".ipynb", ".html")
        }
        expected |= {
            f"figures/{model}_{n}.png"
            for n in ("sample_predictions", "confusion_matrix", "evaluation_figure")
        }
    assert expected <= names
    assert not [name for name in names if "partial" in name]
    assert any(re.fullmatch(r"log-\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d\.log", name) for name in names)


def test_study_json_has_states_versions_and_fingerprint(study):
    record = read_json(study / "study.json")
    assert record["state"] == "done"
    assert len(record["steps"]) == 18
    assert all(step["state"] == "done" and step["seconds"] > 0 for step in record["steps"])
    assert record["versions"]["tensorflow"][0].isdigit()
    assert record["data"]["files"] >= 133
    assert record["settings"]["data"] == "local"


def test_five_models_are_ranked_on_the_same_images(study):
    table = pd.read_csv(study / "comparison.csv")
    assert len(table) == 5
    assert table["rank"].tolist() == sorted(table["rank"])
    assert len(set(table["n"])) == 1
    metrics = read_json(study / "VGG16" / "metrics.json")
    assert {"value", "ci_low", "ci_high"} <= set(metrics["accuracy"])
    assert {"n", "n_groups", "threshold", "threshold_rule", "tp", "fp", "tn", "fn", "validation"} <= set(
        metrics
    )


def test_no_patient_is_on_two_sides(study):
    used = pd.read_csv(study / "manifest.csv").query("status == 'used'")
    assert used.groupby("patient")["split"].nunique().max() == 1


def test_log_holds_hyperparameters_progress_and_results_with_times(study):
    killed, text = (path.read_text() for path in sorted(study.glob("log-*.log")))  # the second run went on
    assert "01_data_exploration done in" in killed
    for words in (
        "02_train_model: ",  # what a step printed
        "weights            random",  # which differs from the defaults
        '"learning_rate": 0.001',
        "/18] 04_compare_models",
        "04_compare_models done in",
        "07_localize done in",
        "AUROC",
        "Complete in",
        "Random weights",
    ):
        assert words in text
    assert all(re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d ", line) for line in text.splitlines())


def test_features_that_the_cache_lost_are_computed_again_and_the_same(study, root_folder, monkeypatch):
    from xray_helpers.models.features import load_study_features
    from xray_helpers.study.cache import clear_cache

    monkeypatch.setenv("XRAY_HELPERS_ROOT", str(root_folder))
    table = read_csv(study / "manifest.csv")
    before, rows = load_study_features(study, "MobileNetV2", table)
    clear_cache("features")
    after, again = load_study_features(study, "MobileNetV2", table)
    assert len(before) == len(rows) > 100
    assert (before == after).all()
    assert again["path"].tolist() == rows["path"].tolist()


def test_a_damaged_study_yaml_costs_a_model_card_the_answers_alone(study, tmp_path):
    from xray_helpers.reports.cards import write_model_card

    copy = shutil.copytree(study, tmp_path / "copy")
    (copy / "study.yaml").write_text("intended_use: 'half a line")
    page = write_model_card(copy, "VGG16").read_text()
    assert "to be stated by a person" in page


def test_every_link_and_picture_of_the_index_exists(study):
    page = (study / "index.html").read_text()
    targets = [
        target for target in re.findall(r'(?:href|src)="([^"]+)"', page) if not target.startswith("data:")
    ]
    assert len(targets) > 40
    for target in targets:
        assert (study / target).exists(), target
    assert "Random weights" in page
    assert page.count("95 % interval") >= 1


def test_reports_ask_no_host_and_describe_their_pictures(study):
    for report in [*study.glob("*.html"), *study.glob("*/*.html")]:
        page = report.read_text()
        assert not re.findall(r'(?:src|href)="(?:https?:)?//', page), report
        assert page.count("<script") == 1
        for picture in re.findall(r"<img [^>]*>", page):
            assert re.search(r'alt="[^"]{10,}"', picture), (report, picture[-200:])


def test_a_report_on_training_begins_with_how_it_ended(study):
    for report in study.glob("*/02_train_model.html"):
        verdict = re.search(r'<p class="verdict">(.*?)</p>', report.read_text())[1]
        assert verdict.startswith(f"{report.parent.name} "), verdict
        assert "is kept, with validation loss" in verdict


def test_the_banner_of_random_weights_is_in_every_notebook(study):
    for report in study.rglob("0*.html"):
        assert "no ImageNet weights were used" in report.read_text(), report


def test_the_saved_model_takes_grey_pixels(study, secret_csv):
    import numpy as np

    from xray_helpers.data.manifest import read_pictures
    from xray_helpers.images.pixels import resize
    from xray_helpers.models.head import predict_pixels
    from xray_helpers.models.saved import load_model

    table = pd.read_csv(study / "DenseNet121" / "predictions_test.csv").head(40)
    pictures = [resize(p, (80, 80)) for p in read_pictures(table["path"], secret_csv.parent)]
    model = load_model(study / "DenseNet121" / "model.keras")
    assert model.input_shape == (None, 80, 80, 1)
    assert predict_pixels(model, np.stack(pictures)) == pytest.approx(table["y_prob"].to_numpy(), abs=1e-4)


def test_new_files_are_judged_or_have_their_reason(study, home, secret_csv, tmp_path):
    import shutil

    from sklearn.datasets import load_sample_image

    from xray_helpers.models.prediction import predict_files

    known = pd.read_csv(study / "VGG16" / "predictions_test.csv").set_index("path")["y_prob"].head(5)
    for path in known.index:
        shutil.copy(secret_csv.parent / path, tmp_path / path.replace("/", "_"))
    shutil.copy(secret_csv.parent / "scan.dcm", tmp_path / "scan")  # without its ending, as exports are
    Image.fromarray(load_sample_image("china.jpg")).save(tmp_path / "photo.jpg")
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "notes.txt").write_text("no picture")
    table = predict_files(study, "VGG16", [str(tmp_path), "nowhere.png"]).set_index("file")
    assert len(table) == 5 + 5
    threshold = read_json(study / "VGG16" / "threshold.json")["threshold"]
    for path, y_prob in known.items():
        row = table.loc[f"{tmp_path}/{path.replace('/', '_')}"]
        assert row["probability"] == pytest.approx(y_prob, abs=1e-3)
        called = "Fractured" if y_prob >= threshold else "Non-Fractured"
        assert row["decision"] == ("" if "too near the threshold" in row["warning"] else called)
    assert 0 <= table.loc[f"{tmp_path}/scan", "probability"] <= 1
    assert "a colour photograph, no radiograph" in table.loc[f"{tmp_path}/photo.jpg", "warning"]
    assert "no picture of a known format" in table.loc[f"{tmp_path}/text.png", "reason"]
    assert "no image by its name" in table.loc[f"{tmp_path}/notes.txt", "reason"]
    assert "cannot be opened" in table.loc["nowhere.png", "reason"]
    command = [
        sys.executable,
        "-m",
        "xray_helpers",
        "predict",
        "small",
        "VGG16",
        str(tmp_path),
        "--csv",
        str(tmp_path / "o.csv"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "P(Fractured) = " in done.stdout
    assert "sensitivity" in done.stdout
    assert len(pd.read_csv(tmp_path / "o.csv")) == 9
    none = subprocess.run([*command[:5], "VGG16", "nowhere.png"], capture_output=True, text=True, check=False)
    assert none.returncode == 1
    with pytest.raises(
        InputError, match="A name of a file is empty"
    ):  # a shell's variable that was empty, not this folder
        predict_files(study, "VGG16", [""])
    hostile = write_hostile_folder(tmp_path / "hostile")
    table = predict_files(study, "MobileNetV2", [str(hostile)])
    listed = sum(len(files) for _, _, files in os.walk(hostile)) + 1  # and a link to a folder
    assert len(table) == listed
    assert (table["probability"].notna() != table["reason"].ne("")).all()
    with pytest.raises(InputError, match="has no model 'VGG19': it has"):
        predict_files(study, "VGG19", ["x"])


def predictions(study, model="MobileNetV2"):
    return [(study / model / f"predictions_{part}.csv").read_text() for part in ("val", "test")]


def test_raw_papermill_gives_the_same(study, home, secret_csv, small, tmp_path):
    parameters = tmp_path / "p.yaml"
    parameters.write_text(
        json.dumps(small | {"name": "raw", "data": str(secret_csv), "models": ["MobileNetV2"]})
    )
    of_models = ("02_train_model", "03_evaluate_model", "03a_where_it_looked")
    for notebook in ("01_data_exploration", *of_models, "04_compare_models", "07_localize"):
        command = [
            sys.executable,
            "-m",
            "papermill",
            str(notebooks_folder() / f"{notebook}.ipynb"),
            str(tmp_path / f"{notebook}.ipynb"),
            "-f",
            str(parameters),
            "-k",
            "python3",
            "--no-progress-bar",
        ]
        command += ["-p", "model", "MobileNetV2"] if notebook[:2] in ("02", "03") else []
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
        assert done.returncode == 0, done.stderr[-3000:]
    assert predictions(home / "reports" / "raw") == predictions(study)
    assert (home / "reports" / "raw" / "comparison.csv").exists()


def test_the_same_study_twice_and_a_failing_model(study, failed_study):
    """One more run in Python: equal predictions again, and a step that fails spoils nothing else."""
    assert predictions(failed_study) == predictions(study)
    record = read_json(failed_study / "study.json")
    states = {step["name"]: step["state"] for step in record["steps"]}
    assert record["state"] == "failed"
    assert states["VGG16/02_train_model"] == "failed"
    assert states["VGG16/03_evaluate_model"] == states["VGG16/03a_where_it_looked"] == "not run"
    assert states["04_compare_models"] == "done"
    assert "learning_rate = -1.0 cannot be used" in (failed_study / "index.html").read_text()
    report = (failed_study / "VGG16" / "02_train_model.html").read_text()
    assert "This notebook stopped before its end" in report
    assert "Traceback" in report
    assert pd.read_csv(failed_study / "comparison.csv")["model"].tolist() == ["MobileNetV2"]
    assert {Path(p).suffix for p in os.listdir(failed_study / "VGG16")} == {".html", ".ipynb"}


def test_nothing_private_is_in_a_study(study, failed_study, secret_csv, root_folder):
    """User, host, token, patient and every absolute place, planted by the fixtures, are nowhere but in
    local.json.
    """
    words = [
        "planted-user",
        "planted-host",
        "Planted^Patient",
        "planted-secret",
        "Planted-ID",
        "Planted-Hospital",
        "9.8.7.6.5",
        str(secret_csv.parent),
        str(root_folder),
    ]
    words += [sys.prefix, str(notebooks_folder().parent)]
    assert (
        pd.read_csv(study / "manifest.csv").set_index("path").loc["scan.dcm", "mode"]
        == "DICOM MONOCHROME1 8 bit"
    )
    files = [
        p
        for folder in (study, failed_study)
        for p in folder.rglob("*")
        if p.is_file() and p.name != "local.json"
    ]
    assert any(p.suffix == ".log" for p in files)
    for path in files:
        contents = [path.read_bytes()]
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                contents += [archive.read(name) for name in archive.namelist()]
        for word in words:
            assert not any(word.encode() in content for content in contents), (path, word)


def test_a_study_to_send_holds_no_radiograph_when_asked(study, home):
    index = export_study(study, home / "sent", images=False)
    names = {p.relative_to(index.parent).as_posix() for p in index.parent.rglob("*") if p.is_file()}
    assert "VGG16/03_evaluate_model.html" in names
    assert "figures/models_evaluation_grid.png" in names
    assert not [
        name
        for name in names
        if name.endswith((".ipynb", ".keras", ".log", "local.json", "sample_predictions.png"))
    ]
    assert (
        "Radiographs are left out of this report"
        in (index.parent / "VGG16" / "03_evaluate_model.html").read_text()
    )
    targets = [
        t
        for t in re.findall(r'(?:href|src)="([^"#]+)"', index.read_text())
        if not t.startswith(("data:", "../"))
    ]
    assert all((index.parent / target).exists() for target in targets)


def test_raw_papermill_refuses_an_unknown_parameter(home, tmp_path):
    command = [
        sys.executable,
        "-m",
        "papermill",
        str(notebooks_folder() / "02_train_model.ipynb"),
        str(tmp_path / "out.ipynb"),
        "-p",
        "epoch",
        "5",
        "-k",
        "python3",
        "--no-progress-bar",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "did you mean epochs?" in done.stderr


def test_a_leaky_split_stops_the_study_unless_it_is_accepted(home, secret_csv, small):
    """The set's own folders, drawn by file: 01 ends at the gate, and nothing is trained."""
    table = pd.read_csv(secret_csv)
    table["split"] = ["test" if i % 4 == 0 else "train" for i in range(len(table))]
    leaky = secret_csv.with_name("leaky.csv")
    table.to_csv(leaky, index=False)
    quick = small | {"maps": 0, "repeats": 0, "epochs": 1}
    settings = build_settings(**quick, name="leaky", data=str(leaky), models=["MobileNetV2"], split="folders")
    index = run_study(settings)
    record = read_json(index.parent / "study.json")
    assert [step["state"] for step in record["steps"]] == ["failed", *["not run"] * 5]
    assert re.search(r"The split leaks: \d+ of \d+ test images", record["steps"][0]["error"])
    assert "accept_leak=true" in record["steps"][0]["error"]
    index = run_study(settings.model_copy(update={"accept_leak": True}), overwrite=True)
    assert read_json(index.parent / "study.json")["state"] == "done"
    for page in [index, *index.parent.rglob("0*.html")]:
        assert 'class="banner bad"' in page.read_text(), page
        assert "The split leaks" in page.read_text()
    assert read_json(index.parent / "MobileNetV2" / "metrics.json")["leak"] > 0.3
    assert "test leaked" in index.read_text()


@pytest.mark.parametrize(
    ("page", "pictures"),
    [
        ("01_data_exploration", ["Strips"]),
        ("MobileNetV2/02_train_model", ["Learning curve"]),
        (
            "MobileNetV2/03_evaluate_model",
            ["ROC, precision and recall", "confident errors, and the images it is least sure of"],
        ),
        ("MobileNetV2/03a_where_it_looked", ["Grad-CAM of", "maps"]),
        ("04_compare_models", ["radiographs. Test images on which models differ"]),
    ],
)
def test_what_is_clicked_in_jupyterlab_is_a_picture_in_the_report(study, page, pictures):
    words = (study / f"{page}.html").read_text()
    shown = " ".join(re.findall(r'<img[^>]*alt="([^"]*)"', words))
    assert [text for text in pictures if text.lower() not in shown.lower()] == []
    assert "application/vnd.jupyter.widget" not in words


def test_corrections_by_hand_leave_no_result_of_before_in_force(study, home, tmp_path):
    """01 run again by a person, with a correction: what came after is told as stale, and nothing runs on
    it.
    """
    from xray_helpers.runner.status import describe_status

    copy = home / "reports" / "by-hand"
    shutil.copytree(study, copy)
    before = read_csv(copy / "manifest.csv")
    used = before[before["status"] == "used"]
    pair = [used.loc[used["split"] == split, "sha256"].iloc[0] for split in ("test", "train")]
    corrections = tmp_path / "corrections.csv"
    pd.DataFrame([("join", *pair)], columns=["action", "sha256_a", "sha256_b"]).to_csv(
        corrections, index=False
    )
    shared = {"name": "by-hand", "data": "local", "weights": "random"}
    own = {"use_subset": 1.0, "corrections": str(corrections)}
    papermill.execute_notebook(
        notebooks_folder() / "01_data_exploration.ipynb",
        tmp_path / "01.ipynb",
        parameters=shared | own,
        cwd=home,
        kernel_name="python3",
        progress_bar=False,
    )
    after = read_csv(copy / "manifest.csv")
    joined = after[after["sha256"].isin(pair)]
    assert len(set(joined["group"])) == 1
    assert set(joined["split"]) == {"test"}
    rest = ~after["group"].isin(joined["group"])
    assert after.loc[rest, ["path", "split"]].equals(before.loc[rest, ["path", "split"]])
    assert "it is stale" in describe_status(copy)[-1]
    assert "steps are stale" in (copy / "index.html").read_text()
    with pytest.raises(papermill.PapermillExecutionError, match="run 02 again for VGG16"):
        papermill.execute_notebook(
            notebooks_folder() / "03_evaluate_model.ipynb",
            tmp_path / "03.ipynb",
            cwd=home,
            parameters={"name": "by-hand", "model": "VGG16"},
            kernel_name="python3",
            progress_bar=False,
        )
    shutil.rmtree(copy)
