import matplotlib.pyplot as plt
import numpy as np
import pytest
from PIL import Image

from xray_helpers.plots import style


def test_each_model_has_one_colour():
    names = ("InceptionV3", "ResNet50", "VGG16", "DenseNet121", "MobileNetV2")
    assert len({style.model_color(name) for name in names}) == 5
    assert style.model_color("EfficientNetB0") == style.model_color("EfficientNetB0")


def test_shown_figures_are_closed_written_and_described(tmp_path):
    figure, axes = plt.subplots(1, 2)
    style.with_alt(axes[0], "One.")
    assert style.with_alt(axes[1], "Two.") is axes[1]
    image = style.show(axes[0], tmp_path / "a.png")
    assert not plt.get_fignums()
    assert image.metadata == {"alt": "One. Two."}
    assert image.metadata["alt"] == "One. Two."
    with Image.open(tmp_path / "a.png") as written:
        assert written.text["Description"] == "One. Two."
    assert style.show(style.with_alt(figure, "Both.")).metadata["alt"] == "Both."


def test_figures_of_radiographs_are_marked(tmp_path):
    _, ax = plt.subplots()
    ax.imshow(np.eye(4))
    image = style.show(style.with_alt(ax, "One radiograph."), tmp_path / "a.png")
    assert image.metadata["radiographs"]
    with Image.open(tmp_path / "a.png") as written:
        assert written.text["Radiographs"] == "yes"


def test_a_title_is_an_alternative_text_and_no_text_at_all_is_an_error():
    figure, ax = plt.subplots()
    with pytest.raises(ValueError, match="no alternative text"):
        style.show(figure)
    ax.set_title("My own plot")
    assert style.show(ax).metadata["alt"] == "My own plot"
