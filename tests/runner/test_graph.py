"""The notebooks are the graph of a study: what their metadata say decides what runs, and after what."""

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from xray_helpers.runner.graph import build_asked_steps, build_steps, read_notebooks
from xray_helpers.settings import InputError


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XRAY_HELPERS_NOTEBOOKS", str(tmp_path))
    return tmp_path


def write(folder, name, parameters='name = "quick"', **described):
    cell = new_code_cell(parameters, metadata={"tags": ["parameters"]})
    metadata = {"xray_helpers": described} if described else {}
    nbformat.write(new_notebook(cells=[cell], metadata=metadata), folder / f"{name}.ipynb")


def test_the_series_is_built_from_its_notebooks():
    steps = {step.name: step for step in build_steps(("A", "B"), {"B": 2})}
    assert list(steps) == [
        "01_data_exploration",
        "A/02_train_model",
        "A/03_evaluate_model",
        "A/03a_where_it_looked",
        "B/02a_extract_features_1_of_2",
        "B/02a_extract_features_2_of_2",
        "B/02_train_model",
        "B/03_evaluate_model",
        "B/03a_where_it_looked",
        "04_compare_models",
        "07_localize",
    ]
    assert steps["B/02_train_model"].needs[1:] == tuple(list(steps)[4:6])
    assert steps["B/02a_extract_features_2_of_2"].parameters == {"model": "B", "shard": 1, "shards": 2}
    assert "B/features_2_of_2.json" in steps["B/02a_extract_features_2_of_2"].writes
    assert "figures/A_confusion_matrix.png" in steps["A/03_evaluate_model"].writes
    assert steps["04_compare_models"].any_need
    assert not steps["A/03_evaluate_model"].any_need


def test_a_notebook_of_ones_own_runs_after_those_it_needs(folder):
    write(folder, "01_first", per="study")
    write(folder, "02_train", 'name = "quick"\nmodel = "VGG16"', per="model", needs=["01_first"])
    write(folder, "06_question", per="study", needs=["02_train"], writes=["answer.csv"])
    write(folder, "07_each", 'name = "quick"\nmodel = "VGG16"', per="model", needs=["06_question"])
    steps = build_steps(("A", "B"))
    assert [step.name for step in steps] == [
        "01_first",
        "A/02_train",
        "B/02_train",
        "06_question",
        "A/07_each",
        "B/07_each",
    ]
    assert steps[3].needs == ("A/02_train", "B/02_train")
    assert steps[3].writes == ("answer.csv",)
    assert steps[5].needs == ("06_question",)


def test_without_metadata_its_parameters_say_how_often_it_runs(folder):
    write(folder, "01_first", per="study")
    write(folder, "02_visit", per="visit")
    write(folder, "03_mine", 'name = "quick"\nmodel = "VGG16"\nseed = 1')
    write(folder, "04_ours")
    write(folder, "05_elsewhere", "x = 1")  # belongs to no study
    assert [step.name for step in build_steps(("A",))] == ["01_first", "A/03_mine", "04_ours"]
    assert build_steps(("A",))[-1].needs == ("01_first", "A/03_mine")
    assert build_steps(("A",))[-1].any_need  # a model that failed does not hold it up


@pytest.mark.parametrize(
    ("described", "parameters", "message"),
    [
        ({"per": "weeks"}, 'name = "quick"', r"02_mine.ipynb cannot be understood: write per"),
        ({"needs": []}, 'name = "quick"', "cannot be understood"),
        ({"per": "study", "needs": ["99_gone"]}, 'name = "quick"', "needs 99_gone, which is not there"),
        ({"per": "study", "needs": ["02_mine"]}, 'name = "quick"', "in a circle"),
        ({"per": "study"}, 'name = "quick"\nepoch = 3', "has the parameter 'epoch', which no study has"),
    ],
)
def test_what_cannot_be_understood_is_refused(folder, described, parameters, message):
    write(folder, "02_mine", parameters, **described)
    with pytest.raises(InputError, match=message):
        read_notebooks()


def test_what_a_person_asks_for_needs_the_steps_of_its_model_and_lies_in_its_place(folder):
    write(folder, "02_train", 'name = "quick"\nmodel = "VGG16"', per="model")
    writes = ["{place}/proof.csv", "{model}/one.txt"]
    parameters = 'name = "quick"\nmodel = "VGG16"'
    write(folder, "08_mine", parameters, per="export", needs=["02_train"], writes=writes)
    steps = build_steps(("A", "B"))
    assert [step.name for step in steps] == ["A/02_train", "B/02_train"]
    (asked,) = build_asked_steps(steps, "export", "B/export", {"model": "B"})
    assert (asked.name, asked.needs) == ("B/export/08_mine", ("B/02_train",))
    assert asked.writes == ("B/export/proof.csv", "B/one.txt")
    assert build_asked_steps(steps, "federated", "federated/two", {}) == []
