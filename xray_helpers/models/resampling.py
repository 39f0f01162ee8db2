"""Heads trained again on cached features, with other seeds and on folds: how long to train, and how much is
luck.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from xray_helpers.data.splits import assign_folds
from xray_helpers.evaluation.operating_point import MIN_SOURCES, count_scarcer
from xray_helpers.evaluation.variability import plain_auroc
from xray_helpers.models.head import Views, predict_head, train_head
from xray_helpers.settings import Settings
from xray_helpers.study.cache import RowView
from xray_helpers.study.seeds import derive_seed

if TYPE_CHECKING:
    import keras


def predict_out_of_fold(
    features: dict[str, Views],
    parts: dict[str, pd.DataFrame],
    settings: Settings,
    schedule: Sequence[float] | None = None,
) -> pd.DataFrame:
    """Predict train and validation by heads that saw neither an image nor its group, where validation is
    small.

    Nothing of the test part is used. The table is empty where it is not needed: with `MIN_SOURCES` of either
    class in validation, or a fixed threshold.

    Parameters
    ----------
    features : dict
        ``train`` and ``validation`` to their views, each of shape (n, d).
    parts : dict
        The same names to their rows, of `parts.used_part`.
    settings : Settings
    schedule : sequence of float, optional
        Of `resampling.choose_schedule`: how the model itself was trained.

    Returns
    -------
    DataFrame
        Of `resampling.cross_validate`.
    """
    own = ("train", "validation")
    table = pd.concat([parts[part] for part in own], ignore_index=True)
    if settings.threshold_rule == "fixed" or count_scarcer(parts["validation"]) >= MIN_SOURCES:
        table = table.iloc[:0]
        return table[["path", "group", "y_true"]].assign(y_prob=0.0, fold=0)
    return cross_validate(join_views(features, own), table, settings, schedule)


MIN_VALIDATION = 50  # independent sources of validation below which folds of train say how long to train


def choose_schedule(
    views: Views, train: pd.DataFrame, validation: pd.DataFrame, settings: Settings
) -> np.ndarray | None:
    """Return the learning rate of each epoch that the head is to be trained for; None where validation can
    decide it.

    Early stopping on a few sources stops by chance. With fewer than `MIN_VALIDATION` of them, a head is
    trained on all folds of train but one and stopped by that one, for each fold in turn; the number of epochs
    is the median of the best ones (the lower middle of an even number), the rate of each epoch the median of
    those folds that reached it. Neither validation nor test is looked at.

    Parameters
    ----------
    views : sequence of ndarray, shape (n, d)
        Features of the train part; the first as they are.
    train, validation : DataFrame
        Of `parts.used_part`: group, y_true, fold, and in train counted.
    settings : Settings

    Returns
    -------
    ndarray of float, shape (epochs,), or None
        Also None where fewer than two folds of train hold both classes.
    """
    if validation["group"].nunique() >= MIN_VALIDATION:
        return None
    histories = [history for _, _, history in _train_folds(views, train, settings, stopped_by="own fold")]
    if len(histories) < 2:
        return None
    best = sorted(int(history.loc[history["best"], "epoch"].iloc[0]) for history in histories)
    epochs = best[(len(best) - 1) // 2]
    rates = pd.concat(histories).groupby("epoch")["learning_rate"].median()
    return rates.to_numpy()[:epochs]


def join_views(features: dict[str, Views], parts: Sequence[str]) -> list[np.ndarray]:
    """Return the views of several parts in one array each; a part with fewer views gives its pictures as they
    are instead.

    Parameters
    ----------
    features : dict
        Of each part its views, each of shape (n, d); the first as they are.
    parts : sequence of str
        Which, in what order.
    """
    count = max(len(features[part]) for part in parts)
    views = [
        [features[part][view if view < len(features[part]) else 0] for part in parts] for view in range(count)
    ]
    return [np.concatenate([np.asarray(part[:]) for part in view]) for view in views]


def describe_schedule(schedule: Sequence[float] | None, validation: pd.DataFrame) -> str:
    """Return in a sentence what decided how long the head was trained.

    Parameters
    ----------
    schedule : sequence of float or None
        Of `choose_schedule`.
    validation : DataFrame
        group.
    """
    sources = validation["group"].nunique()
    few = f"validation holds {sources} independent sources, fewer than {MIN_VALIDATION}"
    if schedule is not None:
        return (
            f"The number of epochs, {len(schedule)}, is the median of the best ones over folds of "
            f"train, because {few}."
        )
    if sources < MIN_VALIDATION:
        return (
            f"The epoch kept is the best on validation, which is uncertain: {few}, and train has no two "
            "folds."
        )
    return "The epoch kept is the best on validation."


def repeat_seeds(
    train: tuple[Views, np.ndarray],
    parts: dict[str, tuple],
    settings: Settings,
    schedule: Sequence[float] | None = None,
) -> pd.DataFrame:
    """Train the head again with other seeds on the same images.

    Parameters
    ----------
    train : (features, y_true)
        As for `head.train_head`.
    parts : dict
        ``validation`` and ``test`` to (features (n, d), y_true).
    settings : Settings
        `repeats` says how often.
    schedule : sequence of float, optional
        As for `head.train_head`.

    Returns
    -------
    DataFrame
        seed, and for each part auroc_<part>; a row a repeat.
    """
    rows, head = [], None
    for repeat in range(settings.repeats):
        other = settings.model_copy(update={"seed": derive_seed(settings.seed, "repeat", repeat)})
        head, _ = train_head(train, parts["validation"], other, head, schedule=schedule)
        scores = {f"auroc_{name}": plain_auroc(y, predict_head(head, x)) for name, (x, y) in parts.items()}
        rows.append({"seed": other.seed} | scores)
    return pd.DataFrame(rows)


def cross_validate(
    views: Views, table: pd.DataFrame, settings: Settings, schedule: Sequence[float] | None = None
) -> pd.DataFrame:
    """Predict every image of a table by a head that saw neither it nor its group; what is not in the table
    takes no part.

    Each fold is tested once. With a schedule the rest trains; without, the next fold is its validation, which
    takes three folds at least. A fold without which a class is missing is passed over.

    Parameters
    ----------
    views : sequence of ndarray, shape (n, d)
        Features of the table's images; the first as they are.
    table : DataFrame
        path, group, y_true, fold, counted (copies of a source are trained on, never judged).
    settings : Settings
    schedule : sequence of float, optional
        As for `head.train_head`.

    Returns
    -------
    DataFrame
        path, group, y_true, y_prob, fold.
    """
    stopped_by = "next fold" if schedule is None else "schedule"
    y_prob = np.full(len(table), np.nan)
    for judged, head, _ in _train_folds(views, table, settings, stopped_by, schedule):
        y_prob[judged] = predict_head(head, RowView(views[0], np.flatnonzero(judged)))
    predicted = table[["path", "group", "y_true"]].assign(y_prob=y_prob, fold=table["fold"].to_numpy(int))
    return predicted.dropna(subset=["y_prob"])


def repeat_folds(
    views: Views, table: pd.DataFrame, settings: Settings, schedule: Sequence[float] | None = None
) -> list[float]:
    """Cross-validate again, with other seeds and folds dealt anew: what training and folds alone move.

    Parameters
    ----------
    views, table, settings, schedule
        As for `cross_validate`; the table also with status, label and source_group.

    Returns
    -------
    list of float
        AUROC of all images together, out of fold; one per repeat, missing where the table has no row.
    """
    found = []
    for repeat in range(settings.repeats):
        if not len(table):
            found.append(np.nan)
            continue
        seed = derive_seed(settings.seed, "folds again", repeat)
        dealt = table.assign(fold=assign_folds(table, settings.folds, seed))
        predicted = cross_validate(views, dealt, settings.model_copy(update={"seed": seed}), schedule)
        found.append(plain_auroc(predicted["y_true"], predicted["y_prob"]))
    return found


def _train_folds(
    views: Views,
    table: pd.DataFrame,
    settings: Settings,
    stopped_by: str,
    schedule: Sequence[float] | None = None,
) -> Iterator[tuple[np.ndarray, "keras.Model", pd.DataFrame]]:
    """For each fold yield which images it judges, the head that the others trained, and the history of its
    training.

    The head is the same object each time, trained anew: it is to be used before the next fold.
    """
    y, fold = table["y_true"].to_numpy(), table["fold"].to_numpy(int)
    counted = table["counted"].astype(bool).to_numpy() if "counted" in table else np.ones(len(table), bool)
    folds, head = np.unique(fold), None
    for test, following in zip(folds, np.roll(folds, -1), strict=True):
        judged, rest = counted & (fold == test), fold != test
        aside = {"own fold": judged, "next fold": counted & (fold == following), "schedule": None}[stopped_by]
        if stopped_by == "next fold":
            rest = rest & (fold != following)
        if len(set(y[rest])) < 2 or (aside is not None and len(set(y[aside])) < 2):
            continue
        watched = None if aside is None else (RowView(views[0], np.flatnonzero(aside)), y[aside])
        kept = [
            RowView(view, np.flatnonzero(rest)) for view in views
        ]  # no copies: TensorFlow holds what it was once given
        head, history = train_head((kept, y[rest]), watched, settings, head, schedule=schedule)
        yield judged, head, history
