import numpy as np
import pandas as pd
from matplotlib.colors import to_hex

from xray_helpers.evaluation.metrics import compute_metrics
from xray_helpers.plots import data, scores, style

PREDICTIONS = pd.DataFrame(
    {"y_true": [1, 1, 1, 0, 0, 0, 0, 1], "y_prob": [0.9, 0.8, 0.3, 0.1, 0.2, 0.6, 0.4, 0.7]}
)
SCORES = compute_metrics(PREDICTIONS["y_true"], PREDICTIONS["y_prob"], 0.5) | {"threshold_rule": "fixed"}


def test_confusion_matrix_names_the_positive_class_and_counts():
    ax = scores.plot_confusion(SCORES, model="VGG16")
    assert [text.get_text() for text in ax.texts] == ["3\n75%", "1\n25%", "1\n25%", "3\n75%"]
    assert "positive class: Fractured" in ax.get_title(loc="left")
    assert [text.get_text() for text in ax.get_yticklabels()] == ["Non-Fractured", "Fractured"]
    assert "3 Fractured found, 1 missed" in ax.get_label()


def test_grids_have_a_panel_per_metric_and_a_matrix_per_model():
    counts = {"n": 8, "threshold": 0.5, "tp": 3, "fp": 1, "tn": 3, "fn": 1}
    table = pd.DataFrame([{"model": model} | counts for model in ("VGG16", "ResNet50")])
    for metric in ("accuracy", "precision", "recall", "f1"):
        table[[metric, f"{metric}_low", f"{metric}_high"]] = 0.5, 0.4, 0.6
    grid = scores.plot_evaluation_grid(table, baseline=0.5)
    assert [ax.get_title(loc="left").split(",")[0] for ax in grid.axes] == [
        "Accuracy",
        "Precision (PPV)",
        "Recall (sensitivity)",
        "F1",
    ]
    assert sum(ax.has_data() for ax in scores.plot_confusion_grid(table).axes) == 2
    (alone,) = scores.plot_evaluation_grid(table.head(1), baseline=0.5).axes
    names = [text.get_text() for text in alone.get_yticklabels()]
    assert names == ["Accuracy", "Precision (PPV)", "Recall (sensitivity)", "F1"]


def test_no_class_hides_the_other_where_sizes_are_the_same():
    rows = [(224, 224, "Fractured")] * 9 + [(224, 224, "Non-Fractured")] * 3 + [(100, 80, "Fractured")]
    points = data.plot_sizes(pd.DataFrame(rows, columns=["width", "height", "label"])).collections[0]
    assert points.get_offsets().tolist() == [[224, 224], [224, 224], [100, 80]]
    colors = [style.CLASS_COLORS[label] for label in ("Fractured", "Non-Fractured", "Fractured")]
    assert [to_hex(color) for color in points.get_facecolors()] == colors  # the fewer files, the later drawn
    assert points.get_sizes()[0] > points.get_sizes()[1] > points.get_sizes()[2]


def test_one_model_at_a_glance_has_six_panels_and_one_text():
    history = pd.DataFrame({"epoch": [1, 2], "loss": [1.0, 0.5], "accuracy": [0.5, 0.7]})
    history = history.assign(val_loss=1.0, val_accuracy=0.5, best=[False, True])
    figure = scores.plot_evaluation(history, PREDICTIONS, SCORES, model="VGG16", baseline=0.5)
    assert len(figure.axes) == 6
    assert figure.axes[2].get_xlabel().endswith("dotted: accuracy of the majority class: 0.50")
    assert figure.get_label().startswith("Six panels on VGG16")


def test_leakage_is_drawn_with_and_without_shuffled_labels():
    rows = [
        ("kept apart by group", "true", 0.7),
        ("random files", "true", 0.9),
        ("random files", "shuffled", 0.8),
    ]
    table = pd.DataFrame(rows, columns=["split", "labels", "auroc"]).assign(auroc_sd=np.nan, n=200)
    ax = scores.plot_leakage(table, model="VGG16")
    assert [text.get_text() for text in ax.texts] == ["0.70", "0.90", "0.80"]
    assert ax.get_label()


def test_no_line_of_the_leak_ends_above_an_auroc_of_1():
    table = pd.DataFrame(
        {"split": ["files"], "labels": ["true"], "auroc": [0.9], "auroc_sd": [0.25], "n": [9]}
    )
    (line,) = scores.plot_leakage(table, model="VGG16").collections[0].get_segments()
    np.testing.assert_allclose(line[:, 0], [0.65, 1])


def test_cost_names_the_models_and_their_size():
    table = pd.DataFrame({"model": ["A"], "auroc": [0.9], "auroc_low": [0.8], "auroc_high": [0.95]})
    costs = pd.DataFrame({"model": ["A"], "latency_ms": [12.0], "parameters": [2_000_000]})
    ax = scores.plot_cost(table, costs)
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["A, 2 M parameters"]
