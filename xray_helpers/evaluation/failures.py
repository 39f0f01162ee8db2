"""Single images: those that a model gets wrong with confidence, and those it is least sure of."""

import numpy as np
import pandas as pd


def measure_certainty(p: pd.Series, threshold: float) -> np.ndarray:
    """Return how far probabilities are from the threshold, as a share of the way to 0 or 1."""
    room = np.where(p >= threshold, 1 - threshold, threshold)
    certainty = np.where(room > 0, np.abs(p - threshold) / np.where(room > 0, room, 1), 0.0)
    return np.round(np.minimum(certainty, 1.0), 9)


def find_failures(
    predictions: pd.DataFrame, threshold: float, count: int = 8
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the most confident errors, and the least certain images: of each at most `count`, one a group.

    Parameters
    ----------
    predictions : DataFrame
        ``predictions_test.csv``.
    threshold : float
        Of certainty: see `measure_certainty`.
    count : int

    Returns
    -------
    errors, unsure : DataFrame
        The predictions with certainty (0 to 1); errors by falling, unsure by rising certainty.
    """
    table = predictions.assign(certainty=measure_certainty(predictions["y_prob"], threshold))
    wrong = table[table["y_true"] != table["y_pred"]]
    ordered = (
        wrong.sort_values(["certainty", "path"], ascending=[False, True]),
        table.sort_values(["certainty", "path"]),
    )
    errors, unsure = (part.drop_duplicates("group").head(count).reset_index(drop=True) for part in ordered)
    return errors, unsure


def describe_failures(errors: pd.DataFrame, predictions: pd.DataFrame) -> str:
    """Return what goes wrong most confidently, in a sentence."""
    wrong = (predictions["y_true"] != predictions["y_pred"]).sum()
    if errors.empty:
        return f"None of {len(predictions)} test images is called wrongly."
    missed = int((errors["y_true"] == 1).sum())
    return (
        f"{wrong} of {len(predictions)} test images are called wrongly; of the {len(errors)} most "
        "confident errors "
        f"{missed} are missed fractures and {len(errors) - missed} false alarms."
    )
