"""The results in a study's folder that its pages show: those that are not of an earlier run."""

from pathlib import Path
from typing import Any

import pandas as pd

from xray_helpers.evaluation.comparison import describe_comparison
from xray_helpers.settings import VALIDATION
from xray_helpers.study.files import read_csv


def read_table(path: Path) -> pd.DataFrame | None:
    """Return a table; None if the file does not exist."""
    return read_csv(path) if path.exists() else None


def list_stale(study: dict[str, Any]) -> set[str]:
    """Return the files that an earlier run may have left, as their steps in ``study.json`` are not done."""
    unfinished = [step for step in study.get("steps", []) if step["state"] != "done"]
    stale = {file for step in unfinished for file in step.get("writes", [])}
    cards = {
        file.replace("metrics.json", f"model_card.{ending}") for file in stale for ending in ("html", "md")
    }
    return stale | cards


def read_comparison(folder: Path, study: dict[str, Any]) -> pd.DataFrame | None:
    """Return ``comparison.csv``; None if there is none, or only that of an earlier run."""
    return None if "comparison.csv" in list_stale(study) else read_table(folder / "comparison.csv")


def primary_model(settings: dict[str, Any]) -> str:
    """Return the setting ``primary_model``, which older studies do not have."""
    return settings.get("primary_model", VALIDATION)


def describe_outcome(
    folder: Path, settings: dict[str, Any], comparison: pd.DataFrame, baseline: float
) -> str:
    """Return what a study found, by its primary endpoint; see `comparison.describe_comparison`."""
    pairs = read_table(folder / "pairs.csv")
    primary = settings.get("primary", "auroc")
    return describe_comparison(comparison, baseline, pairs, primary=primary, model=primary_model(settings))
