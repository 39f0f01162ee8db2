import json
import os
import subprocess
import sys
import time

import pandas as pd
import psutil
import pytest

from xray_helpers.settings import InputError, Settings
from xray_helpers.study.files import (
    atomic_write,
    read_csv,
    read_json,
    sweep_partials,
    temporary_path,
    write_csv,
    write_json,
)
from xray_helpers.study.folders import from_root, local_path, open_study, shareable
from xray_helpers.study.machine import provenance


def test_a_failed_write_leaves_what_was_there_and_nothing_else(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"x": 1})
    with pytest.raises(OSError, match="disk full"), atomic_write(path) as partial:
        partial.write_text("half")
        raise OSError("disk full")
    with pytest.raises(ValueError, match="JSON"):
        write_json(path, {"x": float("nan")})
    assert read_json(path) == {"x": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_only_what_the_dead_left_half_written_is_swept(tmp_path):
    """A process that was killed and not yet waited for has a number still; a number may have gone to another
    process.
    """

    def leave(pid):
        path = tmp_path / temporary_path(tmp_path / "a.npy").name.replace(f"-{os.getpid()}-", f"-{pid}-")
        path.write_text("half")
        return path

    mine, before_me = leave(os.getpid()), leave(os.getpid())
    os.utime(before_me, (0, time.time() - 86_400 * 365))
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as living:
        theirs = leave(living.pid)
        sweep_partials(tmp_path)
        assert set(tmp_path.iterdir()) == {mine, theirs}
        living.kill()
        while psutil.Process(living.pid).status() != psutil.STATUS_ZOMBIE:
            time.sleep(0.01)
        sweep_partials(tmp_path)
        assert list(tmp_path.iterdir()) == [mine]


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

    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a number without a name, as in some containers
        user = ""
    text = json.dumps(provenance()["machine"])
    assert socket.gethostname() not in text or len(socket.gethostname()) < 4
    assert user not in text or len(user) < 5


def test_each_use_of_a_seed_has_a_stream_of_its_own():
    from xray_helpers.study.seeds import derive_seed

    seeds = (0, 1, 2, 42, 4_294_967, 2**32 - 2, 2**32 - 1)
    keys = ("test", "validation", "folds", "subset", *(("repeat", n) for n in range(50)), ("attempt", 3))
    drawn = [derive_seed(seed, *([key] if isinstance(key, str) else key)) for seed in seeds for key in keys]
    assert all(0 <= value < 2**32 for value in drawn)
    assert len(set(drawn)) == len(seeds) * len(keys)
    assert derive_seed(42, "test") == derive_seed(42, "test")


def test_no_seed_is_made_by_arithmetic():
    """A sum leaves the allowed range at its end, and makes one study's stream another study's."""
    import re
    from pathlib import Path

    import xray_helpers

    folder = Path(xray_helpers.__file__).parent
    sources = [*folder.rglob("*.py"), *(folder.parent / "notebooks").glob("*.ipynb")]
    found = [
        f"{p.name}: {line.strip()}"
        for p in sources
        for line in p.read_text(encoding="utf-8").splitlines()
        if re.search(r"\bseed\)?\s*[-+*%^]\s*[\w(]", line)
    ]
    assert not found
