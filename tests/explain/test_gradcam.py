"""Grad-CAM and occlusion."""

import numpy as np
import pytest

from xray_helpers.explain.gradcam import GradCam, find_layer, occlude
from xray_helpers.settings import InputError


def test_occlusion_finds_the_one_place_that_matters():
    pictures = np.full((1, 60, 60), 90, np.uint8)
    pictures[0, 42:48, 12:18] = 250

    def predict(batch):
        return 0.1 + 0.8 * (batch[:, 42:48, 12:18].mean(axis=(1, 2)) > 200)

    grid = occlude(predict, pictures, grid=6)[0]
    assert np.unravel_index(grid.argmax(), grid.shape) == (4, 1)
    assert grid.max() == pytest.approx(np.log(0.9 / 0.1) * 2, rel=1e-5)  # from P = 0.9 to P = 0.1
    assert grid[0, 0] == 0


@pytest.mark.slow
def test_grad_cam_is_what_its_formula_gives_at_any_layer(model):
    import keras
    import tensorflow as tf

    pictures = np.random.default_rng(0).integers(0, 255, (20, 16, 16), np.uint8)
    for layer in ("", "first"):
        name = find_layer(model, layer)
        assert name == (layer or "last_conv")
        both = keras.Model(model.input, [model.get_layer(name).output, model.output])
        x = tf.constant(pictures[..., None].astype(np.float32))
        with tf.GradientTape() as tape:
            tape.watch(x)
            activation, p = both(x)
            logit = tf.math.log(p / (1 - p))
        weights = tape.gradient(logit, activation).numpy().mean(axis=(1, 2), keepdims=True)
        expected = np.maximum((weights * activation.numpy()).sum(axis=-1), 0)
        assert np.allclose(GradCam(model, layer)(pictures), expected, rtol=1e-3, atol=1e-4 * expected.max())
    for wrong, words in (("lastconv", "did you mean last_conv"), ("dense", "not spatial")):
        with pytest.raises(InputError, match=words):
            find_layer(model, wrong)


@pytest.mark.parametrize(
    ("name", "last"),
    [
        ("VGG16", "block5_conv3"),
        ("MobileNetV2", "out_relu"),
        ("ResNet50", "conv5_block3_out"),
        ("DenseNet121", "relu"),
        ("InceptionV3", "mixed10"),
    ],
)
@pytest.mark.slow
def test_the_default_layer_is_the_last_convolution_not_the_pooling_after_it(name, last):
    import keras

    side = 96 if name == "InceptionV3" else 32
    backbone = getattr(keras.applications, name)(include_top=False, weights=None, input_shape=(side, side, 3))
    pooled = keras.layers.GlobalAveragePooling2D()(backbone.output)
    model = keras.Model(backbone.input, keras.layers.Dense(1)(pooled))
    assert find_layer(model) == last
    if name == "VGG16":
        assert find_layer(model, "block5_pool") == "block5_pool"  # who wants it may have it
