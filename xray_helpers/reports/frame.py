"""The HTML page that all reports share, and the cleaning of HTML that comes from elsewhere."""

import base64
import hashlib
import re
from pathlib import Path
from typing import Any
from urllib.parse import quote

import bleach
import jinja2
from bleach.sanitizer import ALLOWED_TAGS
from markupsafe import Markup

from xray_helpers.study.files import write_text
from xray_helpers.study.machine import now

TEMPLATES = Path(__file__).parent / "templates"
_MORE_TAGS = (
    "br caption col colgroup dd del details div dl dt figcaption figure h1 h2 h3 h4 h5 h6 hr img kbd mark p "
    "pre s samp section small span sub summary sup table tbody td tfoot th thead tr u var"
)
_ATTRIBUTES = {"alt", "class", "colspan", "id", "open", "rowspan", "scope", "title", "width", "height"}


def render_page(template: str, **values: Any) -> str:
    """Return a page made from one of the templates; values are escaped."""
    environment = jinja2.Environment(loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True)
    return environment.get_template(template).render(changed=minute(), **page_frame(), **values)


def minute() -> str:
    """Return the local time to the minute, such as ``2026-05-01 14:30``."""
    return now()[:16].replace("T", " ")


def page_frame(more_css: str = "") -> dict[str, Markup]:
    """Return style, script and content security policy of a page.

    The policy lets a browser use these two and embedded pictures only, and load nothing from any host.
    """
    css, script = (
        (TEMPLATES / name).read_text(encoding="utf-8") + more
        for name, more in (("style.css", more_css), ("page.js", ""))
    )
    policy = (
        f"default-src 'none'; img-src data:; style-src {_hash(css)}; script-src {_hash(script)}; "
        "base-uri 'none'; form-action 'none'"
    )
    return {"css": Markup(css), "script": Markup(script), "policy": Markup(policy)}


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def write_links(page: Path, links: list[tuple[str, str]]) -> None:
    """Write addresses and words into the line of a report that leads to other pages, if it has one."""
    pattern = re.compile(r'(<nav [^>]*class="series"[^>]*>).*?(?=</nav>)', re.DOTALL)
    text = page.read_text(encoding="utf-8")
    line = Markup(" ").join(Markup('<a href="{}">{}</a>').format(quote(to), words) for to, words in links)
    changed = pattern.sub(lambda found: found[1] + str(line), text, count=1)
    if changed != text:
        write_text(page, changed)


def markdown_to_html(text: str) -> Markup:
    """Return Markdown as clean HTML, without the anchors that nbconvert adds to headings."""
    from nbconvert.filters import markdown2html

    return clean_html(re.sub(r'<a class="anchor-link".*?</a>', "", markdown2html(text)))


def clean_html(text: str) -> Markup:
    """Return HTML without anything that runs, styles or loads from a host; unknown tags appear as text."""
    text = re.sub(r"<(style|script)\b.*?</\1\s*>", "", str(text), flags=re.DOTALL | re.IGNORECASE)
    protocols = {"http", "https", "mailto", "data"}
    return Markup(
        bleach.clean(
            text, tags=ALLOWED_TAGS | set(_MORE_TAGS.split()), attributes=_is_allowed, protocols=protocols
        )
    )


def _is_allowed(tag: str, name: str, value: str) -> bool:
    if name == "src":
        return tag == "img" and value.startswith("data:image/")
    if name == "href":
        return not value.startswith("data:")
    return name in _ATTRIBUTES


def clean_table(text: str) -> Markup:
    """Return clean HTML in whose table cells intervals such as ``(0.43 to 0.75)`` are not broken."""
    interval = r"\((?:(?:[^<>()]*\d to|at least|at most) [^<>()]*|no interval)\)"
    pattern = rf"(?<=>)([^<>()]*\d) ({interval})(?=</td>)"
    return Markup(re.sub(pattern, r"\1 <small>\2</small>", str(clean_html(text))))
