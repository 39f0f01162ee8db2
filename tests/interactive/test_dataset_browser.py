import pandas as pd
import pytest

from xray_helpers.images.radiographs import ImageFolder
from xray_helpers.interactive.dataset import _DatasetBrowser
from xray_helpers.same_source.corrections import read_corrections


@pytest.fixture
def browser(tmp_path, monkeypatch):
    """A browser of three files of one source, in train, and one in test; as a function of the corrections'
    place.
    """
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


def test_the_browser_starts_with_train_and_shows_test_on_demand(browser):
    shown = browser("")
    assert list(shown.wrong.options) == ["a.png", "b.png", "c.png"]
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
    saved.wrong.value = ("b.png",)
    saved.separate.click()
    last = {frozenset(row[1:]): row[0] for row in pd.read_csv(tmp_path / "c.csv").itertuples(index=False)}
    assert last[frozenset(("A.PNG", "C.PNG"))] == "join"
    assert last[frozenset(("A.PNG", "B.PNG"))] == "separate"


def actions(place):
    return {frozenset(row[1:]): row[0] for row in pd.read_csv(place).itertuples(index=False)}


def test_marking_all_files_is_like_marking_none(browser, tmp_path):
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
