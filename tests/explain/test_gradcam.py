import numpy as np
import pandas as pd
import pytest

from xray_helpers.explain.gradcam import find_layer, occlude
from xray_helpers.explain.images import choose_images
from xray_helpers.explain.localization import (
    MIN_GROUPS,
    EvaluatedMaps,
    assess_saliency,
    choose_controlled,
    choose_shown,
    describe_maps,
    display_size,
    evaluate_agreement,
    evaluate_maps,
    find_boxes,
    places_table,
    read_shown,
    sanity_table,
)
from xray_helpers.explain.maps import build_maps, fit_map, rank_agreement, read_maps, seen_size
from xray_helpers.explain.overlap import pointing_game
from xray_helpers.settings import InputError

SIZE = (8, 8)


def test_occlusion_finds_the_one_place_that_matters():
    pictures = np.full((1, 60, 60), 90, np.uint8)
    pictures[0, 42:48, 12:18] = 250

    def predict(batch):
        return 0.1 + 0.8 * (batch[:, 42:48, 12:18].mean(axis=(1, 2)) > 200)

    grid = occlude(predict, pictures, grid=6)[0]
    assert np.unravel_index(grid.argmax(), grid.shape) == (4, 1)
    assert grid.max() == pytest.approx(np.log(0.9 / 0.1) * 2, rel=1e-5)  # from P = 0.9 to P = 0.1
    assert grid[0, 0] == 0


def test_agreement_is_spearmans_and_0_for_a_flat_map():
    one = np.array([[[1.0, 2], [3, 4]]])
    assert rank_agreement(one, np.array([[[10.0, 20], [30, 99]]]))[0] == pytest.approx(1)
    assert rank_agreement(one, -one)[0] == pytest.approx(-1)
    assert rank_agreement(one, np.ones((1, 2, 2)))[0] == 0


def test_maps_survive_their_table():
    maps = np.random.default_rng(0).random((3, 4, 5)).astype(np.float32)
    table = pd.concat(
        [build_maps("abc", "Grad-CAM", maps, (9, 7)), build_maps("a", "occlusion", maps[:1], (9, 7))]
    )
    back = read_maps(table)
    assert seen_size(table) == (9, 7)
    assert seen_size(table.iloc[:0]) is None
    assert list(back) == ["a", "b", "c"]
    assert np.allclose(back["b"], maps[1], rtol=1e-3)
    assert list(read_maps(table, "occlusion")) == ["a"]


def test_images_are_half_fractured_as_far_as_can_be():
    part = pd.DataFrame({"path": range(20), "y_true": [1] * 4 + [0] * 16})
    chosen = choose_images(part, 10, seed=1)
    assert chosen["y_true"].sum() == 4
    assert choose_images(part, 6, seed=1)["y_true"].sum() == 3
    assert choose_images(part, 10, seed=1)["path"].tolist() == chosen["path"].tolist()
    assert choose_images(part, 0, seed=1).empty


def test_boxes_follow_the_resize():
    row = {"width": 200, "height": 100, "boxes": "0 0 100 50; 100 50 200 100"}
    stretched = find_boxes(pd.DataFrame([row]), (100, 100))[0]
    assert stretched.tolist() == [[0, 0, 50, 50], [50, 50, 100, 100]]
    padded = find_boxes(pd.DataFrame([row]), (100, 100), "pad")[0]
    assert padded.tolist() == [[0, 25, 50, 50], [50, 50, 100, 75]]
    phantom = {"width": 200, "height": 100, "box_left": 20, "box_top": 10, "box_right": 40, "box_bottom": 20}
    both = find_boxes(pd.DataFrame([phantom, {"width": 9, "height": 9}]), (100, 100))
    assert both[0].tolist() == [[10, 10, 20, 20]]
    assert both[1].shape == (0, 4)


