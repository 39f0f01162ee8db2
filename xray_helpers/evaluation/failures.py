"""Single images: the most confident errors of a model, and those that it is least certain of."""

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
    """Return the most confident errors and the least certain images, at most `count` of each, one per group.

    Parameters
    ----------
    predictions : DataFrame
        ``predictions_test.csv``.
    threshold : float
    count : int

    Returns
    -------
    errors, unsure : DataFrame
        The predictions with certainty (see `measure_certainty`): errors in falling, unsure in rising order.
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
    """Return how many images are classified wrongly, and how, in a sentence."""
    wrong = (predictions["y_true"] != predictions["y_pred"]).sum()
    if errors.empty:
        return f"None of {len(predictions)} test images is classified wrongly."
    missed = int((errors["y_true"] == 1).sum())
    return (
        f"{wrong} of {len(predictions)} test images are classified wrongly; of the {len(errors)} most "
        f"confident errors {missed} are missed fractures and {len(errors) - missed} false alarms."
    )
