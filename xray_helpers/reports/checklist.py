"""The reporting checklist: items of three guidelines, answered by the study's facts and by a person.

A person answers in ``study.yaml`` in the study's folder.
"""

from pathlib import Path
from typing import Any, NamedTuple

import yaml

from xray_helpers.data.manifest import count_flow
from xray_helpers.data.parts import class_balance
from xray_helpers.reports.facts import collect_facts
from xray_helpers.reports.frame import TEMPLATES, render_page
from xray_helpers.reports.results import read_table
from xray_helpers.settings import CLASS_NAMES, InputError, nearest
from xray_helpers.study.files import write_text
from xray_helpers.study.folders import ANSWERS, read_class_names

FILLED, BLANK, NOT_APPLICABLE = "filled", "blank", "not applicable"


class Item(NamedTuple):
    """One item of a guideline."""

    number: str
    topic: str
    known: list[str]  # facts of the study
    answer: str  # of a person
    ask: str  # the name of the question to a person; empty if the facts suffice
    state: str  # `FILLED`, `BLANK` or `NOT_APPLICABLE`


def read_guidelines() -> dict[str, Any]:
    """Return ``questions`` (texts by name) and ``guidelines`` (name, version, source, items)."""
    return yaml.safe_load((TEMPLATES / "guidelines.yaml").read_text(encoding="utf-8"))


def read_answers(folder: Path) -> dict[str, str]:
    """Return the answers in the study's ``study.yaml``; empty without one.

    Raises
    ------
    InputError
        When the file cannot be read, or answers a question that does not exist.
    """
    path = folder / ANSWERS
    if not path.exists():
        return {}
    name = f"{folder.name}/{ANSWERS}"
    try:
        answers = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}" if mark else ""
        raise InputError(f"{name} is not YAML{where}: write one `name: text` per line.") from None
    if not isinstance(answers, dict):
        raise InputError(f"{name} has no entries: write one `name: text` per line.")
    questions = read_guidelines()["questions"]
    for key in answers:
        if key not in questions:
            raise InputError(f"{name} answers {key!r}, which is not a question{nearest(str(key), questions)}")
    texts = {key: str(text).strip() for key, text in answers.items() if text is not None}
    return {key: text for key, text in texts.items() if text}


def blank_answers() -> str:
    """Return the text of a ``study.yaml`` with every question and no answer."""
    lines = [
        "# What only a person knows; `n/a: reason` if a question does not apply. All entries are optional."
    ]
    for name, question in read_guidelines()["questions"].items():
        lines += ["", f"# {question}", f"{name}:"]
    return "\n".join(lines) + "\n"


def fill_guidelines(folder: Path, answers: dict[str, str] | None = None) -> list[dict[str, Any]]:
    """Return every guideline with its items, filled in from the study's facts and a person's answers.

    Parameters
    ----------
    folder : Path
        Of the study.
    answers : dict, optional
        Instead of those in ``study.yaml``.

    Returns
    -------
    list of dict
        name, version, source, items (list of `Item`), counts (number of items by state).
    """
    facts = collect_facts(folder)
    answers = read_answers(folder) if answers is None else answers
    guidelines = []
    for guideline in read_guidelines()["guidelines"]:
        items = [_fill(*row, facts, answers) for row in guideline["items"]]
        states = [item.state for item in items]
        counts = {state: states.count(state) for state in (FILLED, BLANK, NOT_APPLICABLE)}
        guidelines.append(guideline | {"items": items, "counts": counts})
    return guidelines


def _fill(
    number: str, topic: str, names: list[str], ask: str, facts: dict[str, str], answers: dict[str, str]
) -> Item:
    known = [facts[name] for name in names if facts.get(name)]
    answer = answers.get(ask, "")
    if ask:
        declined = answer.lower().startswith(("n/a", "not applicable"))
    else:
        declined = bool(known) and all(text.startswith("Not applicable") for text in known)
    filled = bool(answer) if ask else len(known) == len(names)
    state = NOT_APPLICABLE if declined else FILLED if filled else BLANK
    return Item(number, topic, known, answer, ask, state)


def write_checklist(folder: Path) -> Path:
    """Write the study's ``reporting_checklist.html``; the page shows what is wrong with ``study.yaml``."""
    manifest, error = read_table(folder / "manifest.csv"), ""
    try:
        guidelines = fill_guidelines(folder)
    except InputError as problem:
        error, guidelines = str(problem), fill_guidelines(folder, answers={})
    called = dict(zip(CLASS_NAMES, read_class_names(folder), strict=True))
    page = render_page(
        "checklist.html.j2",
        title=f"Reporting checklist: {folder.name}",
        study=folder.name,
        guidelines=guidelines,
        class_names=read_class_names(folder),
        questions=read_guidelines()["questions"],
        error=error,
        flow=[] if manifest is None else count_flow(manifest).rename(columns=called).to_dict("records"),
        parts=[] if manifest is None else class_balance(manifest).to_dict("records"),
    )
    return write_text(folder / "reporting_checklist.html", page)
