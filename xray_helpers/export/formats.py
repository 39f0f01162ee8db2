"""The forms in which a model can leave: which there are, and how ``model.keras`` is converted to each.

Every file takes one grey picture (1, height, width, 1), float32 in 0-255, holds its own preprocessing and
gives two outputs by name: ``probability`` (1, 1) or (1, k), and ``features`` (1, d), which the detector of
unlike images reads.
"""

import importlib.util
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from xray_helpers.data.manifest import data_folder
from xray_helpers.data.parts import used_part
from xray_helpers.export.alone import ProcessError, run_alone
from xray_helpers.export.onnx_files import inline_constants, store_as_float16
from xray_helpers.models.quantization import choose_images, load_calibration
from xray_helpers.settings import InputError
from xray_helpers.study.files import atomic_write, read_csv, read_json, temporary_path

if TYPE_CHECKING:
    import keras
FILES = {"keras": "model.keras", "litert": "model.tflite", "openvino": "model.xml", "onnx": "model.onnx"}
_NEEDS = {
    "litert": ("ai_edge_litert",),
    "litert-int8": ("litert_quantizer",),
    "litert-dynamic-int8": ("litert_quantizer",),
    "openvino": ("openvino",),
    "openvino-int8": ("nncf",),
    "onnx": ("onnx", "onnxruntime", "tf2onnx"),
}
_LAST = ("p_fractured", "p_classes")  # the layer of `head.build_output`, which stays in float
_OUTPUTS = "StatefulPartitionedCall"  # how LiteRT's converter names the outputs
_CALIBRATING = 160  # images of train, one a source, at most


class Format(NamedTuple):
    """One form of a model.

    Attributes
    ----------
    kind : {'keras', 'litert', 'openvino', 'onnx'}
        The runtime that opens it.
    precision : str
        ``float32``, ``float16``, ``int8`` (weights and activations, calibrated) or ``dynamic-int8`` (weights;
        activations as they come).
    """

    kind: str
    precision: str

    @property
    def name(self) -> str:
        """Such as ``litert-int8``; also the name of its folder."""
        return self.kind if self.kind == "keras" else f"{self.kind}-{self.precision}"

    @property
    def file(self) -> str:
        """The name of the file that the runtime opens."""
        return FILES[self.kind]


KERAS = Format("keras", "float32")  # the reference for all others
FORMATS = {
    one.name: one
    for one in (
        KERAS,
        *(Format("litert", precision) for precision in ("float32", "float16", "dynamic-int8", "int8")),
        *(Format("openvino", precision) for precision in ("float16", "int8")),
        *(Format("onnx", precision) for precision in ("float32", "float16", "int8")),
    )
}


def choose_formats(to: Sequence[str], *, int8: bool) -> list[Format]:
    """Return the formats of some kinds, those in int8 where they are asked for.

    Parameters
    ----------
    to : sequence of str
        Kinds, such as ``litert``, or single formats, such as ``litert-int8``.
    int8 : bool

    Raises
    ------
    InputError
        For an unknown name, or where what it needs is not installed.
    """
    for name in to:
        if name not in FILES and name not in FORMATS:
            known = ", ".join(dict.fromkeys([*FILES, *FORMATS]))
            page = "; the page is asked for by --page" if name == "page" else ""
            raise InputError(f"There is no format {name!r}: there are {known}{page}.")
    chosen = [
        one
        for one in FORMATS.values()
        if one.name in to or (one.kind in to and (int8 or "int8" not in one.precision))
    ]
    if not chosen:
        raise InputError(f"No format is asked for: give --to, of {', '.join(FILES)}.")
    for one in chosen:
        check_installed(one)
    return chosen


def check_installed(form: Format) -> None:
    """Raise `InputError` with what to do where a library that a format needs is not installed."""
    for library in (*_NEEDS.get(form.kind, ()), *_NEEDS.get(form.name, ())):
        if importlib.util.find_spec(library) is None:
            how = "make int8" if library == "nncf" else "make export"
            raise InputError(
                f"{form.name} needs {library}, which is not installed: run `{how}` (README, Extras, says how "
                "without make), or choose other formats with --to."
            )


