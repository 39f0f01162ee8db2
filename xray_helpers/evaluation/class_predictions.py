"""Predictions of three or more classes: their probabilities, and the binary question on top of them."""

import numpy as np
import pandas as pd

from xray_helpers.settings import Classes, InputError, current_classes
from xray_helpers.study.tables import CLASS_PREFIX


def positive_probability(probabilities: np.ndarray, classes: Classes | None = None) -> np.ndarray:
    """Return P(positive answer), shape (n,), from that itself or from the probabilities of classes (n, k).

    The classes are by default those of the current study.
    """
    probabilities = np.asarray(probabilities, np.float64)
    if probabilities.ndim == 1:
        return probabilities
    classes = classes or current_classes()
    return probabilities[:, classes.are_positive].sum(axis=1).clip(0, 1)


def is_positive(target: np.ndarray) -> np.ndarray:
    """Return what `parts.training_target` holds as 0 or 1: whether it is positive in the binary question."""
    classes = current_classes()
    if not classes.names:
        return np.asarray(target)
    return np.array(classes.are_positive, int)[np.asarray(target)]


def add_probabilities(table: pd.DataFrame, probabilities: np.ndarray) -> pd.DataFrame:
    """Return rows of a part with what a model says of them.

    Parameters
    ----------
    table : DataFrame
        path, group, y_true, and with three or more classes class_name.
    probabilities : ndarray, shape (n,) or (n, k)

    Returns
    -------
    DataFrame
        path, group, y_true, y_prob, and with three or more classes class_true, class_pred (the most probable)
        and p_<class>.
    """
    found = table[["path", "group", "y_true"]].assign(y_prob=positive_probability(probabilities))
    if np.ndim(probabilities) == 1:
        return found
    names = np.array(current_classes().names)
    found["class_true"] = table["class_name"].astype("string")
    found["class_pred"] = pd.array(names[np.argmax(probabilities, axis=1)], "string")
    columns = {f"{CLASS_PREFIX}{name}": column for name, column in zip(names, probabilities.T, strict=True)}
    return found.assign(**columns)


def class_probabilities(predictions: pd.DataFrame) -> np.ndarray:
    """Return the probabilities of the classes in predictions, in their order, shape (n, k)."""
    columns = [f"{CLASS_PREFIX}{name}" for name in current_classes().names]
    missing = [column for column in columns if column not in predictions]
    if missing or not columns:
        raise InputError(f"These predictions lack {', '.join(missing) or 'classes'}: run 01 and 02 again.")
    return predictions[columns].to_numpy(float)


def one_against_rest(predictions: pd.DataFrame, name: str) -> pd.DataFrame:
    """Return predictions of two classes: path, group, y_true (1: of this class), y_prob, y_pred."""
    return predictions[["path", "group"]].assign(
        y_true=(predictions["class_true"] == name).astype(int),
        y_prob=predictions[f"{CLASS_PREFIX}{name}"],
        y_pred=(predictions["class_pred"] == name).astype(int),
    )
