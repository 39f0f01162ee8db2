"""Presets of KerasHub as backbones: small networks with random weights, in the layouts of their makers."""

import numpy as np
import pytest
from hub_presets import SIDE, make_preset, write_hugging_face

from xray_helpers.models.backbones import get_backbone, resolve_weights
from xray_helpers.models.hub import HubBackbone
from xray_helpers.settings import InputError, Settings, build_settings

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def hub():
    return pytest.importorskip("keras_hub", reason="KerasHub is not installed: run `make hub`")


def grey(shape=(80, 96)):
    return np.random.default_rng(0).uniform(0, 255, (2, *shape, 1)).astype("float32")


def outputs(network, pixels, scale=1 / 127.5, offset=-1.0, side=SIDE):
    """Return what a network of KerasHub itself gives for grey pixels."""
    import keras

    size = (side, side) if network.inputs[0].shape[1] else pixels.shape[1:3]
    resized = keras.ops.image.resize(np.repeat(pixels, 3, axis=-1), size)
    scaled = np.asarray(resized) * scale + offset
    return np.asarray(
        network({next(iter(network.input)): scaled} if isinstance(network.input, dict) else scaled)
    )


KINDS = ("vit", "deit", "dinov2", "dinov3", "siglip", "swin", "resnet")
PATCHES = {"vit": 1, "deit": 2, "dinov2": 3, "dinov3": 5, "swin": 0}  # how many tokens come before them


@pytest.mark.parametrize("kind", KINDS)
def test_features_are_those_of_the_preset_and_survive_saving(hub, kind, root, tmp_path):
    import keras

    from xray_helpers.models.graphs import open_model
    from xray_helpers.models.head import build_head, join_model
    from xray_helpers.models.saved import load_model, save_model

    network = make_preset(hub, kind)
    network.save_to_preset(str(tmp_path / kind))
    given = outputs(network, grey())
    for pooling in ("auto", "mean"):
        backbone = HubBackbone(kind, str(tmp_path / kind), pooling)
        features, map_layer = backbone.build((80, 96))
        if kind == "resnet":
            expected = given.mean(axis=(1, 2))
        elif kind == "siglip":
            expected = given
        elif pooling == "auto" and PATCHES[kind]:
            expected = given[:, 0]
        else:
            expected = given[:, PATCHES[kind] :].mean(axis=1)
        assert np.asarray(features(grey())) == pytest.approx(expected, rel=1e-4, abs=1e-5)
        assert not features.trainable_weights
    opened = open_model(features)
    assert opened.outputs[map_layer].shape[1:3] == ((10, 12) if kind == "resnet" else (4, 4))
    flat = keras.Model(opened.input, opened.outputs[features.layers[-1].name])
    assert np.asarray(flat(grey())) == pytest.approx(np.asarray(features(grey())), abs=1e-6)
    whole = join_model(features, build_head(features.output_shape[-1], Settings()))
    loaded = load_model(save_model(whole, tmp_path / "model.keras"))
    assert np.asarray(loaded(grey(), training=False)) == pytest.approx(
        np.asarray(whole(grey(), training=False)), abs=1e-6
    )


@pytest.mark.parametrize("kind", ["vit", "dinov3", "siglip", "swin"])
def test_openvino_gives_the_features_of_transformers(hub, kind, root, tmp_path):
    from xray_helpers.models.inference import EXACT, ForwardPass, InferenceBackend
    from xray_helpers.reports.text import describe_engine

    make_preset(hub, kind).save_to_preset(str(tmp_path / kind))
    features = HubBackbone(kind, str(tmp_path / kind)).build((SIDE, SIDE))[0]
    pictures = grey((SIDE, SIDE))[..., 0].astype("uint8")
    fast = ForwardPass(features, InferenceBackend("openvino", "float32"))
    assert fast(pictures) == pytest.approx(ForwardPass(features, EXACT)(pictures), abs=1e-4)
    # OpenVINO 2026.4 cannot convert the windows of a Swin: TensorFlow goes on, and the report says so
    assert fast.backend.name == ("tensorflow" if kind == "swin" else "openvino")
    assert ("cannot run this network" in describe_engine(fast.record())) == (kind == "swin")


