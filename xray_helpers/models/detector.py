"""Detectors of KerasHub (`make hub`), such as RetinaNet or D-FINE, trained on boxes of fractures.

For those who have a GPU: all layers learn. What a detector finds has the form of what a dense head finds, and
is judged alike.
"""

import importlib.util
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from xray_helpers.images.annotations import list_boxes
from xray_helpers.images.geometry import fit_matrix, map_boxes, place_marks
from xray_helpers.images.pixels import load_pixels
from xray_helpers.images.radiographs import ImageFolder
from xray_helpers.models.hub import HubBackbone
from xray_helpers.models.saved import load_model
from xray_helpers.settings import InputError
from xray_helpers.study.seeds import derive_seed

if TYPE_CHECKING:
    import keras
    import tensorflow as tf
_EPOCHS, _PATIENCE, _RATE = 30, 5, 1e-4
_BATCH = {"DFineObjectDetector": 1}  # its loss takes the boxes of a batch for those of one picture
_OTHERS = 4  # images a batch
_GRID = 28  # rows and columns of the map that boxes make
_LEAST = 0.01  # score below which a box is not kept


class Detector:
    """A detector of one class, with its preprocessing.

    Attributes
    ----------
    model : keras.Model
        An ``ObjectDetector`` of KerasHub.
    size : (int, int)
        Height and width of its input.
    """

    def __init__(self, model: "keras.Model", size: tuple[int, int], scale: Any, offset: Any) -> None:
        self.model, self.size = model, tuple(size)
        self.scale, self.offset = (np.asarray(each, np.float32) for each in (scale, offset))
        self.model.preprocessor = None  # pixels are prepared here
        decoder = model.prediction_decoder.get_config() | {"confidence_threshold": _LEAST}
        self.model.prediction_decoder = type(model.prediction_decoder).from_config(decoder)

    def prepare(self, pixels: np.ndarray) -> np.ndarray:
        """Return what the network receives, float32 (n, height, width, 3), from grey (n, height, width)."""
        grey = np.asarray(pixels, np.float32)[..., None]
        return np.repeat(grey, 3, axis=-1) * self.scale + self.offset

    def find(self, pixels: np.ndarray) -> list[np.ndarray]:
        """Return left, top, right, bottom, score of the boxes in each picture of the input's size."""
        from keras.utils.bounding_boxes import convert_format

        found, batch = [], _BATCH.get(type(self.model).__name__, _OTHERS)
        for start in range(0, len(pixels), batch):
            out = self.model.predict(self.prepare(pixels[start : start + batch]), verbose=0)
            height, width = self.size
            given = {"source": self.model.bounding_box_format, "target": "xyxy"}
            boxes = np.asarray(convert_format(out["boxes"], **given, height=height, width=width), np.float32)
            rest = (out["confidence"], out["labels"], out["num_detections"])
            for box, score, kind, count in zip(boxes, *rest, strict=True):
                box, score = np.clip(box, 0, [width, height, width, height]), np.asarray(score, np.float32)
                kept = (np.arange(len(score)) < count) & (score >= _LEAST) & (np.asarray(kind) == 0)
                kept &= (box[:, :2] < box[:, 2:]).all(axis=1)
                found.append(np.column_stack([box, score])[kept])
        return found


def open_detector(place: str, img_size: tuple[int, int]) -> Detector:
    """Return a detector for one class from a preset's name or a folder, ``hub:PRESET`` or ``hub:FOLDER``.

    Parameters
    ----------
    place : str
        Without ``hub:``.
    img_size : (int, int)
        Height and width, where the preset does not fix them.

    Raises
    ------
    InputError
        If KerasHub is not installed, or the preset cannot be read as a detector.
    """
    if importlib.util.find_spec("keras_hub") is None:
        raise InputError(f"localizer = hub:{place} needs KerasHub, which is not installed: run `make hub`.")
    import keras_hub

    where = HubBackbone("the detector", place).locate_weights()
    try:
        # KerasHub 0.32 cannot load the weights of a D-FINE for another number of classes: class 0 learns then
        kinds = {} if _is_dfine(where) else {"num_classes": 1}
        model = keras_hub.models.ObjectDetector.from_preset(where, **kinds)
        converter = getattr(model.preprocessor, "image_converter", None)
    except Exception as error:  # KerasHub raises nearly every type
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200].rstrip(".")
        raise InputError(
            f"localizer = hub:{place} cannot be read as a detector of KerasHub ({reason}): give the name of "
            "a preset of RetinaNet or D-FINE, or its folder."
        ) from None
    _reset_box_head(model)
    fixed = model.inputs[0].shape[1:3]
    size = img_size if None in fixed else tuple(fixed)
    scale, offset = (getattr(converter, name, None) for name in ("scale", "offset"))
    return Detector(model, size, 1.0 if scale is None else scale, 0.0 if offset is None else offset)


