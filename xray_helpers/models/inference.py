"""The forward pass of a frozen network on the fastest backend of the machine, checked against TensorFlow.

On a CPU that is OpenVINO, converted in memory from the Keras graph; on a GPU, TensorFlow with XLA or in mixed
precision, whichever is measured to be faster.
"""

import functools
import importlib.util
import os
import shutil
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from xray_helpers.models.graphs import nested_networks
from xray_helpers.models.quantization import Calibration, check_installed, choose_images, judge, quantise
from xray_helpers.settings import InputError, Settings
from xray_helpers.study.files import read_csv, read_json, write_json
from xray_helpers.study.machine import cores

if TYPE_CHECKING:
    import keras
BATCH = 8  # images per forward pass on a CPU, whose caches hold 8 of them but not 32
GPU_BATCH = 64
WORTH_CONVERTING = 500  # images; with fewer, converting to OpenVINO takes longer than it saves
# Largest accepted difference from float32 TensorFlow: of features, in standard deviations (root mean square),
# and of probabilities between training and the saved model.
TOLERANCE = {"float32": 1e-3, "bfloat16": 0.1, "float16": 0.02}
_AGREEMENT = {"float32": 1e-3, "bfloat16": 0.05, "float16": 0.01, "int8": 0.1}
_DRIVER = Path("/dev/nvidiactl")  # exists in containers with a GPU, even without nvidia-smi


class InferenceBackend(NamedTuple):
    """``openvino`` or ``tensorflow``, in ``float32``, ``bfloat16``, ``int8`` (CPU) or ``float16`` (GPU).

    For int8, `calibration` names the images by which a network is quantised; see
    `quantization.choose_images`.
    """

    name: str
    precision: str
    calibration: tuple[tuple[str, str, str, int], ...] = ()

    def __str__(self) -> str:
        return f"{self.name}, {self.precision}"


EXACT = InferenceBackend("tensorflow", "float32")  # the reference for all others
_FLOAT32 = InferenceBackend("openvino", "float32")


def study_backend(folder: Path, settings: Settings, images: int) -> InferenceBackend:
    """Return the backend of a study: chosen the first time, then read from its ``engine.json``.

    If it was chosen on another machine and does not exist on this one, the best of this one is used.

    Parameters
    ----------
    folder : Path
        Folder of the study.
    settings : Settings
    images : int
        Number of images in the study.

    Raises
    ------
    InputError
        If this machine lacks the engine or precision of the settings.
    """
    stored = read_json(folder / "engine.json", default={})
    asked = [settings.engine, settings.precision]
    known = stored.get("asked") == asked
    if known:
        with suppress(InputError):
            return _calibrated(
                choose_backend(stored["engine"], stored["precision"], images), folder, settings
            )
    backend = choose_backend(*asked, images)
    if known:
        print(
            f"{stored['engine']} with {stored['precision']}, chosen for this study elsewhere, is not on this "
            f"machine: {backend.name} with {backend.precision} goes on."
        )
    else:
        record = {"asked": asked, "engine": backend.name, "precision": backend.precision}
        write_json(folder / "engine.json", record)
    return _calibrated(backend, folder, settings)


def _calibrated(backend: InferenceBackend, folder: Path, settings: Settings) -> InferenceBackend:
    """Return a backend that knows the images that quantise, where it is int8 and there is a manifest."""
    if backend.precision != "int8" or not (folder / "manifest.csv").exists():
        return backend
    return backend._replace(calibration=choose_images(read_csv(folder / "manifest.csv"), settings.seed))