def export_model(study: Path, model: str, kind: str, precision: str, to: Path) -> Path:
    """Convert a trained model of a study to one format, and return the file that its runtime opens.

    Parameters
    ----------
    study : Path
        Folder of the study.
    model : str
    kind, precision : str
        Of `Format`.
    to : Path
        Folder, created if missing; ``model.tflite``, ``model.onnx`` or the like is written to it.

    Raises
    ------
    InputError
        If there is no such model or format, or the model cannot be converted to it.
    """
    form = FORMATS.get(Format(kind, precision).name)
    if form is None:
        raise InputError(f"There is no format {kind}-{precision}: there are {', '.join(FORMATS)}.")
    check_installed(form)
    return Converter(study, model).convert(form, to)


class Converter:
    """Converts a trained model of a study; what several formats derive from is converted once.

    Attributes
    ----------
    source : Path
        ``model.keras``.
    """

    def __init__(self, study: Path, model: str) -> None:
        self.source = study / model / "model.keras"
        if not self.source.exists():
            known = ", ".join(sorted(path.parent.name for path in study.glob("*/model.keras"))) or "none"
            raise InputError(f"{study.name} has no model {model!r}: it has {known}.")
        self._study, self._work = study, temporary_path(study / model / "export" / "work")

    def __enter__(self) -> "Converter":
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self._work, ignore_errors=True)

    def convert(self, form: Format, to: Path) -> Path:
        """Write a format to a folder, and return the file that its runtime opens.

        Raises
        ------
        InputError
            In a sentence, where the model cannot be converted.
        """
        to.mkdir(parents=True, exist_ok=True)
        if form == KERAS:
            with atomic_write(to / form.file) as partial:
                shutil.copyfile(self.source, partial)
            return to / form.file
        try:
            base = self._convert_base(form)
            if "int8" in form.precision or form.kind == "openvino" or form.name == "onnx-float16":
                pictures = self._calibration() if form.precision == "int8" else ""
                run_alone(derive, name=form.name, base=base, to=to / form.file, pictures=pictures)
            else:
                shutil.copyfile(base, to / form.file)
        except ProcessError as error:
            reason = str(error).rstrip(".")
            raise InputError(
                f"{self.source.parent.name} cannot be converted to {form.name}: {reason}."
            ) from None
        return to / form.file

    def _convert_base(self, form: Format) -> Path:
        """Return the float file of a kind, converted once; TensorFlow's own writes float16."""
        half = form.name == "litert-float16"
        folder = self._work / ("litert-float16" if half else form.kind)
        if not (folder / form.file).exists():
            folder.mkdir(parents=True)
            run_alone(convert_keras, source=self.source, kind=form.kind, to=folder / form.file, half=half)
        return folder / form.file

    def _calibration(self) -> Path:
        """Return a file of uint8 pictures (n, height, width) of train, one a source."""
        place = self._work / "calibration.npy"
        if not place.exists():
            settings = read_json(self._study / "study.json")["settings"]
            train = used_part(read_csv(self._study / "manifest.csv"), "train")
            chosen = choose_images(train, settings["seed"])[:_CALIBRATING]
            size = tuple(settings["img_size"])
            np.save(place, load_calibration(chosen, data_folder(self._study), size).train)
        return place


def build_joint(source: str | Path) -> "keras.Model":
    """Return a saved model with its outputs ``probability`` and ``features``."""
    import keras

    from xray_helpers.models.out_of_distribution import build_feature_model
    from xray_helpers.models.saved import load_model

    saved = load_model(Path(source))
    outputs = {"probability": saved.output, "features": build_feature_model(saved).output}
    return keras.Model(saved.input, outputs)


