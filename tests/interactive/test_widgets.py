import json
import re

import cv2
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from IPython.display import Image
from sklearn.metrics import confusion_matrix

from xray_helpers.explain.maps import build_maps
from xray_helpers.interactive import components, curves, predictions
from xray_helpers.interactive.components import Pager, draw_curves, draw_radiograph
from xray_helpers.interactive.curves import OperatingPoints
from xray_helpers.same_source.corrections import read_corrections, write_corrections
from xray_helpers.settings import InputError
from xray_helpers.study import files


@given(st.lists(st.tuples(st.integers(0, 1), st.floats(0, 1)), min_size=1, max_size=60), st.floats(0, 1))
def test_counts_at_any_threshold_are_sklearns(rows, threshold):
    y_true, y_prob = (np.array(column) for column in zip(*rows, strict=True))
    tn, fp, fn, tp = confusion_matrix(y_true, y_prob >= threshold, labels=[0, 1]).ravel()
    assert OperatingPoints(y_true, y_prob).count(threshold) == {"tp": tp, "fp": fp, "tn": tn, "fn": fn}


def test_ppv_at_a_prevalence_is_bayes():
    y = np.array([1] * 10 + [0] * 10)
    p = np.array([0.9] * 8 + [0.1] * 2 + [0.9] * 1 + [0.1] * 9)  # sensitivity 0.8, specificity 0.9
    rates = {name: entry["value"] for name, entry in OperatingPoints(y, p).rates(0.5, 0.01).items()}
    assert rates["sensitivity"] == 0.8
    assert rates["specificity"] == 0.9
    assert rates["ppv"] == pytest.approx(0.008 / (0.008 + 0.099))
    assert rates["npv"] == pytest.approx(0.891 / (0.891 + 0.002))
    assert OperatingPoints(y, p).rates(1.0, 0.5)["ppv"]["value"] is None  # nothing is called fractured


def test_rates_at_a_moved_threshold_have_the_intervals_of_the_report():
    from xray_helpers.evaluation.metrics import compute_metrics

    rng = np.random.default_rng(0)
    y, group = rng.integers(0, 2, 200), rng.integers(0, 60, 200).astype(str)
    p = np.clip(rng.normal(0.3 + 0.4 * y, 0.2), 0, 1)
    for threshold in (0.2, 0.5, 1.0):
        found, scores = (
            OperatingPoints(y, p, group).rates(threshold, 0.5),
            compute_metrics(y, p, threshold, group),
        )
        for mine, theirs in (("sensitivity", "recall"), ("specificity", "specificity")):
            for key in ("value", "ci_low", "ci_high"):
                assert found[mine][key] == pytest.approx(scores[theirs][key])
    alone = OperatingPoints(np.ones(3), np.full(3, 0.5)).rates(0.5, 0.5)
    assert [alone[name]["value"] for name in ("specificity", "ppv", "npv")] == [None] * 3


