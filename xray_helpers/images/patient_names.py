"""Which words in the place of a patient stand for nobody."""

import re

import pandas as pd

_NO_PATIENT = {
    *("", "nan", "na", "none", "null", "missing", "unknown", "unnamed", "nobody", "noid", "nopatient"),
    *(
        "anonymous",
        "anonymized",
        "anonymised",
        "anon",
        "anonymouspatient",
        "patientanonymous",
        "unbekannt",
        "inconnu",
        "desconocido",
        "johndoe",
        "doejohn",
        "janedoe",
        "doejane",
        "deidentified",
        "removed",
        "redacted",
        "patient",
        "patientid",
        "test",
    ),
}
_SEPARATORS = re.compile(r"[\s_\-\u2010-\u2015./^,]+")


def word_key(word: object) -> str:
    """Return a word in lower case without spaces, dashes, underscores, points and slashes; other signs
    stay.
    """
    return _SEPARATORS.sub("", str(word).lower())


def is_placeholder(name: str) -> bool:
    """Return whether a patient's name stands for an unknown one, such as ``unknown``, ``ANONYMOUS`` or
    ``xxx``.
    """
    key = word_key(name.strip())
    return key in _NO_PATIENT or re.fullmatch(r"x+|[?*]+", key) is not None


def without_placeholders(patients: pd.Series) -> pd.Series:
    """Return patients' names with what stands for an unknown one (``unknown``, ``ANONYMOUS``, ``0``, ...)
    missing.

    A number is a name like any other where several numbers stand for patients.
    """
    text = patients.astype("string").str.strip()
    keys = text.map(word_key, na_action="ignore").astype("string")
    nobody = text.map(is_placeholder, na_action="ignore").astype("boolean").fillna(False)
    zeros = keys.str.fullmatch(r"0+|9{4,}").fillna(False)
    numbers = keys.str.fullmatch(r"\d+").fillna(False)
    return text.mask(nobody if (numbers & ~zeros).any() else nobody | zeros)
