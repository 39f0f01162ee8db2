"""An executed notebook as a report: one HTML file that loads nothing from any host."""

import base64
import csv
import html
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xray_helpers.reports.frame import (
    TEMPLATES,
    clean_html,
    clean_table,
    markdown_to_html,
    minute,
    page_frame,
)
from xray_helpers.settings import Settings
from xray_helpers.study.files import read_json, write_text
from xray_helpers.study.folders import EXTERNAL, LAB, redact
from xray_helpers.study.machine import is_noise

if TYPE_CHECKING:
    from nbformat import NotebookNode

_PICTURES = ("image/png", "image/jpeg", "image/svg+xml")


def write_html(notebook: Path, target: Path | None = None, *, error: str = "", images: bool = True) -> Path:
    """Write an executed notebook as a report.

    The notebook's outputs are shown as text or pictures and never run: the page has no script or style of
    theirs, and no address that a browser would load. Paths of this machine are replaced by words.

    Parameters
    ----------
    notebook : Path
        In the folder of a study or of one of its models, or anywhere else.
    target : Path, optional
        By default beside the notebook.
    error : str
        For a notebook that stopped, one sentence that is shown at the top.
    images : bool
        Whether radiographs are shown; diagrams always are.
    """
    import nbformat  # two seconds that no notebook should pay for
    from nbconvert import HTMLExporter
    from pygments.formatters import HtmlFormatter

    nb = nbformat.read(notebook, as_version=4)
    study = _find_study(notebook)
    clean_notebook(nb, study)
    contents = _render_markdown(nb)
    report = _title_block(nb, notebook, study)
    up = "../" * len(notebook.relative_to(study).parent.parts) if study is not None else ""
    index = f"{up}index.html" if study is not None else ""
    report |= {"error": redact(error, study), "contents": contents, "images": images, "index": index}
    light, dark = (
        HtmlFormatter(style=name).get_style_defs(".highlight") for name in ("default", "github-dark")
    )
    frame = page_frame(f"\n{light}\n@media (prefers-color-scheme: dark) {{ {dark} }}")
    page = {"title": f"{report['heading']} · {report['eyebrow']}", **frame}
    filters = {
        "clean": clean_html,
        "clean_table": clean_table,
        "pictures": _picture_address,
        "is_widget": _is_widget,
    }
    exporter = HTMLExporter(
        template_file=str(TEMPLATES / "report.html.j2"),
        extra_template_paths=[str(TEMPLATES)],
        filters=filters,
    )
    body, _ = exporter.from_notebook_node(nb, resources={"report": report, "page": page})
    return write_text(target or notebook.with_suffix(".html"), body)


def clean_notebook(nb: "NotebookNode", study: Path | None) -> None:
    """Remove from an executed notebook, in place, what names this machine or is noise.

    Paths in outputs are replaced by words; papermill's paths and error cells and TensorFlow's start-up
    messages are removed. Consecutive outputs of one stream are joined, and of what a carriage return
    overwrites only the last is kept.
    """
    from nbconvert.preprocessors import CoalesceStreamsPreprocessor, TagRemovePreprocessor

    for key in ("input_path", "output_path", "environment_variables"):
        nb.metadata.get("papermill", {}).pop(key, None)
    TagRemovePreprocessor(remove_cell_tags={"papermill-error-cell-tag"}).preprocess(nb, {})
    CoalesceStreamsPreprocessor().preprocess(nb, {})
    for cell in nb.cells:
        if cell.cell_type != "code":
            continue
        for output in cell.outputs:
            _clean_output(output, study)
        cell.outputs = [output for output in cell.outputs if output.get("text", "x").strip()]


def _clean_output(output: "NotebookNode", study: Path | None) -> None:
    if output.output_type == "stream":
        lines = (line.rstrip() for line in output.text.split("\n"))
        output.text = redact("\n".join(line for line in lines if not is_noise(line)), study)
    elif output.output_type == "error":
        output.evalue = redact(output.evalue, study)
        output.traceback = [redact(line, study) for line in output.traceback]
    for kind, value in output.get("data", {}).items():
        if kind.startswith("text/"):
            output.data[kind] = redact("".join(value), study)


def _find_study(notebook: Path) -> Path | None:
    """Return the folder of the study that a notebook belongs to; None if it belongs to none."""
    folders = [notebook.parent, *notebook.parent.parents][:3]  # a set from elsewhere lies two folders deep
    return next((folder for folder in folders if (folder / "study.json").exists()), None)


