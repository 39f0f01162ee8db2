"""What a leak is worth: one classifier on the same features, judged under honest and leaky splits."""

from collections.abc import Iterator

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, roc_auc_score
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from xray_helpers.studies import derive_seed

_MOST = 4000  # images; more change nothing but the time


def measure_inflation(features: np.ndarray, table: pd.DataFrame, *, seed: int, repeats: int = 1) -> pd.DataFrame:
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
        deviation over folds; missing for a single split), folds, n.
    """
    if not len(table):
        return pd.DataFrame(columns=["split", "labels", "auroc", "auroc_sd", "accuracy", "accuracy_sd", "folds", "n"])
    rng = np.random.default_rng([seed, 5])
    if len(table) > _MOST:
        keep = np.sort(rng.permutation(len(table))[:_MOST])
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
                    }
                )
    return pd.DataFrame(rows)


def _shuffle_labels(table: pd.DataFrame, rng: np.random.Generator) -> np.ndarray:
    """Give each group the label of another one: the share of labels stays, their meaning goes."""
    by_group = table.groupby("group")["y_true"].mean().ge(0.5).astype(int)
    shuffled = pd.Series(rng.permutation(by_group.to_numpy()), index=by_group.index)
    return table["group"].map(shuffled).to_numpy()


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


def describe_inflation(inflation: pd.DataFrame) -> str:
    """Return what the figure shows, in a few sentences."""
    if not len(inflation):
        return (
            "What a leak would be worth was not measured: the features are not in data/cache any more and cannot be computed "
            "again, as the weights are gone or the model was trained with other parameters than the study's."
        )
    auroc = inflation.set_index(["split", "labels"])["auroc"]
    honest, files = auroc["kept apart by group", "true"], auroc["random files", "true"]
    own = auroc.get(("the set's own folders", "true"))
    text = f"With sources and patients kept apart the features reach AUROC {honest:.2f}; with files drawn at random {files:.2f}"
    text += f", and on the set's own folders {own:.2f}. " if own is not None else ". "
    control = auroc["random files", "shuffled"]
    if control > 0.6:
        text += (
            f"With labels that mean nothing, random files still reach {control:.2f} "
            f"(kept apart: {auroc['kept apart by group', 'shuffled']:.2f}): what is learned there is the source."
        )
    else:
        text += f"With labels that mean nothing, random files reach {control:.2f}: little is to be gained by recognising sources."
    return text
