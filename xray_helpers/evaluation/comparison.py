"""Several models on the same test images: the ranked table, and what it shows."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from xray_helpers.data.parts import check_made_with
from xray_helpers.evaluation.influence import CELLS
from xray_helpers.evaluation.intervals import describe, describe_count, flatten_entry, unflatten_entry
from xray_helpers.evaluation.metrics import METRICS
from xray_helpers.evaluation.paired import ALPHA, MARGIN, compare_pairs, describe_pairs
from xray_helpers.settings import VALIDATION, InputError
from xray_helpers.study.files import read_csv, read_json

BASELINE = "Logistic regression (32 x 32 pixels)"


def evaluated_models(study: Path, models: tuple[str, ...], manifest: pd.DataFrame) -> list[str]:
    """Return those of `models` that have been evaluated, in the same order.

    Raises
    ------
    InputError
        When there is none, or a model was evaluated with another manifest.
    """
    found = [name for name in models if (study / name / "metrics.json").exists()]
    if not found:
        raise InputError(
            f"No model of {study.name} has been evaluated: run 02_train_model and 03_evaluate_model."
        )
    for name in found:
        check_made_with(manifest, read_json(study / name / "metrics.json"), name, "02 and 03")
    return found


def compare_models(study: Path, models: list[str]) -> pd.DataFrame:
    """Return one row per model, ranked by AUROC on test.

    Returns
    -------
    DataFrame
        rank, model, n, n_groups, n_effective (Kish's effective number of groups), leak (share of the test
        images with a sibling in train or validation), threshold, validation_auroc, then for each metric its
        value, ``<metric>_low`` and ``<metric>_high`` (95 %), then tp, fp, tn, fn.

    Raises
    ------
    InputError
        When the models were not evaluated on the same images.
    """
    _check_same_images(study, models)
    rows = [{"model": name} | flatten_metrics(read_json(study / name / "metrics.json")) for name in models]
    table = pd.DataFrame(rows).sort_values(["auroc", "model"], ascending=[False, True], ignore_index=True)
    table.insert(0, "rank", table["auroc"].rank(ascending=False, method="min").astype("Int64"))
    return table


def _check_same_images(study: Path, models: list[str]) -> None:
    tables = [read_csv(study / name / "predictions_test.csv")[["path", "y_true"]] for name in models]
    for name, table in zip(models, tables, strict=True):
        if not table.equals(tables[0]):
            raise InputError(
                f"{name} was evaluated on other test images than {models[0]}: run 02 and 03 again for both, "
                "after the same 01."
            )


def flatten_metrics(metrics: dict[str, Any]) -> dict[str, Any]:
    """Return ``metrics.json`` as one flat row: value, low and high of each metric."""
    row = {key: metrics.get(key, np.nan) for key in ("n", "n_groups", "n_effective", "leak", "threshold")}
    row["validation_auroc"] = metrics["validation"]["auroc"]["value"]
    for name in METRICS:
        row |= flatten_entry(name, metrics[name], missing=np.nan)
    return row | {key: metrics[key] for key in CELLS}


def cost_table(study: Path, models: list[str]) -> pd.DataFrame:
    """Return what each model costs.

    Returns
    -------
    DataFrame
        One row per model: model, parameters, latency_ms (per image, with TensorFlow in batches of 16),
        training_seconds (of step 02 in this study, less where features came from the cache; missing where 02
        was run by hand).
    """
    steps = {step["name"]: step.get("seconds") for step in read_json(study / "study.json").get("steps", [])}
    rows = []
    for name in models:
        record = read_json(study / name / "training.json")
        rows.append(
            {
                "model": name,
                "parameters": record["parameters"],
                "latency_ms": record.get("latency_ms"),
                "training_seconds": steps.get(f"{name}/02_train_model"),
            }
        )
    return pd.DataFrame(rows)


def find_disagreements(predictions: dict[str, pd.DataFrame], count: int = 8) -> pd.DataFrame:
    """Return the test images on which models decide differently, at most one per group.

    Returns
    -------
    DataFrame
        path, group, y_true, spread (standard deviation of P(Fractured) over models), fractured_votes, and the
        probabilities, one column per model; those with the largest spread first.
    """
    first = next(iter(predictions.values()))
    p = pd.DataFrame({name: table["y_prob"] for name, table in predictions.items()})
    votes = sum(table["y_pred"] for table in predictions.values())
    table = first[["path", "group", "y_true"]].assign(spread=p.std(axis=1, ddof=0), fractured_votes=votes)
    differing = table.join(p)[(votes > 0) & (votes < len(predictions))]
    ordered = differing.sort_values(["spread", "path"], ascending=[False, True]).drop_duplicates("group")
    return ordered.head(count).reset_index(drop=True)


def choose_primary(table: pd.DataFrame, model: str = VALIDATION) -> str:
    """Return the model of a study's primary endpoint: the one named, or the best by AUROC on validation.

    Parameters
    ----------
    table : DataFrame
        Of `compare_models`.
    model : str
        A model's name, or ``validation``, which also chooses where the named model was not evaluated.
    """
    if model in set(table["model"]):
        return model
    ordered = table.sort_values(["validation_auroc", "model"], ascending=[False, True], na_position="last")
    return str(ordered["model"].iloc[0])


def describe_comparison(
    table: pd.DataFrame,
    baseline: float,
    pairs: pd.DataFrame | None = None,
    *,
    primary: str = "auroc",
    model: str = VALIDATION,
) -> str:
    """Return what a study found: the primary endpoint of the primary model, and whether others differ.

    Parameters
    ----------
    table : DataFrame
        Of `compare_models`.
    baseline : float
        Accuracy of always predicting the more frequent class of the test part.
    pairs : DataFrame, optional
        Of `paired.compare_pairs`, which alone decide whether models differ: overlapping intervals do not.
    primary : str
        The metric that is the primary endpoint.
    model : str
        As for `choose_primary`.
    """
    chosen = choose_primary(table, model)
    row = table[table["model"] == chosen].iloc[0]
    if pd.isna(row["auroc"]):
        return f"AUROC of {chosen} is not defined on this test part: it holds one class only."
    chosen_by = ", chosen on validation," if chosen != model else ", chosen in advance,"
    text = (
        f"{chosen}{chosen_by if len(table) > 1 else ''} has {METRICS[primary].title} "
        f"{_describe_score(row, primary)} on {describe_count(row, 'test images')}"
    )
    if primary != "auroc":
        text += f", AUROC {_describe_score(row, 'auroc')}"
    text += f", and accuracy {row['accuracy']:.2f} where the majority class alone gives {baseline:.2f}. "
    if row["leak"]:
        return f"{text}But {row['leak']:.0%} of the test images have a sibling in train: scores are inflated."
    if pd.isna(row["auroc_low"]):
        return f"{text}There are too few sources or patients to conclude anything about others."
    if row["auroc_low"] <= 0.5:
        text += "The interval of AUROC includes 0.5: these images do not show that it is better than chance. "
    if len(table) > 1 and pairs is not None:
        text += describe_pairs(pairs, chosen)
    return text.strip()


def _describe_score(row: pd.Series, metric: str) -> str:
    entry = unflatten_entry(row, metric)
    text = describe(entry)
    return text if entry["ci_low"] is None else text.replace(" (", " (95 % interval ", 1)


def describe_baseline(model: str, alone: pd.DataFrame, baseline: pd.DataFrame) -> str:
    """Return whether a model is better than the baseline on the same test images: yes, no, or not known.

    Parameters
    ----------
    model : str
    alone, baseline : DataFrame
        Predictions of the test part by the model and by the baseline: path, group, y_true, y_prob, y_pred.
    """
    pairs = compare_pairs({model: alone, BASELINE: baseline})
    name = "logistic regression on 32 x 32 pixels"
    if pairs.empty or not np.isfinite(pairs["p"].iloc[0]):
        return f"Whether {model} is better than {name} was not tested: there are too few groups."
    row = pairs.iloc[0]
    difference = f"AUROC {row['difference']:+z.2f} ({row['ci_low']:+z.2f} to {row['ci_high']:+z.2f})"
    if row["p"] < ALPHA:
        better = "better" if row["difference"] > 0 else "worse"
        return f"{model} is {better} than {name}: {difference}."
    if row["ci_high"] < MARGIN:
        return f"{model} is not better than {name} by {MARGIN:g} or more: {difference}."
    return f"Whether {model} is better than {name} is not known: {difference}."
