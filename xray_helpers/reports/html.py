"""A notebook as one HTML file that asks no host for anything, and the frame that all pages share."""

import base64
import csv
import hashlib
import html
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import bleach
import jinja2
from bleach.sanitizer import ALLOWED_TAGS
from markupsafe import Markup

from xray_helpers.settings import Settings
from xray_helpers.study.files import read_json, write_text
from xray_helpers.study.folders import LAB, redact
from xray_helpers.study.machine import is_noise, now

if TYPE_CHECKING:
    import nbformat
TEMPLATES = Path(__file__).parent / "templates"
_TAGS = ALLOWED_TAGS | {
    "br",
    "caption",
    "col",
    "colgroup",
    "dd",
    "del",
    "details",
    "div",
    "dl",
    "dt",
    "figcaption",
    "figure",
    "h1",
    "h2",
    "h3",
    "h4",
    "h5",
    "h6",
    "hr",
    "img",
    "kbd",
    "mark",
    "p",
    "pre",
    "s",
    "samp",
    "section",
    "small",
    "span",
    "sub",
    "summary",
    "sup",
    "table",
    "tbody",
    "td",
    "tfoot",
    "th",
    "thead",
    "tr",
    "u",
    "var",
}
_ATTRIBUTES = {"alt", "class", "colspan", "id", "open", "rowspan", "scope", "title", "width", "height"}


def write_html(notebook: Path, target: Path | None = None, *, error: str = "", images: bool = True) -> Path:
    """Write an executed notebook as a report.

    What is in the notebook is shown as text or picture, never run: no script, no style, no address that a
    browser would ask. Paths of this machine are replaced by words.

    Parameters
    ----------
    notebook : Path
        In a study's folder or a model's folder within, or anywhere.
    target : Path, optional
        Beside the notebook when left out.
    error : str
        One sentence for the banner of a notebook that stopped.
    images : bool
        Without them no radiograph is shown; diagrams stay.
    """
    import nbformat  # two seconds that no notebook should pay for
    from nbconvert import HTMLExporter
    from pygments.formatters import HtmlFormatter

    nb = nbformat.read(notebook, as_version=4)
    study = _study_of(notebook)
    clean_notebook(nb, study)
    contents = _render_prose(nb)
    light, dark = (
        HtmlFormatter(style=style).get_style_defs(".highlight") for style in ("default", "github-dark")
    )
    css = f"{_read('style.css')}\n{light}\n@media (prefers-color-scheme: dark) {{ {dark} }}"
    report = _title_block(nb, notebook, study) | {
        "error": redact(error, study),
        "contents": contents,
        "images": images,
    }
    page = {"title": f"{report['heading']} · {report['eyebrow']}", **_frame(css)}
    exporter = HTMLExporter(
        template_file=str(TEMPLATES / "report.html.j2"),
        extra_template_paths=[str(TEMPLATES)],
        filters={
            "clean": clean_html,
            "clean_table": clean_table,
            "pictures": _picture_address,
            "is_widget": _is_widget,
        },
    )
    body, _ = exporter.from_notebook_node(nb, resources={"report": report, "page": page})
    return write_text(target or notebook.with_suffix(".html"), body)


def clean_notebook(nb: "nbformat.NotebookNode", study: Path | None) -> None:
    """Take from an executed notebook, in place, what names this machine: paths in outputs and papermill's
    metadata.

    papermill's own error cells go, and pieces of one stream are joined as a terminal would show them.
    """
    for key in ("input_path", "output_path", "environment_variables"):
        nb.metadata.get("papermill", {}).pop(key, None)
    nb.cells = [c for c in nb.cells if "papermill-error-cell-tag" not in c.metadata.get("tags", [])]
    for cell in nb.cells:
        if cell.cell_type != "code":
            continue
        cell.outputs = _join_streams(cell.outputs)
        for output in cell.outputs:
            for key in ("text", "evalue"):
                if key in output:
                    output[key] = redact(output[key], study)
            if "traceback" in output:
                output.traceback = [redact(line, study) for line in output.traceback]
            for kind, value in output.get("data", {}).items():
                if kind.startswith("text/"):
                    output.data[kind] = redact("".join(value), study)


