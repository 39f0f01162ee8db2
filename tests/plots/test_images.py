import numpy as np
import pandas as pd

from xray_helpers.plots import images

PICTURE = np.full((8, 8), 90, np.uint8)


def test_sample_predictions_show_right_and_wrong_in_words_and_colour():
    sample = pd.DataFrame({"y_true": [1, 1, 0], "y_pred": [1, 0, 0], "y_prob": [0.9, 0.3, 0.1]})
    figure = images.plot_sample_predictions([PICTURE] * 3, sample, model="VGG16", threshold=0.5)
    captions = [ax.get_xlabel().split(":")[0] for ax in figure.axes[:3]]
    assert captions == ["right", "WRONG", "right"]
    right, wrong, _ = (ax.spines["left"].get_edgecolor() for ax in figure.axes[:3])
    assert right != wrong
    assert figure.axes[0].images[0].get_clim() == (0, 255)
    assert [ax.axison for ax in figure.axes] == [True] * 3 + [False]
    assert figure.get_label().endswith("2 are right.")


def test_a_file_name_is_not_a_formula():
    figure = images.plot_radiographs([PICTURE], ["$\\frac{"], title="a $x$ b")
    figure.savefig("/dev/null", format="png")
    assert "\\$" in figure.axes[0].get_xlabel()


def test_no_radiographs_are_called_none():
    figure = images.plot_radiographs([], [], title="Errors")
    assert [text.get_text() for text in figure.texts] == ["Errors", "none"]
    assert figure.get_label() == "0 radiographs. Errors."


def test_groups_have_a_row_and_a_title_each():
    groups = [("three", [PICTURE] * 3, "abc"), ("two", [PICTURE] * 2, "de")]
    axes = images.plot_groups(groups, columns=3).axes
    assert [ax.get_title(loc="left") for ax in axes] == ["three", "", "", "two", "", ""]
    assert [len(ax.images) for ax in axes] == [1, 1, 1, 1, 1, 0]


def test_boxes_of_known_fractures_are_drawn_over_maps():
    overlays = [(np.eye(2), [[1, 2, 5, 7]]), (np.zeros((2, 2)), [])]
    figure = images.plot_saliency_maps([PICTURE] * 2, overlays, ["one", "other"], title="maps", columns=2)
    assert [patch.get_bbox().extents.tolist() for patch in figure.axes[0].patches] == [[1, 2, 5, 7]]
    assert not figure.axes[1].patches


def test_control_maps_are_side_by_side_and_empty_ones_are_named():
    full = np.array([[0, 2.0], [4, 1]])
    maps = {"Grad-CAM": [full, full * 9], "all layers permuted": [np.zeros((2, 2)), full]}
    axes = images.plot_controls([PICTURE] * 2, maps, ["one", "other"], title="maps").axes
    assert [ax.get_title(loc="left") for ax in axes] == ["the picture", *maps, "", "", ""]
    assert [ax.get_xlabel() for ax in axes] == ["one", "", "empty", "other", "", ""]
    assert [len(ax.images) for ax in axes] == [1, 2, 2, 1, 2, 2]
    heats = [axes[i].images[1].get_array() for i in (1, 4)]
    assert np.allclose(*heats)  # each in proportion to its own largest value
