"""The graph that a page runs, against what the package computes by hand."""

import numpy as np
import pytest

from xray_helpers.models.out_of_distribution import build_feature_model, feature_distance, fit_ood_detector
from xray_helpers.settings import Classes, set_classes

TYPES = Classes("Intact", "Broken", ("Intact", "Oblique", "Spiral"), ("Oblique", "Spiral"))


def build(classes=Classes(), *, standardised=False, pooling=True):  # noqa: B008
    import keras

    keras.utils.set_random_seed(1)
    layers, x = keras.layers, keras.Input((16, 16, 1), name="grey_pixels")
    inputs, last = x, ("softmax", 3, "p_classes") if classes.names else ("sigmoid", 1, "p_fractured")
    x = layers.Rescaling(1 / 255)(x)
    x = layers.Conv2D(12, 5, activation="relu", name="last_conv")(x)
    x = layers.GlobalAveragePooling2D(name="pooled")(x) if pooling else layers.Flatten(name="pooled")(x)
    if standardised:
        rng = np.random.default_rng(2)
        mean, variance = rng.normal(0, 0.1, 12), rng.uniform(0.01, 0.2, 12)
        x = layers.Normalization(mean=mean, variance=variance, name="standardised")(x)
    x = layers.Dropout(0.4)(x)
    x = layers.Dense(9, activation="relu", name="dense")(x)
    return keras.Model(inputs, layers.Dense(last[1], activation=last[0], name=last[2])(x))


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(0, 256, (6, 16, 16)).astype(np.uint8)


@pytest.fixture(autouse=True)
def two_classes():
    yield
    set_classes(Classes())


def make(model, classes, pixels):
    from xray_helpers.export.page_model import build_page_model

    features = np.asarray(build_feature_model(model)(pixels[..., None].astype(np.float32)))
    detector = fit_ood_detector(features + 0.1, features)
    return build_page_model(model, detector, classes), feature_distance(features, detector.features)


@pytest.mark.slow
@pytest.mark.parametrize("classes", [Classes(), TYPES], ids=["two", "three"])
@pytest.mark.parametrize("standardised", [False, True])
@pytest.mark.parametrize("flips", [False, True])
def test_map_and_distance_are_those_of_the_package(pixels, classes, standardised, flips):
    from xray_helpers.explain.gradcam import GradCam
    from xray_helpers.models.head import average_flips

    set_classes(classes)
    model = build(classes, standardised=standardised)
    model = average_flips(model) if flips else model
    page, distance = make(model, classes, pixels)
    found = page(pixels[..., None].astype(np.float32))
    np.testing.assert_allclose(found["probabilities"], model(pixels[..., None].astype(np.float32)), atol=1e-6)
    np.testing.assert_allclose(found["distance"], distance, atol=1e-5)
    expected = GradCam(model)(pixels)
    assert expected.max() > 0
    np.testing.assert_allclose(found["map"], expected, rtol=1e-3, atol=1e-4 * expected.max())


@pytest.mark.slow
def test_without_pooling_there_is_no_map(pixels):
    page, _ = make(build(pooling=False), Classes(), pixels)
    assert set(page.output) == {"probabilities", "distance"}


@pytest.mark.slow
def test_the_file_asks_for_pixels_alone_and_differs_by_float16(pixels):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("tf2onnx")
    from xray_helpers.export.page_model import convert

    page, _ = make(build(standardised=True), Classes(), pixels)
    session = onnxruntime.InferenceSession(convert(page))
    assert [one.name for one in session.get_inputs()] == ["grey_pixels"]
    names = [one.name for one in session.get_outputs()]
    for picture in pixels:
        given = picture[None, ..., None].astype(np.float32)
        exact, found = page(given), dict(zip(names, session.run(None, {"grey_pixels": given}), strict=True))
        assert set(found) == set(exact)
        for name, values in found.items():
            np.testing.assert_allclose(values, exact[name], rtol=0.01, atol=2e-3)
