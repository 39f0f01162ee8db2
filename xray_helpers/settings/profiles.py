"""The profiles, and settings built from one and the values that override it."""

import difflib
from typing import Any

from pydantic import BaseModel, ValidationError

from xray_helpers.settings.names import InputError
from xray_helpers.settings.parameters import Settings

PROFILES: dict[str, dict[str, Any]] = {
    "quick": {},
    "full": {"use_subset": 1.0, "epochs": 50, "threshold_rule": "sensitivity"},
    "smoke": {"use_subset": 0.01, "epochs": 1},
    "eager": {"eager": True},
    "demo": {
        "data": "phantoms",
        "img_size": (96, 96),
        "use_subset": 1.0,
        "epochs": 20,
        "patience": 5,
        "folds": 3,
        "repeats": 1,
        "maps": 30,
        "weights": "auto",
        "localizer": "primary",
    },
}


def nearest(word: str, known: Any) -> str:
    """Return ``"; did you mean X?"`` with the most similar known word, or an empty string if none is."""
    lower = {name.lower(): name for name in known}
    match = difflib.get_close_matches(str(word).lower(), lower, n=1, cutoff=0.5)
    return f"; did you mean {lower[match[0]]}?" if match else ""


def build_settings(profile: str = "quick", **values: Any) -> Settings:
    """Build the settings of a study from a profile and the values that override it.

    Parameters
    ----------
    profile : str
        One of `PROFILES`.
    **values
        Parameters by name, as Python values or as text from the command line.

    Raises
    ------
    InputError
        For an unknown profile or parameter (naming the most similar known one), a wrong type, or a value
        out of range.
    """
    if profile not in PROFILES:
        suggestion = nearest(profile, PROFILES) or "."
        raise InputError(f"There is no profile {profile!r}{suggestion} Known: {', '.join(PROFILES)}.")
    check_names(values)
    return validate(Settings, {"name": profile} | PROFILES[profile] | values)


def validate(model: type[BaseModel], values: dict[str, Any]) -> Any:
    """Build a pydantic model; raise `InputError` with one sentence about the first invalid value."""
    try:
        return model(**values)
    except ValidationError as error:
        first = error.errors()[0]
        whole = "primary_model" if "one of the study's models" in first["msg"] else "models"
        field = str(first["loc"][0]) if first["loc"] else whole
        why = first["msg"].removeprefix("Value error, ").replace("Input should", "it should")
        raise InputError(
            f"{field} = {values.get(field)!r} cannot be used: {why} ({field}: "
            f"{model.model_fields[field].description})."
        ) from None


def check_names(names: Any, *, known: Any = (), where: str = "") -> None:
    """Raise `InputError` for the first name that is not a parameter, naming the most similar one."""
    known = {*Settings.model_fields, *known}
    for name in names:
        if name not in known:
            suggestion = nearest(name, known) or "."
            raise InputError(
                f"There is no parameter {name!r}{where}{suggestion} Known: {', '.join(sorted(known))}."
            )
