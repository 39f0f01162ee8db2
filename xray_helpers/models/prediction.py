"""A trained model on new files: probability, decision, and a warning for images unlike those of training."""

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from xray_helpers.data.manifest import reading_of
from xray_helpers.evaluation.class_predictions import positive_probability
from xray_helpers.images.annotation_writers import write_coco
from xray_helpers.images.pixels import resize
from xray_helpers.images.radiographs import ImageFolder, Radiograph, UnreadableError, check_picture
from xray_helpers.models.detector import DetectorLocalizer
from xray_helpers.models.head import as_probabilities, quiet_stderr
from xray_helpers.models.labelled import list_given, score_labelled
from xray_helpers.models.localizer import Localizer, open_localizer
from xray_helpers.models.out_of_distribution import OODDetector, build_feature_model, feature_distance
from xray_helpers.models.saved import load_model
from xray_helpers.same_source.known import KnownImages
from xray_helpers.settings import InputError
from xray_helpers.study.files import read_json
from xray_helpers.study.folders import read_classes
from xray_helpers.study.tables import CLASS_PREFIX

_BATCH = 32
Runtime = Callable[[np.ndarray], Sequence[np.ndarray]]


def predict_files(study: Path, model: str, files: Sequence[str]) -> pd.DataFrame:
    """Return the first result of `predict_and_score`."""
    return predict_and_score(study, model, files)[0]


def predict_and_score(
    study: Path, model: str, files: Sequence[str], boxes: Path | None = None, run: Runtime | None = None
) -> tuple[pd.DataFrame, str]:
    """Predict files by a model of a study, at the threshold that the study chose.

    Parameters
    ----------
    study : Path
    model : str
    files : sequence of str
        Files, folders whose files are all listed, or tables with the column path.
    boxes : Path, optional
        Where the boxes that the model's localizer finds are written, in COCO's form.
    run : callable, optional
        As for `Reader.answer_by`.

    Returns
    -------
    table : DataFrame
        One row per file: file, probability (of Fractured), decision (empty if the model abstains), threshold,
        warning (images unlike the training images, or among them, notes on the file), reason (why there is no
        probability); of three or more classes also most_probable (a class) and p_<class>.
    score : str
        In a sentence how good the answers are, of `labelled.score_labelled`; empty without labels.

    Raises
    ------
    InputError
        If the model does not exist or is refused, a file does not exist, or boxes are asked for and there is
        no localizer.
    """
    if not all(files):
        raise InputError("A name of a file is empty: name files or folders.")
    reader = Reader(study, model)
    if run is not None:
        reader.answer_by(run)
    if boxes is not None and reader.localizer is None:
        raise InputError(
            f"{model} of {study.name} has no localizer: give the study boxes of fractures (see the README) "
            "and run it again, or run 07 again if the model was trained since."
        )
    rows = []
    for given in files:
        rows += list_given(given, reader.settings, reader.classes)
    for batch, pictures in _read_batches(rows, reader):
        for row, answer in zip(batch, reader.predict(pictures), strict=True):
            row |= answer | {"warning": join_warnings(row["seen"], answer["warning"])}
        if boxes is not None:
            _locate(batch, pictures, reader)
    if boxes is not None:
        _write_boxes(rows, boxes)
    columns = ["file", "probability", "decision", "threshold", "warning", "reason"]
    classes = reader.classes.names
    columns += ["most_probable", *(f"{CLASS_PREFIX}{name}" for name in classes)] if classes else []
    table = pd.DataFrame(rows).reindex(columns=columns)
    table = table.assign(threshold=round(reader.threshold, 6), warning=table["warning"].fillna(""))
    return table, score_labelled(rows, reader.threshold)


