"""Ways to train a model for several sites, compared at each site and over all: who gains, who loses."""

from typing import Any

import numpy as np
import pandas as pd

from xray_helpers.evaluation.external import TITLES, describe_signed
from xray_helpers.evaluation.gaps import MARGIN
from xray_helpers.evaluation.intervals import (
    compute_group_statistics,
    describe,
    describe_count,
    describe_p,
    encode_groups,
    flatten_entry,
    mean_interval,
    t_test,
    unflatten_entry,
)
from xray_helpers.evaluation.metrics import compute_metrics
from xray_helpers.evaluation.paired import compare_pairs, holm
from xray_helpers.evaluation.verdict import RULED_OUT, SHOWN, UNKNOWN, compare_to_bound

LOCAL, FEDERATED, POOLED, STUDY = "local", "federated", "pooled", "study's model"
WAYS = (LOCAL, FEDERATED, POOLED, STUDY)
ALL = "all sites together"
PAIRS = ((FEDERATED, LOCAL), (FEDERATED, POOLED), (FEDERATED, STUDY))
_CHANGE = f"gain or loss of {MARGIN:g} or more"
_TITLES = TITLES | {"brier": "Brier score"}


def score_sites(predictions: pd.DataFrame) -> pd.DataFrame:
    """Score each way of training at each site, and over all where there are several.

    Parameters
    ----------
    predictions : DataFrame
        site, way, path, group, y_true, y_prob, y_pred (at the threshold of that site and way), threshold.

    Returns
    -------
    DataFrame
        site, way, threshold (missing over all), n, n_groups, n_effective, prevalence, and auroc, recall,
        specificity and brier, each with ``_low`` and ``_high`` (95 %, by groups).
    """
    rows = []
    for site, way, part in _parts(predictions):
        y, group = part["y_true"].to_numpy(), part["group"]
        found = compute_metrics(y, part["y_prob"].to_numpy(), 0.5, group)
        called = compute_metrics(y, part["y_pred"].to_numpy(float), 0.5, group)
        found |= {name: called[name] for name in ("recall", "specificity")}
        threshold = np.nan if site == ALL else float(part["threshold"].iloc[0])
        row = {"site": site, "way": way, "threshold": threshold}
        row |= {key: found[key] for key in ("n", "n_groups", "n_effective", "prevalence")}
        for name in _TITLES:
            row |= flatten_entry(name, found[name], missing=np.nan)
        rows.append(row)
    return pd.DataFrame(rows)


def _parts(predictions: pd.DataFrame) -> list[tuple[str, str, pd.DataFrame]]:
    sites = sorted(predictions["site"].unique())
    sites += [ALL] * (len(sites) > 1)
    ways = [way for way in WAYS if way in set(predictions["way"])]
    found = []
    for site in sites:
        mine = predictions if site == ALL else predictions[predictions["site"] == site]
        ordered = mine.sort_values(["site", "path"])
        found += [(site, way, ordered[ordered["way"] == way].reset_index(drop=True)) for way in ways]
    return found


def compare_sites(predictions: pd.DataFrame) -> pd.DataFrame:
    """Compare federated training with each other way, on the same test images, by groups.

    Parameters
    ----------
    predictions : DataFrame
        As for `score_sites`.

    Returns
    -------
    DataFrame
        site, first, second (`PAIRS`), score (auroc, recall), difference (first less second), ci_low, ci_high
        (95 %), p, p_holm (Holm's correction over the sites, for each pair and score), reason, and state: who
        of both is better, ``shown`` or not (`judge_gain`).
    """
    tables = {(site, way): part for site, way, part in _parts(predictions)}
    rows = []
    for site in dict.fromkeys(site for site, _ in tables):
        for first, second in PAIRS:
            if (site, second) not in tables:
                continue
            pair = tables[site, first], tables[site, second]
            common = {"site": site, "first": first, "second": second}
            rows.append(common | {"score": "auroc"} | _compare_auroc(*pair))
            rows.append(common | {"score": "recall"} | _compare_recall(*pair))
    table = pd.DataFrame(rows)
    each = table[table["site"] != ALL].groupby(["first", "second", "score"])["p"]
    table["p_holm"] = each.transform(lambda p: holm(p.to_numpy(float))).reindex(table.index)
    table["p_holm"] = table["p_holm"].fillna(table["p"].where(table["site"] == ALL))
    return table.assign(state=[judge_gain(row) for row in table.to_dict("records")])


