"""Three or more classes: found in folders and labels, joined, put in order, and asked about."""

import difflib
from collections.abc import Callable, Sequence
from itertools import takewhile
from typing import NamedTuple

import pandas as pd

from xray_helpers.data.labels import (
    SPLIT_NAMES,
    is_negative,
    is_no_class,
    is_numeral,
    label_paths,
    read_label,
)
from xray_helpers.images.patient_names import word_key
from xray_helpers.settings import (
    CLASS_NAMES,
    NEGATIVE,
    POSITIVE,
    Classes,
    InputError,
    Settings,
    nearest,
    number_of,
)
from xray_helpers.settings.names import MAX_CLASSES

MIN_PER_CLASS = 10  # images; of a binary class, fewer cannot be split into three parts
AUTO = ("auto",)
_KNOWN = ("fractured", "fracture", "nonfractured", "notfractured", "nofracture", "normal")
_ASIDE = {  # folders beside the classes that hold no radiographs of a class
    *("mask", "masks", "segmentation", "segmentations", "annotation", "annotations", "labels", "overlays"),
    *("heatmap", "heatmaps", "thumbnails", "previews"),
}
_OTHER = "positive=NAME asks another."


class Question(NamedTuple):
    """What is asked of the data: the parameters classes, positive and merge of `Settings`.

    Where it is not `complete`, as for a set from elsewhere, some of the classes may be missing.
    """

    classes: tuple[str, ...] = AUTO
    positive: str = POSITIVE
    merge: dict[str, tuple[str, ...]] = {}  # noqa: RUF012
    complete: bool = True

    @property
    def given(self) -> tuple[str, ...]:
        """The names to look for; empty where they are to be found."""
        merged = tuple(name for members in self.merge.values() for name in members)
        return self.classes if self.classes != AUTO else merged


USUAL = Question()


def question_of(settings: Settings) -> Question:
    """Return what a study asks of its data."""
    return Question(settings.classes, settings.positive, settings.merge)


def read_by_names(names: Sequence[str]) -> Callable[[object], str | None]:
    """Return a function from a folder's name or a cell to the one of `names` that it means, or None."""
    by_key = {word_key(name): name for name in names}

    def read(word: object) -> str | None:
        key = word_key(word)
        return by_key.get(key, by_key.get(key.removesuffix(".0")))

    return read


def label_folders(
    paths: Sequence[str], question: Question, notes: list[str], *, strict: bool
) -> list[str | None]:
    """Return the class of each path by its folders, or None; two classes by known words, or more.

    Without given names, folders of unknown name are classes where they stand beside known ones and hold at
    least `MIN_PER_CLASS` images, or where they are the one level at which all files divide into three classes
    or more.

    Raises
    ------
    InputError
        When a path names two classes, given names are not there, or the classes' level cannot be known.
    """
    if question.given:
        labels = _label_by_given(paths, question, strict=strict)
        left = sorted(
            {
                path.split("/")[-2]
                for path, label in zip(paths, labels, strict=True)
                if not label and "/" in path
            }
        )
        if left and any(labels):
            count = sum(label is None for label in labels)
            listed = ", ".join(left[:8])
            notes.append(
                f"{number_of(count, 'image does', 'images do')} "
                f"not count, in folders that are none of the classes: {listed}."
            )
        return labels
    labels = label_paths(paths, strict=strict)
    inner = _inner_folders(paths)
    if any(labels):
        return _add_siblings(labels, inner, notes)
    beside = [bool({word_key(name) for name in names} & _ASIDE) for names in inner]
    names = _find_level(
        [names for names, aside in zip(inner, beside, strict=True) if not aside], question, strict=strict
    )
    if names is None:
        return [None] * len(paths)
    found = iter(names)
    return [None if aside else next(found) for aside in beside]


def _label_by_given(paths: Sequence[str], question: Question, *, strict: bool) -> list[str | None]:
    read, labels = read_by_names(question.given), []
    for path in paths:
        found = list(dict.fromkeys(filter(None, map(read, path.split("/")[:-1]))))
        if len(found) > 1 and strict:
            raise InputError(
                f"{path} lies in folders of two classes, {found[0]} and {found[1]}: rename or move one, or "
                "name only one of them in classes."
            )
        labels.append(found[0] if len(found) == 1 else None)
    return labels


def _inner_folders(paths: Sequence[str]) -> list[list[str]]:
    """Return the folders of each path without those that all share, and without train, val and test."""
    folders = [path.split("/")[:-1] for path in paths]
    shared = sum(1 for _ in takewhile(lambda names: len(set(names)) == 1, zip(*folders, strict=False)))
    return [[name for name in names[shared:] if word_key(name) not in SPLIT_NAMES] for names in folders]


