import pandas as pd
import pytest

from xray_helpers.reports.overview import write_studies
from xray_helpers.reports.pages import write_index
from xray_helpers.runner.sweeps import describe_sweep, write_sweep
from xray_helpers.settings import InputError
from xray_helpers.study.files import read_json, write_csv, write_json
from xray_helpers.study.folders import find_study


def test_all_studies_are_listed_with_their_warnings(folder):
    page = write_studies().read_text()
    assert '<a href="s/index.html">s</a>' not in page  # its page is not written yet
    write_index(folder)
    page = write_studies().read_text()
    assert '<a href="s/index.html">s</a>' in page
    assert "0/1" in page
    assert "1 of 1 steps failed" in page


def test_a_study_is_found_by_name_or_folder(folder):
    assert find_study("s") == folder
    assert find_study(str(folder)) == folder
    with pytest.raises(InputError, match="there are s"):
        find_study("t")


def test_a_study_that_cannot_be_read_does_not_hide_others(folder):
    for name, text in (("broken", "{"), ("old", "{}")):
        (folder.parent / name).mkdir()
        (folder.parent / name / "study.json").write_text(text)
    page = write_studies().read_text()
    assert page.count("cannot be read") == 2
    assert "0/1" in page


VALIDATION = {"value": 0.71, "ci_low": 0.6, "ci_high": 0.8}
TEST = {"auroc": {"value": 0.93, "ci_low": 0.85, "ci_high": 0.97}, "n": 20}


@pytest.fixture
def sweep(make_study, root):
    """A sweep of two studies, the second of which still runs."""
    names = ("heads/seed=1", "heads/seed=2")
    for name, state in zip(names, ("done", "running"), strict=True):
        step = {"name": "VGG16/03_evaluate_model", "report": "VGG16/03_evaluate_model", "state": state}
        place = make_study(name, {"steps": [step], "state": state})
        write_json(place / ".run.json", {})
        metrics = {"validation": {"auroc": VALIDATION, "n": 30}, **TEST}
        write_json(place / "VGG16" / "metrics.json", metrics)
        write_json(place / "VGG16" / "training.json", {"epochs": 3})
        write_csv(place / "comparison.csv", pd.DataFrame({"model": ["VGG16"], "auroc": [0.93]}))
    folder = root / "reports" / "heads"
    write_json(
        folder / "sweep.json", {"name": "heads", "points": [{"seed": 1}, {"seed": 2}], "studies": names}
    )
    return folder


def test_no_test_score_of_a_sweep_is_shown_before_all_studies_have_ended(sweep):
    page = write_sweep(sweep).read_text()
    assert "AUROC 0.71, the best of 1 candidates" in page
    assert "seed=2 (running)" in page
    assert "0.93" not in page
    page = write_studies().read_text()
    assert '<a href="heads/index.html">heads</a>' in page
    assert "1/2 studies" in page
    assert "0.93" not in page


def test_a_sweep_that_has_ended_shows_the_test_score_of_its_best_candidate(sweep):
    path = sweep / "seed=2" / "study.json"
    write_json(path, read_json(path) | {"steps": [], "state": "failed"})
    assert "On test it reaches 0.93 (0.85 to 0.97), n = 20" in write_sweep(sweep).read_text()
    few = {"auroc": VALIDATION | {"ci_low": None, "ci_high": None}, "n": 9}
    write_json(sweep / "seed=1" / "VGG16" / "metrics.json", {"validation": few, **TEST})
    page = write_sweep(sweep).read_text()
    assert "(no interval: too few groups)" in page
    assert ">None<" not in page


def test_a_sweep_says_which_studies_lost_their_command(sweep):
    assert describe_sweep(sweep)[-1] == "1 of 2 studies are complete."
    (sweep / "seed=2" / ".run.json").unlink()
    assert "stopped" in describe_sweep(sweep)[1]
    assert "its command is gone" in describe_sweep(sweep)[-1]
