"""The three answers that an interval gives."""

import numpy as np
import pandas as pd
import pytest

from xray_helpers.evaluation.intervals import flatten_entry, read_entry, unflatten_entry
from xray_helpers.evaluation.verdict import Verdict, compare_to_bound


@pytest.mark.parametrize(
    ("low", "high", "state", "answer"),
    [
        (0.6, 0.9, "shown", True),
        (0.2, 0.4, "ruled out", False),
        (0.4, 0.6, "not known", None),
        (0.5, 0.9, "not known", None),
        (0.2, 0.5, "not known", None),
        (None, None, "not known", None),
        (np.nan, np.nan, "not known", None),
    ],
)
def test_the_whole_interval_decides(low, high, state, answer):
    assert compare_to_bound({"ci_low": low, "ci_high": high}, 0.5) == state
    assert Verdict(state, "").answer is answer


def test_an_entry_is_read_from_any_columns_and_missing_numbers_are_none():
    row = pd.Series({"auroc": 0.8, "low": np.nan, "words": "x"})
    assert read_entry(row, "auroc", "low", "high") == {"value": 0.8, "ci_low": None, "ci_high": None}


def test_an_entry_survives_as_columns():
    entry = {"value": 0.8, "ci_low": None, "ci_high": 0.9}
    row = flatten_entry("auroc", entry, missing=np.nan)
    assert list(row) == ["auroc", "auroc_low", "auroc_high"]
    assert unflatten_entry(row, "auroc") == entry