@pytest.mark.parametrize("way", ["stretch", "pad"])
@pytest.mark.parametrize(
    ("shape", "size"), [((100, 200), (64, 64)), ((200, 100), (64, 64)), ((120, 120), (64, 128))]
)
def test_a_map_lies_over_the_same_place_of_the_picture_as_of_what_the_model_saw(shape, size, way):
    """A bright spot is the picture, and its own grey values at the model's size are the map."""
    from xray_helpers.images.pixels import resize

    picture = np.zeros(shape, np.uint8)
    down, across = round(0.2 * shape[0]), round(0.7 * shape[1])
    picture[down - 8 : down + 8, across - 8 : across + 8] = 255
    grid = resize(picture, size, way).astype(np.float32)
    fitted = fit_map(grid, shape, size, way)
    at = np.unravel_index(fitted.argmax(), fitted.shape)
    assert at[0] / fitted.shape[0] == pytest.approx(0.2, abs=0.08)
    assert at[1] / fitted.shape[1] == pytest.approx(0.7, abs=0.08)
    if way == "pad":
        assert fitted.shape[0] / fitted.shape[1] == pytest.approx(shape[0] / shape[1], rel=0.05)


@pytest.mark.parametrize("way", ["stretch", "pad"])
@pytest.mark.parametrize(
    ("shape", "size"), [((100, 200), (64, 64)), ((200, 100), (64, 64)), ((120, 120), (64, 128))]
)
def test_maps_boxes_and_shown_pictures_share_one_frame(tmp_path, shape, size, way):
    """A map that is the picture as the model saw it, bright in the box alone, hits the box."""
    from PIL import Image

    from xray_helpers.images.pixels import resize
    from xray_helpers.images.radiographs import ImageFolder

    picture = np.zeros(shape, np.uint8)
    picture[20:40, 60:90] = 255
    Image.fromarray(picture).save(tmp_path / "a.png")
    part = pd.DataFrame(
        {"path": ["a.png"], "group": ["p"], "height": shape[0], "width": shape[1], "boxes": "60 20 90 40"}
    )
    seen = resize(picture, size, way).astype(np.float32)[None]
    judged = evaluate_maps(build_maps(["a.png"], "Grad-CAM", seen, size), part, way)
    assert judged.frame[0] / judged.frame[1] == size[0] / size[1]
    assert judged.places["hit"].iloc[0] == 1
    assert judged.places["energy"].iloc[0] > 0.85  # but for what interpolation spreads
    shown = read_shown(part, ImageFolder(tmp_path, resize=way), judged.frame)[0]
    left, top, right, bottom = judged.boxes["a.png"][0].round().astype(int)
    assert shown.shape == judged.frame
    assert shown[top + 2 : bottom - 2, left + 2 : right - 2].min() > 200
    outside = shown.copy()
    outside[top - 2 : bottom + 2, left - 2 : right + 2] = 0
    assert outside.max() < 60


def test_the_frame_keeps_the_proportions_of_what_the_model_sees():
    assert display_size((128, 256)) == (112, 224)
    assert display_size((299, 299)) == display_size(None) == (224, 224)


def test_pointing_game_and_energy_by_hand():
    inside, outside = np.zeros(SIZE, np.float32), np.zeros(SIZE, np.float32)
    inside[1, 1], inside[6, 6] = 3, 1  # three quarters of the energy in the box
    outside[6, 6] = 1
    part = pd.DataFrame({"path": ["a", "b", "c"], "group": ["p", "q", "r"]})
    box = np.array([[0.0, 0, 4, 4]])
    places = pointing_game({"a": inside, "b": outside, "c": inside}, part, [box, box, np.zeros((0, 4))], SIZE)
    cam, blob, less = places.itertuples()
    assert (cam.hit, cam.energy, cam.n, cam.area) == (0.5, 0.375, 2, 0.25)
    assert np.isnan([cam.hit_low, cam.hit_high]).all()  # two groups are no evidence
    assert blob.energy == pytest.approx(0.25)  # a centred blob has a quarter of itself in a quarter
    assert less.energy == pytest.approx(cam.energy - blob.energy)
    assert cam.over_area == pytest.approx(0.375 - 0.25)
    assert cam.over_others == pytest.approx(
        0
    )  # the other image's map lies as well on the same box, in the mean
    assert np.isnan(less.over_area)
    shown = places_table(places)
    assert shown["map"].tolist() == ["Grad-CAM", "centred blob", "Grad-CAM less blob"]
    assert shown["more than by chance"].tolist()[2] == ""


