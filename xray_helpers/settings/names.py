"""The names of classes and parts, how lists and models are written, and the error that a user can mend."""

import re
from collections.abc import Sequence
from typing import Any

POSITIVE = "Fractured"
NEGATIVE = "Non-Fractured"
CLASS_NAMES = (NEGATIVE, POSITIVE)  # in the order of y_true: the positive class is 1
SPLITS = ("train", "validation", "test")
VALIDATION = "validation"  # as `primary_model`: the model with the best score on validation
MIN_GROUPS = 8  # effective groups (Kish) of a class that a threshold or an interval needs
TAKEN = (VALIDATION, "lab", "figures", "models", "local", "external")  # names in a study that are no models
_current_names = list(CLASS_NAMES)


def class_names() -> tuple[str, str]:
    """Return the current study's own names of the negative and the positive class."""
    return _current_names[0], _current_names[1]


def set_class_names(names: Sequence[str]) -> None:
    """Set what `class_names` returns in this process."""
    _current_names[:] = names


class InputError(Exception):
    """An error that the user can fix: one sentence that says what is wrong, where, and what to do."""


def read_list(value: Any) -> Any:
    """Split a text such as ``[a, b]``, ``(a, b)`` or ``a, b``; return any other value unchanged."""
    if not isinstance(value, str):
        return value
    value = value.strip()
    if value[:1] + value[-1:] in ("[]", "()"):
        value = value[1:-1]
    parts = [part.strip().strip("\"'") for part in value.split(",")]
    return parts if any(parts) else []


def split_model(text: str) -> tuple[str, str]:
    """Return the name of a model, and where it comes from; empty for those of ``keras.applications``.

    ``hub:PRESET``, ``hub:FOLDER`` and ``file:PATH.keras`` are called after the preset, folder or file;
    ``NAME=hub:FOLDER`` gives another name. The name is also that of the model's folder in the study.
    """
    found = re.fullmatch(r"(?:([^=:]*?)\s*=\s*)?(hub|file):\s*(.+)", text.strip())
    if not found:
        return text.strip(), ""
    name, kind, place = found.groups()
    last = place.partition("?")[0].rstrip("/").split("/")[-1]
    name = name or (last.removesuffix(".keras") if kind == "file" else last)
    check_model_name(name)
    return name, f"{kind}:{place}"


def check_model_name(name: str) -> None:
    """Raise `ValueError` for a name of a model that cannot be that of its folder and of its network."""
    if name in TAKEN or not re.fullmatch(r"[A-Za-z0-9][\w.-]*(?<!\.(json|html|yaml))", name, re.ASCII):
        raise ValueError(f"a model cannot be called {name!r}: give it another name, as in NAME=hub:FOLDER")
