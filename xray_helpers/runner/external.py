"""Train here, test there: the models of a study on a set from elsewhere, as a step of the same engine."""

import logging
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xray_helpers.data.listing import list_data
from xray_helpers.runner.graph import EVALUATE, Step, build_external_steps, build_steps
from xray_helpers.runner.options import RunOptions
from xray_helpers.runner.scheduler import Plan, write_studies
from xray_helpers.runner.series import locking, logging_to, report_disk_errors, run_plans
from xray_helpers.runner.steps import read_record, why_rerun
from xray_helpers.settings import InputError, Settings
from xray_helpers.study.external import STATE, check_set_name, external_folder, external_place
from xray_helpers.study.files import read_json, write_json
from xray_helpers.study.folders import EXTERNAL, LOCAL, find_study, is_phantoms, with_local_sources

log = logging.getLogger("xray_helpers")


@dataclass
class ExternalPlan(Plan):
    """The test of a study on one set from elsewhere; the study's own state stays as it is."""

    external: str = ""

    def write_state(self) -> None:
        """Write ``state.json`` of the set."""
        entry = self.state["steps"][-1]
        write_json(external_folder(self.folder, self.external) / STATE, entry)


def run_external(
    study: str,
    data: str = LOCAL,
    name: str = "",
    *,
    patient_pattern: str = "",
    keep_shared: bool = False,
    running: RunOptions | None = None,
) -> tuple[Path, str]:
    """Test the trained models of a study on a set from elsewhere.

    Parameters
    ----------
    study : str
        Its name or folder.
    data : str
        A folder or CSV, ``phantoms:hospital-b``, or ``local``: where the set of this name was before.
    name : str
        Of the set, and of its folder under ``external``; by default that of the data.
    patient_pattern : str
        As for a study.
    keep_shared : bool
        Whether images that the study's train or validation part shares count as well.
    running : RunOptions, optional

    Returns
    -------
    page : Path
        The report.
    error : str
        Why the test failed, in a sentence; empty where it succeeded or nothing had to be done.

    Raises
    ------
    InputError
        For what the user can mend, before anything runs.
    """
    folder = find_study(study)
    plan = plan_external(folder, data, name or name_set(data), patient_pattern, keep_shared=keep_shared)
    step = plan.steps[-1]
    page, running = folder / f"{step.name}.html", running or RunOptions()
    if not why_rerun(step, plan.steps, plan.settings, folder):
        log.info("Nothing to do: %s was tested on %s, and nothing has changed.", folder.name, plan.external)
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


def name_set(data: str) -> str:
    """Return the name of a set that was given none: that of its folder, table or hospital."""
    if data == LOCAL:
        raise InputError("Say which set: --data DIR, or --name of one that the study was tested on before.")
    last = data.partition(":")[2] or data if is_phantoms(data) else Path(data).stem
    return check_set_name(last)


def plan_external(
    folder: Path, data: str, name: str, patient_pattern: str, *, keep_shared: bool = False
) -> ExternalPlan:
    """Return the steps of a test: those of the study as they are, and the one that is to run.

    Raises
    ------
    InputError
        When the study has no evaluated model, or the data cannot be listed.
    """
    check_set_name(name)
    record = read_json(folder / "study.json")
    settings = with_local_sources(folder, Settings(**record["settings"]))
    settings = settings.model_copy(update={"patient_pattern": patient_pattern})
    steps = build_steps(settings.models)
    if not any(step.notebook == EVALUATE and read_record(step, folder) for step in steps):
        raise InputError(
            f"{folder.name} has no model that was trained and evaluated by the series: run the study first."
        )
    known = read_json(folder / "local.json", default={}).get(EXTERNAL, {})
    source = known.get(name, data) if data == LOCAL else data
    if source != LOCAL:
        list_data(source, patient_pattern, labelled=False)  # said before it is recorded
    external_place(folder, name, data)
    values = {"external": name, "external_data": LOCAL, "keep_shared": keep_shared}
    tests = build_external_steps(steps, name, values)
    if not tests:
        raise InputError("No notebook tests a study on sets from elsewhere: 06_external_test is missing.")
    entries = [_entry(step, "done" if read_record(step, folder) else "failed") for step in steps]
    entries += [_entry(step, "waiting") for step in tests]
    state = {"state": "running", "steps": entries}
    return ExternalPlan(settings, folder, [*steps, *tests], state, external=name)


def _entry(step: Step, state: str) -> dict[str, Any]:
    return {"name": step.name, "report": step.name, "state": state, "writes": list(step.writes)}


def write_pages(folder: Path, models: tuple[str, ...]) -> None:
    """Write the pages of a study that tell of its external tests: cards, checklist, index, all studies."""
    from xray_helpers.reports.cards import write_model_card
    from xray_helpers.reports.checklist import write_checklist
    from xray_helpers.reports.pages import write_index

    for model in models:
        if (folder / model / "metrics.json").exists():
            write_model_card(folder, model)
    write_checklist(folder)
    write_index(folder)
    write_studies()
