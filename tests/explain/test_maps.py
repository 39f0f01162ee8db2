"""Maps over images: tables, sizes, agreement."""

import numpy as np
import pandas as pd
import pytest

from xray_helpers.explain.maps import build_maps, fit_map, input_size, rank_agreement, read_maps


def test_rank_agreement_is_spearman_and_0_for_a_flat_map():
    one = np.array([[[1.0, 2], [3, 4]]])
    assert rank_agreement(one, np.array([[[10.0, 20], [30, 99]]]))[0] == pytest.approx(1)
    assert rank_agreement(one, -one)[0] == pytest.approx(-1)
    assert rank_agreement(one, np.ones((1, 2, 2)))[0] == 0


def test_maps_are_read_back_from_their_table():
    maps = np.random.default_rng(0).random((3, 4, 5)).astype(np.float32)
    table = pd.concat(
        [build_maps("abc", "Grad-CAM", maps, (9, 7)), build_maps("a", "occlusion", maps[:1], (9, 7))]
    )
    back = read_maps(table)
    assert input_size(table) == (9, 7)
    assert input_size(table.iloc[:0]) is None
    assert list(back) == ["a", "b", "c"]
    assert np.allclose(back["b"], maps[1], rtol=1e-3)
    assert list(read_maps(table, "occlusion")) == ["a"]


@pytest.mark.parametrize("way", ["stretch", "pad"])
@pytest.mark.parametrize(
    ("shape", "size"), [((100, 200), (64, 64)), ((200, 100), (64, 64)), ((120, 120), (64, 128))]
)
def test_a_map_lies_over_the_same_part_of_the_picture_as_of_the_model_input(shape, size, way):
    """A bright spot is the picture, and its own grey values at the model's size are the map."""
    from xray_helpers.images.pixels import resize

    picture = np.zeros(shape, np.uint8)
    down, across = round(0.2 * shape[0]), round(0.7 * shape[1])
    picture[down - 8 : down + 8, across - 8 : across + 8] = 255
    grid = resize(picture, size, way).astype(np.float32)
    fitted = fit_map(grid, shape, size, way)
    at = np.unravel_index(fitted.argmax(), fitted.shape)
    assert at[0] / fitted.shape[0] == pytest.approx(0.2, abs=0.08)
    assert at[1] / fitted.shape[1] == pytest.approx(0.7, abs=0.08)
    if way == "pad":
        assert fitted.shape[0] / fitted.shape[1] == pytest.approx(shape[0] / shape[1], rel=0.05)
