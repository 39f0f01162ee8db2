import json
import subprocess
import sys
import time
from contextlib import contextmanager
from types import SimpleNamespace

import pytest

from xray_helpers.interactive import server
from xray_helpers.interactive.server import _answers, _free_port, serve_room, write_lab
from xray_helpers.settings import InputError, Settings
from xray_helpers.study.folders import open_study


@pytest.fixture
def study(root):
    return open_study(Settings(name="s", data="phantoms", weights="random", models=["VGG16", "ResNet50"]))


def parameters(notebook):
    cells = json.loads(notebook.read_text())["cells"]
    assert not [c for c in cells if "injected-parameters" in c["metadata"].get("tags", [])]
    return next("".join(c["source"]) for c in cells if "parameters" in c["metadata"].get("tags", []))


def test_changes_by_hand_stay_and_another_model_gets_another_notebook(study):
    written = {path.stem: path for path in write_lab("s", "VGG16")}
    assert list(written)[:2] == ["01_data_exploration", "02_train_model"]
    train = written["02_train_model"]
    assert 'model = "VGG16"  # the backbone' in parameters(train)
    assert 'weights = "random"  # weights of' in parameters(train)
    assert compile(parameters(train), "cell", "exec")
    assert train.parent == study / "lab"
    book = json.loads(train.read_text())
    book["cells"].append({"cell_type": "markdown", "id": "mine", "metadata": {}, "source": "my own thoughts"})
    train.write_text(json.dumps(book))
    write_lab("s", "VGG16")
    assert "my own thoughts" in train.read_text()
    write_lab("s", "ResNet50")
    assert 'model = "ResNet50"' in parameters(train)
    assert "my own thoughts" in (study / "lab" / "02_train_model-before-1.ipynb").read_text()
    assert not (study / "lab" / "01_data_exploration-before-1.ipynb").exists()  # it names no model
    with pytest.raises(InputError, match="no model 'VGG19'"):
        write_lab("s", "VGG19")


def test_a_notebook_opens_with_what_the_run_gave_and_says_how_to_run_it(study):
    book = json.loads((server.notebooks_folder() / "02_train_model.ipynb").read_text())
    cell = next(c for c in book["cells"] if c["cell_type"] == "code" and "open_run" in "".join(c["source"]))
    cell["outputs"] = [{"output_type": "stream", "name": "stdout", "text": ["of the run"]}]
    (study / "VGG16").mkdir()
    (study / "VGG16" / "02_train_model.ipynb").write_text(json.dumps(book))
    written = {path.stem: json.loads(path.read_text())["cells"] for path in write_lab("s", "VGG16")}
    outputs = [c["outputs"] for c in written["02_train_model"] if c["cell_type"] == "code" and c["outputs"]]
    assert [each[0]["text"] for each in outputs] == [["of the run"]]
    assert "what the study's run gave" in "".join(written["02_train_model"][1]["source"])
    assert "".join(written["01_data_exploration"][1]["source"]).startswith("> **Run ▸ Run All Cells**")


def test_a_slow_server_is_waited_for(tmp_path):
    port = _free_port("127.0.0.1", 0)
    address = f"http://127.0.0.1:{port}"
    slow = f"""
import socket, time
listener = socket.create_server(("127.0.0.1", {port}))
listener.accept()[0].close()  # a connection that is dropped
listener.accept()[0].send(b"HTTP/1.0 403 Forbidden\\r\\n\\r\\n")
time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", slow]) as process:
        assert _answers(process, address)
        process.kill()
    started = time.monotonic()
    assert not _answers(process, address)  # it has ended
    assert time.monotonic() - started < 30


def test_a_study_without_a_model_has_no_reading_room(study):
    with pytest.raises(InputError, match="no trained and evaluated model"):
        serve_room("s")


def test_tensorflow_is_quiet_in_jupyterlab(study, monkeypatch):
    given = {}

    @contextmanager
    def child(command, **options):
        given.update(options, command=command)
        yield SimpleNamespace(wait=lambda: None, returncode=0)

    monkeypatch.setattr(server, "_child", child)
    monkeypatch.delenv("TF_CPP_MIN_LOG_LEVEL", raising=False)
    server.open_lab("s", "VGG16", arguments=["--allow-root"])
    assert given["env"]["TF_CPP_MIN_LOG_LEVEL"] == "3"
    assert "--LabApp.default_url=/lab/tree/01_data_exploration.ipynb" in given["command"]  # no launcher
