"""What the numbers of a report mean: cards of a verdict, its number and the way to its section."""

import html
import re
from typing import Any, NamedTuple
from urllib.parse import quote

import pandas as pd
from IPython.display import HTML

from xray_helpers.evaluation.gaps import judge_gaps
from xray_helpers.evaluation.intervals import describe
from xray_helpers.evaluation.variability import SEEDS
from xray_helpers.evaluation.verdict import RULED_OUT, SHOWN, UNKNOWN, compare_to_bound
from xray_helpers.explain.shortcut_verdicts import ShortcutAssessment

_CARD = "border:1px solid #8a8a8a;border-radius:8px;padding:.5rem .9rem;margin:.5rem 0"  # in JupyterLab
_LONG = 150  # characters of a number from which its later clauses are folded
_WORDS = {SHOWN: "Yes: shown", RULED_OUT: "No: ruled out", UNKNOWN: "Not known"}


class Finding(NamedTuple):
    """One card: its first sentence is shown, the others are folded.

    Attributes
    ----------
    question : str
    text : str
        Sentences; a first one such as ``A is better: AUROC +0.1.`` is verdict and number.
    section : str
        The heading of the section that shows it; empty for none.
    verdict : str
        Where the first sentence holds none.
    """

    question: str
    text: str
    section: str
    verdict: str = ""


class Findings(HTML):
    """Cards of findings without empty texts; as Markdown, the sentences of all of them."""

    def __init__(self, *findings: tuple) -> None:
        found = [one for one in (Finding(*each) for each in findings) if one.text]
        self.text = " ".join(one.text for one in found)
        super().__init__(f'<div class="cards">{"".join(map(_draw, found))}</div>')

    def _repr_markdown_(self) -> str:
        return self.text


def _draw(finding: Finding) -> str:
    text = html.escape(finding.text.replace("**", ""), quote=False)
    sentence, *others = re.split(r"(?<=[.!?])\s+(?=[A-Z])", text)
    claim, colon, evidence = sentence.partition(": ")
    verdict, number = (finding.verdict, sentence) if finding.verdict or not colon else (claim, evidence)
    if len(number) > _LONG and "; " in number:
        number, rest = number.split("; ", 1)
        others.insert(0, rest)
    section = html.escape(finding.section)
    link = f'<a href="#{quote(finding.section.replace(" ", "-"))}">{section}</a>' if section else ""
    more = f"<details><summary>More</summary>{' '.join(others)}</details>" if others else ""
    return (
        f'<div class="card" style="{_CARD}"><small class="wrap">{finding.question}</small>'
        f"<div><strong>{verdict}</strong></div><div>{number}</div>{more}{link}</div>"
    )


def find_of_model(
    scores: dict[str, Any],
    baseline: float,
    together: dict[str, Any] | None,
    spread: pd.DataFrame,
    beside: ShortcutAssessment,
    gaps: pd.DataFrame,
    texts: list[str],
) -> Findings:
    """Return five cards on one model.

    Parameters
    ----------
    scores : dict
        ``metrics.json``.
    baseline : float
        Accuracy of the majority class.
    together : dict, optional
        AUROC of all images, out of fold.
    spread, gaps : DataFrame
        ``spread.csv`` and ``gaps.csv``.
    beside : ShortcutAssessment
    texts : list of str
        Sentences on scores, spread, shortcuts and subgroups.
    """
    chance = _WORDS[compare_to_bound(together or scores["auroc"], 0.5)]
    chance = "Inflated by a leak" if scores["leak"] else chance
    rates = (
        f"Accuracy {describe(scores['accuracy'])} where the majority class gives {baseline:.2f}; sensitivity "
    )
    rates += f"{describe(scores['recall'])}, specificity {describe(scores['specificity'])}."
    useful = _WORDS[compare_to_bound(scores["accuracy"], baseline)]
    states = {beside.border.state, beside.surface.state}
    shortcut = next((state for state in (SHOWN, UNKNOWN) if state in states), RULED_OUT)
    reached = "Yes: it scores as high" if beside.banner else f"A shortcut is {shortcut}"
    return Findings(
        ("Better than chance?", texts[0], "Scores on the test part", chance),
        ("More accurate than the majority class?", rates, "At the threshold, and at a glance", useful),
        ("How much is luck?", texts[1], "How much of it is luck", _judge_spread(spread)),
        ("Would a shortcut do?", texts[2], "Would a shortcut have done as well?", reached),
        ("Worse for some?", texts[3], "For whom is it worse?", _WORDS[judge_gaps(gaps)]),
    )


def _judge_spread(spread: pd.DataFrame) -> str:
    """Return whether other seeds stay within the interval of the split."""
    split, seeds = spread.iloc[0], spread[spread["source"] == SEEDS]
    if seeds.empty or pd.isna(split["low"]):
        return _WORDS[UNKNOWN]
    inside = (seeds["low"] >= split["low"]).all() and (seeds["high"] <= split["high"]).all()
    return "Other seeds stay within the interval" if inside else "Other seeds leave the interval"
