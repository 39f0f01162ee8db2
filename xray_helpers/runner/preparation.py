"""What is checked before anything of a study runs, without TensorFlow: models, data, weights, its folder."""

from pathlib import Path

from xray_helpers.data.classes import question_of
from xray_helpers.data.listing import list_data
from xray_helpers.evaluation.readers import load_reads
from xray_helpers.models.backbones import OWN, get_backbone, resolve_weights
from xray_helpers.models.optimization import check_keras
from xray_helpers.models.quantization import check_installed
from xray_helpers.runner.steps import resolve_settings
from xray_helpers.settings import TUNING, InputError, Settings
from xray_helpers.study.files import read_json
from xray_helpers.study.folders import (
    ANSWERS,
    from_root,
    is_private_source,
    local_path,
    resolve_path,
    resolve_source,
    shareable,
    study_folder,
    with_local_sources,
)


def prepare(settings: Settings, *, overwrite: bool = False) -> Settings:
    """Check everything that can be checked without TensorFlow, and return the settings with `auto` resolved.

    Raises
    ------
    InputError
        For unknown models, missing data or weights, one class only, or a folder of another study.
    """
    folder = study_folder(settings.name)
    settings = with_local_sources(folder, settings)
    backbones = [get_backbone(name, settings) for name in settings.models]
    for backbone in backbones:
        backbone.check_size(settings.img_size)
    check_keras(settings)
    if settings.precision == "int8":
        check_installed()
    settled = resolve_settings(settings) or settings
    place = {key: local_path(folder, key, getattr(settled, key)) for key in ("data", "weights")}
    asked = settings.patient_pattern, settings.exam_pattern
    listing = list_data(place["data"], *asked, question=question_of(settings))
    if settings.readers:
        load_reads(from_root(settings.readers), listing.table["path"])
    weights = resolve_weights(place["weights"], settings.models, settings)
    for licence in dict.fromkeys(one.licence for one in backbones if "bind" in one.licence):
        print(f"Weights under a licence that binds you: {licence}.")
    weights = place["weights"] if weights == OWN else weights  # the search for same-source images uses them
    settings = settings.model_copy(update={"data": place["data"], "weights": weights})
    if (folder / ANSWERS).exists():
        from xray_helpers.reports.checklist import read_answers

        read_answers(folder)
    _check_folder(folder, settings, overwrite)
    return settings


def _check_folder(folder: Path, settings: Settings, overwrite: bool) -> None:
    if is_empty(folder):
        return
    advice = "choose another --name"
    if not (folder / "study.json").exists() and not (folder / "local.json").exists():
        raise InputError(f"reports/{folder.name} holds files that are no study: {advice}.")
    stored = read_json(folder / "study.json", default={"settings": shareable(settings)})["settings"]
    default = Settings().model_dump(mode="json")  # what an earlier version did not store
    changed = [key for key, value in shareable(settings).items() if stored.get(key, default[key]) != value]
    if not settings.tuning_epochs and not stored.get("fine_tune_epochs") and "recipe" not in changed:
        changed = [key for key in changed if key not in TUNING]
    private = read_json(folder / "local.json", default={})
    changed += [
        key
        for key in ("data", "weights")
        if key in private and key not in changed and private[key] != resolve_path(key, getattr(settings, key))
    ]
    places = private.get("sources", {})
    moved = [
        name
        for name, place in settings.sources.items()
        if is_private_source(place) and resolve_source(places.get(name, place)) != resolve_source(place)
    ]
    changed += [f"the source of {name}" for name in moved]
    if changed and not overwrite:
        raise InputError(
            f"reports/{folder.name} is a study with other settings ({', '.join(changed)}): {advice}, or "
            "add --overwrite."
        )


def is_empty(folder: Path) -> bool:
    """Return whether a folder holds nothing but what a stopped run, or a person, left there."""
    begun = (".", "log-", ANSWERS)
    return not folder.exists() or all(path.name.startswith(begun) for path in folder.iterdir())
