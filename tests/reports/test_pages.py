import numpy as np
import pandas as pd
import pytest

from xray_helpers.plots import data, images, style
from xray_helpers.reports.overview import write_studies
from xray_helpers.reports.pages import write_index
from xray_helpers.reports.pdf import write_pdfs
from xray_helpers.reports.sharing import export_study
from xray_helpers.settings import InputError
from xray_helpers.study.files import read_json, write_csv, write_json


def test_the_index_shows_names_as_text_with_states_times_and_citation(folder):
    page = write_index(folder).read_text()
    assert "&lt;img src=x onerror=alert(1)&gt;" in page
    assert "<img src=x" not in page
    assert "{{7*7}} failed" in page
    assert "3 s" in page
    assert "1 of 1 steps failed" in page
    assert "How to cite" in page
    assert "The test part is small: 2 images" in page
    assert "The validation part has few sources or patients (1 of Fractured, 1 of Non-Fractured)" in page


def test_thumbnails_carry_their_text_and_radiographs_can_be_left_out(folder):
    sizes = pd.DataFrame({"width": [1, 2], "height": [1, 2], "label": ["Fractured", "Non-Fractured"]})
    chart = style.with_alt(data.plot_sizes(sizes), "Sizes of two files – é")
    style.show(chart, folder / "figures" / "sizes.png")
    grid = images.plot_radiographs([np.eye(20, dtype=np.uint8)], ["x"], title="One")
    path = folder / "figures" / "VGG16_sample_predictions.png"
    assert style.show(style.with_alt(grid, "One radiograph."), path).metadata["radiographs"]
    page = write_index(folder).read_text()
    assert 'alt="Sizes of two files – é"' in page
    assert 'alt="One radiograph."' in page
    assert page.count("data:image/webp;base64,") == 2
    without = write_index(folder, images=False).read_text()
    assert "One radiograph." not in without
    assert "Sizes of two files" in without


def test_results_of_an_earlier_run_are_not_shown_under_new_parameters(folder):
    write_csv(folder / "comparison.csv", pd.DataFrame({"model": ["VGG16"], "auroc": [0.93]}))
    for file in ("VGG16/metrics.json", "VGG16/model_card.html", "VGG16/spread.csv"):
        write_json(folder / file, {})
    writes = {
        "VGG16/03_evaluate_model": ["VGG16/metrics.json", "VGG16/spread.csv"],
        "04_compare_models": ["comparison.csv"],
    }
    steps = [
        {"name": name, "report": name, "state": "waiting", "writes": files} for name, files in writes.items()
    ]
    record = read_json(folder / "study.json") | {"steps": steps, "state": "interrupted"}
    write_json(folder / "study.json", record)
    page = write_index(folder).read_text()
    assert "No model has been compared yet." in page
    for file in ("comparison.csv", "metrics.json", "model_card.html", "spread.csv"):
        assert file not in page
    assert "0.93" not in write_studies().read_text()
    out = export_study(folder, folder.parent / "sent").parent
    stale = ("comparison.csv", "spread.csv", "model_card.html")
    assert not [path for path in out.rglob("*") if path.name in stale]


def test_files_that_are_half_written_are_on_no_page(folder):
    (folder / "figures").mkdir()
    for file in ("figures/.abc-1-2.partial.png", ".abc-1-2.partial.csv", ".abc-1-2.partial.html"):
        (folder / file).write_bytes(b"half")
    assert "partial" not in write_index(folder).read_text()
    out = export_study(folder, folder.parent / "sent").parent
    assert not list(out.rglob("*partial*"))


def test_an_index_for_sharing_does_not_link_to_other_studies(folder, tmp_path):
    assert "All studies" in write_index(folder).read_text()
    assert "All studies" not in write_index(folder, target=tmp_path / "sent").read_text()


def test_pdf_without_chromium_says_so(folder, monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(InputError, match="Chromium is needed"):
        write_pdfs(folder)


def test_a_page_looks_again_while_its_study_runs_and_when_it_has_ended_no_more(folder):
    looks, record = '<meta http-equiv="refresh"', read_json(folder / "study.json")
    for state, shown in (("running", True), ("done", False), ("interrupted", False)):
        write_json(folder / "study.json", record | {"state": state})
        assert (looks in write_index(folder).read_text()) == shown
    write_json(folder / "study.json", record | {"state": "running"})
    assert looks not in export_study(folder, folder.parent / "sent").read_text()
