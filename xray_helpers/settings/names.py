"""The names of classes and parts, how lists and models are written, and the error that a user can mend."""

import re
from typing import Any, NamedTuple

POSITIVE = "Fractured"
NEGATIVE = "Non-Fractured"
CLASS_NAMES = (NEGATIVE, POSITIVE)  # in the order of y_true: the positive class is 1
SPLITS = ("train", "validation", "test")
VALIDATION = "validation"  # as `primary_model`: the model with the best score on validation
MAX_CLASSES = 50  # more are rather patients or series than classes
MIN_GROUPS = 8  # effective groups (Kish) of a class that a threshold or an interval needs
TAKEN = (
    VALIDATION,
    "lab",
    "figures",
    "models",
    "local",
    "external",
    "federated",
)  # names in a study that are no models


class Classes(NamedTuple):
    """The classes of a study: its binary question, and what else it tells apart.

    Attributes
    ----------
    negative, positive : str
        The two answers of the question, such as Non-Fractured and Fractured.
    names : tuple of str
        Three or more classes, in order; empty where there are only the two above.
    positives : tuple of str
        Those of `names` that are positive in the question.
    ordered : bool
        Whether the order of `names` was given, so that a class is nearer to its neighbours.
    assumed : str
        What was assumed to find them, in sentences; empty where nothing was.
    """

    negative: str = NEGATIVE
    positive: str = POSITIVE
    names: tuple[str, ...] = ()
    positives: tuple[str, ...] = ()
    ordered: bool = False
    assumed: str = ""

    @property
    def are_positive(self) -> list[bool]:
        """Whether each of `names` is positive in the question."""
        return [name in self.positives for name in self.names]


_current = [Classes()]


def current_classes() -> Classes:
    """Return the classes of the current study."""
    return _current[0]


def class_names() -> tuple[str, str]:
    """Return the current study's own names of the negative and the positive class."""
    return _current[0][:2]


def set_classes(classes: Classes) -> None:
    """Set what `current_classes` and `class_names` return in this process."""
    _current[0] = classes


class InputError(Exception):
    """An error that the user can fix: one sentence that says what is wrong, where, and what to do."""

    def for_notebook(self) -> str:
        """Return the sentence with parameters as a notebook's parameters cell has them, not as options."""

        def assign(found: re.Match) -> str:
            name, value = found.groups()
            value = value.capitalize() if value in ("true", "false") else value
            is_plain = re.fullmatch(r"True|False|[\d.]+|\[.*", value)
            return f"{name} = {value}" if is_plain else f'{name} = "{value}"'

        text = re.sub(r"(?<![\w-])-p ([a-z_]+)=([^\s,;:.)]+)", assign, str(self))
        text = re.sub(r"(?<![\w-])--(data|name|models)\b", r"\1", text)
        if text != str(self) or re.search(r"There is no parameter|cannot be used: ", text):
            text += " Change it in the cell of parameters, the first with code, and run all cells again."
        return text


def number_of(count: int, one: str, many: str = "") -> str:
    """Return ``1 file`` or ``3 files``; `many` is for what does not end in s, such as ``files are``."""
    return f"{count} {one if count == 1 else many or one + 's'}"


def read_list(value: Any) -> Any:
    """Split a text such as ``[a, b]``, ``(a, b)`` or ``a, b``; return any other value unchanged."""
    if not isinstance(value, str):
        return value
    value = value.strip()
    if value[:1] + value[-1:] in ("[]", "()"):
        value = value[1:-1]
    parts = [part.strip().strip("\"'") for part in value.split(",")]
    return parts if any(parts) else []


def read_merge(value: Any) -> Any:
    """Read ``{A: [a, b], B: [c]}`` or ``A=a+b, B=c`` as a dictionary; return any other value unchanged.

    Raises
    ------
    ValueError
        When a class would become two others.
    """
    if isinstance(value, str):
        if "{" in value:
            pairs = re.findall(r"""["']?([^"'{}\[\],:]+?)["']?\s*:\s*\[([^\]]*)\]""", value)
            value = {name.strip(): read_list(members) for name, members in pairs}
        else:
            pairs = [part.partition("=") for part in read_list(value)]
            value = {name.strip(): [x.strip() for x in members.split("+")] for name, _, members in pairs}
    if isinstance(value, dict):
        value = {name: read_list(members) for name, members in value.items()}
        members = [member for group in value.values() for member in group]
        if len(set(members)) < len(members) or len(value) == 1:
            raise ValueError("each class belongs to one of at least two joined classes")
    return value


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
