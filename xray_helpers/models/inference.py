"""The forward pass of a frozen network on the fastest engine the machine has, checked against TensorFlow.

On a CPU that is OpenVINO, converted in memory from the very Keras graph; on a GPU, TensorFlow with XLA or in
mixed precision, whichever measures faster.
"""

import functools
import importlib.util
import os
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from xray_helpers.settings import InputError, Settings
from xray_helpers.study.files import read_json, write_json
from xray_helpers.study.machine import cores

if TYPE_CHECKING:
    import keras
BATCH = 8  # images a forward pass: measured on CPUs, 8 stay in the cache, where 32 do not
GPU_BATCH = 64
WORTH_CONVERTING = (
    500  # images from which `auto` takes OpenVINO: below, converting takes longer than it saves
)
TOLERANCE = {
    "float32": 1e-3,
    "bfloat16": 0.1,
    "float16": 0.02,
}  # of the features' difference to float32 TensorFlow
_DRIVER = Path("/dev/nvidiactl")  # there where containers have a GPU but no nvidia-smi
AGREEMENT = {
    "float32": 1e-3,
    "bfloat16": 0.05,
    "float16": 0.01,
}  # of probabilities: features' path and saved model


class InferenceBackend(NamedTuple):
    """What computes: ``openvino`` or ``tensorflow``, in ``float32``, ``bfloat16`` (CPU) or ``float16``
    (GPU).
    """

    name: str
    precision: str

    def __str__(self) -> str:
        return f"{self.name}, {self.precision}"


def study_backend(folder: Path, settings: Settings, images: int) -> InferenceBackend:
    """Return the engine of a study: decided the first time, read from its ``engine.json`` afterwards.

    Where that was chosen on another machine, and is not on this one, the best of this one goes on.

    Parameters
    ----------
    folder : Path
        Of the study.
    settings : Settings
    images : int
        Of the study.

    Raises
    ------
    InputError
        When the engine or precision that was asked for is not there on this machine.
    """
    stored = read_json(folder / "engine.json", default={})
    if stored.get("asked") == [settings.engine, settings.precision]:
        try:
            return choose_backend(stored["engine"], stored["precision"], images)
        except InputError:
            engine = choose_backend(settings.engine, settings.precision, images)
            print(
                f"{stored['engine']} with {stored['precision']}, chosen for this study elsewhere, is not "
                "on this machine: "
                f"{engine.name} with {engine.precision} goes on."
            )
            return engine
    engine = choose_backend(settings.engine, settings.precision, images)
    asked = {"asked": [settings.engine, settings.precision]}
    write_json(folder / "engine.json", asked | {"engine": engine.name, "precision": engine.precision})
    return engine


def choose_backend(
    name: str = "auto", precision: str = "auto", images: int = WORTH_CONVERTING
) -> InferenceBackend:
    """Return the fastest engine of this machine, or the one asked for; imports TensorFlow only where there is
    a GPU.

    Raises
    ------
    InputError
        When OpenVINO is asked for and not installed, or a precision that the engine has not on this machine.
    """
    installed = importlib.util.find_spec("openvino") is not None
    if name == "openvino" and not installed:
        raise InputError(
            "OpenVINO is not installed here: pip install openvino, or give -p engine=tensorflow."
        )
    if name == "auto":
        name = "openvino" if installed and images >= WORTH_CONVERTING and not _has_gpu() else "tensorflow"
    allowed = {
        "openvino": ("float32", "bfloat16"),
        "tensorflow": ("float32", "float16") if _has_gpu() else ("float32",),
    }
    if precision == "auto" and name == "tensorflow" and _has_gpu():
        precision = _measure_precision()
    elif precision == "auto":
        precision = "bfloat16" if name == "openvino" and _has_fast_bfloat16() else "float32"
    if precision not in allowed[name]:
        raise InputError(
            f"The engine {name} has no {precision} here: give -p precision={' or '.join(allowed[name])}, "
            f"or {'-p engine=openvino' if name == 'tensorflow' else '-p engine=tensorflow'}."
        )
    return InferenceBackend(name, precision)


def _measure_precision() -> str:
    """Return what runs MobileNetV2 faster on this GPU: ``float32`` with XLA, or mixed ``float16``."""
    import keras

    network = keras.applications.MobileNetV2(
        weights=None, include_top=False, pooling="avg", input_shape=(224, 224, 1)
    )
    pictures = np.zeros((4 * GPU_BATCH, 224, 224), np.uint8)
    seconds = {}
    for precision in ("float32", "float16"):
        forward = ForwardPass(network, InferenceBackend("tensorflow", precision))
        forward(pictures[:1])
        started = time.perf_counter()
        forward(pictures)
        seconds[precision] = time.perf_counter() - started
    return min(seconds, key=seconds.get)


def _has_gpu() -> bool:
    """Whether TensorFlow can compute on a GPU; only where there is a driver is it imported to be asked."""
    driver = shutil.which("nvidia-smi") is not None or _DRIVER.exists()
    return (
        driver and os.environ.get("CUDA_VISIBLE_DEVICES", "all") not in ("", "-1") and _tensorflow_has_gpu()
    )


@functools.cache
def _tensorflow_has_gpu() -> bool:
    import tensorflow as tf

    found = bool(tf.config.list_physical_devices("GPU"))
    if not found:
        print(
            "There is a driver for a GPU, but TensorFlow finds no GPU that it can use: the CPU computes. "
            "Where it lacks "
            "CUDA's packages alone, `make GPU=1 demo` installs them."
        )
    return found


