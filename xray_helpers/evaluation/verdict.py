"""Three answers to a question that an interval decides: shown, ruled out, or not known.

An interval that covers the bound shows nothing either way: absence of evidence is not evidence of absence.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import pandas as pd

SHOWN, RULED_OUT, UNKNOWN = "shown", "ruled out", "not known"


class Verdict(NamedTuple):
    """The answer to one question."""

    state: str  # `SHOWN`, `RULED_OUT` or `UNKNOWN`
    sentence: str  # the answer in words, with the numbers that it rests on

    @property
    def answer(self) -> bool | None:
        """The state as True, False or None."""
        return {SHOWN: True, RULED_OUT: False, UNKNOWN: None}[self.state]


def compare_to_bound(entry: Mapping[str, Any], bound: float) -> str:
    """Return `SHOWN` if the whole interval lies above the bound, `RULED_OUT` if below, else `UNKNOWN`."""
    low, high = entry.get("ci_low"), entry.get("ci_high")
    if pd.notna(low) and low > bound:
        return SHOWN
    return RULED_OUT if pd.notna(high) and high < bound else UNKNOWN
