"""Names of models and where they come from; `.keras` files as backbones."""

import importlib.util

import numpy as np
import pytest

from xray_helpers.models.backbones import get_backbone
from xray_helpers.models.hub import HubBackbone
from xray_helpers.models.keras_files import FileBackbone
from xray_helpers.settings import InputError, build_settings
from xray_helpers.study.files import read_json
from xray_helpers.study.folders import open_study, redact, shareable, with_local_sources


@pytest.mark.parametrize(
    ("models", "names", "sources"),
    [
        ("VGG16, ResNet50@radimagenet", ("VGG16", "ResNet50@radimagenet"), {}),
        ("hub:dinov2_small", ("dinov2_small",), {"dinov2_small": "hub:dinov2_small"}),
        ("[hub:/a/b/vit/, VGG16]", ("vit", "VGG16"), {"vit": "hub:/a/b/vit/"}),
        ("file:nets/mine.keras?layer=pool", ("mine",), {"mine": "file:nets/mine.keras?layer=pool"}),
        (["one=hub:/a/vit", "two=hub:/b/vit"], ("one", "two"), {"one": "hub:/a/vit", "two": "hub:/b/vit"}),
        ("mine = hub: /x/vit (1)", ("mine",), {"mine": "hub:/x/vit (1)"}),
        (["hub:hf://google/vit-base"], ("vit-base",), {"vit-base": "hub:hf://google/vit-base"}),
    ],
)
def test_models_have_names_and_sources(models, names, sources):
    settings = build_settings(models=models)
    assert settings.models == names
    assert settings.sources == sources
    again = build_settings(**settings.model_dump())  # as a study stores them
    assert (again.models, again.sources) == (names, sources)


@pytest.mark.parametrize(
    ("models", "words"),
    [
        ("[hub:/a/vit, hub:/b/vit]", "two models are called 'vit'"),
        ("hub:..", "cannot be called '..'"),
        ("_best=file:x.keras", "cannot be called '_best'"),
        ("file:Röntgen.keras", "cannot be called 'Röntgen'"),
        ("mine@2=hub:/a/vit", "cannot be called 'mine@2'"),
        ("file:/x/lab.keras", "cannot be called 'lab'"),
        ("validation=hub:/x/vit", "cannot be called 'validation'"),
        ("study.json=hub:/x", "cannot be called 'study.json'"),
        ("[VGG16, VGG16]", "each once"),
    ],
)
def test_names_that_clash_are_refused(models, words):
    with pytest.raises(InputError, match=words) as caught:
        build_settings(models=models)
    assert str(caught.value).startswith("models = ")


def test_places_of_models_stay_on_this_machine(root, tmp_path):
    settings = build_settings(name="s", models=[f"hub:{tmp_path}/vit", "hub:vit_base"], data="phantoms")
    shown = shareable(settings)["sources"]
    assert shown == {"vit": "local", "vit_base": "hub:vit_base"}
    study = open_study(settings)
    assert str(tmp_path) not in (study / "study.json").read_text()
    stored = build_settings(**read_json(study / "study.json")["settings"])
    assert with_local_sources(study, stored).sources == settings.sources
    assert str(tmp_path) not in redact(f"read {tmp_path}/vit/config.json", study)
    (study / "local.json").unlink()
    with pytest.raises(InputError, match="does not know where vit lies on this machine"):
        with_local_sources(study, stored)


def test_without_kerashub_a_sentence_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="needs KerasHub, which is not installed: run `make hub`"):
        HubBackbone("vit", str(tmp_path)).locate_weights()


@pytest.mark.parametrize(
    ("place", "binds"),
    [
        ("dinov3_vit_small_lvd1689m", "DINOv3 License"),
        ("medsiglip_900m_448", "Health AI Developer Foundations"),
        ("hf://microsoft/rad-dino", "Microsoft Research License"),
        ("dinov2_small", ""),
        ("hf://lab/xray-vit-nc", ""),
    ],
)
def test_licences_that_bind_are_told(place, binds):
    licence = HubBackbone("x", place).licence
    assert ("bind" in licence) == bool(binds)
    assert binds in licence


def test_a_licence_is_known_of_presets_of_kerashub_alone(tmp_path):
    assert HubBackbone("x", "vit_base_patch16_224_imagenet").licence == "Apache-2.0"
    assert HubBackbone("x", "hf://lab/xray-vit-nc").licence == ""
    folder = tmp_path / "activities"
    folder.mkdir()
    assert HubBackbone("x", str(folder)).licence == ""


@pytest.mark.parametrize("sources", [{"VGG16": "/home/u/x.keras"}, {"../../x": "hub:/x"}])
def test_sources_by_hand_are_checked(sources):
    with pytest.raises(InputError):
        build_settings(models=list(sources), sources=sources)


