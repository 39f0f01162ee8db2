"""What the words of folders and tables mean: one of the two classes, no class, no patient."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import takewhile

import pandas as pd

from xray_helpers.images.patient_names import word_key
from xray_helpers.settings import NEGATIVE, POSITIVE, InputError

_POSITIVE_NAMES = {"fractured", "fracture", "fractures", "positive", "broken", "abnormal"}
_NEGATIVE_NAMES = {
    *(
        "notfractured",
        "nonfractured",
        "nofracture",
        "nofractures",
        "nonfracture",
        "unfractured",
        "withoutfracture",
    ),
    *("negative", "normal", "healthy", "intact"),
}
_NO_CLASS = {  # what readers and label programs write where they do not know
    *(
        "",
        "nan",
        "na",
        "none",
        "null",
        "missing",
        "unknown",
        "unclear",
        "unsure",
        "notsure",
        "undetermined",
        "u",
        "x",
    ),
    *(
        "uncertain",
        "equivocal",
        "indeterminate",
        "doubtful",
        "questionable",
        "suspected",
        "possible",
        "probable",
        "maybe",
    ),
    *(
        "unlabeled",
        "unlabelled",
        "notlabeled",
        "unread",
        "notread",
        "notassessed",
        "tbd",
        "other",
        "exclude",
        "excluded",
    ),
}
_ANSWERS = ("true", "false", "yes", "no")
SPLIT_NAMES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation"), "validation"),
    **dict.fromkeys(("test", "testing"), "test"),
}


def read_label(word: object) -> str | None:
    """Return the class that a folder's name or a cell stands for, or None.

    Understands 1/0 (1.0 as well), true/false, yes/no and the usual spellings; ``not fractured`` is not
    ``fractured``, and neither -1 nor ``fractured?`` is a class.
    """
    number = _read_number(word)
    if number is not None:
        return {1.0: POSITIVE, 0.0: NEGATIVE}.get(number)
    key = word_key(word)
    if key in _POSITIVE_NAMES | {"true", "yes"}:
        return POSITIVE
    return NEGATIVE if key in _NEGATIVE_NAMES | {"false", "no"} else None


def _read_number(word: object) -> float | None:
    if isinstance(word, bool):
        return float(word)
    try:
        number = float(str(word).strip())
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def is_numeral(word: str) -> bool:
    """Whether a folder's name may be a class but is more often something else, such as a series or a
    patient.
    """
    return _read_number(word) is not None or word_key(word) in _ANSWERS


def calls_abnormal(words: Iterable[str]) -> bool:
    """Return whether data call their positive class abnormal, and nothing in them fractured; of `word_key`'s
    words.
    """
    words = set(words)
    return "abnormal" in words and not any("fractur" in word for word in words)


def label_paths(paths: Sequence[str], *, strict: bool = True) -> list[str | None]:
    """Return the class that each path's folders name, or None.

    A class's name goes before a numeral: 0 and 1 (or no and yes) are classes only where no folder has a
    class's name and they are the one level that separates all files in two; else they are series or patients.
    Folders that all paths share name no class where deeper ones do.

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
    named = [_named_folders(names[shared:]) for names in folders]
    if not any(named):
        named = [_named_folders(names) for names in folders]
    if not any(named):
        return _label_by_numerals(folders, strict=strict)
    named = [
        found | _answers_below(names[shared:], found) for names, found in zip(folders, named, strict=True)
    ]
    torn = [i for i, found in enumerate(named) if len(set(found.values())) > 1]
    if torn and strict:
        first = dict(zip(named[torn[0]].values(), named[torn[0]], strict=True))
        raise InputError(
            f"{len(torn)} of {len(paths)} paths name both classes, such as {paths[torn[0]]}: its folder "
            f"{first[POSITIVE]!r} says {POSITIVE}, its folder {first[NEGATIVE]!r} says {NEGATIVE}. Rename "
            "or move one of "
            "them, or list the images with their labels in a CSV."
        )
    return [next(iter(found.values())) if len(set(found.values())) == 1 else None for found in named]


def _answers_below(names: list[str], found: dict[str, str]) -> dict[str, str]:
    """Return folders yes, no, true and false beside a class's name: fracture/no contradicts itself,
    fracture/0 is a series.
    """
    if not found:
        return {}
    return {name: label for name in names if word_key(name) in _ANSWERS and (label := read_label(name))}


def _named_folders(names: list[str]) -> dict[str, str]:
    return {name: label for name in names if not is_numeral(name) and (label := read_label(name))}


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
            "the classes' "
            "folders Fractured and Non-Fractured, or list the images with their labels in a CSV."
        )
    return [read_label(names[levels[0]]) if len(levels) == 1 else None for names in inner]


def _is_no_class(word: str) -> bool:
    return _read_number(word) is not None or "?" in word or word_key(word) in _NO_CLASS


def label_cells(cells: pd.Series, where: str, fate: str = "do not count") -> tuple[pd.Series, list[str]]:
    """Return the class of each cell of a label column, missing for what is no class, and what to say of
    those.

    Numbers other than 0 and 1 (-1 is `uncertain` in CheXpert and MIMIC), blank cells and words such as
    ``unknown`` are no class. A word that is neither a class nor one of those is refused, as it may be a
    misspelt class.

    Parameters
    ----------
    cells : Series of str
        Its index holds the lines of the file.
    where : str
        The table's name, for the sentences.
    fate : str
        What becomes of rows without a class, for the sentence.

    Raises
    ------
    InputError
        For a word that is not understood, with its line.
    """
    text = cells.fillna("").astype(str).str.strip()
    labels = text.map(read_label).astype("string")
    left = text[labels.isna()]
    strange = left[[not _is_no_class(word) for word in left]]
    if len(strange):
        raise InputError(
            f"{where}: the label {strange.iloc[0]!r} in line {strange.index[0]} is not understood: write "
            f"{POSITIVE} or "
            f"{NEGATIVE}, or 1 and 0; leave it blank where the class is not known."
        )
    if left.empty:
        return labels, []
    counts = Counter(word or "blank" for word in left).most_common()
    named = ", ".join(f"{word} ({count})" for word, count in counts[:10]) + (
        ", ..." if len(counts) > 10 else ""
    )
    return labels, [f"{where}: {len(left)} rows with a label that is no class {fate}: {named}."]
