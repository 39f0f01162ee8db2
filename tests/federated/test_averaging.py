"""What is checked of an update, and the arithmetic of the average and of the privacy that is spent."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from xray_helpers.federated.averaging import Update, average, check_update, privacy_loss

LIKE = [np.zeros((2, 3), np.float32), np.zeros(3, np.float32)]


def update(images=5, loss=0.5, change=None):
    weights = [array.copy() for array in LIKE]
    if change is not None:
        weights[0][0, 1] = change
    return Update(weights, images, 4, loss)


def test_what_can_be_used_is_and_what_cannot_is_named():
    assert check_update(update(change=3.0), LIKE) == ""
    assert check_update(update(change=np.nan), LIKE) == "1 of its weights are not finite numbers"
    assert check_update(update(change=np.inf), LIKE) == "1 of its weights are not finite numbers"
    assert check_update(update(images=0), LIKE) == "it reports no training images"
    assert "validation loss" in check_update(update(loss=np.nan), LIKE)
    other = Update([np.zeros((2, 2)), np.zeros(3)], 5, 4, 0.5)
    assert check_update(other, LIKE) == "its weights have the shapes 2x2, 3 in place of 2x3, 3"
    assert check_update(Update([], 5, 4, 0.5), LIKE).startswith("its weights have the shapes none")


def test_the_average_counts_images_or_sites():
    one, two = Update([np.full(2, 1.0)], 10, 1, 0), Update([np.full(2, 4.0)], 20, 1, 0)
    np.testing.assert_allclose(average({"a": one, "b": two})[0], 3.0)
    np.testing.assert_allclose(average({"a": one, "b": two}, equal=True)[0], 2.5)


@given(
    st.lists(
        st.tuples(arrays(np.float32, 4, elements=st.floats(-9, 9, width=32)), st.integers(1, 999)), min_size=1
    )
)
def test_the_average_is_numpys_and_does_not_depend_on_the_order_of_replies(drawn):
    updates = {f"s{i}": Update([weights], images, 1, 0.0) for i, (weights, images) in enumerate(drawn)}
    found = average(updates)[0]
    expected = np.average([w for w, _ in drawn], axis=0, weights=[n for _, n in drawn])
    np.testing.assert_allclose(found, expected, atol=1e-5)
    turned = dict(reversed(updates.items()))
    np.testing.assert_array_equal(found, average(turned)[0])


def test_privacy_that_is_spent_follows_bun_and_steinke():
    assert privacy_loss(2.0, 8) == pytest.approx(1 + 2 * np.sqrt(np.log(1e5)))  # rho = 8 / (2 * 4) = 1
    assert privacy_loss(1.0, 20) > privacy_loss(1.0, 10)
    assert privacy_loss(0.0, 1) == np.inf
