"""Registration of one picture onto another in perspective."""

import cv2
import numpy as np
import pytest

from xray_helpers.same_source.local_features import describe_picture
from xray_helpers.same_source.registration import ENOUGH, find_overlay, register
from xray_helpers.same_source.verification import _compare


def texture(seed):
    rng = np.random.default_rng(seed)
    grey = cv2.GaussianBlur(rng.normal(0, 1, (256, 256)), (0, 0), 5)
    return cv2.normalize(grey, None, 20, 230, cv2.NORM_MINMAX).astype(np.uint8)


def photograph(picture, rng):
    """Return a picture seen askew, unevenly lit and with moire, and the affine part of how it was turned."""
    corners = np.float32([[0, 0], [255, 0], [255, 255], [0, 255]])
    moved = (corners + rng.uniform(-12, 12, (4, 2))).astype(np.float32)
    y, x = np.indices(picture.shape)
    seen = cv2.warpPerspective(picture, cv2.getPerspectiveTransform(corners, moved), (256, 256))
    seen = (20 + 0.8 * seen) * (0.8 + x / 640) + 10 * np.sin(x * 1.3 + y * 0.4)
    affine = cv2.estimateAffine2D(corners, moved)[0]
    return np.clip(seen, 0, 255).astype(np.uint8), np.vstack([affine, [0, 0, 1]])


@pytest.mark.parametrize("seed", range(4))
def test_a_photograph_of_a_screen_is_told_from_that_of_another_picture(seed):
    seen, start = photograph(texture(seed), np.random.default_rng(seed))
    assert register(texture(seed), seen, start, 1) > ENOUGH
    assert register(texture(seed), 255 - seen, start, -1) > ENOUGH
    assert register(texture(seed), 255 - seen, start, 1) < 0.5
    assert register(texture(seed + 10), seen, start, 1) < 0.6


def test_edges_alone_and_little_overlap_are_no_evidence():
    bone, other = np.full((2, 256, 256), 40, np.uint8)
    bone[:, 100:150] = 200
    other[:, 96:155] = 200  # another bone, as straight
    rng = np.random.default_rng(0)
    bone, other = (np.clip(x + rng.normal(0, 3, x.shape), 0, 255).astype(np.uint8) for x in (bone, other))
    assert register(bone, other, np.eye(3), 1) < ENOUGH
    shifted = np.array([[1.0, 0, 140], [0, 1, 0], [0, 0, 1]])
    assert register(texture(1), texture(1), shifted, 1) < ENOUGH
    assert register(np.zeros((256, 256), np.uint8), texture(1), np.eye(3), 1) < ENOUGH


def in_a_frame(picture):
    """Return a dark picture in a white frame with a line of text."""
    dark = cv2.copyMakeBorder(
        (picture // 10).astype(np.uint8), 16, 16, 16, 16, cv2.BORDER_CONSTANT, value=255
    )
    cv2.putText(dark, "Case 12: AP view of the wrist", (16, 12), cv2.FONT_HERSHEY_SIMPLEX, 0.45, 0, 1)
    cv2.putText(dark, "Figure 2a: at admission", (16, 284), cv2.FONT_HERSHEY_SIMPLEX, 0.45, 0, 1)
    return cv2.resize(dark, (256, 256), interpolation=cv2.INTER_AREA)


@pytest.mark.parametrize("seed", range(4))
def test_what_is_written_on_two_pictures_does_not_make_them_one(seed):
    one, other = in_a_frame(texture(seed)), in_a_frame(texture(seed + 10))
    assert register(one, other, np.eye(3), 1) < 0.6
    noisy = np.clip(one + np.random.default_rng(seed).normal(0, 1, one.shape), 0, 255).astype(np.uint8)
    assert register(one, noisy, np.eye(3), 1) > ENOUGH  # there is enough beside the frame
    records = [describe_picture(picture, (288, 288)).reshape(1) for picture in (one, other)]
    evidence = _compare(one, records[0][0], other, records[1][0])
    assert evidence["inliers"] >= 24  # of the text and the frame
    assert evidence["correlation"] < 0.6


def test_a_frame_over_all_leaves_nothing_to_compare():
    white = np.full((256, 256), 255, np.uint8)
    assert find_overlay(white, white, 13).all()
    assert not find_overlay(white, texture(0), 13).any()
    assert register(np.maximum(white, 1), white, np.eye(3), 1) == 0.0
