"""A dense head on spatial features of a frozen backbone, which learns from boxes where fractures are."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import cv2
import numpy as np
import pandas as pd

from xray_helpers.evaluation.detection import average_precision, best_threshold, judge_marks, list_truth
from xray_helpers.evaluation.marks import LEVEL, find_marks
from xray_helpers.images.annotations import list_boxes, list_masks
from xray_helpers.images.geometry import fill_boxes, fit_mask, fit_matrix, map_boxes, place_marks, turn_mask
from xray_helpers.models.detector import DetectorLocalizer
from xray_helpers.models.inference import EXACT
from xray_helpers.models.localizer_features import Spatial, open_spatial
from xray_helpers.models.saved import load_model, save_model
from xray_helpers.study.cache import RowView
from xray_helpers.study.files import read_json, write_json
from xray_helpers.study.records import sha256_of
from xray_helpers.study.seeds import derive_seed

if TYPE_CHECKING:
    import keras
DENSE, DETECTOR = "dense head", "detector"
FILE, RECORD = "localizer.keras", "localizer.json"
_CHANNELS, _EPOCHS, _PATIENCE, _BATCH = 48, 40, 6, 16
_RARE = 0.02  # share of fracture with which the head starts
_LEVELS = (0.3, 0.4, 0.5, 0.6, 0.7)  # of `find_marks`, of which validation chooses
_CUTS = tuple(np.round(np.arange(0.1, 0.95, 0.1), 1))  # of a map that make a mask, likewise


class Choices(NamedTuple):
    """What validation chose.

    Attributes
    ----------
    threshold : float
        A box is shown from this score on.
    level : float
        Share of a peak that belongs to its box; see `marks.find_marks`.
    cut : float
        A cell belongs to the mask from this value on.
    """

    threshold: float
    level: float
    cut: float


def is_known(part: pd.DataFrame) -> np.ndarray:
    """Return which images teach: those with boxes, and those without a fracture; bool, shape (n,)."""
    boxes = list_boxes(part)
    return np.array([len(own) > 0 or y == 0 for own, y in zip(boxes, part["y_true"], strict=True)], bool)


def build_targets(
    part: pd.DataFrame, size: tuple[int, int], grid: tuple[int, int], way: str, view: int | None = None
) -> np.ndarray:
    """Return what share of each cell is fracture, by masks where they are known, else by boxes.

    Parameters
    ----------
    part : DataFrame
        Rows of the manifest, with y_true.
    size, grid : (int, int)
        Height and width of the input, and rows and columns of the map.
    way : {'stretch', 'pad'}
    view : int, optional
        Of the augmented view that the features are of.

    Returns
    -------
    ndarray of float32, shape (n, rows, columns), 0-1
    """
    targets = np.zeros((len(part), *grid), np.float32)
    rows = zip(part.to_dict("records"), list_boxes(part), list_masks(part), strict=True)
    for target, (row, boxes, mask) in zip(targets, rows, strict=True):
        if not row["y_true"] or not (len(boxes) or mask is not None):
            continue
        shape = (int(row["height"]), int(row["width"]))
        if mask is None:
            filled = fill_boxes(map_boxes(boxes, fit_matrix(shape, size, way), size), size)
        else:
            filled = fit_mask(mask, size, way)
        filled = filled if view is None else turn_mask(filled, row["sha256"], view)
        target[:] = cv2.resize(filled, grid[::-1], interpolation=cv2.INTER_AREA)
    return targets


def build_dense_head(spatial: Spatial, sample: np.ndarray, seed: int) -> "keras.Model":
    """Build and compile the dense head.

    Each level is standardised, brought to the same number of channels and to the finest resolution; two
    convolutions look at their sum.

    Parameters
    ----------
    spatial : Spatial
    sample : ndarray, shape (n, d)
        Features of train, by which channels are standardised.
    seed : int
    """
    import keras

    keras.utils.set_random_seed(derive_seed(seed, "localizer"))
    layers, ops = keras.layers, keras.ops
    inputs, found = [], []
    for number, (shape, level) in enumerate(zip(spatial.shapes, spatial.split(sample), strict=True)):
        inputs.append(keras.Input(shape, name=f"level_{number}"))
        scaled = layers.Normalization(
            mean=level.mean(axis=(0, 1, 2)), variance=level.var(axis=(0, 1, 2)) + 1e-4, name=f"scale_{number}"
        )(inputs[-1])
        narrow = layers.Conv2D(_CHANNELS, 1, activation="relu", name=f"lateral_{number}")(scaled)
        if shape[:2] != spatial.shapes[0][:2]:
            narrow = ops.image.resize(narrow, spatial.shapes[0][:2], interpolation="bilinear")
        found.append(narrow)
    fused = layers.Add(name="fused")(found) if len(found) > 1 else found[0]
    fused = layers.SpatialDropout2D(0.1, name="dropout")(fused)
    for number in range(2):
        fused = layers.Conv2D(_CHANNELS, 3, padding="same", activation="relu", name=f"convolution_{number}")(
            fused
        )
    bias = keras.initializers.Constant(float(np.log(_RARE / (1 - _RARE))))
    out = layers.Conv2D(1, 1, activation="sigmoid", bias_initializer=bias, name="heat_map")(fused)
    head = keras.Model(inputs, out, name="localizer")
    head.compile(keras.optimizers.Adam(2e-3), loss=_rare_loss, jit_compile=False)
    return head


def _rare_loss(y_true: Any, y_pred: Any) -> Any:
    """Return focal loss (Lin et al. 2017), by the share of fracture, plus Dice loss (Milletari et al. 2016).

    Both weigh the few cells with a fracture against the many without.
    """
    from keras import ops

    p = ops.clip(y_pred, 1e-6, 1 - 1e-6)
    weight = (1 - p) ** 2 * y_true * 4 + p**2 * (1 - y_true)
    cross = -(y_true * ops.log(p) + (1 - y_true) * ops.log(1 - p))
    focal = ops.mean(ops.sum(weight * cross, axis=(1, 2, 3))) / 10
    common, both = ops.sum(p * y_true), ops.sum(p) + ops.sum(y_true)
    return focal + 1 - (2 * common + 1) / (both + 1)


def train_dense_head(
    spatial: Spatial,
    train: tuple[Sequence[RowView], Sequence[np.ndarray]],
    validation: tuple[RowView, np.ndarray],
    seed: int,
) -> tuple["keras.Model", pd.DataFrame]:
    """Train the dense head; the learning rate, early stopping and the epoch kept look at validation.

    Parameters
    ----------
    spatial : Spatial
    train : (views, targets)
        Features (n, d) and targets (n, rows, columns) of the images as they are, then of each augmented view.
    validation : (features, targets)
    seed : int

    Returns
    -------
    head : keras.Model
    history : DataFrame
        epoch, loss, val_loss, best.
    """
    import keras

    views, targets = train
    rng = np.random.default_rng([seed, 7])
    sample = np.sort(rng.choice(len(views[0]), min(len(views[0]), 128), replace=False))
    head = build_dense_head(spatial, views[0][sample], seed)
    rules = [
        keras.callbacks.EarlyStopping("val_loss", patience=_PATIENCE, restore_best_weights=True),
        keras.callbacks.ReduceLROnPlateau("val_loss", factor=0.5, patience=_PATIENCE // 2, min_lr=1e-5),
    ]
    batches = _build_batches(spatial, views, targets, rng)
    watched = _build_batches(spatial, [validation[0]], [validation[1]])
    head.fit(batches, validation_data=watched, epochs=_EPOCHS, callbacks=rules, verbose=0)
    history = pd.DataFrame(head.history.history)[["loss", "val_loss"]].astype(float)
    history.insert(0, "epoch", np.arange(1, len(history) + 1))
    return head, history.assign(best=np.arange(len(history)) == history["val_loss"].argmin())


def _build_batches(
    spatial: Spatial,
    views: Sequence[RowView],
    targets: Sequence[np.ndarray],
    rng: np.random.Generator | None = None,
) -> "keras.utils.PyDataset":
    import keras

    class Batches(keras.utils.PyDataset):
        """Batches in order, or in an order and of views that are drawn before each epoch."""

        def __init__(self) -> None:
            super().__init__(workers=1, use_multiprocessing=False)
            self.order, self.view = np.arange(len(views[0])), 0
            self.on_epoch_end()

        def __len__(self) -> int:
            return int(np.ceil(len(self.order) / _BATCH))

        def __getitem__(self, index: int) -> tuple[tuple[np.ndarray, ...], np.ndarray]:
            rows = np.sort(self.order[index * _BATCH : (index + 1) * _BATCH])
            own = views[self.view][rows], targets[self.view][rows]
            return tuple(spatial.split(own[0])), own[1][..., None]

        def on_epoch_end(self) -> None:
            if rng is not None:
                self.order, self.view = rng.permutation(len(views[0])), int(rng.integers(len(views)))

    return Batches()


def predict_maps(head: "keras.Model", spatial: Spatial, features: RowView | np.ndarray) -> np.ndarray:
    """Return heat maps, float32 of shape (n, rows, columns), 0-1, from features of shape (n, d)."""
    maps = [np.zeros((0, *spatial.shapes[0][:2]), np.float32)]
    for start in range(0, len(features), _BATCH):
        levels = spatial.split(np.asarray(features[start : start + _BATCH]))
        maps.append(np.asarray(head(levels, training=False))[..., 0])
    return np.concatenate(maps)


def mark_maps(
    part: pd.DataFrame, maps: np.ndarray, size: tuple[int, int], way: str, level: float = LEVEL
) -> pd.DataFrame:
    """Return the boxes of heat maps in pixels of their pictures: path, left, top, right, bottom, score."""
    rows = []
    for row, grid in zip(part.itertuples(index=False), maps, strict=True):
        shape = (int(row.height), int(row.width))
        found = place_marks(find_marks(grid, size, level), shape, size, way)
        rows += [(row.path, *mark) for mark in found.round(4)]
    return pd.DataFrame(rows, columns=["path", "left", "top", "right", "bottom", "score"])


def choose_by_validation(
    part: pd.DataFrame, maps: np.ndarray, targets: np.ndarray, size: tuple[int, int], way: str
) -> Choices:
    """Choose how maps become boxes and masks: by average precision at an IoU of 0.3, by F1, and by Dice.

    Parameters
    ----------
    part : DataFrame
        The validation part.
    maps, targets : ndarray of float, shape (n, rows, columns)
    size, way
        As of `build_targets`.
    """
    truth = list_truth(part, list_boxes(part))
    every, best = np.ones(len(truth.path)), (-1.0, LEVEL, None)
    for level in sorted(_LEVELS, key=lambda each: abs(each - LEVEL)):
        marks = mark_maps(part, maps, size, way, level)
        value = average_precision(judge_marks(marks, truth, 0.3), every)
        if value > best[0] + 1e-9 or best[2] is None:
            best = (value, level, marks)
    threshold = best_threshold(judge_marks(best[2], truth), len(every))
    known = targets > 0.5
    dice = [2 * ((maps >= cut) & known).sum() / max((maps >= cut).sum() + known.sum(), 1) for cut in _CUTS]
    return Choices(threshold, best[1], float(_CUTS[int(np.argmax(dice))]))


def save_localizer(
    folder: Path, head: "keras.Model", spatial: Spatial, chosen: Choices, about: dict[str, Any]
) -> dict[str, Any]:
    """Write ``localizer.keras`` and ``localizer.json`` beside the ``model.keras`` that they stand on."""
    layers = {"layers": list(spatial.layers), "shapes": [list(shape) for shape in spatial.shapes]}
    return _save(folder, head, {"kind": DENSE} | layers | chosen._asdict() | about)


def save_detector(
    folder: Path, model: "keras.Model", chosen: Choices, about: dict[str, Any]
) -> dict[str, Any]:
    """Write a detector as ``localizer.keras``, and its ``localizer.json``."""
    return _save(folder, model, {"kind": DETECTOR} | chosen._asdict() | about)


def _save(folder: Path, model: "keras.Model", record: dict[str, Any]) -> dict[str, Any]:
    path = save_model(model, folder / FILE)
    record |= {"model_sha256": sha256_of(folder / "model.keras"), "localizer_sha256": sha256_of(path)}
    write_json(folder / RECORD, record)
    return record


class Localizer:
    """A trained dense head with the model that it stands on: pictures in, heat maps and boxes out.

    Attributes
    ----------
    chosen : Choices
    size : (int, int)
        Height and width of the input.
    """

    def __init__(
        self, folder: Path, model: "keras.Model", *, flips: bool = False, way: str = "stretch"
    ) -> None:
        from xray_helpers.images.radiographs import image_folder

        record = read_json(folder / RECORD)
        self.chosen = Choices(*(float(record[name]) for name in Choices._fields))
        self.size, self._way = model.input_shape[1:3], way
        layers = tuple(record["layers"])
        self._spatial = open_spatial(model, EXACT, image_folder(folder), layers=layers, flips=flips)
        self._head = load_model(folder / FILE)

    def map(self, pixels: np.ndarray) -> np.ndarray:
        """Return heat maps (n, rows, columns) of pictures (n, height, width), uint8, at the input's size."""
        rows = self._spatial.network(np.asarray(pixels, np.float32)[..., None], training=False)
        return predict_maps(self._head, self._spatial, np.asarray(rows).astype(np.float16))

    def find(self, pixels: np.ndarray, shapes: Sequence[tuple[int, int]]) -> list[np.ndarray]:
        """Return the boxes of pictures that reach the threshold.

        Parameters
        ----------
        pixels : ndarray of uint8, shape (n, height, width), 0-255
            At the input's size.
        shapes : sequence of (int, int)
            Height and width of each picture itself, in whose pixels the boxes are.

        Returns
        -------
        list of ndarray of float, shape (k, 5)
            left, top, right, bottom, score.
        """
        found = []
        for grid, shape in zip(self.map(pixels), shapes, strict=True):
            marks = find_marks(grid, self.size, self.chosen.level)
            marks = marks[marks[:, 4] >= self.chosen.threshold]
            found.append(place_marks(marks, shape, self.size, self._way))
        return found


def open_localizer(
    folder: Path, model: "keras.Model", *, flips: bool = False, way: str = "stretch"
) -> Localizer | DetectorLocalizer | None:
    """Return the localizer of a model's folder; None where there is none that stands on the model there now.

    Parameters
    ----------
    folder : Path
    model : keras.Model
        ``model.keras`` of the folder.
    flips : bool
        Whether the model sees mirror images too.
    way : {'stretch', 'pad'}
        How pictures are brought to the size of the input.
    """
    record = read_json(folder / RECORD, default={})
    fits = record.get("kind") in (DENSE, DETECTOR) and (folder / FILE).exists()
    if not fits or record.get("model_sha256") != sha256_of(folder / "model.keras"):
        return None
    if record["kind"] == DETECTOR:
        return DetectorLocalizer(folder / FILE, record, way)
    return Localizer(folder, model, flips=flips, way=way)