def test_the_explorer_shows_rates_and_their_intervals_side_by_side():
    n = 10_000
    rng = np.random.default_rng(0)
    test = pd.DataFrame(
        {"y_true": rng.integers(0, 2, n), "y_prob": rng.random(n), "group": rng.integers(0, n // 2, n)}
    )
    explorer = curves._ThresholdExplorer(test.assign(group=test["group"].astype(str)), 0.5, "A")
    explorer.threshold.value = 0.0
    cells = re.findall(r"<td[^>]*class='(\w+)'>([^<]*)</td><td[^>]*>([^<]*)</td>", explorer.numbers.value)
    assert cells[0][:2] == ("sensitivity", "1.000")
    assert re.fullmatch(r"0\.99\d to 1\.000 \(95 %\)", cells[0][2])
    assert cells[1][:2] == ("specificity", "0.000")
    assert [name for name, _, _ in cells] == ["sensitivity", "specificity", "ppv", "npv"]


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
    assert np.array_equal(
        decode(draw_radiograph(picture, grid, side=80)), decode(draw_radiograph(picture, side=80))
    )


def test_curves_hold_their_words_and_the_point():
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


def test_in_batch_a_widget_is_its_still_picture(monkeypatch):
    still = Image(data=b"\x89PNG", format="png", alt="words")
    monkeypatch.delenv("JPY_SESSION_NAME", raising=False)
    assert components.show(lambda: 1 / 0, still) is still  # it is not even built
    assert curves.watch_training("VGG16") is None
    import ipywidgets

    monkeypatch.setenv("JPY_SESSION_NAME", "notebook.ipynb")
    data, _ = components.show(lambda: ipywidgets.HTML("x"), still)._repr_mimebundle_()
    assert {"image/png", "application/vnd.jupyter.widget-view+json"} <= set(data)


def test_corrections_are_added_and_the_last_word_on_a_pair_counts(tmp_path, monkeypatch):
    monkeypatch.setenv("XRAY_HELPERS_ROOT", str(tmp_path))
    write_corrections("data/c.csv", [("separate", "a", "b"), ("separate", "a", "c")])
    place = write_corrections("data/c.csv", [("join", "b", "a")])
    assert place == tmp_path / "data" / "c.csv"
    table = read_corrections("data/c.csv", {"a", "b", "c"})
    assert sorted(map(tuple, table.to_numpy())) == [("join", "b", "a"), ("separate", "a", "c")]


def test_corrections_that_cannot_be_kept_are_refused_in_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setenv("XRAY_HELPERS_ROOT", str(tmp_path))
    with pytest.raises(InputError, match="corrections is empty"):
        write_corrections("", [("separate", "a", "b")])
    assert not list(tmp_path.iterdir())
    (tmp_path / "c.csv").write_text("")
    with pytest.raises(InputError, match="need the columns"):
        write_corrections("c.csv", [("separate", "a", "b")])
    (tmp_path / "c.csv").write_text(
        "action,sha256_a,sha256_b\njoin,,b\n"
    )  # an unfinished row is kept as it is
    write_corrections("c.csv", [("separate", "a", "b")])
    assert len(pd.read_csv(tmp_path / "c.csv")) == 2


@pytest.fixture
def browser(tmp_path, monkeypatch):
    """A browser of three files of one source, in train, and one in test; as a function of the corrections'
    place.
    """
    from xray_helpers.images.radiographs import ImageFolder
    from xray_helpers.interactive.dataset import _DatasetBrowser

    monkeypatch.setenv("XRAY_HELPERS_ROOT", str(tmp_path))
    rows = [(name, "a.png", "train", name.upper()) for name in ("a.png", "b.png", "c.png")]
    rows += [("d.png", "d.png", "test", "D.PNG")]
    manifest = pd.DataFrame(rows, columns=["path", "source_group", "split", "sha256"])
    manifest = manifest.assign(label="Fractured", status="used")
    links = pd.DataFrame(
        [("a.png", "d.png", "doubtful", "for review", 20, 0.8, "A.PNG", "D.PNG")],
        columns=["path_a", "path_b", "kind", "decision", "inliers", "correlation", "sha256_a", "sha256_b"],
    )
    return lambda corrections: _DatasetBrowser(manifest, links, ImageFolder(tmp_path), corrections)


def test_the_browser_begins_with_train_and_shows_test_when_asked(browser):
    shown = browser("")
    assert list(shown.wrong.options) == ["a.png", "b.png", "c.png"]
    shown.view.value = "images"
    assert list(shown.page["path"]) == ["a.png", "b.png", "c.png"]
    shown.filters["split"].value = "test"
    assert list(shown.page["path"]) == ["d.png"]
    shown.filters["split"].value, shown.source.value = "train", "nowhere"
    assert "part = train, source contains nowhere." in shown.reasons.value


def test_pages_are_cut_out_when_they_are_looked_at(browser):
    shown = browser("")
    more = shown.manifest.assign(source_group=["a.png", "b.png", "b.png", "a.png"], split="train")
    shown.manifest = pd.concat([more, more.tail(1).assign(path="e.png")], ignore_index=True)
    groups = shown._groups(shown.manifest)
    assert not isinstance(groups, list)
    assert [page["path"].tolist() for page in groups] == [["a.png", "d.png", "e.png"], ["b.png", "c.png"]]
    assert len(shown._groups(shown.manifest.head(0))) == len(shown._images(shown.manifest.head(0))) == 0
    assert [len(page) for page in shown._images(pd.concat([shown.manifest] * 3))] == [12, 3]


def test_a_correction_is_saved_or_it_is_said_why_not(browser, tmp_path):
    off = browser("")
    off.separate.click()
    assert "Not saved" in off.message.value
    assert "corrections is empty" in off.message.value
    (tmp_path / "file").write_text("")
    nowhere = browser("file/c.csv")
    nowhere.separate.click()
    assert "Not saved" in nowhere.message.value
    assert "cannot be written" in nowhere.message.value
    empty = browser("file")
    empty.separate.click()
    assert "Not saved" in empty.message.value
    assert "need the columns" in empty.message.value
    saved = browser("c.csv")
    saved.separate.click()  # none marked: each apart from each
    assert "next run of 01 honours it" in saved.message.value
    assert set(pd.read_csv(tmp_path / "c.csv")["action"]) == {"separate"}
    saved.wrong.value = ("b.png",)
    saved.separate.click()
    last = {frozenset(row[1:]): row[0] for row in pd.read_csv(tmp_path / "c.csv").itertuples(index=False)}
    assert last[frozenset(("A.PNG", "C.PNG"))] == "join"
    assert last[frozenset(("A.PNG", "B.PNG"))] == "separate"


def actions(place):
    return {frozenset(row[1:]): row[0] for row in pd.read_csv(place).itertuples(index=False)}


def test_all_files_marked_is_as_none_marked(browser, tmp_path):
    shown = browser("c.csv")
    shown.manifest = shown.manifest.assign(sha256=["A", "A", "C", "D"])  # two are equal in every byte
    shown.sha = shown.manifest.set_index("path")["sha256"]
    for marked in (("a.png", "b.png", "c.png"), ("a.png", "c.png")):  # the copy goes with its equal
        shown.wrong.value = marked
        shown.separate.click()
        assert "equal in every byte" not in shown.message.value
        assert actions(tmp_path / "c.csv") == {frozenset("AC"): "separate"}
        (tmp_path / "c.csv").unlink()


def offered(shown):
    controls = (shown.hint, shown.wrong, shown.separate, shown.join, shown.two, shown.back)
    return [control for control in controls if control.layout.display is None]


def test_each_view_offers_what_can_be_done_there(browser):
    shown = browser("c.csv")
    assert offered(shown) == [shown.hint, shown.wrong, shown.separate]
    shown.view.value = "doubtful pairs"
    assert offered(shown) == [shown.join, shown.two]
    for view in ("images", "corrections"):  # there is no correction yet
        shown.view.value = view
        assert not offered(shown)


@pytest.mark.parametrize(
    ("button", "action", "words"), [("join", "join", "together"), ("two", "separate", "apart")]
)
def test_a_doubtful_pair_is_joined_or_kept_apart_and_it_is_told_until_01_has_run(
    browser, tmp_path, button, action, words
):
    shown = browser("c.csv")
    shown.view.value = "doubtful pairs"
    assert not shown.waiting.value
    getattr(shown, button).click()
    assert actions(tmp_path / "c.csv") == {frozenset(("A.PNG", "D.PNG")): action}
    assert f"1 pair kept {words}" in shown.waiting.value
    again = browser("c.csv")
    assert not again.waiting.value  # the group of a.png does not hold d.png
    again.view.value = "doubtful pairs"
    assert f"next run of 01: 1 pair kept {words}." in again.waiting.value
    decision = {"join": "joined", "separate": "separated"}[action]
    again.links = pd.concat([again.links, again.links.assign(kind="correction", decision=decision)])
    again.pager.turn(0)
    assert not again.waiting.value


def test_saved_corrections_are_paged_through_and_taken_back(browser, tmp_path):
    shown = browser("c.csv")
    shown.separate.click()
    assert "3 pairs kept apart" in shown.waiting.value
    shown.view.value = "corrections"
    assert "1 of 3" in shown.pager.where.value
    assert len(shown.pictures.children) == 2
    assert "kept apart" in shown.reasons.value
    assert offered(shown) == [shown.back]
    shown.pager.turn(1)
    gone = frozenset(shown.page["sha256"])
    shown.back.click()
    assert "Taken back" in shown.message.value
    assert "2 of 2" in shown.pager.where.value
    assert gone not in actions(tmp_path / "c.csv")
    assert len(actions(tmp_path / "c.csv")) == 2
    shown.back.click()
    shown.back.click()
    assert "Taken back" in shown.message.value
    assert "Nothing is like that" in shown.reasons.value
    assert read_corrections("c.csv", {"A.PNG", "B.PNG", "C.PNG"}).empty
    (tmp_path / "c.csv").write_text("")
    shown.view.value = "images"
    shown.view.value = "corrections"
    assert "need the columns" in shown.message.value


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
    shown = decode(png).astype(int)
    return bool((np.ptp(shown[[1, -2]], axis=-1) > 15).all())


def test_maps_of_padded_pictures_lie_where_the_model_saw_them(study):
    place, table = study
    errors = predictions._ErrorBrowser(place, "A", table, 0.5)
    assert is_whole(errors.view.images[0].value)
    both = predictions._ModelComparer(place, {"A": table, "B": table.assign(y_pred=1, y_prob=0.9)})
    assert all(is_whole(image.value) for image in both.view.images)


def test_a_moved_picture_is_told_where_it_would_stand(study, monkeypatch):
    place, table = study
    (place.parents[1] / "images" / "a.png").unlink()
    errors = predictions._ErrorBrowser(place, "A", table, 0.5)
    assert "no picture: it" in errors.view.captions[0].value
    assert not errors.view.images[0].value
    both = predictions._ModelComparer(place, {"A": table, "B": table.assign(y_pred=1, y_prob=0.9)})
    assert "no picture: it" in both.view.captions[0].value
    near = errors._small("a.png", "Fractured", 0.5)
    assert "no picture: it" in near.children[-1].value


def test_the_next_picture_is_shown_whole(study):
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


def write_verdict(place, model, **found):
    (place / model / "maps_verdict.json").write_text(json.dumps(found))


def test_what_03_found_of_the_maps_stands_under_them(study):
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


def test_an_empty_map_is_told_from_one_that_speaks(study):
    place, table = study
    build_maps(["a.png"], "Grad-CAM", np.zeros((1, 8, 8), np.float32), (64, 64)).to_csv(
        place / "B" / "maps.csv", index=False
    )
    both = predictions._ModelComparer(place, {"A": table, "B": table.assign(y_pred=1, y_prob=0.9)})
    assert "largest value" in both.view.captions[0].value
    assert "its map is empty" in both.view.captions[1].value
    assert "its map is empty" in predictions._ErrorBrowser(place, "B", table, 0.5).view.captions[0].value


def test_two_models_maps_are_made_on_demand(study, monkeypatch):
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


def test_a_map_that_cannot_be_made_is_told_and_the_button_works_again(study, monkeypatch):
    place, table = study
    errors = predictions._ErrorBrowser(place, "A", table, 0.5)
    monkeypatch.setattr(errors.maps, "make", lambda path: (_ for _ in ()).throw(InputError("A is refused.")))
    errors.make.click()
    assert errors.note.value == "No map was made: A is refused."
    assert not errors.make.disabled


def test_maps_are_read_once_however_often_pages_are_turned(study, monkeypatch):
    place, table = study
    read, known = [], files.read_csv
    monkeypatch.setattr(predictions, "read_csv", lambda path: read.append(path.name) or known(path))
    both = predictions._ModelComparer(place, {"A": table, "B": table.assign(y_pred=1)})
    both.pager.turn(0)
    both.pager.turn(0)
    assert read.count("maps.csv") == 2


def test_the_threshold_band_holds_the_threshold_and_shrinks_with_images():
    from xray_helpers.evaluation.thresholds import choose_threshold, threshold_band

    rng = np.random.default_rng(0)
    widths = []
    for n in (60, 2000):
        y = rng.integers(0, 2, n)
        p = 1 / (1 + np.exp(-rng.normal(3 * y - 1.5, 1.5)))
        table = pd.DataFrame({"y_true": y, "y_prob": p, "group": range(n)})
        low, high = threshold_band(table, "youden")
        assert low <= choose_threshold(y, p, "youden") <= high
        widths.append(high - low)
    assert widths[1] < widths[0]
    assert threshold_band(table, "fixed") == (0.5, 0.5)  # nothing was chosen, so nothing is uncertain
