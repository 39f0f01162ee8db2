"""From the scores of images to those of exams: their mean, their largest, or a learned attention."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy.optimize import minimize
from scipy.special import log_softmax

from xray_helpers.evaluation.intervals import describe, encode_groups, grouped_mean, has_few_groups
from xray_helpers.evaluation.log_odds import log_odds
from xray_helpers.evaluation.verdict import SHOWN, compare_to_bound

SCORES = ("y_prob",)  # the columns of scores where there are two classes
_FOLDS = 5
_MARGIN = 1e-3  # from 0 and 1, of probabilities in the fit: a single sure mistake does not decide it
# Standard deviations that both weights, the log of the slope and the intercepts are expected to have: few
# exams leave the weights near 0, which is the mean.
_PRIORS = (1.0, 1.0, 0.5, 3.0)


class Attention(NamedTuple):
    """How much an image counts in its exam: softmax of two weights times two properties of its scores.

    Both weights 0 give the mean of the images. The larger by_score, the nearer to the largest probability.

    Attributes
    ----------
    by_score : float
        Weight of the log-odds of any class but the first (of Fractured, where there are two).
    by_sureness : float
        Weight of the log-odds of the most probable class.
    scale : (float, float)
        Standard deviations of the two properties on validation, by which they are divided.
    """

    by_score: float = 0.0
    by_sureness: float = 0.0
    scale: tuple[float, float] = (1.0, 1.0)

    def weigh(self, p: np.ndarray, codes: np.ndarray) -> np.ndarray:
        """Return the weights of images, shape (n,); those of each exam (codes) sum to 1."""
        return _softmax((_properties(p) / self.scale) @ (self.by_score, self.by_sureness), codes)


def pool_exams(
    predictions: pd.DataFrame,
    exam: pd.Series,
    how: str = "mean",
    attention: Attention | None = None,
    *,
    scores: Sequence[str] = SCORES,
    truth: str = "y_true",
) -> pd.DataFrame:
    """Pool the scores of images to those of their exams.

    Parameters
    ----------
    predictions : DataFrame
        path, group, the column of truth, and the scores.
    exam : Series
        Of each path; images whose exam is missing are left out.
    how : {'mean', 'max', 'attention'}
        The largest scores of several classes are divided by their sum.
    attention : Attention, optional
        Of `fit_attention`, for ``attention``.
    scores : sequence of str
        One column with the probability of class 1, or ``p_<class>`` for each class, in order.
    truth : str
        The column with the reference standard: 0 or 1, or else the names of classes.

    Returns
    -------
    DataFrame
        One row per exam, in path order: path (the first of its images, which stands for the exam), group,
        images (their number), the truth, and the scores. An exam is positive by the reference standard if any
        of its images is; with several classes it has the class of its images that comes last in order.
    """
    names = predictions["path"].map(exam)
    images = predictions[names.notna()].sort_values("path")
    codes = encode_groups(names[images.index])  # numbered by their first path
    first = images.assign(code=codes).drop_duplicates("code")
    pooled = first[["path", "group"]].assign(images=np.bincount(codes).astype(int))
    last = pd.Series(_encode(images[truth], scores)).groupby(codes).max().to_numpy(int)
    pooled[truth] = last if len(scores) == 1 else np.array([name.removeprefix("p_") for name in scores])[last]
    p = images[list(scores)].to_numpy(float)
    if how == "max":
        found = pd.DataFrame(p).groupby(codes).max().to_numpy()
        found = found / found.sum(axis=1, keepdims=True) if len(scores) > 1 else found
    else:
        attention = attention if how == "attention" and attention is not None else Attention()
        found = _mean(p, attention.weigh(_all_classes(p), codes), codes)
    pooled[list(scores)] = np.clip(found, 0, 1).reshape(-1, len(scores))
    return pooled.reset_index(drop=True)


def _encode(truth: pd.Series, scores: Sequence[str]) -> np.ndarray:
    if len(scores) == 1:
        return truth.to_numpy(int)
    order = {name.removeprefix("p_"): number for number, name in enumerate(scores)}
    return truth.map(order).to_numpy(int)


def _all_classes(p: np.ndarray) -> np.ndarray:
    return np.hstack([1 - p, p]) if p.shape[1] == 1 else p


def _properties(p: np.ndarray) -> np.ndarray:
    return np.stack([log_odds(1 - p[:, 0], _MARGIN), log_odds(p.max(axis=1), _MARGIN)], axis=1)


def _softmax(values: np.ndarray, codes: np.ndarray) -> np.ndarray:
    if not len(codes):
        return values
    highest = np.full(codes.max() + 1, -np.inf)
    np.maximum.at(highest, codes, values)
    weight = np.exp(values - highest[codes])
    return weight / np.bincount(codes, weight)[codes]


def _mean(p: np.ndarray, weight: np.ndarray, codes: np.ndarray) -> np.ndarray:
    return np.stack([np.bincount(codes, weight * column) for column in p.T], axis=1)


def fit_attention(
    validation: pd.DataFrame,
    exam: pd.Series,
    *,
    seed: int,
    scores: Sequence[str] = SCORES,
    truth: str = "y_true",
) -> tuple[Attention, dict[str, Any]]:
    """Learn on validation which images of an exam to heed, and keep that only where it is shown to help.

    Maximum likelihood of the exams' classes with a normal prior around the mean of the images. Slope and
    intercepts of a logistic regression on the pooled log-probabilities are fitted with it and thrown away, so
    that what is learned is which images to heed and not how sure to be. It is kept where the 95 % interval of
    its gain in log-loss over the mean, in cross-validation by groups and over exams of several images, lies
    above 0.

    Returns
    -------
    attention : Attention
        That of the mean where nothing is kept.
    evidence : dict
        exams (with several images, on validation), kept, gain (an entry, or None where there are too few
        groups), by_score, by_sureness (as fitted, kept or not), and sentence.
    """
    names = validation["path"].map(exam)
    images = validation[names.notna()].sort_values("path")
    codes = encode_groups(names[images.index])
    table = pool_exams(validation, exam, scores=scores, truth=truth)
    y, several = _encode(table[truth], scores), table["images"].to_numpy() > 1
    group = encode_groups(table["group"])
    few = not several.any() or len(set(y)) < 2 or has_few_groups((y > 0)[several], group[several])
    if few:
        sentence = (
            f"Attention was asked for, and not fitted: too few of the {len(table)} validation exams have "
            "several images."
        )
        found = {"exams": int(several.sum()), "kept": False, "gain": None, "by_score": 0.0}
        return Attention(), found | {"by_sureness": 0.0, "sentence": sentence}
    p = _all_classes(images[list(scores)].to_numpy(float))
    spread = np.maximum(_properties(p).std(axis=0), 1e-6)
    problem = _Problem(p, codes, y, spread)
    fold = np.random.default_rng([seed, len(table)]).permutation(group.max() + 1)[group] % _FOLDS
    gain = np.zeros(len(y))
    for number in np.unique(fold):
        held_out = fold == number
        plain, learned = (problem.fit(~held_out, learn=learn) for learn in (False, True))
        gain[held_out] = (problem.losses(plain) - problem.losses(learned))[held_out]
    entry = grouped_mean(gain[several], group[several])
    kept = compare_to_bound(entry, 0.0) == SHOWN
    by_score, by_sureness = (float(value) for value in problem.fit(np.ones(len(y), bool), learn=True)[:2])
    outcome = "it is kept" if kept else "that is no gain beyond chance, and the mean is kept"
    sentence = (
        f"Attention was fitted on {int(several.sum())} validation exams of several images: weights "
        f"{by_score:+z.2f} of the score and {by_sureness:+z.2f} of sureness. In cross-validation by groups "
        f"its gain in log-loss over the mean is {describe(entry, 3)} an exam: {outcome}."
    )
    evidence = {"exams": int(several.sum()), "kept": kept, "gain": entry, "by_score": by_score}
    evidence |= {"by_sureness": by_sureness, "sentence": sentence}
    scale = (float(spread[0]), float(spread[1]))
    return (Attention(by_score, by_sureness, scale) if kept else Attention()), evidence


class _Problem:
    """The likelihood of exams' classes: two weights of attention, the log of a slope, intercepts."""

    def __init__(self, p: np.ndarray, codes: np.ndarray, y: np.ndarray, spread: np.ndarray) -> None:
        self.p, self.codes, self.y = p, codes, y
        self.properties = _properties(p) / spread

    def losses(self, x: np.ndarray) -> np.ndarray:
        """Return the log-loss of each exam."""
        pooled = _mean(self.p, _softmax(self.properties @ x[:2], self.codes), self.codes)
        logits = np.exp(x[2]) * np.log(np.clip(pooled, _MARGIN, 1)) + np.append(0.0, x[3:])
        return -log_softmax(logits, axis=1)[np.arange(len(self.y)), self.y]

    def fit(self, rows: np.ndarray, *, learn: bool) -> np.ndarray:
        """Return what fits the exams of `rows` best, with the two weights held at 0 unless they learn."""
        deviations = np.array([*_PRIORS[:3], *_PRIORS[3:] * (self.p.shape[1] - 1)])
        free = [(None, None)] * (len(deviations) - 2)
        bounds = [(None, None) if learn else (0.0, 0.0)] * 2 + free

        def penalised(x: np.ndarray) -> float:
            return float(self.losses(x)[rows].sum() + ((x / deviations) ** 2).sum() / 2)

        return minimize(penalised, np.zeros(len(deviations)), method="L-BFGS-B", bounds=bounds).x
