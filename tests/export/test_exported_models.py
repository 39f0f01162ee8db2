"""Small models of every kind that a study has, exported and run: the file answers as the model does."""

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from xray_helpers.export.bundle import write_bundle
from xray_helpers.export.engine import ExportedPass, find_export
from xray_helpers.export.formats import FORMATS, Converter
from xray_helpers.export.proof import compare_formats, measure_formats
from xray_helpers.export.runtimes import open_runtime
from xray_helpers.models.out_of_distribution import OODDetector
from xray_helpers.settings import Classes, set_classes
from xray_helpers.study.files import write_json
from xray_helpers.study.folders import write_classes

for library in ("ai_edge_litert", "litert_quantizer", "onnxruntime", "tf2onnx"):
    pytest.importorskip(library, reason="make export")
pytestmark = pytest.mark.slow
SIZE = (32, 28)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A study of a model that sees mirror images as well, and of one of three classes."""
    import keras

    from xray_helpers.models.head import average_flips
    from xray_helpers.models.preprocessing import POOLED

    folder = tmp_path_factory.mktemp("exported") / "small"
    settings = {"img_size": list(SIZE), "resize": "pad", "flips": True, "seed": 1}
    write_json(folder / "study.json", {"settings": settings})
    for name, outputs in (("Flips", 1), ("Three", 3)):
        keras.utils.set_random_seed(outputs)
        pixels = keras.Input((*SIZE, 1))
        x = keras.layers.Rescaling(1 / 127.5, -1.0)(pixels)
        x = keras.layers.Conv2D(16, 3, strides=2, activation="relu")(x)
        x = keras.layers.GlobalAveragePooling2D(name=POOLED)(x)
        last = ("sigmoid", "p_fractured") if outputs == 1 else ("softmax", "p_classes")
        model = keras.Model(pixels, keras.layers.Dense(outputs, activation=last[0], name=last[1])(x))
        model.layers[-1].set_weights([8 * w for w in model.layers[-1].get_weights()])
        (folder / name).mkdir()
        (average_flips(model) if outputs == 1 else model).save(folder / name / "model.keras")
        write_json(folder / name / "threshold.json", {"threshold": 0.5, "uncertain": [0.45, 0.55]})
        write_json(folder / name / "training.json", {"licence": "Apache-2.0", "weights_of": "chance"})
        OODDetector(np.eye(16, dtype=np.float32), 0.5).save(folder / name / "familiarity.npz")
    yield folder
    set_classes(Classes())


@pytest.fixture(scope="module")
def pictures():
    """Noise on more and more light."""
    noise = np.random.default_rng(5).integers(0, 60, (40, *SIZE))
    return (noise + np.linspace(0, 190, 40)[:, None, None]).astype(np.uint8)


@pytest.fixture(scope="module")
def converted(study):
    """The study, its models converted where they are handed over."""
    wanted = {"Flips": ("keras", "litert-float32", "litert-dynamic-int8", "onnx-float32")}
    for model, names in (wanted | {"Three": ("litert-float32",)}).items():
        with Converter(study, model) as converter:
            for name in names:
                converter.convert(FORMATS[name], study / model / "export" / name)
        assert {path.name for path in (study / model / "export").iterdir()} == set(names)
    return study


@pytest.mark.parametrize("model", ["Flips", "Three"])
def test_an_exported_file_answers_as_the_model_does(converted, pictures, model):
    exact = open_runtime("keras", converted / model / "model.keras")(pictures)
    assert np.ptp(exact[0][:, 0]) > 0.05
    for folder in (converted / model / "export").iterdir():
        name = folder.name
        outputs, features = open_runtime(name, folder / FORMATS[name].file)(pictures)
        assert outputs.shape == exact[0].shape
        assert np.abs(outputs - exact[0]).max() < (0.05 if "int8" in name else 1e-5), name
        assert np.abs(features - exact[1]).max() < (0.1 if "int8" in name else 1e-4), name


def test_the_proof_compares_files_with_the_original_and_hands_them_over(converted, pictures):
    """By hand: one file is replaced by another model's, which it has to find out."""
    name, study = "litert-float32", converted
    reasons = {"keras": "", name: "", "openvino-int8": "It cannot be converted."}
    costs, answers = measure_formats(study, "Flips", reasons, pictures)
    assert costs["format"].tolist() == ["keras", name]
    assert (costs.drop(columns="format") > 0).all(axis=None)
    truth = (answers["keras"][0][:, 0] > np.median(answers["keras"][0])).astype(int)
    test = pd.DataFrame({"path": [f"{n}.png" for n in range(40)], "group": np.arange(40), "y_true": truth})
    write_json(study / "Flips" / "threshold.json", {"threshold": float(np.median(answers["keras"][0]))})
    wrong = (1 - answers["keras"][0], answers["keras"][1])
    scores, flips = compare_formats(study, "Flips", test, answers | {"onnx-int8": wrong}, 0.01)
    scores = scores.set_index("format")
    assert scores["verdict"].to_dict() == {
        "keras": "may be used",
        name: "may be used",
        "onnx-int8": "do not use",
    }
    assert scores.loc["onnx-int8", "auroc"] == pytest.approx(1.0)
    p, threshold = answers["keras"][0][:, 0], float(np.median(answers["keras"][0]))
    flipped = int(((p >= threshold) != (1 - p >= threshold)).sum())
    assert scores.loc["onnx-int8", "flips"] == len(flips[flips["format"] == "onnx-int8"]) == flipped > 30
    assert scores.loc[name, "flips"] == 0

    folder = write_bundle(study, "Flips", FORMATS[name], {"verdict": "may be used", "why": ""})
    assert len(list((folder / "phantoms").glob("*.png"))) >= 2
    bundle = find_export(study, "Flips", "litert")
    assert bundle.about["resize"] == "pad"
    assert bundle.about["flips"]
    forward, store = ExportedPass(bundle), np.zeros((40, 17), np.float32)
    forward.submit(pictures, store, np.arange(40))
    assert store[:, 0] == pytest.approx(answers["keras"][0][:, 0], abs=1e-5)


def test_three_classes_are_handed_over_with_their_question(converted):
    study = converted
    write_classes(study, Classes("none", "fracture", ("a", "b", "none"), ("a", "b")))
    folder = write_bundle(study, "Three", FORMATS["litert-float32"], {"verdict": "may be used", "why": ""})
    bundle = find_export(study, "Three", "litert")
    assert bundle.about["positive_outputs"] == [0, 1]
    (study / "classes.json").unlink()
    done = subprocess.run(
        [sys.executable, folder / "predict.py"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("P(fracture)") == 3


def test_predict_py_gives_the_same_in_an_environment_that_holds_nothing_else(converted, tmp_path):
    proof = {"verdict": "may be used", "why": ""}
    folder = write_bundle(converted, "Flips", FORMATS["litert-float32"], proof)
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "bare"], check=True)
    python = tmp_path / "bare" / "bin" / "python"
    needs = ["numpy", "pillow", "ai-edge-litert", "backports-strenum<1.3"]
    install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *needs]
    got = subprocess.run(install, capture_output=True, text=True, check=False)
    if got.returncode:
        pytest.skip(f"no package index here: {got.stderr.strip().splitlines()[-1][:150]}")
    done = subprocess.run(
        [python, folder / "predict.py"], capture_output=True, text=True, check=False, cwd="/"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("For research only.") == 3  # each within 1e-4, or the status would be 1
