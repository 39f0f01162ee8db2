"""All models together: the mean of their probabilities, and a stacked logistic regression."""

from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict

from xray_helpers.evaluation.log_odds import log_odds
from xray_helpers.evaluation.metrics import evaluate
from xray_helpers.evaluation.operating_point import OUT_OF_FOLD, VALIDATION
from xray_helpers.evaluation.paired import ALPHA, MARGIN, compare_pairs
from xray_helpers.evaluation.thresholds import choose_threshold, evaluate_sensitivity
from xray_helpers.study.files import read_csv

MEAN, STACKED = "Ensemble (mean)", "Ensemble (stacked)"


def build_ensembles(study: Path, models: list[str], chosen: dict, *, leak: float = 0.0) -> tuple[dict, dict]:
    """Combine the predictions of all models, and evaluate the ensembles as if they were models.

    Parameters
    ----------
    study : Path
    models : list of str
        Those that have been evaluated.
    chosen : dict
        A model's ``threshold.json``. The threshold of each ensemble is chosen by the same rule and
        target_sensitivity, on the predictions on which the models' thresholds were chosen (on validation
        where these are not of the same images).
    leak : float
        As for `metrics.evaluate`.

    Returns
    -------
    predictions : dict
        Of ``Ensemble (mean)`` and ``Ensemble (stacked)`` what ``predictions_test.csv`` holds for a model.
    scores : dict
        Of the same names what ``metrics.json`` holds for a model. Both are empty with a single model.
    """
    if len(models) < 2:
        return {}, {}
    validation, test = (
        [read_csv(study / name / f"predictions_{part}.csv") for name in models] for part in ("val", "test")
    )
    basis = _read_basis(study, models) or validation
    chosen = chosen | {"chosen_on": VALIDATION if _same_images(basis[0], validation[0]) else OUT_OF_FOLD}
    mean = tuple(np.mean([t["y_prob"] for t in tables], axis=0) for tables in (basis, validation, test))
    predictions, scores, rule = {}, {}, (chosen["rule"], chosen["target_sensitivity"])
    for name, combined in {MEAN: mean, STACKED: _stack(basis, validation, test)}.items():
        threshold = choose_threshold(basis[0]["y_true"], combined[0], *rule, basis[0]["group"])
        of_basis, of_validation, of_test = (
            tables[0].assign(y_prob=p, y_pred=(p >= threshold).astype(int))
            for tables, p in zip((basis, validation, test), combined, strict=True)
        )
        own = chosen | {"threshold": threshold}
        if chosen["rule"] == "sensitivity":
            own["sensitivity"] = evaluate_sensitivity(of_basis, threshold)
        predictions[name], scores[name] = of_test, evaluate(of_test, of_validation, own, leak=leak)
    return predictions, scores


def _read_basis(study: Path, models: list[str]) -> list[pd.DataFrame]:
    """Return the predictions on which thresholds were chosen; none where they are not of the same images."""
    paths = [study / name / "predictions_threshold.csv" for name in models]
    if not all(path.exists() for path in paths):
        return []
    tables = [read_csv(path) for path in paths]
    return tables if all(_same_images(tables[0], table) for table in tables) else []


def _same_images(one: pd.DataFrame, other: pd.DataFrame) -> bool:
    return one["path"].tolist() == other["path"].tolist()


def _stack(
    basis: list[pd.DataFrame], validation: list[pd.DataFrame], test: list[pd.DataFrame]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the probabilities of a logistic regression on the log-odds of the models, fitted on the basis.

    Those of the basis itself are out of fold by groups; for validation it is fitted without its groups.
    """
    x, x_validation, x_test = (
        np.stack([log_odds(table["y_prob"], 1e-6) for table in tables], axis=1)
        for tables in (basis, validation, test)
    )
    y, groups = basis[0]["y_true"].to_numpy(), basis[0]["group"].to_numpy()
    model = LogisticRegression(C=0.1)
    folds = min(5, *(len(np.unique(groups[y == c])) for c in (0, 1)))
    if folds < 2:
        p = model.fit(x, y).predict_proba(x)[:, 1]
    else:
        splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=0)
        p = cross_val_predict(model, x, y, groups=groups, cv=splitter, method="predict_proba")[:, 1]
    p_validation, rest = p, ~np.isin(groups, validation[0]["group"])
    if not _same_images(basis[0], validation[0]):
        p_validation = model.fit(x[rest], y[rest]).predict_proba(x_validation)[:, 1]
    return p, p_validation, model.fit(x, y).predict_proba(x_test)[:, 1]


def compare_ensemble(joined: dict, model: str, alone: pd.DataFrame) -> pd.DataFrame:
    """Return `paired.compare_pairs` of the mean of `build_ensembles` and a model; empty without ensembles."""
    return compare_pairs({MEAN: joined[MEAN], model: alone}) if joined else pd.DataFrame()


def describe_ensembles(scores: dict, best: str, best_auroc: float, tested: pd.DataFrame | None = None) -> str:
    """Return whether combining the models improves on the best, in a sentence; empty with a single model.

    Parameters
    ----------
    scores : dict
        Of `build_ensembles`.
    best : str
    best_auroc : float
    tested : DataFrame, optional
        Of `compare_ensemble`, on which the verdict rests.
    """
    if not scores:
        return ""
    reached = [
        f"{name.split('(')[1].rstrip(')')} {entry['auroc']['value']:.2f}"
        for name, entry in scores.items()
        if entry["auroc"]["value"] is not None
    ]
    text = f"All models together reach AUROC {' and '.join(reached)}, {best} alone {best_auroc:.2f}: "
    if tested is None or tested.empty or not np.isfinite(tested["p"].iloc[0]):
        return text + "whether combining them helps was not tested."
    row = tested.iloc[0]
    interval = f"{row['ci_low']:+z.2f} to {row['ci_high']:+z.2f}"
    text += f"their mean differs by {row['difference']:+z.2f} ({interval}): "
    if row["p"] < ALPHA:
        helps = row["difference"] > 0
        return text + f"combining them {'helps, at the cost of running all' if helps else 'makes it worse'}."
    if row["ci_high"] < MARGIN:
        return text + "combining them gains nothing that is worth the cost of running all."
    return text + "combining them is not shown to help."
