"""Human readers of the same test images, and whether a model differs from them."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from xray_helpers.data.labels import read_label
from xray_helpers.data.user_tables import read_user_table
from xray_helpers.evaluation import influence
from xray_helpers.evaluation.intervals import (
    LEVEL,
    MIN_GROUPS,
    TOO_FEW,
    describe,
    describe_p,
    encode_groups,
    has_few_groups,
    t_half_width,
    t_test,
)
from xray_helpers.settings import POSITIVE, InputError
from xray_helpers.study.files import build_table
from xray_helpers.study.folders import from_root

MARGIN = 0.05  # a model that differs less from the readers counts as equal to them
_COLUMNS = (
    "score",
    "readers",
    "model_value",
    "reader_value",
    "difference",
    "ci_low",
    "ci_high",
    "p",
    "n",
    "n_groups",
    "reason",
)
_TITLES = {"auroc": "AUROC", "recall": "sensitivity", "specificity": "specificity"}


def load_reads(path: Path, known: pd.Series) -> pd.DataFrame:
    """Read a table of reads.

    Parameters
    ----------
    path : Path
        With the columns path, reader, and call (a class) or score (higher means fractured).
    known : Series of str
        The paths of the test images; reads of other images are ignored.

    Returns
    -------
    DataFrame
        One row per read: path, reader (numbers in the order of names), call (0 or 1; missing where there are
        only scores), score (missing where there are only calls).

    Raises
    ------
    InputError
        When a column is missing, a value is not understood, a reader has read an image twice, or none is a
        test image.
    """
    read = read_user_table(path)
    names = [name.lower() for name in read.columns]
    if not {"path", "reader"} <= set(names) or not {"call", "score"} & set(names):
        raise InputError(
            f"{path.name} needs the columns path, reader, and call or score (it has "
            f"{', '.join(read.columns)})."
        )
    table = pd.DataFrame(
        {name: read.column(name) for name in ("path", "reader", "call", "score")}, index=read.lines
    )
    table["path"] = table["path"].str.replace("\\", "/").str.strip()
    calls = table["call"].map(read_label)
    score = pd.to_numeric(table["score"].replace("", np.nan), errors="coerce")
    bad = (calls.isna() & table["call"].str.strip().ne("")) | (
        score.isna() & table["score"].str.strip().ne("")
    )
    if bad.any():
        raise InputError(
            f"{path.name}: line {table.index[bad][0]} is not understood: write Fractured or Non-Fractured "
            "as call."
        )
    table = table.assign(call=(calls == POSITIVE).astype(float).where(calls.notna()), score=score)
    table = table[table["path"].isin(set(known)) & (table["call"].notna() | table["score"].notna())]
    if table.empty:
        raise InputError(
            f"{path.name}: none of its {len(read.rows)} rows names a test image, such as {known.iloc[0]}."
        )
    twice = table.duplicated(["path", "reader"])
    if twice.any():
        raise InputError(
            f"{path.name}: line {table.index[twice][0]} is a second read of one image by one reader."
        )
    return table.assign(reader=pd.factorize(table["reader"], sort=True)[0] + 1).reset_index(drop=True)


def compare_with_readers(test: pd.DataFrame, reads: pd.DataFrame) -> pd.DataFrame:
    """Compare a model with readers on the test images that all of them have read.

    With one reader the difference is tested over groups of images. With several, readers are random as well
    (Obuchowski and Rockette 1995, degrees of freedom of Hillis 2007), and the test is on the differences
    between the model and each reader.

    Parameters
    ----------
    test : DataFrame
        ``predictions_test.csv``: path, group, y_true, y_prob, y_pred.
    reads : DataFrame
        Of `load_reads`.

    Returns
    -------
    DataFrame
        score (auroc, where readers gave scores; recall, specificity), readers, model_value, reader_value
        (mean over readers), difference (model less readers), ci_low, ci_high, p, n, n_groups, reason (why
        there is no interval).
    """
    rows = []
    for score, column in (("auroc", "score"), ("recall", "call"), ("specificity", "call")):
        given = reads.dropna(subset=[column])
        wide = given.pivot_table(index="path", columns="reader", values=column).dropna()
        common = test[test["path"].isin(wide.index)].reset_index(drop=True)
        if len(common):
            answers = wide.loc[common["path"]].to_numpy(float)
            rows.append({"score": score, "readers": answers.shape[1]} | _compare(score, common, answers))
    return build_table(rows, _COLUMNS)


def _compare(score: str, test: pd.DataFrame, answers: np.ndarray) -> dict[str, Any]:
    y, codes = test["y_true"].to_numpy(), encode_groups(test["group"])
    counts = {"n": len(test), "n_groups": int(codes.max()) + 1}
    if len(set(y)) < 2:
        return counts | {"reason": "one class only"}
    own = test["y_prob" if score == "auroc" else "y_pred"].to_numpy(float)
    value, added = _measure(score, y, own)
    theirs = [_measure(score, y, column) for column in answers.T]
    differences = np.array([value - other for other, _ in theirs])
    mean = differences.mean()
    found = counts | {"model_value": value, "reader_value": value - mean, "difference": mean}
    if has_few_groups(y, codes):
        return found | {"reason": TOO_FEW}
    sums = np.stack([np.bincount(codes, added - other) for _, other in theirs])
    groups = sums.shape[1]
    error, freedom = _reader_error(differences, sums @ sums.T * groups / (groups - 1), groups)
    half, p = t_half_width(error, freedom), t_test(mean, error, freedom)
    return found | {"ci_low": mean - half, "ci_high": mean + half, "p": p, "reason": ""}


def _measure(score: str, y: np.ndarray, answers: np.ndarray) -> tuple[float, np.ndarray]:
    """Return a score and its influence (see the module `influence`)."""
    if score == "auroc":
        return influence.auroc(y, answers, np.ones(len(y)))
    part = y == (score == "recall")
    right = (answers == y)[part]
    added = np.zeros(len(y))
    added[part] = (right - right.mean()) / part.sum()
    return float(right.mean()), added


def _reader_error(difference: np.ndarray, covariance: np.ndarray, groups: int) -> tuple[float, float]:
    """Return standard error and degrees of freedom of the mean difference from readers."""
    readers = len(difference)
    if readers == 1:
        return float(np.sqrt(covariance[0, 0])), groups - 1
    between = float(difference.var(ddof=1))
    shared = max(float((covariance.sum() - np.trace(covariance)) / (readers * (readers - 1))), 0.0)
    total = between + readers * shared
    freedom = total**2 / (between**2 / (readers - 1)) if between > 0 else groups - 1
    return float(np.sqrt(total / readers)), float(min(freedom, groups - 1))


def compare_readers(readers: str, test: pd.DataFrame, model: str) -> tuple[pd.DataFrame, str]:
    """Return `compare_with_readers` and `describe_readers`; an empty table and text without reads.

    Parameters
    ----------
    readers : str
        The study's parameter: a CSV, relative to the root of the repository, or an empty text.
    test : DataFrame
        ``predictions_test.csv`` of the model.
    model : str
    """
    if not readers:
        return build_table([], _COLUMNS), ""
    compared = compare_with_readers(test, load_reads(from_root(readers), test["path"]))
    return compared, describe_readers(compared, model)


def readers_table(compared: pd.DataFrame) -> list[dict[str, str]]:
    """Return the comparison as text, one row per score."""
    return [
        {
            "score": _TITLES[row["score"]],
            "model": f"{row['model_value']:.2f}",
            "readers": f"{row['reader_value']:.2f}",
            "difference": describe(row | {"value": row["difference"]}),
            "p": describe_p(row["p"]),
            "n": f"{row['n']:.0f} images of {row['n_groups']:.0f} groups, {row['readers']:.0f} readers",
        }
        for row in compared.to_dict("records")
    ]


def describe_readers(compared: pd.DataFrame, model: str) -> str:
    """Return whether each score differs from the readers': shown, ruled out within a margin, or not known."""
    answers = [f"{_TITLES[row['score']]}: {_describe_row(row)}" for row in compared.to_dict("records")]
    return f"{model} against the readers of the same images. {'; '.join(answers)}." if answers else ""


def _describe_row(row: dict[str, Any]) -> str:
    if pd.isna(row["ci_low"]):
        return f"not known ({row['reason'] or TOO_FEW}: fewer than {MIN_GROUPS} of a class)"
    if row["p"] < 1 - LEVEL:
        return f"{'higher' if row['difference'] > 0 else 'lower'} by {abs(row['difference']):.2f}"
    if max(-row["ci_low"], row["ci_high"]) < MARGIN:
        return f"a difference of {MARGIN:g} or more is ruled out"
    return f"not known, between {row['ci_low']:+z.2f} and {row['ci_high']:+z.2f}"
