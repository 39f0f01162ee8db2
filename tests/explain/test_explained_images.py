"""Which images are explained and shown, and all maps of a model."""

import numpy as np
import pandas as pd
import pytest

from xray_helpers.explain.gradcam import GradCam
from xray_helpers.explain.images import choose_controls, choose_examples, choose_images, explain_images
from xray_helpers.explain.maps import build_maps, read_maps


def test_half_of_the_chosen_images_are_fractured_where_possible():
    part = pd.DataFrame({"path": range(20), "y_true": [1] * 4 + [0] * 16})
    chosen = choose_images(part, 10, seed=1)
    assert chosen["y_true"].sum() == 4
    assert choose_images(part, 6, seed=1)["y_true"].sum() == 3
    assert choose_images(part, 10, seed=1)["path"].tolist() == chosen["path"].tolist()
    assert choose_images(part, 0, seed=1).empty


def test_control_images_have_all_four_maps():
    grid = np.ones((3, 2, 2), np.float32)
    made = {"Grad-CAM": "abc", "occlusion": "ab", "permuted: the head": "bc", "permuted: all layers": "bc"}
    parts = [
        build_maps(list(paths), name, grid[: len(paths)] * i, (9, 9))
        for i, (name, paths) in enumerate(made.items())
    ]
    test = pd.DataFrame({"path": list("abc"), "group": list("pqr"), "y_true": [1, 0, 1]})
    rows, maps = choose_controls(test, pd.concat(parts))
    assert rows["path"].tolist() == ["b"]
    assert [grids[0].max() for grids in maps.values()] == [0, 1, 2, 3]
    rows, maps = choose_controls(test, pd.concat(parts).query("method == 'Grad-CAM'"))  # of an older study
    assert rows.empty


def test_examples_are_one_per_group_and_of_both_classes():
    test = pd.DataFrame({"path": list("abcdef"), "group": list("ppqrst"), "y_true": [1, 1, 1, 0, 0, 0]})
    shown = choose_examples(test, dict.fromkeys("abcdef"), 4)
    assert shown["path"].tolist() == ["a", "d", "c", "e"]


@pytest.mark.slow
def test_all_kinds_of_maps_are_in_the_table_and_grad_cam_is_read_by_default(model):
    pictures = np.random.default_rng(1).integers(0, 255, (12, 16, 16), np.uint8)
    part = pd.DataFrame({"path": list("abcdefghijkl"), "group": range(12)})
    maps, sanity = explain_images(
        model, lambda p: p.mean(axis=(1, 2)) / 255, part, lambda rows: pictures[rows.index]
    )
    stages = [f"permuted: {name}" for name in sanity["permuted"]]
    counts = maps["method"].value_counts().to_dict()
    assert counts == {"Grad-CAM": 12, "occlusion": 4} | dict.fromkeys(stages, 12)
    cams = read_maps(maps)
    assert np.allclose(np.stack(list(cams.values())), GradCam(model)(pictures), rtol=1e-3)
    assert not np.allclose(read_maps(maps, stages[-1])["a"], cams["a"], rtol=1e-2)
