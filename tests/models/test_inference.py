import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from xray_helpers.models import inference
from xray_helpers.models.inference import EXACT, ForwardPass, InferenceBackend, choose_backend, study_backend
from xray_helpers.settings import InputError, Settings, build_settings
from xray_helpers.study.files import write_json


def test_auto_takes_openvino_where_it_pays(monkeypatch):
    monkeypatch.setattr(inference, "_has_gpu", lambda: False)
    assert choose_backend(images=5000).name == "openvino"
    assert choose_backend(images=100) == EXACT
    monkeypatch.setattr(inference, "_has_fast_bfloat16", lambda: True)
    assert choose_backend(images=5000) == InferenceBackend("openvino", "bfloat16")
    assert choose_backend("openvino", "float32", 1) == InferenceBackend("openvino", "float32")
    monkeypatch.setattr(inference.importlib.util, "find_spec", lambda name: None)
    assert choose_backend(images=5000) == EXACT
    with pytest.raises(InputError, match="pip install openvino"):
        choose_backend("openvino")


@pytest.mark.parametrize(
    "wrong", [("tensorflow", "bfloat16"), ("openvino", "float16"), ("tensorflow", "float16")]
)
def test_a_precision_that_is_not_there_is_refused(monkeypatch, wrong):
    monkeypatch.setattr(inference, "_has_gpu", lambda: False)
    with pytest.raises(InputError, match=f"{wrong[0]} has no {wrong[1]} here: give -p precision=float32"):
        choose_backend(*wrong)


def test_a_gpu_takes_tensorflow_in_the_precision_that_measures_faster(monkeypatch):
    monkeypatch.setattr(inference, "_has_gpu", lambda: True)
    monkeypatch.setattr(inference, "_measure_precision", lambda: "float16")
    assert choose_backend(images=5000) == InferenceBackend("tensorflow", "float16")
    assert choose_backend("tensorflow", "float32") == EXACT


@pytest.fixture
def driver(tmp_path, monkeypatch):
    """A machine with the driver of a GPU; the fixture sets how many GPUs TensorFlow finds."""
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    inference._tensorflow_has_gpu.cache_clear()

    def with_gpus(count):
        config = SimpleNamespace(list_physical_devices=lambda kind: [kind] * count)
        monkeypatch.setitem(sys.modules, "tensorflow", SimpleNamespace(config=config))

    yield with_gpus
    inference._tensorflow_has_gpu.cache_clear()


def test_a_gpu_that_tensorflow_cannot_use_is_no_gpu(driver, capsys):
    driver(0)
    assert choose_backend("auto", "float32", 5000).name == "openvino"
    assert choose_backend("tensorflow") == EXACT
    with pytest.raises(InputError, match="tensorflow has no float16 here"):
        choose_backend("tensorflow", "float16")
    assert capsys.readouterr().out.count("make GPU=1 demo") == 1  # said once


def test_a_gpu_that_tensorflow_uses_is_one_unless_it_is_hidden(driver, monkeypatch):
    driver(1)
    assert choose_backend("auto", "float16", 5000) == InferenceBackend("tensorflow", "float16")
    for hidden in ("-1", ""):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
        assert choose_backend("auto", "float32", 5000).name == "openvino"


