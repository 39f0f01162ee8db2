"""The randomization test."""

import numpy as np
import pytest

from xray_helpers.explain.gradcam import GradCam
from xray_helpers.explain.maps import is_flat, rank_agreement
from xray_helpers.explain.randomization import _compare, randomization_test


@pytest.mark.slow
def test_empty_maps_are_left_out_and_counted(model):
    pictures = np.random.default_rng(1).integers(0, 255, (12, 16, 16), np.uint8)
    pictures[:3] = 0  # without biases nothing comes of nothing
    table, _ = randomization_test(model, GradCam(model), pictures, np.arange(12))
    assert set(table["n"]) == {9}
    assert set(table["empty"]) == {3}
    nothing, _ = randomization_test(model, GradCam(model), pictures[:3], np.arange(3))
    assert nothing["correlation"].isna().all()
    assert set(nothing["n"]) == {0}


@pytest.mark.slow
def test_permuting_weights_changes_the_map_and_leaves_the_model_as_it_was(model):
    pictures = np.random.default_rng(1).integers(0, 255, (12, 16, 16), np.uint8)
    cam, before = GradCam(model), model.get_weights()
    table, after = randomization_test(model, cam, pictures, np.arange(12), permutations=1)
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))
    assert table["layers"].tolist() == [2, 2, 4]
    assert table["correlation"].iloc[-1] < 0.9
    assert (table["ci_low"] <= table["correlation"]).all()
    assert list(after) == table["permuted"].tolist()
    agreement = [rank_agreement(cam(pictures), maps).mean() for maps in after.values()]
    assert agreement == pytest.approx(table["correlation"].tolist())


@pytest.mark.slow
def test_the_head_is_what_follows_the_features_whatever_its_layers_are_called(model):
    import keras

    x = keras.layers.Dense(7, activation="relu", name="mine")(model.get_layer("pooled").output)
    x = keras.layers.Dense(5, activation="relu", name="own")(x)
    other = keras.Model(model.input, keras.layers.Dense(1, activation="sigmoid", name="answer")(x))
    pictures = np.random.default_rng(1).integers(0, 255, (12, 16, 16), np.uint8)
    table, _ = randomization_test(other, GradCam(other), pictures, np.arange(12), permutations=1)
    assert table["layers"].tolist() == [3, 3, 5]
    assert table["correlation"].iloc[0] < 1


@pytest.mark.slow
def test_maps_that_are_empty_after_permuting_count_for_no_correlation(model):
    """A model whose maps vanish with some permutations: those that stay full alone make the correlation."""
    pictures = np.random.default_rng(1).integers(0, 255, (12, 16, 16), np.uint8)
    cam = GradCam(model)
    table, after = randomization_test(model, cam, pictures, np.arange(12), seed=3, permutations=4)
    assert table["permutations"].tolist() == [4, 4, 4]
    assert (table["n_groups"] == table["n"]).all()
    for name, row in zip(after, table.itertuples(), strict=True):
        one, first = randomization_test(model, cam, pictures, np.arange(12), seed=3, permutations=1)
        assert np.array_equal(first[name], after[name])  # the maps shown are those of the first
        single = one[one["permuted"] == name].iloc[0]
        full = ~is_flat(cam(pictures)) & ~is_flat(first[name])
        assert single["n"] == full.sum()
        if full.any():
            agreement = [
                rank_agreement(cam(pictures)[i : i + 1], first[name][i : i + 1])[0]
                for i in np.flatnonzero(full)
            ]
            assert single["correlation"] == pytest.approx(np.mean(agreement))
        assert 0 <= row.emptied <= 1
    assert table["emptied"].max() > 0  # the case is there


def test_permuted_maps_that_vanish_are_kept_apart():
    before = np.random.default_rng(0).random((10, 3, 3)).astype(np.float32)
    vanished, same = np.zeros_like(before), before.copy()
    row = _compare(before, [vanished, same], np.arange(10) % 9)
    assert row["correlation"] == pytest.approx(1)  # not 0.5: what vanished is not compared
    assert (row["n"], row["n_groups"], row["emptied"], row["empty"]) == (10, 9, 0.5, 0)
    row = _compare(before, [vanished, vanished], np.arange(10))
    assert row["correlation"] is None
    assert (row["n"], row["emptied"]) == (0, 1.0)
