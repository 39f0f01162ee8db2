import numpy as np
import pandas as pd
import pytest

from xray_helpers.explain.map_marks import BLOB, mark_saliency
from xray_helpers.explain.maps import build_maps


def test_maps_become_boxes_in_pixels_of_the_padded_picture():
    grid = np.zeros((1, 8, 8), np.float32)
    grid[0, 3:5, 4:6] = 7.0  # of a picture of 200 x 100 pixels, padded to a square of 64
    part = pd.DataFrame({"path": ["a", "b"], "width": 200, "height": 100, "boxes": ["20 10 60 30", None]})
    table = build_maps(["a"], "Grad-CAM", grid, (64, 64))
    found = mark_saliency(table, part, pd.Series({"a": 0.4, "b": 0.9}), part, "pad")
    assert set(found) == {"Grad-CAM", BLOB}
    marks = found["Grad-CAM"].marks
    assert marks["path"].tolist() == ["a"]
    assert marks["score"].iloc[0] == pytest.approx(0.4, abs=0.01)
    corners = marks[["left", "top", "right", "bottom"]].to_numpy(float)[0]
    assert np.abs(corners - [100, 25, 150, 75]).max() <= 13  # half a cell
    x, y = found["Grad-CAM"].points["a"]
    assert 100 <= x <= 150
    assert 25 <= y <= 75
    blob = found[BLOB].marks.iloc[0]
    assert blob[["left", "top", "right", "bottom"]].tolist() == [80, 40, 120, 60]
    assert blob["score"] == 0.4


def test_an_empty_map_points_nowhere():
    part = pd.DataFrame({"path": ["a"], "width": 64, "height": 64, "boxes": ["1 1 9 9"]})
    table = build_maps(["a"], "Grad-CAM", np.zeros((1, 4, 4), np.float32), (64, 64))
    found = mark_saliency(table, part, pd.Series({"a": 0.4}), part, "stretch")["Grad-CAM"]
    assert found.points == {"a": None}
    assert found.marks.empty
