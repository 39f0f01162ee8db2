import numpy as np
import pandas as pd
import pytest

from xray_helpers.plots.detection import FOUND, plot_froc, plot_marks


def test_froc_curves_are_drawn_as_far_as_four_false_marks():
    rates = {
        "false_marks": [0, 0.5, 2, 9],
        "sensitivity": [0, 0.4, 0.7, 0.9],
        "threshold": [np.inf, 0.9, 0.5, 0.1],
    }
    curves = [("A", "dense head", pd.DataFrame(rates)), ("A", "Grad-CAM", pd.DataFrame(rates))]
    axes = plot_froc(curves, title="FROC, 9 images")
    lines = [line for line in axes.lines if line.get_label().startswith("A")]
    assert [line.get_label() for line in lines] == ["A, dense head", "A, Grad-CAM"]
    assert lines[0].get_xdata().tolist() == [0, 0.5, 2, 4]
    assert lines[0].get_ydata()[-1] == pytest.approx(0.7)
    assert "A, dense head: 0.40" in axes.get_label()


def test_known_and_found_boxes_are_drawn_where_they_are():
    picture = np.zeros((40, 60), np.uint8)
    known, found = [np.array([[5.0, 6, 25, 16]]), np.zeros((0, 4))], [np.array([[7.0, 8, 20, 19, 0.75]]), ()]
    titles = pd.Series(["best", "worst"])
    figure = plot_marks([picture] * 2, known, found, ["hit", "none"], title="Seen", titles=titles)
    first, second = figure.axes[:2]
    drawn = [(*patch.get_xy(), patch.get_width(), patch.get_height()) for patch in first.patches]
    assert drawn == [(5, 6, 20, 10), (7, 8, 13, 11)]
    assert first.texts[0].get_text() == "0.75"
    assert first.texts[0].get_color() == FOUND
    assert not second.patches
    assert "orange: boxes found. best hit; worst none" in figure.get_label()
