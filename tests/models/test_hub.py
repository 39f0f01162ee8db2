"""Presets of KerasHub as backbones: small networks with random weights, in the layouts of their makers."""

import json

import numpy as np
import pytest

from xray_helpers.models.backbones import get_backbone, resolve_weights
from xray_helpers.models.hub import HubBackbone
from xray_helpers.settings import InputError, Settings, build_settings

pytestmark = pytest.mark.slow
SIDE = 64


@pytest.fixture(scope="module")
def hub():
    return pytest.importorskip("keras_hub", reason="KerasHub is not installed: run `make hub`")


def make(hub, kind):
    """Return a small network of a kind, with weights that differ from layer to layer."""
    import keras

    keras.utils.set_random_seed(0)
    shape, small = {"image_shape": (SIDE, SIDE, 3)}, {"num_layers": 3, "num_heads": 2, "hidden_dim": 32}
    models, wide = hub.models, {"intermediate_dim": 64}
    network = {
        "vit": lambda: models.ViTBackbone(patch_size=16, mlp_dim=64, **small, **shape),
        "deit": lambda: models.DeiTBackbone(patch_size=16, **wide, **small, **shape),
        "dinov2": lambda: models.DINOV2Backbone(
            patch_size=16,
            num_register_tokens=2,
            position_embedding_shape=(SIDE, SIDE),
            **wide,
            **small,
            **shape,
        ),
        "dinov3": lambda: models.DINOV3Backbone(patch_size=16, **wide, **small, **shape),
        "siglip": lambda: models.SigLIPVisionEncoder(patch_size=16, **wide, **small, **shape),
        "swin": lambda: models.SwinTransformerBackbone(
            embed_dim=16, depths=(1, 1, 2), num_heads=(1, 2, 4), window_size=4, **shape
        ),
        "resnet": lambda: models.ResNetBackbone(
            input_conv_filters=[64],
            input_conv_kernel_sizes=[7],
            stackwise_num_filters=[64, 64],
            stackwise_num_blocks=[1, 1],
            stackwise_num_strides=[1, 2],
            block_type="basic_block",
        ),
    }[kind]()
    rng = np.random.default_rng(0)
    for weight in network.trainable_variables:
        weight.assign_add(rng.normal(0, 0.02, weight.shape))
    return network


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
    from xray_helpers.models.head import build_head, join_model, load_model, save_model

    network = make(hub, kind)
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

    make(hub, kind).save_to_preset(str(tmp_path / kind))
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

    make(hub, kind).save_to_preset(str(tmp_path / kind))
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


