"""Steps that are copies of a process which has imported all they need."""

import json
import os
import sys
import time

import nbformat
import psutil
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from xray_helpers.runner import forks
from xray_helpers.runner.worker import run_step
from xray_helpers.study.files import write_json
from xray_helpers.study.folders import RUN

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="only Linux copies")]
LOOK = """
import json, os, sys, random
import numpy as np
found = {"loaded": "tensorflow" in sys.modules, "name": open("/proc/self/comm").read().strip()}
found |= {"drawn": [random.random(), float(np.random.random())], "threads": os.environ.get("OMP_NUM_THREADS")}
import ipykernel, tensorflow as tf
found["transport"] = json.load(open(ipykernel.get_connection_file()))["transport"]
found |= {"sum": float(tf.reduce_sum(tf.ones((300, 300)) @ tf.ones((300, 300)))), "root": os.getcwd()}
json.dump(found, open(f"{out}.json", "w"))
if out == "lost": os.kill(os.getpid(), 9)
"""


@pytest.fixture
def step(tmp_path):
    write_json(tmp_path / RUN, {"run": "here"})
    cells = [new_code_cell('out = ""', metadata={"tags": ["parameters"]}), new_code_cell(LOOK)]
    nbformat.write(new_notebook(cells=cells), tmp_path / "look.ipynb")
    common = {"notebook": str(tmp_path / "look.ipynb"), "folder": str(tmp_path), "root": str(tmp_path)}
    common |= {"made_of": {}, "run": "here", "console": str(tmp_path / "console"), "limit": 300}

    def run(name, threads):
        own = {"name": name, "parameters": {"out": name}, "writes": [f"{name}.json"], "threads": threads}
        told = run_step(common | own)
        return told, json.loads((tmp_path / f"{name}.json").read_text())

    return run


def test_a_copy_computes_as_a_process_of_its_own_and_leaves_nothing(step, tmp_path):
    with forks.copying(2):
        assert forks.start_copy(os.environ) is None  # for so few it is not worth it
    with forks.copying(3):
        while (early := forks.start_copy(os.environ)) is None:  # it still imports
            time.sleep(0.2)
        for pipe in early:  # a step that is never told what to do ends with its input
            pipe.close()
        told, found = step("one", 1)
        assert (told["error"], told["lost"]) == ("", "")
        assert found["loaded"]
        assert found["transport"] == "ipc"  # ports that were free are taken by others now and then
        assert (found["name"], found["threads"], found["root"]) == ("xray-kernel", "1", str(tmp_path))
        assert found["sum"] == 300.0**3
        _, other = step("two", 0)
        assert other["threads"] == os.environ.get("OMP_NUM_THREADS")
        assert not set(found["drawn"]) & set(other["drawn"])
        assert (tmp_path / "console").read_text() == ""  # neither TensorFlow nor the kernel speaks
        lost, _ = step("lost", 1)
        assert lost["lost"] == "dead"
        forks._server._process.kill()
        forks._server._process.wait()
        told, found = step("three", 1)  # by a process of its own again
        assert (told["error"], found["loaded"]) == ("", False)
    own = [process.name() for process in psutil.Process().children(recursive=True)]
    assert not [name for name in own if name.startswith("xray-")]
