"""The folder to hand over: refused where it was tampered with; `predict.py` reads as the package does."""

import ast
import hashlib
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from xray_helpers.export.alone import ProcessError, peak_memory, run_alone
from xray_helpers.export.bundle import _SCRIPTS, _TEMPLATE, read_bundle
from xray_helpers.export.engine import find_export
from xray_helpers.export.formats import choose_formats
from xray_helpers.images.pixels import resize
from xray_helpers.images.radiographs import decode_radiograph, image_folder
from xray_helpers.settings import InputError
from xray_helpers.study.files import write_json
from xray_helpers.study.folders import find_study

SOURCE = _TEMPLATE.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def script():
    """The functions of `predict.py`, without its checks and its model."""
    names = {"np": np, "Image": Image, "ImageOps": ImageOps, "sys": sys}
    functions = [node for node in ast.parse(SOURCE).body if isinstance(node, ast.FunctionDef)]
    exec(compile(ast.Module(functions, []), "predict.py", "exec"), names)
    return names


def test_the_script_is_short_and_needs_few_libraries():
    assert len(SOURCE.splitlines()) < 60
    imported = {
        (name.name if isinstance(node, ast.Import) else node.module).split(".")[0]
        for node in ast.walk(ast.parse(SOURCE))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in node.names
    }
    assert imported - set(sys.stdlib_module_names) == {"numpy", "PIL", "ai_edge_litert"}
    for lines in _SCRIPTS.values():
        text = SOURCE
        for old, new in zip(_SCRIPTS["litert"], lines, strict=True):
            assert old in text
            text = text.replace(old, new)
        ast.parse(text)


@settings(max_examples=60, deadline=None)
@given(
    st.tuples(st.integers(1, 320), st.integers(1, 320)),
    st.sampled_from([(96, 96), (64, 90), (80, 31)]),
    st.sampled_from(["stretch", "pad"]),
    st.integers(0, 99),
)
def test_it_resizes_as_the_package_does(script, shape, size, way, seed):
    """Exactly, but for means of areas at .5, which OpenCV sums up in float32: a grey level in few pixels."""
    pixels = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    script |= {"SIZE": list(size), "ABOUT": {"resize": way}}
    picture = Image.fromarray(pixels)
    picture.close = lambda: None
    script["Image"] = type("Opens", (), {"open": staticmethod(lambda _: picture), "new": Image.new})
    found, expected = script["read"]("x.png"), resize(pixels, size, way).astype(float)
    script["Image"] = Image
    assert found.shape == (1, *size, 1)
    difference = np.abs(found[0, ..., 0] - expected)
    assert difference.max() <= 1
    assert (difference > 0).mean() < 0.01


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "LA", "P", "1"])
def test_it_makes_grey_of_colour_as_the_package_does(script, mode, tmp_path):
    pixels = np.random.default_rng(3).integers(0, 256, (40, 50, 4), dtype=np.uint8)
    path = tmp_path / "x.png"
    Image.fromarray(pixels, "RGBA").convert(mode if mode != "P" else "RGB").convert(mode).save(path)
    script |= {"SIZE": [40, 50], "ABOUT": {"resize": "stretch"}}
    expected = decode_radiograph(path.read_bytes(), image_folder(tmp_path)).pixels
    assert (script["read"](path)[0, ..., 0] == expected).all()


def test_it_refuses_more_than_8_bits(script, tmp_path):
    Image.fromarray(np.zeros((9, 9), np.uint16)).save(tmp_path / "x.png")
    with pytest.raises(SystemExit, match="more than 8 bits"):
        script["read"](tmp_path / "x.png")


@pytest.fixture
def bundle(tmp_path):
    """A folder as it is handed over, with a model that no runtime opens."""
    place = tmp_path / "small" / "A" / "export" / "litert-int8"
    place.mkdir(parents=True)
    (place / "model.tflite").write_bytes(b"model" * 100)
    about = {"format": "litert-int8", "source": hashlib.sha256(b"keras").hexdigest(), "threshold": 0.5}
    about |= {"size": [8, 8], "abstains_between": [0.5, 0.5]}
    write_json(place / "preprocessing.json", about)
    write_json(place / "proof.json", {"verdict": "may be used", "why": "It is the same."})
    write_json(place / "expected.json", {"phantoms/1.png": 0.25})
    seal(place)
    shutil.copy(_TEMPLATE, place / "predict.py")
    (tmp_path / "small" / "A" / "model.keras").write_bytes(b"keras")
    write_json(tmp_path / "small" / "A" / "threshold.json", {"threshold": 0.5})
    return place