def test_a_map_of_nothing_points_nowhere_and_no_boxes_measure_nothing():
    part = pd.DataFrame({"path": ["a"], "group": ["p"]})
    empty = {"a": np.zeros(SIZE, np.float32)}
    assert pointing_game(empty, part, [np.array([[0.0, 0, 8, 8]])], SIZE)["hit"].iloc[0] == 0
    assert pointing_game(empty, part, [np.zeros((0, 4))], SIZE).empty


def sanity(correlation, n=12, empty=0):
    return pd.DataFrame(
        [
            {
                "permuted": "all layers",
                "layers": 9,
                "correlation": correlation,
                "ci_low": correlation - 0.1,
                "ci_high": correlation + 0.1,
                "n": n,
                "empty": empty,
                "n_groups": n,
                "permutations": 3,
                "emptied": 0.0,
            }
        ]
    )


AGREEMENT = {"value": 0.4, "ci_low": 0.3, "ci_high": 0.5, "n": 5, "empty": 0}


@pytest.mark.parametrize(
    ("correlation", "seen", "words"),
    [
        (0.9, "there", "must not be believed**: they stay"),
        (0.1, "there", "may be believed as hints"),
        (0.45, "there", "is not known**: on 12 images of 12 groups it is not shown that they change"),
        (0.55, "there", "is not known**: on 12 images of 12 groups it is not shown that they change"),
        (0.1, "elsewhere", "must not be believed**: less of them lies"),
        (0.55, "elsewhere", "must not be believed**: less of them lies"),
        (0.1, None, "is not known"),
    ],
)
def test_the_sentence_says_whether_maps_may_be_believed(correlation, seen, words):
    rng = np.random.default_rng(0)
    part = pd.DataFrame({"path": range(30), "group": range(30)})
    corners = [(1, 1), (1, 6), (6, 1), (6, 6)]
    maps, boxes = {}, []
    for i in range(30):
        maps[i] = 0.01 * rng.random(SIZE).astype(np.float32)
        row, column = corners[i % 4]
        maps[i][row if seen == "there" else 7 - row, column] = 1
        box = np.array([[column - 1.0, row - 1, column + 2, row + 2]])
        boxes.append(box if seen else np.zeros((0, 4)))
    places = pointing_game(maps, part, boxes, SIZE)
    told = describe_maps(EvaluatedMaps(maps, {}, places, AGREEMENT, SIZE), sanity(correlation))
    verdict = assess_saliency(EvaluatedMaps(maps, {}, places, AGREEMENT, SIZE), sanity(correlation))
    assert words in told
    assert told.startswith(verdict.sentence)
    assert verdict.believed is {"must": False, "may": True, "is": None}[words.split()[0]]
    assert "empty" not in told
    assert "n = 5: they agree" in told


def test_an_interval_across_the_margin_shows_nothing_either_way():
    here, elsewhere = np.zeros(SIZE, np.float32), np.zeros(SIZE, np.float32)
    here[1, 1] = elsewhere[6, 6] = 1
    box = np.array([[0.0, 0, 4, 4]])  # of which chance has a quarter, and so have the maps in the mean
    maps = {i: elsewhere if i % 4 else here for i in range(12)}
    places = pointing_game(maps, pd.DataFrame({"path": range(12), "group": range(12)}), [box] * 12, SIZE)
    told = assess_saliency(EvaluatedMaps(maps, {}, places, AGREEMENT, SIZE), sanity(0.1))
    assert told.believed is None
    assert "on 12 images of 12 groups it is not shown" in told.sentence


