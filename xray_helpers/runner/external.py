"""Train here, test there: the models of a study on a set from elsewhere, as a step of the same engine."""

from pathlib import Path

from xray_helpers.data.listing import list_data
from xray_helpers.export.engine import find_export
from xray_helpers.runner.asked import AskedPlan, check_evaluated, plan_asked, run_asked, study_settings
from xray_helpers.runner.options import RunOptions
from xray_helpers.settings import InputError
from xray_helpers.study.external import check_set_name, external_place
from xray_helpers.study.files import read_json
from xray_helpers.study.folders import EXTERNAL, LOCAL, find_study, is_phantoms


def run_external(
    study: str,
    data: str = LOCAL,
    name: str = "",
    *,
    patient_pattern: str = "",
    keep_shared: bool = False,
    engine: str = "",
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
    engine : str
        The exported format that is tested, as for `engine.find_export`; empty: ``model.keras``.
    running : RunOptions, optional

    Returns
    -------
    page, error
        As `asked.run_asked` returns them.

    Raises
    ------
    InputError
        For what the user can mend, before anything runs.
    """
    folder, name = find_study(study), name or name_set(data)
    options = {"keep_shared": keep_shared, "engine": engine}
    return run_asked(plan_external(folder, data, name, patient_pattern, **options), running)


def name_set(data: str) -> str:
    """Return the name of a set that was given none: that of its folder, table or hospital."""
    if data == LOCAL:
        raise InputError("Say which set: --data DIR, or --name of one that the study was tested on before.")
    last = data.partition(":")[2] or data if is_phantoms(data) else Path(data).stem
    return check_set_name(last)


def plan_external(
    folder: Path, data: str, name: str, patient_pattern: str, *, keep_shared: bool = False, engine: str = ""
) -> AskedPlan:
    """Return the steps of a test: those of the study as they are, and the one that is to run.

    Raises
    ------
    InputError
        When the study has no evaluated model, or the data cannot be listed.
    """
    check_set_name(name)
    settings = study_settings(folder).model_copy(update={"patient_pattern": patient_pattern})
    check_evaluated(folder, settings.models)
    if engine:
        for model in (path.parent.name for path in folder.glob("*/metrics.json")):
            find_export(folder, model, engine)
    known = read_json(folder / "local.json", default={}).get(EXTERNAL, {})
    source = known.get(name, data) if data == LOCAL else data
    if source != LOCAL:
        list_data(source, patient_pattern, labelled=False)  # said before it is recorded
    external_place(folder, name, data)
    values = {"external": name, "external_data": LOCAL, "keep_shared": keep_shared, "deployed": engine}
    return plan_asked(folder, "external", f"{EXTERNAL}/{name}", values, settings=settings)
