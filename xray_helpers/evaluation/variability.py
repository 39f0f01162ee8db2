"""How much a score varies with the seed, the folds and the sample."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score

from xray_helpers.evaluation.intervals import describe, read_entry
from xray_helpers.evaluation.metrics import compute_metrics

SEEDS, FOLDS = "other seeds, same split", "other folds of all images"
AGAIN = "other seeds and other folds, all images out of fold"
FROZEN = "heads on frozen features"
ALL_IMAGES = "all images, each out of fold, 95 % interval of groups"


def summarise(
    repeats: pd.DataFrame, out_of_fold: pd.DataFrame, auroc: dict[str, Any], *, tuned: bool = False
) -> pd.DataFrame:
    """Return how much AUROC varies with the seed, with the split and by the sample.

    Parameters
    ----------
    repeats : DataFrame
        Of `repeat_seeds`.
    out_of_fold : DataFrame
        Of `cross_validate`.
    auroc : dict
        The entry in ``metrics.json``, of the one split of the study.
    tuned : bool
        Whether the model was fine-tuned; repeats are then of heads on frozen features, not of this model.

    Returns
    -------
    DataFrame
        source, auroc, low, high, sd (over runs; missing for one), runs, of (``this model`` or ``heads on
        frozen features``).
    """
    rows = [_one_run("this split, 95 % interval of groups", auroc)]
    if len(repeats):
        rows.append(_spread(SEEDS, repeats["auroc_test"]))
        if repeats.get("auroc_out_of_fold", pd.Series(dtype=float)).notna().any():
            rows.append(_spread(AGAIN, repeats["auroc_out_of_fold"]))
    if len(out_of_fold):
        folds = [plain_auroc(part["y_true"], part["y_prob"]) for _, part in out_of_fold.groupby("fold")]
        rows.append(_spread(FOLDS, pd.Series(folds, dtype=float)))
        rows.append(_one_run(ALL_IMAGES, score_out_of_fold(out_of_fold)))
    table = pd.DataFrame(rows).reindex(columns=["source", "auroc", "low", "high", "sd", "runs"])
    table = table.astype({name: float for name in ("auroc", "low", "high", "sd")})
    return table.assign(of=["this model", *[FROZEN if tuned else "this model"] * (len(table) - 1)])


def score_out_of_fold(out_of_fold: pd.DataFrame) -> dict[str, Any]:
    """Return the AUROC entry of all images together, from the table of `cross_validate`.

    The probabilities come from one head per fold, whose scales may differ a little.
    """
    y, p, group = (out_of_fold[name] for name in ("y_true", "y_prob", "group"))
    return compute_metrics(y, p, 0.5, group)["auroc"]


def _one_run(source: str, entry: dict[str, Any]) -> dict[str, Any]:
    ends = {"low": entry["ci_low"], "high": entry["ci_high"]}
    return {"source": source, "auroc": entry["value"], **ends, "runs": 1}


def _spread(source: str, values: pd.Series) -> dict[str, Any]:
    values = values.dropna()
    spread = {"source": source, "auroc": values.mean(), "low": values.min(), "high": values.max()}
    return spread | {"sd": values.std(ddof=1), "runs": len(values)}


def plain_auroc(y_true: Sequence[int], y_prob: Sequence[float]) -> float:
    """Return AUROC without an interval; NaN where a class is missing."""
    return float(roc_auc_score(y_true, y_prob)) if len(set(np.asarray(y_true).tolist())) == 2 else np.nan


def describe_spread(table: pd.DataFrame) -> str:
    """Return what the spread means in a few sentences."""
    rows = table.set_index("source").to_dict("index")
    text = ""
    if row := rows.get(SEEDS):
        text += f"With {_count(row['runs'], 'other seed')} AUROC on test {_range(row)}. "
    if row := rows.get(FOLDS):
        text += (
            f"Over {_count(row['runs'], 'fold')} of all images, each predicted by a head that never saw its "
            f"group, it {_range(row)}, {row['auroc']:.2f} on average. "
        )
    if row := rows.get(AGAIN):
        text += (
            f"Cross-validated again with {_count(row['runs'], 'other seed')} and folds, AUROC of all images "
            f"together {_range(row)}"
        )
        if pd.notna(row["sd"]):
            text += f", with a standard deviation of {row['sd']:.3f} from training and folds alone"
        text += ". "
    text += describe_all_images(table)
    if text and "of" in table and (table["of"] == FROZEN).any():
        text += f" These repeats are of {FROZEN}, not of the fine-tuned model itself."
    return text.strip() or "Nothing was repeated: the spread is not known."


def _count(runs: float, noun: str) -> str:
    return f"one {noun}" if runs == 1 else f"{runs:.0f} {noun}s"


def _range(row: dict[str, Any]) -> str:
    low, high = f"{row['low']:.2f}", f"{row['high']:.2f}"
    return f"is {low}" if low == high else f"lies between {low} and {high}"


def describe_all_images(table: pd.DataFrame) -> str:
    """Return the AUROC of all images out of fold, with its interval; an empty text where it is not known."""
    rows = table[(table["source"] == ALL_IMAGES) & table["low"].notna()].to_dict("records")
    if not rows:
        return ""
    row = rows[0]
    of_heads = f" (of {FROZEN})" if row.get("of") == FROZEN else ""
    entry = read_entry(row, "auroc", "low", "high")
    return f"AUROC of all images together, out of fold{of_heads}: {describe(entry)}."
