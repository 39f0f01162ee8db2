import numpy as np
import pytest

from xray_helpers.models import weights
from xray_helpers.models.backbones import BACKBONES, get_backbone, resolve_weights
from xray_helpers.models.weights import choose_file
from xray_helpers.settings import InputError, Settings


def test_the_registry_holds_what_the_settings_name():
    assert set(Settings().models) <= set(BACKBONES)


def test_unknown_names_and_small_images_are_refused():
    with pytest.raises(InputError, match="did you mean VGG16"):
        get_backbone("vgg61")
    with pytest.raises(InputError, match="at least 75"):
        get_backbone("InceptionV3").check_size((64, 64))


def test_weights_are_found_by_name_case_and_punctuation_aside(tmp_path):
    for backbone in BACKBONES.values():
        (tmp_path / backbone.published.file).write_bytes(b"x")
    (tmp_path / "vgg16_weights_tf_dim_ordering_tf_kernels.h5").write_bytes(b"with its top")
    (tmp_path / "mobilenetv2.txt").write_bytes(b"no weights")
    for backbone in BACKBONES.values():
        assert choose_file(backbone.published, tmp_path).name == backbone.published.file
    vgg16, file = BACKBONES["VGG16"].published, tmp_path / "mobilenetv2.txt"
    assert choose_file(vgg16, file) == file  # a file is taken as it is
    with pytest.raises(InputError, match="There are no weights at"):
        choose_file(vgg16, tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="There are no weights of VGG16 in"):
        choose_file(vgg16, tmp_path / "empty")


def test_without_a_download_auto_falls_back_and_imagenet_says_the_ways_out(monkeypatch, root, tmp_path):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setattr(weights, "BASE_URL", "http://127.0.0.1:9/")  # nothing listens there
    assert resolve_weights("auto", ("VGG16", "MobileNetV2")) == "random"
    assert resolve_weights("random", ("VGG16",)) == "random"
    with pytest.raises(InputError) as caught:
        resolve_weights("imagenet", ("VGG16",))
    for words in ("vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5", "Three ways out", str(tmp_path)):
        assert words in str(caught.value)


def test_a_server_that_does_not_answer_is_given_up(monkeypatch):
    import time

    monkeypatch.setattr(weights, "_ANSWER_SECONDS", 0.2)
    monkeypatch.setattr(weights.request, "urlopen", lambda *args, **kwargs: time.sleep(3))
    started = time.monotonic()
    with pytest.raises(TimeoutError, match="no answer"):
        weights._request("https://localhost/x")
    assert time.monotonic() - started < 2


@pytest.mark.slow
@pytest.mark.parametrize("name", list(BACKBONES))
def test_a_backbone_preprocesses_as_keras_prescribes_and_names_its_map_layer(name, root, tmp_path):
    import importlib

    import keras

    from xray_helpers.explain.gradcam import find_layer

    module = {
        "InceptionV3": "inception_v3",
        "ResNet50": "resnet50",
        "VGG16": "vgg16",
        "DenseNet121": "densenet",
        "MobileNetV2": "mobilenet_v2",
    }[name]
    theirs = importlib.import_module(f"keras.applications.{module}").preprocess_input
    grey = np.random.default_rng(0).uniform(0, 255, (2, 80, 96, 1)).astype("float32")
    keras.utils.set_random_seed(0)
    plain = getattr(keras.applications, name)(include_top=False, weights=None, input_shape=(80, 96, 3))
    plain.save_weights(tmp_path / f"{name}.weights.h5")
    ours, map_layer = get_backbone(name).build((80, 96), str(tmp_path))
    assert map_layer == find_layer(ours)
    expected = np.asarray(plain(theirs(np.repeat(grey, 3, axis=-1).copy()))).mean(axis=(1, 2))
    assert np.asarray(ours(grey)) == pytest.approx(expected, rel=1e-3, abs=1e-5)
    assert ours.count_params() == BACKBONES[name].parameters
    assert not ours.trainable_weights
    assert not any(isinstance(layer, keras.Model) for layer in ours.layers)  # one flat graph
    unit = get_backbone(name).build((80, 96), str(tmp_path), "unit")[0]
    expected = np.asarray(plain(np.repeat(grey, 3, axis=-1) / 255)).mean(axis=(1, 2))
    assert np.asarray(unit(grey)) == pytest.approx(expected, rel=1e-3, abs=1e-5)


@pytest.mark.slow
def test_weights_that_do_not_fit_are_refused(root, tmp_path):
    import keras

    keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)]).save_weights(
        tmp_path / "mobilenetv2.weights.h5"
    )
    with pytest.raises(InputError, match="do not fit MobileNetV2"):
        get_backbone("MobileNetV2").build((64, 64), str(tmp_path))


@pytest.mark.slow
def test_random_weights_are_the_same_each_time_and_standardised(root):
    import keras

    from xray_helpers.synthetic.dataset import calibration_phantoms

    one = get_backbone("MobileNetV2").build((64, 64), "random")[0]
    keras.utils.set_random_seed(99)
    two = get_backbone("MobileNetV2").build((64, 64), "random")[0]
    batch = calibration_phantoms((64, 64))[..., None].astype("float32")
    features = one.predict_on_batch(batch)
    assert features == pytest.approx(two.predict_on_batch(batch))
    alive = features.std(axis=0) > 0
    assert alive.mean() > 0.9
    assert features.mean(axis=0) == pytest.approx(0, abs=1e-2)
    assert features[:, alive].std(axis=0) == pytest.approx(1, abs=2e-2)
    assert one.layers[-1].name == "standardised"


@pytest.mark.slow
def test_damaged_statistics_of_random_weights_are_measured_again(root):
    def build():
        features, _ = get_backbone("MobileNetV2").build((64, 64), "random")
        return [part.copy() for part in features.get_weights()]

    first = build()
    (path,) = (root / "data" / "cache").glob("random-*.npz")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    for damaged in (content, content[:1000], b""):
        path.write_bytes(damaged)
        assert all(a == pytest.approx(b, abs=1e-5) for a, b in zip(build(), first, strict=True))


@pytest.mark.slow
def test_border_and_corners_are_blanked_or_kept_alone_in_the_graph(root):
    import keras

    ones = np.full((1, 60, 80, 1), 200.0, "float32")
    shown = {}
    for border, layer in (("blank", "without_border"), ("only", "border_only")):
        model = get_backbone("MobileNetV2").build((60, 80), "random", border=border)[0]
        shown[border] = np.asarray(keras.Model(model.input, model.get_layer(layer).output)(ones))[0, :, :, 0]
    blank = shown["blank"]
    assert (blank[:6] == 0).all()
    assert (blank[:, -8:] == 0).all()
    assert (blank[6:12, 8:16] == 0).all()  # a corner reaches twice as far as the border
    assert (blank[12:-12, 8:-8] == 200).all()
    assert (blank[6:-6, 16:-16] == 200).all()
    assert (shown["only"] == 200 - blank).all()
