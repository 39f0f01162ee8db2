"""Heads trained again on cached features, with other seeds and on folds: how long to train, and how much is luck."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score

from xray_helpers.cache import Rows
from xray_helpers.intervals import describe
from xray_helpers.metrics import compute_metrics
from xray_helpers.settings import Settings
from xray_helpers.splits import assign_folds
from xray_helpers.studies import derive_seed
from xray_helpers.training import Views, predict_head, train_head

if TYPE_CHECKING:
    import keras

MIN_VALIDATION = 50  # independent sources of validation below which folds of train say how long to train
AGAIN = "other seeds and other folds, all images out of fold"
FROZEN = "heads on frozen features"
ALL_IMAGES = "all images, each out of fold, 95 % interval of groups"


def choose_schedule(
    views: Views, train: pd.DataFrame, validation: pd.DataFrame, settings: Settings
) -> np.ndarray | None:
    """Return the learning rate of each epoch that the head is to be trained for; None where validation can decide it.

    Early stopping on a few sources stops by chance. With fewer than `MIN_VALIDATION` of them, a head is trained on all
    folds of train but one and stopped by that one, for each fold in turn; the number of epochs is the median of the best
    ones (the lower middle of an even number), the rate of each epoch the median of those folds that reached it. Neither
    validation nor test is looked at.

    Parameters
    ----------
    views : sequence of ndarray, shape (n, d)
        Features of the train part; the first as they are.
    train, validation : DataFrame
        Of `splits.used_part`: group, y_true, fold, and in train counted.
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
    """Return the views of several parts in one array each; a part with fewer views gives its pictures as they are instead.

    Parameters
    ----------
    features : dict
        Of each part its views, each of shape (n, d); the first as they are.
    parts : sequence of str
        Which, in what order.
    """
    count = max(len(features[part]) for part in parts)
    views = [[features[part][view if view < len(features[part]) else 0] for part in parts] for view in range(count)]
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
            f"The number of epochs, {len(schedule)}, is the median of the best ones over folds of train, because {few}."
        )
    if sources < MIN_VALIDATION:
        return f"The epoch kept is the best on validation, which is uncertain: {few}, and train has no two folds."
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
        As for `training.train_head`.
    parts : dict
        ``validation`` and ``test`` to (features (n, d), y_true).
    settings : Settings
        `repeats` says how often.
    schedule : sequence of float, optional
        As for `training.train_head`.

    Returns
    -------
    DataFrame
        seed, and for each part auroc_<part>; a row a repeat.
    """
    rows, head = [], None
    for repeat in range(settings.repeats):
        other = settings.model_copy(update={"seed": derive_seed(settings.seed, "repeat", repeat)})
        head, _ = train_head(train, parts["validation"], other, head, schedule=schedule)
        scores = {f"auroc_{name}": _auroc(y, predict_head(head, x)) for name, (x, y) in parts.items()}
        rows.append({"seed": other.seed} | scores)
    return pd.DataFrame(rows)


def cross_validate(
    views: Views, table: pd.DataFrame, settings: Settings, schedule: Sequence[float] | None = None
) -> pd.DataFrame:
    """Predict every image of a table by a head that saw neither it nor its group; what is not in the table takes no part.

    Each fold is tested once. With a schedule the rest trains; without, the next fold is its validation, which takes three
    folds at least. A fold without which a class is missing is passed over.

    Parameters
    ----------
    views : sequence of ndarray, shape (n, d)
        Features of the table's images; the first as they are.
    table : DataFrame
        path, group, y_true, fold, counted (copies of a source are trained on, never judged).
    settings : Settings
    schedule : sequence of float, optional
        As for `training.train_head`.

    Returns
    -------
    DataFrame
        path, group, y_true, y_prob, fold.
    """
    stopped_by = "next fold" if schedule is None else "schedule"
    y_prob = np.full(len(table), np.nan)
    for judged, head, _ in _train_folds(views, table, settings, stopped_by, schedule):
        y_prob[judged] = predict_head(head, Rows(views[0], np.flatnonzero(judged)))
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
        found.append(_auroc(predicted["y_true"], predicted["y_prob"]))
    return found


def _train_folds(
    views: Views, table: pd.DataFrame, settings: Settings, stopped_by: str, schedule: Sequence[float] | None = None
) -> Iterator[tuple[np.ndarray, "keras.Model", pd.DataFrame]]:
    """For each fold yield which images it judges, the head that the others trained, and the history of its training.

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
        watched = None if aside is None else (Rows(views[0], np.flatnonzero(aside)), y[aside])
        kept = [
            Rows(view, np.flatnonzero(rest)) for view in views
        ]  # no copies: TensorFlow holds what it was once given
        head, history = train_head((kept, y[rest]), watched, settings, head, schedule=schedule)
        yield judged, head, history


