import json

import cv2
import numpy as np
import pandas as pd
import pytest

from xray_helpers.explain.maps import build_maps
from xray_helpers.interactive import components, predictions
from xray_helpers.settings import InputError
from xray_helpers.study import files


@pytest.fixture
def study(tmp_path, monkeypatch):
    """A study of wide pictures, padded to a square, with maps of two models; its folder and its
    predictions.
    """
    monkeypatch.setenv("XRAY_HELPERS_ROOT", str(tmp_path))
    place, images = tmp_path / "reports" / "s", tmp_path / "images"
    images.mkdir()
    grid = np.zeros((1, 8, 8), np.float32)
    grid[0, 2:6] = 1  # all of the picture, none of its padding
    for name in ("A", "B"):
        (place / name).mkdir(parents=True)
        build_maps(["a.png"], "Grad-CAM", grid, (64, 64)).to_csv(place / name / "maps.csv", index=False)
        (place / name / "training.json").write_text(json.dumps({"key": "unknown"}))
    (place / "study.json").write_text(json.dumps({"settings": {"resize": "pad"}}))
    (place / "local.json").write_text(json.dumps({"data": str(images)}))
    cv2.imwrite(str(images / "a.png"), np.full((50, 100), 100, np.uint8))
    table = pd.DataFrame({"path": ["a.png"], "group": "a", "y_true": 1, "y_prob": 0.2, "y_pred": 0})
    table.assign(split="test", status="used", sha256="x", label="Fractured").to_csv(
        place / "manifest.csv", index=False
    )
    return place, table


def is_whole(png):
    """Whether a map colours the picture to its upper and lower edge."""
    shown = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR).astype(int)
    return bool((np.ptp(shown[[1, -2]], axis=-1) > 15).all())


def test_maps_of_padded_pictures_lie_over_the_picture_alone(study):
    place, table = study
    errors = predictions._ErrorBrowser(place, "A", table, 0.5)
    assert is_whole(errors.view.images[0].value)
    both = predictions._ModelComparer(place, {"A": table, "B": table.assign(y_pred=1, y_prob=0.9)})
    assert all(is_whole(image.value) for image in both.view.images)


def test_a_caption_says_that_a_picture_is_missing(study, monkeypatch):
    place, table = study
    (place.parents[1] / "images" / "a.png").unlink()
    errors = predictions._ErrorBrowser(place, "A", table, 0.5)
    assert "no picture: it" in errors.view.captions[0].value
    assert not errors.view.images[0].value
    both = predictions._ModelComparer(place, {"A": table, "B": table.assign(y_pred=1, y_prob=0.9)})
    assert "no picture: it" in both.view.captions[0].value
    near = errors._small("a.png", "Fractured", 0.5)
    assert "no picture: it" in near.children[-1].value


def test_the_first_kind_that_has_images_is_shown(study):
    place, table = study
    found = predictions._ErrorBrowser(place, "A", table.assign(y_pred=1, y_prob=0.9), 0.5)
    assert found.kind.value == "found (TP)"
    assert "a.png" in found.view.captions[0].value
    assert predictions._ErrorBrowser(place, "A", table[:0], 0.5).note.value == "There is no such image."


def write_verdict(place, model, **found):
    (place / model / "maps_verdict.json").write_text(json.dumps(found))


def test_the_verdict_on_the_maps_is_in_their_captions(study):
    place, table = study
    two = {"A": table, "B": table.assign(y_pred=1, y_prob=0.9)}
    assert components.read_verdict(place, "A") == ("", None)
    assert predictions._ErrorBrowser(place, "A", table, 0.5).view.opacity.value == 0.5
    write_verdict(place, "A", verdict="**Believe <it>. Or not.**", believed=True)
    assert components.read_verdict(place, "A") == ("Believe &lt;it&gt;.", True)
    write_verdict(place, "B", verdict="The maps are **noise**", believed=False)
    errors, both = predictions._ErrorBrowser(place, "B", table, 0.5), predictions._ModelComparer(place, two)
    assert "The maps are <b>noise</b>" in errors.view.captions[0].value
    assert ["noise" in caption.value for caption in both.view.captions] == [False, True]
    assert errors.view.opacity.value == both.view.opacity.value == 0
    assert predictions._ErrorBrowser(place, "A", table, 0.5).view.opacity.value == 0.5


def test_the_caption_says_that_a_map_is_empty(study):
    place, table = study
    build_maps(["a.png"], "Grad-CAM", np.zeros((1, 8, 8), np.float32), (64, 64)).to_csv(
        place / "B" / "maps.csv", index=False
    )
    both = predictions._ModelComparer(place, {"A": table, "B": table.assign(y_pred=1, y_prob=0.9)})
    assert "largest value" in both.view.captions[0].value
    assert "its map is empty" in both.view.captions[1].value
    assert "its map is empty" in predictions._ErrorBrowser(place, "B", table, 0.5).view.captions[0].value


def test_maps_of_two_models_are_computed_on_demand(study, monkeypatch):
    place, table = study
    (place / "B" / "maps.csv").unlink()
    both = predictions._ModelComparer(place, {"A": table, "B": table.assign(y_pred=1, y_prob=0.9)})
    assert "no map was made" in both.view.captions[1].value
    assert both.make.layout.display is None
    made = []

    def make(maps, path):
        made.append(maps._model)
        maps.known[path], maps._size = np.ones((8, 8), np.float32), (64, 64)

    monkeypatch.setattr(predictions.Maps, "make", make)
    both.make.click()
    assert made == ["B"]
    assert "largest value" in both.view.captions[1].value
    assert both.make.layout.display == "none"
    assert not both.make.disabled


def test_the_button_works_again_after_a_map_that_failed(study, monkeypatch):
    place, table = study
    (place / "A" / "maps.csv").unlink()
    errors = predictions._ErrorBrowser(place, "A", table, 0.5)
    monkeypatch.setattr(errors.maps, "make", lambda path: (_ for _ in ()).throw(InputError("A is refused.")))
    errors.make.click()
    assert errors.note.value == "No map was made: A is refused."
    assert not errors.make.disabled


def test_maps_are_read_once(study, monkeypatch):
    place, table = study
    read, known = [], files.read_csv
    monkeypatch.setattr(predictions, "read_csv", lambda path: read.append(path.name) or known(path))
    both = predictions._ModelComparer(place, {"A": table, "B": table.assign(y_pred=1)})
    both.pager.turn(0)
    both.pager.turn(0)
    assert read.count("maps.csv") == 2
