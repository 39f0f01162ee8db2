import pytest

from xray_helpers.settings import InputError
from xray_helpers.study import external
from xray_helpers.study.files import read_json, write_json
from xray_helpers.study.folders import redact


@pytest.fixture
def study(root):
    """A folder of a study."""
    folder = root / "reports" / "s"
    write_json(folder / "local.json", {"data": "/somewhere/own"})
    return folder


def test_places_are_kept_apart_from_what_is_shared(study, root):
    with pytest.raises(InputError, match="knows no external set 'b': say where it lies with --data"):
        external.external_place(study, "b")
    assert external.external_place(study, "b", "sets/b") == str(root / "sets" / "b")
    assert external.external_place(study, "b") == str(root / "sets" / "b")
    assert external.external_place(study, "c", "phantoms:hospital-b") == "phantoms:hospital-b"
    with pytest.raises(InputError, match="is another external set of s already"):
        external.external_place(study, "b", "sets/other")
    assert read_json(study / "local.json")["data"] == "/somewhere/own"
    write_json(study / "local.json", {"external": {"b": "/srv/ward-7/b"}})
    assert redact("reading /srv/ward-7/b/1.png", study) == "reading [external b]/1.png"


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".hidden", "x" * 61, "a b"])
def test_names_are_those_of_folders(study, name):
    with pytest.raises(InputError, match="cannot be called"):
        external.external_folder(study, name)


def test_history_is_added_to_and_shows_where_something_was_taken_out(study):
    folder = external.external_folder(study, "b")
    for number in range(3):
        external.append_history(folder, {"study": "k", "data": "d", "n": number})
    other = external.external_folder(study, "renamed")
    external.append_history(other, {"study": "k", "data": "d", "n": 9})
    external.append_history(other, {"study": "k", "data": "others", "n": 10})
    found = external.read_history(study, "d", "b")
    assert sorted(entry["n"] for entry in found) == [0, 1, 2, 9]  # the same images under another name, too
    assert all(entry["intact"] for entry in found)
    history = read_json(folder / external.HISTORY)
    del history["tests"][1]
    write_json(folder / external.HISTORY, history)
    found = external.read_history(study, "d", "b")
    assert [entry["intact"] for entry in found if entry["set"] == "b"] == [True, False]
    assert external.read_history(study, "unknown", "new") == []


def test_the_lock_follows_models_thresholds_and_images(study):
    for file, text in (("model.keras", "weights"), ("threshold.json", "{}")):
        (study / "M").mkdir(exist_ok=True)
        (study / "M" / file).write_text(text)
    first = external.lock_models(study, ["M"], "images")
    assert external.lock_models(study, ["M"], "images") == first
    assert external.lock_models(study, ["M"], "other images")["study"] != first["study"]
    (study / "M" / "threshold.json").write_text('{"threshold": 0.4}')
    assert external.lock_models(study, ["M"], "images")["study"] != first["study"]
