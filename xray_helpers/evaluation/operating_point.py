"""The operating threshold of one model: on which predictions it is chosen, and what is written down of it."""

from typing import Any

import pandas as pd

from xray_helpers.evaluation.thresholds import choose_threshold, evaluate_sensitivity, threshold_band
from xray_helpers.settings import Settings

MIN_SOURCES = (
    30  # independent sources of a class in validation below which it does not choose a threshold alone
)
VALIDATION = "validation"
OUT_OF_FOLD = "train and validation, out of fold"


def count_scarcer(predictions: pd.DataFrame) -> int:
    """Return how many independent sources (groups: patients where they are known) the scarcer class has.

    Parameters
    ----------
    predictions : DataFrame
        y_true, group.
    """
    return min(predictions.loc[predictions["y_true"] == label, "group"].nunique() for label in (0, 1))


def choose_operating_point(
    validation: pd.DataFrame, out_of_fold: pd.DataFrame, settings: Settings
) -> tuple[dict[str, Any], pd.DataFrame]:
    """Choose the threshold on validation, or where that is small on predictions out of fold of train and
    validation.

    Parameters
    ----------
    validation : DataFrame
        y_true, y_prob, group, path: the model's own predictions.
    out_of_fold : DataFrame
        Of `predict_out_of_fold`; an empty one, as for a fine-tuned model (heads on frozen features say
        nothing of its probabilities), leaves validation.
    settings : Settings

    Returns
    -------
    chosen : dict
        The content of ``threshold.json``: threshold, rule, target_sensitivity, chosen_on (`VALIDATION` or
        `OUT_OF_FOLD`), sources and validation_sources (independent sources of the scarcer class there, and in
        validation), uncertain (of `thresholds.threshold_band`), and for the rule ``sensitivity`` what is
        reached there (of `thresholds.evaluate_sensitivity`).
    predictions : DataFrame
        On which it was chosen: path, group, y_true, y_prob, y_pred.
    """
    rule, target = settings.threshold_rule, settings.target_sensitivity
    more = len(out_of_fold) and count_scarcer(out_of_fold) > count_scarcer(validation)
    basis = (out_of_fold if more else validation)[["path", "group", "y_true", "y_prob"]].reset_index(
        drop=True
    )
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
    """Return in a sentence on what the threshold was chosen, and how much that is worth; of
    ``threshold.json``.
    """
    if chosen["rule"] == "fixed":
        return "It is fixed: nothing was chosen."
    if "chosen_on" not in chosen:  # of a study made before this was noted
        return "It was chosen on validation."
    few = (
        f"validation holds {chosen['validation_sources']} independent sources of its scarcer class, "
        f"fewer than {MIN_SOURCES}"
    )
    if chosen["chosen_on"] == OUT_OF_FOLD:
        return (
            f"It was chosen on {OUT_OF_FOLD} ({chosen['sources']} independent sources of the scarcer "
            f"class), because {few}."
        )
    if chosen["validation_sources"] < MIN_SOURCES:
        return (
            f"It was chosen on validation, and is uncertain: {few}, and the model was not predicted out "
            "of fold."
        )
    return "It was chosen on validation."
