"""An exported file in the place of ``model.keras``, so that what is deployed is what is judged.

Its outputs and features decide, warn and abstain, at the study's threshold. Maps and boxes need gradients or
places inside the network, and still come from ``model.keras``.
"""

from pathlib import Path

import numpy as np

from xray_helpers.export.bundle import EXPORT, SUMS, Bundle, identify_training, read_bundle
from xray_helpers.export.formats import FORMATS
from xray_helpers.export.proof import DO_NOT_USE
from xray_helpers.export.runtimes import Runtime, open_runtime
from xray_helpers.models.external import Opened, open_models
from xray_helpers.settings import InputError
from xray_helpers.study.files import hash_of
from xray_helpers.study.machine import command_name
from xray_helpers.study.records import sha256_of


def find_export(study: Path, model: str, engine: str) -> Bundle:
    """Return the export of a model that may be used.

    Parameters
    ----------
    study : Path
    model : str
    engine : str
        A format such as ``litert-int8``, or a kind such as ``litert``: of several the most precise.

    Raises
    ------
    InputError
        Where it was not exported, was damaged, is of an earlier training, or is marked "do not use".
    """
    names = [name for name, form in FORMATS.items() if engine in (name, form.kind)]
    if not names:
        raise InputError(f"There is no format {engine!r}: there are {', '.join(FORMATS)}.")
    found = [name for name in names if (study / model / EXPORT / name / SUMS).exists()]
    if not found:
        raise InputError(
            f"{model} of {study.name} was not exported to {engine}: run `{command_name()} export "
            f"{study.name} {model} --to {names[0]}` first."
        )
    bundle = read_bundle(study / model / EXPORT / found[0])
    if not identify_training(study, model).items() <= bundle.about.items():
        raise InputError(f"{found[0]} of {model} is of an earlier training: export the model again.")
    if bundle.proof["verdict"] == DO_NOT_USE:
        raise InputError(f'{found[0]} of {model} is marked "do not use": {bundle.proof["why"]}')
    return bundle


def open_engine(study: Path, model: str, engine: str) -> tuple[Runtime | None, str]:
    """Return what answers in the place of ``model.keras``, and a sentence on it; nothing without an engine.

    Raises
    ------
    InputError
        As `find_export`.
    """
    if not engine:
        return None, ""
    bundle = find_export(study, model, engine)
    verdict = bundle.proof["verdict"]
    told = {"not known": "whether it loses more than the margin is not known"}.get(verdict, f"it {verdict}")
    return open_runtime(bundle.form.name, bundle.file), (
        f"Probabilities come from the exported file {bundle.form.name} ({told}); maps and boxes come from "
        "model.keras."
    )


def open_deployed(study: Path, models: list[str], images: int, engine: str) -> tuple[dict[str, Opened], str]:
    """Return the models of an external test, exported ones where an engine is named, and a sentence on these.

    Parameters
    ----------
    study : Path
    models : list of str
    images : int
        How many there are.
    engine : str
        As for `find_export`; empty: ``model.keras``.
    """
    if not engine:
        return open_models(study, models, images), ""
    opened, told = {}, []
    for model in models:
        bundle = find_export(study, model, engine)
        forward = ExportedPass(bundle)
        key = hash_of("exported", bundle.form.name, sha256_of(bundle.file))
        opened[model] = Opened(forward, key, forward.outputs)
        told.append(f"{model}: {bundle.form.name}, SHA-256 {sha256_of(bundle.file)[:16]}")
    return opened, f"Tested is what was exported, not model.keras ({'; '.join(told)})."


class ExportedPass:
    """An exported file as `inference.ForwardPass` is used: its outputs and features in one array.

    Attributes
    ----------
    shape : (int, int)
        Height and width of the pictures.
    outputs, features : int
        Number of outputs, and of outputs and features together.
    started : bool
        Whether there were any pictures yet.
    """

    def __init__(self, bundle: Bundle) -> None:
        self._run, self._form = open_runtime(bundle.form.name, bundle.file), bundle.form
        self.shape, self.started = tuple(bundle.about["size"]), False
        outputs, features = self._run(np.zeros((1, *self.shape), np.uint8))
        self.outputs, self.features = outputs.shape[1], outputs.shape[1] + features.shape[1]

    def submit(self, pictures: np.ndarray, store: np.ndarray, rows: np.ndarray) -> None:
        """Write what pictures (n, height, width), uint8, give to rows of `store`."""
        store[rows], self.started = np.concatenate(self._run(pictures), axis=1), True

    def wait(self) -> None:
        """Return at once: `submit` has done everything."""

    def record(self) -> dict[str, str]:
        """Return engine and precision as plain values."""
        return {"engine": self._form.kind, "precision": self._form.precision}
