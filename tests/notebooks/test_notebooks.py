"""What every notebook keeps to, looked at without running any."""

import ast
import json

import pytest

from xray_helpers.settings import Settings
from xray_helpers.study.folders import notebooks_folder
from xray_helpers.study.parameters import NOTEBOOK_ONLY

NOTEBOOKS = sorted(notebooks_folder().glob("*.ipynb"))


def cells(path, kind="code"):
    return [c for c in json.loads(path.read_text())["cells"] if c["cell_type"] == kind]


def test_the_series_is_there():
    names = [path.stem for path in NOTEBOOKS]
    assert names == [
        "01_data_exploration",
        "02_train_model",
        "02a_extract_features",
        "03_evaluate_model",
        "03a_where_it_looked",
        "04_compare_models",
        "05_reading_room",
        "06_external_test",
        "07_localize",
        "08_export",
        "09_federated",
    ]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_no_outputs_are_committed(path):
    for cell in cells(path):
        assert not cell["outputs"]
        assert cell["execution_count"] is None


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_parameters_are_literals_with_help_and_the_settings_own_defaults(path):
    tagged = [c for c in cells(path) if "parameters" in c["metadata"].get("tags", [])]
    assert len(tagged) == 1
    source = "".join(tagged[0]["source"])
    lines = source.splitlines()
    for statement, line in zip(ast.parse(source).body, lines, strict=True):
        name, value = statement.targets[0].id, ast.literal_eval(statement.value)
        help_text = line.split("  # ")[1]
        if name == "model":
            assert value in Settings().models
            continue
        if name in NOTEBOOK_ONLY:
            continue
        default = Settings.model_fields[name].default
        assert value == (list(default) if isinstance(default, tuple) else default), name
        assert help_text == Settings.model_fields[name].description, name


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_cells_are_few_and_short_and_each_is_led_in(path):
    assert len(cells(path)) <= 12
    for cell in cells(path):
        source = "".join(cell["source"])
        assert len(source.splitlines()) <= 15 or "parameters" in cell["metadata"].get("tags", [])
        assert "/home" not in source
        assert not source.startswith(("!", "%"))
        last = ast.unparse(ast.parse(source).body[-1])
        assert not last.startswith("xh.study.write_")  # its value, a path on this machine, would be shown
    opening = "".join(cells(path, "markdown")[0]["source"])
    for word in ("# ", "**Reads**", "**Beware:**"):
        assert word.lower() in opening.lower()
    assert "What this means" in "".join(cells(path, "markdown")[-1]["source"])


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_no_cell_gives_a_parameter_another_value(path):
    """The opening, run once more by hand, would take it for what a person typed."""
    parameters, others = set(), set()
    for cell in cells(path):
        tree = ast.parse("".join(cell["source"]))
        loops = [n for n in ast.walk(tree) if isinstance(n, ast.comprehension)]
        local = {id(n) for loop in loops for n in ast.walk(loop.target)}
        names = (n for n in ast.walk(tree) if isinstance(n, ast.Name) and id(n) not in local)
        stored = {n.id for n in names if isinstance(n.ctx, ast.Store)}
        if "parameters" in cell["metadata"].get("tags", []):
            parameters = stored
        else:
            others |= stored
    assert parameters & others == set()


def test_the_series_passes_every_declared_parameter():
    from xray_helpers.runner.graph import build_steps, notebook_parameters

    for step in build_steps(("VGG16",), {"VGG16": 2}):
        values = notebook_parameters(step, Settings(data="/home/somebody/x", weights="../w"))
        json.dumps(values)  # plain literals
        assert "/home/somebody/x" not in values.values()
        if "model" in values:
            assert values["model"] == "VGG16"