def _study_of(notebook: Path) -> Path | None:
    folder = notebook.parent
    return next((place for place in (folder, folder.parent) if (place / "study.json").exists()), None)


def _title_block(nb: "nbformat.NotebookNode", notebook: Path, study: Path | None) -> dict[str, Any]:
    """Return heading, eyebrow, facts, parameters and verdict of a notebook; its first heading is taken
    out.
    """
    heading = notebook.stem
    first = next((c for c in nb.cells if c.cell_type == "markdown" and c.source.startswith("# ")), None)
    if first is not None:
        line, _, rest = first.source.partition("\n")
        heading = line.lstrip("# ")
        first.metadata.html = first.metadata.html.partition("</h1>")[2] if rest.strip() else ""
    facts, parameters, eyebrow = {}, {}, notebook.stem
    if study is not None:
        record = read_json(study / "study.json")
        model = (
            _model_of(nb)
            if notebook.parent.name == LAB
            else notebook.parent.name
            if notebook.parent != study
            else ""
        )
        eyebrow = " · ".join(part for part in (study.name, model) if part)
        facts = (
            {"study": study.name}
            | ({"model": model} if model else {})
            | {"data": describe_source(study, record)}
        )
        parameters = changed_parameters(record["settings"])
    facts["made"] = now()[:16].replace("T", " ")
    words = [
        o.data["text/markdown"]
        for c in nb.cells[-1:]
        for o in c.get("outputs", [])
        if "text/markdown" in o.get("data", {})
    ]
    verdict = re.split(r"(?<=[.!?])\s+(?=[A-Z])", words[-1].strip())[0] if words else ""
    return {
        "heading": heading,
        "eyebrow": eyebrow,
        "facts": facts,
        "parameters": parameters,
        "verdict": verdict,
    }


def _model_of(nb: "nbformat.NotebookNode") -> str:
    """Return the parameter ``model`` that a notebook ran with last, or an empty string where it has none."""
    found = ""
    for cell in nb.cells:
        if {"parameters", "injected-parameters"} & set(cell.metadata.get("tags", [])):
            value = re.search(r"""^model = (["'])(.*?)\1""", cell.source, re.MULTILINE)
            found = value[2] if value else found
    return found


def describe_source(study: Path, record: dict[str, Any]) -> str:
    """Return what the images of a study are, in a few words."""
    kind = "synthetic phantoms" if record["settings"]["data"] == "phantoms" else "radiographs"
    path = study / "manifest.csv"
    if not path.exists():
        return kind
    with open(
        path, encoding="utf-8", newline=""
    ) as handle:  # pandas takes longer to start than a report to render
        rows = [(row["group"], row["status"]) for row in csv.DictReader(handle)]
    groups = [group for group, status in rows if status == "used"]
    rest = sum(status == "not sampled" for _, status in rows)
    share = f"{len(groups):,} of {len(groups) + rest:,}" if rest else f"{len(groups):,}"
    return f"{share} {kind} in {len(set(groups) - {''}):,} groups"


def changed_parameters(settings: dict[str, Any]) -> dict[str, Any]:
    """Return those of a study's settings that are not the defaults."""
    default = Settings().model_dump(mode="json")
    return {
        key: value
        for key, value in settings.items()
        if value != default.get(key) and key not in ("name", "data")
    }


