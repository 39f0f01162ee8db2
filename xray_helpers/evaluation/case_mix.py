"""How images from elsewhere differ from a study's own: case mix, distance, and whether one can tell."""

from typing import Any

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from xray_helpers.evaluation.intervals import (
    describe,
    encode_groups,
    grouped_mean,
    grouped_proportion,
    has_few_groups,
    no_interval,
)
from xray_helpers.evaluation.metrics import compute_metrics
from xray_helpers.evaluation.subgroups import evaluate_subgroups, name_subgroups, subgroup_columns
from xray_helpers.settings import class_names
from xray_helpers.study.files import build_table
from xray_helpers.study.seeds import derive_seed

NUMBERS = {
    "width": "width, pixels",
    "height": "height, pixels",
    "mean_grey": "mean grey (0 to 255)",
    "black_share": "share that is black",
}
MAX_IMAGES = 2000  # of each set, for the classifier that tells them apart
FEWEST_NAMED = 5  # images of a manufacturer that is named
DISTANCES = ("near", "middle", "far")
_COLUMNS = (
    *("property", "value", "study", "study_low", "study_high", "study_n"),
    *("there", "there_low", "there_high", "there_n", "smd"),
)
_CATEGORIES = 6  # values of a column that are listed


def compare_case_mix(
    internal: pd.DataFrame, external: pd.DataFrame, *, labelled: bool = True
) -> pd.DataFrame:
    """Compare what is known of two sets of images.

    Parameters
    ----------
    internal, external : DataFrame
        Rows of both manifests: y_true, group, status, the user's own columns, and where they were measured
        the columns `NUMBERS`, manufacturer and suffix.
    labelled : bool
        Whether the external set has labels.

    Returns
    -------
    DataFrame
        One row per share or mean: property, value (of a share), study and there, each with ``_low``,
        ``_high`` (95 %, by groups) and ``_n``; smd (standardised mean difference, there less study; above 0.1
        is notable, Austin 2009). Columns that only one set has are left out.
    """
    rows = []
    if labelled:
        truth = [(part["y_true"] == 1, part) for part in (internal, external)]
        rows.append(_share("class", class_names()[1], *truth))
    columns = dict.fromkeys([*subgroup_columns(internal), *subgroup_columns(external)])
    for column in columns:
        if column in NUMBERS or not all(_is_stated(part, column) for part in (internal, external)):
            continue
        values = [name_subgroups(part[column]) for part in (internal, external)]
        counted = pd.concat(values).value_counts()
        for value in counted.index[:_CATEGORIES]:
            shares = zip(values, (internal, external), strict=True)
            rows.append(_share(column, str(value), *((found == value, part) for found, part in shares)))
    for column, title in NUMBERS.items():
        if column in internal and column in external:
            rows.append(_mean(title, *((part[column].astype(float), part) for part in (internal, external))))
    return build_table(rows, _COLUMNS)


def _is_stated(part: pd.DataFrame, column: str) -> bool:
    """Return whether a column says something of at least half of the images."""
    return column in part and part[column].notna().mean() >= 0.5


def name_manufacturers(found: pd.Series) -> pd.Series:
    """Return manufacturers; those of fewer than five images are ``other``, and stand for no person."""
    few = found.map(found.value_counts()).astype("Float64") < FEWEST_NAMED
    return found.mask(few.fillna(False).astype(bool), "other")


def _share(name: str, value: str, first: tuple, second: tuple) -> dict[str, Any]:
    row, shares = {"property": name, "value": value}, []
    for where, (hits, part) in (("study", first), ("there", second)):
        hits = hits.fillna(False).astype(bool)
        entry = grouped_proportion(hits, part["group"])
        row |= _flatten(where, entry, len(part))
        shares.append(float(hits.mean()) if len(hits) else np.nan)
    spread = np.sqrt(np.mean([share * (1 - share) for share in shares]))
    return row | {"smd": (shares[1] - shares[0]) / spread if spread > 0 else np.nan}


