import cv2
import numpy as np
import pytest

from xray_helpers.images.geometry import (
    fill_boxes,
    fit_mask,
    fit_matrix,
    invert_matrix,
    join_matrices,
    map_boxes,
    shift_origin,
    turn_mask,
    view_matrix,
)
from xray_helpers.images.pixels import augment, resize

BOX = np.array([[60.0, 30.0, 110.0, 90.0]])


def painted(shape, box=BOX):
    """A black picture with a white box."""
    picture = np.zeros(shape, np.uint8)
    left, top, right, bottom = box[0].astype(int)
    picture[top:bottom, left:right] = 255
    return picture


def bounds(picture):
    rows, columns = np.nonzero(picture > 127)
    return [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


@pytest.mark.parametrize("way", ["stretch", "pad"])
@pytest.mark.parametrize("size", [(224, 224), (128, 96), (300, 300)])
def test_boxes_follow_their_picture_into_the_input_and_back(way, size):
    matrix = fit_matrix((120, 200), size, way)
    moved = map_boxes(BOX, matrix, size)
    assert np.abs(moved[0] - bounds(resize(painted((120, 200)), size, way))).max() <= 1
    assert np.allclose(map_boxes(moved, invert_matrix(matrix)), BOX)
    covered = fit_mask(painted((120, 200)) > 0, size, way)
    assert np.abs(covered - fill_boxes(moved, size)).mean() < 0.01


@pytest.mark.parametrize("view", range(6))
def test_boxes_and_masks_follow_augmented_views(view):
    content, size = "ab" * 32, (200, 220)
    picture = painted(size)
    shown = augment(picture[None], [content], view)[0]
    moved = map_boxes(BOX, view_matrix(content, view, size), size)
    assert np.abs(moved[0] - bounds(shown)).max() <= 1.5
    assert np.abs(turn_mask(picture / np.float32(255), content, view) - shown / 255).mean() < 0.002
    assert moved[0].tolist() != BOX[0].tolist()


@pytest.mark.parametrize("degrees", [0, 20, 90, -135])
@pytest.mark.parametrize("flip", [False, True])
def test_boxes_follow_a_turn_a_flip_and_a_crop(degrees, flip):
    picture = painted((160, 200))
    turn = cv2.getRotationMatrix2D((99.5, 79.5), degrees, 1.0)
    mirror = np.array([[-1.0, 0, 199], [0, 1, 0]]) if flip else np.eye(2, 3)
    crop = np.array([[1.0, 0, -15], [0, 1, -10]])
    steps = join_matrices(join_matrices(turn, mirror), crop)  # of the centres of pixels
    shown = cv2.warpAffine(picture, steps, (170, 140))
    moved = map_boxes(BOX, shift_origin(steps, 0.5), (140, 170))
    assert np.abs(moved[0] - bounds(shown)).max() <= 1.5


def test_what_is_cropped_away_is_dropped_and_the_rest_is_cut():
    crop = np.array([[1.0, 0, -100], [0, 1, 0]])
    boxes = [[10, 10, 90, 50], [80, 10, 130, 50]]
    assert map_boxes(boxes, crop, (60, 60)).tolist() == [[0, 10, 30, 50]]
    assert map_boxes(np.zeros((0, 4)), crop, (60, 60)).shape == (0, 4)


def test_boxes_fill_shares_of_pixels():
    filled = fill_boxes(np.array([[0.5, 1, 2, 2], [0, 0, 1, 1.5]]), (3, 3))
    assert np.allclose(filled, [[1, 0, 0], [0.5, 1, 0], [0, 0, 0]])
