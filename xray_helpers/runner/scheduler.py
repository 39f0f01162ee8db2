"""The engine: the steps of one study or several, in the order of their needs, on whatever executor it is
given.
"""

import logging
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from xray_helpers.runner.console import ConsoleLines
from xray_helpers.runner.executors import count_jobs
from xray_helpers.runner.graph import EVALUATE, EXPLORE, EXTRACT, TRAIN, Step, notebook_parameters
from xray_helpers.runner.options import RunOptions
from xray_helpers.runner.steps import read_record, record_path, step_inputs, why_rerun, write_record
from xray_helpers.runner.worker import DEAD, DISK, run_step
from xray_helpers.settings import Settings
from xray_helpers.study.files import atomic_write, hash_of, read_csv, temporary_path, write_json
from xray_helpers.study.folders import RUN, notebooks_folder, root
from xray_helpers.study.machine import now

log = logging.getLogger("xray_helpers")
_TICK, _LIFE = 0.3, 5.0  # seconds between looks at the steps that run, and between signs of life
_PATIENCE = 600  # seconds without a worker before that is reported
_LONG = (EXPLORE, EXTRACT, TRAIN)  # notebooks whose steps start before all others
# how long a step usually takes, relative to the training of a model
_USUAL = {
    EXPLORE: 0.5,
    EXTRACT: 0.5,
    EVALUATE: 0.25,
    "03a_where_it_looked": 0.15,
    "04_compare_models": 0.7,
    "07_localize": 0.3,
}
_FINISHED = ("done", "failed", "not run")


@dataclass
class Plan:
    """One study as the engine sees it."""

    settings: Settings
    folder: Path
    steps: list[Step]
    state: dict[str, Any]
    prefix: str = ""

    def record(self, step: Step) -> dict[str, Any]:
        """Return the step's entry of ``study.json``."""
        return next(entry for entry in self.state["steps"] if entry["name"] == step.name)

    def save(self) -> Path:
        """Write ``study.json`` and the index page."""
        from xray_helpers.reports.pages import (
            write_index,
        )  # seconds of libraries, while the first step runs already

        self.write_state()
        return write_index(self.folder)

    def write_state(self) -> None:
        """Write ``study.json``."""
        write_json(self.folder / "study.json", self.state)

    def count(self, notebook: str) -> int:
        """Return how many steps are of a notebook: so many could run at the same time."""
        return sum(step.notebook == notebook for step in self.steps)

    def label(self, step: Step) -> str:
        """Return what a line of the log calls a step."""
        return f"{self.prefix}{step.name}"


@dataclass
class _RunningStep:
    """A step that runs."""

    plan: Plan
    step: Step
    made_of: dict[str, Any]
    console: Path
    lines: ConsoleLines
    attempts: int = 1
    started: float = field(default_factory=time.monotonic)
    asked: float = field(default_factory=time.monotonic)  # since when it waits for a worker
    read: int = 0


