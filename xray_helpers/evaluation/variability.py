"""How far a score moves with the seed, with the folds, and by the sample."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score

from xray_helpers.evaluation.intervals import describe
from xray_helpers.evaluation.metrics import compute_metrics

AGAIN = "other seeds and other folds, all images out of fold"
FROZEN = "heads on frozen features"
ALL_IMAGES = "all images, each out of fold, 95 % interval of groups"


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
        Whether the model was fine-tuned: what is repeated are heads on the frozen features then, not this
        model.

    Returns
    -------
    DataFrame
        source, auroc, low, high, sd (over runs; missing for one), runs, of (``this model`` or ``heads on
        frozen features``).
    """
    rows = [
        {
            "source": "this split, 95 % interval of groups",
            "auroc": auroc["value"],
            "low": auroc["ci_low"],
            "high": auroc["ci_high"],
            "runs": 1,
        }
    ]
    if len(repeats):
        rows.append(_spread("other seeds, same split", repeats["auroc_test"]))
        if repeats.get("auroc_out_of_fold", pd.Series(dtype=float)).notna().any():
            rows.append(_spread(AGAIN, repeats["auroc_out_of_fold"]))
    if len(out_of_fold):
        folds = [plain_auroc(part["y_true"], part["y_prob"]) for _, part in out_of_fold.groupby("fold")]
        rows.append(_spread("other folds of all images", pd.Series(folds, dtype=float)))
        together = score_out_of_fold(out_of_fold)
        rows.append(
            {
                "source": ALL_IMAGES,
                "auroc": together["value"],
                "low": together["ci_low"],
                "high": together["ci_high"],
                "runs": 1,
            }
        )
    table = pd.DataFrame(rows).reindex(columns=["source", "auroc", "low", "high", "sd", "runs"])
    table = table.astype({name: float for name in ("auroc", "low", "high", "sd")})
    return table.assign(of=["this model", *[FROZEN if tuned else "this model"] * (len(table) - 1)])


def score_out_of_fold(out_of_fold: pd.DataFrame) -> dict[str, Any]:
    """Return the AUROC of all images together, as `metrics.compute_metrics` does; of `cross_validate`'s
    table.

    The probabilities come from as many heads as there are folds, whose scales may differ a little.
    """
    y, p, group = (out_of_fold[name] for name in ("y_true", "y_prob", "group"))
    return compute_metrics(y, p, 0.5, group)["auroc"]


def _spread(source: str, values: pd.Series) -> dict[str, Any]:
    values = values.dropna()
    spread = {"source": source, "auroc": values.mean(), "low": values.min(), "high": values.max()}
    return spread | {"sd": values.std(ddof=1), "runs": len(values)}


def plain_auroc(y_true: Sequence[int], y_prob: Sequence[float]) -> float:
    """Return AUROC without an interval; NaN where a class is missing."""
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
            f"Over {_counted(row['runs'], 'fold')} of all images, each judged by a head that never saw its "
            "group, it "
            f"{_lies(row)}, {row['auroc']:.2f} on average. "
        )
    if AGAIN in by.index:
        row = by.loc[AGAIN]
        moved = (
            ""
            if pd.isna(row["sd"])
            else f", standard deviation {row['sd']:.3f}: what training and folds alone move"
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
    """Return the AUROC of all images, each judged out of fold, with its interval; an empty text where it is
    not known.
    """
    rows = table[(table["source"] == ALL_IMAGES) & table["low"].notna()]
    told = []
    for row in rows.to_dict("records"):
        whose = f" (of {FROZEN})" if row.get("of") == FROZEN else ""
        entry = {"value": row["auroc"], "ci_low": row["low"], "ci_high": row["high"]}
        told.append(f"AUROC of all images together, out of fold{whose}: {describe(entry)}.")
    return "".join(told)
