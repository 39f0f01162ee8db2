"""The folder to hand over: an exported file, all that is needed to use it, and checksums of everything."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from xray_helpers.data.manifest import reading_of
from xray_helpers.export.alone import run_alone
from xray_helpers.export.formats import FORMATS, Format
from xray_helpers.export.runtimes import input_name, open_runtime
from xray_helpers.images.pixels import resize
from xray_helpers.images.radiographs import read_radiograph
from xray_helpers.settings import InputError
from xray_helpers.study.files import atomic_write, read_json, write_json, write_text
from xray_helpers.study.folders import read_classes
from xray_helpers.study.machine import now
from xray_helpers.study.records import sha256_of
from xray_helpers.synthetic.limb import build_patient, render_view

SUMS, ABOUT, EXPECTED, PROOF, LICENCE = (
    "SHA256SUMS",
    "preprocessing.json",
    "expected.json",
    "proof.json",
    "LICENCE.txt",
)
_TEMPLATE = Path(__file__).parent / "templates" / "predict.py"
EXPORT = "export"  # in the folder of a model: a folder for each format
# of the script for LiteRT: what opens and runs the model, and what stands there for other runtimes
_SCRIPT = (
    "from ai_edge_litert.interpreter import Interpreter",
    'RUN = Interpreter(str(HERE / ABOUT["file"])).get_signature_runner()',
    'RUN(**{ABOUT["input"]: read(path)})["probability"]',
)
_SCRIPTS = {
    "litert": _SCRIPT,
    "onnx": (
        "import onnxruntime",
        'RUN = onnxruntime.InferenceSession(str(HERE / ABOUT["file"]), providers=["CPUExecutionProvider"])',
        'RUN.run(["probability"], {ABOUT["input"]: read(path)})[0]',
    ),
    "openvino": (
        "import openvino",
        'RUN = openvino.compile_model(HERE / ABOUT["file"], "CPU", {"INFERENCE_PRECISION_HINT": "f32"})',
        'RUN(read(path))["probability"]',
    ),
    "keras": (
        "import keras",
        'RUN = keras.saving.load_model(HERE / ABOUT["file"], compile=False, safe_mode=True)',
        "np.asarray(RUN(read(path)))",
    ),
}


class Bundle(NamedTuple):
    """A folder that was handed over, its checksums verified.

    Attributes
    ----------
    folder : Path
    form : Format
    about : dict
        ``preprocessing.json``: format, runtime, file, input (its name), size (height, width), range, resize,
        flips, threshold, abstains_between, classes (negative, positive), names and positive_outputs (of three
        and more classes), study, model, source (SHA-256 of ``model.keras``), created.
    proof : dict
        ``proof.json``: the row of the comparison with ``model.keras``; its ``verdict`` is on use.
    expected : dict
        P(positive) of each enclosed phantom, by its file.
    """

    folder: Path
    form: Format
    about: dict[str, Any]
    proof: dict[str, Any]
    expected: dict[str, float]

    @property
    def file(self) -> Path:
        """What the runtime opens."""
        return self.folder / self.form.file


def read_bundle(folder: Path) -> Bundle:
    """Open a folder that `write_bundle` wrote.

    Raises
    ------
    InputError
        If it is none, or a file is missing, was renamed, or differs from its checksum.
    """
    if not (folder / SUMS).is_file():
        raise InputError(f"{folder} holds no exported model: there is no {SUMS} in it.")
    for line in (folder / SUMS).read_text(encoding="utf-8").splitlines():
        checksum, _, name = line.partition("  ")
        if not (folder / name).is_file():
            raise InputError(f"{folder.name}/{name} is missing or was renamed: export the model again.")
        if sha256_of(folder / name) != checksum:
            raise InputError(
                f"{folder.name}/{name} is not the file that was exported, as its checksum differs: "
                "export the model again."
            )
    about = read_json(folder / ABOUT)
    form = FORMATS[about["format"]]
    return Bundle(folder, form, about, read_json(folder / PROOF), read_json(folder / EXPECTED))


def identify_training(study: Path, model: str) -> dict[str, Any]:
    """Return source (SHA-256 of ``model.keras``) and threshold, by which an outdated export is known."""
    threshold = float(read_json(study / model / "threshold.json")["threshold"])
    return {"source": sha256_of(study / model / "model.keras"), "threshold": threshold}


def describe_model(study: Path, model: str, form: Format) -> dict[str, Any]:
    """Return the content of ``preprocessing.json``, see `Bundle`, but for the name of the input."""
    settings, classes = read_json(study / "study.json")["settings"], read_classes(study)
    chosen = read_json(study / model / "threshold.json")
    training = identify_training(study, model)
    columns = np.flatnonzero(classes.are_positive).tolist() if classes.names else [0]
    return {
        "format": form.name,
        "runtime": form.kind,
        "file": form.file,
        "size": list(settings["img_size"]),
        "range": [0, 255],
        "resize": reading_of(settings).get("resize", "stretch"),
        "flips": bool(settings.get("flips", False)),
        "abstains_between": list(chosen.get("uncertain", [training["threshold"]] * 2)),
        "classes": [classes.negative, classes.positive],
        "names": list(classes.names),
        "positive_outputs": columns,
        "study": study.name,
        "model": model,
        "created": now(),
        **training,
    }


def write_bundle(study: Path, model: str, form: Format, proof: dict[str, Any]) -> Path:
    """Complete the folder of an exported file, and write its checksums last; return the folder.

    Parameters
    ----------
    study : Path
    model : str
    form : Format
        Whose file lies in ``STUDY/MODEL/export/<format>`` already.
    proof : dict
        Of the comparison: written as ``proof.json``.
    """
    folder = study / model / EXPORT / form.name
    (folder / SUMS).unlink(missing_ok=True)
    about = describe_model(study, model, form)
    write_json(folder / PROOF, proof)
    pictures = _write_phantoms(folder, about["size"])
    options = {"name": form.name, "file": folder / form.file, "pictures": [folder / one for one in pictures]}
    options |= {"size": about["size"], "way": about["resize"], "columns": about["positive_outputs"]}
    found = run_alone(predict_pictures, **options)
    write_json(folder / EXPECTED, dict(zip(pictures, found["probabilities"], strict=True)))
    write_json(folder / ABOUT, about | {"input": found["input"]})
    script = _TEMPLATE.read_text(encoding="utf-8")
    for old, new in zip(_SCRIPT, _SCRIPTS[form.kind], strict=True):
        script = script.replace(old, new)
    write_text(folder / "predict.py", script)
    write_text(folder / LICENCE, _licence(read_json(study / model / "training.json"), model))
    for card in (study / model).glob("model_card.*"):
        with atomic_write(folder / card.name) as partial:
            partial.write_bytes(card.read_bytes())
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name[:1] != ".")
    sums = [f"{sha256_of(path)}  {path.relative_to(folder).as_posix()}\n" for path in files]
    write_text(folder / SUMS, "".join(sums))
    return folder


def _write_phantoms(folder: Path, size: Sequence[int]) -> list[str]:
    """Write synthetic radiographs that are larger than the input, smaller, and both; return their names."""
    rng, names = np.random.default_rng(20), []
    (folder / "phantoms").mkdir(exist_ok=True)
    for number, (high, wide, kind) in enumerate(((2, 2, "displaced"), (0.8, 0.7, None), (1.3, 0.9, None)), 1):
        shape = round(high * size[0]), round(wide * size[1])
        picture, _ = render_view(rng, build_patient(rng, kind), shape)
        names.append(f"phantoms/{number}.png")
        with atomic_write(folder / names[-1]) as partial:
            Image.fromarray(picture).save(partial, format="png")
    return names


def predict_pictures(
    name: str, file: str, pictures: list[str], size: list[int], way: str, columns: list[int]
) -> dict[str, Any]:
    """Return P(positive) of files by an export, read as the package reads them, and the name of its input."""
    read = [resize(read_radiograph(Path(path)).pixels, tuple(size), way) for path in pictures]
    outputs, _ = open_runtime(name, Path(file))(np.stack(read))
    probabilities = outputs[:, columns].sum(axis=1).astype(float).tolist()
    return {"probabilities": probabilities, "input": input_name(FORMATS[name].kind, file)}


def _licence(trained: dict[str, Any], model: str) -> str:
    stated = trained.get("licence") or "none is stated: ask where the weights come from"
    return (
        f"The backbone is {model}: {trained.get('weights_of', 'weights of unknown origin')}. Licence of its "
        f"weights: {stated}. Licences of the images it was trained on may bind as well.\n"
        "For research only: this is not a medical device and must not be used for diagnosis.\n"
    )
