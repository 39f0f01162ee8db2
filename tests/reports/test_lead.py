import re

import numpy as np
import pandas as pd
import pytest

from xray_helpers.reports.banners import describe_sampling, full_command
from xray_helpers.reports.lead import build_lead
from xray_helpers.reports.pages import write_index
from xray_helpers.reports.sharing import export_study
from xray_helpers.study.files import read_csv, read_json, write_csv, write_json


def inflation(p):
    """Scores of a leak; labels without meaning reach 0.9 on random files, with the given p."""
    rows = [("the set's own folders", "true", 0.98), ("random files", "true", 0.99)]
    rows += [("kept apart by group", "true", 0.79)]
    rows += [("random files", "shuffled", 0.9), ("kept apart by group", "shuffled", 0.5)]
    table = pd.DataFrame(rows, columns=["split", "labels", "auroc"]).assign(auroc_sd=0.01, n=40)
    return table.assign(
        p=np.where((table["split"] == "random files") & (table["labels"] == "shuffled"), p, np.nan)
    )


@pytest.fixture
def compared(folder):
    """A study whose only step is done, with one compared model."""
    record = read_json(folder / "study.json")
    write_json(folder / "study.json", record | {"steps": [], "state": "done"})
    scores = {"rank": 1, "model": "VGG16", "n": 2, "n_groups": 2, "n_effective": 2.0, "leak": 0.0}
    scores |= {"auroc": 0.83, "auroc_low": 0.75, "auroc_high": 0.89, "accuracy": 0.7, "validation_auroc": 0.8}
    write_csv(folder / "comparison.csv", pd.DataFrame([scores]))
    return folder


def lead_of(folder, table, shortcuts=None):
    study = read_json(folder / "study.json")
    comparison = read_csv(folder / "comparison.csv")
    return build_lead(folder, study, read_csv(folder / "manifest.csv"), comparison, table, shortcuts or {})


def test_the_first_page_leads_with_the_honest_number_and_what_a_leak_gives(compared):
    lead = lead_of(compared, inflation(0.01))
    assert lead.title == "The honest number"
    assert lead.number == "VGG16: AUROC 0.83 (95 % interval 0.75 to 0.89) on 2 test images in 2 groups."
    assert "0.98 on the set's own folders, 0.99 on files drawn at random, and 0.79 with" in lead.leak
    assert "Labels that mean nothing reach 0.90 on random files" in lead.leak
    assert lead.leaks
    not_shown = lead_of(compared, inflation(0.4))
    assert not not_shown.leaks
    assert "Labels that mean nothing" not in not_shown.leak
    assert lead_of(compared, None).leak == ""
    page = write_index(compared).read_text()
    assert page.index("0.83 (95 % interval") < page.index('class="banner') < page.index("<h2>")


def test_a_perfect_score_of_few_groups_leads_with_its_interval(compared):
    table = read_csv(compared / "comparison.csv").assign(auroc=1.0, auroc_low=0.61, auroc_high=1.0)
    write_csv(compared / "comparison.csv", table)
    assert lead_of(compared, None).number == (
        "VGG16: AUROC at least 0.61 (95 % interval) on 2 test images in 2 groups; the 1.00 there may be luck."
    )
    write_csv(compared / "comparison.csv", table.assign(n_groups=30))
    assert "AUROC 1.00 (95 % interval at least 0.61)" in lead_of(compared, None).number


def test_a_number_of_a_leaky_split_is_not_called_honest(compared):
    table = read_csv(compared / "comparison.csv").assign(leak=0.5)
    write_csv(compared / "comparison.csv", table)
    lead = lead_of(compared, None)
    assert lead.title == "An inflated number"
    assert "50% of them have a sibling in train" in lead.number


def test_what_to_do_next_follows_from_what_is_there(compared):
    assert lead_of(compared, None).todo[0][0].startswith("This was a first look")
    links = pd.DataFrame({"decision": ["joined", "for review", "for review"]})
    write_csv(compared / "links.csv", links)
    lead = lead_of(compared, None, {"VGG16": {"banner": "A shortcut", "verdict": ""}})
    assert [command for _, command in lead.todo][2] == "python -m xray_helpers lab s"
    assert "2 doubtful pairs" in lead.todo[2][0]
    record = read_json(compared / "study.json")
    record["settings"]["epochs"] = 50
    write_json(
        compared / "study.json", record | {"steps": [{"name": "01", "report": "01", "state": "failed"}]}
    )
    commands = [command for _, command in lead_of(compared, None).todo]
    assert commands[0] == "python -m xray_helpers run --name s"
    assert commands[-1] == "" or commands[-1].startswith("python -m xray_helpers external s")


def test_a_first_look_is_called_one_with_the_command_that_goes_further(folder):
    settings = read_json(folder / "study.json")["settings"] | {"img_size": [96, 96], "weights": "local"}
    manifest = read_csv(folder / "manifest.csv").assign(status=["used"] * 3 + ["not sampled"] * 5)
    text = describe_sampling(settings, manifest)
    assert "3 of 8 images and at most 3 epochs were used" in text
    assert "--name s-full --data phantoms -p img_size=96,96 -p weights=FOLDER" in text
    whole = manifest.assign(status="used")
    assert "images" not in describe_sampling(settings, whole).partition("For a result")[0]
    assert describe_sampling(settings | {"epochs": 20}, whole) == ""
    assert full_command(settings | {"name": "a/b"}, "-x").count("--name a-b-x") == 1


def test_reports_lead_to_the_index_and_onward(make_study, write_notebook, root):
    names = ["01_data", "VGG16/02_train_model", "VGG16/03_evaluate_model", "04_compare", "07_not_run"]
    steps = [{"name": name, "report": name, "state": "done"} for name in names]
    folder = make_study(record={"steps": steps, "state": "done"})
    from xray_helpers.reports.html import write_html

    for name in names[:-1]:
        write_html(write_notebook(path=folder / f"{name}.ipynb"))

    def links(page):
        nav = re.search(r'<nav [^>]*class="series".*?</nav>', page.read_text(), re.DOTALL)[0]
        return re.findall(r'href="([^"]*)"', nav)

    assert links(folder / "VGG16" / "03_evaluate_model.html") == ["../index.html"]
    for place in (write_index(folder).parent, export_study(folder, root / "sent").parent):
        assert links(place / "01_data.html") == ["index.html", "VGG16/02_train_model.html"]
        around = ["../index.html", "../VGG16/02_train_model.html", "../04_compare.html"]
        assert links(place / "VGG16" / "03_evaluate_model.html") == around
        assert links(place / "04_compare.html") == ["index.html", "VGG16/03_evaluate_model.html"]
        page = (place / "index.html").read_text()
        assert page.index('href="VGG16/03_evaluate_model.html"') < page.index("<h2>")
        assert 'href="07_not_run.html"' not in page
