"""How much of a score is luck: heads trained again with other seeds, and on other folds, on cached features."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score

from xray_helpers.intervals import describe
from xray_helpers.metrics import compute_metrics
from xray_helpers.settings import Settings
from xray_helpers.studies import derive_seed
from xray_helpers.training import Views, predict_head, train_head

ALL_IMAGES = "all images, each out of fold, 95 % interval of groups"


def repeat_seeds(train: tuple[Views, np.ndarray], parts: dict[str, tuple], settings: Settings) -> pd.DataFrame:
    """Train the head again with other seeds on the same images.

    Parameters
    ----------
    train : (features, y_true)
        As for `training.train_head`.
    parts : dict
        ``validation`` and ``test`` to (features (n, d), y_true).
    settings : Settings
        `repeats` says how often.

    Returns
    -------
    DataFrame
        seed, and for each part auroc_<part>; a row a repeat.
    """
    rows, head = [], None
    for repeat in range(settings.repeats):
        other = settings.model_copy(update={"seed": derive_seed(settings.seed, "repeat", repeat)})
        head, _ = train_head(train, parts["validation"], other, head)
        scores = {f"auroc_{name}": _auroc(y, predict_head(head, x)) for name, (x, y) in parts.items()}
        rows.append({"seed": other.seed} | scores)
    return pd.DataFrame(rows)


def cross_validate(views: Views, table: pd.DataFrame, settings: Settings) -> pd.DataFrame:
    """Predict every image by a head that saw neither it nor its group.

    Each fold is tested once; the next one serves as its validation, the rest trains. None with `repeats` 0 or fewer than
    three folds.

    Parameters
    ----------
    views : sequence of ndarray, shape (n, d)
        Features of all images used; the first as they are.
    table : DataFrame
        path, group, y_true, fold, counted (copies of a source are trained on, never judged).
    settings : Settings

    Returns
    -------
    DataFrame
        path, group, y_true, y_prob, fold.
    """
    y, fold = table["y_true"].to_numpy(), table["fold"].to_numpy(int)
    counted = table["counted"].astype(bool).to_numpy() if "counted" in table else np.ones(len(table), bool)
    count = fold.max() + 1
    y_prob = np.full(len(y), np.nan)
    views = [np.asarray(view) for view in views]
    head = None
    for test in range(count if count > 2 and settings.repeats else 0):
        aside, judged = counted & (fold == (test + 1) % count), counted & (fold == test)
        rest = (fold != test) & (fold != (test + 1) % count)
        if len(set(y[rest])) < 2 or len(set(y[aside])) < 2:
            continue
        head, _ = train_head(([view[rest] for view in views], y[rest]), (views[0][aside], y[aside]), settings, head)
        y_prob[judged] = predict_head(head, views[0][judged])
    return table[["path", "group", "y_true"]].assign(y_prob=y_prob, fold=fold).dropna(subset=["y_prob"])


def summarise(repeats: pd.DataFrame, out_of_fold: pd.DataFrame, auroc: dict[str, Any], seed: int = 0) -> pd.DataFrame:
    """Return how far the score moves with the seed, with the split, and by the sample: source, auroc, low, high, runs.

    Parameters
    ----------
    repeats : DataFrame
        Of `repeat_seeds`.
    out_of_fold : DataFrame
        Of `cross_validate`.
    auroc : dict
        Of ``metrics.json``: what is known by one split and its interval.
    seed : int
        Not used: nothing is drawn at random. Kept for those who call it.
    """
    rows = [{"source": "this split, 95 % interval of groups", "auroc": auroc["value"], "low": auroc["ci_low"],
             "high": auroc["ci_high"], "runs": 1}]  # fmt: skip
    if len(repeats):
        rows.append(_spread("other seeds, same split", repeats["auroc_test"]))
    if len(out_of_fold):
        folds = [_auroc(part["y_true"], part["y_prob"]) for _, part in out_of_fold.groupby("fold")]
        rows.append(_spread("other folds of all images", pd.Series(folds, dtype=float)))
        together = score_out_of_fold(out_of_fold, seed)
        rows.append({"source": ALL_IMAGES, "auroc": together["value"], "low": together["ci_low"],
                     "high": together["ci_high"], "runs": 1})  # fmt: skip
    return pd.DataFrame(rows).astype({name: float for name in ("auroc", "low", "high")})


def score_out_of_fold(out_of_fold: pd.DataFrame, seed: int = 0) -> dict[str, Any]:
    """Return the AUROC of all images together, as `metrics.compute_metrics` does; of `cross_validate`'s table.

    The probabilities come from as many heads as there are folds, whose scales may differ a little.
    """
    y, p, group = (out_of_fold[name] for name in ("y_true", "y_prob", "group"))
    return compute_metrics(y, p, 0.5, group, seed=seed)["auroc"]


def _spread(source: str, values: pd.Series) -> dict[str, Any]:
    values = values.dropna()
    return {"source": source, "auroc": values.mean(), "low": values.min(), "high": values.max(), "runs": len(values)}


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
    text += describe_all_images(table)
    return text.strip() or "Nothing was repeated: the spread is not known."


def _counted(runs: float, word: str) -> str:
    return f"one {word}" if runs == 1 else f"{runs:.0f} {word}s"


def _lies(row: pd.Series) -> str:
    low, high = f"{row['low']:.2f}", f"{row['high']:.2f}"
    return f"is {low}" if low == high else f"lies between {low} and {high}"


def describe_all_images(table: pd.DataFrame) -> str:
    """Return the AUROC of all images, each judged out of fold, with its interval; an empty text where it is not known."""
    rows = table[(table["source"] == ALL_IMAGES) & table["low"].notna()]
    entries = ({"value": row.auroc, "ci_low": row.low, "ci_high": row.high} for row in rows.itertuples())
    return "".join(f"All images together, out of fold: {describe(entry)}." for entry in entries)
