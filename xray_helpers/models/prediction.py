"""A trained model on new files: probability, decision, and a warning for images unlike those of training."""

import functools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from xray_helpers.data.listing import list_files
from xray_helpers.data.manifest import reading_of
from xray_helpers.images.annotation_writers import write_coco
from xray_helpers.images.pixels import resize
from xray_helpers.images.radiographs import (
    ImageFolder,
    Radiograph,
    UnreadableError,
    check_picture,
    escape_name,
)
from xray_helpers.models.detector import DetectorLocalizer
from xray_helpers.models.head import load_model, quiet_stderr
from xray_helpers.models.localizer import Localizer, open_localizer
from xray_helpers.models.out_of_distribution import OODDetector, build_feature_model, feature_distance
from xray_helpers.settings import InputError
from xray_helpers.study.files import read_json
from xray_helpers.study.folders import read_class_names

_BATCH = 32


def predict_files(study: Path, model: str, files: Sequence[str], boxes: Path | None = None) -> pd.DataFrame:
    """Predict files by a model of a study, at the threshold that the study chose.

    Parameters
    ----------
    study : Path
    model : str
    files : sequence of str
        Files, or folders whose files are all listed.
    boxes : Path, optional
        Where the boxes that the model's localizer finds are written, in COCO's form.

    Returns
    -------
    DataFrame
        One row per file: file, probability (of Fractured), decision (empty if the model abstains), threshold,
        warning (images unlike the training images, notes on the file), reason (why there is no probability).

    Raises
    ------
    InputError
        If the model does not exist or is refused, a file does not exist, or boxes are asked for and there is
        no localizer.
    """
    if not all(files):
        raise InputError("A name of a file is empty: name files or folders.")
    reader = Reader(study, model)
    if boxes is not None and reader.localizer is None:
        raise InputError(
            f"{model} of {study.name} has no localizer: give the study boxes of fractures (see the README) "
            "and run it again, or run 07 again if the model was trained since."
        )
    rows = []
    for given in files:
        for folder, name, reason in list_files(Path(given)):
            shown = f"{given.rstrip('/')}/{name}" if folder == Path(given) else given
            rows.append({"file": escape_name(shown), "place": (folder, name), "reason": reason})
    for batch, pictures in _read_batches(rows, reader):
        for row, answer in zip(batch, reader.predict(pictures), strict=True):
            row |= answer
        if boxes is not None:
            _locate(batch, pictures, reader)
    if boxes is not None:
        _write_boxes(rows, boxes)
    columns = ["file", "probability", "decision", "threshold", "warning", "reason"]
    table = pd.DataFrame(rows).reindex(columns=columns)
    return table.assign(threshold=round(reader.threshold, 6), warning=table["warning"].fillna(""))


def _locate(batch: list[dict[str, Any]], pictures: list[Radiograph], reader: "Reader") -> None:
    pixels = np.stack([picture.pixels for picture in pictures])
    found = reader.localizer.find(pixels, [row["shape"] for row in batch])
    for row, marks in zip(batch, found, strict=True):
        row["marks"] = marks


def _write_boxes(rows: list[dict[str, Any]], place: Path) -> None:
    read = [row for row in rows if "marks" in row]
    sizes = [(row["file"], *row["shape"]) for row in read]
    marks = [(row["file"], *mark) for row in read for mark in row["marks"]]
    pictures = pd.DataFrame(sizes, columns=["path", "height", "width"])
    columns = ["path", "left", "top", "right", "bottom", "score"]
    write_coco(place, pictures, pd.DataFrame(marks, columns=columns))


def guard_formulas(texts: Iterable[str]) -> list[str]:
    """Return texts with a quote before those that a spreadsheet would take for a formula."""
    return [f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text for text in texts]


class Reader:
    """A trained model of a study, with its threshold and its detector of unlike images.

    Attributes
    ----------
    model : keras.Model
    threshold : float
    uncertain : (float, float)
        The band of thresholds that other images could have given; the model abstains in it.
    settings : dict
        Settings of the study.
    class_names : (str, str)
        Of the negative and the positive class.

    Raises
    ------
    InputError
        If the model does not exist or is refused.
    """

    def __init__(self, study: Path, model: str) -> None:
        with quiet_stderr():
            import keras

        place = study / model
        if not (place / "model.keras").exists():
            known = ", ".join(sorted(path.parent.name for path in study.glob("*/model.keras"))) or "none"
            raise InputError(f"{study.name} has no model {model!r}: it has {known}.")
        chosen = read_json(place / "threshold.json")
        self.threshold = float(chosen["threshold"])
        self.uncertain = tuple(chosen.get("uncertain", (self.threshold, self.threshold)))
        self.settings, self.class_names = read_json(study / "study.json")["settings"], read_class_names(study)
        self._detector = OODDetector.load(place / "familiarity.npz")
        self.model = load_model(place / "model.keras")
        outputs = [self.model.output, build_feature_model(self.model).output]
        self._run = keras.Model(self.model.input, outputs)
        self._place = place

    @functools.cached_property
    def localizer(self) -> Localizer | DetectorLocalizer | None:
        """What finds boxes; None where the study has trained nothing for this model."""
        way, flips = reading_of(self.settings).get("resize", "stretch"), self.settings.get("flips", False)
        return open_localizer(self._place, self.model, flips=flips, way=way)

    def resize(self, pixels: np.ndarray) -> np.ndarray:
        """Return a picture at the size of the model's input."""
        return resize(pixels, self.model.input_shape[1:3], reading_of(self.settings).get("resize", "stretch"))

    def predict(self, pictures: Sequence[Radiograph]) -> list[dict[str, Any]]:
        """Return for each picture probability, decision, warning (or an empty string) and uncertain.

        Where the model is uncertain it abstains, and decision is empty. The pictures have passed
        `radiographs.check_picture`.
        """
        pixels = np.stack([self.resize(picture.pixels) for picture in pictures])
        outputs = self._run(pixels[..., None].astype(np.float32))
        probabilities, features = (np.asarray(part) for part in outputs)
        unlike = feature_distance(features, self._detector.features) > self._detector.limit
        low, high = self.uncertain
        answers = []
        for picture, p, is_unlike in zip(pictures, probabilities[:, 0].astype(float), unlike, strict=True):
            uncertain = low <= p <= high and low < high
            warnings = ["unlike the training images"] if is_unlike else []
            warnings += [picture.note] if picture.note else []
            warnings += ["too near the threshold to tell"] if uncertain else []
            answers.append(
                {
                    "probability": round(p, 6),
                    "decision": "" if uncertain else self.class_names[int(p >= self.threshold)],
                    "warning": ("WARNING: " + "; ".join(warnings)) if warnings else "",
                    "uncertain": uncertain,
                }
            )
        return answers


def _read_batches(
    rows: list[dict[str, Any]], reader: Reader
) -> Iterator[tuple[list[dict], list[Radiograph]]]:
    """Read files and yield them in batches; a row whose file cannot be read gets the reason instead."""
    batch, pictures = [], []
    for row in rows:
        folder, name = row.pop("place")
        if not row["reason"]:
            try:
                picture = check_picture(ImageFolder(folder, **reading_of(reader.settings)).read(name))
                row["shape"] = picture.pixels.shape
                # small ones, because a batch at full size would take much memory
                pictures.append(picture._replace(pixels=reader.resize(picture.pixels)))
                batch.append(row)
            except UnreadableError as error:
                row["reason"] = str(error)
        if len(batch) == _BATCH:
            yield batch, pictures
            batch, pictures = [], []
    if batch:
        yield batch, pictures
