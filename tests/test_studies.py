import json

import pandas as pd
import pytest

from xray_helpers.settings import InputError, Settings
from xray_helpers.studies import (
    from_root,
    local_path,
    open_study,
    provenance,
    read_csv,
    read_json,
    shareable,
    write_csv,
    write_json,
    write_whole,
)


def test_a_failed_write_leaves_what_was_there_and_nothing_else(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"x": 1})

    def fail(partial):
        partial.write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_whole(path, fail)
    with pytest.raises(ValueError, match="JSON"):
        write_json(path, {"x": float("nan")})
    assert read_json(path) == {"x": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_tables_survive_a_round_trip(tmp_path):
    table = pd.DataFrame(
        {"path": ["001", "NA", 'a "b",\nc'], "group": ["1", "2", None], "y_prob": [0.1 + 0.2, 1e-17, 1]}
    )
    back = read_csv(write_csv(tmp_path / "t.csv", table))
    assert list(back["path"]) == list(table["path"])
    assert (back["y_prob"] == table["y_prob"]).all()
    assert back["group"].isna().tolist() == [False, False, True]


def test_missing_and_damaged_files_say_what_to_do(tmp_path):
    with pytest.raises(InputError, match="run the notebook that writes it first"):
        read_csv(tmp_path / "manifest.csv")
    (tmp_path / "x.json").write_text("{")
    with pytest.raises(InputError, match="delete it, run again"):
        read_json(tmp_path / "x.json")


def test_places_on_this_machine_are_kept_apart(root):
    settings = Settings(name="s", data="/home/somebody/images", weights="../weights")
    folder = open_study(settings)
    assert shareable(settings)["data"] == shareable(settings)["weights"] == "local"
    assert "somebody" not in (folder / "study.json").read_text()
    assert local_path(folder, "data", "local") == "/home/somebody/images"
    assert local_path(folder, "weights", "local") == str(from_root("../weights"))
    assert local_path(folder, "weights", "random") == "random"
    other = open_study(Settings(name="t"))
    with pytest.raises(InputError, match="does not know where its data"):
        local_path(other, "data", "local")


def test_provenance_names_no_host():
    import getpass
    import socket

    text = json.dumps(provenance()["machine"])
    assert socket.gethostname() not in text or len(socket.gethostname()) < 4
    assert getpass.getuser() not in text or len(getpass.getuser()) < 5
