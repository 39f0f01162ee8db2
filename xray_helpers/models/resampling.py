"""Heads trained again on cached features, with other seeds and on folds: training time and spread."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd

from xray_helpers.data.parts import training_target
from xray_helpers.data.splits import assign_folds
from xray_helpers.evaluation.class_predictions import add_probabilities, is_positive, positive_probability
from xray_helpers.evaluation.operating_point import MIN_SOURCES, count_scarcer
from xray_helpers.evaluation.variability import plain_auroc
from xray_helpers.models.head import Views, copy_head, keep_random_state, predict_head, train_head
from xray_helpers.settings import Settings, current_classes
from xray_helpers.study.cache import RowView
from xray_helpers.study.seeds import derive_seed

if TYPE_CHECKING:
    import keras
MIN_VALIDATION = 50  # with fewer independent sources in validation, folds of train decide how long to train


def predict_out_of_fold(
    features: dict[str, Views],
    parts: dict[str, pd.DataFrame],
    settings: Settings,
    schedule: Sequence[float] | None = None,
    head: "keras.Model | None" = None,
) -> pd.DataFrame:
    """Predict train and validation by heads that saw neither an image nor its group, if validation is small.

    The test part is not used. The result is empty if it is not needed: with at least `MIN_SOURCES` of either
    class in validation, or a fixed threshold.

    Parameters
    ----------
    features : dict
        ``train`` and ``validation`` to their views.
    parts : dict
        The same names to their rows (`parts.used_part`).
    settings, schedule, head
        As for `cross_validate`.

    Returns
    -------
    DataFrame
        As of `cross_validate`.
    """
    names = ("train", "validation")
    table = pd.concat([parts[name] for name in names], ignore_index=True)
    if settings.threshold_rule == "fixed" or count_scarcer(parts["validation"]) >= MIN_SOURCES:
        return table.iloc[:0][["path", "group", "y_true"]].assign(y_prob=0.0, fold=0)
    return cross_validate(join_views(features, names), table, settings, schedule, head)


def choose_schedule(
    views: Views,
    train: pd.DataFrame,
    validation: pd.DataFrame,
    settings: Settings,
    head: "keras.Model | None" = None,
) -> np.ndarray | None:
    """Return the learning rate of each epoch to train, or None if validation can decide how long to train.

    Early stopping on a few sources stops by chance. With fewer than `MIN_VALIDATION` of them, one head per
    fold of train is trained on the other folds and stopped by this one. The number of epochs is the median of
    their best ones (the lower one if two are in the middle), the rate of each epoch the median over the heads
    that reached it. Neither validation nor test is used.

    Parameters
    ----------
    views : sequence of ndarray, shape (n, d)
        Features of the train part.
    train, validation : DataFrame
        Results of `parts.used_part`: group, y_true, fold, and for train counted.
    settings : Settings
    head : keras.Model, optional
        The compiled head whose copies are trained; the default is `head.build_head`. What is trained
        afterwards does not depend on this call: the random generators are left as they were.

    Returns
    -------
    ndarray of float, shape (epochs,), or None
        Also None if fewer than two folds of train hold both classes.
    """
    if validation["group"].nunique() >= MIN_VALIDATION:
        return None
    with keep_random_state():
        trained = _train_folds(views, train, settings, "own fold", head=head)
        histories = [history for _, _, history in trained]
    if len(histories) < 2:
        return None
    best = sorted(int(history.loc[history["best"], "epoch"].iloc[0]) for history in histories)
    epochs = best[(len(best) - 1) // 2]
    rates = pd.concat(histories).groupby("epoch")["learning_rate"].median()
    return rates.to_numpy()[:epochs]


def join_views(features: dict[str, Views], parts: Sequence[str]) -> list[np.ndarray]:
    """Concatenate the views of several parts; a part without some view gives its pictures as they are.

    Parameters
    ----------
    features : dict
        From each part to its views.
    parts : sequence of str
        Which parts, in this order.
    """
    count = max(len(features[part]) for part in parts)
    return [
        np.concatenate(
            [np.asarray(features[part][view if view < len(features[part]) else 0]) for part in parts]
        )
        for view in range(count)
    ]


def describe_schedule(schedule: Sequence[float] | None, validation: pd.DataFrame) -> str:
    """Return a sentence that says what decided how long the head was trained.

    Parameters
    ----------
    schedule : sequence of float or None
        Result of `choose_schedule`.
    validation : DataFrame
        Column group.
    """
    sources = validation["group"].nunique()
    few = f"validation holds {sources} independent sources, fewer than {MIN_VALIDATION}"
    if schedule is not None:
        return (
            f"The number of epochs, {len(schedule)}, is the median of the best ones over folds of train, "
            f"because {few}."
        )
    if sources < MIN_VALIDATION:
        unsure = f"which is uncertain: {few}, and train has no two folds"
        return f"The epoch kept is the best on validation, {unsure}."
    return "The epoch kept is the best on validation."


def repeat_seeds(
    train: tuple[Views, np.ndarray],
    parts: dict[str, tuple[np.ndarray, np.ndarray]],
    settings: Settings,
    schedule: Sequence[float] | None = None,
    head: "keras.Model | None" = None,
) -> pd.DataFrame:
    """Train the head again with other seeds on the same images.

    Parameters
    ----------
    train : (views, y_true)
    parts : dict
        ``validation`` and ``test`` to (features (n, d), y_true).
    settings : Settings
        ``repeats`` is the number of times.
    schedule : sequence of float, optional
        As for `head.train_head`.
    head : keras.Model, optional
        The head whose layers to train again, by default `head.build_head`; it is not changed.

    Returns
    -------
    DataFrame
        seed, and for each part auroc_<part>; one row per repeat.
    """
    rows, head = [], copy_head(head) if head is not None else None
    for repeat in range(settings.repeats):
        other = settings.model_copy(update={"seed": derive_seed(settings.seed, "repeat", repeat)})
        head, _ = train_head(train, parts["validation"], other, head, schedule=schedule)
        predicted = {name: positive_probability(predict_head(head, x)) for name, (x, _) in parts.items()}
        scores = {
            f"auroc_{name}": plain_auroc(is_positive(y), predicted[name]) for name, (_, y) in parts.items()
        }
        rows.append({"seed": other.seed} | scores)
    return pd.DataFrame(rows)


def cross_validate(
    views: Views,
    table: pd.DataFrame,
    settings: Settings,
    schedule: Sequence[float] | None = None,
    head: "keras.Model | None" = None,
) -> pd.DataFrame:
    """Predict each image of a table by a head that saw neither it nor its group.

    Each fold is tested once. With a schedule all others train; without, the next fold is validation, so that
    at least three folds are needed. A fold is skipped if a class is missing without it.

    Parameters
    ----------
    views : sequence of ndarray, shape (n, d)
        Features of the table's images; the first as they are.
    table : DataFrame
        path, group, y_true, fold, counted (copies of a source are trained on, but not evaluated).
    settings : Settings
    schedule, head
        As for `repeat_seeds`.

    Returns
    -------
    DataFrame
        As of `classes.add_probabilities`, with fold.
    """
    stopped_by = "next fold" if schedule is None else "schedule"
    y_prob = np.full(
        (len(table), len(current_classes().names)) if "class_name" in table else len(table), np.nan
    )
    for tested, trained, _ in _train_folds(views, table, settings, stopped_by, schedule, head):
        y_prob[tested] = predict_head(trained, RowView(views[0], np.flatnonzero(tested)))
    predicted = add_probabilities(table, y_prob).assign(fold=table["fold"].to_numpy(int))
    return predicted.dropna(subset=["y_prob"])


def repeat_folds(
    views: Views,
    table: pd.DataFrame,
    settings: Settings,
    schedule: Sequence[float] | None = None,
    head: "keras.Model | None" = None,
) -> list[float]:
    """Cross-validate again with other seeds and other folds: the spread due to training and folds alone.

    Parameters
    ----------
    views, table, settings, schedule, head
        As for `cross_validate`; the table also has status, label and source_group.

    Returns
    -------
    list of float
        AUROC of all images together, out of fold; one per repeat, NaN if the table is empty.
    """
    scores = []
    for repeat in range(settings.repeats):
        if table.empty:
            scores.append(np.nan)
            continue
        seed = derive_seed(settings.seed, "folds again", repeat)
        other = table.assign(fold=assign_folds(table, settings.folds, seed))
        predicted = cross_validate(views, other, settings.model_copy(update={"seed": seed}), schedule, head)
        scores.append(plain_auroc(predicted["y_true"], predicted["y_prob"]))
    return scores


def _train_folds(
    views: Views,
    table: pd.DataFrame,
    settings: Settings,
    stopped_by: Literal["own fold", "next fold", "schedule"],
    schedule: Sequence[float] | None = None,
    head: "keras.Model | None" = None,
) -> Iterator[tuple[np.ndarray, "keras.Model", pd.DataFrame]]:
    """Yield for each fold which images it tests, the head trained on the others, and the history.

    The head is the same object each time, trained again: use it before the next fold.
    """
    y, learnt = table["y_true"].to_numpy(), training_target(table)
    fold = table["fold"].to_numpy(int)
    counted = table["counted"].astype(bool).to_numpy() if "counted" in table else np.ones(len(table), bool)
    folds, head = np.unique(fold), copy_head(head) if head is not None else None
    for own, following in zip(folds, np.roll(folds, -1), strict=True):
        tested, trained = counted & (fold == own), fold != own
        watched = {"own fold": tested, "next fold": counted & (fold == following), "schedule": None}[
            stopped_by
        ]
        if stopped_by == "next fold":
            trained = trained & (fold != following)
        if len(set(y[trained])) < 2 or (watched is not None and len(set(y[watched])) < 2):
            continue
        validation = None
        if watched is not None:
            validation = (RowView(views[0], np.flatnonzero(watched)), learnt[watched])
        # views of rows, not copies: TensorFlow does not free the arrays it was given
        train = ([RowView(view, np.flatnonzero(trained)) for view in views], learnt[trained])
        head, history = train_head(train, validation, settings, head, schedule=schedule)
        yield tested, head, history
