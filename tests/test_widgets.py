import cv2
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from IPython.display import Image
from sklearn.metrics import confusion_matrix

from xray_helpers import viewing, widgets
from xray_helpers.duplicates import read_corrections, write_corrections
from xray_helpers.viewing import Pager, draw_curves, draw_radiograph
from xray_helpers.widgets import OperatingPoints


@given(st.lists(st.tuples(st.integers(0, 1), st.floats(0, 1)), min_size=1, max_size=60), st.floats(0, 1))
def test_counts_at_any_threshold_are_sklearns(rows, threshold):
    y_true, y_prob = (np.array(column) for column in zip(*rows, strict=True))
    tn, fp, fn, tp = confusion_matrix(y_true, y_prob >= threshold, labels=[0, 1]).ravel()
    assert OperatingPoints(y_true, y_prob).count(threshold) == {"tp": tp, "fp": fp, "tn": tn, "fn": fn}


def test_ppv_at_a_prevalence_is_bayes():
    y = np.array([1] * 10 + [0] * 10)
    p = np.array([0.9] * 8 + [0.1] * 2 + [0.9] * 1 + [0.1] * 9)  # sensitivity 0.8, specificity 0.9
    rates = OperatingPoints(y, p).rates(0.5, 0.01)
    assert rates["sensitivity"] == 0.8
    assert rates["specificity"] == 0.9
    assert rates["ppv"] == pytest.approx(0.008 / (0.008 + 0.099))
    assert rates["npv"] == pytest.approx(0.891 / (0.891 + 0.002))
    assert np.isnan(OperatingPoints(y, p).rates(1.0, 0.5)["ppv"])  # nothing is called fractured


def decode(png):
    return cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)


def test_a_radiograph_is_shown_as_its_window_and_zoom_say():
    ramp = np.tile(np.arange(200, dtype=np.uint8), (100, 1))
    plain = decode(draw_radiograph(ramp, side=200))
    assert plain.shape == (100, 200, 3)
    assert np.abs(plain[50, :, 0].astype(int) - ramp[50]).max() <= 1
    narrow = decode(draw_radiograph(ramp, window=50, level=100, side=200))[50, :, 0]
    assert narrow[70] == 0
    assert narrow[130] == 255
    assert abs(int(narrow[100]) - 127) <= 6
    right = decode(draw_radiograph(ramp, zoom=2, centre=(0.5, 1.0), side=200))
    assert right[50, :, 0].min() >= 99  # only the brighter half is left


def test_a_map_colours_where_it_is_high_and_nowhere_at_no_opacity():
    picture, grid = np.full((80, 80), 100, np.uint8), np.zeros((4, 4), np.float32)
    grid[0, 0] = 5
    shown = decode(draw_radiograph(picture, grid, opacity=0.8, side=80)).astype(int)
    assert np.ptp(shown[5, 5]) > 50
    assert np.ptp(shown[75, 75]) == 0
    assert np.array_equal(decode(draw_radiograph(picture, grid, side=80)), decode(draw_radiograph(picture, side=80)))


def test_curves_hold_their_words_and_the_point():
    svg = draw_curves({"<b>": (np.array([0, 1.0]), np.array([0, 1.0]))}, title="a & b", labels=("x", "y"), point=(1, 1))
    assert "a &amp; b" in svg
    assert 'cx="290.0" cy="24.0"' in svg
    many = np.linspace(0, 1, 10_000)
    assert len(draw_curves({"roc": (many, many)}, title="", labels=("", ""))) < 10_000  # redrawn without lag


def test_a_pager_stays_within_its_list():
    seen = []
    pager = Pager(seen.append)
    pager.load("abc")
    pager.turn(1)
    pager.turn(5)
    assert seen == ["a", "b", "c"]
    assert pager.next.disabled
    pager.load([])
    assert seen[-1] is None


def test_in_batch_a_widget_is_its_still_picture(monkeypatch):
    still = Image(data=b"\x89PNG", format="png", alt="words")
    monkeypatch.delenv("JPY_SESSION_NAME", raising=False)
    assert viewing.show(lambda: 1 / 0, still) is still  # it is not even built
    assert widgets.watch_training("VGG16") is None
    import ipywidgets

    monkeypatch.setenv("JPY_SESSION_NAME", "notebook.ipynb")
    data, _ = viewing.show(lambda: ipywidgets.HTML("x"), still)._repr_mimebundle_()
    assert {"image/png", "application/vnd.jupyter.widget-view+json"} <= set(data)


def test_corrections_are_added_and_the_last_word_on_a_pair_counts(tmp_path, monkeypatch):
    monkeypatch.setenv("XRAY_HELPERS_ROOT", str(tmp_path))
    write_corrections("data/c.csv", [("separate", "a", "b"), ("separate", "a", "c")])
    place = write_corrections("data/c.csv", [("join", "b", "a")])
    assert place == tmp_path / "data" / "c.csv"
    table = read_corrections("data/c.csv", {"a", "b", "c"})
    assert sorted(map(tuple, table.to_numpy())) == [("join", "b", "a"), ("separate", "a", "c")]


def test_the_threshold_band_holds_the_threshold_and_shrinks_with_images():
    from xray_helpers.metrics import choose_threshold, threshold_band

    rng = np.random.default_rng(0)
    widths = []
    for n in (60, 2000):
        y = rng.integers(0, 2, n)
        p = 1 / (1 + np.exp(-rng.normal(3 * y - 1.5, 1.5)))
        table = pd.DataFrame({"y_true": y, "y_prob": p, "group": range(n)})
        low, high = threshold_band(table, "youden", resamples=200)
        assert low <= choose_threshold(y, p, "youden") <= high
        widths.append(high - low)
    assert widths[1] < widths[0]
    assert threshold_band(table, "fixed") == (0.5, 0.5)  # nothing was chosen, so nothing is uncertain
