import pandas as pd
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_output

from xray_helpers.evaluation.variability import SEEDS
from xray_helpers.evaluation.verdict import RULED_OUT, SHOWN, UNKNOWN, Verdict
from xray_helpers.explain.shortcut_verdicts import ShortcutAssessment
from xray_helpers.reports.findings import Findings, find_of_model
from xray_helpers.reports.html import write_html


def entry(value, low, high):
    return {"value": value, "ci_low": low, "ci_high": high}


SCORES = {"auroc": entry(0.8, 0.7, 0.9), "accuracy": entry(0.6, 0.5, 0.7), "leak": 0.0}
SCORES |= {"recall": entry(0.9, 0.8, 0.95), "specificity": entry(0.5, 0.3, 0.7)}
TEXTS = ["It has AUROC 0.80. More of it.", "Seeds differ.", "Border tells: AUROC 0.70.", "Gaps: none."]


def find(scores=SCORES, seeds=(0.75, 0.85), states=(RULED_OUT, UNKNOWN), banner="", p=0.5):
    rows = [
        {"source": "this split", "low": 0.7, "high": 0.9},
        {"source": SEEDS, "low": seeds[0], "high": seeds[1]},
    ]
    beside = ShortcutAssessment(pd.DataFrame(), Verdict(states[0], ""), Verdict(states[1], ""), banner)
    gaps = pd.DataFrame({"p_holm": [p], "ci_low": [-0.2], "ci_high": [0.1]})
    return find_of_model(scores, 0.55, None, pd.DataFrame(rows), beside, gaps, TEXTS)


def test_five_cards_hold_verdict_number_and_the_way_to_their_section():
    page = find().data
    assert page.count('class="card"') == page.count("<a href=") == 5
    assert "<strong>Yes: shown</strong></div><div>It has AUROC 0.80.</div>" in page
    assert "<details><summary>More</summary>More of it.</details>" in page
    assert "Accuracy 0.60 (0.50 to 0.70) where the majority class gives 0.55; sensitivity 0.90" in page
    assert 'href="#Would-a-shortcut-have-done-as-well%3F"' in page
    assert "A shortcut is not known" in page


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"scores": SCORES | {"leak": 0.5}}, "Inflated by a leak"),
        ({"scores": SCORES | {"auroc": entry(0.5, 0.4, 0.6)}}, "Not known"),
        ({"scores": SCORES | {"accuracy": entry(0.4, 0.3, 0.5)}}, "No: ruled out"),
        ({"seeds": (0.6, 0.85)}, "Other seeds leave the interval"),
        ({"states": (RULED_OUT, RULED_OUT)}, "A shortcut is ruled out"),
        ({"states": (SHOWN, RULED_OUT)}, "A shortcut is shown"),
        ({"banner": "It does."}, "Yes: it scores as high"),
        ({"p": 0.01}, "Yes: shown</strong></div><div>Gaps: none."),
    ],
)
def test_verdicts_follow_from_the_numbers(changes, words):
    assert words in find(**changes).data
    assert words not in find().data or words == "Not known"


def test_a_claim_with_its_evidence_is_a_card_and_empty_texts_are_none():
    found = Findings(("Better?", "A is <better>: AUROC +0.1. Rest.", "A & B"), ("Of what?", "", "C"))
    assert "<strong>A is &lt;better&gt;</strong></div><div>AUROC +0.1.</div>" in found.data
    assert ">A &amp; B</a>" in found.data
    assert "Of what?" not in found.data
    long = Findings(("Q", f"A: {'x' * 90} 1; {'y' * 90} 2.", "")).data
    assert f"<div>{'x' * 90} 1</div><details><summary>More</summary>{'y' * 90} 2.</details></div>" in long


def test_a_report_shows_the_cards_and_opens_with_their_first_sentence(write_notebook):
    found = find()
    data = {"text/html": found.data, "text/markdown": found._repr_markdown_()}
    cells = [new_markdown_cell("# Good?\n"), new_markdown_cell("## Scores on the test part")]
    cells += [new_code_cell("x", outputs=[new_output("display_data", data=data)])]
    page = write_html(write_notebook(cells=cells)).read_text()
    assert '<p class="verdict">It has AUROC 0.80.</p>' in page
    assert page.count('class="card"') == 5
    assert 'href="#Scores-on-the-test-part"' in page
    assert 'id="Scores-on-the-test-part"' in page
