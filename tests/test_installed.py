"""The package as pip installs it, without the repository around it."""

import json
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
NOT_BUILT = shutil.ignore_patterns("__pycache__", ".*")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def command(tmp_path_factory):
    """The command `xray-helpers` of a wheel, in an environment that shares what is installed here."""
    place = tmp_path_factory.mktemp("installed")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    offline = ["--no-deps", "--no-index", "--no-build-isolation"]
    for part in ("xray_helpers", "notebooks", "requirements"):
        shutil.copytree(REPOSITORY / part, place / "source" / part, ignore=NOT_BUILT)
    for part in ("setup.py", "pyproject.toml", "requirements.txt", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / part, place / "source")
    subprocess.run([*pip, "wheel", *offline, "-w", place, place / "source"], check=True)
    (wheel,) = place.glob("*.whl")
    venv.create(place / "venv", with_pip=False)
    packages = next((place / "venv" / "lib").glob("python*")) / "site-packages"
    shared = [path for path in sys.path if path.endswith("site-packages")]
    (packages / "shared.pth").write_text("\n".join(shared))
    python = place / "venv" / "bin" / "python"
    subprocess.run([*pip, "--python", python, "install", "--no-deps", "--force-reinstall", wheel], check=True)
    return place / "venv" / "bin" / "xray-helpers"


@pytest.fixture
def ask(command, tmp_path):
    env = {key: value for key, value in os.environ.items() if not key.startswith(("XRAY_", "PYTHONPATH"))}

    env["JUPYTER_PATH"] = f"{sys.prefix}/share/jupyter"  # templates of what is shared

    def run(*words, cwd=tmp_path):
        return subprocess.run([command, *words], cwd=cwd, env=env, capture_output=True, text=True)

    return run


def test_a_folder_of_ones_own_is_the_root_wherever_in_it_one_works(ask, tmp_path):
    assert "No studies" in ask("list").stdout
    done = ask("new", "mine")
    assert done.returncode == 0, done.stderr
    mine = tmp_path / "mine"
    ours = sorted(path.name for path in (REPOSITORY / "notebooks").glob("*.ipynb"))
    assert sorted(path.name for path in (mine / "notebooks").iterdir()) == ours
    again = ask("new", "mine")
    assert (again.returncode, "is not empty" in again.stderr) == (2, True)
    for notebook in (mine / "notebooks").glob("0[2-9]*"):
        notebook.unlink()
    first = mine / "notebooks" / "01_data_exploration.ipynb"
    content = json.loads(first.read_text())
    content["cells"].append(content["cells"][-1] | {"id": "own", "source": 'print("a cell of my own")'})
    first.write_text(json.dumps(content))
    options = ["--profile", "smoke", "--data", "phantoms", "--models", "MobileNetV2", "-p", "weights=random"]
    done = ask("run", *options, cwd=mine / "data")
    assert done.returncode == 0, done.stderr
    page = (mine / "reports" / "smoke" / "01_data_exploration.html").read_text()
    assert "a cell of my own" in page
    assert str(tmp_path) not in page
    assert "smoke" in ask("list", cwd=mine).stdout


def test_elsewhere_the_working_folder_is_the_root(ask, tmp_path):
    assert "0.0 MiB in data/cache" in ask("cache").stdout
    assert (tmp_path / "data" / "cache").is_dir()