def choose_backend(
    name: str = "auto", precision: str = "auto", images: int = WORTH_CONVERTING
) -> InferenceBackend:
    """Return the fastest backend of this machine, or the one asked for.

    TensorFlow is imported only if there is a GPU.

    Raises
    ------
    InputError
        If OpenVINO is asked for and not installed, or the engine does not have the precision here.
    """
    installed = importlib.util.find_spec("openvino") is not None
    if name == "openvino" and not installed:
        raise InputError(
            "OpenVINO is not installed here: pip install openvino, or give -p engine=tensorflow."
        )
    gpu = _has_gpu()
    if name == "auto":
        worth = images >= WORTH_CONVERTING or precision == "int8"
        name = "openvino" if installed and worth and not gpu else "tensorflow"
    if precision == "int8":
        check_installed()
    if name == "openvino":
        available = ["float32", "bfloat16", "int8"]
        fastest = "bfloat16" if _has_fast_bfloat16() else "float32"
    else:
        available = ["float32", "float16"] if gpu else ["float32"]
        fastest = _measure_precision() if gpu and precision == "auto" else "float32"
    precision = fastest if precision == "auto" else precision
    if precision not in available:
        other = "openvino" if name == "tensorflow" else "tensorflow"
        raise InputError(
            f"The engine {name} has no {precision} here: give -p precision={' or '.join(available)}, or -p "
            f"engine={other}."
        )
    return InferenceBackend(name, precision)


def _measure_precision() -> str:
    """Return which runs MobileNetV2 faster on this GPU: ``float32`` with XLA, or mixed ``float16``."""
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
    """Return whether TensorFlow can use a GPU; it is imported only if there is a driver."""
    driver = shutil.which("nvidia-smi") is not None or _DRIVER.exists()
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES", "all") in ("", "-1")
    return driver and not hidden and _tensorflow_has_gpu()


@functools.cache
def _tensorflow_has_gpu() -> bool:
    import tensorflow as tf

    found = bool(tf.config.list_physical_devices("GPU"))
    if not found:
        print(
            "There is a driver for a GPU, but TensorFlow finds no GPU that it can use: the CPU computes. If "
            "only CUDA's packages are missing, `make GPU=1 demo` installs them."
        )
    return found


def _has_fast_bfloat16() -> bool:
    """Return whether the processor multiplies bfloat16 matrices (AMX).

    With the bfloat16 instructions of AVX-512 alone, it was measured 0.6 to 0.9 times as fast as float32.
    """
    try:
        return "amx_bf16" in Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return False


def _openvino() -> Any:
    sys.modules.setdefault("openvino_telemetry", None)  # its converter then sends nothing
    import openvino

    return openvino


class ForwardPass:
    """From uint8 pictures to features; `submit` queues work, which is done when `wait` returns.

    The network is converted for the first pictures, on which the backend is compared with float32 TensorFlow;
    if it differs by more than `TOLERANCE`, float32 TensorFlow is used instead.

    Attributes
    ----------
    shape : (int, int)
        Height and width of the pictures.
    features : int
        Number of features.
    backend : InferenceBackend
        The one in use.
    difference : float or None
        Between the backend asked for and float32 TensorFlow: root mean square, in standard deviations of the
        features; None if it cannot run the network.
    started : bool
        Whether there were any pictures yet.
    seen : int
        Number of pictures so far.
    """

    def __init__(
        self, network: "keras.Model", backend: InferenceBackend, calibration: Calibration | None = None
    ) -> None:
        self.shape, self.features = network.input_shape[1:3], network.output_shape[-1]
        if backend.precision == "int8" and calibration is None:
            backend = _FLOAT32
        self._network, self._asked, self._calibration = network, backend, calibration
        self.int8: dict[str, Any] = {}
        self.backend, self.difference, self.started, self.seen = backend, 0.0, False, 0

    def _start(self, backend: InferenceBackend) -> None:
        start = _start_openvino if backend.name == "openvino" else _start_tensorflow
        self.backend, self.started = backend._replace(calibration=()), True
        calibration = self._calibration if backend.precision == "int8" else None
        self._batch, self._submit, self.wait = start(self._network, backend.precision, calibration)

    def wait(self) -> None:
        """Return when everything submitted is done."""

    def _check(self, sample: np.ndarray) -> None:
        exact = np.asarray(self._network(sample[..., None].astype(np.float32), training=False))
        found = np.empty_like(exact)
        self._queue(sample, found, np.arange(len(sample)))
        self.wait()
        self.difference = float(np.sqrt(np.mean((found - exact) ** 2)) / (exact.std() + 1e-12))
        if not self.difference <= TOLERANCE[self._asked.precision]:
            self._start(EXACT)

    def _check_int8(self) -> None:
        """Use float32 if int8 changes the features, or what they tell on validation; see `quantization`."""
        exact = ForwardPass(self._network, _FLOAT32)
        parts = (self._calibration.train, self._calibration.validation)
        floats, integers = (tuple(run(part) for part in parts) for run in (exact, self))
        self.int8 = judge(floats, integers, self._calibration)
        self.difference = float(np.sqrt(np.mean((integers[1] - floats[1]) ** 2)) / (floats[1].std() + 1e-12))
        if not self.int8["accepted"]:
            self._start(exact.backend)

    def record(self) -> dict[str, Any]:
        """Return engine and precision, what was asked for, and how far that differed, as plain values."""
        return {
            "engine": self.backend.name,
            "precision": self.backend.precision,
            "asked": str(self._asked),
            "difference": self.difference,
        } | ({"int8": self.int8} if self.int8 else {})

    def submit(self, pictures: np.ndarray, store: np.ndarray, rows: np.ndarray) -> None:
        """Queue pictures (n, height, width), whose features `wait` will have written to rows of `store`."""
        self.seen += len(pictures)
        if not self.started:
            try:
                self._start(self._asked)
            except RuntimeError as error:  # OpenVINO cannot convert every network
                print(f"{self._asked} cannot run this network ({str(error).splitlines()[0][:100]}).")
                self.difference = None
                self._start(EXACT)
            if self.backend.precision == "int8":
                self._check_int8()
                self.seen = len(pictures)
            elif self.backend != EXACT:
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


