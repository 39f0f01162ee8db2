import logging
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from xray_helpers.reports import cards
from xray_helpers.runner import scheduler
from xray_helpers.runner.console import ConsoleLines
from xray_helpers.runner.graph import EVALUATE, build_steps
from xray_helpers.runner.options import RunOptions
from xray_helpers.runner.scheduler import Plan, Scheduler
from xray_helpers.runner.steps import read_record, record_path, why_rerun, write_record
from xray_helpers.settings import Settings
from xray_helpers.study.files import read_json, write_json
from xray_helpers.study.folders import open_study, shareable
from xray_helpers.study.machine import provenance

MODELS = ("VGG16", "ResNet50")


@pytest.fixture
def study(root, monkeypatch):
    """A study whose steps are played: what each writes is its name; what is in `broken` fails, or is lost."""
    monkeypatch.setattr(scheduler, "write_studies", lambda: None)
    monkeypatch.setattr(cards, "write_model_card", lambda *_: None)
    monkeypatch.setattr(Plan, "save", lambda plan: write_json(plan.folder / "study.json", plan.state))
    played = Played(root)
    monkeypatch.setattr(scheduler, "run_step", played)
    return played


COLUMNS = "path,status,split,label,group,source_group,sha256,note,reason"
MANIFEST = COLUMNS + "\na.png,used,train,Fractured,a.png,a.png,x,,\n"


class Played:
    def __init__(self, root):
        self.ran, self.broken = [], {}
        self.settings = Settings(name="s", data="phantoms", weights="random", models=MODELS)
        self.folder = open_study(self.settings)

    def __call__(self, spec):
        self.ran.append(spec["name"])
        for file in spec["writes"][:1]:  # what it had written when it failed
            (Path(spec["folder"]) / file).parent.mkdir(exist_ok=True)
            (Path(spec["folder"]) / file).write_text("early")
        outcomes = self.broken.get(spec["name"])
        if outcomes:
            outcome = outcomes.pop(0)
            if isinstance(outcome, Exception):
                raise outcome
            if outcome["error"] or outcome["lost"]:
                return outcome
        folder = Path(spec["folder"])
        for file in (*spec["writes"], f"{spec['name']}.ipynb", f"{spec['name']}.html"):
            (folder / file).parent.mkdir(exist_ok=True)
            texts = {"manifest.csv": MANIFEST, "classes.json": "{}"}
            (folder / file).write_text(texts.get(file, spec["name"]))
        write_record(
            spec["name"], folder, spec["writes"], spec["made_of"], {"seconds": 1.0, "started": "now"}
        )
        return {"error": "", "lost": ""}

    def plan(self, settings, shards=None):
        folder = open_study(settings)
        steps = build_steps(settings.models, shards)
        state = {
            "steps": [
                {"name": step.name, "report": step.name, "state": "waiting", "writes": list(step.writes)}
                for step in steps
            ]
        }
        write_json(folder / ".run.json", {"run": "x"})
        return Plan(settings, folder, steps, state)

    def run(self, shards=None, settings=None, jobs=2):
        self.ran.clear()
        with ThreadPoolExecutor(2) as pool:
            Scheduler([self.plan(settings or self.settings, shards)], RunOptions(jobs=jobs), pool, "x").run()
        return {step["name"]: step["state"] for step in read_json(self.folder / "study.json")["steps"]}


def test_steps_are_explore_then_train_and_judge_each_then_compare():
    steps = build_steps(("VGG16", "ResNet50"))
    names = [step.name for step in steps]
    assert names == [
        "01_data_exploration",
        "VGG16/02_train_model",
        "VGG16/03_evaluate_model",
        "VGG16/03a_where_it_looked",
        "ResNet50/02_train_model",
        "ResNet50/03_evaluate_model",
        "ResNet50/03a_where_it_looked",
        "04_compare_models",
        "07_localize",
    ]
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
    console = ConsoleLines("VGG16/02")
    for piece in ("epoch 1 ", "of 3\nepoch 2", " of 3\n", "\n"):
        console.write(piece)
    assert lines() == ["VGG16/02: epoch 1 of 3", "VGG16/02: epoch 2 of 3"]


def test_a_last_line_that_did_not_end_is_logged_too(lines):
    console = ConsoleLines("VGG16/02")
    console.write("epoch 1\nterminate called")
    console.close()
    assert lines() == ["VGG16/02: epoch 1", "VGG16/02: terminate called"]


def test_a_page_that_cannot_be_written_ends_no_run(study, monkeypatch, lines):
    def fail(*_):
        raise ValueError("half a picture")

    monkeypatch.setattr(cards, "write_model_card", fail)
    monkeypatch.setattr(scheduler, "write_studies", fail)
    assert set(study.run().values()) == {"done"}
    assert "A page was not written (ValueError: half a picture)." in lines()


