import contextlib
import io

import numpy as np
import pandas as pd
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from xray_helpers.evaluation.detection import (
    CENTRE,
    Truth,
    average_precision,
    best_threshold,
    evaluate_image_scores,
    evaluate_marks,
    evaluate_masks,
    evaluate_pointing,
    froc_curve,
    judge_marks,
    list_truth,
    sensitivity_at,
)
from xray_helpers.evaluation.marks import find_marks, find_peak, overlap
from xray_helpers.images.annotation_writers import build_coco


def truth_of(*boxes, group=None):
    names = np.array([f"i{number}" for number in range(len(boxes))], object)
    return Truth(
        names,
        names if group is None else np.array(group, object),
        [np.array(b, float).reshape(-1, 4) for b in boxes],
    )


def marks_of(*rows):
    return pd.DataFrame(rows, columns=["path", "left", "top", "right", "bottom", "score"])


# two images with fractures (one, two), one without; by hand:
#   .9 on i0 hits it with IoU 1; .8 on i2 is false; .7 on i1 hits the first with IoU .5; .6 on i0 hits again;
#   .5 on i1 hits the second by its centre only (IoU .25)
HAND = truth_of([[0, 0, 10, 10]], [[0, 0, 10, 10], [50, 50, 60, 60]], [])
MARKS = marks_of(
    ("i0", 0, 0, 10, 10, 0.9),
    ("i2", 0, 0, 9, 9, 0.8),
    ("i1", 0, 0, 10, 20, 0.7),
    ("i0", 1, 1, 9, 9, 0.6),
    ("i1", 45, 45, 65, 65, 0.5),
)


def test_froc_of_a_case_by_hand():
    judged = judge_marks(MARKS, HAND)
    curve = froc_curve(judged, 3)
    assert np.allclose(curve["false_marks"], [0, 0, 1 / 3, 1 / 3, 1 / 3, 1 / 3])
    assert np.allclose(curve["sensitivity"], [0, 1 / 3, 1 / 3, 2 / 3, 2 / 3, 1])
    assert sensitivity_at(judged, np.ones(3), [0.2, 0.5]).tolist() == [pytest.approx(1 / 3), 1]
    assert best_threshold(judged, 3) == 0.5  # F1: 2/4, 2/5, 4/6, 4/6, 6/7
    assert best_threshold(judge_marks(MARKS.head(3), HAND, "IoU 0.5"), 3) == 0.7
    assert best_threshold(judge_marks(MARKS.head(4), HAND), 3) == 0.6  # F1 is the same from .7 on
    assert best_threshold(judge_marks(MARKS.head(2), HAND), 3) == pytest.approx(0.85)  # midway
    assert best_threshold(judge_marks(MARKS.head(0), HAND), 3) == 1
    strict = judge_marks(MARKS, HAND, "IoU 0.5")
    assert sensitivity_at(strict, np.ones(3), [2])[0] == pytest.approx(2 / 3)
    assert sensitivity_at(judge_marks(MARKS, HAND, "IoU 0.1"), np.ones(3), [2])[0] == 1
    # the first image twice, the second never: one fracture, twice
    assert sensitivity_at(judged, np.array([2.0, 0, 1]), [0])[0] == 1


def test_average_precision_of_a_case_by_hand():
    # at IoU .5: true, false, true, false, false; recalls 1/3 and 2/3 at precisions 1 and 2/3
    expected = (34 * 1 + 33 * 2 / 3) / 101  # recalls 0 to .33, .34 to .66, none above
    assert average_precision(judge_marks(MARKS, HAND, 0.5), np.ones(3)) == pytest.approx(expected, abs=1e-9)


def test_equal_scores_are_one_point_of_the_curve():
    marks = marks_of(("i0", 0, 0, 10, 10, 0.5), ("i2", 0, 0, 9, 9, 0.5))
    curve = froc_curve(judge_marks(marks, HAND), 3)
    assert curve["false_marks"].tolist() == [0, pytest.approx(1 / 3)]
    assert sensitivity_at(judge_marks(marks, HAND), np.ones(3), [0.1])[0] == 0


