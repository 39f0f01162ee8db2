"""Features in int8: a network quantised after training by OpenVINO's own tools (NNCF, `make int8`).

The images that calibrate it are those of train, one a source; it is used only where its features point in the
direction of those in float32, and where a logistic regression on them has the same AUROC on validation.
"""

import contextlib
import importlib.util
import io
import sys
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from xray_helpers.images.pixels import load_pixels
from xray_helpers.images.radiographs import ImageFolder
from xray_helpers.settings import POSITIVE, InputError

if TYPE_CHECKING:
    import openvino
LEAST_COSINE = 0.99  # mean over images, between features in int8 and in float32
MARGIN = 0.01  # largest accepted fall of AUROC on validation
_CALIBRATING, _JUDGING = 160, 300  # images of train that calibrate, and of each part that judge, at most
_BATCH = 8


class Calibration(NamedTuple):
    """The images that quantise a network, and judge it.

    Attributes
    ----------
    train, validation : ndarray of uint8, shape (n, height, width), 0-255
    y_train, y_validation : ndarray of int, shape (n,)
    """

    train: np.ndarray
    validation: np.ndarray
    y_train: np.ndarray
    y_validation: np.ndarray


def check_installed() -> None:
    """Raise `InputError` if NNCF is not installed."""
    if importlib.util.find_spec("nncf") is None:
        raise InputError("precision = int8 needs NNCF, which is not installed: run `make int8`.")


def choose_images(manifest: pd.DataFrame, seed: int) -> tuple[tuple[str, str, str, int], ...]:
    """Return split, path, sha256 and y_true of the images that calibrate and judge: one a source.

    Parameters
    ----------
    manifest : DataFrame
        Columns status, split, group, path, sha256, label (of ``manifest.csv``).
    seed : int
    """
    used = manifest[manifest["status"] == "used"].sample(frac=1, random_state=seed).drop_duplicates("group")
    parts = [used[used["split"] == split].head(_JUDGING) for split in ("train", "validation")]
    found = pd.concat(parts)
    rows = found.assign(y_true=found["label"] == POSITIVE)[["split", "path", "sha256", "y_true"]]
    return tuple((str(split), str(path), str(sha), int(y)) for split, path, sha, y in rows.to_numpy())


def load_calibration(
    chosen: tuple[tuple[str, str, str, int], ...], folder: ImageFolder, size: tuple[int, int]
) -> Calibration | None:
    """Return the pictures that `choose_images` chose, or None if it chose none."""
    if not chosen:
        return None
    table = pd.DataFrame(chosen, columns=["split", "path", "sha256", "y_true"])
    parts = [table[table["split"] == split] for split in ("train", "validation")]
    pixels = [np.asarray(load_pixels(part, folder, size)[:]) for part in parts]
    return Calibration(*pixels, *(part["y_true"].to_numpy(int) for part in parts))


def quantise(model: "openvino.Model", calibration: Calibration, *, transformer: bool) -> "openvino.Model":
    """Return a model of OpenVINO in int8, calibrated on train images.

    Parameters
    ----------
    model : openvino.Model
        Its input takes 8 pictures at once.
    calibration : Calibration
    transformer : bool
        Whether it has attention, which NNCF treats apart.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # it then sends nothing
    import nncf

    pictures = calibration.train[:_CALIBRATING]
    pictures = pictures[np.resize(np.arange(len(pictures)), -(-len(pictures) // _BATCH) * _BATCH)]
    batches = np.split(pictures, len(pictures) // _BATCH)
    with contextlib.redirect_stdout(io.StringIO()):  # progress bars
        return nncf.quantize(
            model,
            nncf.Dataset(batches),
            subset_size=len(batches),
            preset=nncf.QuantizationPreset.MIXED,
            model_type=nncf.ModelType.TRANSFORMER if transformer else None,
        )


def judge(
    exact: tuple[np.ndarray, ...], found: tuple[np.ndarray, ...], calibration: Calibration
) -> dict[str, Any]:
    """Return whether features in int8 can stand for those in float32.

    Parameters
    ----------
    exact, found : (ndarray, ndarray)
        Features (n, d) of train and validation in float32 and in int8.
    calibration : Calibration

    Returns
    -------
    dict
        cosine (mean over the validation images), auroc and auroc_exact (on validation, of a logistic
        regression on train; None where a part lacks a class), accepted.
    """
    norms = np.linalg.norm(exact[1], axis=1) * np.linalg.norm(found[1], axis=1)
    cosine = float(np.mean((exact[1] * found[1]).sum(axis=1) / (norms + 1e-12)))
    aurocs = [_auroc(*features, calibration) for features in (found, exact)]
    fall = 0.0 if None in aurocs else aurocs[1] - aurocs[0]
    accepted = cosine >= LEAST_COSINE and fall <= MARGIN
    return {"cosine": cosine, "auroc": aurocs[0], "auroc_exact": aurocs[1], "accepted": accepted}


def _auroc(train: np.ndarray, validation: np.ndarray, calibration: Calibration) -> float | None:
    if min(len(set(calibration.y_train.tolist())), len(set(calibration.y_validation.tolist()))) < 2:
        return None
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=1000))
    model.fit(train, calibration.y_train)
    return float(roc_auc_score(calibration.y_validation, model.decision_function(validation)))