@pytest.mark.parametrize("kind", KINDS)
def test_maps_are_the_gradients_of_the_score(hub, kind, root, tmp_path):
    """The map of an image is the patches weighted by the gradient of the score, computed by hand here."""
    import keras
    import tensorflow as tf

    from xray_helpers.explain.gradcam import GradCam
    from xray_helpers.models.graphs import open_model
    from xray_helpers.models.head import build_head, join_model

    make_preset(hub, kind).save_to_preset(str(tmp_path / kind))
    features = HubBackbone(kind, str(tmp_path / kind)).build((SIDE, SIDE))[0]
    model = join_model(features, build_head(features.output_shape[-1], Settings()))
    cam, pixels = GradCam(model), grey((SIDE, SIDE))[..., 0].astype("uint8")
    maps = cam(pixels)
    opened = open_model(model)
    names = [cam.layer, model.layers[-1].name]
    both = keras.Model(opened.input, [opened.outputs[name] for name in names])
    x = tf.constant(pixels[..., None], tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(x)
        patches, p = both(x, training=False)
        score = tf.math.log(p) - tf.math.log1p(-p)
    weights = np.asarray(tape.gradient(score, patches)).mean(axis=(1, 2), keepdims=True)
    expected = np.maximum((weights * np.asarray(patches)).sum(axis=-1), 0)
    assert np.abs(weights).max() > 0  # the score depends on the patches
    assert maps == pytest.approx(expected, rel=1e-2, abs=float(1e-5 * max(expected.max(), 1e-3)))


def test_a_folder_of_hugging_face_has_its_own_range(hub, root, tmp_path):
    network = make_preset(hub, "vit")
    write_hugging_face(network, tmp_path / "vit-hf")
    backbone = HubBackbone("vit-hf", str(tmp_path / "vit-hf"))
    std = np.array([0.229, 0.224, 0.225])
    expected = outputs(network, grey(), 1 / 255 / std, -np.array([0.485, 0.456, 0.406]) / std)[:, 0]
    assert np.asarray(backbone.build((80, 96))[0](grey())) == pytest.approx(expected, rel=1e-3, abs=1e-4)
    assert backbone.licence == "apache-2.0"
    assert backbone.describe()["preprocessing"].startswith("from -2.12 (black) to 2.25 (white)")


def test_the_range_of_a_keras_preset_is_read(hub, root, tmp_path):
    network = make_preset(hub, "vit")
    network.save_to_preset(str(tmp_path / "vit"))
    converter = hub.layers.ViTImageConverter(image_size=(SIDE, SIDE), scale=1 / 255, offset=-0.5)
    converter.save_to_preset(str(tmp_path / "vit"))
    backbone = HubBackbone("vit", str(tmp_path / "vit"))
    expected = outputs(network, grey(), 1 / 255, -0.5)[:, 0]
    assert np.asarray(backbone.build((80, 96))[0](grey())) == pytest.approx(expected, rel=1e-3, abs=1e-4)
    said = backbone.describe()["preprocessing"]
    assert said == "from -0.5 (black) to 0.5 (white) in the first channel, as the preset states it"
    unit = outputs(network, grey(), 1 / 255, 0.0)[:, 0]
    assert np.asarray(backbone.build((80, 96), "", "unit")[0](grey())) == pytest.approx(
        unit, rel=1e-3, abs=1e-4
    )


@pytest.mark.parametrize("there", [True, False])
def test_a_preset_of_hugging_face_by_name_has_the_range_that_is_stated_there(
    hub, tmp_path, monkeypatch, there
):
    import huggingface_hub
    from huggingface_hub.errors import EntryNotFoundError

    write_hugging_face(make_preset(hub, "vit"), tmp_path / "vit-hf")
    asked = []

    def download(repository, name):
        asked.append((repository, name))
        if not there:
            raise EntryNotFoundError("no such file")
        return str(tmp_path / "vit-hf" / name)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    monkeypatch.setattr(hub.layers.ImageConverter, "from_preset", lambda preset: None)
    said = HubBackbone("x", "hf://someone/vit").describe()["preprocessing"]
    assert asked == [("someone/vit", "preprocessor_config.json")]
    stated = "from -2.12 (black) to 2.25 (white) in the first channel, as the preset states it"
    unstated = "from -1 (black) to 1 (white) in the first channel, as the preset states nothing"
    assert said == (stated if there else unstated)


@pytest.mark.parametrize(
    ("said", "range_of_first", "size"),
    [
        ({"image_mean": [0.5] * 3, "image_std": [0.25] * 3, "size": 224}, (-2.0, 2.0), (224, 224)),
        ({"do_normalize": False, "size": {"height": 32, "width": 48}}, (0.0, 1.0), (32, 48)),
        ({"do_rescale": False, "do_normalize": False}, (0.0, 255.0), ()),
        ({"size": {"shortest_edge": 256}, "crop_size": 224}, (-1.0, 1.0), (224, 224)),
        ({"size": {"shortest_edge": 256}, "crop_size": 224, "do_center_crop": False}, (-1.0, 1.0), ()),
    ],
)
def test_what_hugging_face_says_of_the_input_is_understood(said, range_of_first, size):
    from xray_helpers.models.hub import _parse_hugging_face

    scale, offset, sides, stated = _parse_hugging_face(said)
    assert (offset[0], 255 * scale[0] + offset[0]) == pytest.approx(range_of_first)
    assert (sides, stated) == (size, True)


def test_a_dino_sees_pictures_of_the_size_that_its_preset_states(hub, root, tmp_path):
    make_preset(hub, "dinov2").save_to_preset(str(tmp_path / "d"))
    hub.layers.DINOV2ImageConverter(image_size=(48, 48), scale=1 / 255).save_to_preset(str(tmp_path / "d"))
    features, map_layer = HubBackbone("d", str(tmp_path / "d")).build((SIDE, SIDE))
    from xray_helpers.models.graphs import open_model

    assert open_model(features).outputs[map_layer].shape == (None, 3, 3, 32)


def test_what_cannot_be_used_is_a_sentence(hub, root, tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"no preset .config.json. in"):
        HubBackbone("empty", str(tmp_path / "empty")).locate_weights()
    (tmp_path / "empty" / "config.json").write_text("{}")
    with pytest.raises(InputError, match=r"the preset .* cannot be read as a network of pictures"):
        HubBackbone("empty", str(tmp_path / "empty")).build((SIDE, SIDE))
    make_preset(hub, "swin").save_to_preset(str(tmp_path / "swin"))
    with pytest.raises(InputError, match="no class token: give -p pooling=mean"):
        HubBackbone("swin", str(tmp_path / "swin"), "cls").build((SIDE, SIDE))


def test_presets_differ_by_their_files_and_their_pooling(hub, root, tmp_path):
    make_preset(hub, "vit").save_to_preset(str(tmp_path / "a"))
    one, mean = (HubBackbone("a", str(tmp_path / "a"), pooling) for pooling in ("auto", "mean"))
    before = one.identify_weights()
    assert before == HubBackbone("b", str(tmp_path / "a")).identify_weights()
    assert before != mean.identify_weights()
    (tmp_path / "a" / "metadata.json").write_text("{}")
    assert before != one.identify_weights()
    settings = build_settings(models=f"hub:{tmp_path}/a")
    assert resolve_weights("random", settings.models, settings) == "own"
    assert get_backbone("a", settings).locate_weights() == str(tmp_path / "a")
