import re
from dataclasses import replace

import h5py
import numpy as np
import pytest
from weight_files import write_numbers, write_radimagenet

from xray_helpers.models import weights
from xray_helpers.models.applications import Application
from xray_helpers.models.backbones import BACKBONES, get_backbone, resolve_weights
from xray_helpers.models.graphs import open_model
from xray_helpers.models.weights import choose_file
from xray_helpers.settings import InputError, Settings


def test_the_registry_holds_what_the_settings_name():
    assert set(Settings().models) <= set(BACKBONES)


def test_unknown_names_and_small_images_are_refused():
    with pytest.raises(InputError, match="did you mean VGG1"):
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


# One network of each family; the other sizes of a family are `thorough`.
SMALLEST = (
    *("InceptionV3", "ResNet50", "VGG16", "DenseNet121", "MobileNetV2", "ConvNeXtTiny", "EfficientNetB0"),
    *("EfficientNetV2B0", "EfficientNetV2S", "MobileNet", "MobileNetV3Small", "NASNetMobile", "ResNet50V2"),
    *("VGG19", "Xception", "InceptionResNetV2"),
)


def mark_variants(name):
    """Return a parameter, `thorough` for the larger networks of a family."""
    return name if name in SMALLEST else pytest.param(name, marks=pytest.mark.thorough)


def preprocess_input(name):
    """Return the function with which Keras prepares pixels for a network."""
    import importlib
    import inspect

    import keras

    module = inspect.getmodule(inspect.unwrap(getattr(keras.applications, name)))
    if name.startswith("ResNet") and name.endswith("V2"):
        module = importlib.import_module("keras.applications.resnet_v2")
    return module.preprocess_input


@pytest.mark.slow
@pytest.mark.parametrize("name", [mark_variants(name) for name in BACKBONES])
def test_every_network_preprocesses_as_keras_does_and_loads_the_file_that_keras_keeps(
    name, root, tmp_path, monkeypatch
):
    import keras

    entry = replace(BACKBONES[name], file_hash="")  # the file is made here
    monkeypatch.setitem(BACKBONES, name, entry)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    side = entry.min_size
    plain = entry._build_network(input_shape=(side, side, 3))
    assert plain.count_params() == entry.parameters
    written = tmp_path / "made.weights.h5"
    plain.save_weights(written)
    file = weights.keras_file(entry.published)
    file.parent.mkdir()
    written.rename(file)
    build = Application._build_network
    monkeypatch.setattr(  # of the two networks that it builds, the one for the file is there already
        Application,
        "_build_network",
        lambda self, **how: plain if "input_shape" in how else build(self, **how),
    )
    assert resolve_weights("imagenet", (name,)) == "imagenet"
    ours, map_layer = get_backbone(name).build((side, side), "imagenet")

    grey = np.random.default_rng(0).uniform(0, 255, (2, side, side, 1)).astype("float32")
    theirs = preprocess_input(name)(np.repeat(grey, 3, axis=-1).copy())
    scaled = np.asarray(keras.Model(ours.input, ours.get_layer("preprocessing").output)(grey))
    assert np.abs(scaled - theirs).max() <= 1e-6 * np.abs(theirs).max()
    normalization = re.match(r"EfficientNetB\d", name)  # there Keras adds a layer if it loads the file itself
    if not normalization:
        features = np.asarray(plain(theirs, training=False))
        features = features.mean(axis=(1, 2)) if features.ndim == 4 else features
        small = float(1e-4 * np.abs(features).max() + 1e-9)
        assert np.asarray(ours(grey, training=False)) == pytest.approx(features, rel=1e-3, abs=small)
    assert len(open_model(ours).outputs[map_layer].shape) == 4
    assert not ours.trainable_weights
    assert ours.count_params() == entry.parameters - (7 if normalization else 0)
    keras.backend.clear_session()


@pytest.mark.slow
def test_efficientnet_is_what_keras_builds_from_its_own_file(root, tmp_path, monkeypatch):
    import keras
    from keras.src.applications import efficientnet
    from keras.src.legacy.saving import legacy_h5_format

    name = "EfficientNetB0"
    monkeypatch.setitem(BACKBONES, name, replace(BACKBONES[name], file_hash=""))
    plain = keras.applications.EfficientNetB0(include_top=False, weights=None, input_shape=(64, 64, 3))
    parts = plain.get_weights()
    parts[0], parts[1] = np.array([0.485, 0.456, 0.406], "float32"), np.array([0.052, 0.05, 0.051], "float32")
    plain.set_weights(parts)
    file = tmp_path / BACKBONES[name].published.file
    with h5py.File(file, "w") as handle:
        legacy_h5_format.save_weights_to_hdf5_group(handle, plain)
    monkeypatch.setattr(efficientnet.file_utils, "get_file", lambda *args, **options: str(file))
    theirs = keras.applications.EfficientNetB0(include_top=False, weights="imagenet", input_shape=(64, 64, 3))
    grey = np.random.default_rng(0).uniform(0, 255, (2, 64, 64, 1)).astype("float32")
    ours = get_backbone(name).build((64, 64), str(file))[0]
    expected = np.asarray(theirs(np.repeat(grey, 3, axis=-1), training=False)).mean(axis=(1, 2))
    assert np.asarray(ours(grey)) == pytest.approx(expected, rel=1e-3, abs=1e-6)
    copy = keras.models.clone_model(ours)  # as fine-tuning does
    copy.set_weights(ours.get_weights())
    assert np.asarray(copy(grey)) == pytest.approx(expected, rel=1e-3, abs=1e-6)


