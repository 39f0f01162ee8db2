"""What a leak is worth: one classifier on the same features, evaluated under honest and leaky splits."""

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
MAX_IMAGES = 4000  # images used at most; more change nothing but the time
OWN_FOLDERS, RANDOM_FILES, BY_GROUP = "the set's own folders", "random files", "kept apart by group"
_COLUMNS = ("split", "labels", "auroc", "auroc_sd", "accuracy", "accuracy_sd", "folds", "n", "p")
_PERMUTED_IMAGES = 2000
_PERMUTATIONS = 99
_RIDGE = 100.0  # for standardised features: about what C = 0.01 is for logistic regression


def measure_leakage(
    features: np.ndarray, table: pd.DataFrame, *, seed: int, repeats: int = 1
) -> pd.DataFrame:
    """Evaluate logistic regression on frozen features by split, with true and with shuffled labels.

    Labels permuted between groups are a control without medical meaning: a split that still scores well with
    them recognises the source of an image and nothing else.

    Parameters
    ----------
    features : ndarray, shape (n, d)
        Of the images without augmentation.
    table : DataFrame
        One row per image: y_true, group, folder_split.
    seed : int
    repeats : int
        How often the folds are drawn.

    Returns
    -------
    DataFrame
        split (``the set's own folders`` where it has them, ``random files``, ``kept apart by group``), labels
        (``true`` or ``shuffled``), auroc and accuracy (means over folds), auroc_sd, accuracy_sd (standard
        deviations over folds; missing for a single split), folds, n, p (of `source_p`, for random files with
        shuffled labels only). Empty where there are no images.
    """
    if not len(table):
        return pd.DataFrame(columns=_COLUMNS)
    rng = np.random.default_rng([seed, 5])
    if len(table) > MAX_IMAGES:
        keep = np.sort(rng.permutation(len(table))[:MAX_IMAGES])
        features, table = features[keep], table.iloc[keep].reset_index(drop=True)
    x = np.asarray(features, dtype=np.float32)
    labels = {"true": table["y_true"].to_numpy(), "shuffled": _shuffle_labels(table, rng)}
    rows = []
    for kind, y in labels.items():
        for split in (OWN_FOLDERS, RANDOM_FILES, BY_GROUP):
            parts = _split(split, table, y, seed, repeats)
            scores = np.reshape([_score(x, y, *part) for part in parts], (-1, 2))
            scores = scores[np.isfinite(scores).all(axis=1)]
            if len(scores):
                p = source_p(x, table, seed) if (split, kind) == (RANDOM_FILES, "shuffled") else np.nan
                row = {"split": split, "labels": kind, "folds": len(scores), "n": len(table), "p": p}
                row["auroc"], row["accuracy"] = scores[:, 0].mean(), scores[:, 1].mean()
                if len(scores) > 1:
                    row["auroc_sd"], row["accuracy_sd"] = scores.std(axis=0, ddof=1)
                rows.append(row)
    return pd.DataFrame(rows, columns=_COLUMNS)


def source_p(features: np.ndarray, table: pd.DataFrame, seed: int) -> float:
    """Return the p-value of the hypothesis that features carry no information on the source of an image.

    Files drawn at random are predicted twice: with labels shuffled between groups, and with labels shuffled
    between images. Without information on the source, both predictions are equally good. The predictor is
    ridge regression, which fits all sets of labels at once.
    """
    rng = np.random.default_rng([seed, 6])
    codes, groups = pd.factorize(table["group"])
    order = rng.permutation(len(groups))[codes]
    keep = np.sort(np.argsort(order, kind="stable")[:_PERMUTED_IMAGES])  # whole groups
    x, table = np.asarray(features[keep], np.float64), table.iloc[keep].reset_index(drop=True)
    if len(table) < 20:
        return np.nan
    by_group = _shuffle_labels(table, rng)
    columns = [by_group]
    for _ in range(_PERMUTATIONS):
        column = by_group.copy()
        for rows in table.groupby("y_true").indices.values():  # within the true classes, as between groups
            column[rows] = rng.permutation(column[rows])
        columns.append(column)
    scores = _ridge_auroc(x, np.stack(columns, axis=1), seed)
    if not np.isfinite(scores[0]):
        return np.nan
    return float((1 + (scores[1:] >= scores[0]).sum()) / (1 + np.isfinite(scores[1:]).sum()))


def _ridge_auroc(x: np.ndarray, labels: np.ndarray, seed: int) -> np.ndarray:
    """Return the AUROC of ridge regression for each column of labels: the mean over five random folds."""
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
    mean = np.where(known, found, 0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)
    return np.where(known.any(axis=0), mean, np.nan)