def _is_dfine(where: str) -> bool:
    config = Path(where) / "config.json"
    text = config.read_text(encoding="utf-8", errors="replace") if config.is_file() else where
    return "dfine" in text.lower().replace("_", "").replace("-", "")


def _reset_box_head(model: "keras.Model") -> None:
    """Let the new head of a RetinaNet begin with its anchors as boxes.

    KerasHub starts the offsets of boxes at log(0.01 / 0.99) too, which is meant for scores: boxes would be a
    hundredth of their anchors' size, and take thousands of steps to grow.
    """
    for weight in getattr(getattr(model, "box_head", None), "weights", ()):
        value = np.asarray(weight)
        if value.ndim == 1 and len(value) % 4 == 0 and value[0] < -4 and np.ptp(value) == 0:
            weight.assign(np.zeros_like(value))


def train_detector(
    detector: Detector, parts: dict[str, pd.DataFrame], folder: ImageFolder, seed: int
) -> pd.DataFrame:
    """Train a detector on the boxes of train; early stopping looks at validation.

    Images without a fracture have no box to learn from, but teach where none is; of D-FINE, which needs a box
    in each picture, only those with a fracture do.

    Parameters
    ----------
    detector : Detector
        Trained in place.
    parts : dict
        train and validation: rows of the manifest whose truth is known.
    folder : ImageFolder
    seed : int

    Returns
    -------
    DataFrame
        epoch, loss, val_loss, best.
    """
    import keras

    keras.utils.set_random_seed(derive_seed(seed, "detector"))
    kind = type(detector.model).__name__
    batch, with_box = _BATCH.get(kind, _OTHERS), kind in _BATCH
    detector.model.compile(optimizer=keras.optimizers.Adam(_RATE, global_clipnorm=10.0))
    rng = np.random.default_rng([seed, 11])
    data = {
        split: _build_batches(detector, parts[split], folder, batch, shuffle, with_box)
        for split, shuffle in (("train", rng), ("validation", None))
    }
    stop = keras.callbacks.EarlyStopping("val_loss", patience=_PATIENCE, restore_best_weights=True)
    watched = {"validation_data": data["validation"], "callbacks": [stop], "verbose": 0, "shuffle": False}
    history = detector.model.fit(data["train"], epochs=_EPOCHS, **watched).history
    table = pd.DataFrame(history)[["loss", "val_loss"]].astype(float)
    table.insert(0, "epoch", np.arange(1, len(table) + 1))
    return table.assign(best=np.arange(len(table)) == table["val_loss"].argmin())


