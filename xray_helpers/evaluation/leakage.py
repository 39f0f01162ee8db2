"""What a leak is worth: one classifier on the same features, judged under honest and leaky splits."""

from collections.abc import Iterator

import numpy as np
import pandas as pd
from scipy import stats
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, roc_auc_score
from sklearn.model_selection import KFold, StratifiedGroupKFold, StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from xray_helpers.evaluation.intervals import describe_p
from xray_helpers.study.seeds import derive_seed

ALPHA = 0.05
MOST = 4000  # images; more change nothing but the time
_MOST_PERMUTED = 2000  # images of the permutation test
_PERMUTATIONS = 99
_RIDGE = 100.0  # of features in standard deviations: about what logistic regression has with C = 0.01


def measure_leakage(
    features: np.ndarray, table: pd.DataFrame, *, seed: int, repeats: int = 1
) -> pd.DataFrame:
    """Score logistic regression on frozen features by split, with true labels and with shuffled ones.

    The control: labels permuted between groups carry no medicine. A split that still scores well with them
    recognises the source of an image, nothing else.

    Parameters
    ----------
    features : ndarray, shape (n, d)
        Of the images as they are.
    table : DataFrame
        y_true, group, folder_split; a row an image.
    seed : int
    repeats : int
        Shufflings of the folds.

    Returns
    -------
    DataFrame, empty where there are no images
        split (``the set's own folders`` where it has them, ``random files``, ``kept apart by group``), labels
        (``true`` or ``shuffled``), auroc and accuracy (means over folds), auroc_sd, accuracy_sd (standard
        deviation over folds; missing for a single split), folds, n, p (of random files with shuffled labels:
        that the source of an image is not recognised, see `source_p`; missing elsewhere).
    """
    if not len(table):
        return pd.DataFrame(
            columns=["split", "labels", "auroc", "auroc_sd", "accuracy", "accuracy_sd", "folds", "n", "p"]
        )
    rng = np.random.default_rng([seed, 5])
    if len(table) > MOST:
        keep = np.sort(rng.permutation(len(table))[:MOST])
        features, table = features[keep], table.iloc[keep].reset_index(drop=True)
    x = np.asarray(features, dtype=np.float32)
    labels = {"true": table["y_true"].to_numpy(), "shuffled": _shuffle_labels(table, rng)}
    rows = []
    for words, y in labels.items():
        for split in ("the set's own folders", "random files", "kept apart by group"):
            scores = [_score(x, y, train, test) for train, test in _parts(split, table, y, seed, repeats)]
            scores = np.array([score for score in scores if score is not None])
            if len(scores):
                spread = scores.std(axis=0, ddof=1) if len(scores) > 1 else (np.nan, np.nan)
                rows.append(
                    {
                        "split": split,
                        "labels": words,
                        "auroc": scores[:, 0].mean(),
                        "auroc_sd": spread[0],
                        "accuracy": scores[:, 1].mean(),
                        "accuracy_sd": spread[1],
                        "folds": len(scores),
                        "n": len(table),
                        "p": source_p(x, table, seed)
                        if (split, words) == ("random files", "shuffled")
                        else np.nan,
                    }
                )
    return pd.DataFrame(rows)


def source_p(features: np.ndarray, table: pd.DataFrame, seed: int) -> float:
    """Return p that the source of an image is not recognised, by permutation.

    Labels shuffled between groups are predicted for files drawn at random, and as often labels shuffled
    between single images: if features say nothing of the source, both do equally well. The predictor is ridge
    regression, whose solution serves all labels at once.

    Parameters
    ----------
    features : ndarray, shape (n, d)
    table : DataFrame
        y_true, group; a row an image.
    seed : int
    """
    rng = np.random.default_rng([seed, 6])
    order = table["group"].map(
        dict(zip(table["group"].unique(), rng.permutation(table["group"].nunique()), strict=True))
    )
    keep = np.sort(np.argsort(order.to_numpy(), kind="stable")[:_MOST_PERMUTED])  # whole groups
    x, table = np.asarray(features[keep], np.float64), table.iloc[keep].reset_index(drop=True)
    if len(table) < 20:
        return np.nan
    by_group = _shuffle_labels(table, rng)
    columns = [by_group]
    for _ in range(_PERMUTATIONS):
        column = by_group.copy()
        for _, rows in table.groupby(
            "y_true"
        ).indices.items():  # as many of each true class, as between groups
            column[rows] = rng.permutation(column[rows])
        columns.append(column)
    scores = _ridge_auroc(x, np.stack(columns, axis=1), seed)
    if not np.isfinite(scores[0]):
        return np.nan
    return float((1 + (scores[1:] >= scores[0]).sum()) / (1 + np.isfinite(scores[1:]).sum()))


