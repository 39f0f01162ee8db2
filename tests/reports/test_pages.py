import json
import re

import numpy as np
import pandas as pd
import pytest

from xray_helpers.plots import data, images, style
from xray_helpers.reports.checklist import write_checklist
from xray_helpers.reports.overview import write_studies
from xray_helpers.reports.pages import write_index
from xray_helpers.reports.pdf import write_pdfs
from xray_helpers.reports.sharing import export_study
from xray_helpers.settings import InputError, build_settings
from xray_helpers.study.files import write_csv, write_json
from xray_helpers.study.folders import find_study, shareable
from xray_helpers.study.machine import provenance

HOSTILE = "<img src=x onerror=alert(1)>"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XRAY_HELPERS_ROOT", str(tmp_path))
    place = tmp_path / "reports" / "s"
    steps = [{"name": HOSTILE, "report": "01", "state": "failed", "seconds": 3.2, "error": "{{7*7}} failed"}]
    record = {
        "settings": shareable(build_settings(name="s", data="phantoms")),
        **provenance(),
        "steps": steps,
        "state": "failed",
    }
    write_json(place / "study.json", record)
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
    write_csv(place / "manifest.csv", table)
    return place


def test_the_index_shows_names_as_text_with_states_times_and_citation(folder):
    page = write_index(folder).read_text()
    assert "&lt;img src=x onerror=alert(1)&gt;" in page
    assert "<img src=x" not in page
    assert "{{7*7}} failed" in page
    assert "3 s" in page
    assert "1 of 1 steps failed" in page
    assert "How to cite" in page
    assert "The test part is small: 2 images" in page


def test_thumbnails_carry_their_text_and_radiographs_can_stay_out(folder):
    chart = data.plot_sizes(
        pd.DataFrame({"width": [1, 2], "height": [1, 2], "label": ["Fractured", "Non-Fractured"]})
    )
    style.show(style.with_alt(chart, "Sizes of two files – é"), folder / "figures" / "sizes.png")
    grid = images.plot_radiographs([np.eye(20, dtype=np.uint8)], ["x"], title="One")
    shown = style.show(
        style.with_alt(grid, "One radiograph."), folder / "figures" / "VGG16_sample_predictions.png"
    )
    assert shown.metadata["radiographs"]
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
    record = json.loads((folder / "study.json").read_text())
    writes = {
        "VGG16/03_evaluate_model": ["VGG16/metrics.json", "VGG16/spread.csv"],
        "04_compare_models": ["comparison.csv"],
    }
    steps = [
        {"name": name, "report": name, "state": "waiting", "writes": files} for name, files in writes.items()
    ]
    write_json(folder / "study.json", record | {"steps": steps, "state": "interrupted"})
    page = write_index(folder).read_text()
    assert "No model has been compared yet." in page
    for file in ("comparison.csv", "metrics.json", "model_card.html", "spread.csv"):
        assert file not in page
    assert "0.93" not in write_studies().read_text()
    out = export_study(folder, folder.parent / "sent").parent
    assert not [
        path for path in out.rglob("*") if path.name in ("comparison.csv", "spread.csv", "model_card.html")
    ]


def test_what_is_half_written_is_on_no_page(folder):
    (folder / "figures").mkdir()
    for file in ("figures/.abc-1-2.partial.png", ".abc-1-2.partial.csv", ".abc-1-2.partial.html"):
        (folder / file).write_bytes(b"half")
    assert "partial" not in write_index(folder).read_text()
    out = export_study(folder, folder.parent / "sent").parent
    assert not list(out.rglob("*partial*"))


def test_all_studies_are_listed_with_their_warnings(folder):
    page = write_studies().read_text()
    assert '<a href="s/index.html">s</a>' not in page  # its page is not written yet
    write_index(folder)
    page = write_studies().read_text()
    assert '<a href="s/index.html">s</a>' in page
    assert "0/1" in page
    assert "1 of 1 steps failed" in page


def test_the_checklist_counts_and_tells_a_bad_form(folder):
    page = write_checklist(folder).read_text()
    row = re.search(r"STARD-AI, 2025</a></th><td>(\d+)</td><td>(\d+)</td><td>(\d+)</td><td>48</td>", page)
    assert sum(map(int, row.groups())) == 48
    assert "found: 8" in page
    assert "&lt;img src=x onerror=alert(1)&gt; 8" in page  # the mode of the files
    (folder / "study.yaml").write_text("fundng: me")
    assert "did you mean funding" in write_checklist(folder).read_text()


