import logging

import pytest

from xray_helpers import series
from xray_helpers.series import build_steps
from xray_helpers.settings import Settings


def test_steps_are_explore_then_train_and_judge_each_then_compare():
    steps = build_steps(("VGG16", "ResNet50"))
    names = [step.name for step in steps]
    assert names == ["01_data_exploration", "VGG16/02_train_model", "VGG16/03_evaluate_model", "ResNet50/02_train_model",
                     "ResNet50/03_evaluate_model", "04_compare_models"]  # fmt: skip
    for step in steps:
        assert all(names.index(need) < names.index(step.name) for need in step.needs)
    assert steps[-1].any_need
    written = [path for step in steps for path in step.writes]
    assert len(written) == len(set(written))


@pytest.fixture
def lines(caplog):
    caplog.set_level(logging.INFO, logger="xray_helpers")
    return lambda: [record.getMessage().strip() for record in caplog.records]


def test_printed_lines_are_logged_once_and_whole(lines):
    console = series._ConsoleLines("VGG16/02")
    for piece in ("epoch 1 ", "of 3\nepoch 2", " of 3\n", "\n"):
        console.write(piece)
    assert lines() == ["VGG16/02: epoch 1 of 3", "VGG16/02: epoch 2 of 3"]


def test_progress_lines_are_logged_once_in_a_while(lines):
    console = series._ConsoleLines("VGG16/02", every=-1)
    console.write("\rfeatures: 10%")
    console.write("\rfeatures: 20%")
    assert lines() == ["VGG16/02: features: 10%", "VGG16/02: features: 20%"]
    seldom = series._ConsoleLines("VGG16/02", every=1000)
    for percent in range(100):
        seldom.write(f"\rfeatures: {percent}%")
    seldom.write("\r             \r")
    assert len(lines()) == 2


@pytest.mark.parametrize("broken", ["VGG16/02_train_model", "01_data_exploration", "04_compare_models"])
def test_what_a_failed_step_holds_up(root, monkeypatch, broken):
    from xray_helpers.studies import open_study, read_json

    ran = []

    def execute(step, settings, folder):
        ran.append(step.name)
        return "it broke" if step.name == broken else ""

    monkeypatch.setattr(series, "_execute", execute)
    monkeypatch.setattr(series, "_fingerprint", lambda folder: {})
    settings = Settings(name="s", data="phantoms", weights="random", models=["VGG16", "ResNet50"])
    folder = open_study(settings)
    monkeypatch.setattr(series, "prepare", lambda settings, overwrite: settings)
    series.run_study(settings)
    states = {step["name"]: step["state"] for step in read_json(folder / "study.json")["steps"]}
    assert states[broken] == "failed"
    expected = {
        "VGG16/02_train_model": {"VGG16/03_evaluate_model"},
        "01_data_exploration": set(states) - {"01_data_exploration"},
        "04_compare_models": set(),
    }[broken]
    assert {name for name, state in states.items() if state == "not run"} == expected
    assert set(ran) == set(states) - expected