@pytest.mark.parametrize("count", [1, 2, 5, MIN_GROUPS - 1])
def test_few_groups_are_no_evidence_however_many_images(count):
    """Perfect maps, ten images a group; neither the places nor the control say anything from so few."""
    maps, boxes = draw_study(np.random.default_rng(0), "true", 10 * count)
    part = pd.DataFrame({"path": range(10 * count), "group": np.arange(10 * count) % count})
    places = pointing_game(maps, part, boxes, FRAME)
    verdict = assess_saliency(EvaluatedMaps(maps, {}, places, AGREEMENT, FRAME), sanity(0.1))
    assert verdict.believed is None
    assert f"of {count} groups, where {MIN_GROUPS} groups are needed" in verdict.sentence
    many, boxes = draw_study(np.random.default_rng(0), "true", 30)
    places = pointing_game(many, pd.DataFrame({"path": range(30), "group": range(30)}), boxes, FRAME)
    for correlation in (0.1, 0.9):
        verdict = assess_saliency(
            EvaluatedMaps(many, {}, places, AGREEMENT, FRAME), sanity(correlation, count)
        )
        assert verdict.believed is None


FRAME = (28, 28)


def draw_study(rng, kind, count):
    """Return maps of 7 x 7 places by path, and boxes in `FRAME`: where fractures lie, mostly right above the
    middle.
    """
    maps, boxes = {}, []
    y, x = (np.mgrid[:7, :7] + 0.5) * 4
    for number in range(count):
        across, down = np.clip(rng.normal((18, 10), 4), 4, 24)
        boxes.append(np.array([[across - 4, down - 3, across + 4, down + 3]]))
        noise = rng.gamma(1.0, size=(7, 7))
        maps[number] = {
            "noise": noise,
            "sparse noise": np.where(rng.random((7, 7)) < 0.15, noise, 0),
            "nearly uniform": 1 + 1e-3 * noise,
            "uniform": np.full((7, 7), 0.3),
            "blob": np.exp(-((x - 14) ** 2 + (y - 14) ** 2) / 60) + 0.01 * noise,
            "where fractures mostly are": np.exp(-((x - 18) ** 2 + (y - 10) ** 2) / 60) + 0.01 * noise,
            "true": np.exp(-((x - across) ** 2 + (y - down) ** 2) / 40) + 0.1 * noise,
        }[kind].astype(np.float32)
    return maps, boxes


@pytest.mark.parametrize(
    "kind",
    ["noise", "sparse noise", "nearly uniform", "uniform", "blob", "where fractures mostly are", "true"],
)
def test_maps_that_know_nothing_are_not_believed_and_true_ones_are(kind):
    """200 studies of 24 images of 12 to 24 patients, with a control that could not be better."""
    believed, studies = 0, 200
    for study in range(studies):
        rng = np.random.default_rng([study, 1])
        maps, boxes = draw_study(rng, kind, 24)
        part = pd.DataFrame({"path": range(24), "group": np.arange(24) % (24 if study % 2 else 12)})
        places = pointing_game(maps, part, boxes, FRAME)
        believed += (
            assess_saliency(EvaluatedMaps(maps, {}, places, AGREEMENT, FRAME), sanity(0.1)).believed is True
        )
    assert believed >= 0.95 * studies if kind == "true" else believed <= 0.05 * studies