def _add_siblings(labels: list[str | None], inner: list[list[str]], notes: list[str]) -> list[str | None]:
    """Give images in folders beside those of known classes the folder's name as their class."""
    parents = set()
    for label, names in zip(labels, inner, strict=True):
        if label:
            at = next((i for i, name in enumerate(names) if read_label(name) == label), None)
            parents |= set() if at is None else {tuple(names[:at])}
    beside = {}
    for row, (label, names) in enumerate(zip(labels, inner, strict=True)):
        at = next((i for i in range(len(names)) if tuple(names[:i]) in parents), None)
        if label is None and at is not None and _may_be_class(names[at], labels):
            beside.setdefault(word_key(names[at]), []).append((row, names[at]))
    few = {found[0][1]: len(found) for found in beside.values() if len(found) < MIN_PER_CLASS}
    found = [rows for rows in beside.values() if len(rows) >= MIN_PER_CLASS]
    if few:
        listed = ", ".join(f"{name} ({count})" for name, count in sorted(few.items()))
        notes.append(f"Folders of no class, with fewer than {MIN_PER_CLASS} images, do not count: {listed}.")
    if len(found) + 2 > MAX_CLASSES:
        raise InputError(_too_many([rows[0][1] for rows in found]))
    labels = list(labels)
    for rows in found:
        for row, _ in rows:
            labels[row] = rows[0][1]
    return labels


def _may_be_class(name: str, labels: Sequence[str | None]) -> bool:
    if word_key(name) in _ASIDE:
        return False
    if is_negative(name):  # the folder none is a class where no other folder is that of intact bones
        return NEGATIVE not in labels
    return not is_numeral(name) and not is_no_class(name)


def _find_level(inner: list[list[str]], question: Question, *, strict: bool) -> list[str | None] | None:
    """Return each image's folder at the one level that divides all of them into classes, if there is one."""
    levels, crowded = {}, []
    for level in range(min((len(names) for names in inner), default=0)):
        keys = pd.Series([word_key(names[level]) for names in inner])
        counts = keys.value_counts()
        if len(counts) < 2 or any(is_numeral(key) for key in counts.index) or _are_identities(counts.index):
            continue
        if len(counts) > MAX_CLASSES:
            crowded.append(sorted({names[level] for names in inner}))
        elif (counts >= MIN_PER_CLASS).sum() >= 2:
            levels[level] = counts
    telling = [level for level, counts in levels.items() if any(is_negative(key) for key in counts.index)]
    # of images whose labels are not required, folders such as hand and foot are no classes
    levels = {level: levels[level] for level in telling} or (levels if strict else {})
    if len(levels) > 1 and strict:
        one, other = (", ".join(sorted({names[level] for names in inner})[:4]) for level in list(levels)[:2])
        raise InputError(
            f"The classes may be {one}, or {other}: name them in order, as in classes=[none, simple]."
        )
    if not levels and crowded and strict:
        raise InputError(_too_many(crowded[0]))
    if len(levels) != 1:
        return None
    level, counts = next(iter(levels.items()))
    spelled = {word_key(names[level]): names[level] for names in reversed(inner)}
    if len(counts) == 2:
        asked = read_by_names(list(spelled.values()))(question.positive)
        if not asked and not any(is_negative(key) for key in counts.index):
            return None
    return [spelled[word_key(names[level])] for names in inner]


def _are_identities(keys: Sequence[str]) -> bool:
    """Return whether names differ in their digits only, as those of patients and series do."""
    return len({"".join(c for c in key if not c.isdigit()) for key in keys}) == 1


def _too_many(names: Sequence[str]) -> str:
    return (
        f"{len(names)} folders would be classes ({', '.join(names[:5])}, ...), more than {MAX_CLASSES}: that "
        "is taken for a mistake; name the classes, as in classes=[none, simple, comminuted]."
    )


def choose_reader(cells: pd.Series, question: Question) -> Callable[[object], str | None]:
    """Return what reads the cells of a label column: known words, given names, or names that are found there.

    Words that are neither known nor `unknown` and the like are classes if there are three classes with them,
    each on at least `MIN_PER_CLASS` rows, and none is nearly a known word.

    Parameters
    ----------
    cells : Series of str
    question : Question
    """
    if question.given:
        return read_by_names(question.given)
    words = cells.dropna().astype(str).str.strip()
    _check_grades(words)
    keys = words.map(word_key)
    known = {key: read_label(word) for key, word in zip(keys, words, strict=True)}
    negative = any(label == NEGATIVE for label in known.values())
    counts = keys.value_counts()
    new = [
        key
        for key in counts.index
        if known[key] is None and (not is_no_class(key) or (is_negative(key) and not negative))
    ]
    of_type = [key for key in new if not is_negative(key)]
    kinds = len({label for label in known.values() if label}) + len(new)
    asked = word_key(question.positive) in new
    misspelt = [key for key in new if any(known.values()) and difflib.get_close_matches(key, _KNOWN, 1, 0.75)]
    if not of_type or kinds < (2 if asked else 3) or misspelt or (counts[new] < MIN_PER_CLASS).any():
        return read_label
    spelled = {key: word for key, word in zip(keys[::-1], words[::-1], strict=True) if key in new}
    return lambda word: read_label(word) or spelled.get(word_key(word))


