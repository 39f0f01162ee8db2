"""The forward pass of a frozen network on the fastest engine the machine has, checked against TensorFlow.

On a CPU that is OpenVINO, converted in memory from the very Keras graph; on a GPU, TensorFlow.
"""

import importlib.util
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from xray_helpers.settings import InputError, Settings
from xray_helpers.studies import read_json, write_json

if TYPE_CHECKING:
    import keras

BATCH = 8  # images a forward pass: measured on CPUs, 8 stay in the cache, where 32 do not
GPU_BATCH = 64
WORTH_CONVERTING = 1000  # forward passes from which `auto` takes OpenVINO: below, converting takes longer than it saves
TOLERANCE = {"float32": 1e-3, "bfloat16": 0.1}  # of the difference to float32 TensorFlow


class Engine(NamedTuple):
    """What computes: ``openvino`` or ``tensorflow``, in ``float32`` or ``bfloat16``."""

    name: str
    precision: str

    def __str__(self) -> str:
        return f"{self.name}, {self.precision}"


def study_engine(folder: Path, settings: Settings, passes: int) -> Engine:
    """Return the engine of a study: decided the first time, read from its ``engine.json`` afterwards.

    Parameters
    ----------
    folder : Path
        Of the study.
    settings : Settings
    passes : int
        Forward passes that the first model needs.

    Raises
    ------
    InputError
        When the engine is not installed here.
    """
    stored = read_json(folder / "engine.json", default={})
    if stored.get("asked") == [settings.engine, settings.precision]:
        return choose_engine(stored["engine"], stored["precision"], passes)
    engine = choose_engine(settings.engine, settings.precision, passes)
    asked = {"asked": [settings.engine, settings.precision]}
    write_json(folder / "engine.json", asked | {"engine": engine.name, "precision": engine.precision})
    return engine


def choose_engine(name: str = "auto", precision: str = "auto", passes: int = WORTH_CONVERTING) -> Engine:
    """Return the fastest engine of this machine, or the one asked for; imports no TensorFlow.

    Raises
    ------
    InputError
        When OpenVINO is asked for and not installed.
    """
    installed = importlib.util.find_spec("openvino") is not None
    if name == "openvino" and not installed:
        raise InputError("OpenVINO is not installed here: pip install openvino, or give -p engine=tensorflow.")
    if name == "auto":
        name = "openvino" if installed and passes >= WORTH_CONVERTING and not _has_gpu() else "tensorflow"
    if name == "tensorflow" and precision == "bfloat16" and not _has_gpu():
        raise InputError("TensorFlow has bfloat16 on a GPU only: give -p precision=float32, or -p engine=openvino.")
    if precision == "auto":
        precision = "bfloat16" if name == "openvino" and _has_fast_bfloat16() else "float32"
    return Engine(name, precision)


def _has_gpu() -> bool:
    return shutil.which("nvidia-smi") is not None and os.environ.get("CUDA_VISIBLE_DEVICES") != "-1"


def _has_fast_bfloat16() -> bool:
    """Whether the processor multiplies bfloat16 matrices (AMX).

    Where it has AVX-512's bfloat16 instructions alone, bfloat16 was measured 0.6 to 0.9 times as fast as float32.
    """
    try:
        return "amx_bf16" in Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return False


def _openvino() -> Any:
    sys.modules.setdefault("openvino_telemetry", None)  # its converter then uses a stub: nothing is sent
    import openvino

    return openvino


EXACT = Engine("tensorflow", "float32")  # what all engines are compared with