def test_pdf_without_chromium_says_so(folder, monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(InputError, match="Chromium is needed"):
        write_pdfs(folder)


def test_a_study_is_found_by_name_or_folder(folder):
    assert find_study("s") == folder
    assert find_study(str(folder)) == folder
    with pytest.raises(InputError, match="there are s"):
        find_study("t")


def test_a_study_that_cannot_be_read_hinders_no_other(folder):
    (folder.parent / "broken").mkdir()
    (folder.parent / "broken" / "study.json").write_text("{")
    (folder.parent / "old").mkdir()
    (folder.parent / "old" / "study.json").write_text("{}")
    page = write_studies().read_text()
    assert page.count("cannot be read") == 2
    assert "0/1" in page


def test_test_scores_of_a_sweeps_studies_stand_in_no_column_to_choose_from(folder):
    from xray_helpers.runner.sweeps import describe_sweep, write_sweep

    sweep, names = folder.parent / "heads", ("heads/seed=1", "heads/seed=2")
    write_json(
        sweep / "sweep.json", {"name": "heads", "points": [{"seed": 1}, {"seed": 2}], "studies": names}
    )
    auroc = {"value": 0.71, "ci_low": 0.6, "ci_high": 0.8}
    for name, state in zip(names, ("done", "running"), strict=True):
        place = folder.parent / name
        record = {"name": "VGG16/03_evaluate_model", "report": "VGG16/03_evaluate_model", "state": state}
        write_json(
            place / "study.json",
            {
                "settings": shareable(build_settings(name=name, data="phantoms")),
                **provenance(),
                "steps": [record],
                "state": state,
            },
        )
        write_json(place / ".run.json", {})
        test = {"auroc": {"value": 0.93, "ci_low": 0.85, "ci_high": 0.97}, "n": 20}
        write_json(place / "VGG16" / "metrics.json", {"validation": {"auroc": auroc, "n": 30}, **test})
        write_json(place / "VGG16" / "training.json", {"epochs": 3})
        write_csv(place / "comparison.csv", pd.DataFrame({"model": ["VGG16"], "auroc": [0.93]}))
    page = write_sweep(sweep).read_text()
    assert "AUROC 0.71, the best of 1 candidates" in page
    assert "seed=2 (running)" in page
    assert "0.93" not in page  # not before all have ended
    assert describe_sweep(sweep)[-1] == "1 of 2 studies are complete."
    (folder.parent / names[1] / ".run.json").unlink()  # as after a command that was killed and told so
    assert "stopped" in describe_sweep(sweep)[1]
    assert describe_sweep(sweep)[-1].endswith("its command is gone: the same command goes on from here.")
    page = write_studies().read_text()
    assert '<a href="heads/index.html">heads</a>' in page
    assert "1/2 studies" in page
    assert "0.93" not in page
    failed = folder.parent / names[1] / "study.json"
    write_json(failed, json.loads(failed.read_text()) | {"steps": [], "state": "failed"})
    assert "On test it reaches 0.93 (0.85 to 0.97), n = 20" in write_sweep(sweep).read_text()
    few = {"auroc": {"value": 0.71, "ci_low": None, "ci_high": None}, "n": 9}
    write_json(folder.parent / names[0] / "VGG16" / "metrics.json", {"validation": few, **test})
    page = write_sweep(sweep).read_text()
    assert "(no interval: too few groups)" in page
    assert ">None<" not in page


def test_what_is_sent_does_not_point_to_other_studies(folder, tmp_path):
    assert "All studies" in write_index(folder).read_text()
    assert "All studies" not in write_index(folder, target=tmp_path / "sent").read_text()


def test_notebooks_of_ones_own_are_not_sent(folder, tmp_path):
    (folder / "lab").mkdir()
    (folder / "lab" / "02_train_model.ipynb").write_text("{}")
    (folder / "lab" / "mine.csv").write_text("x")
    export_study(folder, tmp_path / "sent")
    assert not (tmp_path / "sent" / "lab").exists()
    assert (tmp_path / "sent" / "manifest.csv").exists()


def test_what_was_sent_with_radiographs_leaves_none_when_it_is_sent_without(folder, tmp_path):
    grid = images.plot_radiographs([np.eye(20, dtype=np.uint8)], ["x"], title="One")
    style.show(grid, folder / "figures" / "VGG16_sample_predictions.png")
    export_study(folder, tmp_path / "sent")
    assert (tmp_path / "sent" / "figures" / "VGG16_sample_predictions.png").exists()
    export_study(folder, tmp_path / "sent", images=False)
    assert not list((tmp_path / "sent").rglob("*sample_predictions*"))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "index.html").write_text("my own")
    with pytest.raises(InputError, match="give another folder"):
        export_study(folder, tmp_path / "mine")
    assert (tmp_path / "mine" / "index.html").read_text() == "my own"


def test_parts_of_few_sources_are_told_on_the_first_page(folder):
    page = write_index(folder).read_text()
    assert "The validation part has few sources or patients (1 of Fractured, 1 of Non-Fractured)" in page
