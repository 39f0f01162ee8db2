import os
import subprocess
import sys
import time

import pandas as pd
import psutil
import pytest

from xray_helpers.settings import InputError
from xray_helpers.study.files import (
    atomic_write,
    build_table,
    read_csv,
    read_json,
    sweep_partials,
    temporary_path,
    write_csv,
    write_json,
)
from xray_helpers.study.tables import MANIFEST


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


@pytest.mark.parametrize("rows", [[{"path": "1", "fold": 2, "counted": True, "width": 7}, {"path": "2"}], []])
def test_a_manifest_is_read_back_with_the_types_it_is_written_with(tmp_path, rows):
    table = build_table(rows, MANIFEST)
    back = read_csv(write_csv(tmp_path / "manifest.csv", table))
    pd.testing.assert_frame_equal(back, table)
    assert back.dtypes.astype(str).to_dict() == MANIFEST


def test_missing_and_damaged_files_say_what_to_do(tmp_path):
    with pytest.raises(InputError, match="run the notebook that writes it first"):
        read_csv(tmp_path / "manifest.csv")
    (tmp_path / "x.json").write_text("{")
    with pytest.raises(InputError, match="delete it, run again"):
        read_json(tmp_path / "x.json")