def random_case(seed, images=25):
    rng = np.random.default_rng(seed)

    def boxes(n):
        corner, side = rng.uniform(0, 150, (n, 2)), rng.uniform(10, 50, (n, 2))
        return np.concatenate([corner, corner + side], axis=1).round(2)

    truth = truth_of(*[boxes(rng.integers(0, 4)) for _ in range(images)])
    rows = []
    for path, own in zip(truth.path, truth.boxes, strict=True):
        near = own + rng.normal(0, 5, own.shape)
        near[:, 2:] = np.maximum(near[:, 2:], near[:, :2] + 1)
        for box in np.concatenate([near, near[:1] + 1, boxes(rng.integers(0, 4))]).round(2):
            rows.append((path, *box, round(rng.uniform(), 1 if seed == 2 else 6)))
    return truth, marks_of(*rows)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_average_precision_and_hits_agree_with_pycocotools(seed):
    truth, marks = random_case(seed)
    pictures = pd.DataFrame({"path": truth.path, "width": 250, "height": 250})
    known = pd.concat(
        [
            pd.DataFrame(own, columns=["left", "top", "right", "bottom"]).assign(path=path)
            for path, own in zip(truth.path, truth.boxes, strict=True)
        ]
    )
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = build_coco(pictures, known)
        coco.createIndex()
        found = coco.loadRes([a for a in build_coco(pictures, marks)["annotations"]])
        judge = COCOeval(coco, found, "bbox")
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    every = np.ones(len(truth.path))
    ours = [average_precision(judge_marks(marks, truth, at), every) for at in np.linspace(0.5, 0.95, 10)]
    assert ours[0] == pytest.approx(judge.stats[1], abs=1e-6)
    assert np.mean(ours) == pytest.approx(judge.stats[0], abs=1e-6)
    # the end of the FROC curve is COCO's recall with all marks, of which each hits at most one fracture
    judged = judge_marks(marks, truth, "IoU 0.5")
    assert froc_curve(judged, len(every))["sensitivity"].iloc[-1] == pytest.approx(
        judge.eval["recall"][0, 0, 0, 2], abs=1e-6
    )
    false = (judged.hit < 0) & ~judged.again
    for number in range(1, len(judged.score), 7):  # FROC, point by point, by counting
        threshold = judged.score[number]
        at = froc_curve(judged, len(every)).set_index("threshold").loc[threshold]
        assert at["false_marks"] == pytest.approx(
            false[judged.score >= threshold].sum() / len(every), abs=1e-9
        )


def test_intervals_resample_groups_and_are_absent_where_there_are_few():
    truth, marks = random_case(5, images=60)
    alone = evaluate_marks(marks, truth)
    assert (alone["n"], alone["n_groups"]) == (60, 60)
    entry = alone["rules"][CENTRE]["at_1"]
    assert entry["ci_low"] < entry["value"] < entry["ci_high"]
    assert evaluate_marks(marks, truth) == alone
    pairs = evaluate_marks(marks, truth._replace(group=np.repeat(np.arange(15), 4)))
    few = evaluate_marks(marks, truth._replace(group=np.repeat(np.arange(5), 12)))
    assert pairs["ap50"]["value"] == few["ap50"]["value"] == alone["ap50"]["value"]
    assert few["ap50"]["ci_low"] is None
    none = evaluate_marks(marks.head(0), truth_of([], []))
    assert none["ap50"]["value"] is None
    assert evaluate_marks(marks.head(0), truth)["rules"][CENTRE]["at_1"]["value"] == 0


def test_images_with_a_fracture_but_no_box_are_left_out():
    part = pd.DataFrame({"path": list("abc"), "group": list("abc"), "y_true": [1, 1, 0]})
    truth = list_truth(part, [np.array([[1.0, 2, 3, 4]]), np.zeros((0, 4)), np.zeros((0, 4))])
    assert truth.path.tolist() == ["a", "c"]
    assert [len(own) for own in truth.boxes] == [1, 0]


def test_pointing_masks_and_scores_of_images():
    pointing = evaluate_pointing({"i0": (5, 5), "i1": (30, 30), "i2": (1, 1)}, HAND)
    assert (pointing["value"], pointing["n"]) == (0.5, 2)
    assert evaluate_pointing({"i0": None}, HAND)["value"] == 0
    found, known = np.zeros((4, 4), bool), np.zeros((4, 4), bool)
    found[:2], known[1:3] = True, True
    scores = evaluate_masks([(found, known), (known, known)], ["a", "b"])
    assert scores["dice"]["value"] == pytest.approx(0.75)
    assert scores["iou"]["value"] == pytest.approx((1 / 3 + 1) / 2)
    table = pd.DataFrame({"y_true": [0, 1, 0, 1], "y_prob": [0.1, 0.9, 0.4, 0.3], "group": list("abcd")})
    assert evaluate_image_scores(table)["value"] == 0.75


def test_marks_of_a_map_lie_around_its_peaks():
    grid = np.zeros((28, 28), np.float32)
    grid[4:8, 10:16], grid[20:23, 3:6] = 0.8, 0.4
    marks = find_marks(grid, (224, 112))
    assert marks[:, 4].tolist() == pytest.approx([0.8, 0.4], abs=0.01)
    assert overlap(marks[:1, :4], [[40, 32, 64, 64]])[0, 0] > 0.8
    assert overlap(marks[1:, :4], [[12, 160, 24, 184]])[0, 0] > 0.7
    assert find_peak(grid, (224, 112)) == (42, 36)
    assert find_peak(np.ones((3, 3)), (9, 9)) is None
    assert find_marks(np.zeros((7, 7)), (9, 9)).shape == (0, 5)
