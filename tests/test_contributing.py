"""Every example of CONTRIBUTING.md works as it stands there."""

import io
import re
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest
from nbformat.v4 import new_code_cell, new_notebook
from PIL import Image

import xray_helpers

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
EXAMPLES = dict(re.findall(r"```python\n# (\w+)\n(.*?)```", TEXT, re.DOTALL))


def run(name, module):
    namespace = dict(vars(module))
    exec(EXAMPLES[name], namespace)
    return namespace


def test_each_example_is_short():
    assert set(EXAMPLES) == {"backbone", "metric", "plot", "notebook", "format"}
    assert all(len(example.splitlines()) < 10 for example in EXAMPLES.values())


def test_every_file_and_name_of_the_map_is_there():
    package = Path(xray_helpers.__file__).parent
    rooms = dict(re.findall(r"^\| `([\w.]+)/?` \|[^|]*\|([^|]*)\|$", TEXT, re.MULTILINE))
    assert set(rooms) == {
        p.name for p in package.glob("[!_]*") if p.suffix == ".py" or (p / "__init__.py").exists()
    }
    for room, examples in rooms.items():
        for module, name in re.findall(r"`(\w+)\.(\w+)`", examples):
            assert re.search(rf"\b{name}\b", (package / room / f"{module}.py").read_text()), (
                f"{room}/{module}.{name}"
            )
    for path in re.findall(r"`((?:xray_helpers|tests|benchmarks|notebooks)/[\w/.]+)`", TEXT):
        assert (ROOT / path).exists() or "my_question" in path, path


@pytest.mark.slow
def test_a_backbone(monkeypatch):
    from xray_helpers.models import backbones

    monkeypatch.setattr(backbones, "BACKBONES", dict(backbones.BACKBONES))
    run("backbone", backbones)
    entry = backbones.get_backbone("MobileNetV2Narrow")
    extractor, map_layer = entry.build((64, 64), "random")
    assert extractor.output.shape == (None, 1280)
    assert len(extractor.get_layer(map_layer).output.shape) == 4
    assert entry._build_network(input_shape=(64, 64, 3)).count_params() == entry.parameters


def test_a_metric(monkeypatch):
    from xray_helpers.evaluation import metrics

    monkeypatch.setattr(metrics, "METRICS", dict(metrics.METRICS))
    run("metric", metrics)
    y_true = np.array([1, 0, 1, 1, 0, 0] * 10)
    scores = metrics.compute_metrics(y_true, np.where(np.arange(60) % 4, y_true, 1 - y_true) * 0.8, 0.5)
    counts = [scores[name] for name in ("tp", "fp", "fn")]
    assert scores["jaccard"]["value"] == pytest.approx(counts[0] / sum(counts))


def test_a_plot():
    from xray_helpers.plots import style

    axes = run("plot", style)["plot_ages"](pd.DataFrame({"age": [10.0, 40.0, 70.0]}))
    assert style.show(axes).metadata["alt"] == "Histogram of 3 ages."


def test_a_notebook(monkeypatch, tmp_path):
    from xray_helpers.runner.graph import build_steps

    cells = [
        new_code_cell('name = "quick"', metadata={"tags": ["parameters"]}),
        new_code_cell(EXAMPLES["notebook"]),
    ]
    nbformat.write(new_notebook(cells=cells), tmp_path / "06_my_question.ipynb")
    monkeypatch.setenv("XRAY_HELPERS_NOTEBOOKS", str(tmp_path))
    assert [step.name for step in build_steps(("VGG16",))] == ["06_my_question"]


def test_a_format(monkeypatch):
    from xray_helpers.images import radiographs

    picture = Image.fromarray(np.tile(np.arange(64, dtype=np.uint8) * 4, (64, 1)))
    buffer = io.BytesIO()
    picture.save(buffer, "TGA")
    folder = radiographs.image_folder(Path())
    with pytest.raises(radiographs.UnreadableError, match="no picture of a known format"):
        radiographs.decode_radiograph(buffer.getvalue(), folder)
    monkeypatch.setattr(radiographs, "PILLOW_FORMATS", dict(radiographs.PILLOW_FORMATS))
    run("format", radiographs)
    assert (radiographs.decode_radiograph(buffer.getvalue(), folder).pixels == np.asarray(picture)).all()