def _compare_auroc(first: pd.DataFrame, second: pd.DataFrame) -> dict[str, Any]:
    if first["y_true"].nunique() < 2:
        return {
            "difference": np.nan,
            "ci_low": np.nan,
            "ci_high": np.nan,
            "p": np.nan,
            "reason": "one class only",
        }
    row = compare_pairs({"first": first, "second": second}).iloc[0]
    few = "" if np.isfinite(row["ci_low"]) else "not enough independent sources"
    return {key: row[key] for key in ("difference", "ci_low", "ci_high", "p")} | {"reason": few}


def _compare_recall(first: pd.DataFrame, second: pd.DataFrame) -> dict[str, Any]:
    """Return the difference in sensitivity, by the jackknife of groups."""
    positive = first["y_true"] == 1
    if not positive.any():
        return {
            "difference": np.nan,
            "ci_low": np.nan,
            "ci_high": np.nan,
            "p": np.nan,
            "reason": "no fracture",
        }
    net = (first.loc[positive, "y_pred"] - second.loc[positive, "y_pred"]).to_numpy(float)
    if not net.any():
        alike = "both call every fractured image alike"
        return {"difference": 0.0, "ci_low": np.nan, "ci_high": np.nan, "p": np.nan, "reason": alike}
    value, codes = float(net.mean()), encode_groups(first.loc[positive, "group"])
    spread = compute_group_statistics((net - value) / len(net), codes)
    entry = mean_interval(value, spread)
    known = entry["ci_low"] is not None
    p = t_test(value, float(np.sqrt(spread.variance)), spread.freedom) if known else np.nan
    ends = {key: entry[key] if known else np.nan for key in ("ci_low", "ci_high")}
    return {"difference": value, **ends, "p": p, "reason": entry.get("reason", "")}


def judge_gain(row: dict[str, Any]) -> str:
    """Return whether the first is better or worse, or differs by less than the margin, as far as shown."""
    side = compare_to_bound(row, 0.0)
    if side == SHOWN:
        return f"gains: {SHOWN}"
    if side == RULED_OUT:
        return f"loses: {SHOWN}"
    if pd.notna(row["ci_low"]) and row["ci_low"] > -MARGIN and row["ci_high"] < MARGIN:
        return f"{_CHANGE}: {RULED_OUT}"
    return UNKNOWN


def sites_table(scores: pd.DataFrame) -> list[dict[str, str]]:
    """Return the scores as text, one row per site and way."""
    return [
        {"site": row["site"], "trained": row["way"]}
        | {title: describe(unflatten_entry(row, name)) for name, title in _TITLES.items()}
        | {
            "threshold": "of each site" if pd.isna(row["threshold"]) else f"{row['threshold']:.2f}",
            "n": describe_count(row),
        }
        for row in scores.to_dict("records")
    ]


def gains_table(gains: pd.DataFrame) -> list[dict[str, str]]:
    """Return the differences as text, one row per site and pair."""
    rows = []
    for (site, first, second), part in gains.groupby(["site", "first", "second"], sort=False):
        row = {"site": site, "compared": f"{first} less {second}"}
        for one in part.to_dict("records"):
            p = f"; p {describe_p(one['p_holm'])}" if pd.notna(one["p_holm"]) else ""
            row[TITLES[one["score"]]] = describe_signed(one | {"value": one["difference"]}) + p
            if one["score"] == "auroc":
                row["verdict, by AUROC"] = one["state"]
        rows.append(row)
    return rows


def describe_gains(gains: pd.DataFrame) -> str:
    """Return who gains and who loses by federated training, against each other way, in sentences."""
    texts = []
    for first, second in PAIRS:
        rows = gains[(gains["second"] == second) & (gains["score"] == "auroc")]
        if rows.empty:
            continue
        told = [
            f"{state} for {', '.join(sites)}" for state, sites in rows.groupby("state", sort=False)["site"]
        ]
        other = second.replace("study's", "the study's")
        texts.append(f"{first.capitalize()} against {other}, by AUROC: {'; '.join(told)}.")
    return " ".join(texts)
