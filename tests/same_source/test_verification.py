import cv2
import numpy as np
import pytest

from xray_helpers.same_source import verification
from xray_helpers.same_source.local_features import LOCAL, SCALE, SETS, describe_picture
from xray_helpers.same_source.rules import is_sure
from xray_helpers.same_source.words import Vocabulary


def texture(seed):
    rng = np.random.default_rng(seed)
    layers = [
        cv2.resize(rng.normal(size=(n, n)), (256, 256), interpolation=cv2.INTER_CUBIC) for n in (8, 24, 64)
    ]
    picture = sum(layer * weight for layer, weight in zip(layers, (40, 25, 15), strict=True))
    return np.clip(picture + 120, 0, 255).astype(np.uint8)


def compare(x, y, shape=(256, 256)):
    return verification._compare(x, describe_picture(x, shape), y, describe_picture(y, shape))


def test_a_pair_is_compared_the_other_way_too_unless_a_picture_is_plain():
    """Most points of a have two alike in b, so that none is clearly the nearest; those of b have one in a."""
    rng = np.random.default_rng(0)

    def describe(near, spread):
        drawn = near + spread * rng.normal(size=(len(near), 128))
        return np.round(0.98 * SCALE * drawn / np.linalg.norm(drawn, axis=1, keepdims=True))

    a, b = np.zeros((2, 1), LOCAL)
    for record in (a, b):
        record["descriptors"][0, :250] = describe(np.zeros((250, 128)), 1)
    own = a["descriptors"][0, :46].astype(float) / SCALE
    b["descriptors"][0, :80] = describe(np.repeat(own[:40], 2, axis=0), 0.02)
    b["descriptors"][0, 80:86] = describe(own[40:], 0.02)
    assert 4 <= verification._count_matches(a, b)[0] < 9
    assert verification._count_matches(b, a)[0] > 50
    assert verification._find_promising(a, b).tolist() == [True]
    b["descriptors"][0, 249] = 0
    assert verification._find_promising(a, b).tolist() == [False]


@pytest.mark.parametrize("negative", [False, True])
@pytest.mark.parametrize("mirrored", [False, True])
def test_mirrored_pictures_and_negatives_are_found_with_what_they_are(mirrored, negative):
    x = texture(1)
    y = cv2.warpAffine(x, cv2.getRotationMatrix2D((128, 128), 30, 0.9), (256, 256), borderValue=90)
    y = np.ascontiguousarray(y[:, ::-1]) if mirrored else y
    found = compare(x, 255 - y if negative else y)
    assert is_sure(found)
    assert (found["mirrored"], found["negative"]) == (mirrored, negative)
    first = np.ascontiguousarray(x[:, ::-1]) if mirrored else x
    mapped = cv2.warpAffine(first, found["transform"], (256, 256))
    assert np.corrcoef(mapped[80:176, 80:176].ravel(), y[80:176, 80:176].ravel())[0, 1] > 0.95


def test_an_elongated_picture_that_is_turned_within_its_frame_is_found_by_its_proportions():
    """Between the stretched pictures the map shears, as no map of two files does."""
    shape = (640, 280)
    x = texture(6)
    turn = cv2.getRotationMatrix2D((140, 320), 70, 1.0)
    turned = cv2.resize(cv2.warpAffine(cv2.resize(x, shape[::-1]), turn, shape[::-1]), (256, 256))
    assert is_sure(compare(x, turned, shape))
    assert not is_sure(compare(x, turned, (256, 256)))


def test_descriptors_of_a_mirrored_negative_differ_in_signs_alone():
    x = texture(2)
    one, other = (describe_picture(p, p.shape) for p in (x, np.ascontiguousarray(255 - x[:, ::-1])))
    rows = slice(0, 30)
    similarity = (
        np.abs(one["descriptors"][rows].astype(float)) @ np.abs(other["descriptors"][SETS[0]].astype(float)).T
    )
    assert np.median(similarity.max(axis=1)) / 256**2 > 0.97


def test_two_pictures_with_the_same_text_and_frame_are_not_one():
    framed = []
    for seed in (3, 4):
        picture = cv2.copyMakeBorder(
            cv2.resize(texture(seed), (200, 200)), 10, 46, 28, 28, cv2.BORDER_CONSTANT, value=255
        )
        cv2.putText(picture, "Case 7: AP view", (20, 236), cv2.FONT_HERSHEY_SIMPLEX, 0.8, 0, 2, cv2.LINE_AA)
        framed.append(picture)
    assert not is_sure(compare(*framed))
    assert is_sure(compare(framed[0], cv2.resize(texture(3), (256, 256))))


def test_words_find_the_crop_of_a_negative_among_others():
    pictures = [texture(seed) for seed in range(20, 45)]
    crop = cv2.resize(255 - pictures[7][60:220, 40:200], (256, 256))
    local = np.stack([describe_picture(p, p.shape) for p in [*pictures, crop]])
    rows = Vocabulary(local).rows
    likeness = (rows[-1:] @ rows[:-1].T).toarray().ravel()
    assert likeness.argmax() == 7
    again = Vocabulary(local)(local[-1:])
    assert abs(again - rows[-1:]).max() < 1e-6


def test_a_picture_without_texture_has_no_features():
    flat = np.full((256, 256), 90, np.uint8)
    assert not describe_picture(flat, flat.shape)["descriptors"].any()
    assert compare(flat, texture(5))["inliers"] == 0
    assert Vocabulary(np.stack([describe_picture(flat, flat.shape)] * 2)).rows.nnz == 0
