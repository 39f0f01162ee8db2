"""The dense heads of a study: which images teach them, training, and what they find on test."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from xray_helpers.data.parts import used_part
from xray_helpers.evaluation.comparison import choose_primary, compare_models, evaluated_models
from xray_helpers.evaluation.detection import best_threshold, judge_marks, list_truth
from xray_helpers.evaluation.marks import LEVEL
from xray_helpers.evaluation.verdict import Verdict
from xray_helpers.images.annotations import LEFT_OUT, list_boxes
from xray_helpers.images.pixels import load_pixels
from xray_helpers.images.radiographs import ImageFolder
from xray_helpers.models.detector import draw_marks, open_detector, place_all, train_detector
from xray_helpers.models.head import prepare_tensorflow
from xray_helpers.models.inference import ForwardPass, study_backend
from xray_helpers.models.localizer import (
    FILE,
    RECORD,
    Choices,
    build_targets,
    choose_by_validation,
    is_known,
    mark_maps,
    predict_maps,
    save_detector,
    save_localizer,
    train_dense_head,
)
from xray_helpers.models.localizer_features import extract_spatial, open_spatial
from xray_helpers.models.saved import load_model
from xray_helpers.settings import SPLITS, Settings, class_names, number_of
from xray_helpers.study.files import write_csv
from xray_helpers.study.folders import local_path

_FEWEST = 8  # fractured images with boxes in train, and 2 in validation, below which nothing is trained


class Annotated(NamedTuple):
    """The images of a study whose truth is known: with boxes, or without a fracture.

    Attributes
    ----------
    parts : dict
        Split to rows of the manifest; train with its copies.
    text : str
        What is known of how many images, and what is left out, for the first lines of the report.
    usable : bool
        Whether a head can be trained.
    """

    parts: dict[str, pd.DataFrame]
    text: str
    usable: bool


class Located(NamedTuple):
    """What the dense head of a model found.

    Attributes
    ----------
    model : str
    history : DataFrame
        epoch, loss, val_loss, best.
    maps : ndarray of float32, shape (n, rows, columns), 0-1
        Of the test part as it is in `Annotated`.
    targets : ndarray of float32, shape (n, rows, columns), 0-1
    marks : DataFrame
        ``boxes_test.csv``: path, left, top, right, bottom (pixels of the picture), score.
    chosen : Choices
    scores : dict
        validation and test: path, y_prob (the map's largest value) of all images of the part.
    record : dict
        ``localizer.json``.
    """

    model: str
    history: pd.DataFrame
    maps: np.ndarray
    targets: np.ndarray
    marks: pd.DataFrame
    chosen: Choices
    scores: dict[str, pd.DataFrame]
    record: dict[str, Any]


def find_annotated(manifest: pd.DataFrame) -> Annotated:
    """Return the images of each part whose truth is known, and what is to be said of the others."""
    parts, counts = {}, []
    for split in SPLITS:
        part = used_part(manifest, split, copies=split == "train")
        known = is_known(part)
        parts[split] = part[known].reset_index(drop=True)
        counts.append((split, int(parts[split]["y_true"].sum()), int(part["y_true"].sum())))
    boxes = {split: with_box for split, with_box, _ in counts}
    listed = ", ".join(f"{with_box} of {every} in {split}" for split, with_box, every in counts)
    conflicts = manifest["note"].fillna("").str.contains(LEFT_OUT).sum()
    if not sum(boxes.values()):
        text = (
            "**No fracture of this set has a known box, polygon or mask: nothing is trained here, and the "
            "study goes on without.** Annotations in COCO, Pascal VOC or YOLO, masks in a folder `masks`, or "
            "a column `boxes` of the table are found at the next run."
        )
        return Annotated(parts, text, False)
    text = f"Boxes are known of {listed} of the images labelled {class_names()[1]}."
    if any(every > with_box for _, with_box, every in counts):
        text += (
            " Those without a box neither teach nor are judged here: where their fracture is, is not known."
        )
    if conflicts:
        text += (
            f" The annotations of {number_of(conflicts, 'image')} "
            "were left out, as they contradict the picture or its "
            "label: see the column note of `manifest.csv`."
        )
    usable = boxes["train"] >= _FEWEST and boxes["validation"] >= 2 and boxes["test"] >= 1
    if not usable:
        text += (
            f" **That is too few to train on** (at least {_FEWEST} in train, 2 in validation and 1 in test "
            "are needed): the study goes on without."
        )
    return Annotated(parts, text, usable)


def choose_localized(study: Path, settings: Settings, manifest: pd.DataFrame) -> list[str]:
    """Return the evaluated models whose features teach a head: all, or one with ``localizer = primary``.

    That is the model of the primary endpoint, which validation chooses where none is named.

    Raises
    ------
    InputError
        As `comparison.evaluated_models`.
    """
    models = evaluated_models(study, settings.models, manifest)
    if settings.localizer == "primary":
        models = [choose_primary(compare_models(study, models), settings.primary_model)]
        print(f"localizer = primary: a head is trained for {models[0]}, the primary endpoint's model, alone.")
    return models


def localize_models(
    study: Path,
    models: Sequence[str],
    settings: Settings,
    annotated: Annotated,
    manifest: pd.DataFrame,
    folder: ImageFolder,
) -> dict[str, Located]:
    """Return what was found, by the name of the model; without models TensorFlow is not imported.

    With ``localizer = hub:PRESET`` a detector is trained once, and judged beside the first model; see
    `localize_model` for the rest.
    """
    if models:
        prepare_tensorflow(settings)
    place = local_path(study, "localizer", settings.localizer)
    if models and place.startswith("hub:"):
        return {models[0]: detect(study, models[0], place, settings, annotated, manifest, folder)}
    rest = (settings, annotated, manifest, folder)
    return {model: localize_model(study, model, *rest) for model in models}


def localize_model(
    study: Path,
    model: str,
    settings: Settings,
    annotated: Annotated,
    manifest: pd.DataFrame,
    folder: ImageFolder,
) -> Located:
    """Train the dense head of one model and apply it to test.

    Writes ``localizer.keras``, ``localizer.json`` and ``boxes_test.csv`` to the folder of the model.

    Parameters
    ----------
    study : Path
    model : str
    settings : Settings
        Of the study.
    annotated : Annotated
    manifest : DataFrame
    folder : ImageFolder
    """
    place, way, seed = study / model, folder.resize, settings.seed
    backend = study_backend(study, settings, len(manifest))
    trained = load_model(place / "model.keras")
    pictures = sum(map(len, annotated.parts.values())) * (1 + settings.augment_views)
    spatial = open_spatial(trained, backend, folder, pictures, flips=settings.flips)
    forward, started = ForwardPass(spatial.network, backend), time.monotonic()
    views = {"train": settings.augment_views}
    x = {
        split: extract_spatial(spatial, forward, part, folder, views.get(split, 0))
        for split, part in annotated.parts.items()
    }
    size, grid = trained.input_shape[1:3], spatial.shapes[0][:2]
    y = {split: build_targets(part, size, grid, way) for split, part in annotated.parts.items()}
    turned = [
        build_targets(annotated.parts["train"], size, grid, way, view)
        for view in range(settings.augment_views)
    ]
    extracted = time.monotonic()
    train, validation = (x["train"], [y["train"], *turned]), (x["validation"][0], y["validation"])
    head, history = train_dense_head(spatial, train, validation, seed)
    seconds = {"features": round(extracted - started, 1), "training": round(time.monotonic() - extracted, 1)}
    maps = {split: predict_maps(head, spatial, x[split][0]) for split in ("validation", "test")}
    chosen = choose_by_validation(
        annotated.parts["validation"], maps["validation"], y["validation"], size, way
    )
    marks = mark_maps(annotated.parts["test"], maps["test"], size, way, chosen.level)
    scores = {
        split: _score_all(
            used_part(manifest, split), annotated.parts[split], own, head, spatial, forward, folder
        )
        for split, own in maps.items()
    }
    write_csv(place / "boxes_test.csv", marks)
    about = {
        "model": model,
        "size": list(size),
        "epochs": len(history),
        "seconds": seconds,
        "engine": forward.record()["engine"],
    }
    about |= {
        "train_images": len(annotated.parts["train"]),
        "train_with_boxes": int(y["train"].any((1, 2)).sum()),
    }
    record = save_localizer(place, head, spatial, chosen, about)
    cells = " and ".join(" x ".join(map(str, shape[:2])) for shape in spatial.shapes)
    print(
        f"{model}: maps of {grid[0]} x {grid[1]} places from levels of {cells}; features "
        f"{seconds['features']:.0f} s, {len(history)} epochs {seconds['training']:.0f} s"
    )
    return Located(model, history, maps["test"], y["test"], marks, chosen, scores, record)


def _score_all(
    part: pd.DataFrame,
    known: pd.DataFrame,
    maps: np.ndarray,
    head: Any,
    spatial: Any,
    forward: ForwardPass,
    folder: ImageFolder,
) -> pd.DataFrame:
    """Return the largest value of the map of every image of a part, also of those without a known box."""
    others = part[~part["path"].isin(known["path"])]
    found = dict(zip(known["path"], maps.max(axis=(1, 2)), strict=True))
    if len(others):
        more = predict_maps(head, spatial, extract_spatial(spatial, forward, others, folder)[0])
        found |= dict(zip(others["path"], more.max(axis=(1, 2)), strict=True))
    return part[["path"]].assign(y_prob=part["path"].map(found).astype(float))


def detect(
    study: Path,
    model: str,
    place: str,
    settings: Settings,
    annotated: Annotated,
    manifest: pd.DataFrame,
    folder: ImageFolder,
) -> Located:
    """Train a detector of KerasHub and apply it to test; writes the same files as `localize_model`.

    Parameters
    ----------
    study : Path
    model : str
        The model in whose folder it is kept, and beside which it is judged.
    place : str
        ``hub:PRESET`` or ``hub:FOLDER``.
    settings, annotated, manifest, folder
        As of `localize_model`.
    """
    started, way, parts = time.monotonic(), folder.resize, annotated.parts
    detector = open_detector(place.removeprefix("hub:"), settings.img_size)
    history = train_detector(detector, parts, folder, settings.seed)
    wanted = {split: used_part(manifest, split) for split in ("validation", "test")}
    found = {
        split: detector.find(load_pixels(part, folder, detector.size)[:]) for split, part in wanted.items()
    }
    marks = {split: place_all(part, found[split], detector.size, way) for split, part in wanted.items()}
    validation, test = parts["validation"], parts["test"]
    truth = list_truth(validation, list_boxes(validation))
    threshold = best_threshold(judge_marks(marks["validation"], truth), len(truth.path))
    rows = [list(wanted["test"]["path"]).index(path) for path in test["path"]]
    maps = draw_marks([found["test"][row] for row in rows], detector.size)
    chosen = Choices(threshold, LEVEL, threshold)
    own = marks["test"][marks["test"]["path"].isin(test["path"])].reset_index(drop=True)
    write_csv(study / model / "boxes_test.csv", own)
    about = {"model": model, "size": list(detector.size), "epochs": len(history)}
    about |= {"scale": detector.scale.tolist(), "offset": detector.offset.tolist()}
    record = save_detector(study / model, detector.model, chosen, about)
    name = type(detector.model).__name__
    print(f"{name}: {len(history)} epochs, {time.monotonic() - started:.0f} s, judged beside {model}")
    targets = build_targets(test, detector.size, maps.shape[1:], way)
    tops = {split: [max([0.0, *each[:, 4]]) for each in every] for split, every in found.items()}
    scores = {split: part[["path"]].assign(y_prob=tops[split]) for split, part in wanted.items()}
    return Located(model, history, maps, targets, own, chosen, scores, record)


def localizers_record(
    annotated: Annotated, located: Mapping[str, Located], verdicts: Sequence[Verdict]
) -> dict[str, Any]:
    """Return the content of ``localizers.json``: what is known, what was trained, and what follows."""
    return {
        "annotations": annotated.text.replace("**", ""),
        "usable": annotated.usable,
        "models": {model: found.record for model, found in located.items()},
        "verdicts": [{"state": verdict.state, "sentence": verdict.sentence} for verdict in verdicts],
    }


def remove_localizers(study: Path) -> None:
    """Delete what an earlier run of 07 left in the folders of the models."""
    for name in (FILE, RECORD, "boxes_test.csv", "boxes_metrics.json"):
        for path in study.glob(f"*/{name}"):
            path.unlink(missing_ok=True)


def box_shares(part: pd.DataFrame) -> np.ndarray:
    """Return what share of its picture each known box of a part covers, float of shape (boxes,)."""
    rows = zip(list_boxes(part), part["width"], part["height"], strict=True)
    shares = [
        (own[:, 2] - own[:, 0]) * (own[:, 3] - own[:, 1]) / (float(width) * float(height))
        for own, width, height in rows
    ]
    return np.concatenate([np.zeros(0), *shares])