def test_empty_maps_prove_nothing_and_are_counted():
    rng = np.random.default_rng(0)
    maps = rng.random((6, 3, 3)).astype(np.float32)
    maps[:2] = 0
    table = pd.concat([build_maps("abcdef", name, maps, (9, 9)) for name in ("Grad-CAM", "occlusion")])
    found = evaluate_agreement(table, pd.Series(list("uvwxyz"), index=list("abcdef")))
    assert (found["n"], found["empty"]) == (4, 2)
    assert found["value"] == pytest.approx(1)
    nowhere = pd.DataFrame()
    told = describe_maps(EvaluatedMaps(read_maps(table), {}, nowhere, found, SIZE), sanity(0.1, 4, 2))
    assert "2 of the 6 maps are empty" in told
    assert "n = 4 and 2 with an empty map" in told
    table = build_maps("abcdef", "Grad-CAM", np.zeros_like(maps), (9, 9))
    nothing = evaluate_agreement(table, pd.Series(dtype=str))
    told = describe_maps(EvaluatedMaps(read_maps(table), {}, nowhere, nothing, SIZE), sanity(np.nan, 0, 6))
    assert told.startswith("**The maps show nothing**: all 6 are empty")
    assert (
        assess_saliency(
            EvaluatedMaps(read_maps(table), {}, nowhere, nothing, SIZE), sanity(np.nan, 0, 6)
        ).believed
        is False
    )
    assert (
        assess_saliency(EvaluatedMaps({}, {}, nowhere, nothing, SIZE), sanity(0.1).iloc[:0]).believed is None
    )
    assert describe_maps(EvaluatedMaps({}, {}, nowhere, nothing, SIZE), sanity(0.1).iloc[:0]).startswith(
        "No maps were made"
    )


def test_the_control_is_told_by_stage_with_interval_and_numbers():
    told = sanity_table(pd.concat([sanity(0.9).assign(permuted="the head", layers=2), sanity(np.nan, 0, 5)]))
    assert told["permuted"].tolist() == ["the head", "all layers"]
    assert told["layers"].tolist() == [2, 9]
    words = told["rank correlation"].tolist()
    assert "0.90 (0.80 to 1.00)" in words[0]
    assert "no map with anything in it" in words[1]
    assert told[["n", "empty"]].to_numpy().tolist() == [[12, 0], [0, 5]]
    assert sanity_table(sanity(0.1).iloc[:0]).empty


def test_images_of_the_control_have_all_four_maps():
    grid = np.ones((3, 2, 2), np.float32)
    made = {"Grad-CAM": "abc", "occlusion": "ab", "permuted: the head": "bc", "permuted: all layers": "bc"}
    parts = [
        build_maps(list(paths), name, grid[: len(paths)] * i, (9, 9))
        for i, (name, paths) in enumerate(made.items())
    ]
    test = pd.DataFrame({"path": list("abc"), "group": list("pqr"), "y_true": [1, 0, 1]})
    rows, maps = choose_controlled(test, pd.concat(parts))
    assert rows["path"].tolist() == ["b"]
    assert [grids[0].max() for grids in maps.values()] == [0, 1, 2, 3]
    rows, maps = choose_controlled(test, pd.concat(parts).query("method == 'Grad-CAM'"))  # of an older study
    assert rows.empty


def test_agreement_of_the_methods_has_its_n_and_may_be_missing():
    maps = np.random.default_rng(0).random((4, 3, 3)).astype(np.float32)
    table = pd.concat([build_maps("abcd", name, maps, (9, 9)) for name in ("Grad-CAM", "occlusion")])
    found = evaluate_agreement(table, pd.Series(list("wxyz"), index=list("abcd")))
    assert found["value"] == pytest.approx(1)
    assert found["n"] == 4
    assert evaluate_agreement(table.iloc[:0], pd.Series(dtype=str))["value"] is None


def test_shown_images_are_one_a_group_and_of_both_classes():
    test = pd.DataFrame({"path": list("abcdef"), "group": list("ppqrst"), "y_true": [1, 1, 1, 0, 0, 0]})
    shown = choose_shown(test, dict.fromkeys("abcdef"), 4)
    assert shown["path"].tolist() == ["a", "d", "c", "e"]