def _render_prose(nb: "nbformat.NotebookNode") -> list[tuple[str, str]]:
    """Render Markdown cells into their metadata, give each cell the heading it stands under, return anchors
    and headings.
    """
    from nbconvert.filters import markdown2html

    contents, label = [], "Table"
    for cell in nb.cells:
        if cell.cell_type == "markdown":
            text = re.sub(r'<a class="anchor-link".*?</a>', "", markdown2html(cell.source))
            cell.metadata.html = clean_html(text)
            for anchor, words in re.findall(r'<h2 id="([^"]*)">(.*?)</h2>', cell.metadata.html, re.DOTALL):
                label = html.unescape(re.sub(r"<.*?>", "", words))
                contents.append((html.unescape(anchor), label))
        cell.metadata.label = label
    return contents


def clean_html(text: str) -> Markup:
    """Return HTML with nothing in it that runs, styles, or asks an address; what is not known is shown as
    text.
    """
    text = re.sub(r"<(style|script)\b.*?</\1\s*>", "", str(text), flags=re.DOTALL | re.IGNORECASE)
    return Markup(
        bleach.clean(text, tags=_TAGS, attributes=_is_allowed, protocols={"http", "https", "mailto", "data"})
    )


def clean_table(text: str) -> Markup:
    """Return a table's HTML, cleaned, in which intervals such as ``(0.43 to 0.75)`` stay in one piece."""
    return Markup(
        re.sub(
            r"(?<=>)([^<>()]*\d) (\((?:(?:[^<>()]*\d to|at least|at most) [^<>()]*|no interval)\))(?=</td>)",
            r"\1 <small>\2</small>",
            str(clean_html(text)),
        )
    )


def _is_allowed(tag: str, name: str, value: str) -> bool:
    if name == "src":
        return tag == "img" and value.startswith("data:image/")
    if name == "href":
        return not value.startswith("data:")
    return name in _ATTRIBUTES


def _is_widget(data: dict[str, Any]) -> bool:
    return "application/vnd.jupyter.widget-view+json" in data


def _picture_address(data: dict[str, Any]) -> str:
    """Return the address of an output's picture as data, or an empty string; tables come before pictures,
    widgets after.
    """
    if "text/html" in data and not _is_widget(data):
        return ""
    for kind in ("image/png", "image/jpeg", "image/svg+xml"):
        if kind in data:
            content = "".join(data[kind])
            packed = (
                base64.b64encode(content.encode()).decode()
                if kind == "image/svg+xml"
                else content.replace("\n", "")
            )
            return f"data:{kind};base64,{html.escape(packed)}"
    return ""


def _join_streams(outputs: list[Any]) -> list[Any]:
    """Return the outputs with neighbouring pieces of one stream joined, as a terminal would show them."""
    joined: list[Any] = []
    for output in outputs:
        if output.output_type == "stream" and joined and joined[-1].get("name") == output.name:
            joined[-1].text += output.text
        else:
            joined.append(output)
    for output in joined:
        if output.output_type == "stream":
            output.text = last_of_line(output.text)
    return [output for output in joined if output.get("text", "x").strip()]


def last_of_line(text: str) -> str:
    """Return `text` as a terminal leaves it: of what a carriage return overwrites, only the last; no
    `is_noise`.
    """
    lines = (line.rstrip("\r").split("\r")[-1].rstrip() for line in text.split("\n"))
    return "\n".join(line for line in lines if not is_noise(line))


def _read(name: str) -> str:
    return (TEMPLATES / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _frame(css: str | None = None) -> dict[str, Markup]:
    """Return style, script and the policy that lets a browser take these and pictures within the page, and
    nothing else.
    """
    css, script = css or _read("style.css"), _read("page.js")
    policy = (
        f"default-src 'none'; img-src data:; style-src {_hash(css)}; script-src {_hash(script)}; base-uri "
        "'none'; "
        "form-action 'none'"
    )
    return {"css": Markup(css), "script": Markup(script), "policy": Markup(policy)}


def render_page(template: str, **values: Any) -> str:
    """Return a page from one of our templates, values escaped."""
    environment = jinja2.Environment(loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True)
    return environment.get_template(template).render(
        changed=now()[:16].replace("T", " "), **_frame(), **values
    )