def _build_batches(
    detector: Detector,
    part: pd.DataFrame,
    folder: ImageFolder,
    batch: int,
    rng: np.random.Generator | None,
    with_box: bool,
) -> "tf.data.Dataset":
    import tensorflow as tf
    from keras.utils.bounding_boxes import convert_format

    part = part[part["y_true"] == 1].reset_index(drop=True) if with_box else part
    pixels, (height, width) = load_pixels(part, folder, detector.size), detector.size
    known = [
        map_boxes(own, fit_matrix((int(h), int(w)), detector.size, folder.resize), detector.size)
        for own, h, w in zip(list_boxes(part), part["height"], part["width"], strict=True)
    ]
    most = max([1, *map(len, known)])

    def draw() -> Iterator[tuple[np.ndarray, dict[str, np.ndarray]]]:
        """Yield pictures with their boxes, filled up with boxes of the class -1, which are none."""
        order = np.arange(len(part)) if rng is None else rng.permutation(len(part))
        for start in range(0, len(order), batch):
            rows = order[start : start + batch]
            count = len(known[rows[0]]) if with_box else most
            boxes = np.zeros((len(rows), count, 4), np.float32)
            labels = np.full((len(rows), count), -1, np.float32)
            for place, row in enumerate(rows):
                boxes[place, : len(known[row])], labels[place, : len(known[row])] = known[row], 0
            target = "center_xywh" if with_box else detector.model.bounding_box_format
            boxes = np.asarray(convert_format(boxes, "xyxy", target, height=height, width=width))
            if with_box:  # D-FINE learns from shares of the picture
                boxes = boxes / np.array([width, height] * 2, np.float32)
            yield detector.prepare(pixels[rows]), {"boxes": boxes, "labels": labels}

    shapes = (tf.TensorSpec((None, height, width, 3)), {"boxes": tf.TensorSpec((None, None, 4))})
    shapes[1]["labels"] = tf.TensorSpec((None, None))
    # KerasHub takes apart what is not of TensorFlow
    found = tf.data.Dataset.from_generator(draw, output_signature=shapes)
    return found.apply(tf.data.experimental.assert_cardinality(-(-len(part) // batch)))


def draw_marks(marks: Sequence[np.ndarray], size: tuple[int, int]) -> np.ndarray:
    """Return boxes as maps, float32 of shape (n, 28, 28): their scores, a little higher in the middle."""
    maps = np.zeros((len(marks), _GRID, _GRID), np.float32)
    y, x = ((np.arange(_GRID) + 0.5) * side / _GRID for side in size)
    for grid, own in zip(maps, marks, strict=True):
        for left, top, right, bottom, score in own:
            across, down = (
                np.clip(1 - np.abs(2 * at - low - high) / max(high - low, 1e-6), -1, 1)
                for at, low, high in ((x, left, right), (y, top, bottom))
            )
            middle = np.minimum(down[:, None], across[None])
            inside = middle >= 0
            if not inside.any():  # smaller than a cell
                inside[int(np.argmax(down)), int(np.argmax(across))] = True
            grid[:] = np.maximum(grid, inside * score * (0.9 + 0.1 * np.clip(middle, 0, 1)))
    return maps


def place_all(
    part: pd.DataFrame, marks: Sequence[np.ndarray], size: tuple[int, int], way: str
) -> pd.DataFrame:
    """Return boxes in pixels of their pictures: path, left, top, right, bottom, score."""
    rows = []
    for row, own in zip(part.itertuples(index=False), marks, strict=True):
        placed = place_marks(own, (int(row.height), int(row.width)), size, way)
        rows += [(row.path, *mark) for mark in placed.round(4)]
    return pd.DataFrame(rows, columns=["path", "left", "top", "right", "bottom", "score"])


class DetectorLocalizer:
    """A trained detector of a study: pictures in, boxes from its threshold on out, as of a `Localizer`."""

    def __init__(self, file: Path, record: dict[str, Any], way: str) -> None:
        if importlib.util.find_spec("keras_hub") is None:
            raise InputError(f"{file.parent.name}/{file.name} needs KerasHub: run `make hub`.")
        import keras_hub  # noqa: F401  its classes are registered

        self._detector = Detector(load_model(file), record["size"], record["scale"], record["offset"])
        self._threshold, self._way, self.size = record["threshold"], way, tuple(record["size"])

    def find(self, pixels: np.ndarray, shapes: Sequence[tuple[int, int]]) -> list[np.ndarray]:
        """See `localizer.Localizer.find`; `pixels` may have another size than the detector's input."""
        import cv2

        resized = np.stack([cv2.resize(each, self.size[::-1]) for each in np.asarray(pixels)])
        return [
            place_marks(marks[marks[:, 4] >= self._threshold], shape, self.size, self._way)
            for marks, shape in zip(self._detector.find(resized), shapes, strict=True)
        ]
