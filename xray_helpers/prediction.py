"""A trained model on new files: probability, decision, and whether an image is like those the model learned from."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from xray_helpers.manifest import list_files, reading_of
from xray_helpers.pixels import resize
from xray_helpers.radiographs import ImageFolder, Radiograph, UnreadableError, escape_name
from xray_helpers.settings import NEGATIVE, POSITIVE, InputError
from xray_helpers.studies import read_csv, read_json
from xray_helpers.training import HEAD_INPUT, load_model

if TYPE_CHECKING:
    import keras

SMALLEST, LONGEST = 32, 5  # pixels of the shorter side; how many of it in the longer: what a radiograph keeps to
_ONE_GREY = 2.0  # standard deviation of grey levels, 0-255, under which there is nothing to see
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
        file, probability (of Fractured), decision (empty where the model abstains), threshold, warning (images unlike
        the training images, notes), reason (why there is no probability). A row a file.

    Raises
    ------
    InputError
        When the model is not there or is refused, or there is no such file.
    """
    if not all(files):
        raise InputError("An empty name was given as a file to judge: name files or folders.")
    reader = Reader(study, model)
    rows = []
    for given in files:
        for folder, name, reason in list_files(Path(given)):
            told = f"{given.rstrip('/')}/{name}" if folder == Path(given) else given
            rows.append({"file": escape_name(told), "place": (folder, name), "reason": reason})
    for batch, pictures in _read_batches(rows, reader):
        for row, answer in zip(batch, reader.judge(pictures), strict=True):
            row |= answer
    columns = ["file", "probability", "decision", "threshold", "warning", "reason"]
    table = pd.DataFrame(rows).reindex(columns=columns)
    return table.assign(threshold=round(reader.threshold, 6), warning=table["warning"].fillna(""))


def note_oddities(picture: Radiograph) -> Radiograph:
    """Return a picture, not yet resized, with what is plainly no radiograph's added to its note."""
    short, long = sorted(picture.pixels.shape)
    height, width = picture.pixels.shape
    words = ["almost one grey: there is no picture in it"] if picture.pixels.std() < _ONE_GREY else []
    words += [f"too small: {width} x {height} pixels"] if short < SMALLEST else []
    words += [f"very long and thin: {width} x {height} pixels"] if long > LONGEST * short else []
    return picture._replace(note="; ".join(filter(None, [*words, picture.note])))


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep what TensorFlow's libraries say at their start from the terminal."""
    kept, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nothing)


class Reader:
    """A trained model of a study, with what its answers rest on.

    Attributes
    ----------
    model : keras.Model
    threshold : float
    uncertain : (float, float)
        Between which the threshold would lie with other validation images.
    settings : dict
        Of the study.

    Raises
    ------
    InputError
        When the model is not there or is refused.
    """

    def __init__(self, study: Path, model: str) -> None:
        with _quiet():
            import keras

        place = study / model
        if not (place / "model.keras").exists():
            known = ", ".join(sorted(path.parent.name for path in study.glob("*/model.keras"))) or "none"
            raise InputError(f"{study.name} has no model {model!r}: it has {known}.")
        chosen = read_json(place / "threshold.json")
        self.threshold = float(chosen["threshold"])
        self.uncertain = tuple(chosen.get("uncertain", (self.threshold, self.threshold)))
        self.settings = read_json(study / "study.json")["settings"]
        self._familiarity = read_csv(place / "familiarity.csv")
        self.model = load_model(place / "model.keras")
        self._both = keras.Model(self.model.input, [self.model.output, build_feature_model(self.model).output])

    def resize(self, pixels: np.ndarray) -> np.ndarray:
        """Return a picture at the size that the model sees."""
        return resize(pixels, self.model.input_shape[1:3], reading_of(self.settings).get("resize", "stretch"))

    def judge(self, pictures: Sequence[Radiograph]) -> list[dict[str, Any]]:
        """Return probability, decision, warning (or an empty string) and uncertain (whether to abstain) of each picture.

        decision is empty where the model abstains. `note_oddities` comes before.
        """
        pixels = np.stack([self.resize(picture.pixels) for picture in pictures])
        outputs = self._both(pixels[..., None].astype(np.float32))
        probability, features = (np.asarray(part) for part in outputs)
        far = feature_distance(features, self._familiarity) > self._familiarity["limit"].iloc[0]
        answers = []
        for picture, p, unlike in zip(pictures, probability[:, 0].astype(float), far, strict=True):
            uncertain = self.uncertain[0] <= p <= self.uncertain[1] and self.uncertain[0] < self.uncertain[1]
            words = ["unlike the training images"] if unlike else []
            words += ["a colour photograph, no radiograph"] if picture.colour > COLOURED else []
            words += [picture.note] if picture.note else []
            words += ["too near the threshold to tell"] if uncertain else []
            answers.append(
                {
                    "probability": round(p, 6),
                    "decision": "" if uncertain else POSITIVE if p >= self.threshold else NEGATIVE,
                    "warning": ("WARNING: " + "; ".join(words)) if words else "",
                    "uncertain": uncertain,
                }
            )
        return answers


def _read_batches(rows: list[dict[str, Any]], reader: Reader) -> Iterator[tuple[list[dict], list[Radiograph]]]:
    """Read the files of the rows, note why some are no pictures, and yield the others in batches."""
    batch, pictures = [], []
    for row in rows:
        place, name = row.pop("place")
        if not row["reason"]:
            try:
                found = note_oddities(ImageFolder(place, **reading_of(reader.settings)).read(name))
                pictures.append(found._replace(pixels=reader.resize(found.pixels)))  # a batch of whole ones is much
                batch.append(row)
            except UnreadableError as error:
                row["reason"] = str(error)
        if len(batch) == _BATCH:
            yield batch, pictures
            batch, pictures = [], []
    if batch:
        yield batch, pictures
