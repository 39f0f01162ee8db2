"""Whether a model is better than a simple baseline on the same test images."""

from typing import Any

import numpy as np
import pandas as pd

from xray_helpers.evaluation.metrics import evaluate
from xray_helpers.evaluation.operating_point import VALIDATION
from xray_helpers.evaluation.paired import ALPHA, MARGIN, compare_pairs
from xray_helpers.evaluation.thresholds import choose_threshold, evaluate_sensitivity

BASELINE = "Logistic regression (32 x 32 pixels)"


def evaluate_baseline(
    predictions: dict[str, pd.DataFrame], chosen: dict[str, Any], *, leak: float = 0.0
) -> dict[str, Any]:
    """Evaluate the predictions of a simple baseline as those of a model.

    Parameters
    ----------
    predictions : dict
        ``validation`` and ``test``, of `baseline.predict_baseline`.
    chosen : dict
        A model's ``threshold.json``, whose rule is applied to validation.
    leak : float
        As for `metrics.evaluate`.

    Returns
    -------
    dict
        As ``metrics.json``.
    """
    validation = predictions["validation"]
    y_true, y_prob = (validation[name].to_numpy() for name in ("y_true", "y_prob"))
    rule = (chosen["rule"], chosen["target_sensitivity"])
    threshold = choose_threshold(y_true, y_prob, *rule, validation["group"])
    own = chosen | {"threshold": threshold, "chosen_on": VALIDATION}
    if chosen["rule"] == "sensitivity":
        own["sensitivity"] = evaluate_sensitivity(validation, threshold)
    return evaluate(predictions["test"], validation, own, leak=leak)


def describe_baseline(model: str, alone: pd.DataFrame, baseline: pd.DataFrame) -> str:
    """Return whether a model is better than the baseline on the same test images: yes, no, or not known.

    Parameters
    ----------
    model : str
    alone, baseline : DataFrame
        Predictions of the test part by the model and by the baseline: path, group, y_true, y_prob, y_pred.
    """
    pairs = compare_pairs({model: alone, BASELINE: baseline})
    name = "logistic regression on 32 x 32 pixels"
    if pairs.empty or not np.isfinite(pairs["p"].iloc[0]):
        return f"Whether {model} is better than {name} was not tested: there are too few groups."
    row = pairs.iloc[0]
    difference = f"AUROC {row['difference']:+.2f} ({row['ci_low']:+.2f} to {row['ci_high']:+.2f})"
    if row["p"] < ALPHA:
        better = "better" if row["difference"] > 0 else "worse"
        return f"{model} is {better} than {name}: {difference}."
    if row["ci_high"] < MARGIN:
        return f"{model} is not better than {name} by {MARGIN:g} or more: {difference}."
    return f"Whether {model} is better than {name} is not known: {difference}."