def test_progress_lines_are_logged_once_in_a_while(lines):
    console = ConsoleLines("VGG16/02", every=-1)
    for percent in (*range(0, 101, 10), 0, 30):  # the same is counted twice
        console.write(f"\rfeatures: {percent}%")
    assert lines() == [f"VGG16/02: features: {percent}%" for percent in (30, 50, 80, 100, 30)]
    seldom = ConsoleLines("VGG16/02", every=1000)
    for percent in range(100):
        seldom.write(f"\rfeatures: {percent}%")
    seldom.write("\r             \r")
    assert len(lines()) == 5


ERROR = {"error": "it broke", "lost": ""}
DEAD = {"error": "", "lost": "dead", "loss": "Its kernel was killed."}


@pytest.mark.parametrize("broken", ["VGG16/02_train_model", "01_data_exploration", "04_compare_models"])
def test_what_a_failed_step_holds_up(study, broken):
    study.run()
    for model in MODELS:
        (study.folder / model / "model_card.html").touch()
    other = study.settings.model_copy(update={"seed": 7})  # so that all is done again
    study.broken = {broken: [ERROR]}
    states = study.run(settings=other)
    assert states[broken] == "failed"
    expected = {
        "VGG16/02_train_model": {"VGG16/03_evaluate_model", "VGG16/03a_where_it_looked"},
        "01_data_exploration": set(states) - {"01_data_exploration"},
        "04_compare_models": set(),
    }[broken]
    assert {name for name, state in states.items() if state == "not run"} == expected
    maps = {f"{model}/03a_where_it_looked" for model in MODELS}  # they have no seed
    assert set(study.ran) - maps == set(states) - expected - maps
    for step in build_steps(
        MODELS
    ):  # nothing old of what failed, or was not run, is left to be believed or read
        if states[step.name] != "done":
            assert not [file for file in step.writes if (study.folder / file).exists()]
            assert not record_path(step, study.folder).exists()
            assert not (study.folder / f"{step.name}.html").exists()
            assert (
                step.notebook != EVALUATE
                or not (study.folder / step.parameters["model"] / "model_card.html").exists()
            )
    again = study.run(settings=other)  # the cause is gone
    assert set(again.values()) == {"done"}
    assert broken in study.ran
    assert ("ResNet50/02_train_model" in study.ran) == (broken == "01_data_exploration")


def test_what_is_done_is_kept_until_something_changes(study):
    assert set(study.run().values()) == {"done"}
    assert len(study.ran) == 9
    study.run()
    assert study.ran == []
    (study.folder / "VGG16" / "model.keras").write_text("another")
    study.run()  # 02 is done again; what it writes is as before, and so are 03 and 04
    assert study.ran == ["VGG16/02_train_model"]
    more = study.settings.model_copy(update={"epochs": 9})
    study.run(settings=more)
    assert set(study.ran) == {"VGG16/02_train_model", "ResNet50/02_train_model"}
    steps = build_steps(MODELS)
    assert why_rerun(steps[1], steps, study.settings, study.folder) == "epochs was 9, is 3"
    record_path(steps[0], study.folder).write_text('{"half":')
    assert why_rerun(steps[0], steps, more, study.folder) == "not done yet"
    (study.folder / "VGG16" / "metrics.json").unlink()
    assert "metrics.json is missing" in why_rerun(steps[2], steps, more, study.folder)
    assert read_record(steps[0], study.folder) == {}


def test_a_record_names_changed_notebooks_sources_and_data(study, monkeypatch, tmp_path, make_images):
    import shutil

    from xray_helpers.runner import steps as steps_module
    from xray_helpers.study import folders

    make_images(tmp_path / "set-v1.1" / "Fractured", 3)
    own = study.settings.model_copy(update={"data": "set-v1.1"})
    open_study(own.model_copy(update={"name": "s"}))
    study.run(settings=own)
    steps = build_steps(MODELS)
    assert [why_rerun(step, steps, own, study.folder) for step in steps] == [""] * 9
    make_images(tmp_path / "set-v1.1" / "Fractured", 1, seed=9)
    assert why_rerun(steps[0], steps, own, study.folder) == "data changed"
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "corrections.csv").write_text(
        "action,sha256_a,sha256_b\n"
    )  # as the browser of 01 saves them
    assert why_rerun(steps[0], steps, own, study.folder) == "corrections, data changed"
    padded = own.model_copy(
        update={"resize": "pad"}
    )  # 02 reads pictures by it, though 01 alone has the parameter
    assert why_rerun(steps[1], steps, padded, study.folder) == "resize was 'stretch', is 'pad'"
    notebooks = tmp_path / "notebooks"
    shutil.copytree(folders.notebooks_folder(), notebooks)
    book = notebooks / "03_evaluate_model.ipynb"
    text = book.read_text()
    assert "import pandas as pd" in text
    book.write_text(text.replace("import pandas as pd", "import pandas", 1))
    monkeypatch.setenv("XRAY_HELPERS_NOTEBOOKS", str(notebooks))
    assert why_rerun(steps[2], steps, own, study.folder) == "its notebook changed"
    monkeypatch.setattr(steps_module, "hash_package", lambda: "another")
    assert why_rerun(steps[1], steps, own, study.folder) == "the package changed"