def _mean(name: str, first: tuple, second: tuple) -> dict[str, Any]:
    row, moments = {"property": name, "value": "mean"}, []
    for where, (values, part) in (("study", first), ("there", second)):
        known = values.notna()
        entry = (
            grouped_mean(values[known], part.loc[known, "group"]) if known.any() else no_interval(None, "")
        )
        row |= _flatten(where, entry, int(known.sum()))
        moments.append((values.mean(), values.var()))
    spread = np.sqrt(np.mean([variance for _, variance in moments]))
    return row | {"smd": (moments[1][0] - moments[0][0]) / spread if spread > 0 else np.nan}


def _flatten(where: str, entry: dict[str, Any], n: int) -> dict[str, Any]:
    ends = {"": entry["value"], "_low": entry["ci_low"], "_high": entry["ci_high"]}
    return {f"{where}{end}": np.nan if value is None else value for end, value in ends.items()} | {
        f"{where}_n": n
    }


def case_mix_table(case_mix: pd.DataFrame) -> list[dict[str, str]]:
    """Return the case mix as text, what differs most first within each property."""
    rows, same = [], {where: len(set(case_mix[f"{where}_n"])) == 1 for where in ("study", "there")}
    for row in case_mix.to_dict("records"):
        digits = 2 if max(abs(row["study"]), abs(row["there"]), 0) < 10 else 0
        cells = {}
        for where, title in (("study", "study"), ("there", "there")):
            entry = {"value": row[where], "ci_low": row[f"{where}_low"], "ci_high": row[f"{where}_high"]}
            n = row[f"{where}_n"]
            name, told = (f"{title}, n = {n}", "") if same[where] else (title, f", n = {n}")
            cells[name] = describe(entry, digits) + told
        name = row["property"] if row["value"] == "mean" else f"{row['property']} = {row['value']}"
        smd = "" if pd.isna(row["smd"]) else f"{row['smd']:+z.2f}"
        rows.append({"property": name} | cells | {"standardised difference": smd})
    return rows


def describe_case_mix(case_mix: pd.DataFrame) -> str:
    """Return what differs most between both sets, in a sentence."""
    known = case_mix[case_mix["smd"].abs() > 0.1]
    if known.empty:
        return "In nothing that is known of both sets do they differ notably."
    top = known.iloc[known["smd"].abs().argsort()[::-1]].drop_duplicates("property").head(4)
    named = [
        f"{row.property}{'' if row.value == 'mean' else f' = {row.value}'} ({row.smd:+z.1f})"
        for row in top.itertuples()
    ]
    return f"They differ most, in standard deviations, in {', '.join(named)}."


def compare_unlike(internal: pd.DataFrame, external: pd.DataFrame) -> pd.DataFrame:
    """Return how many images are unlike the training images, there and in the study's test part.

    Parameters
    ----------
    internal, external : DataFrame
        unlike, group; internal may be empty.

    Returns
    -------
    DataFrame
        images (``study, test part`` or ``there``), unlike (share), ci_low, ci_high (95 %), n, n_groups.
    """
    rows = []
    for name, part in (("study, test part", internal), ("there", external)):
        if len(part):
            share = grouped_proportion(part["unlike"], part["group"])
            counts = {"n": len(part), "n_groups": part["group"].nunique()}
            entry = {"unlike": share["value"], "ci_low": share["ci_low"], "ci_high": share["ci_high"]}
            rows.append({"images": name} | entry | counts)
    return build_table(rows, ("images", "unlike", "ci_low", "ci_high", "n", "n_groups"))


def unlike_table(unlike: dict[str, pd.DataFrame]) -> list[dict[str, str]]:
    """Return the tables of `compare_unlike` as text, one row per model and set."""
    return [
        {
            "model": model,
            "images": row["images"],
            "unlike the training images": describe(row | {"value": row["unlike"]}, 3),
            "n": f"{row['n']} in {row['n_groups']} groups",
        }
        for model, table in unlike.items()
        for row in table.to_dict("records")
    ]


