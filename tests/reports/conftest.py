"""Studies for the pages: records without results, and one with hostile names."""

import nbformat
import pandas as pd
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from xray_helpers.settings import build_settings
from xray_helpers.study.files import write_csv, write_json
from xray_helpers.study.folders import shareable
from xray_helpers.study.machine import provenance

HOSTILE = "<img src=x onerror=alert(1)>"


@pytest.fixture
def make_study(root):
    """Write ``study.json`` of a study on phantoms; return its folder."""

    def make(name="s", record=None, **settings):
        settings = build_settings(name=name, **{"data": "phantoms"} | settings)
        content = {"settings": shareable(settings), **provenance(), **(record or {})}
        write_json(root / "reports" / name / "study.json", content)
        return root / "reports" / name

    return make


@pytest.fixture
def folder(make_study):
    """A failed study whose names are HTML."""
    step = {"name": HOSTILE, "report": "01", "state": "failed", "seconds": 3.2, "error": "{{7*7}} failed"}
    folder = make_study(record={"steps": [step], "state": "failed"})
    table = pd.DataFrame(
        {
            "path": [f"{HOSTILE}{i}.png" for i in range(8)],
            "label": ["Fractured", "Non-Fractured"] * 4,
            "group": [str(i) for i in range(8)],
            "source_group": "a",
            "patient": None,
            "status": "used",
            "split": ["train", "train", "validation", "validation", "test", "test", "train", "train"],
            "reason": "",
            "width": 10,
            "height": 12,
            "mode": HOSTILE,
        }
    )
    write_csv(folder / "manifest.csv", table)
    return folder


@pytest.fixture
def write_notebook(tmp_path):
    """Write a notebook whose only code cell has the given outputs, or one of the given cells."""

    def write(*outputs, cells=None, path=tmp_path / "n.ipynb"):
        cells = cells or [new_markdown_cell("# A question?"), new_code_cell("1 + 1", outputs=list(outputs))]
        path.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(new_notebook(cells=cells), path)
        return path

    return write