def convert_keras(source: str, kind: str, to: str, *, half: bool) -> None:
    """Convert a saved model with Keras's own exporters, for one picture at a time."""
    import keras

    joint, options = build_joint(source), {}
    inline_constants(joint)
    if half:
        import tensorflow as tf

        options["optimizations"] = [tf.lite.Optimize.DEFAULT]
        options["target_spec"] = {"supported_types": [tf.float16]}
    signature = [keras.InputSpec(shape=(1, *joint.input_shape[1:]), dtype="float32")]
    joint.export(to, format=kind, verbose=False, input_signature=signature, **options)


def derive(name: str, base: str, to: str, pictures: str) -> None:
    """Write a smaller format from the float file of its kind.

    Parameters
    ----------
    name, base, to : str
    pictures : str
        A file of uint8 pictures (n, height, width) that calibrate; empty where none are needed.
    """
    _DERIVE[name](base, to, np.load(pictures) if pictures else np.empty(0))


def _each(pictures: np.ndarray) -> Iterator[np.ndarray]:
    return (picture[None, ..., None].astype(np.float32) for picture in pictures)


def _quantise_litert(base: str, to: str, pictures: np.ndarray) -> None:
    from ai_edge_litert.interpreter import Interpreter
    from litert_quantizer import algorithm_manager, qtyping, recipe
    from litert_quantizer.quantizer import Quantizer

    static, name = len(pictures) > 0, qtyping.TFLOperationName
    quantizer = Quantizer(base, recipe.static_wi8_ai8() if static else recipe.dynamic_wi8_afp32())
    found = None
    if static:
        keep = {"algorithm_key": algorithm_manager.AlgorithmName.NO_QUANTIZE}
        for operation in (name.INPUT, name.OUTPUT):
            quantizer.update_quantization_recipe(".*", operation, **keep)
        # in 8 bits, probabilities would come in steps of 0.004
        quantizer.update_quantization_recipe(f"({'|'.join(_LAST)})", name.ALL_SUPPORTED, **keep)
        for operation in (name.LOGISTIC, name.SOFTMAX):
            quantizer.update_quantization_recipe(_OUTPUTS, operation, **keep)
        (key, signature), *_ = Interpreter(base).get_signature_list().items()
        found = quantizer.calibrate({key: [{signature["inputs"][0]: one} for one in _each(pictures)]})
    Path(to).unlink(missing_ok=True)
    quantizer.quantize(found).export_model(to)


def _save_openvino(base: str, to: str, pictures: np.ndarray) -> None:
    import sys

    sys.modules.setdefault("openvino_telemetry", None)  # it then sends nothing
    import openvino

    model = openvino.Core().read_model(base)
    if len(pictures):
        import nncf

        preset = nncf.QuantizationPreset.MIXED
        model = nncf.quantize(
            model, nncf.Dataset(list(_each(pictures))), preset=preset, subset_size=len(pictures)
        )
    openvino.save_model(model, to, compress_to_fp16=True)


def _halve_onnx(base: str, to: str, _: np.ndarray) -> None:
    import onnx

    graph = onnx.load(base)
    store_as_float16(graph)  # as in the page that runs a model
    onnx.save(graph, to)


def _quantise_onnx(base: str, to: str, pictures: np.ndarray) -> None:
    import onnx
    import onnxruntime
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    prepared = str(Path(to).with_suffix(".prepared.onnx"))
    quant_pre_process(base, prepared, skip_symbolic_shape=True)
    name = onnxruntime.InferenceSession(prepared).get_inputs()[0].name
    last = [node.name for node in onnx.load(prepared).graph.node if any(word in node.name for word in _LAST)]

    class Reader(quantization.CalibrationDataReader):
        rows = _each(pictures)

        def get_next(self) -> Any:
            picture = next(self.rows, None)
            return None if picture is None else {name: picture}

    quantization.quantize_static(prepared, to, Reader(), per_channel=True, nodes_to_exclude=last)
    Path(prepared).unlink()


_DERIVE: dict[str, Callable[[str, str, np.ndarray], None]] = {
    "litert-dynamic-int8": _quantise_litert,
    "litert-int8": _quantise_litert,
    "openvino-float16": _save_openvino,
    "openvino-int8": _save_openvino,
    "onnx-float16": _halve_onnx,
    "onnx-int8": _quantise_onnx,
}
