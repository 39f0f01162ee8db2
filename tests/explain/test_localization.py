"""Boxes, the pointing game and the agreement of two methods."""

import numpy as np
import pandas as pd
import pytest

from xray_helpers.explain.images import load_examples
from xray_helpers.explain.localization import (
    display_size,
    evaluate_agreement,
    evaluate_maps,
    find_boxes,
    pointing_game,
)
from xray_helpers.explain.maps import build_maps
from xray_helpers.explain.saliency_verdicts import places_table

SIZE = (8, 8)


def test_boxes_follow_the_resize():
    row = {"width": 200, "height": 100, "boxes": "0 0 100 50; 100 50 200 100"}
    stretched = find_boxes(pd.DataFrame([row]), (100, 100))[0]
    assert stretched.tolist() == [[0, 0, 50, 50], [50, 50, 100, 100]]
    padded = find_boxes(pd.DataFrame([row]), (100, 100), "pad")[0]
    assert padded.tolist() == [[0, 25, 50, 50], [50, 50, 100, 75]]
    phantom = {"width": 200, "height": 100, "box_left": 20, "box_top": 10, "box_right": 40, "box_bottom": 20}
    both = find_boxes(pd.DataFrame([phantom, {"width": 9, "height": 9}]), (100, 100))
    assert both[0].tolist() == [[10, 10, 20, 20]]
    assert both[1].shape == (0, 4)


@pytest.mark.parametrize("way", ["stretch", "pad"])
@pytest.mark.parametrize(
    ("shape", "size"), [((100, 200), (64, 64)), ((200, 100), (64, 64)), ((120, 120), (64, 128))]
)
def test_maps_boxes_and_shown_pictures_share_one_frame(tmp_path, shape, size, way):
    """A map that is the picture as the model saw it, bright in the box alone, hits the box."""
    from PIL import Image

    from xray_helpers.images.pixels import resize
    from xray_helpers.images.radiographs import ImageFolder

    picture = np.zeros(shape, np.uint8)
    picture[20:40, 60:90] = 255
    Image.fromarray(picture).save(tmp_path / "a.png")
    part = pd.DataFrame(
        {"path": ["a.png"], "group": ["p"], "height": shape[0], "width": shape[1], "boxes": "60 20 90 40"}
    )
    seen = resize(picture, size, way).astype(np.float32)[None]
    evaluated = evaluate_maps(build_maps(["a.png"], "Grad-CAM", seen, size), part, way)
    assert evaluated.frame[0] / evaluated.frame[1] == size[0] / size[1]
    assert evaluated.places["hit"].iloc[0] == 1
    assert evaluated.places["energy"].iloc[0] > 0.85  # but for what interpolation spreads
    shown = load_examples(part, ImageFolder(tmp_path, resize=way), evaluated.frame)[0]
    left, top, right, bottom = evaluated.boxes["a.png"][0].round().astype(int)
    assert shown.shape == evaluated.frame
    assert shown[top + 2 : bottom - 2, left + 2 : right - 2].min() > 200
    outside = shown.copy()
    outside[top - 2 : bottom + 2, left - 2 : right + 2] = 0
    assert outside.max() < 60


def test_the_display_size_keeps_the_proportions_of_the_model_input():
    assert display_size((128, 256)) == (112, 224)
    assert display_size((299, 299)) == display_size(None) == (224, 224)


def test_pointing_game_and_energy_by_hand():
    inside, outside = np.zeros(SIZE, np.float32), np.zeros(SIZE, np.float32)
    inside[1, 1], inside[6, 6] = 3, 1  # three quarters of the energy in the box
    outside[6, 6] = 1
    part = pd.DataFrame({"path": ["a", "b", "c"], "group": ["p", "q", "r"]})
    box = np.array([[0.0, 0, 4, 4]])
    places = pointing_game({"a": inside, "b": outside, "c": inside}, part, [box, box, np.zeros((0, 4))], SIZE)
    cam, blob, less = places.itertuples()
    assert (cam.hit, cam.energy, cam.n, cam.area) == (0.5, 0.375, 2, 0.25)
    assert np.isnan([cam.hit_low, cam.hit_high]).all()  # two groups are no evidence
    assert blob.energy == pytest.approx(0.25)  # a centred blob has a quarter of itself in a quarter
    assert less.energy == pytest.approx(cam.energy - blob.energy)
    assert cam.over_area == pytest.approx(0.375 - 0.25)
    assert cam.over_others == pytest.approx(
        0
    )  # the other image's map lies as well on the same box, in the mean
    assert np.isnan(less.over_area)
    shown = places_table(places)
    assert shown["map"].tolist() == ["Grad-CAM", "centred blob", "Grad-CAM less blob"]
    assert shown["more than by chance"].tolist()[2] == ""


def test_an_empty_map_points_nowhere_and_without_boxes_nothing_is_measured():
    part = pd.DataFrame({"path": ["a"], "group": ["p"]})
    empty = {"a": np.zeros(SIZE, np.float32)}
    assert pointing_game(empty, part, [np.array([[0.0, 0, 8, 8]])], SIZE)["hit"].iloc[0] == 0
    assert pointing_game(empty, part, [np.zeros((0, 4))], SIZE).empty


def test_agreement_of_the_methods_has_its_n_and_may_be_missing():
    maps = np.random.default_rng(0).random((4, 3, 3)).astype(np.float32)
    table = pd.concat([build_maps("abcd", name, maps, (9, 9)) for name in ("Grad-CAM", "occlusion")])
    found = evaluate_agreement(table, pd.Series(list("wxyz"), index=list("abcd")))
    assert found["value"] == pytest.approx(1)
    assert found["n"] == 4
    assert evaluate_agreement(table.iloc[:0], pd.Series(dtype=str))["value"] is None
