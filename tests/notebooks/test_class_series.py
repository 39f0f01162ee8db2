"""A study of four classes, and one of the same images with types merged into two: notebooks 01 to 04."""

import pandas as pd
import papermill
import pytest

from xray_helpers.models.prediction import predict_files
from xray_helpers.runner.series import run_study
from xray_helpers.settings import Classes, build_settings, set_classes
from xray_helpers.study.files import read_csv, read_json
from xray_helpers.study.folders import notebooks_folder
from xray_helpers.synthetic.dataset import HOSPITALS, write_phantoms

pytestmark = pytest.mark.slow
NAMES = ("none", "comminuted", "displaced", "oblique")


@pytest.fixture(scope="module")
def types(tmp_path_factory):
    """A CSV of some 240 phantoms whose labels are types of fractures."""
    folder = tmp_path_factory.mktemp("types") / "set"
    return write_phantoms(folder, images=240, planted=6, seed=5, hospital=HOSPITALS["types"])


@pytest.fixture(scope="module")
def class_study(root_folder, types, small):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XRAY_HELPERS_ROOT", str(root_folder))
        values = small | {"models": ["MobileNetV2", "VGG16"], "flips": True, "class_weight": "balanced"}
        index = run_study(build_settings(name="types", data=str(types), **values))
        yield index.parent
        set_classes(Classes())


def test_each_class_is_judged_and_models_are_compared_by_all(class_study):
    assert read_json(class_study / "study.json")["state"] == "done"
    found = read_csv(class_study / "MobileNetV2" / "classes.csv")
    assert set(found["class"]) == {"all", *NAMES}
    assert {"macro_auroc", "accuracy", "kappa"} <= set(found.loc[found["class"] == "all", "metric"])
    page = (class_study / "MobileNetV2" / "03_evaluate_model.html").read_text()
    assert "one per class: none, comminuted, displaced, oblique" in page  # the figure's alternative text
    assert "names the right one of 4 classes" in page
    assert "macro AUROC" in (class_study / "04_compare_models.html").read_text()
    assert (class_study / "class_pairs.csv").exists()


def test_what_was_assumed_stands_first(class_study):
    page = (class_study / "index.html").read_text()
    assert page.index("It is assumed that none means no fracture") < page.index("Scores on the test part")
    assert "names the right one of 4 classes" in page
    first = (class_study / "01_data_exploration.html").read_text()
    assert first.index("4 classes were found") < first.index("From files found to images used")


def test_predictions_name_classes_and_hold_the_binary_question(class_study):
    table = pd.read_csv(class_study / "MobileNetV2" / "predictions_test.csv")
    shares = table[[f"p_{name}" for name in NAMES]]
    assert set(table["y_true"]) <= set(NAMES)
    assert shares.sum(axis=1).to_numpy() == pytest.approx(1, abs=1e-5)
    assert (shares.idxmax(axis=1) == "p_" + table["y_pred"]).all()
    assert table["y_prob"].to_numpy() == pytest.approx(1 - table["p_none"].to_numpy(), abs=1e-6)
    threshold = read_json(class_study / "MobileNetV2" / "threshold.json")["threshold"]
    assert (table["called"] == (table["y_prob"] >= threshold)).all()
    assert (table["positive"] == (table["y_true"] != "none")).all()


def test_new_files_get_the_probabilities_of_the_study(class_study, types):
    known = pd.read_csv(class_study / "MobileNetV2" / "predictions_test.csv").head(3)
    table = predict_files(class_study, "MobileNetV2", [str(types.parent / path) for path in known["path"]])
    assert table["most_probable"].tolist() == known["y_pred"].tolist()
    assert table["p_none"].to_numpy() == pytest.approx(known["p_none"].to_numpy(), abs=1e-3)


def test_the_card_and_the_checklist_know_the_classes(class_study):
    card = (class_study / "MobileNetV2" / "model_card.md").read_text()
    assert "softmax over 4 classes" in card and "none, comminuted, displaced, oblique" in card
    assert "| displaced | recall |" in card
    assert "displaced" in (class_study / "reporting_checklist.html").read_text()


def test_raw_papermill_gives_the_same(class_study, types, small, tmp_path, monkeypatch):
    monkeypatch.setenv("XRAY_HELPERS_ROOT", str(class_study.parents[1]))
    recorded = read_json(class_study / "study.json")["settings"]
    values = {"name": "types-by-hand", "data": str(types)}
    for step, extra in (("01_data_exploration", {}), ("02_train_model", {"model": "MobileNetV2"})):
        file = notebooks_folder() / f"{step}.ipynb"
        known = papermill.inspect_notebook(str(file))
        given = {name: recorded[name] for name in known if name in recorded and name not in ("data", "name")}
        chosen = {name: value for name, value in (given | values).items() if name in known}
        papermill.execute_notebook(
            str(file),
            str(tmp_path / f"{step}.ipynb"),
            chosen | extra,
            kernel_name="python3",
            progress_bar=False,
        )
    by_hand = class_study.parent / "types-by-hand" / "MobileNetV2" / "predictions_test.csv"
    assert by_hand.read_bytes() == (class_study / "MobileNetV2" / "predictions_test.csv").read_bytes()


def test_types_merged_into_two_are_a_binary_study(root_folder, types, small, monkeypatch):
    monkeypatch.setenv("XRAY_HELPERS_ROOT", str(root_folder))
    merge = {"Fractured": list(NAMES[1:]), "Non-Fractured": ["none"]}
    values = small | {"models": ["MobileNetV2"], "merge": merge}
    folder = run_study(build_settings(name="merged", data=str(types), **values)).parent
    assert read_json(folder / "study.json")["state"] == "done"
    table = pd.read_csv(folder / "MobileNetV2" / "predictions_test.csv")
    assert list(table.columns) == ["path", "group", "y_true", "y_prob", "y_pred"]
    assert (table["y_true"] == ~table["path"].str.startswith("none/")).all()
    assert read_csv(folder / "MobileNetV2" / "classes.csv").empty
    assert read_json(folder / "classes.json") == {"negative": "Non-Fractured", "positive": "Fractured"}
