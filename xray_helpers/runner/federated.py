"""Sites that train together: the notebook of a federation as a step, and the plan for sites elsewhere."""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from xray_helpers.data.listing import list_data
from xray_helpers.federated.apps import require_flower
from xray_helpers.federated.rounds import Plan
from xray_helpers.runner.asked import AskedPlan, check_evaluated, plan_asked, run_asked, study_settings
from xray_helpers.runner.options import RunOptions
from xray_helpers.settings import InputError, nearest
from xray_helpers.study.federations import federation_folder, federation_places
from xray_helpers.study.files import read_csv, read_json
from xray_helpers.study.folders import FEDERATED, LOCAL, find_study
from xray_helpers.study.parameters import FEDERATED as OPTIONS

_COLUMN = "site_column"


def run_federated(
    study: str,
    sites: Mapping[str, str],
    name: str = "",
    values: Mapping[str, str] | None = None,
    running: RunOptions | None = None,
) -> tuple[Path, str]:
    """Train at several sites that share no images, on this machine, and compare.

    Parameters
    ----------
    study : str
        Its name or folder.
    sites : mapping of str to str
        By site a folder, a CSV or phantoms; empty where a column of the study names them.
    name : str
        Of the federation, and of its folder under ``federated``.
    values : mapping, optional
        site_column, and `parameters.FEDERATED`, as text.
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
    return run_asked(plan_federated(find_study(study), sites, name, values or {}), running)


def plan_federated(folder: Path, sites: Mapping[str, str], name: str, values: Mapping[str, str]) -> AskedPlan:
    """Return the steps of a study as they are, and the one that trains its federation.

    Raises
    ------
    InputError
        When the study has no evaluated model, a site's images cannot be listed, or a value is not possible.
    """
    require_flower()
    settings = study_settings(folder)
    check_evaluated(folder, settings.models)
    column = values.get(_COLUMN, "")
    options = read_options({key: value for key, value in values.items() if key != _COLUMN})
    name = name or column or "sites"
    known = read_json(folder / "local.json", default={}).get(FEDERATED, {}).get(name)
    if not (sites or column or known):
        raise InputError(
            "Say which sites: --site A=DIR --site B=DIR, or -p site_column=COLUMN of the study's own table."
        )
    if not sites and not known and column not in read_csv(folder / "manifest.csv"):
        raise InputError(f"The images of {folder.name} have no column {column!r} that could name their site.")
    for place in sites.values():
        list_data(place, settings.patient_pattern, labelled=False)
    federation_places(folder, name, sites or LOCAL)
    given = {"federated": name, "sites": LOCAL, _COLUMN: column, **options}
    return plan_asked(folder, FEDERATED, f"{FEDERATED}/{name}", given)


def read_options(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters of a federation, those that are not given at their defaults.

    Raises
    ------
    InputError
        For a name that there is not, or a value that is not possible.
    """
    known = {field.name: field for field in fields(Plan) if field.name in OPTIONS}
    for key in values:
        if key not in known:
            raise InputError(
                f"A federation has no parameter {key!r}{nearest(key, [*known, _COLUMN]) or '.'} Known: "
                f"{', '.join([_COLUMN, *known])}."
            )
    found = {}
    for key, field in known.items():
        try:
            found[key] = field.type(values.get(key, field.default))
        except ValueError:
            raise InputError(f"{key} = {values[key]!r} is no number.") from None
    Plan("", "", {}, {}, 0, (), **found)  # refuses what is not possible
    return found


def write_plan(study: str, sites: Sequence[str], name: str, values: Mapping[str, str]) -> Path:
    """Write the plan of a federation whose sites are on other machines, for its server and its sites.

    Returns
    -------
    Path
        Its folder, which the server is given.
    """
    from xray_helpers.evaluation.comparison import choose_primary, compare_models, evaluated_models
    from xray_helpers.federated.preparation import RUN, prepare_plan
    from xray_helpers.models.head import prepare_tensorflow

    folder = find_study(study)
    settings = study_settings(folder)
    check_evaluated(folder, settings.models)
    models = evaluated_models(folder, settings.models, read_csv(folder / "manifest.csv"))
    chosen = choose_primary(compare_models(folder, models), settings.primary_model)
    prepare_tensorflow(settings)
    place = federation_folder(folder, name)
    prepare_plan(folder, place, sites, chosen, settings, **read_options(values))
    return place / RUN