def test_without_a_driver_tensorflow_is_not_even_imported(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(inference, "_DRIVER", tmp_path / "nvidiactl")
    monkeypatch.setattr(inference, "_tensorflow_has_gpu", lambda: pytest.fail("TensorFlow was asked"))
    assert choose_backend("auto", "float32", 5000).name == "openvino"


def test_the_makefile_adds_cuda_to_the_tensorflow_that_is_pinned(tmp_path):
    make = shutil.which("make")
    if make is None:
        pytest.skip("no make here")
    here = Path(__file__).parents[2]
    pinned = next(
        line.split()[0]
        for line in (here / "requirements.lock").read_text().splitlines()
        if line.startswith("tensorflow==")
    )
    said = {
        gpu: subprocess.run(
            [make, "-n", f"GPU={gpu}", f"VENV={tmp_path / 'venv'}", "demo"],
            cwd=here,
            text=True,
            capture_output=True,
            check=True,
        ).stdout
        for gpu in ("1", "0", "")
    }
    assert f'"{pinned.replace("tensorflow", "tensorflow[and-cuda]")}"' in said["1"]
    assert "and-cuda" not in said["0"] + said[""]


def test_a_study_keeps_the_engine_it_began_with(tmp_path, monkeypatch):
    monkeypatch.setattr(inference, "_has_gpu", lambda: False)
    monkeypatch.setattr(inference, "_has_fast_bfloat16", lambda: False)
    first = study_backend(tmp_path, build_settings(), 5000)
    assert first == InferenceBackend("openvino", "float32")
    monkeypatch.setattr(inference, "_has_fast_bfloat16", lambda: True)  # continued on another machine
    assert study_backend(tmp_path, build_settings(), 10) == first
    assert study_backend(tmp_path, build_settings(engine="tensorflow"), 10) == EXACT  # asked otherwise


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    from xray_helpers.models.backbones import get_backbone

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XRAY_HELPERS_ROOT", str(tmp_path_factory.mktemp("root")))
        return get_backbone("MobileNetV2").build((64, 64), "random")[0]


@pytest.fixture(scope="module")
def pictures():
    return np.random.default_rng(0).integers(0, 255, (21, 64, 64), dtype=np.uint8)


@pytest.mark.slow
def test_engines_give_the_same_features(network, pictures):
    exact = ForwardPass(network, EXACT)
    plain = np.asarray(network(pictures[..., None].astype(np.float32), training=False))
    assert exact(pictures) == pytest.approx(plain, abs=1e-3)
    assert exact.record()["difference"] == 0
    other = ForwardPass(network, InferenceBackend("openvino", "float32"))
    assert other(pictures) == pytest.approx(plain, abs=1e-3)
    assert other.backend == InferenceBackend("openvino", "float32")
    assert 0 < other.difference < 1e-3
    assert sys.modules["openvino_telemetry"] is None  # nothing is sent
    store = np.zeros((40, 1280), np.float32)
    other.submit(pictures[:9], store, np.arange(30, 21, -1))
    other.wait()
    assert store[30:21:-1] == pytest.approx(plain[:9], abs=1e-3)
    assert not store[:22].any()


@pytest.mark.slow
def test_an_engine_that_is_off_is_not_used(network, pictures, monkeypatch):
    monkeypatch.setitem(inference.TOLERANCE, "float32", 1e-12)
    forward = ForwardPass(network, InferenceBackend("openvino", "float32"))
    exact = ForwardPass(network, EXACT)
    assert (forward(pictures) == exact(pictures)).all()
    record = forward.record()
    assert (record["engine"], record["asked"]) == ("tensorflow", "openvino, float32")
    assert record["difference"] > 1e-12


@pytest.mark.slow
@pytest.mark.parametrize("faster", ["float32", "float16"])
def test_the_precision_of_a_gpu_is_the_one_measured_to_be_faster(monkeypatch, faster):
    class Pass:
        def __init__(self, network, backend):
            self.precision = backend.precision

        def __call__(self, pictures):
            time.sleep(0 if self.precision == faster else 0.05)

    monkeypatch.setattr(inference, "ForwardPass", Pass)
    assert inference._measure_precision() == faster


def test_a_study_begun_on_a_gpu_goes_on_without_one(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(inference, "_has_gpu", lambda: False)
    write_json(
        tmp_path / "engine.json", {"asked": ["auto", "auto"], "engine": "tensorflow", "precision": "float16"}
    )
    assert study_backend(tmp_path, Settings(), 10) == InferenceBackend("tensorflow", "float32")
    assert "chosen for this study elsewhere, is not on this machine" in capsys.readouterr().out
    asked = Settings(engine="tensorflow", precision="float16")
    write_json(
        tmp_path / "engine.json",
        {"asked": ["tensorflow", "float16"], "engine": "tensorflow", "precision": "float16"},
    )
    with pytest.raises(
        InputError, match="give -p precision=float32"
    ):  # what was asked for by name is not replaced
        study_backend(tmp_path, asked, 10)
