import importlib.util

import numpy as np
import pandas as pd
import pytest

from xray_helpers.models.inference import ForwardPass, InferenceBackend, choose_backend, study_backend
from xray_helpers.models.quantization import Calibration, choose_images, judge
from xray_helpers.reports.text import describe_engine
from xray_helpers.runner.preparation import prepare
from xray_helpers.settings import InputError, build_settings

INT8 = InferenceBackend("openvino", "int8")


def calibration(n=60, y=None):
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 255, (n, 64, 64), dtype=np.uint8)
    y = np.arange(n) % 2 if y is None else np.full(n, y)
    return Calibration(pictures[: n // 2], pictures[n // 2 :], y[: n // 2], y[n // 2 :])


def features(shift=0.0, noise=0.0):
    rng, made = np.random.default_rng(1), calibration()
    parts = []
    for y in (made.y_train, made.y_validation):
        exact = rng.normal(size=(len(y), 20)) + 2.0 * y[:, None] * (np.arange(20) == 0)
        parts.append(exact + shift + noise * rng.normal(size=exact.shape))
    return tuple(parts)


def test_the_verdict_is_that_of_cosine_and_auroc():
    same = judge(features(), features(), calibration())
    assert same["accepted"]
    assert same["cosine"] == pytest.approx(1)
    assert same["auroc"] == same["auroc_exact"] > 0.7
    assert not judge(features(), features(shift=1.0), calibration())["accepted"]
    exact = features()
    blind = tuple(np.where(np.arange(20) == 0, 0.0, part) for part in exact)  # loses what tells the classes
    fallen = judge(exact, blind, calibration())
    assert fallen["auroc"] < fallen["auroc_exact"] - 0.1
    assert not fallen["accepted"]


def test_by_hand_the_cosine_is_the_mean_over_images():
    pictures, y = np.zeros((2, 1, 1), np.uint8), np.zeros(2, int)
    made = Calibration(pictures, pictures, y, y)
    exact, found = np.array([[1.0, 0.0], [0.0, 2.0]]), np.array([[1.0, 0.0], [3.0, 3.0]])
    judged = judge((exact, exact), (found, found), made)
    assert judged["cosine"] == pytest.approx((1 + np.sqrt(0.5)) / 2)
    assert judged["auroc"] is None  # one class alone


def test_one_image_a_source_calibrates_and_test_images_never():
    rows = 90
    manifest = pd.DataFrame(
        {
            "status": ["used"] * 80 + ["duplicate"] * 10,
            "split": np.resize(["train", "train", "validation", "test"], rows),
            "group": np.resize(np.arange(40), rows).astype(str),
            "path": [f"{number}.png" for number in range(rows)],
            "sha256": [f"{number:064x}" for number in range(rows)],
            "label": np.where(np.arange(rows) % 2, "Fractured", "Non-Fractured"),
        }
    )
    chosen = pd.DataFrame(choose_images(manifest, 1), columns=["split", "path", "sha256", "y_true"])
    assert set(chosen["split"]) == {"train", "validation"}
    groups = manifest.set_index("path")["group"].loc[chosen["path"]]
    assert groups.is_unique
    assert set(chosen["path"]) <= set(manifest["path"].head(80))
    assert choose_images(manifest, 1) == choose_images(manifest, 1) != choose_images(manifest, 2)


def test_without_nncf_a_sentence_says_what_to_install(monkeypatch, root):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "nncf" else find(name))
    with pytest.raises(InputError, match="needs NNCF, which is not installed: run `make int8`"):
        choose_backend("auto", "int8")
    with pytest.raises(InputError, match="run `make int8`"):  # before any step has run
        prepare(build_settings(name="s", data="phantoms", weights="random", precision="int8"))


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    if importlib.util.find_spec("nncf") is None:  # not imported: that would be before telemetry is off
        pytest.skip("NNCF is not installed: run `make int8`")
    from xray_helpers.models.backbones import get_backbone

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XRAY_HELPERS_ROOT", str(tmp_path_factory.mktemp("root")))
        return get_backbone("VGG16").build((64, 64), "random")[0]


@pytest.mark.slow
@pytest.mark.parametrize("least", [0.0, 1.1])
def test_int8_is_used_where_it_is_accepted_and_float32_where_not(network, monkeypatch, least):
    from xray_helpers.models import quantization

    monkeypatch.setattr(quantization, "LEAST_COSINE", least)
    monkeypatch.setattr(quantization, "MARGIN", 1.0)
    made = calibration()
    forward = ForwardPass(network, INT8, made)
    found = forward(made.validation)
    exact = ForwardPass(network, InferenceBackend("openvino", "float32"))(made.validation)
    assert forward.backend.precision == ("float32" if least else "int8")
    record = forward.record()
    assert record["int8"]["cosine"] > 0.5
    assert ("cannot stand for" in describe_engine(record)) == bool(least)
    assert (found == pytest.approx(exact, abs=1e-4)) == bool(least)
    again = ForwardPass(network, INT8, made)
    assert (again(made.validation) == found).all()


@pytest.mark.slow
def test_without_images_that_calibrate_int8_is_float32(network, tmp_path):
    forward = ForwardPass(network, INT8)
    forward(calibration().train[:3])
    assert forward.backend == InferenceBackend("openvino", "float32")
    assert study_backend(tmp_path, build_settings(precision="int8"), 10) == INT8  # before there is a manifest
