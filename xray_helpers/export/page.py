"""One HTML page that runs a trained model in a browser, from a file, without a server or a network."""

import base64
import gzip
import hashlib
import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup

from xray_helpers.data.manifest import reading_of
from xray_helpers.evaluation.intervals import describe, describe_count
from xray_helpers.evaluation.thresholds import describe_reach
from xray_helpers.export.alone import run_alone
from xray_helpers.export.browser_runtime import NAME, VERSION, BrowserRuntime, load_browser_runtime
from xray_helpers.export.bundle import EXPORT, identify_training
from xray_helpers.export.engine import find_export
from xray_helpers.export.page_model import PIXELS, write_page_model
from xray_helpers.models.out_of_distribution import OODDetector
from xray_helpers.study.files import read_json, write_json, write_text
from xray_helpers.study.folders import read_classes
from xray_helpers.study.machine import now

PROVEN = "onnx-float16"  # the format whose weights a page has
FACTS = "page.json"  # beside the page: what it says of the model and decides by
_TEMPLATES = Path(__file__).parent / "templates"
_FILES = ("page.css", "picture.js", "page.js")


def write_page(study: Path, model: str, runtime: Path | None = None) -> Path:
    """Write a page that runs a model, which has to have passed the comparison with ``model.keras`` before.

    Parameters
    ----------
    study : Path
    model : str
    runtime : Path, optional
        See `browser_runtime.load_browser_runtime`.

    Returns
    -------
    Path
        Of ``STUDY/MODEL/export/page/page.html``. Beside it is ``page.onnx``, which gives in Python what the
        page gives.

    Raises
    ------
    InputError
        If the model was not exported to `PROVEN`, that is marked "do not use", or the runtime cannot be had.
    """
    proof = find_export(study, model, PROVEN).proof
    return build_page(study, model, proof, load_browser_runtime(runtime))


def build_page(study: Path, model: str, proof: dict[str, Any], runtime: BrowserRuntime) -> Path:
    """Write the page of `write_page`, given the row of the comparison and the runtime."""
    to = study / model / EXPORT / "page"
    run_alone(write_page_model, study=study, model=model, to=to / "page.onnx")
    facts, data = collect_facts(study, model, proof), (to / "page.onnx").read_bytes()
    facts["expected"] = compute_expected(data, facts["size"])
    page = write_text(to / "page.html", render(facts, data, runtime))
    write_json(to / FACTS, facts)
    return page


def drop_outdated_page(study: Path, model: str) -> None:
    """Delete the page of an earlier training or threshold, which would be taken for the present one."""
    place = study / model / EXPORT / "page"
    known = read_json(place / FACTS, default={})
    if place.exists() and not identify_training(study, model).items() <= known.items():
        shutil.rmtree(place)


def collect_facts(study: Path, model: str, proof: dict[str, Any]) -> dict[str, Any]:
    """Return what a page says of a model and decides by, as plain values."""
    place, classes = study / model, read_classes(study)
    settings, chosen = read_json(study / "study.json")["settings"], read_json(place / "threshold.json")
    scores, training = read_json(place / "metrics.json", default=None), identify_training(study, model)
    return {
        "study": study.name,
        "model": model,
        "date": now()[:10],
        "size": list(settings["img_size"]),
        "resize": reading_of(settings).get("resize", "stretch"),
        "uncertain": list(chosen.get("uncertain", [training["threshold"]] * 2)),
        "unlike": OODDetector.load(place / "familiarity.npz").limit,
        "negative": classes.negative,
        "positive": classes.positive,
        "classes": list(classes.names),
        "positives": classes.are_positive,
        "auroc": describe(scores["auroc"]) if scores else "",
        "count": describe_count(scores, "test images") if scores else "",
        "proof": (
            f"on {describe_count(proof, 'test images')} probabilities differ by at most "
            f"{proof['largest']:.2g} and decisions on {proof['flips']}; verdict: {proof['verdict']}. "
            f"{proof['why']}"
        ),
        "maps": read_json(place / "maps_verdict.json", default={}).get("verdict", ""),
        "runtime": f"{NAME} {VERSION}",
        **training,
    }


def compute_expected(model: bytes, size: Sequence[int]) -> list[float]:
    """Return the probabilities of a pattern, by which a page tests the browser that it runs in."""
    import onnxruntime

    y, x = np.indices(size)
    pixels = ((x * x + 3 * y * y + x * y) & 255)[None, ..., None].astype(np.float32)
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    return session.run(["probabilities"], {PIXELS: pixels})[0][0].astype(float).tolist()


def render(facts: dict[str, Any], model: bytes, runtime: BrowserRuntime) -> str:
    """Return the page. Its policy lets it run its own scripts and WebAssembly, and reach nothing."""
    hashes = {
        name: hashlib.sha256(data).hexdigest() for name, data in (("model", model), ("wasm", runtime.wasm))
    }
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
        reach=describe_reach(*facts["uncertain"], (facts["negative"], facts["positive"])),
        hash=hashes["model"],
        megabytes=f"{len(model) / 1e6:.1f}",
        model=_pack(model),
        wasm=_pack(runtime.wasm),
        **{key: Markup(text) for key, text in inlined.items()},
    )


def _open_module(script: str) -> str:
    """Return an ES module whose exports are an object ``ort`` instead, so that it can be part of a script."""
    body, exports = re.fullmatch(
        r"(.*)\bexport\s*\{([^{}]*)\};?\s*(?://#[^\n]*\s*)?", script, re.DOTALL
    ).groups()
    pairs = (pair.split(" as ") for pair in exports.split(","))
    named = ", ".join(f"{pair[-1].strip()}: {pair[0].strip()}" for pair in pairs)
    return f"{body}\nconst ort = {{ {named} }};".replace("</script", "<\\/script")


def _pack(data: bytes) -> str:
    return base64.b64encode(gzip.compress(data, mtime=0)).decode()


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