def test_images_of_the_same_name_in_other_folders_are_others(study, tmp_path, make_images):
    make_images(tmp_path / "a", 1)
    make_images(tmp_path / "b", 1, seed=1)
    (tmp_path / "a" / "im0_000.png").rename(tmp_path / "a" / "x.png")
    (tmp_path / "b" / "im1_000.png").rename(tmp_path / "b" / "x.png")
    (tmp_path / "set.csv").write_text("path,label\na/x.png,Fractured\nb/x.png,Non-Fractured\n")
    own = study.settings.model_copy(update={"data": "set.csv"})
    open_study(own)
    study.run(settings=own)
    first = build_steps(MODELS)[0]
    assert why_rerun(first, build_steps(MODELS), own, study.folder) == ""
    for old, new in (("a", "c"), ("b", "a"), ("c", "b")):
        (tmp_path / old).rename(tmp_path / new)
    assert why_rerun(first, build_steps(MODELS), own, study.folder) == "data changed"


def test_a_step_whose_source_is_not_that_of_its_key_says_so(study):
    from xray_helpers.runner.steps import find_change, step_inputs
    from xray_helpers.study.folders import notebooks_folder

    steps = build_steps(MODELS)
    what, notebook = (
        step_inputs(steps[0], steps, study.settings, study.folder),
        notebooks_folder() / "01_data_exploration.ipynb",
    )
    assert find_change(what, notebook) == ""
    assert "The package is not what it was" in find_change(what | {"package": "another"}, notebook)
    assert "The notebook is not what it was" in find_change(what, notebooks_folder() / "02_train_model.ipynb")


def test_of_a_model_taken_out_only_what_the_study_wrote_goes(tmp_path):
    from xray_helpers.runner.series import _drop_other_models

    kept = (
        "ResNet50/metrics.json",
        "lab/metrics.json",
        "mine/metrics.json",
        "VGG16/notes.txt",
        "figures/VGG16_mine.png",
    )
    made = (
        "VGG16/metrics.json",
        "VGG16/model_card.md",
        "VGG16/03_evaluate_model.ipynb",
        "figures/VGG16_maps.png",
        "DenseNet121/model.keras",
        "DenseNet121/02_train_model.done.json",
    )
    for name in (*kept, *made):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    steps = [
        {"name": "01_data_exploration", "writes": ["manifest.csv"]},
        {"name": "VGG16/03_evaluate_model", "writes": ["VGG16/metrics.json", "figures/VGG16_maps.png"]},
        {"name": "DenseNet121/02_train_model", "writes": ["DenseNet121/model.keras"]},
        {"name": "ResNet50/03_evaluate_model", "writes": ["ResNet50/metrics.json"]},
    ]
    write_json(tmp_path / "study.json", {"steps": steps})
    _drop_other_models(tmp_path, ("ResNet50",))
    left = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert left == {*kept, "study.json"}
    assert not (tmp_path / "DenseNet121").exists()


def test_results_are_stale_after_a_notebook_was_run_by_hand(study):
    from xray_helpers.reports.pages import refresh_index
    from xray_helpers.runner.status import describe_status

    study.run()
    (study.folder / ".run.json").unlink()
    record = read_json(study.folder / "study.json")
    write_json(
        study.folder / "study.json",
        record | {"state": "done", **provenance(), "settings": shareable(study.settings)},
    )
    assert "it is complete" in describe_status(study.folder)[-1]
    (study.folder / "index.html").write_text("of the run")
    (study.folder / "manifest.csv").write_text(MANIFEST)  # the same again
    assert "it is complete" in describe_status(study.folder)[-1]
    (study.folder / "manifest.csv").write_text(MANIFEST.replace("train", "test"))  # corrections
    assert "8 of 9 steps are stale" in refresh_index(study.folder)
    lines = describe_status(study.folder)
    assert "it is stale" in lines[-1]
    assert sum("stale" in line.split() for line in lines[:-1]) == 8
    assert "manifest.csv was changed since" in lines[1]
    page = (study.folder / "index.html").read_text()
    assert "8 of 9 steps are stale" in page
    assert "No model has been compared yet." in page
    study.run()  # the series does all again
    assert not any("stale" in line.split() for line in describe_status(study.folder))


