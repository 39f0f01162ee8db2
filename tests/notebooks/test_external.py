"""A study on some sources of real radiographs, tested on others: by the command, by papermill, and again."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import papermill
import pytest
from PIL import Image

from xray_helpers.models.prediction import predict_and_score
from xray_helpers.reports.sharing import export_study
from xray_helpers.runner.external import plan_external, run_external
from xray_helpers.runner.series import run_study
from xray_helpers.runner.steps import why_rerun
from xray_helpers.settings import InputError, build_settings
from xray_helpers.study.external import append_history
from xray_helpers.study.files import read_csv, read_json
from xray_helpers.study.folders import notebooks_folder, root

pytestmark = pytest.mark.slow
PLANTED = 30
NAMES = {"fractured": "Fractured", "not fractured": "Non-Fractured"}


def draw_sources(shared):
    """Return one file of each source of the sample that can be read, with its class: study and external."""
    data = shared / "data" / "fracture-multi-region-sample"
    table = pd.read_csv(data.with_name(f"{data.name}-sources.csv"))
    table["label"] = [NAMES[path.split("/")[1]] for path in table["path"]]
    rng, kept = np.random.default_rng(3), []
    for _, files in table.sort_values("path").groupby("source"):
        for path, label in files[["path", "label"]].itertuples(index=False):
            try:
                Image.open(data / path).load()
            except OSError:
                continue
            kept.append((data / path, label))
            break
    order = rng.permutation(len(kept))
    return [kept[i] for i in order[:120]], [kept[i] for i in order[120:170]]


def save(pixels, folder, label, name):
    (folder / label).mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(folder / label / name)


def expose(path, rng):
    """Return a picture as another device would show it: other exposure, other size."""
    with Image.open(path) as picture:
        grey = picture.convert("L")
        size = [round(side * rng.uniform(0.8, 1.3)) for side in grey.size]
        values = np.asarray(grey.resize(size, Image.Resampling.BILINEAR), float) / 255
    return np.uint8(np.clip(values ** rng.uniform(0.75, 1.3) * rng.uniform(0.85, 1.0), 0, 1) * 255)


@pytest.fixture(scope="module")
def notebooks(tmp_path_factory):
    """A folder of the notebooks that a test elsewhere needs, so that these tests are quick; in force."""
    folder = tmp_path_factory.mktemp("notebooks")
    for name in ("01_data_exploration", "02a_extract_features", "02_train_model", "03_evaluate_model"):
        shutil.copy(notebooks_folder() / f"{name}.ipynb", folder)
    shutil.copy(notebooks_folder() / "06_external_test.ipynb", folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XRAY_HELPERS_NOTEBOOKS", str(folder))
        yield folder


@pytest.fixture(scope="module")
def place(shared, root_folder, notebooks):
    """A study of 120 sources, and a set from elsewhere: other sources, and 30 of its train part."""
    own, others = draw_sources(shared)
    data, elsewhere, rng = root_folder / "own", root_folder / "elsewhere", np.random.default_rng(8)
    for number, (path, label) in enumerate(own):
        with Image.open(path) as picture:
            save(np.asarray(picture.convert("L")), data, label, f"s{number:03d}.png")
    for number, (path, label) in enumerate(others):
        save(expose(path, rng), elsewhere, label, f"e{number:03d}.png")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XRAY_HELPERS_ROOT", str(root_folder))
        quick = {"repeats": 0, "maps": 0, "shortcuts": "off", "epochs": 40, "use_subset": 1.0, "img_size": 96}
        quick |= {"weights": str(shared / "weights"), "models": ["MobileNetV2"], "dropout_rate": 0.0}
        study = run_study(build_settings(name="sample", data=str(data), **quick)).parent
        manifest = read_csv(study / "manifest.csv").query("status == 'used' and split == 'train'")
        planted = pd.concat(
            part.sample(PLANTED // 2, random_state=1) for _, part in manifest.groupby("label")
        )
        for row in planted.itertuples():
            save(expose(data / row.path, rng), elsewhere, row.label, f"planted-{row.path.split('/')[1]}")
    return study, elsewhere, others


@pytest.fixture(scope="module")
def tested(place, root_folder):
    """The folder of the set, after the command line was run."""
    study, elsewhere, _ = place
    command = [sys.executable, "-m", "xray_helpers", "external", "sample", "--data", str(elsewhere)]
    env = os.environ | {"XRAY_HELPERS_ROOT": str(root_folder)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.strip().endswith("external/elsewhere/06_external_test.html")
    return study / "external" / "elsewhere"


def test_all_planted_sources_are_found_and_left_out(place, tested):
    table = read_csv(tested / "manifest.csv").query("status == 'used'")
    planted = table["path"].str.contains("planted-")
    assert planted.sum() == PLANTED
    assert table.loc[planted, "excluded"].all()
    assert (table.loc[planted, "shared_part"] == "train").all()
    named = table.loc[planted, "path"].str.split("planted-").str[1]
    assert (named.to_numpy() == table.loc[planted, "shared_with"].str.split("/").str[1].to_numpy()).all()
    assert table.loc[~planted, "excluded"].sum() == 0
    shared = read_json(tested / "results.json")["shared"]
    assert (shared["sources"], shared["excluded"]) == (PLANTED, PLANTED)


def test_scores_with_them_are_higher_and_do_not_count(place, tested):
    scores = read_csv(tested / "scores.csv")
    assert scores["images"].tolist() == ["without shared images", "with shared images", "shared images alone"]
    without, included, alone = scores["auroc"]
    assert without < included
    assert without < alone
    assert scores["n"].tolist() == [len(place[2]), len(place[2]) + PLANTED, PLANTED]
    assert read_json(tested / "results.json")["scores"]["MobileNetV2"]["auroc"] == without
    gap = read_csv(tested / "differences.csv").query("score == 'auroc'").iloc[0]
    own = read_json(place[0] / "MobileNetV2" / "metrics.json")["auroc"]["value"]
    assert gap["gap"] == pytest.approx(without - own)


def test_the_report_and_the_pages_of_the_study_tell_of_it(place, tested, root_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("XRAY_HELPERS_ROOT", str(root_folder))
    report = (tested / "06_external_test.html").read_text()
    lock = read_json(tested / "results.json")
    assert lock["study"] in report
    assert lock["models"]["MobileNetV2"]["model.keras"][:16] in report
    assert "not tested on these images before" in report
    for place_of_data in (place[1], root_folder):
        assert str(place_of_data) not in report
        assert str(place_of_data) not in (tested / "06_external_test.ipynb").read_text()
    assert "external/elsewhere/06_external_test.html" in (place[0] / "index.html").read_text()
    for page in ("index.html", "reporting_checklist.html", "MobileNetV2/model_card.html"):
        assert "elsewhere" in (place[0] / page).read_text(), page
    assert read_json(place[0] / "study.json")["state"] == "done"
    index = export_study(place[0], tmp_path / "out", anonymous=True)
    sent = (index.parent / "external" / "elsewhere" / "06_external_test.html").read_text()
    assert "planted-" not in sent
    assert not list(index.parent.rglob("predictions.csv"))


def test_again_there_is_nothing_to_do_until_the_set_changes(place, tested, root_folder, monkeypatch):
    monkeypatch.setenv("XRAY_HELPERS_ROOT", str(root_folder))
    began = (tested / "06_external_test.html").stat().st_mtime_ns
    page, error = run_external("sample", name="elsewhere")  # where it lies is known
    assert (error, page.stat().st_mtime_ns) == ("", began)
    assert len(read_json(tested / "external.json")["tests"]) == 1
    with pytest.raises(InputError, match="another external set of sample already"):
        run_external("sample", str(place[0]), "elsewhere")
    plan = plan_external(place[0], str(place[1]), "elsewhere", "")
    done = [(step, plan.record(step)["state"]) for step in plan.steps]
    assert [state for _, state in done] == ["done"] * 3 + ["waiting"]  # nothing of the study would run
    assert why_rerun(done[-1][0], plan.steps, plan.settings, place[0]) == ""
    save(np.full((60, 60), 9, np.uint8), place[1], "Fractured", "new.png")
    try:
        assert why_rerun(done[-1][0], plan.steps, plan.settings, place[0]) == "external_data changed"
    finally:
        (place[1] / "Fractured" / "new.png").unlink()


def test_without_labels_scores_are_refused_and_the_rest_is_shown(place, root_folder, tmp_path, monkeypatch):
    """By papermill alone."""
    monkeypatch.setenv("XRAY_HELPERS_ROOT", str(root_folder))
    files = sorted(place[1].rglob("e*.png"))
    pd.DataFrame({"path": files}).to_csv(tmp_path / "unlabelled.csv", index=False)
    parameters = {"name": "sample", "external": "blind", "external_data": str(tmp_path / "unlabelled.csv")}
    append_history(place[0] / "external" / "blind", {"study": "another", "data": "other images"})
    papermill.execute_notebook(
        notebooks_folder() / "06_external_test.ipynb",
        tmp_path / "out.ipynb",
        parameters=parameters,
        cwd=root(),
        progress_bar=False,
    )
    folder = place[0] / "external" / "blind"
    result = read_json(folder / "results.json")
    assert len(read_json(folder / "external.json")["tests"]) == 2
    assert result["refused"].startswith(
        f"No score is given: none of the {len(files)} readable images has a label"
    )
    assert result["scores"] == {}
    assert "unlike the training images" in result["domain"]
    predictions = read_csv(folder / "predictions.csv")
    assert len(predictions) == len(files)
    assert "y_true" not in predictions
    mix = read_csv(folder / "case_mix.csv")
    assert {"mean grey (0 to 255)", "width, pixels"} <= set(mix["property"])
    assert "class" not in set(mix["property"])
    outputs = json.dumps(
        [cell.get("outputs") for cell in json.loads((tmp_path / "out.ipynb").read_text())["cells"]]
    )
    assert "No score is given" in outputs
    assert "The set was tested once before" in outputs
    assert "others (another)" in outputs


def test_predict_recognises_what_the_model_was_trained_on_and_scores_the_rest(
    place, root_folder, monkeypatch
):
    monkeypatch.setenv("XRAY_HELPERS_ROOT", str(root_folder))
    table, score = predict_and_score(place[0], "MobileNetV2", [str(place[1])])
    planted = table["file"].str.contains("planted-")
    known = table["warning"].str.contains("proves nothing")
    assert known[planted].mean() >= 0.9  # without a network for the search, and one file at a time
    assert not known[~planted].any()
    assert f"On {len(place[2]) + (planted & ~known).sum()} labelled images" in score
    assert f"{known.sum()} more are left out" in score
    own = read_csv(place[0] / "manifest.csv").query("split == 'train'")["path"].iloc[0]
    again, none = predict_and_score(place[0], "MobileNetV2", [str(root_folder / "own" / own)])
    assert "trained on this very file" in again["warning"].iloc[0]
    assert none == ""
