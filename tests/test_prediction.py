import numpy as np
import pytest

from xray_helpers.prediction import Reader, feature_distance, measure_familiarity, note_oddities
from xray_helpers.radiographs import Radiograph
from xray_helpers.settings import InputError


def test_distance_is_the_mean_squared_standard_score():
    train = np.array([[0.0, 10.0], [2.0, 30.0]])
    table = measure_familiarity(train, train)
    assert table["mean"].tolist() == [1, 20]
    assert table["standard_deviation"].tolist() == [1, 10]
    assert feature_distance(np.array([[1.0, 20.0], [3.0, 20.0], [1.0, 50.0]]), table).tolist() == [0, 2, 4.5]
    assert table["limit"].tolist() == [1, 1]


def test_a_hundredth_of_images_like_these_is_called_unlike():
    rng = np.random.default_rng(0)
    table = measure_familiarity(rng.normal(size=(400, 50)), rng.normal(size=(400, 50)))
    limit = table["limit"].iloc[0]
    assert (feature_distance(rng.normal(size=(5000, 50)), table) > limit).mean() == pytest.approx(0.01, abs=0.015)
    assert (feature_distance(rng.normal(2, 1, size=(50, 50)), table) > limit).all()


def test_features_that_never_vary_do_not_decide_alone():
    train = np.concatenate([np.random.default_rng(0).normal(size=(50, 9)), np.zeros((50, 1))], axis=1)
    table = measure_familiarity(train, train)
    assert (table["standard_deviation"] > 0).all()
    assert np.isfinite(feature_distance(train + 1, table)).all()


def test_where_the_model_abstains_there_is_no_decision():
    reader = object.__new__(Reader)
    reader.threshold, reader.uncertain = 0.5, (0.4, 0.6)
    reader._familiarity = measure_familiarity(np.random.default_rng(0).normal(size=(50, 3)), np.zeros((2, 3)))
    reader.resize = lambda pixels: pixels
    reader._both = lambda pixels: (np.array([[0.45], [0.3], [0.7]]), np.zeros((3, 3)))
    answers = reader.judge([Radiograph(np.zeros((40, 40), np.uint8), "L", "")] * 3)
    assert [row["decision"] for row in answers] == ["", "Non-Fractured", "Fractured"]
    assert [row["uncertain"] for row in answers] == [True, False, False]


@pytest.mark.parametrize(
    ("shape", "grey", "said"),
    [
        ((100, 100), True, "almost one grey: there is no picture in it"),
        ((31, 60), False, "too small: 60 x 31 pixels"),
        ((600, 100), False, "very long and thin: 100 x 600 pixels"),
        ((500, 100), False, ""),
    ],
)
def test_what_is_plainly_no_radiograph_is_noted(shape, grey, said):
    pixels = np.random.default_rng(0).integers(0, 2 if grey else 256, shape, dtype=np.uint8)
    assert note_oddities(Radiograph(pixels, "L", "")).note == said
    assert note_oddities(Radiograph(pixels, "L", "", note="first of 2 pages")).note.endswith("first of 2 pages")


@pytest.mark.slow
def test_a_model_that_would_run_code_is_refused(tmp_path):
    import keras

    from xray_helpers.training import load_model

    inputs = keras.Input((4,))
    model = keras.Model(inputs, keras.layers.Lambda(lambda x: x * 2)(inputs))
    (tmp_path / "Evil").mkdir()
    model.save(tmp_path / "Evil" / "model.keras")
    with pytest.raises(InputError, match=r"Evil/model\.keras is refused"):
        load_model(tmp_path / "Evil" / "model.keras")
    (tmp_path / "Evil" / "model.keras").write_bytes(b"no model")
    with pytest.raises(InputError, match="is refused: it is damaged"):
        load_model(tmp_path / "Evil" / "model.keras")


@pytest.mark.slow
def test_grey_photographs_are_unlike_real_radiographs(root, shared):
    """ImageNet MobileNetV2, trained on half of the real sample, judged on the rest and on two photographs without colour."""
    from PIL import Image
    from sklearn.datasets import load_sample_images

    from xray_helpers.backbones import build_extractor
    from xray_helpers.engines import ForwardPass, choose_engine
    from xray_helpers.manifest import inspect_files, list_data, read_pictures
    from xray_helpers.pixels import resize

    listing = list_data(str(shared / "data" / "fracture-multi-region-sample"))
    readable = inspect_files(listing).query("status == 'readable'")["path"].sample(300, random_state=0)
    photos = [np.asarray(Image.fromarray(photo).convert("L")) for photo in load_sample_images().images]
    pixels = np.stack([resize(p, (224, 224)) for p in [*read_pictures(readable, listing.folder), *photos]])
    extractor = build_extractor("MobileNetV2", (224, 224), str(shared / "weights"))
    forward = ForwardPass(extractor, choose_engine())
    x = np.concatenate([forward(pixels[at : at + 32]) for at in range(0, len(pixels), 32)])
    table = measure_familiarity(x[:150], x[150:250])
    distance = feature_distance(x[250:], table)
    limit = table["limit"].iloc[0]
    assert (distance[-len(photos) :] > limit).all()
    assert (distance[: -len(photos)] > limit).mean() < 0.1