@pytest.mark.slow
def test_radimagenet_weights_have_their_own_preprocessing(root, tmp_path, monkeypatch):
    import keras

    keras.utils.set_random_seed(1)
    plain = keras.applications.ResNet50(include_top=False, weights=None, input_shape=(64, 64, 3))
    folder = tmp_path / "rad"
    folder.mkdir()
    write_radimagenet(plain, folder / "RadImageNet-ResNet50_notop.h5")
    with h5py.File(folder / "RadImageNet-ResNet50_notop.h5") as file:
        assert "kernel:0" in file["model_weights/conv1_conv/conv1_conv"]
    assert resolve_weights(str(folder), ("ResNet50",)) == str(folder)
    grey = np.random.default_rng(0).uniform(0, 255, (2, 64, 64, 1)).astype("float32")
    bgr = np.repeat(grey, 3, axis=-1) - [103.939, 116.779, 123.68]
    expected = np.asarray(plain(bgr / 255, training=False)).mean(axis=(1, 2))
    for name in ("ResNet50", "ResNet50@radimagenet"):
        backbone = get_backbone(name)
        assert np.asarray(backbone.build((64, 64), str(folder))[0](grey)) == pytest.approx(
            expected, rel=1e-3, abs=1e-5
        )
        told = backbone.describe(str(folder))
        assert "RadImageNet-ResNet50_notop.h5" in told["weights_of"]
        assert "RadImageNet" in told["preprocessing"]


@pytest.mark.parametrize(
    ("model", "file"),
    [
        ("ResNet50", "RadImageNet-ResNet50_notop.h5"),
        ("InceptionResNetV2", "RadImageNet-IRV2-notop.h5"),
        ("DenseNet121", "RadImageNet-DenseNet121-notop.h5"),
        ("InceptionV3", "radimagenet_inceptionv3.h5"),
        ("ResNet50", "ResNet50_RadImageNet_notop.h5"),
    ],
)
def test_two_weight_sets_of_a_network_are_two_models(model, file, tmp_path, monkeypatch):
    monkeypatch.setitem(BACKBONES, model, replace(BACKBONES[model], parameters=100, file_hash=""))
    write_numbers(tmp_path / file, 100, seed=1)
    both = (model, f"{model}@radimagenet")
    with pytest.raises(InputError, match=f"are the same file.*name the first one {model}@imagenet"):
        resolve_weights(str(tmp_path), both)
    write_numbers(tmp_path / f"{model}_notop.h5", 100)
    assert resolve_weights(str(tmp_path), both) == str(tmp_path)
    first, second = (get_backbone(name) for name in both)
    assert first.locate_weights(str(tmp_path)).name == f"{model}_notop.h5"
    assert second.locate_weights(str(tmp_path)).name == file
    assert first.identify_weights(str(tmp_path)) != second.identify_weights(str(tmp_path))
    with pytest.raises(InputError, match="give a folder that holds both"):
        resolve_weights(str(tmp_path / f"{model}_notop.h5"), (f"{model}@radimagenet",))
    assert "RadImageNet" in second.describe(str(tmp_path))["weights_of"]
    for name in (f"{model}@radimagenet", f"{model}@imagenet"):
        with pytest.raises(InputError, match="no random weights"):
            resolve_weights("random", (name,))
    with pytest.raises(InputError, match="did you mean radimagenet"):
        get_backbone(f"{model}@radimagnet")


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


def test_a_network_of_whole_pictures_shown_their_border_gives_what_border_only_gives(root):
    from xray_helpers.models.preprocessing import keep_border

    pictures = np.random.default_rng(1).integers(0, 256, (2, 60, 80), np.uint8)
    whole, only = (
        get_backbone("MobileNetV2").build((60, 80), "random", border=b)[0] for b in ("keep", "only")
    )
    shown = np.asarray(whole(keep_border(pictures)[..., None].astype("float32")))
    np.testing.assert_allclose(shown, np.asarray(only(pictures[..., None].astype("float32"))), atol=1e-5)
