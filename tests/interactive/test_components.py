import re

import cv2
import ipywidgets
import numpy as np
from IPython.display import Image, Markdown

from xray_helpers.interactive import components, curves
from xray_helpers.interactive.components import Pager, describe_frames, draw_curves, draw_radiograph


def decode(png):
    return cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)


def test_window_and_zoom_change_the_picture():
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


def test_a_map_colours_the_picture_where_it_is_high():
    picture, grid = np.full((80, 80), 100, np.uint8), np.zeros((4, 4), np.float32)
    grid[0, 0] = 5
    shown = decode(draw_radiograph(picture, grid, opacity=0.8, side=80)).astype(int)
    assert np.ptp(shown[5, 5]) > 50
    assert np.ptp(shown[75, 75]) == 0
    assert np.array_equal(
        decode(draw_radiograph(picture, grid, side=80)), decode(draw_radiograph(picture, side=80))
    )


def test_the_next_picture_is_shown_whole():
    view = components.RadiographView()
    view.show([(np.zeros((50, 50), np.uint8), None)], ["a"])
    for again in (
        lambda: view.show([(np.zeros((50, 50), np.uint8), None)], ["b"]),
        view.whole.click,
        view.clear,
    ):
        view.zoom.value, view.window.value, view.level.value, view.down.value, view.across.value = (
            4,
            50,
            20,
            0.1,
            0.9,
        )
        view.opacity.value = 0.3
        again()
        kept = [c.value for c in (view.zoom, view.window, view.level, view.down, view.across, view.opacity)]
        assert kept == [1, 255, 128, 0.5, 0.5, 0.3]


def test_captions_and_long_cells_do_not_widen_the_page():
    view = components.RadiographView(side=300)
    assert view.box.children[0].layout.max_width == "300px"
    assert "overflow-wrap:anywhere" in components.write_caption("a" * 200)
    cells = re.findall(r"<td style='([^']*)'", components.table("", ("file", "p"), [("a" * 200, "0.123")]))
    assert "overflow-wrap:anywhere" in cells[0]
    assert "max-width:22em" in cells[0]
    assert "nowrap" in cells[1]


def test_curves_show_their_labels_and_the_point():
    svg = draw_curves(
        {"<b>": (np.array([0, 1.0]), np.array([0, 1.0]))}, title="a & b", labels=("x", "y"), point=(1, 1)
    )
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


def test_in_batch_a_picture_stands_for_the_widget(monkeypatch):
    still = Image(data=b"\x89PNG", format="png", alt="words")
    monkeypatch.delenv("JPY_SESSION_NAME", raising=False)
    assert components.show(lambda: 1 / 0, still) is still  # it is not even built
    assert curves.watch_training("VGG16") is None
    monkeypatch.setenv("JPY_SESSION_NAME", "notebook.ipynb")
    data, _ = components.show(lambda: ipywidgets.HTML("x"), still)._repr_mimebundle_()
    assert {"image/png", "application/vnd.jupyter.widget-view+json"} <= set(data)
    shown = components.show(
        lambda: ipywidgets.HTML("x"), Markdown("No two files derive from the same picture.")
    )
    data, _ = shown._repr_mimebundle_()  # of a set without copies
    assert {"text/markdown", "application/vnd.jupyter.widget-view+json"} <= set(data)


def test_frames_are_drawn_where_the_picture_is_shown():

    pixels, box = np.zeros((100, 200), np.uint8), np.array([20.0, 40, 60, 80, 0.5])
    decode = lambda data: cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)  # noqa: E731
    frames = [(box, "found"), (np.array([150.0, 10, 190, 30]), "known")]
    drawn = decode(draw_radiograph(pixels, side=200, frames=frames))
    rows, columns = np.nonzero(drawn[..., 2] > 200)  # red: the box that was found
    assert np.abs(np.array([columns.min(), rows.min(), columns.max(), rows.max()]) - box[:4]).max() <= 2
    assert (np.argwhere(drawn[..., 0] > 200)[:, 1] > 140).all()  # blue: the known one
    zoomed = decode(draw_radiograph(pixels, side=200, zoom=2, centre=(0.5, 0.25), frames=frames[:1]))
    rows, columns = np.nonzero(zoomed[..., 2] > 200)
    assert abs(columns.min() - 40) <= 3
    assert abs(rows.min() - (40 - 25) * 2) <= 3
    assert describe_frames(frames) == "blue: a known fracture; orange: found by the localizer (score 0.50)"
    assert describe_frames([]) == ""
