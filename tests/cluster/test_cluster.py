"""The demo study with two models on a real Slurm and on a Dask cluster: a step fails, a job is cancelled, all
is well in the end.

`tests/cluster/run.sh` starts Slurm and runs these; they take some minutes, and are left out of `make test`.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager

import nbformat
import pytest
from nbformat.v4 import new_code_cell

from xray_helpers.study.folders import notebooks_folder

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        "XRAY_HELPERS_CLUSTER" not in os.environ,
        reason="started by tests/cluster/run.sh, which .ci/run calls",
    ),
]
MODELS = ("MobileNetV2", "DenseNet121")
FAILS = "DenseNet121/03_evaluate_model"
PATIENCE = 420  # seconds


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A root for all of these, so that features are computed once."""
    return tmp_path_factory.mktemp("cluster")


@pytest.fixture
def notebooks(place):
    """The real notebooks, of which one stops as long as there is a cause."""
    folder, cause = place / "notebooks", place / "cause"
    shutil.copytree(notebooks_folder(), folder, dirs_exist_ok=True)
    name = f"{FAILS.split('/')[1]}.ipynb"
    book = nbformat.read(notebooks_folder() / name, as_version=4)
    wrong = f"model == {FAILS.split('/')[0]!r} and os.path.exists({str(cause)!r})"
    book.cells.insert(2, new_code_cell(f"import os\nif {wrong}:\n    raise RuntimeError('made to fail')"))
    nbformat.write(book, folder / name)
    cause.touch()
    return folder, cause


class Run:
    """The command on a cluster, and what it said."""

    def __init__(self, place, notebooks, name, where):
        pairs = ["epochs=5", "maps=6", "memory=2", "walltime=00:30:00", "weights=random"]
        self.command = [
            sys.executable,
            "-m",
            "xray_helpers",
            "run",
            "--profile",
            "demo",
            "--name",
            name,
            "--on",
            where,
            "--models",
            ",".join(MODELS),
            "--jobs",
            "2",
        ]
        self.command += [part for pair in pairs for part in ("-p", pair)]
        self.env = os.environ | {"XRAY_HELPERS_ROOT": str(place), "XRAY_HELPERS_NOTEBOOKS": str(notebooks)}
        self.folder = place / "reports" / name

    def start(self):
        return subprocess.Popen(
            self.command, env=self.env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    def states(self):
        path = self.folder / "study.json"
        steps = (
            json.loads(path.read_text()).get("steps", []) if path.exists() else []
        )  # none before the run has begun
        return {step["name"]: step["state"] for step in steps}

    def wait_for(self, step):
        end = time.monotonic() + PATIENCE
        while self.states().get(step) != "running":
            assert time.monotonic() < end, self.states()
            time.sleep(0.2)
        time.sleep(3)


def check(run, cancel, cause):
    """A job is cancelled and a step fails: retried, reported, compared without it; and all of it once the
    cause is gone.
    """
    process = run.start()
    run.wait_for(f"{MODELS[0]}/02_train_model")
    cancel()
    told, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1, told
    assert told.count("tried once more") >= 1
    states = run.states()
    assert {name for name, state in states.items() if state != "done"} == {FAILS}, told
    assert f"{FAILS} failed" in told
    assert "made to fail" in told
    assert "Not compared" in told  # 04 says who is missing
    cause.unlink()
    process = run.start()
    told, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, told
    assert f"{MODELS[0]}/02_train_model kept" in told
    assert set(run.states().values()) == {"done"}
    table = (run.folder / "comparison.csv").read_text()
    assert all(model in table for model in MODELS)
    assert [path for path in run.folder.rglob("*partial*")] == []


def running_jobs():
    told = subprocess.run(
        ["squeue", "-h", "-t", "R", "-o", "%A"], capture_output=True, text=True, check=True
    ).stdout
    return told.split()


def test_on_slurm_by_submitit_and_back_on_this_machine(place, notebooks):
    folder, cause = notebooks
    run = Run(place, folder, "study", "slurm")
    check(run, lambda: subprocess.run(["scancel", running_jobs()[0]], check=True), cause)
    lost = run.folder / MODELS[0] / "metrics.json"
    before = lost.read_bytes()
    lost.unlink()
    other = Run(place, folder, "study", "submitit")  # the same study goes on elsewhere
    told, _ = (process := other.start()).communicate(timeout=PATIENCE)
    assert process.returncode == 0, told
    assert told.count(" kept: ") == 8  # 04 and 07 read what they read before
    assert lost.read_bytes() == before
    told, _ = (process := Run(place, folder, "study", "here").start()).communicate(timeout=PATIENCE)
    assert process.returncode == 0
    assert "Nothing to do" in told
    tested = [*run.command[:3], "external", "study", "--data", "phantoms:hospital-b", "--on", "slurm"]
    done = subprocess.run(tested, env=run.env, capture_output=True, text=True, check=False, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    assert (run.folder / "external" / "hospital-b" / "results.json").exists()
    end = time.monotonic() + 60
    while running_jobs() and time.monotonic() < end:
        time.sleep(0.5)
    assert running_jobs() == []  # nothing is left in the queue


def test_what_slurm_refuses_is_a_sentence(place, notebooks):
    run = Run(place, notebooks[0], "refused", "slurm")
    run.command += ["-p", "partition=nowhere"]
    done = subprocess.run(run.command, env=run.env, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "Slurm refuses such a job (" in done.stderr
    assert "Traceback" not in done.stderr


@contextmanager
def started(*command):
    env = os.environ | {
        "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "0"
    }  # so that the engine, not Dask, tries again
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True, env=env
    )
    try:
        yield process
    finally:
        for each in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(process.pid, each)
            except ProcessLookupError:
                break
            time.sleep(1)
        process.wait()


def test_on_a_dask_cluster_started_by_hand(place, notebooks):
    folder, cause = notebooks
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{probe.getsockname()[1]}"
    dask = (
        (sys.executable, "-m", "distributed.cli.dask_scheduler"),
        (sys.executable, "-m", "distributed.cli.dask_worker"),
    )
    with ExitStack() as stack:
        host, port = address.removeprefix("tcp://").split(":")
        stack.enter_context(started(*dask[0], "--host", host, "--port", port, "--no-dashboard"))
        time.sleep(3)
        options = (address, "--nthreads", "1", "--no-dashboard", "--local-directory", str(place / "workers"))
        workers = [stack.enter_context(started(*dask[1], *options)) for _ in range(2)]
        check(Run(place, folder, "dask", address), lambda: os.killpg(workers[0].pid, signal.SIGKILL), cause)