def _ridge_auroc(x: np.ndarray, labels: np.ndarray, seed: int) -> np.ndarray:
    """Return for each column of labels the AUROC of ridge regression on files drawn at random, mean over five
    folds.
    """
    x = (x - x.mean(axis=0)) / np.where(x.std(axis=0) > 0, x.std(axis=0), 1)
    kernel, found = x @ x.T, []
    for train, test in KFold(5, shuffle=True, random_state=seed).split(x):
        y = labels[train] - labels[train].mean(axis=0)
        weights = np.linalg.solve(kernel[np.ix_(train, train)] + _RIDGE * np.eye(len(train)), y)
        ranks = stats.rankdata(kernel[np.ix_(test, train)] @ weights, axis=0)
        m = labels[test].sum(axis=0)
        with np.errstate(divide="ignore", invalid="ignore"):
            found.append(((ranks * labels[test]).sum(axis=0) - m * (m + 1) / 2) / (m * (len(test) - m)))
    found = np.array(found)
    known = np.isfinite(found)
    return np.where(
        known.any(axis=0), np.where(known, found, 0).sum(axis=0) / np.maximum(known.sum(axis=0), 1), np.nan
    )


def _shuffle_labels(table: pd.DataFrame, rng: np.random.Generator) -> np.ndarray:
    """Give groups labels that mean nothing; both classes remain.

    Groups of one label get labels in the same proportion whatever theirs is, so that what the images show
    cannot help; groups of both labels (a patient's injured and whole limb) have theirs permuted within.
    """
    labels = table["y_true"].to_numpy()
    groups = table.groupby("group").indices
    pure = {group: rows for group, rows in groups.items() if len(set(labels[rows])) == 1}
    true = np.array([labels[rows[0]] for rows in pure.values()], int)
    given = true.copy()
    for label in (0, 1):
        mine = np.flatnonzero(true == label)
        ones = int(np.floor(true.mean() * len(mine) + rng.random())) if len(mine) else 0
        given[mine] = rng.permutation(np.arange(len(mine)) < ones)
    if len(set(given)) < 2:
        given = rng.permutation(true)
    shuffled = labels.copy()
    for rows, label in zip(pure.values(), given, strict=True):
        shuffled[rows] = label
    for group, rows in groups.items():
        if group not in pure:
            shuffled[rows] = rng.permutation(labels[rows])
    return shuffled


def _parts(
    split: str, table: pd.DataFrame, y: np.ndarray, seed: int, repeats: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    if split == "the set's own folders":
        test = (table["folder_split"] == "test").to_numpy(dtype=bool, na_value=False)
        if test.any() and not test.all():
            yield np.flatnonzero(~test), np.flatnonzero(test)
        return
    groups = table["group"].to_numpy()
    folds = min(5, *(len(np.unique(groups[y == c])) for c in (0, 1)))
    for repeat in range(repeats if folds > 1 else 0):
        shuffle = {"shuffle": True, "random_state": derive_seed(seed, "inflation", repeat)}
        if split == "random files":
            yield from StratifiedKFold(folds, **shuffle).split(y, y)
        else:
            yield from StratifiedGroupKFold(folds, **shuffle).split(y, y, groups)


def _score(x: np.ndarray, y: np.ndarray, train: np.ndarray, test: np.ndarray) -> tuple[float, float] | None:
    if len(set(y[train])) < 2 or len(set(y[test])) < 2:
        return None
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=500)).fit(x[train], y[train])
    p = model.predict_proba(x[test])[:, 1]
    return roc_auc_score(y[test], p), accuracy_score(y[test], p >= 0.5)


def describe_leakage(inflation: pd.DataFrame) -> str:
    """Return what the figure shows, in a few sentences."""
    if not len(inflation):
        return (
            "What a leak would be worth was not measured: the features are not in data/cache any more and "
            "cannot be computed "
            "again, as the weights are gone or the model was trained with other parameters than the study's."
        )
    rows = inflation.set_index(["split", "labels"])
    auroc = rows["auroc"]
    honest, files = (auroc.get((split, "true")) for split in ("kept apart by group", "random files"))
    if honest is None or files is None:
        return (
            "What a leak would be worth was not measured: a class has too few groups to be judged on others."
        )
    own = auroc.get(("the set's own folders", "true"))
    text = (
        f"With sources and patients kept apart the features reach AUROC {honest:.2f}; with files drawn "
        f"at random {files:.2f}"
    )
    text += f", and on the set's own folders {own:.2f}. " if own is not None else ". "
    control, apart = (auroc.get((split, "shuffled")) for split in ("random files", "kept apart by group"))
    p = rows["p"].get(("random files", "shuffled"), np.nan) if "p" in rows else np.nan
    if control is None or apart is None or not np.isfinite(p):
        return text + "Whether sources are recognised was not tested."
    told = (
        f"With labels that mean nothing, random files reach {control:.2f} (kept apart: {apart:.2f}; "
        f"permutation p {_shown(p)})"
    )
    if p <= ALPHA and control > apart:
        return f"{text}{told}: what is learned there is the source."
    return f"{text}{told}: that sources are recognised is not shown."


def _shown(p: float) -> str:
    text = describe_p(p)
    return text if text.startswith("<") else f"= {text}"
