"""The dense head learns where bright squares are, on a small network with random weights."""

import keras
import numpy as np
import pandas as pd

from xray_helpers.evaluation.detection import average_precision, judge_marks, list_truth
from xray_helpers.images.annotations import annotate, list_boxes
from xray_helpers.images.pixels import load_pixels
from xray_helpers.images.radiographs import ImageFolder
from xray_helpers.models import localizer
from xray_helpers.models.graphs import Opened
from xray_helpers.models.head import average_flips
from xray_helpers.models.inference import EXACT, ForwardPass
from xray_helpers.models.localizer import (
    build_targets,
    choose_by_validation,
    mark_maps,
    open_localizer,
    predict_maps,
    save_localizer,
    train_dense_head,
)
from xray_helpers.models.localizer_features import choose_layers, extract_spatial, open_spatial
from xray_helpers.models.localizer_study import find_annotated
from xray_helpers.models.saved import save_model

SIZE = (64, 64)


def small_network():
    keras.utils.set_random_seed(1)
    inputs = keras.Input((*SIZE, 1))
    x = keras.layers.Rescaling(1 / 255)(inputs)
    for stride in (2, 2, 2, 2):
        x = keras.layers.Conv2D(12, 3, strides=stride, padding="same", activation="relu")(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, keras.layers.Dense(1, activation="sigmoid")(x), name="small")


def train(place, table, way="pad", views=1):
    model, folder = small_network(), ImageFolder(place, resize=way)
    spatial = open_spatial(model, EXACT, folder)
    forward = ForwardPass(spatial.network, EXACT)
    parts = {split: part.reset_index(drop=True) for split, part in table.groupby("split")}
    x = {
        s: extract_spatial(spatial, forward, p, folder, views if s == "train" else 0)
        for s, p in parts.items()
    }
    grid = spatial.shapes[0][:2]
    y = {split: build_targets(part, SIZE, grid, way) for split, part in parts.items()}
    turned = [build_targets(parts["train"], SIZE, grid, way, view) for view in range(views)]
    data = (x["train"], [y["train"], *turned]), (x["validation"][0], y["validation"])
    head, history = train_dense_head(spatial, *data, 4)
    return model, spatial, parts, x, y, head, history


def test_it_learns_where_squares_are_and_is_read_back(squares, root, monkeypatch):
    place, table = squares
    monkeypatch.setattr(localizer, "_EPOCHS", 14)
    model, spatial, parts, x, y, head, history = train(place, table)
    assert [shape[:2] for shape in spatial.shapes] == [(8, 8), (4, 4)]
    assert history["best"].sum() == 1
    assert x["train"][0].dtype == np.float16
    validated = predict_maps(head, spatial, x["validation"][0])
    chosen = choose_by_validation(parts["validation"], validated, y["validation"], SIZE, "pad")
    assert 0 < chosen.threshold < 1
    test = parts["test"]
    maps = predict_maps(head, spatial, x["test"][0])
    marks = mark_maps(test, maps, SIZE, "pad", chosen.level)
    truth = list_truth(test, list_boxes(test))
    assert average_precision(judge_marks(marks, truth, 0.3), np.ones(len(test))) > 0.8

    assert open_localizer(root, model) is None
    save_model(model, root / "model.keras")
    save_localizer(root, head, spatial, chosen, {"model": "small"})
    found = open_localizer(root, model, way="pad")
    folder = ImageFolder(place, resize="pad")
    pixels = load_pixels(test, folder, SIZE)[:]
    assert np.allclose(found.map(pixels), maps, atol=2e-3)
    boxes = found.find(pixels, [(60, 90)] * len(test))
    expected = marks[marks["score"] >= chosen.threshold]
    assert abs(sum(map(len, boxes)) - len(expected)) <= 1
    first = next(row for row in range(len(test)) if len(boxes[row]))
    own = expected[expected["path"] == test["path"][first]].iloc[0]
    assert np.allclose(boxes[first][0, :4], own[["left", "top", "right", "bottom"]].to_numpy(float), atol=1.5)
    (root / "model.keras").write_bytes(b"another model")
    assert open_localizer(root, model) is None

    monkeypatch.setattr(localizer, "_EPOCHS", 1)
    data = ([x["train"][0]], [y["train"]]), (x["validation"][0], y["validation"])
    again = [predict_maps(train_dense_head(spatial, *data, 4)[0], spatial, x["test"][0]) for _ in range(2)]
    assert (again[0] == again[1]).all()  # the same seed