def small_model():
    import keras

    keras.utils.set_random_seed(0)
    inputs = keras.Input((16, 16, 1), name="grey_pixels")
    x = keras.layers.Conv2D(3, 3, activation="relu", name="first")(inputs)
    x = keras.layers.Conv2D(4, 3, activation="relu", name="last_conv")(x)
    x = keras.layers.GlobalAveragePooling2D(name="pooled")(x)
    x = keras.layers.Dense(5, activation="relu", name="dense")(x)
    return keras.Model(
        inputs, keras.layers.Dense(1, activation="sigmoid", name="p_fractured")(x), name="small"
    )


@pytest.mark.slow
def test_grad_cam_is_what_its_formula_gives_at_any_layer():
    import keras
    import tensorflow as tf

    from xray_helpers.explain.gradcam import GradCam

    model = small_model()
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
    for wrong, words in (("lastconv", "did you mean last_conv"), ("dense", "no places left")):
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


@pytest.mark.slow
def test_the_control_leaves_empty_maps_out_and_says_how_many():
    from xray_helpers.explain.gradcam import GradCam
    from xray_helpers.explain.randomization import randomization_test

    model = small_model()
    pictures = np.random.default_rng(1).integers(0, 255, (12, 16, 16), np.uint8)
    pictures[:3] = 0  # without biases nothing comes of nothing
    table, _ = randomization_test(model, GradCam(model), pictures, np.arange(12))
    assert set(table["n"]) == {9}
    assert set(table["empty"]) == {3}
    nothing, _ = randomization_test(model, GradCam(model), pictures[:3], np.arange(3))
    assert nothing["correlation"].isna().all()
    assert set(nothing["n"]) == {0}


@pytest.mark.slow
def test_permuting_weights_changes_the_map_and_leaves_the_model_as_it_was():
    from xray_helpers.explain.gradcam import GradCam
    from xray_helpers.explain.randomization import randomization_test

    model = small_model()
    pictures = np.random.default_rng(1).integers(0, 255, (12, 16, 16), np.uint8)
    cam, before = GradCam(model), model.get_weights()
    table, after = randomization_test(model, cam, pictures, np.arange(12), permutations=1)
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))
    assert table["layers"].tolist() == [2, 2, 4]
    assert table["correlation"].iloc[-1] < 0.9
    assert (table["ci_low"] <= table["correlation"]).all()
    assert list(after) == table["permuted"].tolist()
    told = [rank_agreement(cam(pictures), maps).mean() for maps in after.values()]
    assert told == pytest.approx(table["correlation"].tolist())


@pytest.mark.slow
def test_all_kinds_of_maps_are_kept_and_readers_take_grad_cam_alone():
    from xray_helpers.explain.gradcam import GradCam
    from xray_helpers.explain.images import explain_images

    model = small_model()
    pictures = np.random.default_rng(1).integers(0, 255, (12, 16, 16), np.uint8)
    part = pd.DataFrame({"path": list("abcdefghijkl"), "group": range(12)})
    maps, told = explain_images(
        model, lambda p: p.mean(axis=(1, 2)) / 255, part, lambda rows: pictures[rows.index]
    )
    stages = [f"permuted: {name}" for name in told["permuted"]]
    counts = maps["method"].value_counts().to_dict()
    assert counts == {"Grad-CAM": 12, "occlusion": 4} | dict.fromkeys(stages, 12)
    cams = read_maps(maps)
    assert np.allclose(np.stack(list(cams.values())), GradCam(model)(pictures), rtol=1e-3)
    assert not np.allclose(read_maps(maps, stages[-1])["a"], cams["a"], rtol=1e-2)


