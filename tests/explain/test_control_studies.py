"""Control studies, and what pages, sweeps and checklists say of them and of shortcuts."""

import json

import pandas as pd
import pytest

from xray_helpers.explain import shortcut_verdicts
from xray_helpers.settings import build_settings


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"border": "only"}, "border = only"),
        ({"border": "blank"}, "border = blank"),
        ({"normalization": "unit"}, "normalization = unit"),
        ({"weights": "random"}, "weights = random"),
        ({}, ""),
    ],
)
def test_control_studies_are_recognised_by_their_settings(given, reason):
    from xray_helpers.reports.banners import study_banners

    settings = build_settings(**given).model_dump()
    assert shortcut_verdicts.list_controls(settings) == ([reason] if reason else [])
    banners = [text for _, text in study_banners({"settings": settings}, None)]
    assert any(text.startswith("Control study") and reason in text for text in banners) == bool(reason)


@pytest.fixture
def reports(tmp_path, monkeypatch):
    """Studies with results: of whole pictures, of the border alone, and a sweep of both."""
    from xray_helpers.study.files import write_csv, write_json
    from xray_helpers.study.folders import shareable
    from xray_helpers.study.machine import provenance

    monkeypatch.setenv("XRAY_HELPERS_ROOT", str(tmp_path))
    scores = {
        "plain": (0.75, 0.70),
        "control": (0.84, 0.90),
        "sweep/border=keep": (0.75, 0.70),
        "sweep/border=only": (0.84, 0.90),
    }
    for name, (test, validation) in scores.items():
        folder = tmp_path / "reports" / name
        border = "only" if "only" in name or name == "control" else "keep"
        settings = shareable(build_settings(name=name, data="phantoms", models=["VGG16"], border=border))
        steps = [
            {"name": "VGG16/03_evaluate_model", "report": "x", "state": "done", "seconds": 1.0, "writes": []}
        ]
        write_json(
            folder / "study.json", {"settings": settings, **provenance(), "steps": steps, "state": "done"}
        )
        entry = {"value": validation, "ci_low": validation - 0.1, "ci_high": validation + 0.05, "method": "x"}
        judged = {"validation": {"auroc": entry, "n": 30}, "auroc": entry | {"value": test}, "n": 40}
        write_json(folder / "VGG16" / "metrics.json", judged)
        write_json(folder / "VGG16" / "training.json", {"epochs": 3})
        row = {"rank": 1, "model": "VGG16", "n": 40, "n_groups": 40, "validation_auroc": validation}
        for metric in ("auroc", "accuracy", "precision", "recall", "specificity", "f1"):
            row |= {metric: test, f"{metric}_low": test - 0.1, f"{metric}_high": test + 0.1}
        write_csv(folder / "comparison.csv", pd.DataFrame([row]))
    points = [{"border": "keep"}, {"border": "only"}]
    write_json(
        tmp_path / "reports" / "sweep" / "sweep.json",
        {"name": "sweep", "points": points, "studies": [f"sweep/border={p['border']}" for p in points]},
    )
    return tmp_path / "reports"


def test_no_page_of_studies_lists_a_control_as_a_candidate(reports):
    from xray_helpers.reports.overview import list_studies, write_studies
    from xray_helpers.reports.pages import write_index

    rows = {row["study"]: row for row in list_studies()}
    assert rows["control"]["control"] == "border = only"
    assert rows["plain"]["control"] == rows["sweep"]["control"] == ""
    assert "Control study, no candidate" in " ".join(rows["control"]["warnings"])
    page = write_studies().read_text()
    candidates, controls = page.split("<h2>Controls</h2>")
    assert "plain" in candidates
    assert "0.84" not in candidates
    assert "control: border = only" in controls
    assert "0.84" in controls
    page = write_index(reports / "control").read_text()
    assert "Control study, no candidate: border = only" in page
    assert "Control study" not in write_index(reports / "plain").read_text()


def test_a_sweep_ranks_no_control_among_candidates(reports):
    from xray_helpers.runner.ranking import describe_best, rank, tabulate
    from xray_helpers.runner.sweeps import write_sweep

    table, swept = tabulate(reports / "sweep")
    assert table["control"].tolist() == ["", "border = only"]
    ranking, best = rank(table, swept)
    assert ranking["border"].tolist() == ["keep"]
    assert best["study"].tolist() == ["sweep/border=keep"]
    assert "border = keep" in describe_best(ranking, best, reports / "sweep")
    ranking, best = rank(table[table["control"] != ""], swept)
    assert describe_best(ranking, best, reports / "sweep").startswith("All of these studies are controls")
    page = write_sweep(reports / "sweep").read_text()
    assert "Control study, no candidate" in page


def test_the_first_page_and_the_checklist_say_what_a_shortcut_reaches(reports):
    from xray_helpers.reports.overview import list_studies
    from xray_helpers.reports.pages import write_index
    from xray_helpers.study.files import write_json

    banner = "A shortcut reaches what VGG16 reaches: file is not 224 x 224 alone 0.78 (0.70 to 0.85)."
    record_of_model = {
        "border": "not known",
        "surface": "shown",
        "verdict": "Whether <b>it</b> is one.",
        "banner": banner,
    }
    write_json(reports / "plain" / "VGG16" / shortcut_verdicts.FILE, record_of_model)
    page = write_index(reports / "plain").read_text()
    assert f'<div class="banner bad" role="alert">{banner}</div>' in page
    assert page.index(banner) < page.index("Scores on the test part")
    assert "Could it be a shortcut?" in page
    assert "Whether &lt;b&gt;it&lt;/b&gt; is one." in page
    assert banner.split(":")[0] in next(row for row in list_studies() if row["study"] == "plain")["warnings"]
    record = json.loads((reports / "plain" / "study.json").read_text())
    steps = [{**record["steps"][0], "state": "waiting", "writes": [f"VGG16/{shortcut_verdicts.FILE}"]}]
    write_json(reports / "plain" / "study.json", record | {"steps": steps})
    assert banner not in write_index(reports / "plain").read_text()  # of an earlier run


def test_the_checklist_of_a_control_says_that_it_is_one(reports):
    from xray_helpers.reports.facts import collect_facts

    (reports / "control" / "VGG16" / "metrics.json").unlink()
    assert collect_facts(reports / "control")["approach"].startswith(
        "Control study, no candidate: border = only"
    )
