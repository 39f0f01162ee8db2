"""Model cards: what a model is, how it was trained and evaluated, and its limits."""

from pathlib import Path
from typing import Any

import jinja2

from xray_helpers.evaluation.intervals import describe, describe_count, read_entry
from xray_helpers.evaluation.metrics import METRIC_TITLES
from xray_helpers.reports.checklist import read_answers
from xray_helpers.reports.display import escape
from xray_helpers.reports.external import external_table
from xray_helpers.reports.facts import collect_facts, evaluated_facts
from xray_helpers.reports.frame import TEMPLATES, markdown_to_html, render_page
from xray_helpers.reports.text import describe_backbone, describe_engine
from xray_helpers.settings import InputError
from xray_helpers.study.files import read_csv, read_json, write_text
from xray_helpers.study.folders import read_class_names, read_classes


def write_model_card(folder: Path, model: str) -> Path:
    """Write ``model_card.md`` and ``model_card.html`` of an evaluated model; return the latter."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), undefined=jinja2.StrictUndefined, trim_blocks=True
    )
    environment.filters["md"] = escape
    text = environment.get_template("model_card.md.j2").render(_card_values(folder, model))
    write_text(folder / model / "model_card.md", text)
    page = render_page(
        "card.html.j2",
        title=f"Model card: {model}, {folder.name}",
        study=folder.name,
        body=markdown_to_html(text),
    )
    return write_text(folder / model / "model_card.html", page)


def _card_values(folder: Path, model: str) -> dict[str, Any]:
    """Return what the template of the model card shows."""
    record = read_json(folder / "study.json")
    scores = read_json(folder / model / "metrics.json")
    trained = read_json(folder / model / "training.json")
    try:
        answers = read_answers(folder)
    except InputError:  # the page of the checklist says what is wrong
        answers = {}
    return {
        "model": model,
        "study": folder.name,
        "created": record["created"][:10],
        "scores": scores,
        "rows": [
            (title, describe(scores[name]), describe(scores["validation"][name]))
            for name, title in METRIC_TITLES.items()
        ],
        "answers": {name: escape(text) for name, text in answers.items()},
        "trained": trained,
        "backbone": describe_backbone(trained),
        "engine": describe_engine(trained["engine"]),
        "facts": collect_facts(folder) | evaluated_facts(folder, model),
        "settings": record["settings"],
        "class_names": read_class_names(folder),
        "external": external_table(folder, model),
        "classes": read_classes(folder).names,
        "class_scores": _list_class_scores(folder / model / "classes.csv"),
        "count": describe_count(scores, "test images"),
    }


def _list_class_scores(path: Path) -> list[tuple[str, str, str, int]]:
    """Return class, metric, value with its interval, and images, of a model of three or more classes."""
    if not path.exists():
        return []
    found = []
    for row in read_csv(path).to_dict("records"):
        entry = read_entry(row, "value", "low", "high") | {"reason": row["reason"]}
        found.append((row["class"], row["metric"], describe(entry), row["n"]))
    return found
