"""Several models on the same images: the headline table and its ranking."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from xray_helpers.data.parts import check_made_with
from xray_helpers.evaluation.intervals import describe, describe_count
from xray_helpers.evaluation.metrics import METRIC_TITLES, METRICS
from xray_helpers.evaluation.paired import describe_pairs
from xray_helpers.settings import VALIDATION, InputError
from xray_helpers.study.files import read_csv, read_json


def evaluated_models(study: Path, models: tuple[str, ...], manifest: pd.DataFrame) -> list[str]:
    """Return those of `models` that have been evaluated, in their order.

    Parameters
    ----------
    study : Path
    models : tuple of str
    manifest : DataFrame
        The study's ``manifest.csv``.

    Raises
    ------
    InputError
        When there is none, or one was made with another manifest.
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
    """Return a row a model, ranked by AUROC on test.

    Returns
    -------
    DataFrame
        rank, model, n, n_groups, n_effective (Kish's effective number of groups), leak (share of the test
        images with a sibling in train or validation), threshold, validation_auroc, then for each metric its
        value, ``<metric>_low`` and ``<metric>_high`` (95 %), then tp, fp, tn, fn.

    Raises
    ------
    InputError
        When the models were not judged on the same images.
    """
    check_same_images(study, models)
    rows = [{"model": name} | flatten_metrics(read_json(study / name / "metrics.json")) for name in models]
    table = pd.DataFrame(rows).sort_values(["auroc", "model"], ascending=[False, True], ignore_index=True)
    table.insert(0, "rank", table["auroc"].rank(ascending=False, method="min").astype("Int64"))
    return table


def check_same_images(study: Path, models: list[str]) -> None:
    """Raise `InputError` unless all models predicted the same test images with the same truth."""
    first = None
    for name in models:
        seen = read_csv(study / name / "predictions_test.csv")[["path", "y_true"]]
        if first is not None and not seen.equals(first):
            raise InputError(
                f"{name} was judged on other test images than {models[0]}: run 02 and 03 again for both, "
                "after the same 01."
            )
        first = seen


def flatten_metrics(metrics: dict[str, Any]) -> dict[str, Any]:
    """Return ``metrics.json`` as one flat row: value, low and high of each metric."""
    row = {key: metrics.get(key, np.nan) for key in ("n", "n_groups", "n_effective", "leak", "threshold")}
    row["validation_auroc"] = metrics["validation"]["auroc"]["value"]
    for name in METRICS:
        entry = metrics[name]
        told = {name: entry["value"], f"{name}_low": entry["ci_low"], f"{name}_high": entry["ci_high"]}
        row |= {key: np.nan if value is None else value for key, value in told.items()}
    return row | {key: metrics[key] for key in ("tp", "fp", "tn", "fn")}


def cost_table(study: Path, models: list[str]) -> pd.DataFrame:
    """Return what each model costs: model, parameters, latency_ms (an image, TensorFlow, 16 at a time),
    training_seconds.

    The seconds are those of the step 02 in this study (shorter where features came from the cache); missing
    by hand.
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
    """Return the test images on which decisions differ, the most differently judged first, one a group.

    Returns
    -------
    DataFrame
        path, group, y_true, spread (standard deviation of P(Fractured) over models), fractured_votes, and the
        probabilities, a column a model.
    """
    first = next(iter(predictions.values()))
    p = pd.DataFrame({name: table["y_prob"] for name, table in predictions.items()})
    votes = sum(table["y_pred"] for table in predictions.values())
    table = (
        first[["path", "group", "y_true"]].assign(spread=p.std(axis=1, ddof=0), fractured_votes=votes).join(p)
    )
    split = table[(votes > 0) & (votes < len(predictions))]
    ordered = split.sort_values(["spread", "path"], ascending=[False, True]).drop_duplicates("group")
    return ordered.head(count).reset_index(drop=True)


def choose_primary(table: pd.DataFrame, model: str = VALIDATION) -> str:
    """Return the model that a study's primary endpoint is of: the one named, or the one with the best AUROC
    on validation.

    Parameters
    ----------
    table : DataFrame
        Of `compare_models`.
    model : str
        A model's name, or ``validation``; a model that could not be judged gives way to validation's choice.
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
    """Return what a study found: the primary endpoint of the model that was fixed before test, and whether
    others differ.

    Parameters
    ----------
    table : DataFrame
        Of `compare_models`.
    baseline : float
        Accuracy of always naming the commoner class of the test part.
    pairs : DataFrame, optional
        Of `paired.compare_pairs`: what alone decides whether others differ. Intervals that overlap decide
        nothing.
    primary : str
        The metric that was named as primary endpoint.
    model : str
        As for `choose_primary`.
    """
    chosen = choose_primary(table, model)
    row = table[table["model"] == chosen].iloc[0]
    if pd.isna(row["auroc"]):
        return f"AUROC of {chosen} is not defined on this test part: it holds one class only."
    known = pd.notna(row["auroc_low"])
    how = (
        ""
        if len(table) == 1
        else ", the model that validation prefers,"
        if chosen != model
        else ", named beforehand,"
    )
    text = (
        f"{chosen}{how} has {METRIC_TITLES[primary]} {_describe(row, primary)} on "
        f"{describe_count(row, 'test images')}"
    )
    if primary != "auroc":
        text += f", AUROC {_describe(row, 'auroc')}"
    text += f", and accuracy {row['accuracy']:.2f} where the majority class alone gives {baseline:.2f}. "
    if row["leak"]:
        return (
            text
            + f"But {row['leak']:.0%} of the test images have a sibling in train: the scores are inflated."
        )
    if not known:
        return text + "From so few sources or patients nothing follows for others."
    if row["auroc_low"] <= 0.5:
        text += (
            "The interval of AUROC includes 0.5: that it is better than chance is not shown on these images. "
        )
    if len(table) > 1 and pairs is not None:
        text += describe_pairs(pairs, chosen)
    return text.strip()


def _describe(row: pd.Series, metric: str) -> str:
    entry = {"value": row[metric], "ci_low": row[f"{metric}_low"], "ci_high": row[f"{metric}_high"]}
    return (
        describe(entry).replace(" (", " (95 % interval ", 1) if pd.notna(entry["ci_low"]) else describe(entry)
    )