def test_a_study_of_presets_keeps_the_weights_that_the_search_for_copies_uses(root, tmp_path, monkeypatch):
    from xray_helpers.models import backbones
    from xray_helpers.runner.preparation import prepare

    monkeypatch.setattr(backbones.HubBackbone, "locate_weights", lambda self, weights="": self.place)
    settings = build_settings(name="s", models=f"hub:{tmp_path}/vit", data="phantoms", weights="random")
    assert prepare(settings).weights == "random"
    assert prepare(build_settings(name="t", models="hub:vit", data="phantoms")).weights == "imagenet"


def test_a_licence_stated_in_a_folder_counts(root, tmp_path):
    (tmp_path / "README.md").write_text("---\nlicense: other\nlicense_name: msrla\n---\n")
    assert "research only" in HubBackbone("x", str(tmp_path)).licence


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A model as students save it: a network inside, pooling, dropout and a dense layer."""
    import keras

    keras.utils.set_random_seed(0)
    inside = keras.applications.MobileNetV2(
        include_top=False, weights=None, input_shape=(64, 64, 3), alpha=0.35
    )
    model = keras.Sequential(
        [
            keras.Input((64, 64, 3)),
            keras.layers.Rescaling(1 / 127.5, -1),
            inside,
            keras.layers.GlobalAveragePooling2D(name="pool"),
            keras.layers.Dropout(0.5),
            keras.layers.Dense(16, activation="relu", name="embedding"),
            keras.layers.Dense(3, activation="softmax", name="classes"),
        ]
    )
    path = tmp_path_factory.mktemp("nets") / "mine.keras"
    model.save(path)
    return model, path


@pytest.mark.slow
def test_a_keras_file_gives_the_features_of_its_last_pooled_layer(trained, root):
    import keras

    from xray_helpers.models.graphs import open_model

    model, path = trained
    grey = np.random.default_rng(0).uniform(0, 255, (2, 64, 64, 1)).astype("float32")
    three = np.repeat(grey, 3, axis=-1)
    for options, layer in (("", "pool"), ("?layer=embedding", "embedding")):
        backbone = get_backbone("mine", build_settings(models=f"file:{path}{options}"))
        features, map_layer = backbone.build((64, 64), "own")
        expected = np.asarray(keras.Model(model.inputs, model.get_layer(layer).output)(three, training=False))
        assert np.asarray(features(grey)) == pytest.approx(expected, rel=1e-4, abs=1e-6)
        assert open_model(features).outputs[map_layer].shape == (None, 2, 2, 1280)
    resized = FileBackbone("mine", str(path)).build((80, 96))[0]
    assert np.isfinite(np.asarray(resized(np.zeros((1, 80, 96, 1), "float32")))).all()
    assert backbone.describe()["weights_of"] == "the file mine.keras, up to its layer embedding"


@pytest.mark.slow
def test_a_pool_within_a_block_is_not_taken_for_the_features(root, tmp_path):
    import keras

    small = keras.applications.MobileNetV3Small(include_top=False, weights=None, input_shape=(64, 64, 3))
    small.save(tmp_path / "headless.keras")
    grey = np.random.default_rng(0).uniform(0, 255, (2, 64, 64, 1)).astype("float32")
    found = np.asarray(FileBackbone("h", str(tmp_path / "headless.keras")).build((64, 64))[0](grey))
    expected = np.asarray(small(np.repeat(grey, 3, axis=-1), training=False)).mean(axis=(1, 2))
    assert found == pytest.approx(expected, rel=1e-3, abs=1e-6)
    inputs = keras.Input((64, 64, 1))
    patches = keras.layers.Reshape((16, 256))(inputs)
    keras.Model(inputs, keras.layers.Dense(2)(patches[:, 0])).save(tmp_path / "token.keras")
    with pytest.raises(InputError, match="has no layer that pools"):
        FileBackbone("t", str(tmp_path / "token.keras")).build((64, 64))


@pytest.mark.slow
def test_a_file_that_cannot_be_used_is_a_sentence(trained, root, tmp_path):
    import keras

    _, path = trained
    cases = {
        f"{path}?layer=pol": "no layer 'pol'; did you mean pool",
        f"{path}?layers=pool": "no option 'layers'; did you mean layer",
        f"{path}?preprocessing=cafe": "no preprocessing 'cafe'; did you mean caffe",
        str(tmp_path / "none.keras"): "there is no file",
    }
    (tmp_path / "broken.keras").write_bytes(b"no archive")
    cases[str(tmp_path / "broken.keras")] = "is refused: it is damaged"
    keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)]).save(tmp_path / "table.keras")
    cases[str(tmp_path / "table.keras")] = r"takes \(None, 4\), not pictures"
    code = keras.Sequential([keras.Input((64, 64, 1)), keras.layers.Lambda(lambda x: x)])
    code.save(tmp_path / "code.keras")
    cases[str(tmp_path / "code.keras")] = "would run code of its own"
    for place, words in cases.items():
        with pytest.raises(InputError, match=words):
            FileBackbone("x", place).build((64, 64))