def _shuffle_labels(table: pd.DataFrame, rng: np.random.Generator) -> np.ndarray:
    """Return labels without meaning, the same for all images of a group; both classes remain.

    Groups with one label get labels in the same proportion whatever their own is, so that the content of
    images does not help. Groups with both labels (a patient's injured and intact limb) keep theirs, permuted.
    """
    labels = table["y_true"].to_numpy()
    groups = table.groupby("group").indices
    pure = {group: rows for group, rows in groups.items() if len(set(labels[rows])) == 1}
    true = np.array([labels[rows[0]] for rows in pure.values()], int)
    given = true.copy()
    for label in (0, 1):
        part = np.flatnonzero(true == label)
        ones = int(np.floor(true.mean() * len(part) + rng.random())) if len(part) else 0
        given[part] = rng.permutation(np.arange(len(part)) < ones)
    if len(set(given)) < 2:
        given = rng.permutation(true)
    shuffled = labels.copy()
    for rows, label in zip(pure.values(), given, strict=True):
        shuffled[rows] = label
    for group, rows in groups.items():
        if group not in pure:
            shuffled[rows] = rng.permutation(labels[rows])
    return shuffled


def _split(
    split: str, table: pd.DataFrame, y: np.ndarray, seed: int, repeats: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    if split == OWN_FOLDERS:
        test = (table["folder_split"] == "test").to_numpy(dtype=bool, na_value=False)
        if test.any() and not test.all():
            yield np.flatnonzero(~test), np.flatnonzero(test)
        return
    groups = table["group"].to_numpy()
    folds = min(5, *(len(np.unique(groups[y == c])) for c in (0, 1)))
    for repeat in range(repeats if folds > 1 else 0):
        shuffle = {"shuffle": True, "random_state": derive_seed(seed, "inflation", repeat)}
        if split == RANDOM_FILES:
            yield from StratifiedKFold(folds, **shuffle).split(y, y)
        else:
            yield from StratifiedGroupKFold(folds, **shuffle).split(y, y, groups)


def _score(x: np.ndarray, y: np.ndarray, train: np.ndarray, test: np.ndarray) -> tuple[float, float]:
    """Return AUROC and accuracy on test; NaN where train or test holds one class only."""
    if len(set(y[train])) < 2 or len(set(y[test])) < 2:
        return np.nan, np.nan
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=500)).fit(x[train], y[train])
    p = model.predict_proba(x[test])[:, 1]
    return roc_auc_score(y[test], p), accuracy_score(y[test], p >= 0.5)


def recognises_sources(inflation: pd.DataFrame) -> bool | None:
    """Return whether labels without meaning score beyond chance on random files; None where not tested."""
    rows = inflation[inflation["labels"] == "shuffled"].set_index("split")
    auroc, p = rows["auroc"], rows.get("p", pd.Series(dtype=float)).get(RANDOM_FILES, np.nan)
    if not {RANDOM_FILES, BY_GROUP} <= set(rows.index) or not np.isfinite(p):
        return None
    return bool(p <= ALPHA and auroc[RANDOM_FILES] > auroc[BY_GROUP])


def describe_leakage(inflation: pd.DataFrame) -> str:
    """Return what a leak is worth, and whether sources are recognised, in a few sentences."""
    if not len(inflation):
        return (
            "What a leak would be worth was not measured: the features are no longer in data/cache and "
            "cannot be computed again, because the weights are missing or the model was trained with other "
            "parameters than those of the study."
        )
    rows = inflation.set_index(["split", "labels"])
    auroc = rows["auroc"]
    honest, files, own = (auroc.get((split, "true")) for split in (BY_GROUP, RANDOM_FILES, OWN_FOLDERS))
    if honest is None or files is None:
        return "What a leak would be worth was not measured: a class has too few groups."
    text = (
        f"With sources and patients kept apart the features reach AUROC {honest:.2f}; with files drawn at "
        f"random {files:.2f}{'' if own is None else f', and on the folders of the set itself {own:.2f}'}. "
    )
    control, apart = (auroc.get((split, "shuffled")) for split in (RANDOM_FILES, BY_GROUP))
    if recognises_sources(inflation) is None:
        return text + "Whether sources are recognised was not tested."
    p = rows["p"][RANDOM_FILES, "shuffled"]
    text += (
        f"With shuffled labels, random files reach {control:.2f} (kept apart: {apart:.2f}; permutation p "
        f"{'' if p < 0.001 else '= '}{describe_p(p)}): "
    )
    if recognises_sources(inflation):
        return text + "what is learned there is the source."
    return text + "it is not shown that sources are recognised."