def _has_fast_bfloat16() -> bool:
    """Whether the processor multiplies bfloat16 matrices (AMX).

    Where it has AVX-512's bfloat16 instructions alone, bfloat16 was measured 0.6 to 0.9 times as fast as
    float32.
    """
    try:
        return "amx_bf16" in Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return False


def _openvino() -> Any:
    sys.modules.setdefault("openvino_telemetry", None)  # its converter then uses a stub: nothing is sent
    import openvino

    return openvino


EXACT = InferenceBackend("tensorflow", "float32")  # what all engines are compared with


class ForwardPass:
    """Uint8 pictures in, features out; work is queued by `submit` and done when `wait` returns.

    The network is converted at the first pictures, on which the engine is compared with float32 TensorFlow;
    where it is off by more than `TOLERANCE`, that does the work.

    Attributes
    ----------
    shape : (int, int)
        Height and width of the pictures.
    features : int
        That come out.
    engine : Engine
        That computes.
    difference : float
        Of the engine asked for to float32 TensorFlow: root mean square, in standard deviations of the
        features.
    started : bool
        Whether there were any pictures yet.
    seen : int
        How many pictures there were.
    """

    def __init__(self, network: "keras.Model", engine: InferenceBackend) -> None:
        self.shape, self.features = network.input_shape[1:3], network.output_shape[-1]
        self._network, self._asked = network, engine
        self.engine, self.difference, self.started, self.seen = engine, 0.0, False, 0

    def _start(self, engine: InferenceBackend) -> None:
        start = _start_openvino if engine.name == "openvino" else _start_tensorflow
        self.engine, self.started = engine, True
        self._batch, self._submit, self.wait = start(self._network, engine.precision)

    def wait(self) -> None:
        """Return when all that was submitted is done."""

    def _check(self, sample: np.ndarray) -> None:
        exact = np.asarray(self._network(sample[..., None].astype(np.float32), training=False))
        found = np.empty_like(exact)
        self._queue(sample, found, np.arange(len(sample)))
        self.wait()
        self.difference = float(np.sqrt(np.mean((found - exact) ** 2)) / (exact.std() + 1e-12))
        if not self.difference <= TOLERANCE[self._asked.precision]:
            self._start(EXACT)

    def record(self) -> dict[str, Any]:
        """Return engine, precision, and what was asked for and how far it was off, as plain values."""
        return {
            "engine": self.engine.name,
            "precision": self.engine.precision,
            "asked": str(self._asked),
            "difference": self.difference,
        }

    def submit(self, pictures: np.ndarray, store: np.ndarray, rows: np.ndarray) -> None:
        """Queue pictures (n, height, width); their features land in these rows of `store` before `wait`
        returns.
        """
        self.seen += len(pictures)
        if not self.started:
            self._start(self._asked)
            if self._asked != EXACT:
                self._check(pictures[:BATCH])
        self._queue(pictures, store, rows)

    def __call__(self, pictures: np.ndarray) -> np.ndarray:
        """Return features (n, d), float32, of pictures (n, height, width), uint8."""
        store = np.empty((len(pictures), self.features), np.float32)
        self.submit(pictures, store, np.arange(len(pictures)))
        self.wait()
        return store

    def _queue(self, pictures: np.ndarray, store: np.ndarray, rows: np.ndarray) -> None:
        for start in range(0, len(pictures), self._batch):
            batch = np.ascontiguousarray(pictures[start : start + self._batch])
            missing = self._batch - len(batch)
            if missing:
                batch = np.concatenate([batch, np.zeros((missing, *self.shape), np.uint8)])
            self._submit(batch, _writer(store, rows[start : start + self._batch]))


def _writer(store: np.ndarray, rows: np.ndarray) -> Callable[[np.ndarray], None]:
    def write(features: np.ndarray) -> None:
        store[rows] = features[: len(rows)]

    return write


def _graph(network: "keras.Model", batch: int, *, compiled: bool = False) -> Any:
    import tensorflow as tf

    return tf.function(
        lambda pictures: network(tf.cast(pictures[..., None], tf.float32), training=False),
        input_signature=[tf.TensorSpec((batch, *network.input_shape[1:3]), tf.uint8)],
        autograph=False,
        jit_compile=compiled,
    )


def _start_tensorflow(network: "keras.Model", precision: str) -> tuple[int, Callable, Callable]:
    import tensorflow as tf

    gpu = bool(tf.config.list_physical_devices("GPU"))
    batch = GPU_BATCH if gpu else BATCH
    run = _graph(network, batch, compiled=gpu and precision == "float32")  # XLA is 16 times slower on a CPU
    tf.config.optimizer.set_experimental_options({"auto_mixed_precision": precision == "float16"})
    run(np.zeros((batch, *network.input_shape[1:3]), np.uint8))  # the graph is rewritten at its first run
    tf.config.optimizer.set_experimental_options({"auto_mixed_precision": False})
    return batch, lambda pictures, keep: keep(run(pictures).numpy()), lambda: None


def _start_openvino(network: "keras.Model", precision: str) -> tuple[int, Callable, Callable]:
    openvino = _openvino()
    model = openvino.convert_model(_graph(network, BATCH).get_concrete_function())
    hints = {
        "PERFORMANCE_HINT": "THROUGHPUT",
        "INFERENCE_PRECISION_HINT": {"float32": "f32", "bfloat16": "bf16"}[precision],
        "INFERENCE_NUM_THREADS": cores(),
    }
    queue = openvino.AsyncInferQueue(openvino.Core().compile_model(model, "CPU", hints))
    queue.set_callback(lambda request, keep: keep(request.get_output_tensor(0).data))
    return BATCH, lambda pictures, keep: queue.start_async({0: pictures}, keep), queue.wait_all
