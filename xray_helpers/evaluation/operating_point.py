"""The operating threshold of one model: on which predictions it is chosen, and what is recorded."""

from typing import Any

import pandas as pd

from xray_helpers.evaluation.thresholds import choose_threshold, evaluate_sensitivity, threshold_band
from xray_helpers.settings import Settings

# With fewer independent sources of a class, validation does not choose a threshold alone.
MIN_SOURCES = 30
VALIDATION = "validation"
OUT_OF_FOLD = "train and validation, out of fold"


def count_scarcer(predictions: pd.DataFrame) -> int:
    """Return the number of independent sources (patients, where known) of the less frequent class."""
    return min(predictions.loc[predictions["y_true"] == label, "group"].nunique() for label in (0, 1))


def choose_operating_point(
    validation: pd.DataFrame, out_of_fold: pd.DataFrame, settings: Settings
) -> tuple[dict[str, Any], pd.DataFrame]:
    """Choose the threshold on validation, or on out-of-fold predictions where these have more sources.

    Parameters
    ----------
    validation : DataFrame
        y_true, y_prob, group, path: the model's own predictions.
    out_of_fold : DataFrame
        Of `predict_out_of_fold`, for train and validation; empty for a fine-tuned model, as heads on frozen
        features have other probabilities.
    settings : Settings

    Returns
    -------
    chosen : dict
        The content of ``threshold.json``: threshold, rule, target_sensitivity, chosen_on (`VALIDATION` or
        `OUT_OF_FOLD`), sources and validation_sources (independent sources of the less frequent class there
        and in validation), uncertain (of `thresholds.threshold_band`), and for the rule ``sensitivity`` the
        sensitivity there (of `thresholds.evaluate_sensitivity`).
    predictions : DataFrame
        On which it was chosen: path, group, y_true, y_prob, y_pred.
    """
    rule, target = settings.threshold_rule, settings.target_sensitivity
    more = len(out_of_fold) and count_scarcer(out_of_fold) > count_scarcer(validation)
    basis = out_of_fold if more else validation
    basis = basis[["path", "group", "y_true", "y_prob"]].reset_index(drop=True)
    y_true, y_prob = basis["y_true"].to_numpy(), basis["y_prob"].to_numpy()
    threshold = choose_threshold(y_true, y_prob, rule, target, basis["group"])
    low, high = threshold_band(basis, rule, target)
    chosen = {
        "threshold": threshold,
        "rule": rule,
        "target_sensitivity": target,
        "chosen_on": OUT_OF_FOLD if more else VALIDATION,
        "sources": count_scarcer(basis),
        "validation_sources": count_scarcer(validation),
        "uncertain": [min(low, threshold), max(high, threshold)],  # it lies midway to the next lower score
    }
    if rule == "sensitivity":
        chosen["sensitivity"] = evaluate_sensitivity(basis, threshold)
    return chosen, basis.assign(y_pred=(y_prob >= threshold).astype(int))


def describe_choice(chosen: dict[str, Any]) -> str:
    """Return on what the threshold was chosen and how reliable that is, from ``threshold.json``."""
    if chosen["rule"] == "fixed":
        return "It is fixed: nothing was chosen."
    if "chosen_on" not in chosen:  # in studies from before this was recorded
        return "It was chosen on validation."
    few = (
        f"validation holds {chosen['validation_sources']} independent sources of its less frequent class, "
        f"fewer than {MIN_SOURCES}"
    )
    if chosen["chosen_on"] == OUT_OF_FOLD:
        sources = f"{chosen['sources']} independent sources of the less frequent class"
        return f"It was chosen on {OUT_OF_FOLD} ({sources}), because {few}."
    if chosen["validation_sources"] >= MIN_SOURCES:
        return "It was chosen on validation."
    return f"It was chosen on validation, and is uncertain: {few}, and there are no out-of-fold predictions."
