"""Whole studies: checked, locked, run by the engine, and resumed where they were left."""

import json
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

from filelock import FileLock, Timeout

from xray_helpers.data.classes import question_of
from xray_helpers.data.listing import list_data
from xray_helpers.reports.html import changed_parameters
from xray_helpers.runner.executors import count_jobs, open_executor
from xray_helpers.runner.forks import copying
from xray_helpers.runner.graph import EVALUATE, TRAIN, build_steps
from xray_helpers.runner.options import RunOptions
from xray_helpers.runner.preparation import prepare
from xray_helpers.runner.scheduler import Plan, Scheduler, write_studies
from xray_helpers.runner.steps import why_rerun
from xray_helpers.runner.worker import DISK, describe_os_error
from xray_helpers.settings import InputError, Settings, number_of
from xray_helpers.study.cache import cache_folder
from xray_helpers.study.files import hash_of, read_csv, read_json, sweep_partials, write_json
from xray_helpers.study.folders import RUN, open_study, redact, shareable, study_folder
from xray_helpers.study.machine import now, provenance

log = logging.getLogger("xray_helpers")
LOCK = ".lock"


def run_study(settings: Settings, *, running: RunOptions | None = None, overwrite: bool = False) -> Path:
    """Run the whole series for a study and return its ``index.html``; what is done already is kept.

    A step that fails leaves its notebook and HTML; the other models go on. Whether all went well is in
    ``study.json`` (``state``: ``done`` or ``failed``).

    Parameters
    ----------
    settings : Settings
    running : RunOptions, optional
        Where, how many steps at once, what each may take.
    overwrite : bool
        Go on although the study of this name has other settings: steps they touch are done again.

    Raises
    ------
    InputError
        Before anything runs, for what the user can mend, and while another command runs the study.
    StoppedError
        When the disk is full or cannot be written; what is done is kept.
    KeyboardInterrupt
        At Ctrl-C or SIGTERM, once all steps have ended; what is done is kept.
    """
    asked, folder = settings, study_folder(settings.name)
    with report_disk_errors(folder), ExitStack() as held:
        settings = prepare(settings, overwrite=overwrite)
        held.enter_context(locking(folder))
        held.enter_context(logging_to(folder))
        plan = build_plan(settings, running or RunOptions(), asked)
        count = number_of(len(settings.models), "model")
        log.info("Study %s: %d steps, %s", settings.name, len(plan.steps), count)
        for key, value in changed_parameters(shareable(settings)).items():
            log.info("  %-18s %s", key, value)
        log.debug("All parameters: %s", json.dumps(shareable(settings)))
        if settings.weights == "random":
            log.warning("Random weights: the scores say nothing about what trained networks reach.")
        started = time.monotonic()
        run_plans([plan], running or RunOptions())
        index = finish_study(plan, time.monotonic() - started)
        write_studies()
        _log_results(folder)
    return index


def build_plan(settings: Settings, running: RunOptions, asked: Settings, prefix: str = "") -> Plan:
    """Open a study's folder, sweep what a killed run left, and return its steps and state.

    Parameters
    ----------
    settings : Settings
        As `prepare` returns them.
    running : RunOptions
    asked : Settings
        As the user gave them: asked for again, they mean this study.
    prefix : str
        Of its steps' names in the log.
    """
    folder = open_study(settings)
    write_json(
        folder / "local.json",
        read_json(folder / "local.json", default={}) | {"asked": hash_of(asked.model_dump(mode="json"))},
    )
    for place in (folder, cache_folder()):
        sweep_partials(place)
    _drop_other_models(folder, settings.models)
    steps = build_steps(settings.models)
    shards = _count_shards(settings, running)
    if shards:
        trains = [step for step in steps if step.notebook == TRAIN]
        undone = {step.parameters["model"] for step in trains if why_rerun(step, steps, settings, folder)}
        steps = build_steps(settings.models, dict.fromkeys(undone, shards))
    before = read_json(folder / "study.json")
    state = {
        "settings": shareable(settings),
        **provenance(),
        "created": before.get("created", now()),
        "state": "running",
    }
    state["steps"] = [
        {"name": step.name, "report": step.name, "state": "waiting", "writes": list(step.writes)}
        for step in steps
    ]
    return Plan(settings, folder, steps, state, prefix)