class ForwardPass:
    """Uint8 pictures in, features out; work is queued by `submit` and done when `wait` returns.

    Attributes
    ----------
    engine : Engine
        That computes: after `check`, float32 TensorFlow where the one asked for was not close enough to it.
    difference : float
        Of the engine asked for to float32 TensorFlow on a batch: root mean square, in standard deviations of the
        features; 0 for float32 TensorFlow itself.
    """

    def __init__(self, extractor: "keras.Model", engine: Engine) -> None:
        self.shape, self.features = extractor.input_shape[1:3], extractor.output_shape[-1]
        self._extractor, self.asked, self.difference = extractor, engine, 0.0
        self._start(engine)

    def _start(self, engine: Engine) -> None:
        start = _start_openvino if engine.name == "openvino" else _start_tensorflow
        self.engine = engine
        self._batch, self._submit, self.wait = start(self._extractor, engine.precision)

    def check(self, pictures: np.ndarray) -> None:
        """Compare with float32 TensorFlow on a batch, and go over to it where the difference is above `TOLERANCE`."""
        if self.asked == EXACT:
            return
        sample = np.asarray(pictures[:BATCH])
        exact = np.asarray(self._extractor(sample[..., None].astype(np.float32), training=False))
        self.difference = float(np.sqrt(np.mean((self(sample) - exact) ** 2)) / (exact.std() + 1e-12))
        if not self.difference <= TOLERANCE[self.asked.precision]:
            self._start(EXACT)

    def record(self) -> dict[str, Any]:
        """Return engine, precision, and what was asked for and how far it was off, as plain values."""
        return {
            "engine": self.engine.name,
            "precision": self.engine.precision,
            "asked": str(self.asked),
            "difference": self.difference,
        }

    def __call__(self, pictures: np.ndarray) -> np.ndarray:
        """Return features (n, d), float32, of pictures (n, height, width), uint8."""
        parts: list[np.ndarray] = []
        for start in range(0, len(pictures), self._batch):
            batch = pictures[start : start + self._batch]
            parts.append(np.empty(0))
            self._submit(self._padded(batch), _setter(parts, len(parts) - 1, len(batch)))
        self.wait()
        return np.concatenate(parts)

    def submit(self, pictures: np.ndarray, store: np.ndarray) -> None:
        """Queue pictures (n, height, width); their features land in `store` (n, d) before `wait` returns."""
        for start in range(0, len(pictures), self._batch):
            batch = pictures[start : start + self._batch]
            self._submit(self._padded(batch), _writer(store[start : start + len(batch)]))

    def _padded(self, batch: np.ndarray) -> np.ndarray:
        missing = self._batch - len(batch)
        batch = np.ascontiguousarray(batch)
        return np.concatenate([batch, np.zeros((missing, *self.shape), np.uint8)]) if missing else batch


def _setter(parts: list[np.ndarray], index: int, count: int) -> Callable[[np.ndarray], None]:
    def keep(features: np.ndarray) -> None:
        parts[index] = np.array(features[:count])

    return keep


def _writer(store: np.ndarray) -> Callable[[np.ndarray], None]:
    def write(features: np.ndarray) -> None:
        store[:] = features[: len(store)]

    return write


def _graph(extractor: "keras.Model", batch: int) -> Any:
    import tensorflow as tf

    return tf.function(
        lambda pictures: extractor(tf.cast(pictures[..., None], tf.float32), training=False),
        input_signature=[tf.TensorSpec((batch, *extractor.input_shape[1:3]), tf.uint8)],
        autograph=False,
    )


def _start_tensorflow(extractor: "keras.Model", precision: str) -> tuple[int, Callable, Callable]:
    import tensorflow as tf

    batch = GPU_BATCH if tf.config.list_physical_devices("GPU") else BATCH
    run = _graph(extractor, batch)
    tf.config.optimizer.set_experimental_options({"auto_mixed_precision": precision == "bfloat16"})
    run(np.zeros((batch, *extractor.input_shape[1:3]), np.uint8))  # the graph is rewritten at its first run
    tf.config.optimizer.set_experimental_options({"auto_mixed_precision": False})
    return batch, lambda pictures, keep: keep(run(pictures).numpy()), lambda: None


def _start_openvino(extractor: "keras.Model", precision: str) -> tuple[int, Callable, Callable]:
    openvino = _openvino()
    model = openvino.convert_model(_graph(extractor, BATCH).get_concrete_function())
    hints = {
        "PERFORMANCE_HINT": "THROUGHPUT",
        "INFERENCE_PRECISION_HINT": {"float32": "f32", "bfloat16": "bf16"}[precision],
    }
    queue = openvino.AsyncInferQueue(openvino.Core().compile_model(model, "CPU", hints))
    queue.set_callback(lambda request, keep: keep(request.get_output_tensor(0).data))
    return BATCH, lambda pictures, keep: queue.start_async({0: pictures}, keep), queue.wait_all
