"""A trained model exported to other formats and compared with itself, as a step of the same engine."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from xray_helpers.export.bundle import EXPORT, read_bundle
from xray_helpers.export.formats import KERAS, choose_formats
from xray_helpers.export.page import drop_outdated_page
from xray_helpers.export.proof import DO_NOT_USE
from xray_helpers.runner.asked import check_evaluated, plan_asked, run_asked, study_settings
from xray_helpers.runner.options import RunOptions
from xray_helpers.settings import InputError
from xray_helpers.study.files import read_json
from xray_helpers.study.folders import find_study

RESULTS = "results.json"


def run_export(
    study: str,
    model: str,
    to: Sequence[str],
    *,
    int8: bool = False,
    margin: float = 0.01,
    running: RunOptions | None = None,
) -> tuple[Path, str]:
    """Export a model of a study, and compare each format with the original on the study's test images.

    Parameters
    ----------
    study : str
        Its name or folder.
    model : str
    to : sequence of str
        As for `formats.choose_formats`.
    int8 : bool
        Whether formats in int8 are made as well.
    margin : float
        The accepted loss of AUROC, sensitivity or specificity.
    running : RunOptions, optional

    Returns
    -------
    page : Path
        The report.
    error : str
        In a sentence, which formats are marked "do not use", could not be made, or why the step failed; empty
        where all is well.

    Raises
    ------
    InputError
        For what the user can mend, before anything runs.
    """
    folder = find_study(study)
    if not (folder / model / "model.keras").exists() or model not in study_settings(folder).models:
        known = ", ".join(sorted(path.parent.name for path in folder.glob("*/model.keras"))) or "none"
        raise InputError(f"{folder.name} has no model {model!r}: it has {known}.")
    check_evaluated(folder, (model,))
    forms = [one.name for one in choose_formats(to, int8=int8)]
    place = folder / model / EXPORT
    for name in {KERAS.name, *forms} if (place / RESULTS).exists() else ():
        made = name in read_json(place / RESULTS)["formats"]
        if made and not _is_whole(place / name):
            (place / RESULTS).unlink(missing_ok=True)  # so that the step is done again
            break
    values = {"model": model, "formats": list(to), "int8": int8, "export_margin": margin}
    drop_outdated_page(folder, model)
    page, error = run_asked(plan_asked(folder, "export", f"{model}/{EXPORT}", values), running)
    return page, error or _describe_failure(read_json(place / RESULTS))


def _is_whole(folder: Path) -> bool:
    with suppress(InputError):
        return bool(read_bundle(folder))
    return False


def _describe_failure(results: dict) -> str:
    bad = [name for name, row in results["formats"].items() if row["verdict"] == DO_NOT_USE]
    told = [f'Marked "do not use": {", ".join(bad)}, see the report.'] if bad else []
    return " ".join([*told, *filter(None, results["reasons"].values())])