def _count_shards(settings: Settings, running: RunOptions) -> int:
    images = (
        len(
            list_data(
                settings.data, settings.patient_pattern, settings.exam_pattern, question=question_of(settings)
            ).table
        )
        * settings.use_subset
    )
    return (
        -(-int(images) // running.shard_images)
        if running.shard_images and images > running.shard_images
        else 0
    )


def _drop_other_models(folder: Path, models: tuple[str, ...]) -> None:
    """Delete what steps of ``study.json`` wrote for models that the study no longer has; nothing else,
    whatever its name.
    """
    for step in read_json(folder / "study.json").get("steps", []):
        model, _, notebook = step["name"].rpartition("/")
        if not model or model in models:
            continue
        made = [f"{step['name']}{end}" for end in (".ipynb", ".html", ".done.json")]
        cards = [f"{model}/model_card.{end}" for end in ("md", "html")]
        for name in (*made, *step.get("writes", ()), *(cards if notebook == EVALUATE else ())):
            (folder / name).unlink(missing_ok=True)
        with suppress(OSError):  # a person's own files are in it
            (folder / model).rmdir()


def run_plans(
    plans: list[Plan], running: RunOptions, *, on_study_end: Callable[[], object] = lambda: None
) -> None:
    """Run the steps of one or several studies; what `study.json` says of each step is kept up to date.

    `on_study_end` is called at the start, and whenever all steps of a study have ended.

    Raises
    ------
    InputError
        Where there is no such cluster, or it refuses.
    KeyboardInterrupt
        Once all steps have ended.
    """
    run, since, jobs = uuid4().hex, now(), count_jobs(running)
    if jobs < running.jobs:
        log.info("%d steps at once, not %d: there is no memory for more (see memory).", jobs, running.jobs)
    for plan in plans:
        plan.write_state()
        write_json(plan.folder / RUN, {"run": run, "process": os.getpid(), "on": running.on, "since": since})
    try:
        on_study_end()
        steps = sum(len(plan.steps) for plan in plans) if running.on == "here" else 0
        with _stoppable(), copying(steps), open_executor(running, plans[0].folder / ".cluster") as executor:
            engine = Scheduler(plans, running, executor, run, on_study_end)
            try:
                engine.run()
            except BaseException:
                _end_run(plans)  # the steps see it, and end
                raise
    except (KeyboardInterrupt, InputError) as problem:
        for plan in plans:
            plan.state["state"] = "interrupted"
            for entry in plan.state["steps"]:
                if entry["state"] == "running":
                    entry["state"] = "interrupted"
            plan.save()
        write_studies()
        if isinstance(problem, KeyboardInterrupt):
            log.warning("Interrupted: the same command goes on from here.")
        raise
    finally:
        _end_run(plans)
        for place in (*(plan.folder for plan in plans), cache_folder()):  # what steps that were killed left
            sweep_partials(place)


def _end_run(plans: list[Plan]) -> None:
    for plan in plans:
        (plan.folder / RUN).unlink(missing_ok=True)


def finish_study(plan: Plan, seconds: float) -> Path:
    """Write how a study ended, with its checklist and pages; return its index."""
    from xray_helpers.reports.checklist import write_checklist

    failed = [entry["name"] for entry in plan.state["steps"] if entry["state"] != "done"]
    plan.state["state"] = "failed" if failed else "done"
    write_json(plan.folder / "study.json", plan.state)
    write_checklist(plan.folder)
    index = plan.save()
    if failed:
        log.error("%sNot complete after %.0f s: %s. See index.html.", plan.prefix, seconds, ", ".join(failed))
    else:
        log.info("%sComplete in %.0f s.", plan.prefix, seconds)
    return index


@contextmanager
def locking(folder: Path) -> Iterator[None]:
    """Hold a study for one command.

    Raises
    ------
    InputError
        While another command holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        since = read_json(folder / RUN, default={"since": ""})["since"]
        raise InputError(
            f"The study {folder.name} is being run by another "
            f"command{f' since {since[11:16]}' if since else ''}: "
            "wait until it ends, or stop it."
        ) from None
    try:
        yield
    finally:
        lock.release()


class StoppedError(InputError):
    """A study that had to stop midway; the same command goes on."""

    status = 1


@contextmanager
def report_disk_errors(folder: Path) -> Iterator[None]:
    """Say in a sentence what a disk that cannot be written means."""
    try:
        yield
    except OSError as problem:
        if problem.errno not in DISK:
            raise
        raise StoppedError(f"reports/{folder.name}: {describe_os_error(problem)}") from None


@contextmanager
def _stoppable() -> Iterator[None]:
    """Let SIGTERM and a closed terminal end a run as Ctrl-C does."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    heard = [
        name for name in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(name) is not signal.SIG_IGN
    ]  # nohup
    before = {name: signal.signal(name, stop) for name in heard}
    try:
        yield
    finally:
        for name, handler in before.items():
            signal.signal(name, handler)


def _log_results(folder: Path) -> None:
    if (folder / "comparison.csv").exists():
        import pandas as pd

        from xray_helpers.evaluation.comparison import choose_primary
        from xray_helpers.reports.text import headline_table

        table = read_csv(folder / "comparison.csv")
        chosen = choose_primary(table, read_json(folder / "study.json")["settings"]["primary_model"])
        table = pd.concat([table[table["model"] == chosen], table[table["model"] != chosen]])
        for row in headline_table(table.assign(rank=table["rank"].astype(str) + " by test")):
            told = ", ".join(f"{key} {value}" for key, value in row.items())
            log.info("  %s%s", "chosen before test: " if row["model"] == chosen else "", told)


class _LogFile(logging.FileHandler):
    """A log that a full disk cuts short, without a word between the lines of the console."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        pass


@contextmanager
def logging_to(folder: Path) -> Iterator[None]:
    """Log to the console and to a file of a study or sweep, places of this machine replaced by words."""
    stamp = datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    form = logging.Formatter("%(asctime)s %(levelname)-7s %(message)s", "%Y-%m-%d %H:%M:%S")
    handlers = [_LogFile(folder / f"log-{stamp}.log", encoding="utf-8"), logging.StreamHandler()]
    log.setLevel(logging.DEBUG)
    handlers[1].setLevel(logging.INFO)  # the file holds all parameters, the console those that differ
    for handler in handlers:
        handler.setFormatter(form)
        handler.addFilter(lambda record: _redact(record, folder))
        log.addHandler(handler)
    handlers[1].addFilter(lambda record: not (hasattr(record, "progress") and sys.stderr.isatty()))
    try:
        yield
    finally:
        for handler in handlers:
            log.removeHandler(handler)
            handler.close()


def _redact(record: logging.LogRecord, folder: Path) -> bool:
    record.msg, record.args = redact(record.getMessage(), folder), None
    return True