def test_a_lost_kernel_is_tried_once_more_and_then_reported(study):
    name = "VGG16/02_train_model"
    study.broken = {name: [DEAD]}
    assert set(study.run().values()) == {"done"}
    assert study.ran.count(name) == 2
    (study.folder / "VGG16" / "model.keras").unlink()
    study.broken = {
        name: [DEAD, DEAD],
        "ResNet50/03_evaluate_model": [RuntimeError("the worker was cancelled")],
    }
    (study.folder / "ResNet50" / "metrics.json").unlink()
    states = study.run()
    assert states[name] == "failed"
    assert states["ResNet50/03_evaluate_model"] == states["04_compare_models"] == "done"
    entry = next(step for step in read_json(study.folder / "study.json")["steps"] if step["name"] == name)
    assert entry["error"] == "Its kernel was killed."


def test_a_folder_with_nothing_but_the_traces_of_a_start_is_empty(tmp_path):
    from xray_helpers.runner.preparation import is_empty

    assert is_empty(tmp_path / "nowhere")
    for name in (".lock", "log-2026-01-01_10-00-00.log", "study.yaml"):
        (tmp_path / name).touch()
    assert is_empty(tmp_path)
    (tmp_path / "thesis.txt").touch()
    assert not is_empty(tmp_path)


def test_an_executor_that_refuses_is_tried_again_and_told(study, monkeypatch):
    def refuse(*_):
        raise RuntimeError("sbatch: error: the queue is full")

    monkeypatch.setattr(ThreadPoolExecutor, "submit", refuse)
    states = study.run()
    assert states["01_data_exploration"] == "failed"
    entry = read_json(study.folder / "study.json")["steps"][0]
    assert "the queue is full" in entry["error"]


def test_features_are_extracted_in_parts_before_training(study):
    states = study.run(shards={"VGG16": 3})
    assert set(states.values()) == {"done"}
    parts = [f"VGG16/02a_extract_features_{part}_of_3" for part in (1, 2, 3)]
    assert max(map(study.ran.index, parts)) < study.ran.index("VGG16/02_train_model")
    assert study.run() == {name: "done" for name in states if name not in parts}  # parts change no result
    assert study.ran == []


def test_steps_that_run_together_part_the_cores(study, monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    one = study.settings.model_copy(update={"models": ("VGG16",)})
    for settings, shards, notebook, cores in (
        (study.settings, None, "02_train_model", 4),
        (study.settings, None, "01_data_exploration", 0),  # all there are
        (one, None, "02_train_model", 0),
        (one, {"VGG16": 3}, "02a_extract_features", 4),
    ):
        plan = study.plan(settings, shards)
        engine = Scheduler([plan], RunOptions(jobs=2, memory=0.1), None, "x")
        assert {engine._threads(step) for step in plan.steps if step.notebook == notebook} == {cores}


def test_studies_of_a_sweep_share_what_is_the_same(study):
    plans = [
        study.plan(
            study.settings.model_copy(update={"name": f"sweep/{name}", "seed": seed, "learning_rate": rate})
        )
        for name, seed, rate in (("a", 1, 0.1), ("b", 1, 0.2), ("c", 2, 0.1))
    ]
    with ThreadPoolExecutor(2) as pool:
        Scheduler(plans, RunOptions(jobs=2), pool, "x").run()
    for plan in plans:
        assert {step["state"] for step in plan.state["steps"]} == {"done"}
        assert not any(why_rerun(step, plan.steps, plan.settings, plan.folder) for step in plan.steps)
    assert study.ran.count("01_data_exploration") == 2  # once a seed
    assert study.ran.count("VGG16/02_train_model") == 3
    assert read_record(plans[1].steps[0], plans[1].folder)["shared_with"] == "sweep/a"


def test_a_kernel_whose_step_is_gone_already_ends_at_once():
    code = (
        "import time; from xray_helpers.runner.worker import exit_with_parent; exit_with_parent(1); "
        "time.sleep(60)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=50).returncode == 1


def test_braces_in_a_path_are_no_places_for_parameters():
    from papermill.parameterize import parameterize_path

    from xray_helpers.runner.worker import _escape_braces

    for path in ("/x/a{b}/c.ipynb", "/x/run_{seed}/{{c}}.ipynb", "/plain.ipynb"):
        assert parameterize_path(_escape_braces(path), {"seed": 1}) == path
