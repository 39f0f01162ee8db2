import numpy as np
import pandas as pd
import pytest
from PIL import Image

from xray_helpers.images.radiographs import ImageFolder
from xray_helpers.interactive.dataset import _DatasetBrowser
from xray_helpers.same_source.corrections import read_corrections


@pytest.fixture
def browser(tmp_path, monkeypatch):
    """A browser of three files of one source, in train, and one in test; as a function of the corrections'
    place.
    """
    monkeypatch.setenv("XRAY_HELPERS_ROOT", str(tmp_path))
    for name in "abcd":
        Image.fromarray(np.eye(20, dtype=np.uint8) * 255).save(tmp_path / f"{name}.png")
    rows = [(name, "a.png", "train", name.upper()) for name in ("a.png", "b.png", "c.png")]
    rows += [("d.png", "d.png", "test", "D.PNG")]
    manifest = pd.DataFrame(rows, columns=["path", "source_group", "split", "sha256"])
    manifest = manifest.assign(label="Fractured", status="used")
    links = pd.DataFrame(
        [("a.png", "d.png", "doubtful", "for review", 20, 0.8, "A.PNG", "D.PNG")],
        columns=["path_a", "path_b", "kind", "decision", "inliers", "correlation", "sha256_a", "sha256_b"],
    )
    return lambda corrections: _DatasetBrowser(manifest, links, ImageFolder(tmp_path), corrections)


def mark(shown, *names):
    """Click on the pictures of files."""
    for name in names:
        covers = [card.children[0].children[1] for card in shown.pictures.children]
        next(cover for cover in covers if cover.tooltip.endswith(f": {name}")).click()


def test_the_browser_starts_with_train_and_shows_test_on_demand(browser):
    shown = browser("")
    assert list(shown.page["path"]) == ["a.png", "b.png", "c.png"]
    shown.view.value = "images"
    assert list(shown.page["path"]) == ["a.png", "b.png", "c.png"]
    shown.filters["split"].value = "test"
    assert list(shown.page["path"]) == ["d.png"]
    shown.filters["split"].value, shown.source.value = "train", "nowhere"
    assert "part = train, source contains nowhere." in shown.reasons.value


def test_pages_are_cut_out_when_they_are_shown(browser):
    shown = browser("")
    more = shown.manifest.assign(source_group=["a.png", "b.png", "b.png", "a.png"], split="train")
    shown.manifest = pd.concat([more, more.tail(1).assign(path="e.png")], ignore_index=True)
    groups = shown._groups(shown.manifest)
    assert not isinstance(groups, list)
    assert [page["path"].tolist() for page in groups] == [["a.png", "d.png", "e.png"], ["b.png", "c.png"]]
    assert len(shown._groups(shown.manifest.head(0))) == len(shown._images(shown.manifest.head(0))) == 0
    assert [len(page) for page in shown._images(pd.concat([shown.manifest] * 3))] == [12, 3]


def test_a_correction_is_saved_or_a_message_says_why_not(browser, tmp_path):
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
    mark(saved, "b.png")
    saved.separate.click()
    last = {frozenset(row[1:3]): row[0] for row in pd.read_csv(tmp_path / "c.csv").itertuples(index=False)}
    assert last[frozenset(("A.PNG", "C.PNG"))] == "join"
    assert last[frozenset(("A.PNG", "B.PNG"))] == "separate"


def actions(place):
    return {frozenset(row[1:3]): row[0] for row in pd.read_csv(place).itertuples(index=False)}


def test_marking_all_files_is_like_marking_none(browser, tmp_path):
    shown = browser("c.csv")
    shown.manifest = shown.manifest.assign(sha256=["A", "A", "C", "D"])  # two are equal in every byte
    shown.sha = shown.manifest.set_index("path")["sha256"]
    for marked in (("a.png", "b.png", "c.png"), ("a.png", "c.png")):  # the copy goes with its equal
        shown.marked = set(marked)
        shown.separate.click()
        assert "equal in every byte" not in shown.message.value
        assert actions(tmp_path / "c.csv") == {frozenset("AC"): "separate"}
        (tmp_path / "c.csv").unlink()


def offered(shown):
    return [control for control in shown._controls if control.layout.display is None]


def test_each_view_offers_what_can_be_done_there(browser):
    shown = browser("c.csv")
    assert offered(shown) == [shown.hint, shown.separate]
    shown.view.value = "doubtful pairs"
    assert offered(shown) == [shown.join, shown.two]
    for view in ("images", "corrections"):  # there is no correction yet
        shown.view.value = view
        assert not offered(shown)


@pytest.mark.parametrize(
    ("button", "action", "words"), [("join", "join", "together"), ("two", "separate", "apart")]
)
def test_a_correction_of_a_doubtful_pair_is_announced_until_01_has_run(
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


def test_an_action_of_several_pairs_is_paged_through_and_taken_back_at_once(browser, tmp_path):
    shown = browser("c.csv")
    mark(shown, "b.png")
    shown.separate.click()
    assert "Saved</b>: 3 pairs in c.csv" in shown.message.value  # b apart from two, which stay together
    shown.view.value = "doubtful pairs"
    shown.join.click()
    shown.view.value = "corrections"
    assert "1 of 2" in shown.pager.where.value
    assert len(shown.pictures.children) == 3
    assert "2 pairs kept apart, 1 pair kept together" in shown.reasons.value
    assert offered(shown) == [shown.back]
    shown.back.click()
    assert "Taken back" in shown.message.value
    assert "1 of 1" in shown.pager.where.value
    assert actions(tmp_path / "c.csv") == {frozenset(("A.PNG", "D.PNG")): "join"}
    shown.back.click()
    assert "Taken back" in shown.message.value
    assert "Nothing is like that" in shown.reasons.value
    assert read_corrections("c.csv", {"A.PNG", "B.PNG", "C.PNG"}).empty
    (tmp_path / "c.csv").write_text("")
    shown.view.value = "images"
    shown.view.value = "corrections"
    assert "need the columns" in shown.message.value


def test_what_was_just_saved_is_undone_where_it_was_done(browser, tmp_path):
    shown = browser("c.csv")
    shown.separate.click()
    before = actions(tmp_path / "c.csv")
    mark(shown, "b.png")
    shown.separate.click()
    assert offered(shown) == [shown.hint, shown.separate, shown.back]
    assert actions(tmp_path / "c.csv") != before
    shown.back.click()
    assert actions(tmp_path / "c.csv") == before  # what it replaced counts again
    assert offered(shown) == [shown.hint, shown.separate]


def test_a_click_on_a_picture_marks_it_and_another_unmarks_it(browser):
    shown = browser("c.csv")
    mark(shown, "b.png", "c.png", "b.png")
    assert shown.marked == {"c.png"}
    colors = [card.children[0].children[1].style.button_color for card in shown.pictures.children]
    assert [color == "transparent" for color in colors] == [True, True, False]


def test_large_groups_show_the_rest_of_their_pictures_on_demand(browser):
    shown = browser("c.csv")
    files = pd.concat([shown.manifest.head(1)] * 15, ignore_index=True)
    shown.manifest = files.assign(path=[f"{i}.png" for i in range(15)], sha256=[str(i) for i in range(15)])
    shown._filter()
    assert len(shown.pictures.children) == 12
    assert shown.rest.description == "Show the other 3 pictures"
    shown.rest.click()
    assert len(shown.pictures.children) == 15
    assert shown.rest not in offered(shown)
