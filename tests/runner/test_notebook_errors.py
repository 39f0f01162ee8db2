"""An error that a user can mend, in a kernel: a sentence for people, and still an error for papermill."""

import nbformat
import papermill
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from xray_helpers.reports.html import write_html
from xray_helpers.settings import InputError


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "Use -p split=grouped, or -p accept_leak=true to go on.",
            'Use split = "grouped", or accept_leak = True to',
        ),
        ("or give -p weights=random (a stand-in)", 'or give weights = "random" (a stand-in)'),
        ("Leave the model out with --models.", "out with models."),
        ("epochs = 'x' cannot be used: a number.", "Change it in the cell of parameters"),
    ],
)
def test_advice_for_the_command_line_becomes_advice_for_the_parameters_cell(text, words):
    shown = InputError(text).for_notebook()
    assert words in shown
    assert shown.endswith("run all cells again.")
    assert InputError("There is no file a.png.").for_notebook() == "There is no file a.png."


def test_a_notebook_stops_with_one_sentence_that_papermill_and_the_report_see(root, tmp_path):
    cells = [
        new_code_cell('name = "s"\nepochs = 0  # wrong', metadata={"tags": ["parameters"]}),
        new_code_cell("import xray_helpers as xh\nrun = xh.open_run(globals())"),
        new_code_cell("print('never')"),
    ]
    nbformat.write(new_notebook(cells=cells), tmp_path / "a.ipynb")
    with pytest.raises(papermill.exceptions.PapermillExecutionError) as caught:
        papermill.execute_notebook(
            str(tmp_path / "a.ipynb"), str(tmp_path / "b.ipynb"), kernel_name="python3", progress_bar=False
        )
    assert caught.value.ename == "InputError"
    assert caught.value.evalue.startswith("epochs = 0 cannot be used")
    outputs = [
        one for cell in nbformat.read(tmp_path / "b.ipynb", 4).cells for one in cell.get("outputs", [])
    ]
    (error,) = [one for one in outputs if one.output_type == "error"]
    assert len(error.traceback) == 1
    assert "Change it in the cell of parameters" in error.traceback[0]
    assert "never" not in str(outputs)
    page = write_html(tmp_path / "b.ipynb", error=str(caught.value.evalue)).read_text()
    assert "This notebook stopped before its end" in page
    assert "Change it in the cell of parameters" in page
