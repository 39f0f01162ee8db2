"""A trained model on new files: probability, decision, and whether an image is like those the model learned
from.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from xray_helpers.data.listing import list_files
from xray_helpers.data.manifest import reading_of
from xray_helpers.images.pixels import resize
from xray_helpers.images.radiographs import (
    ImageFolder,
    Radiograph,
    UnreadableError,
    check_picture,
    escape_name,
)
from xray_helpers.models.head import load_model
from xray_helpers.models.out_of_distribution import OODDetector, build_feature_model, feature_distance
from xray_helpers.settings import InputError
from xray_helpers.study.files import read_json
from xray_helpers.study.folders import read_class_names

if TYPE_CHECKING:
    pass
_BATCH = 32


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
        file, probability (of Fractured), decision (empty where the model abstains), threshold, warning
        (images unlike the training images, notes), reason (why there is no probability). A row a file.

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


def guard_formulas(texts: Iterable[str]) -> list[str]:
    """Return texts with a quote before those that a spreadsheet would take for a formula."""
    return [f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text for text in texts]


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
        Between which the threshold would lie, were it chosen on other images.
    settings : dict
        Of the study.
    class_names : (str, str)
        Of the negative and the positive class.

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
        self.settings, self.class_names = read_json(study / "study.json")["settings"], read_class_names(study)
        self._familiar = OODDetector.load(place / "familiarity.npz")
        self.model = load_model(place / "model.keras")
        self._both = keras.Model(
            self.model.input, [self.model.output, build_feature_model(self.model).output]
        )

    def resize(self, pixels: np.ndarray) -> np.ndarray:
        """Return a picture at the size that the model sees."""
        return resize(pixels, self.model.input_shape[1:3], reading_of(self.settings).get("resize", "stretch"))

    def judge(self, pictures: Sequence[Radiograph]) -> list[dict[str, Any]]:
        """Return probability, decision, warning (or an empty string) and uncertain (whether to abstain) of
        each picture.

        decision is empty where the model abstains. `radiographs.check_picture` comes before.
        """
        pixels = np.stack([self.resize(picture.pixels) for picture in pictures])
        outputs = self._both(pixels[..., None].astype(np.float32))
        probability, features = (np.asarray(part) for part in outputs)
        far = feature_distance(features, self._familiar.features) > self._familiar.limit
        answers = []
        for picture, p, unlike in zip(pictures, probability[:, 0].astype(float), far, strict=True):
            uncertain = self.uncertain[0] <= p <= self.uncertain[1] and self.uncertain[0] < self.uncertain[1]
            words = ["unlike the training images"] if unlike else []
            words += [picture.note] if picture.note else []
            words += ["too near the threshold to tell"] if uncertain else []
            answers.append(
                {
                    "probability": round(p, 6),
                    "decision": "" if uncertain else self.class_names[int(p >= self.threshold)],
                    "warning": ("WARNING: " + "; ".join(words)) if words else "",
                    "uncertain": uncertain,
                }
            )
        return answers


def _read_batches(
    rows: list[dict[str, Any]], reader: Reader
) -> Iterator[tuple[list[dict], list[Radiograph]]]:
    """Read the files of the rows, note why some are no pictures, and yield the others in batches."""
    batch, pictures = [], []
    for row in rows:
        place, name = row.pop("place")
        if not row["reason"]:
            try:
                found = check_picture(ImageFolder(place, **reading_of(reader.settings)).read(name))
                pictures.append(
                    found._replace(pixels=reader.resize(found.pixels))
                )  # a batch of whole ones is much
                batch.append(row)
            except UnreadableError as error:
                row["reason"] = str(error)
        if len(batch) == _BATCH:
            yield batch, pictures
            batch, pictures = [], []
    if batch:
        yield batch, pictures