def seal(place):
    names = ("model.tflite", "preprocessing.json", "proof.json", "expected.json")
    sums = [f"{hashlib.sha256((place / name).read_bytes()).hexdigest()}  {name}\n" for name in names]
    (place / "SHA256SUMS").write_text("".join(sums))


def corrupt(place):
    data = bytearray((place / "model.tflite").read_bytes())
    data[7] ^= 1
    (place / "model.tflite").write_bytes(data)


def cut(place):
    (place / "model.tflite").write_bytes(b"model" * 99)


def rename(place):
    (place / "model.tflite").rename(place / "other.tflite")


@pytest.mark.parametrize("harm", [corrupt, cut, rename])
def test_a_file_that_is_corrupted_cut_or_renamed_is_refused_in_one_sentence(bundle, harm):
    assert read_bundle(bundle).expected == {"phantoms/1.png": 0.25}
    harm(bundle)
    with pytest.raises(InputError, match=r"model.tflite is (missing or was renamed|not the file that was)"):
        read_bundle(bundle)
    script = (bundle / "predict.py").read_text().replace("from ai_edge_litert", "# from ai_edge_litert")
    (bundle / "predict.py").write_text(script)  # the checksums come before the runtime
    done = subprocess.run(
        [sys.executable, bundle / "predict.py"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr.strip() == (
        "model.tflite is missing, renamed or not as it was handed over: get the whole folder again."
    )


def test_an_engine_is_refused_that_is_not_there_of_an_earlier_training_or_not_to_be_used(bundle):
    study = bundle.parents[2]
    assert find_export(study, "A", "litert").form.name == "litert-int8"
    with pytest.raises(InputError, match="was not exported to onnx: run `python -m xray_helpers export"):
        find_export(study, "A", "onnx")
    with pytest.raises(InputError, match="no format 'tpu'"):
        find_export(study, "A", "tpu")
    write_json(bundle / "proof.json", {"verdict": "do not use", "why": "It loses more than 0.01 of AUROC."})
    seal(bundle)
    with pytest.raises(InputError, match='marked "do not use": It loses more'):
        find_export(study, "A", "litert-int8")
    (study / "A" / "model.keras").write_bytes(b"trained again")
    with pytest.raises(InputError, match="earlier training"):
        find_export(study, "A", "litert-int8")


def test_formats_are_chosen_by_kind_or_name_and_unknown_ones_refused():
    pytest.importorskip("ai_edge_litert", reason="make export")
    assert [one.name for one in choose_formats(["litert"], int8=False)] == [
        "litert-float32",
        "litert-float16",
    ]
    assert [one.name for one in choose_formats(["litert-int8", "keras"], int8=False)] == [
        "keras",
        "litert-int8",
    ]
    assert len(choose_formats(["litert"], int8=True)) == 4
    with pytest.raises(InputError, match="no format 'tflite': there are keras"):
        choose_formats(["tflite"], int8=False)


def test_a_missing_library_is_told_with_the_command_that_installs_it(monkeypatch):
    monkeypatch.setattr("xray_helpers.export.formats.importlib.util.find_spec", lambda _: None)
    with pytest.raises(InputError, match=r"litert-float32 needs ai_edge_litert, .* run `make export`"):
        choose_formats(["litert"], int8=False)


def test_a_process_of_its_own_returns_or_says_why_not():
    assert run_alone(peak_memory) > 1
    with pytest.raises(ProcessError, match=r"^There is no study 'nowhere' under"):
        run_alone(find_study, name="nowhere")
    with pytest.raises(ProcessError, match="its process ended with status 7"):
        run_alone(os._exit, status=7)
