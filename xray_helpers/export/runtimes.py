"""An exported file, opened by its runtime: from uint8 pictures to outputs and features; and what it costs."""

import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from xray_helpers.export.alone import peak_memory
from xray_helpers.study.machine import cores

Runtime = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
_TIMED, _WARM = 50, 5  # runs whose median is the latency, and runs before them


def open_runtime(name: str, file: Path, threads: int = 0) -> Runtime:
    """Open an exported file.

    Parameters
    ----------
    name : str
        Of its format, such as ``litert-int8``.
    file : Path
    threads : int
        0: one for each core.

    Returns
    -------
    callable
        From grey pictures (n, height, width), uint8, to outputs (n, 1) or (n, k) and features (n, d).
    """
    one = _OPEN[name.partition("-")[0]](str(file), threads or cores())

    def run(pictures: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        found = [one(picture[None, ..., None].astype(np.float32)) for picture in pictures]
        return tuple(np.concatenate([np.asarray(each[name]) for each in found]) for name in _OUTPUTS)

    return run


_OUTPUTS = ("probability", "features")


def _open_keras(file: str, threads: int) -> Callable[[np.ndarray], dict[str, Any]]:
    import tensorflow as tf

    from xray_helpers.export.formats import build_joint

    with suppress(RuntimeError):  # TensorFlow runs already, with the threads it has
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(threads)
    joint = build_joint(file)
    return tf.function(lambda picture: joint(picture, training=False))


def _open_litert(file: str, threads: int) -> Callable[[np.ndarray], dict[str, Any]]:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(file, num_threads=threads)
    runner = interpreter.get_signature_runner()
    name = next(iter(runner.get_input_details()))
    return lambda picture: runner(**{name: picture})


def _open_openvino(file: str, threads: int) -> Callable[[np.ndarray], dict[str, Any]]:
    import sys

    sys.modules.setdefault("openvino_telemetry", None)  # it then sends nothing
    import openvino

    hints = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads}
    hints |= {"INFERENCE_PRECISION_HINT": "f32"}  # of what is not quantised
    request = openvino.Core().compile_model(file, "CPU", hints).create_infer_request()

    def run(picture: np.ndarray) -> dict[str, Any]:
        request.infer([picture])
        return {name: request.get_tensor(name).data.copy() for name in _OUTPUTS}

    return run


def _open_onnx(file: str, threads: int) -> Callable[[np.ndarray], dict[str, Any]]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda picture: dict(zip(_OUTPUTS, session.run(list(_OUTPUTS), {name: picture}), strict=True))


_OPEN = {"keras": _open_keras, "litert": _open_litert, "openvino": _open_openvino, "onnx": _open_onnx}


def input_name(kind: str, file: str) -> str:
    """Return the name of the input of an exported file."""
    if kind == "litert":
        from ai_edge_litert.interpreter import Interpreter

        return next(iter(Interpreter(file).get_signature_runner().get_input_details()))
    if kind == "onnx":
        import onnx

        return onnx.load(file, load_external_data=False).graph.input[0].name
    return ""


def measure(name: str, file: str, pictures: str, threads: int, out: str = "") -> dict[str, float]:
    """Return latency and memory of a file; for a process of its own.

    Parameters
    ----------
    name, file : str
        As for `open_runtime`.
    pictures : str
        A ``.npy`` file of grey pictures (n, height, width), uint8.
    threads : int
    out : str
        Where the outputs and features of all pictures are written, as ``.npz``; empty: nowhere.

    Returns
    -------
    dict
        milliseconds (median of 50 runs with one picture, after 5 that are not counted), memory (MiB: the most
        that the runtime and the model have added until then to a process with Python and NumPy).
    """
    stored, before = np.load(pictures, mmap_mode="r"), peak_memory()
    run, one, seconds = open_runtime(name, Path(file), threads), np.array(stored[:1]), []
    for _ in range(_WARM + _TIMED):
        started = time.perf_counter()
        run(one)
        seconds.append(time.perf_counter() - started)
    found = {"milliseconds": 1000 * float(np.median(seconds[_WARM:])), "memory": peak_memory() - before}
    if out:
        outputs, features = run(stored)
        np.savez(out, outputs=outputs, features=features)
    return found