def _render_markdown(nb: "NotebookNode") -> list[tuple[str, str]]:
    """Render Markdown cells into their metadata; return anchor and text of each heading of level two.

    Every cell gets the heading that it stands under as the metadata ``label``.
    """
    contents, label = [], "Table"
    for cell in nb.cells:
        if cell.cell_type == "markdown":
            cell.metadata.html = markdown_to_html(cell.source)
            for anchor, heading in re.findall(r'<h2 id="([^"]*)">(.*?)</h2>', cell.metadata.html, re.DOTALL):
                label = html.unescape(re.sub(r"<.*?>", "", heading))
                contents.append((html.unescape(anchor), label))
        cell.metadata.label = label
    return contents


def _title_block(nb: "NotebookNode", notebook: Path, study: Path | None) -> dict[str, Any]:
    """Return heading, eyebrow, facts, parameters and verdict of a report."""
    heading = _take_heading(nb) or notebook.stem
    facts, parameters, eyebrow = {}, {}, notebook.stem
    if study is not None:
        record = read_json(study / "study.json")
        folder = notebook.parent
        model = _find_model(nb) if folder.name == LAB else folder.name if folder.parent == study else ""
        tested = folder.name if folder.parent == study / EXTERNAL else ""
        eyebrow = " · ".join(filter(None, (study.name, model, tested)))
        facts = {"study": study.name, "model": model, "data": describe_source(study, record)}
        facts["tested on"] = tested
        parameters = changed_parameters(record["settings"])
    facts = {key: value for key, value in facts.items() if value} | {"made": minute()}
    block = {"heading": heading, "eyebrow": eyebrow, "facts": facts, "parameters": parameters}
    return block | {"verdict": _find_verdict(nb)}


def _take_heading(nb: "NotebookNode") -> str:
    """Remove the first heading of a notebook whose Markdown is rendered, and return its text."""
    for cell in nb.cells:
        if cell.cell_type == "markdown" and cell.source.startswith("# "):
            line, _, rest = cell.source.partition("\n")
            cell.metadata.html = cell.metadata.html.partition("</h1>")[2] if rest.strip() else ""
            return line.lstrip("# ")
    return ""


def _find_verdict(nb: "NotebookNode") -> str:
    """Return the first sentence of the last paragraph that the last cell displays, without bold type."""
    outputs = nb.cells[-1].get("outputs", []) if nb.cells else []
    texts = [
        data["text/markdown"] for output in outputs if "text/markdown" in (data := output.get("data", {}))
    ]
    text = texts[-1].replace("**", "").strip() if texts else ""
    return re.split(r"(?<=[.!?])\s+(?=[A-Z])", text)[0]


def _find_model(nb: "NotebookNode") -> str:
    """Return the value of the parameter ``model``, which papermill may have injected; empty without it."""
    model = ""
    for cell in nb.cells:
        if {"parameters", "injected-parameters"} & set(cell.metadata.get("tags", [])):
            assigned = re.search(r"""^model = (["'])(.*?)\1""", cell.source, re.MULTILINE)
            model = assigned[2] if assigned else model
    return model


def describe_source(study: Path, record: dict[str, Any]) -> str:
    """Return what the images of a study are, such as ``120 radiographs in 80 groups``."""
    kind = "synthetic phantoms" if record["settings"]["data"].startswith("phantoms") else "radiographs"
    path = study / "manifest.csv"
    if not path.exists():
        return kind
    with open(path, encoding="utf-8", newline="") as file:  # importing pandas takes longer than the report
        rows = [(row["group"], row["status"]) for row in csv.DictReader(file)]
    groups = [group for group, status in rows if status == "used"]
    rest = sum(status == "not sampled" for _, status in rows)
    share = f"{len(groups):,} of {len(groups) + rest:,}" if rest else f"{len(groups):,}"
    return f"{share} {kind} in {len(set(groups) - {''}):,} groups"


def changed_parameters(settings: dict[str, Any]) -> dict[str, Any]:
    """Return those of a study's settings that differ from the defaults."""
    default = Settings().model_dump(mode="json")
    changed = {key: value for key, value in settings.items() if value != default.get(key)}
    return {key: value for key, value in changed.items() if key not in ("name", "data")}


def _is_widget(data: dict[str, Any]) -> bool:
    return "application/vnd.jupyter.widget-view+json" in data


def _picture_address(data: dict[str, Any]) -> str:
    """Return the data URI of an output's picture; empty if there is none, or a table is shown instead."""
    if "text/html" in data and not _is_widget(data):
        return ""
    for kind in _PICTURES:
        if kind in data:
            content = "".join(data[kind])
            is_text = kind == "image/svg+xml"
            encoded = base64.b64encode(content.encode()).decode() if is_text else content.replace("\n", "")
            return f"data:{kind};base64,{html.escape(encoded)}"
    return ""
