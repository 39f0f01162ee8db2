"""All models together: the mean of their probabilities, and a stack of them fitted on what chose their
thresholds.
"""

from pathlib import Path

import numpy as np
import pandas as pd
from scipy.special import logit
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict

from xray_helpers.evaluation.metrics import evaluate
from xray_helpers.evaluation.operating_point import OUT_OF_FOLD, VALIDATION
from xray_helpers.evaluation.paired import ALPHA, MARGIN, compare_pairs
from xray_helpers.evaluation.thresholds import choose_threshold, evaluate_sensitivity
from xray_helpers.study.files import read_csv

_EDGE = 1e-6
MEAN = "Ensemble (mean)"


def build_ensembles(study: Path, models: list[str], chosen: dict, *, leak: float = 0.0) -> tuple[dict, dict]:
    """Join the models' predictions and judge what comes out as a model is judged.

    Parameters
    ----------
    study : Path
    models : list of str
        Whose predictions are there.
    chosen : dict
        A model's ``threshold.json``: by its rule and target_sensitivity each ensemble's own threshold is
        chosen, on the predictions that the models' thresholds were chosen on (validation where these differ).
    leak
        As for `metrics.evaluate`.

    Returns
    -------
    predictions : dict
        ``Ensemble (mean)`` and ``Ensemble (stacked)`` to their ``predictions_test`` table.
    scores : dict
        The same names to what ``metrics.json`` holds. Both are empty where there is one model only.
    """
    if len(models) < 2:
        return {}, {}
    validation, test = (
        [read_csv(study / name / f"predictions_{part}.csv") for name in models] for part in ("val", "test")
    )
    basis = read_basis(study, models) or validation
    chosen = chosen | {"chosen_on": OUT_OF_FOLD if _are_others(basis, validation) else VALIDATION}
    mean = tuple(np.mean([t["y_prob"] for t in tables], axis=0) for tables in (basis, validation, test))
    joined = {MEAN: mean, "Ensemble (stacked)": _stack(basis, validation, test)}
    predictions, scores, rule = {}, {}, (chosen["rule"], chosen["target_sensitivity"])
    for name, (p_basis, p_validation, p_test) in joined.items():
        threshold = choose_threshold(basis[0]["y_true"], p_basis, *rule, basis[0]["group"])
        tables = [
            base[0].assign(y_prob=p, y_pred=(p >= threshold).astype(int))
            for base, p in ((validation, p_validation), (test, p_test))
        ]
        predictions[name], own = tables[1], chosen | {"threshold": threshold}
        if chosen["rule"] == "sensitivity":  # the models' own is not the ensemble's
            own["sensitivity"] = evaluate_sensitivity(basis[0].assign(y_prob=p_basis), threshold)
        scores[name] = evaluate(tables[1], tables[0], own, leak=leak)
    return predictions, scores


def read_basis(study: Path, models: list[str]) -> list[pd.DataFrame]:
    """Return the predictions on which the models' thresholds were chosen; none where these are not of the
    same images.
    """
    paths = [study / name / "predictions_threshold.csv" for name in models]
    if not all(path.exists() for path in paths):
        return []
    tables = [read_csv(path) for path in paths]
    return [] if any(_are_others(tables[:1], [table]) for table in tables) else tables


def _are_others(some: list[pd.DataFrame], others: list[pd.DataFrame]) -> bool:
    return some[0]["path"].tolist() != others[0]["path"].tolist()


def _stack(
    basis: list[pd.DataFrame], validation: list[pd.DataFrame], test: list[pd.DataFrame]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Logistic regression on the models' log-odds, fitted on the basis; for the basis itself, out of fold by
    groups.

    For validation it is fitted without the groups of validation.
    """
    x, x_validation, x_test = (
        np.stack([logit(np.clip(t["y_prob"], _EDGE, 1 - _EDGE)) for t in tables], axis=1)
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
    if _are_others(basis, validation):
        p_validation = model.fit(x[rest], y[rest]).predict_proba(x_validation)[:, 1]
    return p, p_validation, model.fit(x, y).predict_proba(x_test)[:, 1]


def compare_ensemble(joined: dict, model: str, alone: pd.DataFrame) -> pd.DataFrame:
    """Return the paired test of the mean of all models against one of them, as `paired.compare_pairs`; empty
    for one model.

    Parameters
    ----------
    joined : dict
        The predictions of `build_ensembles`.
    model : str
    alone : DataFrame
        That model's ``predictions_test.csv``.
    """
    if not joined:
        return pd.DataFrame()
    return compare_pairs({MEAN: joined[MEAN], model: alone})


def describe_ensembles(scores: dict, best: str, best_auroc: float, tested: pd.DataFrame | None = None) -> str:
    """Return whether joining the models brought anything, in a sentence; an empty text where there was one
    model only.

    Parameters
    ----------
    scores : dict
        Of `build_ensembles`.
    best : str
    best_auroc : float
    tested : DataFrame, optional
        Of `compare_ensemble`, which alone decides: without it nothing is said of a gain.
    """
    if not scores:
        return ""
    words = [
        f"{name.split('(')[1].rstrip(')')} {entry['auroc']['value']:.2f}"
        for name, entry in scores.items()
        if entry["auroc"]["value"] is not None
    ]
    text = f"All models together reach AUROC {' and '.join(words)}, {best} alone {best_auroc:.2f}: "
    if tested is None or tested.empty or not np.isfinite(tested["p"].iloc[0]):
        return text + "whether joining them adds anything was not tested."
    row = tested.iloc[0]
    told = f"their mean differs by {row['difference']:+.2f} ({row['ci_low']:+.2f} to {row['ci_high']:+.2f})"
    if row["p"] < ALPHA:
        return (
            text
            + f"{told}: joining them {'adds' if row['difference'] > 0 else 'takes away'} something, at the "
            "cost of all."
        )
    if row["ci_high"] < MARGIN:
        return text + f"{told}: joining them adds nothing worth the cost of running all."
    return text + f"{told}: that joining them adds anything is not shown."
