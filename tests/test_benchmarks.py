"""Every benchmark runs in its one-minute form and prints its table, so that none rots."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[1] / "benchmarks"
HELPERS = ("small", "changes", "audit_others")  # of other scripts
SCRIPTS = sorted(path.stem for path in FOLDER.glob("*.py") if path.stem not in HELPERS)
TABLES = {  # words of the header, and how many rows at least
    "audits": ("MobileNetV2 cosine", 4),
    "backbones": ("TensorFlow, images a second", 2),
    "class_coverage": ("macro_auroc", 5),
    "export": ("ms, one thread", 2),
    "federated": ("seconds a round", 3),
    "finetuning": ("fine-tuned - head", 1),
    "explorer": ("| images | explorer, ms a move |", 1),
    "interval_coverage": ("metric", 1),
    "localize": ("pointing game", 5),
    "maps": ("pixels", 2),
    "patients": ("evidence  pairs", 2),
    "reading": ("files a second", 2),
    "same_source": ("residual leak", 1),
    "scale": ("images a second", 1),
    "shortcuts": ("ruled out", 1),
    "small_sets": ("exit status", 1),
    "speed": ("images a second", 6),
    "steps": ("kernel and HTML", 4),
    "survive": ("| round | cache | killed |", 1),
    "views": ("0 views", 2),
}


def run(script: str, *options: str, place: Path) -> subprocess.CompletedProcess:
    repository = str(FOLDER.parent)
    path = os.pathsep.join(filter(None, [repository, os.environ.get("PYTHONPATH")]))
    env = os.environ | {"PYTHONPATH": path, "TMPDIR": str(place)}
    command = [sys.executable, str(FOLDER / f"{script}.py"), *options]
    return subprocess.run(
        command, env=env, cwd=place, capture_output=True, text=True, timeout=400, check=False
    )


def quick_options(script: str) -> list[str]:
    source = (FOLDER / f"{script}.py").read_text(encoding="utf-8")
    if script == "interval_coverage" and '"--quick"' not in source:
        return ["--studies", "5"]
    return ["--quick"]


def test_every_benchmark_is_listed_here():
    assert sorted(TABLES) == SCRIPTS


@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS)
def test_a_benchmark_prints_its_table(script, tmp_path):
    done = run(script, *quick_options(script), place=tmp_path)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    header, rows = TABLES[script]
    lines = done.stdout.splitlines()
    at = next((number for number, line in enumerate(lines) if header in line), None)
    assert at is not None, done.stdout
    assert len([line for line in lines[at + 1 :] if any(map(str.isdigit, line))]) >= rows, done.stdout


@pytest.mark.slow
def test_statistics_and_notebooks_run_on_as_many_images_as_asked(tmp_path):
    done = run("scale", "--evaluate", "240", place=tmp_path)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    steps = [line.split("|")[1].strip() for line in done.stdout.splitlines() if line.startswith("| ")]
    assert steps == [
        "step",
        "scores of five models, all pairs",
        "01",
        "groups and parts, each its own",
        "02",
        "03",
        "04",
    ]


@pytest.mark.slow
def test_statistics_of_100_000_images_of_as_many_groups_fit_in_two_gigabytes(tmp_path):
    repository = str(FOLDER.parent)
    command = [sys.executable, str(FOLDER / "scale.py"), "100000", "--part", "statistics"]
    process = subprocess.Popen(command, env=os.environ | {"PYTHONPATH": repository}, cwd=tmp_path)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    assert usage.ru_maxrss / 2**20 < 2


def test_the_sweep_of_heads_can_be_read():
    from xray_helpers.runner.sweeps import read_sweep
    from xray_helpers.study.parameters import read_settings_file

    assert len(read_sweep(read_settings_file(FOLDER / "heads.yaml")).studies) > 1


@pytest.mark.parametrize("script", ["audits", "scale", "steps", "same_source", "views"])
def test_what_a_benchmark_needs_is_asked_for(script, tmp_path):
    done = run(script, place=tmp_path)
    assert done.returncode == 2
    assert "--quick" in done.stderr
