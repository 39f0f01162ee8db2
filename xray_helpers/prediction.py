"""A trained model on new files: probability, decision, and whether an image is like those the model learned from."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from xray_helpers.manifest import list_files, reading_of
from xray_helpers.pixels import resize
from xray_helpers.radiographs import ImageFolder, Radiograph, UnreadableError
from xray_helpers.settings import NEGATIVE, POSITIVE, InputError
from xray_helpers.studies import read_csv, read_json
from xray_helpers.training import HEAD_INPUT, load_model

if TYPE_CHECKING:
    import keras

COLOURED = 12.0  # mean difference of channels, 0-255, from which a picture is a colour photograph
_BATCH = 32


def measure_familiarity(train: np.ndarray, validation: np.ndarray) -> pd.DataFrame:
    """Return what tells images unlike the training images: mean and standard deviation of each feature, and a limit.

    An image's distance is its mean squared standard score; the limit is the 99th percentile of the distances of
    validation images, which training did not see.

    Parameters
    ----------
    train, validation : ndarray of float, shape (n, d)
        Features as the head is given them.

    Returns
    -------
    DataFrame
        mean, standard_deviation, limit (the same in each row); a row a feature.
    """
    train, validation = np.asarray(train, np.float64), np.asarray(validation, np.float64)
    deviation = train.std(axis=0)
    table = pd.DataFrame(
        {"mean": train.mean(axis=0), "standard_deviation": np.maximum(deviation, deviation.mean() / 10)}
    )
    return table.assign(limit=np.percentile(feature_distance(validation, table), 99))


def feature_distance(features: np.ndarray, familiarity: pd.DataFrame) -> np.ndarray:
    """Return the distance of each image, shape (n,), from features (n, d) and `measure_familiarity`'s table."""
    scores = (np.asarray(features, np.float64) - familiarity["mean"].to_numpy()) / familiarity[
        "standard_deviation"
    ].to_numpy()
    return (scores**2).mean(axis=1)


def build_feature_model(model: "keras.Model") -> "keras.Model":
    """Return the part of a joined model from pixels to the features that its head is given."""
    import keras

    return keras.Model(model.input, model.get_layer(HEAD_INPUT).input)


def predict_files(study: Path, model: str, files: Sequence[str]) -> pd.DataFrame:
    """Judge files by a model of a study, at the threshold that the study chose.

    Parameters
    ----------
    study : Path
    model : str
        One that was trained there.
    files : sequence of str
        Files, or folders, of which every file is listed.

    Returns
    -------
    DataFrame
        file, probability (of Fractured), decision, threshold, warning (images unlike the training images, notes),
        reason (why there is no probability). A row a file.

    Raises
    ------
    InputError
        When the model is not there or is refused, or there is no such file.
    """
    place = study / model
    if not (place / "model.keras").exists():
        known = ", ".join(sorted(path.parent.name for path in study.glob("*/model.keras"))) or "none"
        raise InputError(f"{study.name} has no model {model!r}: it has {known}.")
    threshold = read_json(place / "threshold.json")["threshold"]
    familiarity = read_csv(place / "familiarity.csv")
    settings = read_json(study / "study.json")["settings"]
    rows = [{"file": name if folder != Path(given) else f"{given.rstrip('/')}/{name}", "place": (folder, name), "reason": reason}
            for given in files for folder, name, reason in list_files(Path(given))]  # fmt: skip
    rows = [row | {"warnings": []} for row in rows]
    whole = _two_outputs(load_model(place / "model.keras"))
    for batch, pixels in _read_batches(rows, settings):
        probability, features = (np.asarray(part) for part in whole(pixels[..., None].astype(np.float32)))
        distances = feature_distance(features, familiarity)
        for row, p, distance in zip(batch, probability[:, 0].astype(float), distances, strict=True):
            if distance > familiarity["limit"].iloc[0]:
                row["warnings"].insert(0, "unlike the training images")
            row |= {"probability": round(float(p), 6), "decision": POSITIVE if p >= threshold else NEGATIVE}
    table = pd.DataFrame(rows)
    table["warning"] = [("WARNING: " + "; ".join(words)) if words else "" for words in table.pop("warnings")]
    columns = ["file", "probability", "decision", "threshold", "warning", "reason"]
    return table.assign(threshold=round(float(threshold), 6)).reindex(columns=columns)


def _two_outputs(model: "keras.Model") -> "keras.Model":
    import keras

    return keras.Model(model.input, [model.output, build_feature_model(model).output])


def _read_batches(rows: list[dict[str, Any]], settings: dict[str, Any]) -> Iterator[tuple[list[dict], np.ndarray]]:
    """Read the files of the rows, note in them what there is to say, and yield those that are pictures in batches."""
    size, batch, pictures = tuple(settings["img_size"]), [], []
    for row in rows:
        place, name = row.pop("place")
        if not row["reason"]:
            folder = ImageFolder(place, **reading_of(settings))
            try:
                found = folder.read(name)
            except UnreadableError as error:
                row["reason"] = str(error)
            else:
                row["warnings"] += _warnings(found)
                batch.append(row)
                pictures.append(resize(found.pixels, size, folder.resize))
        if len(batch) == _BATCH:
            yield batch, np.stack(pictures)
            batch, pictures = [], []
    if batch:
        yield batch, np.stack(pictures)


def _warnings(found: Radiograph) -> list[str]:
    words = ["a colour photograph, no radiograph"] if found.colour > COLOURED else []
    return [*words, *([found.note] if found.note else [])]
