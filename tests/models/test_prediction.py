import cv2
import numpy as np
import pytest

from xray_helpers.images.radiographs import Radiograph, UnreadableError, check_picture
from xray_helpers.models.out_of_distribution import OODDetector, feature_distance, fit_ood_detector
from xray_helpers.models.prediction import Reader, guard_formulas
from xray_helpers.settings import Classes, InputError


def test_distance_is_one_less_the_mean_cosine_with_the_nearest():
    known = fit_ood_detector(
        np.array([[2.0, 0], [0, 3], [1, 1], [-5, 0], [0, -1], [-1, -1]]), np.ones((2, 2))
    ).features
    assert np.linalg.norm(known, axis=1) == pytest.approx(1)
    half = np.sqrt(0.5)
    nearest = [1, half, 0, 0, -half]  # of six, the one straight behind is left out
    assert feature_distance(np.array([[7.0, 0]]), known) == pytest.approx([1 - np.mean(nearest)])
    assert feature_distance(np.zeros((1, 2)), known) == pytest.approx([1])  # nothing in it: like none


def test_a_hundredth_of_images_like_these_is_called_unlike(tmp_path):
    rng = np.random.default_rng(0)
    draw = lambda n, centre=3.0: rng.normal(centre, 1, size=(n, 50))  # noqa: E731
    found = fit_ood_detector(draw(400), draw(400), seed=1)
    assert found.features.shape == (250, 50)
    assert (feature_distance(draw(5000), found.features) > found.limit).mean() == pytest.approx(
        0.01, abs=0.015
    )
    assert (feature_distance(draw(50, 0.0), found.features) > found.limit).all()
    back = OODDetector.load(found.save(tmp_path / "familiarity.npz"))
    assert (back.features == found.features).all()
    assert back.limit == found.limit


def test_where_the_model_abstains_there_is_no_decision():
    reader = object.__new__(Reader)
    reader.threshold, reader.uncertain, reader.classes = 0.5, (0.4, 0.6), Classes()
    reader._detector = fit_ood_detector(np.random.default_rng(0).normal(size=(50, 3)), np.zeros((2, 3)))
    reader.resize = lambda pixels: pixels
    reader._run = lambda pixels: (np.array([[0.45], [0.3], [0.7]]), np.zeros((3, 3)))
    answers = reader.predict([Radiograph(np.zeros((40, 40), np.uint8), "L", "")] * 3)
    assert [row["decision"] for row in answers] == ["", "Non-Fractured", "Fractured"]
    assert [row["uncertain"] for row in answers] == [True, False, False]


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        ((31, 60), "too small: 60 x 31 pixels"),
        ((600, 100), "very long and thin: 100 x 600 pixels"),
        ((500, 100), ""),
    ],
)
def test_what_is_plainly_no_radiograph_is_noted(shape, said):
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    assert check_picture(Radiograph(pixels, "L", "")).note == said
    assert check_picture(Radiograph(pixels, "L", "", note="first of 2 pages")).note.endswith(
        "first of 2 pages"
    )


def test_a_picture_of_almost_one_grey_is_refused():
    pixels = np.random.default_rng(0).integers(100, 102, (100, 100), dtype=np.uint8)
    with pytest.raises(UnreadableError, match="there is no picture in it"):
        check_picture(Radiograph(pixels, "L", ""))


@pytest.mark.slow
def test_a_model_that_would_run_code_is_refused(tmp_path):
    import keras

    from xray_helpers.models.saved import load_model

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
def test_what_is_no_radiograph_is_unlike_real_radiographs(root, shared):
    """Half of the real sample is known; the rest is compared with photographs, text, noise and blanks."""
    from PIL import Image
    from sklearn.datasets import load_sample_images

    from xray_helpers.data.listing import list_data
    from xray_helpers.data.manifest import inspect_files, read_pictures
    from xray_helpers.images.pixels import resize
    from xray_helpers.models.backbones import get_backbone
    from xray_helpers.models.inference import ForwardPass, choose_backend

    listing = list_data(str(shared / "data" / "fracture-multi-region-sample"))
    readable = inspect_files(listing).query("status == 'readable'")["path"].sample(300, random_state=0)
    photos = [np.asarray(Image.fromarray(photo).convert("L")) for photo in load_sample_images().images]
    page = np.full((600, 450), 255, np.uint8)
    for line in range(20, 590, 18):
        cv2.putText(
            page, "a page of plain text, no bone in it", (20, line), cv2.FONT_HERSHEY_SIMPLEX, 0.6, 0, 1
        )
    noise = np.random.default_rng(0).integers(0, 256, (300, 300), dtype=np.uint8)
    ramp = np.tile(np.linspace(0, 255, 300).astype(np.uint8), (300, 1))
    others = [*photos, page, noise, ramp, *(np.full((300, 300), grey, np.uint8) for grey in (0, 128, 255))]
    pixels = np.stack([resize(p, (224, 224)) for p in [*read_pictures(readable, listing.folder), *others]])
    extractor = get_backbone("MobileNetV2").build((224, 224), str(shared / "weights"))[0]
    forward = ForwardPass(extractor, choose_backend())
    x = np.concatenate([forward(pixels[at : at + 32]) for at in range(0, len(pixels), 32)])
    found = fit_ood_detector(x[:150], x[150:250])
    unlike = feature_distance(x[250:], found.features) > found.limit
    assert unlike[-len(others) :].all()
    assert unlike[: -len(others)].mean() < 0.1


def test_names_that_a_spreadsheet_would_take_for_formulas_are_quoted_off():
    assert guard_formulas(["=1+1.png", "+a", "-a", "@a", "\ta", "a=b.png", ""]) == [
        "'=1+1.png",
        "'+a",
        "'-a",
        "'@a",
        "'\ta",
        "a=b.png",
        "",
    ]