def _check_grades(words: pd.Series) -> None:
    """Raise `InputError` for labels 0, 1, 2, ... that are grades or classes rather than yes and no."""
    counts = pd.to_numeric(words, errors="coerce").value_counts()
    grades = sorted(int(value) for value, count in counts.items() if count >= MIN_PER_CLASS and value >= 0)
    if len(grades) > 2 and grades == list(range(grades[0], grades[0] + len(grades))):
        named = ", ".join(map(str, grades))
        raise InputError(
            f"The labels are {named}: whether they are classes, and which mean a fracture, cannot be known; "
            f"name those that count, as in classes=[{named}]."
        )


def ask(
    labels: pd.Series, question: Question, names: tuple[str, str] = CLASS_NAMES
) -> tuple[pd.DataFrame, Classes]:
    """Turn the names of classes into the labels of the binary question, and what else is told apart.

    Parameters
    ----------
    labels : Series of str
        The name of each image's class; missing where it has none.
    question : Question
    names : (str, str)
        How the data call the negative and the positive of two known classes.

    Returns
    -------
    columns : DataFrame
        label (Fractured, which stands for the positive class, or Non-Fractured), and with three or more
        classes class_name.
    classes : Classes
        With what was assumed.

    Raises
    ------
    InputError
        When a name that was given, or `positive`, is not there.
    """
    there = [str(name) for name in labels.dropna().unique()]
    for name in question.given:
        if there and name not in there and question.complete:
            raise InputError(
                f"No image is of class {name!r}, which classes or merge name{nearest(name, there) or ';'} "
                f"found: {', '.join(there)}."
            )
    if question.merge:
        into = {member: name for name, members in question.merge.items() for member in members}
        labels, order = labels.map(into).astype("string"), tuple(question.merge)
    elif question.classes != AUTO:
        order = question.classes
    else:
        order = tuple(sorted(there, key=lambda name: (not is_negative(name), name.lower())))
    if set(order) <= set(CLASS_NAMES) and question.positive == POSITIVE:
        return pd.DataFrame({"label": labels}), Classes(*names)
    counts = labels.value_counts()
    largest = max(reversed(order), key=lambda name: counts.get(name, 0))
    last = order[-1] if question.given else largest  # of ordered classes the last is the most severe one
    positives, answers, why = _choose_positives(order, question, last)
    binary = labels.map({name: POSITIVE if name in positives else NEGATIVE for name in order})
    columns = pd.DataFrame({"label": binary.astype("string")})
    if len(order) < 3:
        return columns, Classes(*answers, assumed=why)
    found = ", ".join(f"{name} ({number_of(counts.get(name, 0), 'file')})" for name in order)
    why = f"{len(order)} classes were found: {found}. {why}"
    classes = Classes(*answers, order, positives, question.classes != AUTO, why)
    return columns.assign(class_name=labels.astype("string")), classes


def _choose_positives(
    order: tuple[str, ...], question: Question, last: str
) -> tuple[tuple[str, ...], tuple[str, str], str]:
    """Return the positive classes, the names of both answers, and how that was chosen."""
    asked = read_by_names(order)(question.positive)
    fractured = tuple(name for name in order if read_label(name) == POSITIVE)
    intact = tuple(name for name in order if is_negative(name))
    if asked and asked not in fractured:
        others = [name for name in order if name != asked]
        negative = others[0] if len(others) == 1 else f"not {asked}"
        return (asked,), (negative, asked), f"The binary question is: {asked}, or not."
    if not asked and read_label(question.positive) != POSITIVE:
        raise InputError(
            f"positive = {question.positive!r} is none of the classes"
            f"{nearest(question.positive, order) or ';'} there are: {', '.join(order)}."
        )
    if fractured:
        return fractured, CLASS_NAMES, f"The binary question is: {fractured[0]}, or not; {_OTHER}"
    if intact:
        others = tuple(name for name in order if name not in intact)
        why = (
            f"It is assumed that {' and '.join(intact)} means no fracture, and {', '.join(others)} a fracture"
        )
        return others, CLASS_NAMES, f"{why}; {_OTHER}"
    why = f"No class says that there is no fracture: the binary question is {last}, or not; {_OTHER}"
    return (last,), (f"not {last}", last), why