def write_hugging_face(network, folder):
    """Write a ViT of KerasHub in the layout of Hugging Face: config.json, model.safetensors, its input."""
    from safetensors.numpy import save_file

    folder.mkdir()
    config = {"model_type": "vit", "image_size": SIDE, "patch_size": 16, "num_hidden_layers": 3}
    config |= {"num_attention_heads": 2, "hidden_size": 32, "intermediate_size": 64, "qkv_bias": True}
    config |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "architectures": ["ViTModel"]}
    (folder / "config.json").write_text(json.dumps(config))
    said = {
        "do_normalize": True,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "size": {"height": 64, "width": 64},
    }
    said |= {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
    (folder / "preprocessor_config.json").write_text(json.dumps(said))
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n# A ViT\n")
    embedding, encoder = network.layers[1], network.layers[2]
    at = "vit.embeddings"
    tensors = {
        f"{at}.patch_embeddings.projection.weight": np.asarray(embedding.patch_embedding.kernel).transpose(
            3, 2, 0, 1
        ),
        f"{at}.patch_embeddings.projection.bias": np.asarray(embedding.patch_embedding.bias),
        f"{at}.cls_token": np.asarray(embedding.class_token),
        f"{at}.position_embeddings": np.asarray(embedding.position_embedding.embeddings)[None],
    }

    def add(name, layer):
        kernel = layer.kernel if hasattr(layer, "kernel") else layer.gamma
        bias = layer.bias if hasattr(layer, "kernel") else layer.beta
        width = 32 if "attention" in name else kernel.shape[-1]
        tensors[f"{name}.weight"] = (
            np.asarray(kernel).reshape(-1, width).T if kernel.ndim > 1 else np.asarray(kernel)
        )
        tensors[f"{name}.bias"] = np.asarray(bias).reshape(-1)

    for number, block in enumerate(encoder.encoder_layers):
        at = f"vit.encoder.layer.{number}"
        for part in ("query", "key", "value"):
            add(f"{at}.attention.attention.{part}", getattr(block.mha, f"{part}_dense"))
        add(f"{at}.attention.output.dense", block.mha.output_dense)
        add(f"{at}.layernorm_before", block.layer_norm_1)
        add(f"{at}.layernorm_after", block.layer_norm_2)
        add(f"{at}.intermediate.dense", block.mlp.dense_1)
        add(f"{at}.output.dense", block.mlp.dense_2)
    add("vit.layernorm", encoder.layer_norm)
    save_file(
        {name: np.ascontiguousarray(value) for name, value in tensors.items()}, folder / "model.safetensors"
    )


def test_a_folder_of_hugging_face_has_its_own_range(hub, root, tmp_path):
    network = make(hub, "vit")
    write_hugging_face(network, tmp_path / "vit-hf")
    backbone = HubBackbone("vit-hf", str(tmp_path / "vit-hf"))
    std = np.array([0.229, 0.224, 0.225])
    expected = outputs(network, grey(), 1 / 255 / std, -np.array([0.485, 0.456, 0.406]) / std)[:, 0]
    assert np.asarray(backbone.build((80, 96))[0](grey())) == pytest.approx(expected, rel=1e-3, abs=1e-4)
    assert backbone.licence == "apache-2.0"


def test_the_range_of_a_keras_preset_is_read(hub, root, tmp_path):
    network = make(hub, "vit")
    network.save_to_preset(str(tmp_path / "vit"))
    converter = hub.layers.ViTImageConverter(image_size=(SIDE, SIDE), scale=1 / 255, offset=-0.5)
    converter.save_to_preset(str(tmp_path / "vit"))
    backbone = HubBackbone("vit", str(tmp_path / "vit"))
    expected = outputs(network, grey(), 1 / 255, -0.5)[:, 0]
    assert np.asarray(backbone.build((80, 96))[0](grey())) == pytest.approx(expected, rel=1e-3, abs=1e-4)
    assert backbone.describe()["preprocessing"] == "as the preset states it"
    unit = outputs(network, grey(), 1 / 255, 0.0)[:, 0]
    assert np.asarray(backbone.build((80, 96), "", "unit")[0](grey())) == pytest.approx(
        unit, rel=1e-3, abs=1e-4
    )


def test_a_dino_sees_pictures_of_the_size_that_its_preset_states(hub, root, tmp_path):
    make(hub, "dinov2").save_to_preset(str(tmp_path / "d"))
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
    make(hub, "swin").save_to_preset(str(tmp_path / "swin"))
    with pytest.raises(InputError, match="no class token: give -p pooling=mean"):
        HubBackbone("swin", str(tmp_path / "swin"), "cls").build((SIDE, SIDE))


def test_presets_differ_by_their_files_and_their_pooling(hub, root, tmp_path):
    make(hub, "vit").save_to_preset(str(tmp_path / "a"))
    one, mean = (HubBackbone("a", str(tmp_path / "a"), pooling) for pooling in ("auto", "mean"))
    before = one.identify_weights()
    assert before == HubBackbone("b", str(tmp_path / "a")).identify_weights()
    assert before != mean.identify_weights()
    (tmp_path / "a" / "metadata.json").write_text("{}")
    assert before != one.identify_weights()
    settings = build_settings(models=f"hub:{tmp_path}/a")
    assert resolve_weights("random", settings.models, settings) == "own"
    assert get_backbone("a", settings).locate_weights() == str(tmp_path / "a")