class Scheduler:
    """The loop that starts steps, passes on what they print, and collects them; it reaches an executor only
    through ``submit``.
    """

    def __init__(
        self,
        plans: list[Plan],
        running: RunOptions,
        executor: Executor,
        run: str,
        on_study_end: Callable[[], object] = lambda: None,
    ) -> None:
        self.plans, self.running, self.executor, self.run_id, self.on_study_end = (
            plans,
            running,
            executor,
            run,
            on_study_end,
        )
        self.waiting = [
            (plan, step)
            for plan in plans
            for step in plan.steps
            if plan.record(step)["state"] not in _FINISHED
        ]
        self.in_progress: dict[Future, _RunningStep] = {}
        self.known: dict[tuple[str, str], tuple[Plan, Step]] = {}  # by name and key: what studies share
        self.total, self.jobs = len(self.waiting), count_jobs(running)

    def run(self) -> None:
        """Return when every step has ended, one way or another."""
        over = threading.Event()
        threading.Thread(target=_heartbeat, args=(self.plans, over), daemon=True).start()
        try:
            self._start_ready()
            if len(self.plans) == 1 and self.in_progress:
                place = (self.plans[0].folder / "index.html").resolve().as_uri()
                print(f"Open {place}: the page fills while the study runs.", file=sys.stderr)
            _write_page(write_studies)
            while self.waiting or self.in_progress:
                self._start_ready()
                self._report_queue()
                for future in (
                    wait(self.in_progress, timeout=_TICK, return_when=FIRST_COMPLETED).done
                    if self.in_progress
                    else ()
                ):
                    self._on_finished(future)
                for running in self.in_progress.values():
                    _listen(running)
        finally:
            over.set()
            for running in self.in_progress.values():
                running.console.unlink(missing_ok=True)

    def _save(self, plans: Iterable[Plan]) -> None:
        for plan in plans:
            _write_page(plan.save)
            if all(entry["state"] in _FINISHED for entry in plan.state["steps"]):
                _write_page(self.on_study_end)

    def _report_queue(self) -> None:
        for running in self.in_progress.values():
            if time.monotonic() - running.asked > _PATIENCE and not running.console.exists():
                running.asked = time.monotonic()
                log.warning(
                    "%s still waits for a free worker: look at the queue, or stop and run the same command "
                    "again",
                    running.plan.label(running.step),
                )

    def _start_ready(self) -> None:
        changed = []
        for plan, step in sorted(self.waiting, key=lambda item: item[1].notebook not in _LONG):
            if len(self.in_progress) >= self.jobs:
                break
            states = {entry["name"]: entry["state"] for entry in plan.state["steps"]}
            ended = [states[name] for name in step.needs if states[name] in _FINISHED]
            if len(ended) == len(step.needs) and self._take(plan, step, ended):
                self.waiting.remove((plan, step))
                changed.append(plan)
        self._save({id(plan): plan for plan in changed}.values())

    def _take(self, plan: Plan, step: Step, ended: list[str]) -> bool:
        """Skip, keep, copy or start a step whose needs have ended; False while another study runs the
        same step.
        """
        enough = any if step.any_need else all
        entry = plan.record(step)
        if ended and not enough(word == "done" for word in ended):
            missing = [name for name, word in zip(step.needs, ended, strict=True) if word != "done"]
            entry |= {"state": "not run", "error": f"It needs {', '.join(missing)}."}
            _delete_outputs(step, plan.folder, report=True)
            log.warning("%s not run: it needs %s", plan.label(step), ", ".join(missing))
            return True
        reason = why_rerun(step, plan.steps, plan.settings, plan.folder)
        if not reason:
            record = read_record(step, plan.folder)
            entry |= {
                "state": "done",
                "started": record.get("started"),
                "seconds": record.get("seconds", 0.0),
            }
            self._finish(
                plan,
                step,
                f"kept: it was done in {record.get('seconds', 0):.0f} s and nothing changed",
                record["key"],
            )
            return True
        what = step_inputs(step, plan.steps, plan.settings, plan.folder)
        key = hash_of(what)
        if any(
            hash_of(running.made_of) == key and running.step.name == step.name
            for running in self.in_progress.values()
        ):
            return False
        _delete_outputs(step, plan.folder, report=True)
        if (step.name, key) in self.known:
            self._share(plan, step, what, *self.known[step.name, key])
            return True
        console = temporary_path(plan.folder / f"{step.name}.log")
        console.parent.mkdir(parents=True, exist_ok=True)
        entry |= {"state": "running", "started": now()}
        log.info(
            "[%d/%d] %s%s",
            self.total - len(self.waiting) + 1,
            self.total,
            plan.label(step),
            "" if reason == "not done yet" else f": {reason}",
        )
        self._submit(_RunningStep(plan, step, what, console, ConsoleLines(plan.label(step))))
        return True

    def _submit(self, running: _RunningStep) -> None:
        plan, step = running.plan, running.step
        spec = {
            "name": step.name,
            "notebook": str(notebooks_folder() / f"{step.notebook}.ipynb"),
            "folder": str(plan.folder.resolve()),
            "parameters": notebook_parameters(step, plan.settings),
            "writes": list(step.writes),
            "made_of": running.made_of,
            "run": self.run_id,
            "console": str(running.console.resolve()),
            "limit": self.running.step_limit * 3600,
            "threads": self._threads(step),
            "root": str(root().resolve()),
        }
        try:
            future = self.executor.submit(run_step, spec)
        except Exception as problem:  # a queue that is busy or full: tried once more, then reported
            future = Future()
            future.set_exception(problem)
        self.in_progress[future] = running

    def _threads(self, step: Step) -> int:
        """Return the cores of a step, so that steps which run together do not fight; 0: all there are."""
        if self.running.threads or self.running.on != "here":
            return self.running.threads or 1
        width = min(self.jobs, sum(plan.count(step.notebook) for plan in self.plans))
        return max(1, (os.cpu_count() or 1) // width) if width > 1 else 0

    def _on_finished(self, future: Future) -> None:
        running = self.in_progress.pop(future)
        plan, step, entry = running.plan, running.step, running.plan.record(running.step)
        _listen(running)
        running.lines.close()
        outcome = _outcome(future)
        if outcome["lost"] == DEAD and running.attempts == 1:
            log.warning("%s: its kernel or machine was lost; tried once more", plan.label(step))
            _delete_outputs(step, plan.folder, report=True)
            again = {"console": temporary_path(plan.folder / f"{step.name}.log"), "asked": time.monotonic()}
            self._submit(replace(running, attempts=2, read=0, **again))
            running.console.unlink(missing_ok=True)
            return
        running.console.unlink(missing_ok=True)
        error = outcome["error"] or (outcome["loss"] if outcome["lost"] else "")
        entry["seconds"] = outcome.get("seconds", round(time.monotonic() - running.started, 1))
        if error or not read_record(step, plan.folder):
            error = error or "It was lost before it had ended: run the same command again."
            entry |= {"state": "failed", "error": error}
            _delete_outputs(step, plan.folder)  # what it wrote before it failed; its report stays
            log.error("%s failed after %.0f s: %s", plan.label(step), entry["seconds"], error)
            self._save([plan])
            return
        entry["state"] = "done"
        self._finish(plan, step, f"done in {entry['seconds']:.0f} s", hash_of(running.made_of))
        self._save([plan])

    def _share(self, plan: Plan, step: Step, what: dict[str, Any], other: Plan, same: Step) -> None:
        """Copy what another study of the sweep wrote in the very same step."""
        beside = ["engine.json"] if (other.folder / "engine.json").exists() else []  # chosen once
        for file in (*step.writes, f"{step.name}.ipynb", f"{step.name}.html", *beside):
            (plan.folder / file).parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(plan.folder / file) as partial:
                shutil.copyfile(other.folder / file, partial)
        facts = {key: read_record(same, other.folder).get(key) for key in ("started", "seconds")}
        write_record(
            step.name, plan.folder, list(step.writes), what, facts | {"shared_with": other.settings.name}
        )
        plan.record(step).update({"state": "done", **facts})
        self._finish(plan, step, f"as in {other.settings.name}", hash_of(what))

    def _finish(self, plan: Plan, step: Step, words: str, key: str) -> None:
        self.known[step.name, key] = (plan, step)
        if step.notebook == EXPLORE:
            manifest = read_csv(plan.folder / "manifest.csv")
            plan.state["data"] = {
                "files": len(manifest),
                "fingerprint": hash_of(sorted(manifest["sha256"].dropna())),
            }
        if step.notebook == EVALUATE:
            card = plan.folder / step.parameters["model"] / "model_card.html"
            if not words.startswith("kept") or not card.exists():
                from xray_helpers.reports.cards import write_model_card

                _write_page(lambda: write_model_card(plan.folder, card.parent.name))
        log.info("%s %s%s", plan.label(step), words, self._left())

    def _left(self) -> str:
        """Return how long the rest may take, from the first model on: by the steps of a kind that are done,
        or by how long that kind usually takes beside those.
        """
        took: dict[str, list[float]] = {}
        for entry, step in ((plan.record(step), step) for plan in self.plans for step in plan.steps):
            if entry["state"] == "done" and entry.get("seconds"):
                took.setdefault(step.notebook, []).append(entry["seconds"])
        means = {notebook: sum(times) / len(times) for notebook, times in took.items()}
        rest = [*self.waiting, *((running.plan, running.step) for running in self.in_progress.values())]
        rest = [step.notebook for plan, step in rest if plan.record(step)["state"] in ("waiting", "running")]
        if TRAIN not in means or not rest:
            return ""
        scale = sum(means.values()) / sum(_USUAL.get(notebook, 1.0) for notebook in means)
        seconds = sum(means.get(notebook, scale * _USUAL.get(notebook, 1.0)) for notebook in rest)
        seconds -= sum(
            min(time.monotonic() - running.started, means.get(running.step.notebook, 0.0))
            for running in self.in_progress.values()
        )
        seconds /= min(self.jobs, len(rest))
        return f"; about {seconds / 60:.0f} min left" if seconds > 90 else f"; about {seconds:.0f} s left"


def write_studies() -> None:
    """Write the page of all studies under reports/."""
    from xray_helpers.reports.overview import (
        write_studies as write_page,  # seconds of libraries, while the first step runs already
    )

    write_page()


def _heartbeat(plans: list[Plan], over: threading.Event) -> None:
    """Show signs of life until it is over, whatever else takes long: a page of hundreds of studies, a slow
    disk.
    """
    while not over.wait(_LIFE):
        for plan in plans:
            with suppress(OSError):
                os.utime(plan.folder / RUN)


def _write_page(write: Callable[[], object]) -> None:
    """Write a page; one that cannot be written ends no run, unless the disk is at fault."""
    try:
        write()
    except Exception as problem:
        if isinstance(problem, OSError) and problem.errno in DISK:
            raise
        log.warning("A page was not written (%s: %s).", type(problem).__name__, problem)


def _outcome(future: Future) -> dict[str, Any]:
    """Return what `run_step` returned; a worker that was lost with it counts as a kernel that was."""
    try:
        outcome = future.result()
    except Exception as problem:  # of whichever executor: a worker killed, a job cancelled
        words = str(problem).strip().splitlines() or [""]
        outcome = {
            "error": "",
            "lost": DEAD,
            "loss": f"Its worker was lost ({type(problem).__name__}: {words[0][:200]}).",
        }
    return {"loss": "Its process was killed."} | outcome


def _delete_outputs(step: Step, folder: Path, *, report: bool = False) -> None:
    """Delete the old outputs of a step, its record first, so that nothing stale is taken for current."""
    made = [*step.writes, *(f"{step.name}{end}" for end in (".html", ".ipynb") if report)]
    if step.notebook == EVALUATE:
        made += [f"{step.parameters['model']}/model_card{end}" for end in (".html", ".md")]
    for path in (record_path(step, folder), *(folder / file for file in made)):
        path.unlink(missing_ok=True)


def _listen(running: _RunningStep) -> None:
    """Pass on what a step printed since the last time."""
    with suppress(OSError), open(running.console, "rb") as handle:
        handle.seek(running.read)
        new = handle.read()
        running.read += len(new)
        running.lines.write(new.decode("utf-8", "replace"))