def agreement(forward: ForwardPass, computed: dict[str, Any]) -> float:
    """Return the largest accepted difference of probabilities between training and the saved model.

    Parameters
    ----------
    forward : ForwardPass
        What gave the features or probabilities.
    computed : dict
        Of `features.backend_record`: how features that came from the cache were computed.
    """
    precision = forward.backend.precision if forward.started else computed.get("precision", "float32")
    return _AGREEMENT[precision]


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


def _start_tensorflow(
    network: "keras.Model", precision: str, _: Calibration | None = None
) -> tuple[int, Callable, Callable]:
    import tensorflow as tf

    gpu = bool(tf.config.list_physical_devices("GPU"))
    batch = GPU_BATCH if gpu else BATCH
    run = _graph(network, batch, compiled=gpu and precision == "float32")  # XLA is 16 times slower on a CPU
    tf.config.optimizer.set_experimental_options({"auto_mixed_precision": precision == "float16"})
    run(np.zeros((batch, *network.input_shape[1:3]), np.uint8))  # the first run rewrites the graph
    tf.config.optimizer.set_experimental_options({"auto_mixed_precision": False})
    return batch, lambda pictures, keep: keep(run(pictures).numpy()), lambda: None


def _start_openvino(
    network: "keras.Model", precision: str, calibration: Calibration | None = None
) -> tuple[int, Callable, Callable]:
    openvino = _openvino()
    graph = _graph(network, BATCH).get_concrete_function()
    model = openvino.convert_model(graph)
    # activations with a gradient of their own (swish) become outputs too: only the features are wanted
    model = openvino.Model([model.output(graph.outputs[0].name)], model.get_parameters())
    if calibration is not None:
        transformer = any(hasattr(inside, "patch_size") for inside in nested_networks(network))
        model = quantise(model, calibration, transformer=transformer)
    hints = {
        "PERFORMANCE_HINT": "THROUGHPUT",
        "INFERENCE_PRECISION_HINT": {"bfloat16": "bf16"}.get(precision, "f32"),
        "INFERENCE_NUM_THREADS": cores(),
    }
    queue = openvino.AsyncInferQueue(openvino.Core().compile_model(model, "CPU", hints))
    queue.set_callback(lambda request, keep: keep(request.get_output_tensor(0).data))
    return BATCH, lambda pictures, keep: queue.start_async({0: pictures}, keep), queue.wait_all
