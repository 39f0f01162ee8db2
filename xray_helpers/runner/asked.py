"""Notebooks that run when a person asks: each a step of the same engine, in a place of its own in a study."""

import logging
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xray_helpers.runner.graph import EVALUATE, Step, build_asked_steps, build_steps
from xray_helpers.runner.options import RunOptions
from xray_helpers.runner.scheduler import Plan, write_studies
from xray_helpers.runner.series import locking, logging_to, report_disk_errors, run_plans
from xray_helpers.runner.steps import read_record, why_rerun
from xray_helpers.settings import InputError, Settings
from xray_helpers.study.external import STATE
from xray_helpers.study.files import read_json, write_json
from xray_helpers.study.folders import with_local_sources

log = logging.getLogger("xray_helpers")


@dataclass
class AskedPlan(Plan):
    """The steps of a study, and after them those that were asked for; the study's own state stays as it is.

    Attributes
    ----------
    place : str
        The folder of the steps that were asked for, relative to the study.
    """

    place: str = ""

    def write_state(self) -> None:
        """Write ``state.json`` of the place."""
        write_json(self.folder / self.place / STATE, self.state["steps"][-1])


def study_settings(folder: Path) -> Settings:
    """Return the settings of a study, with the places of its networks on this machine."""
    return with_local_sources(folder, Settings(**read_json(folder / "study.json")["settings"]))


def plan_asked(
    folder: Path, per: str, place: str, values: Mapping[str, Any], *, settings: Settings | None = None
) -> AskedPlan:
    """Return the steps of a study as they are, and those that are to run.

    Parameters
    ----------
    folder : Path
        Of the study.
    per : str
        Which notebooks: those whose metadata say so, such as ``export``.
    place : str
        Where they, their reports and their state lie, relative to the study, such as ``VGG16/export``.
    values : mapping
        Parameters of these notebooks that the study does not have; with ``model``, they need the steps of
        this model alone. All of them, and ``place``, are filled in where the metadata say ``writes``.
    settings : Settings, optional
        Instead of the study's own.

    Raises
    ------
    InputError
        When there is no such notebook.
    """
    settings = settings or study_settings(folder)
    steps = build_steps(settings.models)
    asked = build_asked_steps(steps, per, place, values)
    if not asked:
        raise InputError(f"No notebook of notebooks/ runs per {per}: get it back, then try again.")
    entries = [_entry(step, "done" if read_record(step, folder) else "failed") for step in steps]
    entries += [_entry(step, "waiting") for step in asked]
    return AskedPlan(settings, folder, [*steps, *asked], {"state": "running", "steps": entries}, place=place)


def _entry(step: Step, state: str) -> dict[str, Any]:
    return {"name": step.name, "report": step.name, "state": state, "writes": list(step.writes)}


def run_asked(plan: AskedPlan, running: RunOptions | None = None) -> tuple[Path, str]:
    """Run what was asked for, unless it is done and nothing that it reads has changed.

    Returns
    -------
    page : Path
        The report.
    error : str
        Why it failed, in a sentence; empty where it succeeded or nothing had to be done.

    Raises
    ------
    InputError
        Where another command runs the study.
    """
    folder, step = plan.folder, plan.steps[-1]
    page, running = folder / f"{step.name}.html", running or RunOptions()
    if not why_rerun(step, plan.steps, plan.settings, folder):
        log.info("Nothing to do: %s of %s is done, and nothing has changed.", step.name, folder.name)
        return page, ""
    with report_disk_errors(folder), ExitStack() as held:
        held.enter_context(locking(folder))
        held.enter_context(logging_to(folder))
        started = time.monotonic()
        run_plans([plan], running)
        write_pages(folder, plan.settings.models)
        entry = plan.record(step)
        if entry["state"] != "done":
            log.error("Not complete after %.0f s: see %s.html.", time.monotonic() - started, step.name)
            return page, entry.get("error", "") or "It was not run."
        log.info("Complete in %.0f s.", time.monotonic() - started)
    return page, ""


def write_pages(folder: Path, models: tuple[str, ...]) -> None:
    """Write the pages of a study that tell of what was asked for: cards, checklist, index, all studies."""
    from xray_helpers.reports.cards import write_model_card
    from xray_helpers.reports.checklist import write_checklist
    from xray_helpers.reports.pages import write_index

    for model in models:
        if (folder / model / "metrics.json").exists():
            write_model_card(folder, model)
    write_checklist(folder)
    write_index(folder)
    write_studies()


def check_evaluated(folder: Path, models: tuple[str, ...]) -> None:
    """Raise an error unless the series has trained and evaluated one of the models.

    Raises
    ------
    InputError
    """
    if not any(step.notebook == EVALUATE and read_record(step, folder) for step in build_steps(models)):
        raise InputError(
            f"{folder.name} has no model that was trained and evaluated by the series: run the study first."
        )
