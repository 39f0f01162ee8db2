import numpy as np
import pandas as pd
import pytest

from xray_helpers.evaluation.decision_curve import compute_decision_curve
from xray_helpers.plots import calibration, curves

PREDICTIONS = pd.DataFrame({"y_true": [1, 0, 1, 0], "y_prob": [0.9, 0.2, 0.3, 0.4]})


def legend(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def test_roc_marks_the_operating_point_and_chance():
    ax = curves.plot_roc(PREDICTIONS, model="VGG16", threshold=0.35, rule="Youden on validation")
    lines = {line.get_label(): line for line in ax.lines}
    assert list(lines) == ["chance", "VGG16", "threshold 0.35:\nYouden\non validation"]
    assert lines["threshold 0.35:\nYouden\non validation"].get_xydata().tolist() == [[0.5, 0.5]]
    assert ax.get_title(loc="left") == "VGG16: ROC, test, n = 4"
    rule = "sensitivity of 0.95 on validation, which may not be reached elsewhere: 0.96 (0.82 to 0.99) there"
    ax = curves.plot_roc(PREDICTIONS, model="VGG16", threshold=0.35, rule=rule)
    assert legend(ax)[-1] == "threshold 0.35:\nsensitivity of 0.95\non validation"


def test_roc_of_one_class_shows_chance_alone():
    ax = curves.plot_roc(PREDICTIONS[PREDICTIONS["y_true"] == 1], model="VGG16", threshold=0.5)
    assert legend(ax) == ["chance"]


def test_roc_of_parts_shows_area_and_number_of_images():
    parts = {"test": PREDICTIONS, "validation": PREDICTIONS[PREDICTIONS["y_true"] == 1]}
    assert legend(curves.plot_roc_parts(parts, model="VGG16")) == ["chance", "test, n = 4: 0.75"]


def test_roc_of_models_leaves_out_a_model_without_auroc():
    comparison = pd.DataFrame({"model": ["VGG16", "ResNet50"], "auroc": [0.75, None], "n": 4})
    ax = curves.plot_roc_models({"VGG16": PREDICTIONS, "ResNet50": PREDICTIONS}, comparison)
    assert legend(ax) == ["chance", "VGG16: 0.75"]


def test_operating_point_lies_on_all_three_curves():
    roc, pr, rates = curves.plot_operating_points(PREDICTIONS, model="VGG16", threshold=0.25).axes
    assert roc.lines[-1].get_xydata().tolist() == [[0.5, 1.0]]
    assert pr.lines[1].get_xydata() == pytest.approx(np.array([[1.0, 2 / 3]]))
    assert rates.lines[2].get_xdata() == [0.25, 0.25]


@pytest.mark.parametrize("phases", [None, ["head", "fine-tuning", "fine-tuning"]])
def test_history_marks_the_kept_epoch_and_fine_tuning(phases):
    history = pd.DataFrame({"epoch": [1, 2, 3], "loss": [3.0, 2, 1], "val_loss": [3.0, 1, 2]})
    history["best"] = history["epoch"] == 2
    ax = curves.plot_history(history if phases is None else history.assign(phase=phases))
    extra = [] if phases is None else ["fine-tuning"]
    assert legend(ax) == ["train", "validation", "kept: epoch 2", *extra]


def test_reliability_shows_both_scalings_and_the_diagonal():
    part = pd.DataFrame({"mean_probability": [0.2, 0.8], "fractured": [0.3, 0.7], "n": [10, 12]})
    part = part.assign(ci_low=[0.1, 0.5], ci_high=[0.5, 0.9])
    table = pd.concat([part.assign(scaling="before"), part.assign(scaling="after")])
    ax = calibration.plot_reliability(table, model="VGG16")
    assert sorted(legend(ax)) == ["after scaling", "before scaling", "perfect"]
    assert "n = 22" in ax.get_title(loc="left")


def test_decision_curve_has_its_two_references():
    curve = compute_decision_curve(pd.DataFrame({"y_true": [1, 0, 1, 0], "y_prob": [0.9, 0.2, 0.6, 0.4]}))
    ax = calibration.plot_decision_curve(curve, model="VGG16", n=4, threshold=0.5)
    assert legend(ax) == ["treat all", "treat none", "VGG16", "operating threshold 0.50"]
    assert list(ax.lines[2].get_ydata()) == curve["model"].tolist()


def test_band_shows_where_the_model_abstains():
    ax = calibration.plot_band(PREDICTIONS, {"threshold": 0.35, "uncertain": [0.3, 0.4]}, model="VGG16")
    assert "uncertain, 0.30 to 0.40" in legend(ax)
    assert "Fractured, n = 2" in legend(ax)
