"""What names of folders and cells of tables mean: one of the two classes, or no class."""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from itertools import takewhile

import pandas as pd

from xray_helpers.images.patient_names import word_key
from xray_helpers.settings import NEGATIVE, POSITIVE, InputError


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_POSITIVE_NAMES = _words("fractured fracture fractures positive broken abnormal")
_NEGATIVE_NAMES = _words("""
    notfractured nonfractured nofracture nofractures nonfracture unfractured withoutfracture
    negative normal healthy intact
""")
_NO_CLASS = {""} | _words("""
    nan na none null missing unknown unclear unsure notsure undetermined u x
    uncertain equivocal indeterminate doubtful questionable suspected possible probable maybe
    unlabeled unlabelled notlabeled unread notread notassessed tbd other exclude excluded
""")  # what readers and labelling programs write where they do not know
_ANSWERS = ("true", "false", "yes", "no")
SPLIT_NAMES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation"), "validation"),
    **dict.fromkeys(("test", "testing"), "test"),
}


def read_label(word: object) -> str | None:
    """Return the class that a folder's name or a cell stands for, or None.

    Understands 1/0 (also 1.0), true/false, yes/no and the usual spellings; ``not fractured`` is not
    ``fractured``, and neither -1 nor ``fractured?`` is a class.
    """
    number = _read_number(word)
    if number is not None:
        return {1.0: POSITIVE, 0.0: NEGATIVE}.get(number)
    key = word_key(word)
    if key in _POSITIVE_NAMES or key in ("true", "yes"):
        return POSITIVE
    return NEGATIVE if key in _NEGATIVE_NAMES or key in ("false", "no") else None


def is_negative(word: object) -> bool:
    """Return whether a name among types of fractures says that there is none: ``normal``, also ``none``."""
    return read_label(word) == NEGATIVE or word_key(word) in ("none", "nofinding", "nofindings", "control")


def _read_number(word: object) -> float | None:
    if isinstance(word, bool):
        return float(word)
    try:
        number = float(str(word).strip())
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def is_numeral(name: str) -> bool:
    """Return whether a folder's name is a number, yes, no, true or false, which often is no class."""
    return _read_number(name) is not None or word_key(name) in _ANSWERS


def calls_abnormal(words: Iterable[str]) -> bool:
    """Return whether words of `word_key` name a class abnormal, and none mentions a fracture."""
    words = set(words)
    return "abnormal" in words and not any("fractur" in word for word in words)


def label_paths(paths: Sequence[str], *, strict: bool = True) -> list[str | None]:
    """Return the class that each path's folders name, or None.

    Folders that all paths share name a class only where deeper ones do not. Folders such as 0 and 1 (or no
    and yes) are classes only if no folder has a class's name and they are the only level that divides all
    files in two; otherwise they are series or patients.

    Parameters
    ----------
    paths : sequence of str
        With forward slashes.
    strict : bool
        Whether contradictory paths are refused rather than left without a class.

    Raises
    ------
    InputError
        When a path names both classes, or numerals stand at two levels.
    """
    folders = [path.split("/")[:-1] for path in paths]
    shared = sum(1 for _ in takewhile(lambda names: len(set(names)) == 1, zip(*folders, strict=False)))
    inner = [names[shared:] for names in folders]
    named = [_named_classes(names) for names in inner]
    if not any(named):
        named = [_named_classes(names) for names in folders]
    if not any(named):
        return _label_by_numerals(folders, strict=strict)
    found = [
        classes | _answers(names) if classes else {} for names, classes in zip(inner, named, strict=True)
    ]
    conflicts = [i for i, classes in enumerate(found) if len(set(classes.values())) > 1]
    if conflicts and strict:
        folder_of = {label: name for name, label in found[conflicts[0]].items()}
        raise InputError(
            f"{len(conflicts)} of {len(paths)} paths name both classes, such as {paths[conflicts[0]]}: its "
            f"folder {folder_of[POSITIVE]!r} says {POSITIVE}, its folder {folder_of[NEGATIVE]!r} says "
            f"{NEGATIVE}. Rename or move one of them, or list the images with their labels in a CSV."
        )
    return [next(iter(classes.values())) if len(set(classes.values())) == 1 else None for classes in found]


def _named_classes(names: list[str]) -> dict[str, str]:
    return {name: label for name in names if not is_numeral(name) and (label := read_label(name))}


def _answers(names: list[str]) -> dict[str, str]:
    """Return folders yes, no, true and false: fracture/no contradicts itself, fracture/0 is a series."""
    return {name: label for name in names if word_key(name) in _ANSWERS and (label := read_label(name))}


def _label_by_numerals(folders: list[list[str]], *, strict: bool) -> list[str | None]:
    inner = [[name for name in names if word_key(name) not in SPLIT_NAMES] for names in folders]
    levels = []
    for level in range(min((len(names) for names in inner), default=0)):
        if {read_label(names[level]) for names in inner} == {POSITIVE, NEGATIVE}:
            levels.append(level)
    if len(levels) > 1 and strict:
        both = " and ".join(f"level {level + 1} ({inner[0][level]!r} and the like)" for level in levels[:2])
        raise InputError(
            f"Folders such as 0 and 1 stand at {both}: which of them are the classes cannot be known. Name "
            "the classes' folders Fractured and Non-Fractured, or list the images with their labels in a CSV."
        )
    return [read_label(names[levels[0]]) if len(levels) == 1 else None for names in inner]


def label_cells(
    cells: pd.Series,
    where: str,
    fate: str = "do not count",
    read: Callable[[object], str | None] = read_label,
) -> tuple[pd.Series, list[str]]:
    """Return the class of each cell of a label column, missing for no class, and notes on the latter.

    Numbers other than 0 and 1 (-1 is `uncertain` in CheXpert and MIMIC), blank cells and words such as
    ``unknown`` are no class. Any other word is refused, as it may be a misspelt class.

    Parameters
    ----------
    cells : Series of str
        Indexed by the lines of the file.
    where : str
        The table's name, for messages.
    fate : str
        What becomes of rows without a class, for the note.
    read : callable
        The class that a cell means, or None; by default one of two.

    Raises
    ------
    InputError
        For a word that is not understood, with its line.
    """
    text = cells.fillna("").astype(str).str.strip()
    labels = text.map(read).astype("string")
    rest = text[labels.isna()]
    unknown = rest[[not is_no_class(word) for word in rest]]
    if len(unknown):
        raise InputError(
            f"{where}: the label {unknown.iloc[0]!r} in line {unknown.index[0]} is not understood: write "
            f"{POSITIVE} or {NEGATIVE}, or 1 and 0; leave it blank where the class is not known. Several "
            "classes are named by classes=[...]."
        )
    if rest.empty:
        return labels, []
    counts = [f"{word} ({count})" for word, count in Counter(word or "blank" for word in rest).most_common()]
    named = ", ".join(counts[:10]) + (", ..." if len(counts) > 10 else "")
    return labels, [f"{where}: {len(rest)} rows with a label that is no class {fate}: {named}."]


def is_no_class(word: str) -> bool:
    """Return whether a word stands for no class, as ``unknown``, ``?`` and numbers other than 0 and 1 do."""
    return _read_number(word) is not None or "?" in word or word_key(word) in _NO_CLASS
