import time
from concurrent.futures import Future

from xray_helpers.runner.console import ConsoleLines
from xray_helpers.runner.graph import build_steps
from xray_helpers.runner.options import RunOptions
from xray_helpers.runner.scheduler import Plan, Scheduler, _RunningStep
from xray_helpers.settings import Settings


def test_what_is_left_is_reckoned_by_the_kind_of_step(tmp_path):
    """Trainings of 100 s, evaluations of 10 s, nothing known of the comparison; one training runs for 30 s
    already.
    """
    steps = build_steps(("VGG16", "ResNet50", "DenseNet121"))
    took = {"01_data_exploration": 20, "VGG16/02_train_model": 100, "VGG16/03_evaluate_model": 10}
    entries = [
        {
            "name": step.name,
            "state": "done" if step.name in took else "waiting",
            "seconds": took.get(step.name),
        }
        for step in steps
    ]
    plan = Plan(Settings(name="s"), tmp_path, steps, {"steps": entries})
    engine = Scheduler([plan], RunOptions(jobs=1), None, "run")
    (running,) = (step for step in steps if step.name == "ResNet50/02_train_model")
    plan.record(running)["state"] = "running"
    engine.waiting = [(plan, step) for step in steps if plan.record(step)["state"] == "waiting"]
    flight = _RunningStep(
        plan, running, {}, tmp_path / "console", ConsoleLines(""), started=time.monotonic() - 30
    )
    engine.in_progress = {Future(): flight}
    # two trainings and two evaluations; three of maps, comparison and 07 as they usually are; less 30 s
    usual = 130 / 1.75 * (3 * 0.15 + 0.7 + 0.3)
    assert engine._left() == f"; about {(220 + usual - 30) / 60:.0f} min left"
    for name, shown in (("VGG16/03_evaluate_model", True), ("VGG16/02_train_model", False)):
        plan.record(next(step for step in steps if step.name == name))["state"] = "waiting"
        assert bool(engine._left()) == shown  # from the first trained model on
    for entry in entries[:-1]:
        entry |= {"state": "done", "seconds": 10}
    engine.in_progress, engine.waiting = {}, engine.waiting[-1:]
    assert engine._left() == f"; about {50 / 2.6 * 0.3:.0f} s left"  # as 07 usually takes beside the others