def tell_apart(
    internal: tuple[np.ndarray, pd.Series], external: tuple[np.ndarray, pd.Series], seed: int = 0
) -> dict[str, Any]:
    """Return the AUROC, out of fold, of a classifier that tells both sets apart by what the model sees.

    Logistic regression on standardised features; groups stay in one fold. 0.5 means that they cannot be told
    apart, 1 that a picture gives away where it was taken.

    Parameters
    ----------
    internal, external : (ndarray of float of shape (n, d), Series)
        Features, and the groups of the images.
    seed : int

    Returns
    -------
    dict
        value, ci_low, ci_high, and method or reason; n, n_groups.
    """
    rng = np.random.default_rng(derive_seed(seed, "tell apart"))
    x, y, groups = [], [], []
    for label, (features, group) in enumerate((internal, external)):
        kept = np.sort(rng.permutation(len(features))[:MAX_IMAGES])
        x.append(np.asarray(features)[kept])
        y.append(np.full(len(kept), label))
        groups.append(f"{label}/" + group.iloc[kept].astype(str))
    y, codes = np.concatenate(y), encode_groups(pd.concat(groups))
    if not all(len(part) for part in x) or has_few_groups(y, codes):
        return no_interval(None, "too few groups, or no images to compare with") | {
            "n": len(y),
            "n_groups": len(np.unique(codes)),
        }
    pixels = np.concatenate(x).astype(np.float64)
    probability = np.full(len(y), np.nan)
    folds = StratifiedGroupKFold(5, shuffle=True, random_state=derive_seed(seed, "tell apart"))
    for train, test in folds.split(pixels, y, codes):
        model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=500))
        probability[test] = model.fit(pixels[train], y[train]).predict_proba(pixels[test])[:, 1]
    counts = {"n": len(y), "n_groups": len(np.unique(codes))}
    return compute_metrics(y, probability, 0.5, codes)["auroc"] | counts


def describe_domain(apart: dict[str, Any], unlike: pd.DataFrame) -> str:
    """Return how far both sets are from each other in what the model sees, in sentences."""
    there = unlike.iloc[-1].to_dict()
    entry = {"value": there["unlike"], "ci_low": there["ci_low"], "ci_high": there["ci_high"]}
    text = f"A share of {describe(entry)} is unlike the training images"
    if len(unlike) > 1:
        here = unlike.iloc[0].to_dict()
        own = {"value": here["unlike"], "ci_low": here["ci_low"], "ci_high": here["ci_high"]}
        text += f", and of the study's test part {describe(own)}"
    if apart["value"] is None:
        return f"{text}; whether a picture tells where it was taken is not known ({apart['reason']})."
    return f"{text}; a classifier tells both sets apart with AUROC {describe(apart)} (n = {apart['n']})."


def score_by_distance(predictions: pd.DataFrame, threshold: float) -> pd.DataFrame:
    """Score the external images in thirds of their distance to the training images.

    Parameters
    ----------
    predictions : DataFrame
        path, group, y_true, y_prob, distance.
    threshold : float

    Returns
    -------
    DataFrame
        Of `subgroups.evaluate_subgroups`: column ``distance``, value near, middle or far.
    """
    order = predictions["distance"].rank(method="first")
    third = np.minimum((order - 1) * 3 // len(predictions), 2).astype(int)
    named = predictions[["path"]].assign(distance=[DISTANCES[number] for number in third])
    kept = predictions.drop(columns="distance")
    table = evaluate_subgroups(kept, named, threshold, ["distance"])
    rank = {value: place for place, value in enumerate(("all images", *DISTANCES))}
    return table.sort_values("value", key=lambda values: values.map(rank), ignore_index=True)
