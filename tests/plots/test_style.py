import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from xray_helpers.evaluation.metrics import compute_metrics
from xray_helpers.plots import images, scores, style


@pytest.fixture(autouse=True)
def _theme():
    style.set_theme()
    yield
    plt.close("all")


PREDICTIONS = pd.DataFrame(
    {
        "path": list("abcdefgh"),
        "y_true": [1, 1, 1, 0, 0, 0, 0, 1],
        "y_prob": [0.9, 0.8, 0.3, 0.1, 0.2, 0.6, 0.4, 0.7],
    }
)
PREDICTIONS["y_pred"] = (PREDICTIONS["y_prob"] >= 0.5).astype(int)
SCORES = compute_metrics(PREDICTIONS["y_true"], PREDICTIONS["y_prob"], 0.5) | {"threshold_rule": "fixed"}


def test_roc_marks_the_operating_point_and_chance():
    ax = scores.plot_roc(PREDICTIONS, model="VGG16", threshold=0.5)
    lines = {line.get_label(): line for line in ax.lines}
    assert list(lines["threshold 0.50"].get_xydata()[0]) == [0.25, 0.75]
    assert "chance" in lines
    assert "VGG16" in ax.get_title(loc="left")
    assert "n = 8" in ax.get_title(loc="left")


def test_confusion_matrix_names_the_positive_class_and_counts():
    ax = scores.plot_confusion(SCORES, model="VGG16")
    assert [t.get_text().split("\n")[0] for t in ax.texts] == ["3", "1", "1", "3"]
    assert "positive class: Fractured" in ax.get_title(loc="left")
    assert [t.get_text() for t in ax.get_yticklabels()] == ["Non-Fractured", "Fractured"]


def test_sample_predictions_tell_right_from_wrong_in_words_and_colour():
    figure = images.plot_sample_predictions(
        np.zeros((8, 5, 5), np.uint8), PREDICTIONS, model="VGG16", threshold=0.5
    )
    captions = [ax.get_xlabel() for ax in figure.axes]
    assert sum(caption.startswith("WRONG") for caption in captions) == 2
    frames = {ax.get_xlabel().split(":")[0]: ax.spines["left"].get_edgecolor() for ax in figure.axes}
    assert frames["right"] != frames["WRONG"]
    assert figure.axes[0].images[0].get_clim() == (0, 255)


def test_a_file_name_is_no_formula():
    figure = images.plot_radiographs([np.zeros((5, 5), np.uint8)], ["$\\frac{"], title="a $x$ b")
    figure.savefig("/dev/null", format="png")
    assert "\\$" in figure.axes[0].get_xlabel()


def test_one_colour_a_model_everywhere():
    assert (
        len(
            {
                style.model_color(name)
                for name in ("InceptionV3", "ResNet50", "VGG16", "DenseNet121", "MobileNetV2")
            }
        )
        == 5
    )
    assert style.model_color("EfficientNetB0") == style.model_color("EfficientNetB0")


def test_grids_have_a_panel_a_metric_and_a_matrix_a_model():
    rows = [
        {"model": m, "n": 8, "threshold": 0.5, "tp": 3, "fp": 1, "tn": 3, "fn": 1}
        for m in ("VGG16", "ResNet50")
    ]
    for row in rows:
        for metric in ("accuracy", "precision", "recall", "f1"):
            row |= {metric: 0.5, f"{metric}_low": 0.4, f"{metric}_high": 0.6}
    rows[0]["precision"] = None
    table = pd.DataFrame(rows)
    figure = scores.plot_evaluation_grid(table, baseline=0.5)
    assert len(figure.axes) == 4
    assert "not defined for 1" in figure.axes[1].get_title(loc="left")
    assert sum(ax.has_data() for ax in scores.plot_confusion_grid(table).axes) == 2


def test_shown_figures_are_closed_written_and_described(tmp_path):
    image = style.show(scores.plot_roc(PREDICTIONS, model="VGG16", threshold=0.5), tmp_path / "a.png")
    assert image.alt == "VGG16: ROC, test, n = 8, with the operating point at threshold 0.50."
    assert (tmp_path / "a.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert not plt.get_fignums()
