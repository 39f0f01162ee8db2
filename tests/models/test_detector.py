"""A small RetinaNet of KerasHub with random weights, from a folder."""

import importlib.util

import numpy as np
import pytest

from xray_helpers.images.pixels import load_pixels
from xray_helpers.images.radiographs import ImageFolder
from xray_helpers.models import detector
from xray_helpers.models.localizer import Choices, open_localizer, save_detector
from xray_helpers.models.localizer_study import find_annotated
from xray_helpers.settings import InputError

SIZE = (128, 128)


@pytest.fixture(scope="module")
def preset(tmp_path_factory):
    hub = pytest.importorskip("keras_hub")
    from keras_hub.layers import RetinaNetImageConverter

    small = {"stackwise_num_filters": [64] * 4, "stackwise_num_blocks": [1] * 4, "block_type": "basic_block"}
    stem = {"input_conv_filters": [64], "input_conv_kernel_sizes": [7], "stackwise_num_strides": [1, 2, 2, 2]}
    encoder = hub.models.ResNetBackbone(**small, **stem, image_shape=(None, None, 3))
    backbone = hub.models.RetinaNetBackbone(
        image_encoder=encoder, min_level=3, max_level=5, use_p5=False, image_shape=(None, None, 3)
    )
    converter = RetinaNetImageConverter(image_size=SIZE, scale=1 / 255, offset=-0.4)
    preprocessor = hub.models.RetinaNetObjectDetectorPreprocessor(image_converter=converter)
    options = {"num_classes": 3, "preprocessor": preprocessor, "pre_logits_num_conv_layers": 1}
    place = tmp_path_factory.mktemp("presets") / "tiny"
    hub.models.RetinaNetObjectDetector(backbone, **options).save_to_preset(place)
    return place


@pytest.mark.slow
def test_a_detector_from_a_folder_is_trained_kept_and_read_back(preset, squares, root, monkeypatch):
    place, table = squares
    monkeypatch.setattr(detector, "_EPOCHS", 2)
    monkeypatch.setattr(detector, "_RATE", 1e-3)
    parts = {split: part.head(12) for split, part in find_annotated(table).parts.items()}
    folder = ImageFolder(place)
    found = detector.open_detector(str(preset), SIZE)
    assert found.model.num_classes == 1
    assert found.size == SIZE
    assert found.prepare(np.full((1, 2, 2), 255))[0, 0, 0] == pytest.approx([0.6] * 3)
    history = detector.train_detector(found, parts, folder, 1)
    assert len(history) == 2
    assert history["loss"].iloc[1] < history["loss"].iloc[0]
    test = parts["test"]
    pixels = load_pixels(test, folder, SIZE)[:]
    marks = found.find(pixels)
    assert len(marks) == len(test)
    corners = np.concatenate(marks)[:, :4]
    assert len(corners)
    assert (corners >= 0).all()
    assert (corners <= 128).all()
    placed = detector.place_all(test, marks, SIZE, "stretch")
    assert placed["right"].max() <= 90
    (root / "model.keras").write_bytes(b"the classifier")
    about = {"size": list(SIZE), "scale": found.scale.tolist(), "offset": found.offset.tolist()}
    save_detector(root, found.model, Choices(0.0, 0.5, 0.5), about)
    again = open_localizer(root, None).find(pixels, [(60, 90)] * len(test))
    assert np.allclose(np.concatenate(again)[:, 4].max(), placed["score"].max(), atol=1e-4)


def test_boxes_become_maps_whose_highest_place_is_their_middle():
    maps = detector.draw_marks([np.array([[32, 64, 96, 96, 0.8], [0, 0, 1, 1, 0.3]]), np.zeros((0, 5))], SIZE)
    row, column = np.unravel_index(np.argmax(maps[0]), maps[0].shape)
    assert abs((column + 0.5) * 128 / 28 - 64) < 4
    assert abs((row + 0.5) * 128 / 28 - 80) < 4
    assert maps[0, 0, 0] > 0.2
    assert not maps[1].any()


def test_what_cannot_be_read_as_a_detector_is_said(tmp_path, monkeypatch):
    pytest.importorskip("keras_hub")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(InputError, match="cannot be read as a detector of KerasHub"):
        detector.open_detector(str(tmp_path), SIZE)
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "keras_hub" else find(name))
    with pytest.raises(InputError, match="run `make hub`"):
        detector.open_detector("retinanet_resnet50_fpn_coco", SIZE)
