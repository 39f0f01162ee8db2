"""What a person asks for runs by the engine of the series: once, again where something changed, and told."""

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from xray_helpers.reports.pages import write_index
from xray_helpers.runner.asked import plan_asked, run_asked
from xray_helpers.runner.options import RunOptions
from xray_helpers.runner.steps import write_record
from xray_helpers.settings import InputError, Settings
from xray_helpers.study.files import read_json, write_json, write_text
from xray_helpers.study.folders import open_study

ONE = 'name = "quick"'


def write(folder, name, *cells, **described):
    first = new_code_cell(cells[0], metadata={"tags": ["parameters"]})
    cells = [first, *map(new_code_cell, cells[1:])]
    notebook = new_notebook(cells=cells, metadata={"xray_helpers": described})
    nbformat.write(notebook, folder / f"{name}.ipynb")


@pytest.fixture
def study(tmp_path, monkeypatch):
    """A study of one notebook, as if it were done, and one to ask for."""
    monkeypatch.setenv("XRAY_HELPERS_ROOT", str(tmp_path))
    notebooks = tmp_path / "notebooks"
    monkeypatch.setenv("XRAY_HELPERS_NOTEBOOKS", str(notebooks))
    notebooks.mkdir()
    write(notebooks, "01_first", ONE, per="study", writes=["one.txt"])
    code = "import pathlib\nplace = pathlib.Path(f'reports/{name}/federated/two')\n"
    code += "(place / 'sum.txt').write_text(str(seed))"
    options = {"needs": ["01_first"], "any_need": True, "writes": ["{place}/sum.txt"]}
    write(notebooks, "09_mine", f"{ONE}\nseed = 1", code, per="federated", **options)
    folder = open_study(Settings(name="quick", seed=5, models=["VGG16"]))
    write_text(folder / "one.txt", "1")
    write_record("01_first", folder, ["one.txt"], {"reads": {}}, {})
    steps = [{"name": "01_first", "report": "01_first", "state": "done", "writes": ["one.txt"]}]
    write_json(folder / "study.json", read_json(folder / "study.json") | {"state": "done", "steps": steps})
    return folder


def test_it_runs_once_and_again_when_what_it_reads_has_changed_and_the_index_lists_it(study):
    def ask():
        return run_asked(plan_asked(study, "federated", "federated/two", {}), RunOptions())

    before = read_json(study / "study.json")
    page, error = ask()
    assert (page.relative_to(study).as_posix(), error) == ("federated/two/09_mine.html", "")
    assert (study / "federated/two/sum.txt").read_text() == "5"  # the study's own seed
    assert read_json(study / "study.json") == before
    assert 'href="federated/two/09_mine.html"' in (study / "index.html").read_text()
    began = page.stat().st_mtime_ns
    assert ask() == (page, "")
    assert page.stat().st_mtime_ns == began
    assert "stale" not in write_index(study).read_text()
    write_text(study / "one.txt", "changed")
    write_record("01_first", study, ["one.txt"], {"reads": {}}, {})
    assert "federated/two</a>: stale" in write_index(study).read_text()
    assert ask() == (page, "")
    assert page.stat().st_mtime_ns > began


def test_a_notebook_that_fails_is_told_and_one_that_is_not_there_too(study, tmp_path):
    write(tmp_path / "notebooks", "09_mine", ONE, "1 / 0", per="federated", needs=["01_first"])
    page, error = run_asked(plan_asked(study, "federated", "federated/two", {}))
    assert page.exists()
    assert "ZeroDivisionError" in error
    assert "failed. " in (study / "index.html").read_text()
    with pytest.raises(InputError, match="No notebook of notebooks/ runs per export"):
        plan_asked(study, "export", "VGG16/export", {"model": "VGG16"})