def test_a_model_that_sees_mirror_images_gives_the_features_of_the_picture_itself(squares):
    model, folder = small_network(), ImageFolder(squares[0])
    plain = open_spatial(model, EXACT, folder)
    both = open_spatial(average_flips(model), EXACT, folder, flips=True)
    pixels = np.random.default_rng(0).uniform(0, 255, (3, *SIZE, 1)).astype(np.float32)
    expected = np.asarray(plain.network(pixels))
    assert np.allclose(np.asarray(both.network(pixels)), expected, rtol=1e-4, atol=1e-4)
    assert both.key != plain.key


def test_targets_follow_boxes_masks_padding_and_views():
    table = pd.DataFrame({"path": ["a", "b", "c"], "y_true": [1, 1, 0], "width": 100, "height": 50})
    table = table.assign(label=["Fractured"] * 2 + ["Non-Fractured"], status="used", reason=None, note=None)
    table = table.assign(boxes=["50 25 100 50", None, None], sha256=["0a" * 32, "0b" * 32, "0c" * 32])
    targets = build_targets(table, (64, 64), (8, 8), "pad")
    expected = np.zeros((8, 8))
    expected[4:6, 4:] = 1  # the lower right quarter of the picture, which has rows 2 to 5 of the map
    assert np.allclose(targets[0], expected)
    assert not targets[1:].any()
    assert np.allclose(build_targets(table, (64, 64), (8, 8), "stretch")[0][4:, 4:], 1)
    turned = build_targets(table, (64, 64), (8, 8), "pad", view=1)
    assert 0.5 < turned[0].sum() / expected.sum() < 1.5
    assert not np.allclose(turned[0], expected)


def opened(**shapes):
    class Tensor:
        def __init__(self, shape):
            self.shape = (None, *shape)

    return Opened(None, {name: Tensor(shape) for name, shape in shapes.items()}, list(shapes), None)


def test_the_last_layer_at_each_resolution_is_chosen():
    pyramid = opened(
        a=(28, 28, 8), b=(28, 28, 16), pad=(29, 29, 16), c=(14, 14, 32), d=(7, 7, 64), e=(7, 7, 99)
    )
    assert choose_layers(pyramid, (224, 224)) == ("b", "c", "e")
    assert choose_layers(pyramid, (224, 224), 10**7) == ("c", "e")  # stride 8 would fill the disk
    valid = opened(stem=(54, 54, 8), a=(25, 25, 8), b=(12, 12, 8), c=(5, 5, 8))  # as InceptionV3 at 224
    assert choose_layers(valid, (224, 224)) == ("a", "b", "c")
    assert choose_layers(opened(patch_grid=(14, 14, 384)), (224, 224)) == ("patch_grid",)


def test_what_is_known_of_how_many_images_is_said(squares):
    _, table = squares
    found = find_annotated(table)
    assert found.usable
    assert "Boxes are known of 35 of 35 in train, 10 of 10 in validation, 15 of 15 in test" in found.text
    few = table.assign(boxes=table["boxes"].where(table.index < 20))
    assert not find_annotated(few).usable
    assert "too few to train on" in find_annotated(few).text
    assert len(find_annotated(few).parts["train"]) == 35 + 10  # those without a box are left out
    none = find_annotated(table.drop(columns="boxes"))
    assert not none.usable
    assert "nothing is trained here, and the study goes on" in none.text
    wrong = table.assign(boxes="1 1 9 9", note=pd.Series(pd.NA, table.index, dtype="string"))
    assert "annotations of 60 images were left out" in find_annotated(annotate(wrong, None, [])).text