def summarise(
    repeats: pd.DataFrame, out_of_fold: pd.DataFrame, auroc: dict[str, Any], *, tuned: bool = False
) -> pd.DataFrame:
    """Return how far the score moves with the seed, with the split, and by the sample.

    Parameters
    ----------
    repeats : DataFrame
        Of `repeat_seeds`.
    out_of_fold : DataFrame
        Of `cross_validate`.
    auroc : dict
        Of ``metrics.json``: what is known by one split and its interval.
    tuned : bool
        Whether the model was fine-tuned: what is repeated are heads on the frozen features then, not this model.

    Returns
    -------
    DataFrame
        source, auroc, low, high, sd (over runs; missing for one), runs, of (``this model`` or ``heads on frozen features``).
    """
    rows = [{"source": "this split, 95 % interval of groups", "auroc": auroc["value"], "low": auroc["ci_low"],
             "high": auroc["ci_high"], "runs": 1}]  # fmt: skip
    if len(repeats):
        rows.append(_spread("other seeds, same split", repeats["auroc_test"]))
        if repeats.get("auroc_out_of_fold", pd.Series(dtype=float)).notna().any():
            rows.append(_spread(AGAIN, repeats["auroc_out_of_fold"]))
    if len(out_of_fold):
        folds = [_auroc(part["y_true"], part["y_prob"]) for _, part in out_of_fold.groupby("fold")]
        rows.append(_spread("other folds of all images", pd.Series(folds, dtype=float)))
        together = score_out_of_fold(out_of_fold)
        rows.append({"source": ALL_IMAGES, "auroc": together["value"], "low": together["ci_low"],
                     "high": together["ci_high"], "runs": 1})  # fmt: skip
    table = pd.DataFrame(rows).reindex(columns=["source", "auroc", "low", "high", "sd", "runs"])
    table = table.astype({name: float for name in ("auroc", "low", "high", "sd")})
    return table.assign(of=["this model", *[FROZEN if tuned else "this model"] * (len(table) - 1)])


def score_out_of_fold(out_of_fold: pd.DataFrame) -> dict[str, Any]:
    """Return the AUROC of all images together, as `metrics.compute_metrics` does; of `cross_validate`'s table.

    The probabilities come from as many heads as there are folds, whose scales may differ a little.
    """
    y, p, group = (out_of_fold[name] for name in ("y_true", "y_prob", "group"))
    return compute_metrics(y, p, 0.5, group)["auroc"]


def _spread(source: str, values: pd.Series) -> dict[str, Any]:
    values = values.dropna()
    spread = {"source": source, "auroc": values.mean(), "low": values.min(), "high": values.max()}
    return spread | {"sd": values.std(ddof=1), "runs": len(values)}


def _auroc(y_true: Sequence[int], y_prob: Sequence[float]) -> float:
    return float(roc_auc_score(y_true, y_prob)) if len(set(np.asarray(y_true).tolist())) == 2 else np.nan


def describe_spread(table: pd.DataFrame) -> str:
    """Return what the spread means in two sentences."""
    by = table.set_index("source")
    text = ""
    if "other seeds, same split" in by.index:
        row = by.loc["other seeds, same split"]
        text += f"With {_counted(row['runs'], 'other seed')} AUROC on test {_lies(row)}. "
    if "other folds of all images" in by.index:
        row = by.loc["other folds of all images"]
        text += (
            f"Over {_counted(row['runs'], 'fold')} of all images, each judged by a head that never saw its group, it "
            f"{_lies(row)}, {row['auroc']:.2f} on average. "
        )
    if AGAIN in by.index:
        row = by.loc[AGAIN]
        moved = (
            "" if pd.isna(row["sd"]) else f", standard deviation {row['sd']:.3f}: what training and folds alone move"
        )
        again = f"Cross-validated again with {_counted(row['runs'], 'other seed')} and folds"
        text += f"{again}, all images together: it {_lies(row)}{moved}. "
    text += describe_all_images(table)
    if text and "of" in table and (table["of"] == FROZEN).any():
        text += f" These repeats are of {FROZEN}, not of the fine-tuned model itself."
    return text.strip() or "Nothing was repeated: the spread is not known."


def _counted(runs: float, word: str) -> str:
    return f"one {word}" if runs == 1 else f"{runs:.0f} {word}s"


def _lies(row: pd.Series) -> str:
    low, high = f"{row['low']:.2f}", f"{row['high']:.2f}"
    return f"is {low}" if low == high else f"lies between {low} and {high}"


def describe_all_images(table: pd.DataFrame) -> str:
    """Return the AUROC of all images, each judged out of fold, with its interval; an empty text where it is not known."""
    rows = table[(table["source"] == ALL_IMAGES) & table["low"].notna()]
    told = []
    for row in rows.to_dict("records"):
        whose = f" (of {FROZEN})" if row.get("of") == FROZEN else ""
        entry = {"value": row["auroc"], "ci_low": row["low"], "ci_high": row["high"]}
        told.append(f"AUROC of all images together, out of fold{whose}: {describe(entry)}.")
    return "".join(told)