@pytest.mark.slow
def test_on_phantoms_imagenet_maps_follow_the_weights_and_the_pointing_game_has_its_interval(
    shared, tmp_path
):
    """The series' own way from phantoms to the sentence, with real weights."""
    import cv2

    from xray_helpers.explain.images import explain_images
    from xray_helpers.explain.localization import evaluate_maps
    from xray_helpers.images.radiographs import read_radiograph
    from xray_helpers.models.backbones import build_extractor
    from xray_helpers.models.head import join_model, load_model, predict_pixels, save_model, train_head
    from xray_helpers.settings import Settings
    from xray_helpers.synthetic import dataset

    csv = dataset.write_phantoms(tmp_path / "set", images=160, planted=0, seed=5)
    table = pd.read_csv(csv)
    pictures = np.stack([read_radiograph(csv.parent / path).pixels for path in table["path"]])
    small = np.stack([cv2.resize(p, (128, 128), interpolation=cv2.INTER_AREA) for p in pictures])
    table = table.assign(
        y_true=(table["label"] == "Fractured").astype(int),
        group=table["patient"],
        width=pictures.shape[2],
        height=pictures.shape[1],
    )
    train = (table["patient"].str[1:].astype(int) % 2 == 0).to_numpy()
    extractor = build_extractor("MobileNetV2", (128, 128), str(shared / "weights"))
    x = extractor.predict(small[..., None].astype("float32"), verbose=0)
    y = table["y_true"].to_numpy()
    settings = Settings(img_size=(128, 128), epochs=12, patience=12, dropout_rate=0.2)
    head, _ = train_head(([x[train]], y[train]), (x[~train], y[~train]), settings)
    model = load_model(save_model(join_model(extractor, head), tmp_path / "model.keras"))
    part = table[~train].reset_index(drop=True)
    maps, sanity = explain_images(
        model, lambda p: predict_pixels(model, p), part, lambda rows: small[~train][rows.index]
    )
    judged = evaluate_maps(maps, part, "stretch")
    told = describe_maps(judged, sanity)
    assert sanity["correlation"].iloc[-1] < 0.5  # with all weights permuted it is another map
    cam, _, less = judged.places.itertuples()
    assert cam.n == int((part["y_true"] == 1).sum())
    assert cam.hit_low <= cam.hit <= cam.hit_high
    assert (
        cam.energy > cam.area
    )  # more than by chance; a 4 x 4 map need not beat a blob in the middle, and is told so
    high = sanity["ci_high"].iloc[-1]  # None where there are too few groups
    follows = high is not None and high < 0.5
    margin = cam.area / 10
    beats = min(cam.over_area_low, less.energy_low, cam.over_others_low) > margin
    assert ("may be believed as hints" in told) == (
        beats and follows and sanity["n_groups"].iloc[-1] >= MIN_GROUPS
    )
    assert "Pointing game: hits" in told
    assert f"{cam.hit:.2f} ({cam.hit_low:.2f} to {cam.hit_high:.2f})" in told


@pytest.mark.slow
def test_maps_that_are_empty_after_permuting_count_for_no_correlation():
    """A model whose maps vanish with some permutations: those that stay full alone make the correlation."""
    from xray_helpers.explain.gradcam import GradCam
    from xray_helpers.explain.maps import is_flat
    from xray_helpers.explain.randomization import randomization_test

    model = small_model()
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
            told = [
                rank_agreement(cam(pictures)[i : i + 1], first[name][i : i + 1])[0]
                for i in np.flatnonzero(full)
            ]
            assert single["correlation"] == pytest.approx(np.mean(told))
        assert 0 <= row.emptied <= 1
    assert table["emptied"].max() > 0  # the case is there


def test_permuted_maps_that_vanish_are_kept_apart():
    from xray_helpers.explain.randomization import _compare_permuted

    before = np.random.default_rng(0).random((10, 3, 3)).astype(np.float32)
    vanished, same = np.zeros_like(before), before.copy()
    told = _compare_permuted(before, [vanished, same], np.arange(10) % 9)
    assert told["correlation"] == pytest.approx(1)  # not 0.5: what vanished is not compared
    assert (told["n"], told["n_groups"], told["emptied"], told["empty"]) == (10, 9, 0.5, 0)
    told = _compare_permuted(before, [vanished, vanished], np.arange(10))
    assert told["correlation"] is None
    assert (told["n"], told["emptied"]) == (0, 1.0)
