import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from xray_helpers.evaluation.decision_curve import compute_decision_curve
from xray_helpers.plots import calibration, images, intervals, scores, style


@pytest.fixture(autouse=True)
def _theme():
    style.set_theme()
    yield
    plt.close("all")


def title(ax):
    return ax.get_title(loc="left")


def test_reliability_shows_both_scalings_and_the_diagonal():
    part = pd.DataFrame(
        {
            "mean_probability": [0.2, 0.8],
            "fractured": [0.3, 0.7],
            "ci_low": [0.1, 0.5],
            "ci_high": [0.5, 0.9],
            "n": [10, 12],
        }
    )
    table = pd.concat([part.assign(scaling="before"), part.assign(scaling="after")])
    ax = calibration.plot_reliability(table, model="VGG16")
    assert {text.get_text() for text in ax.get_legend().get_texts()} == {
        "perfect",
        "before scaling",
        "after scaling",
    }
    assert "n = 22" in title(ax)


def test_decision_curve_has_its_two_references():
    curve = compute_decision_curve(pd.DataFrame({"y_true": [1, 0, 1, 0], "y_prob": [0.9, 0.2, 0.6, 0.4]}))
    ax = calibration.plot_decision_curve(curve, model="VGG16", n=4, threshold=0.5)
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    assert labels == ["treat all", "treat none", "VGG16", "operating threshold 0.50"]
    assert list(ax.lines[2].get_ydata()) == curve["model"].tolist()


def test_a_forest_shows_what_is_known_of_one_class():
    rows = [
        {
            "column": "all",
            "value": "all images",
            "n": 9,
            "n_groups": 8,
            "auroc": 0.8,
            "auroc_low": 0.6,
            "auroc_high": 0.9,
        },
        {
            "column": "part",
            "value": "a$b",
            "n": 4,
            "n_groups": 4,
            "auroc": None,
            "auroc_low": None,
            "auroc_high": None,
            "auroc_reason": "one class only",
            "recall": 0.5,
            "recall_low": 0.1,
            "recall_high": 0.9,
        },
    ]
    ax = intervals.plot_forest(pd.DataFrame(rows))
    assert [t.get_text() for t in ax.get_yticklabels()] == [
        "all images  (n = 9 in 8)",
        "part = a\\$b  (n = 4 in 4)",
    ]
    assert ax.texts[0].get_text() == "one class; recall (sensitivity) 0.50 (0.10 to 0.90)"


def test_bars_join_neighbours_that_no_test_tells_apart():
    table = pd.DataFrame(
        {
            "model": ["A", "B", "C", "D"],
            "auroc": [0.9, 0.85, 0.8, 0.6],
            "auroc_low": [0.8, 0.8, 0.7, 0.5],
            "auroc_high": [0.95, 0.9, 0.9, 0.7],
            "n": 50,
            "n_groups": 20,
        }
    )
    p = {
        ("A", "B"): 0.4,
        ("A", "C"): 0.03,
        ("B", "C"): 0.6,
        ("A", "D"): 0.01,
        ("B", "D"): 0.01,
        ("C", "D"): 0.02,
    }
    pairs = pd.DataFrame([{"first": a, "second": b, "p_holm": value} for (a, b), value in p.items()])
    ax = intervals.plot_ranking(table, pairs)
    bars = [line.get_ydata() for line in ax.lines if line.get_linewidth() == 4]
    assert [tuple(np.round(bar, 2)) for bar in bars] == [(-0.15, 1.15), (0.85, 2.15)]
    assert "n = 50 images in 20 groups" in title(ax)


def test_cost_and_spread_name_what_they_show():
    table = pd.DataFrame({"model": ["A"], "auroc": [0.9], "auroc_low": [0.8], "auroc_high": [0.95]})
    costs = pd.DataFrame(
        {"model": ["A"], "latency_ms": [12.0], "parameters": [2_000_000], "training_seconds": [3.0]}
    )
    legend = scores.plot_cost(table, costs).get_legend()
    assert [text.get_text() for text in legend.get_texts()] == ["A, 2 M parameters"]
    spread = pd.DataFrame(
        {
            "source": ["this split", "other seeds"],
            "auroc": [0.8, 0.81],
            "low": [0.7, 0.8],
            "high": [0.9, 0.82],
            "runs": [1, 3],
        }
    )
    ax = intervals.plot_spread(spread, model="A")
    assert [t.get_text() for t in ax.get_yticklabels()] == ["this split", "other seeds (3)"]


def test_curves_of_parts_carry_area_and_number():
    table = pd.DataFrame({"y_true": [1, 0, 1, 0], "y_prob": [0.9, 0.2, 0.3, 0.4]})
    parts = {"test": table, "validation": table[table["y_true"] == 1]}
    ax = calibration.plot_roc_parts(parts, model="VGG16")
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["chance", "test, n = 4: 0.75"]


def test_maps_of_the_control_stand_side_by_side_and_empty_ones_are_named():
    pictures, full = [np.full((8, 8), 90, np.uint8)] * 2, np.array([[0, 2.0], [4, 1]])
    maps = {"Grad-CAM": [full, full * 9], "all layers permuted": [np.zeros((2, 2)), full]}
    axes = images.plot_controls(pictures, maps, ["one", "other"], title="maps").axes
    assert [ax.get_title() for ax in axes] == ["the picture", *maps, "", "", ""]
    assert [ax.get_xlabel() for ax in axes] == ["one", "", "empty", "other", "", ""]
    assert [len(ax.images) for ax in axes] == [1, 2, 2, 1, 2, 2]
    heats = [axes[i].images[1].get_array() for i in (1, 4)]
    assert np.allclose(*heats)  # each in proportion to its own largest value
