"""The dense heads of a study judged beside the maps of their classifiers, on the same images."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from xray_helpers.evaluation.detection import Truth, froc_curve, judge_marks, list_truth
from xray_helpers.evaluation.localizers import compare_marks, evaluate_method, measure_masks
from xray_helpers.explain.map_marks import mark_grids, mark_saliency
from xray_helpers.images.annotations import list_boxes
from xray_helpers.models.localizer_study import Annotated, Located
from xray_helpers.study.files import read_csv, write_json


class Beside(NamedTuple):
    """What the dense heads and the maps found.

    Attributes
    ----------
    evaluated : list of dict
        Of `localizers.evaluate_method`.
    curves : list of (model, method, DataFrame)
        FROC curves, for `plot_froc`.
    leads : dict
        Model to `localizers.compare_marks` of its dense head and Grad-CAM, on images with a Grad-CAM map.
    truth : Truth
        Of the test part.
    """

    evaluated: list[dict[str, Any]]
    curves: list[tuple[str, str, pd.DataFrame]]
    leads: dict[str, dict[str, dict[str, Any]]]
    truth: Truth


def evaluate_located(
    study: Path, located: Mapping[str, Located], annotated: Annotated, way: str, seed: int = 0
) -> Beside:
    """Judge the dense head of each model on test, and beside Grad-CAM, occlusion and a blob where these are.

    Writes ``boxes_metrics.json`` to the folder of each model.

    Parameters
    ----------
    study : Path
    located : mapping
        Model to what its head found.
    annotated : Annotated
    way : {'stretch', 'pad'}
    seed : int
    """
    test, train = annotated.parts["test"], annotated.parts["train"]
    beside = Beside([], [], {}, list_truth(test, list_boxes(test)))
    for model, found in located.items():
        certain = pd.Series(1.0, test["path"])
        points = mark_grids(test, found.maps, certain, found.record["size"], way).points
        masks = measure_masks(found.maps, found.targets, test, found.chosen.cut)
        kind = found.record["kind"]
        own = [evaluate_method(model, kind, found.marks, points, beside.truth, seed, masks)]
        curves = [(model, kind, _curve(found.marks, beside.truth))]
        probability = read_csv(study / model / "predictions_test.csv").set_index("path")["y_prob"]
        maps = mark_saliency(read_csv(study / model / "maps.csv"), test, probability, train, way)
        for method, each in maps.items():
            same = _restrict(beside.truth, set(each.points))
            if not any(map(len, same.boxes)):
                continue
            if len(same.path) < len(beside.truth.path) and method == "Grad-CAM":
                own.append(
                    evaluate_method(model, f"{kind}, images with maps", found.marks, points, same, seed)
                )
            own.append(evaluate_method(model, method, each.marks, each.points, same, seed))
            if method == "Grad-CAM":
                beside.leads[model] = compare_marks(found.marks, each.marks, same, seed)
            if method != "occlusion":  # of which there are few
                curves.append((model, method, _curve(each.marks, same)))
        write_json(study / model / "boxes_metrics.json", {"methods": own, "lead": beside.leads.get(model)})
        beside.evaluated.extend(own)
        beside.curves.extend(curves if len(located) == 1 else curves[:2])
    return beside


def _curve(marks: pd.DataFrame, truth: Truth) -> pd.DataFrame:
    return froc_curve(judge_marks(marks, truth), len(truth.path))


def _restrict(truth: Truth, paths: set[str]) -> Truth:
    """Return the images of these paths."""
    kept = np.array([path in paths for path in truth.path], bool)
    boxes = [own for own, keep in zip(truth.boxes, kept, strict=True) if keep]
    return Truth(truth.path[kept], truth.group[kept], boxes)
