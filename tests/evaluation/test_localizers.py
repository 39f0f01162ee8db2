import numpy as np
import pandas as pd
import pytest

from xray_helpers.evaluation.detection import CENTRE, Truth
from xray_helpers.evaluation.localizers import (
    assess_lead,
    build_table,
    choose_cases,
    compare_marks,
    compare_with_classifier,
    evaluate_kinds,
    evaluate_method,
    marks_of,
    measure_masks,
    precision_table,
    rules_table,
    scores_table,
    stack_scores,
)
from xray_helpers.evaluation.verdict import RULED_OUT, SHOWN, UNKNOWN

COLUMNS = ["path", "left", "top", "right", "bottom", "score"]


def build(images=40):
    """Every second image has a fracture, of one of two sizes; returns truth and the rows of a manifest."""
    rows, boxes = [], []
    for number in range(images):
        y, large = number % 2, number % 4 == 1
        boxes.append(np.array([[10.0, 10, 50, 50]] if large else [[60.0, 60, 70, 70]])[:y])
        kind = ("oblique" if large else "hairline") if y else "none"
        rows.append({"path": f"{number}.png", "y_true": y, "kind": kind, "width": 100, "height": 100})
    part = pd.DataFrame(rows)
    part["group"] = part["path"]
    return Truth(part["path"].to_numpy(object), part["group"].to_numpy(object), boxes), part


def marks_on(truth, wanted):
    """Marks on the fractures of these images, and a low false mark on every image."""
    rows = [
        (path, *own[0], 0.9)
        for number, (path, own) in enumerate(zip(truth.path, truth.boxes, strict=True))
        if len(own) and number in wanted
    ]
    rows += [(path, 80, 10, 95, 25, 0.1) for path in truth.path]
    return pd.DataFrame(rows, columns=COLUMNS)


def test_scores_become_one_table_and_texts():
    truth, _ = build()
    every = marks_on(truth, range(40))
    points = {path: (20.0, 20.0) for path in truth.path}
    found = evaluate_method("A", "dense head", every, points, truth)
    assert found["rules"][CENTRE]["at_1"]["value"] == 1
    assert found["pointing"]["value"] == 0.5
    assert found["image_auroc"]["value"] == 1
    table = build_table([found])
    assert table.loc[0, "centre inside at 0.5"] == 1
    assert table.loc[0, "ap50"] == pytest.approx(1)
    assert np.isnan(table.loc[0, "dice"])
    assert scores_table([found])[0]["what"] == "dense head (40 images, 20 fractures)"
    assert rules_table([found])[0]["IoU 0.5"].startswith("1.00")
    assert precision_table([found])[0]["Dice"] == ""
    assert build_table([]).empty


def test_kinds_are_counted_by_size_and_by_columns():
    truth, part = build()
    large = marks_on(truth, range(1, 40, 4))
    kinds = evaluate_kinds(large, truth, part, 0.5, np.array([0.01, 0.01, 0.05, 0.16, 0.16]))
    shares = kinds.set_index(["column", "value"])["recall"]
    assert shares["all", "all fractures"] == 0.5
    assert shares["kind", "oblique"] == 1
    assert shares["kind", "hairline"] == 0
    by_size = shares["box, of the picture"]
    assert by_size.iloc[0] == 0
    assert by_size.iloc[-1] == 1
    assert kinds["n"].tolist()[0] == 20


def test_a_lead_is_shown_ruled_out_or_not_known():
    truth, _ = build()
    every, half, none = (marks_on(truth, wanted) for wanted in (range(40), range(1, 40, 4), ()))
    leads = compare_marks(every, half, truth)
    assert leads[CENTRE]["value"] == 0.5
    assert assess_lead("A", leads).state == SHOWN
    assert assess_lead("A", compare_marks(every, every, truth)).state == RULED_OUT
    one_more = compare_marks(marks_on(truth, (1, 3)), none, truth)
    assert assess_lead("A", one_more).state == UNKNOWN
    assert "may or may not find more fractures than Grad-CAM" in assess_lead("A", one_more).sentence


def test_cases_are_the_best_the_worst_and_random_ones():
    truth, _ = build()
    marks = marks_on(truth, range(1, 40, 4))
    marks.loc[len(marks)] = ["0.png", 1, 1, 9, 9, 0.99]
    cases = choose_cases(marks, truth, 0.5)
    assert cases["kind"].value_counts().to_dict() == {"best": 4, "worst": 4, "random": 4}
    best, worst = (cases[cases["kind"] == kind] for kind in ("best", "worst"))
    assert set(best["words"]) == {"1 of 1 found, 0 false"}
    assert worst["path"].iloc[1] == "0.png"
    assert worst["words"].tolist()[:2] == ["0 of 1 found, 0 false", "no fracture, 1 false"]
    assert marks_of(marks, "0.png", 0.5).tolist() == [[1, 1, 9, 9, 0.99]]


def test_dice_of_masks_counts_images_with_a_fracture_only():
    maps, targets = np.zeros((3, 4, 4)), np.zeros((3, 4, 4))
    targets[0, :2], maps[0, :2] = 1, 0.9
    targets[1, 0, 0], maps[1, 3, 3] = 0.2, 0.9  # smaller than a cell, and missed
    scores = measure_masks(maps, targets, pd.DataFrame({"group": list("abc")}), 0.5)
    assert scores["dice"]["value"] == pytest.approx(0.5)


def test_a_good_map_improves_a_poor_classifier_and_an_equal_one_does_not():
    rng = np.random.default_rng(0)
    y = np.arange(200) % 2
    table = pd.DataFrame({"path": [f"{n}.png" for n in range(200)], "y_true": y})
    table["group"] = table["path"]
    poor = table.assign(y_prob=np.clip(0.5 + 0.05 * y + rng.normal(0, 0.1, 200), 0, 1))
    poor["y_pred"] = (poor["y_prob"] > 0.5).astype(int)
    good = table[["path"]].assign(y_prob=np.clip(0.3 + 0.4 * y + rng.normal(0, 0.1, 200), 0, 1))
    both = lambda first, second: {"validation": first, "test": second}  # noqa: E731
    joint = stack_scores("A", both(poor, poor), both(good, good))
    assert list(joint) == ["A, classifier", "A, localizer", "A, both, stacked"]
    pairs, verdicts = compare_with_classifier(joint)
    assert (pairs["difference"] > 0.2).all()
    assert [verdict.state for verdict in verdicts] == [SHOWN, SHOWN]
    same = poor[["path", "y_prob"]]
    _, verdicts = compare_with_classifier(stack_scores("A", both(poor, poor), both(same, same)))
    assert SHOWN not in [verdict.state for verdict in verdicts]
    one_class = poor.assign(y_true=1)
    nothing = stack_scores("A", both(one_class, poor), both(good, good))
    assert compare_with_classifier(nothing)[1] == []