def join_warnings(seen: str, warning: str) -> str:
    """Return the warning of an answer, after what `Reader.recognise` says of the file."""
    if not seen:
        return warning
    rest = warning.removeprefix("WARNING: ")
    return f"WARNING: {seen}; {rest}" if rest else f"WARNING: {seen}"


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
    classes : Classes
        Of the study.

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
        self.settings, self.classes = read_json(study / "study.json")["settings"], read_classes(study)
        self._detector = OODDetector.load(place / "familiarity.npz")
        self.known = KnownImages(study)
        self.model = load_model(place / "model.keras")
        outputs = [self.model.output, build_feature_model(self.model).output]
        joint = keras.Model(self.model.input, outputs)
        self._run: Runtime = lambda pixels: joint(pixels[..., None].astype(np.float32))
        self._place = place

    def answer_by(self, run: Runtime) -> None:
        """Let another copy answer: from pictures (n, height, width), uint8, to outputs and features."""
        self._run = run

    @functools.cached_property
    def localizer(self) -> Localizer | DetectorLocalizer | None:
        """What finds boxes; None where the study has trained nothing for this model."""
        way, flips = reading_of(self.settings).get("resize", "stretch"), self.settings.get("flips", False)
        return open_localizer(self._place, self.model, flips=flips, way=way)

    def resize(self, pixels: np.ndarray) -> np.ndarray:
        """Return a picture at the size of the model's input."""
        return resize(pixels, self.model.input_shape[1:3], reading_of(self.settings).get("resize", "stretch"))

    def recognise(self, picture: Radiograph) -> str:
        """Return a warning where a picture, at its own size, derives from one of train or validation."""
        found = self.known.find(picture)
        return found.warning if found else ""

    def predict(self, pictures: Sequence[Radiograph]) -> list[dict[str, Any]]:
        """Return for each picture probability, decision, warning (or an empty string) and uncertain.

        Where the model is uncertain it abstains, and decision is empty. The pictures have passed
        `radiographs.check_picture`.
        """
        pixels = np.stack([self.resize(picture.pixels) for picture in pictures])
        probabilities, features = (np.asarray(part) for part in self._run(pixels))
        asked = positive_probability(as_probabilities(probabilities), self.classes)
        unlike = feature_distance(features, self._detector.features) > self._detector.limit
        low, high = self.uncertain
        answers = []
        rows = zip(pictures, asked, unlike, probabilities, strict=True)
        for picture, p, is_unlike, of_classes in rows:
            uncertain = low <= p <= high and low < high
            warnings = ["unlike the training images"] if is_unlike else []
            warnings += [picture.note] if picture.note else []
            warnings += ["too near the threshold to tell"] if uncertain else []
            answers.append(
                {
                    "probability": round(float(p), 6),
                    "decision": "" if uncertain else self.classes[int(p >= self.threshold)],
                    "warning": ("WARNING: " + "; ".join(warnings)) if warnings else "",
                    "uncertain": uncertain,
                }
                | self._name_class(of_classes)
            )
        return answers

    def _name_class(self, probabilities: np.ndarray) -> dict[str, Any]:
        """Return the most probable of several classes, and the probability of each; nothing for two."""
        if not self.classes.names:
            return {}
        shares = {
            f"{CLASS_PREFIX}{n}": round(float(p), 6)
            for n, p in zip(self.classes.names, probabilities, strict=True)
        }
        return {"most_probable": self.classes.names[int(np.argmax(probabilities))]} | shares


def _read_batches(
    rows: list[dict[str, Any]], reader: Reader
) -> Iterator[tuple[list[dict], list[Radiograph]]]:
    """Read files and yield them in batches; a row whose file cannot be read gets the reason instead."""
    batch, pictures = [], []
    for row in rows:
        folder, name = row["place"]
        if not row["reason"]:
            try:
                picture = check_picture(ImageFolder(folder, **reading_of(reader.settings)).read(name))
                row |= {"sha256": picture.sha256, "seen": reader.recognise(picture)}
                row["shape"] = picture.pixels.shape
                row["patient"] = row["patient"] if pd.notna(row["patient"]) else picture.patient or pd.NA
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
