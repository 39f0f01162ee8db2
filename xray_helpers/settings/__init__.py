"""The parameters of a study, validated once, their profiles, and the names of the classes."""

from xray_helpers.settings.names import (
    CLASS_NAMES,
    MIN_GROUPS,
    NEGATIVE,
    POSITIVE,
    SPLITS,
    VALIDATION,
    Classes,
    InputError,
    class_names,
    current_classes,
    number_of,
    read_list,
    set_classes,
    split_model,
)
from xray_helpers.settings.parameters import RECIPE_EPOCHS, TUNING, Settings
from xray_helpers.settings.profiles import PROFILES, build_settings, check_names, nearest, validate

__all__ = [
    "CLASS_NAMES",
    "MIN_GROUPS",
    "NEGATIVE",
    "POSITIVE",
    "PROFILES",
    "RECIPE_EPOCHS",
    "SPLITS",
    "TUNING",
    "VALIDATION",
    "Classes",
    "InputError",
    "Settings",
    "build_settings",
    "check_names",
    "class_names",
    "current_classes",
    "nearest",
    "number_of",
    "read_list",
    "set_classes",
    "split_model",
    "validate",
]
