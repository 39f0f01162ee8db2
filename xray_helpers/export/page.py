"""One HTML page that runs a trained model in a browser, from a file, without a server or a network."""

import base64
import gzip
import hashlib
import json
import re
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from xray_helpers.data.manifest import reading_of
from xray_helpers.evaluation.intervals import describe, describe_count
from xray_helpers.export import page_model
from xray_helpers.export.browser_runtime import NAME, VERSION, BrowserRuntime, load_browser_runtime
from xray_helpers.models.out_of_distribution import OODDetector
from xray_helpers.models.saved import load_model
from xray_helpers.settings import Classes, InputError, set_classes
from xray_helpers.study.files import atomic_write, read_json, write_text
from xray_helpers.study.folders import read_classes
from xray_helpers.study.machine import now

_TEMPLATES = Path(__file__).parent / "templates"


def write_page(study: Path, model: str, to: Path, runtime: Path | None = None) -> Path:
    """Write a page that runs a model, and beside it the model that it holds.

    Parameters
    ----------
    study : Path
    model : str
    to : Path
        A folder; it gets ``page.html`` and ``page.onnx``, which gives in Python what the page gives.
    runtime : Path, optional
        See `browser_runtime.load_browser_runtime`.

    Returns
    -------
    Path
        Of ``page.html``.

    Raises
    ------
    InputError
        If there is no such model, or the runtime cannot be had.
    """
    place, classes = study / model, read_classes(study)
    if not (place / "model.keras").exists():
        raise InputError(f"{study.name} has no model {model!r}.")
    loaded = load_browser_runtime(runtime)
    set_classes(classes)
    source = load_model(place / "model.keras")
    data = page_model.convert(
        page_model.build_page_model(source, OODDetector.load(place / "familiarity.npz"), classes)
    )
    with atomic_write(to / "page.onnx") as partial:
        partial.write_bytes(data)
    facts = collect_facts(study, model, classes, source.input_shape[1:3])
    return write_text(to / "page.html", render(facts, data, loaded))


def collect_facts(study: Path, model: str, classes: Classes, size: tuple[int, int]) -> dict[str, Any]:
    """Return what a page says of a model and decides by, as plain values."""
    place, chosen = study / model, read_json(study / model / "threshold.json")
    settings = read_json(study / "study.json")["settings"]
    scores = read_json(place / "metrics.json", default=None)
    verdict = read_json(place / "maps_verdict.json", default={})
    threshold = float(chosen["threshold"])
    return {
        "study": study.name,
        "model": model,
        "date": now()[:10],
        "size": [int(side) for side in size],
        "resize": reading_of(settings).get("resize", "stretch"),
        "threshold": threshold,
        "uncertain": [float(bound) for bound in chosen.get("uncertain", (threshold, threshold))],
        "unlike": OODDetector.load(place / "familiarity.npz").limit,
        "negative": classes.negative,
        "positive": classes.positive,
        "classes": list(classes.names),
        "positives": classes.are_positive,
        "auroc": describe(scores["auroc"]) if scores else "",
        "count": describe_count(scores, "test images") if scores else "",
        "maps": verdict.get("verdict", ""),
        "runtime": f"{NAME} {VERSION}",
    }


def render(facts: dict[str, Any], model: bytes, runtime: BrowserRuntime) -> str:
    """Return the page. Its policy lets it run its own scripts and WebAssembly, and reach nothing."""
    hashes = {name: hashlib.sha256(data).hexdigest() for name, data in (("model", model), ("wasm", runtime.wasm))}
    css, picture, own = ((_TEMPLATES / name).read_text(encoding="utf-8") for name in _FILES)
    known = json.dumps(facts | {"hashes": hashes}, ensure_ascii=False).replace("<", "\\u003c")
    script = f"{_open_module(runtime.script)}\nconst FACTS = {known};\n{own}"
    policy = (
        f"default-src 'none'; script-src {_hash(picture)} {_hash(script)} 'wasm-unsafe-eval'; "
        f"style-src {_hash(css)}; base-uri 'none'; form-action 'none'"
    )
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES), autoescape=True, undefined=jinja2.StrictUndefined
    )
    inlined = {"css": css, "picture": picture, "script": script, "policy": policy}
    return environment.get_template("page.html.j2").render(
        facts=facts,
        hash=hashes["model"],
        megabytes=f"{len(model) / 1e6:.1f}",
        model=_pack(model),
        wasm=_pack(runtime.wasm),
        **{key: Markup(text) for key, text in inlined.items()},
    )


_FILES = ("page.css", "picture.js", "page.js")


def _open_module(script: str) -> str:
    """Return an ES module whose exports are an object ``ort`` instead, so that it can be part of a script."""
    body, exports = re.fullmatch(r"(.*)\bexport\s*\{([^{}]*)\};?\s*(?://#[^\n]*\s*)?", script, re.DOTALL).groups()
    pairs = (pair.split(" as ") for pair in exports.split(","))
    named = ", ".join(f"{pair[-1].strip()}: {pair[0].strip()}" for pair in pairs)
    return f"{body}\nconst ort = {{ {named} }};".replace("</script", "<\\/script")


def _pack(data: bytes) -> str:
    return base64.b64encode(gzip.compress(data, mtime=0)).decode()


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
