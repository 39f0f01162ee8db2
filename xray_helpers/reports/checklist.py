"""What a study can say of itself for reporting guidelines and model cards, and what only a person can."""

from pathlib import Path
from typing import Any, NamedTuple

import yaml

from xray_helpers.evaluation.intervals import describe, describe_count
from xray_helpers.evaluation.metrics import METRIC_TITLES, METRICS
from xray_helpers.reports.display import escape
from xray_helpers.reports.facts import collect_facts, evaluated_facts
from xray_helpers.reports.text import describe_engine
from xray_helpers.settings import InputError, nearest
from xray_helpers.study.files import read_json
from xray_helpers.study.folders import ANSWERS, read_class_names

_GUIDELINES = Path(__file__).parent / "templates" / "guidelines.yaml"


class Item(NamedTuple):
    """One item of a guideline: its number and topic, what is known, what is asked of a person, and its state.

    The state is ``filled``, ``blank`` or ``not applicable``.
    """

    number: str
    topic: str
    known: list[str]
    answer: str
    ask: str
    state: str


def read_guidelines() -> dict[str, Any]:
    """Return ``questions`` (name to what is asked) and ``guidelines`` (name, version, source, items)."""
    return yaml.safe_load(_GUIDELINES.read_text(encoding="utf-8"))


def read_answers(folder: Path) -> dict[str, str]:
    """Return what a person wrote into the study's ``study.yaml``; empty without one.

    Raises
    ------
    InputError
        When it cannot be read, or answers what nothing asks.
    """
    path = folder / ANSWERS
    if not path.exists():
        return {}
    try:
        answers = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        line = getattr(getattr(error, "problem_mark", None), "line", None)
        where = f" at line {line + 1}" if line is not None else ""
        raise InputError(
            f"{folder.name}/{ANSWERS} is no YAML{where}: write one `name: text` a line."
        ) from None
    if not isinstance(answers, dict):
        raise InputError(f"{folder.name}/{ANSWERS} holds no entries: write one `name: text` a line.")
    known = read_guidelines()["questions"]
    for name in answers:
        if name not in known:
            raise InputError(
                f"{folder.name}/{ANSWERS} answers {name!r}, which nothing asks{nearest(str(name), known)}"
            )
    return {
        name: str(text).strip() for name, text in answers.items() if text is not None and str(text).strip()
    }


def blank_answers() -> str:
    """Return the text of a ``study.yaml`` with every question and no answer."""
    lines = [
        "# What only a person knows; `n/a: reason` where a question does not apply. All entries are optional."
    ]
    for name, question in read_guidelines()["questions"].items():
        lines += ["", f"# {question}", f"{name}:"]
    return "\n".join(lines) + "\n"


def fill_guidelines(folder: Path, answers: dict[str, str] | None = None) -> list[dict[str, Any]]:
    """Return every guideline with its items filled in as far as run and person know.

    Parameters
    ----------
    folder : Path
        Of the study.
    answers : dict, optional
        Instead of those in ``study.yaml``.

    Returns
    -------
    list of dict
        name, version, source, items (list of `Item`), counts (state to number).
    """
    facts = collect_facts(folder)
    answers = read_answers(folder) if answers is None else answers
    guidelines = []
    for entry in read_guidelines()["guidelines"]:
        items = [_fill(*row, facts, answers) for row in entry["items"]]
        counts = {
            state: sum(item.state == state for item in items)
            for state in ("filled", "blank", "not applicable")
        }
        guidelines.append(
            {key: entry[key] for key in ("name", "version", "source")} | {"items": items, "counts": counts}
        )
    return guidelines


def _fill(
    number: str, topic: str, names: list[str], ask: str, facts: dict[str, str], answers: dict[str, str]
) -> Item:
    known = [facts[name] for name in names if facts.get(name)]
    answer = answers.get(ask, "")
    declined = answer.lower().startswith(("n/a", "not applicable")) or (
        not ask and known and all(text.startswith("Not applicable") for text in known)
    )
    filled = bool(answer) if ask else len(known) == len(names)
    return Item(
        number, topic, known, answer, ask, "not applicable" if declined else "filled" if filled else "blank"
    )


def card_values(folder: Path, model: str, *, answers: dict[str, str] | None = None) -> dict[str, Any]:
    """Return what the model card's template shows: scores, facts, answers (by default a study's), how it is
    loaded.
    """
    record = read_json(folder / "study.json")
    scores = read_json(folder / model / "metrics.json")
    trained = read_json(folder / model / "training.json")
    given = read_answers(folder) if answers is None else answers
    rows = [
        (METRIC_TITLES[name], describe(scores[name]), describe(scores["validation"][name]))
        for name in METRICS
    ]
    return {
        "model": model,
        "study": folder.name,
        "created": record["created"][:10],
        "scores": scores,
        "rows": rows,
        "answers": {name: escape(text) for name, text in given.items()},
        "trained": trained,
        "engine": describe_engine(trained["engine"]),
        "facts": collect_facts(folder) | evaluated_facts(folder, model),
        "settings": record["settings"],
        "class_names": read_class_names(folder),
        "count": describe_count(scores, "test images"),
    }
