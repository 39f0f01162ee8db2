"""What a run survives, on light stand-ins for the notebooks; the real series is killed in the fixture
`study`.
"""

import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

import nbformat
import psutil
import pytest
from nbformat.v4 import new_code_cell, new_notebook
from stand_in import write_notebooks

pytestmark = pytest.mark.slow
NAME = "survives"


class Command:
    """`python -m xray_helpers run` of a study on stand-ins, in a folder of its own."""

    def __init__(self, place, recorded, data, **how):
        self.root, self.mark = place / "root", uuid4().hex
        self.folder, self.data = self.root / "reports" / NAME, data
        notebooks = write_notebooks(place / "notebooks", recorded, **how)
        self.env = os.environ | {
            "MARK": self.mark,
            "XRAY_HELPERS_ROOT": str(self.root),
            "XRAY_HELPERS_NOTEBOOKS": str(notebooks),
        }

    def start(self, *more):
        command = [
            sys.executable,
            "-m",
            "xray_helpers",
            "run",
            "--name",
            NAME,
            "--data",
            str(self.data),
            "--models",
            "MobileNetV2",
            "-p",
            "weights=random",
            *more,
        ]
        heed = lambda: signal.signal(signal.SIGINT, signal.default_int_handler)  # noqa: E731  # ignored in a shell's background
        return subprocess.Popen(
            command, env=self.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=heed
        )

    def run(self, *more):
        process = self.start(*more)
        _, told = process.communicate()
        return process.returncode, told

    def processes(self, word=""):
        """Return what runs in this study's name, by a word of its name or command line."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get("MARK") == self.mark and word in " ".join(
                    [process.name(), *process.cmdline()]
                ):
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def wait_for_none(self, seconds=10):
        end = time.monotonic() + seconds
        while self.processes() and time.monotonic() < end:
            time.sleep(0.1)
        return self.processes()

    def partials(self):
        return [path for path in self.root.rglob("*partial*") if path.exists()]

    def errors(self):
        steps = json.loads((self.folder / "study.json").read_text())["steps"]
        return {step["name"]: step["error"] for step in steps if step["state"] == "failed"}


def is_sentence(text):
    return text.endswith(".") and "Traceback" not in text and "\n" not in text.strip()


@pytest.fixture
def stand_in(study, secret_csv, tmp_path):
    return lambda place=tmp_path, **how: Command(place, study, secret_csv, **how)


def test_killed_at_twenty_moments_the_same_command_ends_the_study(stand_in):
    command = stand_in()
    status, told = command.run()
    assert status == 0, told
    wanted = (command.folder / "MobileNetV2" / "metrics.json").read_bytes()
    draw, kills, ended = random.Random(8), 0, 0
    shutil.rmtree(command.folder)
    process = command.start()
    while kills < 20:
        time.sleep(draw.uniform(0.1, 3))
        words = ["xray_helpers run", "xray_helpers.runner", "xray-step", "xray-kernel", "ipykernel_launcher"]
        word = draw.choice(words)
        victims = command.processes(word) or command.processes()
        if process.poll() is None and victims:
            with suppress(psutil.NoSuchProcess):  # it had ended this moment
                victims[0].kill()
                kills += 1
        if process.poll() is None and victims and victims[0].pid != process.pid:
            continue  # it goes on, and tries that step once more
        process.communicate()
        assert command.wait_for_none() == []  # no step or kernel outlives the command
        if process.returncode == 0:
            assert (command.folder / "MobileNetV2" / "metrics.json").read_bytes() == wanted
            assert command.partials() == []
            ended += 1
            shutil.rmtree(command.folder)
        process = command.start()
    process.communicate()
    status, told = command.run()
    assert status == 0, told
    assert (command.folder / "MobileNetV2" / "metrics.json").read_bytes() == wanted
    assert command.partials() == []
    assert command.wait_for_none() == []
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    status, told = command.run()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert (status, "Nothing to do" in told) == (0, True)
    assert after.ru_utime - before.ru_utime < 3  # of one core: half a second, but for what the machine adds


def test_a_notebook_of_ones_own_runs_with_the_study(stand_in):
    command = stand_in()
    notebooks = Path(command.env["XRAY_HELPERS_NOTEBOOKS"])
    cells = [
        new_code_cell('name = "quick"  # the study', metadata={"tags": ["parameters"]}),
        new_code_cell("import xray_helpers as xh\n\nrun = xh.open_run(globals())"),
        new_code_cell('counts = run.manifest["label"].value_counts().reset_index()'),
        new_code_cell('run.save("counts.csv", counts)\nrun.show(counts, "As many as there are.")'),
    ]
    nbformat.write(new_notebook(cells=cells), notebooks / "06_my_question.ipynb")
    status, said = command.run()
    assert status == 0, said
    assert (command.folder / "counts.csv").exists()
    assert "As many as there are." in (command.folder / "06_my_question.html").read_text()
    assert 'href="06_my_question.html"' in (command.folder / "index.html").read_text()
    status, said = command.run()
    assert "Nothing to do" in said
    changed = [*cells[:-1], new_code_cell('run.show("Another answer.")')]
    nbformat.write(new_notebook(cells=changed), notebooks / "06_my_question.ipynb")
    status, said = command.run()  # its own step alone is done again
    assert status == 0, said
    assert "01_data_exploration kept" in said
    assert "Another answer." in (command.folder / "06_my_question.html").read_text()


def test_interrupted_it_says_how_it_goes_on(stand_in):
    command = stand_in(first={"02_train_model": "time.sleep(60)"})
    process = command.start()
    while (
        not command.processes("xray-kernel") + command.processes("ipykernel_launcher")
        or not (command.folder / "01_data_exploration.done.json").exists()
    ):
        assert process.poll() is None
        time.sleep(0.1)
    other, told = command.run()
    assert other == 2
    assert "is being run by another command" in told
    assert is_sentence(told.strip().splitlines()[-1])
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "the same command goes on from here" in told
    assert "Traceback" not in told
    assert command.wait_for_none() == []
    assert command.partials() == []
    state = json.loads((command.folder / "study.json").read_text())
    assert state["state"] == "interrupted"
    assert [step["state"] for step in state["steps"]] == ["done", "interrupted", *["waiting"] * 4]
    shown = subprocess.run(
        [sys.executable, "-m", "xray_helpers", "status", NAME],
        env=command.env,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert "interrupted" in shown
    assert "1 of 6 steps done" in shown


LOST = {  # a model, what its training meets, and what is said of it
    "VGG16": (
        "os.kill(os.getpid(), 9)",
        "Its kernel was killed, most often for want of memory: it had reached",
    ),
    "ResNet50": ("time.sleep(600)", "It did not end within 90 seconds"),
    "DenseNet121": ("sys.exit(0)", "It ended without an error, but did not write"),
}


def test_steps_that_are_lost_are_a_sentence_each_and_the_study_goes_on_without_the_cause(stand_in, tmp_path):
    cause = tmp_path / "cause"
    cause.touch()
    meet = "\n".join(f"if model == {model!r}: {source}" for model, (source, _) in LOST.items())
    command = stand_in(
        first={"02_train_model": f"if os.path.exists({str(cause)!r}):\n    " + meet.replace("\n", "\n    ")}
    )
    models = ["--models", ",".join(["MobileNetV2", *LOST])]
    status, told = command.run(*models, "-p", "step_limit=0.025")
    assert status == 1, told
    errors = command.errors()
    assert set(errors) == {f"{model}/02_train_model" for model in LOST}
    for model, (_, words) in LOST.items():
        assert words in errors[f"{model}/02_train_model"]
        assert is_sentence(errors[f"{model}/02_train_model"])
        assert (command.folder / model / "02_train_model.html").exists()  # with what ran before
    assert told.count("tried once more") == 1  # the kernel that was killed
    assert (command.folder / "comparison.csv").exists()  # of the model that was trained
    assert command.wait_for_none() == []
    cause.unlink()
    status, told = command.run(*models)
    assert status == 0, told
    assert "MobileNetV2/03_evaluate_model kept" in told
    assert command.partials() == []


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 24 MiB."""
    place = tmp_path / "disk"
    place.mkdir()
    if (
        os.geteuid()
        or subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(place)], check=False
        ).returncode
    ):
        pytest.skip("only root can mount a small disk")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_disk_that_is_full_or_cannot_be_written_is_a_sentence_and_the_study_goes_on_afterwards(
    stand_in, small_disk
):
    command = stand_in(small_disk)
    ballast = small_disk / "ballast"
    ballast.write_bytes(b"x" * (shutil.disk_usage(small_disk).free - 300_000))
    status, told = command.run()
    assert status in (1, 2), told
    assert "The disk is full: free some space, and run the same command again" in told
    assert "Traceback" not in told
    assert command.wait_for_none() == []
    ballast.unlink()
    status, told = command.run()
    assert status == 0, told
    assert command.partials() == []

    (command.folder / "MobileNetV2" / "metrics.json").unlink()
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    status, told = command.run()
    assert status in (1, 2)
    assert "cannot be written: make it writable" in told
    assert "Traceback" not in told
    subprocess.run(["mount", "-o", "remount,rw", str(small_disk)], check=True)
    assert command.run()[0] == 0
