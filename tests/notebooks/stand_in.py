"""Light notebooks in the place of the real ones: they copy, slowly, what a recorded study holds."""

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from xray_helpers.runner.graph import build_steps
from xray_helpers.study.folders import notebooks_folder

COPY = """
import os, shutil, sys, time
from pathlib import Path
from xray_helpers.study.files import atomic_write, read_json, sample_checksum, write_json
from xray_helpers.study.folders import study_folder
study, recorded, model = study_folder(name), Path({recorded!r}), globals().get("model", "")
"""
WRITE = """
for file in {files!r}:
    time.sleep({pause})
    file = file.replace("MODEL", model)
    if file.endswith("metrics.json"):  # depends on what was read, so that a wrong file would show
        read = sample_checksum(study / model / "predictions_test.csv").hex()
        write_json(study / file, read_json(recorded / file) | {{"read": read}})
    else:
        with atomic_write(study / file) as partial:
            shutil.copyfile(recorded / file, partial)
print("wrote", len({files!r}), "files")
"""


def write_notebooks(folder, recorded, *, pause=0.02, first=None):
    """Write them; `first` maps the name of one to source that it runs before it writes."""
    folder.mkdir(parents=True, exist_ok=True)
    for step in build_steps(("MODEL",), {"MODEL": 1}):
        real = nbformat.read(notebooks_folder() / f"{step.notebook}.ipynb", as_version=4)
        parameters = next(cell for cell in real.cells if "parameters" in cell.metadata.get("tags", []))
        cells = [
            new_markdown_cell(f"# {step.notebook}"),
            parameters,
            new_code_cell(COPY.format(recorded=str(recorded))),
        ]
        cells += [new_code_cell(source) for name, source in (first or {}).items() if name == step.notebook]
        cells += [new_code_cell(WRITE.format(files=step.writes, pause=pause))]
        nbformat.write(new_notebook(cells=cells, metadata=real.metadata), folder / f"{step.notebook}.ipynb")
    return folder
