"""Placeholders in the place of a patient's name, such as ``ANONYMOUS``."""

import re

import pandas as pd

_PLACEHOLDERS = {
    *("", "nan", "na", "none", "null", "missing", "unknown", "unnamed", "nobody", "noid", "nopatient"),
    *("anonymous", "anonymized", "anonymised", "anon", "anonymouspatient", "patientanonymous"),
    *("deidentified", "removed", "redacted", "johndoe", "doejohn", "janedoe", "doejane"),
    *("patient", "patientid", "test", "unbekannt", "inconnu", "desconocido"),
}
_SEPARATORS = re.compile(r"[\s_\-\u2010-\u2015./^,]+")


def word_key(word: object) -> str:
    """Return a word in lower case without spaces, dashes, underscores, points, commas, slashes and carets."""
    return _SEPARATORS.sub("", str(word).lower())


def is_placeholder(name: str) -> bool:
    """Return whether a patient's name stands for an unknown one, such as ``ANONYMOUS`` or ``xxx``."""
    key = word_key(name.strip())
    return key in _PLACEHOLDERS or re.fullmatch(r"x+|[?*]+", key) is not None


def without_placeholders(patients: pd.Series) -> pd.Series:
    """Return patients' names with placeholders (``unknown``, ``ANONYMOUS``, ``0``, ...) set to missing.

    Numbers of zeros or nines count as names where other numbers do.
    """
    text = patients.astype("string").str.strip()
    keys = text.map(word_key, na_action="ignore").astype("string")
    placeholder = text.map(is_placeholder, na_action="ignore").astype("boolean").fillna(False)
    no_number = keys.str.fullmatch(r"0+|9{4,}").fillna(False)
    number = keys.str.fullmatch(r"\d+").fillna(False)
    return text.mask(placeholder if (number & ~no_number).any() else placeholder | no_number)
