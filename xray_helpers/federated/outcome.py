"""What came of it: the heads that were trained in each way, on the test part of each site."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from xray_helpers.evaluation.calibration import fit_temperature, scale_probabilities
from xray_helpers.evaluation.class_predictions import positive_probability
from xray_helpers.evaluation.intervals import describe, unflatten_entry
from xray_helpers.evaluation.site_scores import FEDERATED, LOCAL, POOLED, STUDY, WAYS, score_sites
from xray_helpers.evaluation.thresholds import choose_threshold
from xray_helpers.federated.apps import simulate
from xray_helpers.federated.averaging import Weights, privacy_loss
from xray_helpers.federated.client import build_trained, plan_settings, predict, train_alone
from xray_helpers.federated.preparation import RUN, Part, Prepared
from xray_helpers.federated.rounds import Plan, Record, choose_round, load_weights
from xray_helpers.federated.sites import Sites
from xray_helpers.models.external import open_models, test_models
from xray_helpers.models.head import build_predictions, train_head
from xray_helpers.study.files import read_json


def predict_sites(
    prepared: Prepared,
    weights: Weights,
    study: Path | None,
    sites: Sites | None,
    chosen: Mapping[str, Any],
    ways: tuple[str, ...] = WAYS,
) -> pd.DataFrame:
    """Train a head at each site alone and one on all images, and predict each site's test part in all ways.

    The threshold and the temperature of a head are those of the site's own validation part; the study's
    model is as it is, with its own threshold.

    Parameters
    ----------
    prepared : Prepared
    weights : list of ndarray
        Of the federated head.
    study : Path or None
    sites : Sites or None
        Needed for the way `STUDY` alone.
    chosen : dict
        ``threshold.json`` of the study's model: rule and target_sensitivity.
    ways : tuple of str
        Of `evaluation.site_scores.WAYS`, of which federated is always one.

    Returns
    -------
    DataFrame
        As for `evaluation.score_sites`.
    """
    settings, parts = plan_settings(prepared.plan), prepared.parts
    federated = build_trained(prepared.plan, weights, prepared.upper)
    heads = {FEDERATED: federated}
    if POOLED in ways:
        joined = {split: join_parts(parts, split) for split in ("train", "validation")}
        heads[POOLED] = _train(joined, settings, prepared)
    model, found = prepared.plan.model, []
    opened = open_models(study, [model], sum(map(len, sites.tables.values()))) if STUDY in ways else {}
    for site, mine in parts.items():
        if LOCAL in ways:
            heads[LOCAL] = _train(mine, settings, prepared)
        for way, head in heads.items():
            found.append(_predict(head, mine, chosen).assign(site=site, way=way))
        if STUDY not in ways:
            continue
        rows = mine["test"].rows
        tested = test_models(study, opened, rows.assign(path=rows["file"]), sites.images[site])
        own = tested[model].predictions.assign(path=rows["path"].to_numpy())
        threshold = float(read_json(study / model / "threshold.json")["threshold"])
        found.append(own.assign(site=site, way=STUDY, threshold=threshold, temperature=1.0))
    columns = ["site", "way", "path", "group", "y_true", "y_prob", "y_pred", "threshold", "temperature"]
    return pd.concat(found, ignore_index=True)[columns]


def join_parts(parts: Mapping[str, Mapping[str, Part]], split: str) -> Part:
    """Return a part of all sites as one, as if images could be shared."""
    chosen = [parts[site][split] for site in sorted(parts)]
    return Part(pd.concat([one.rows for one in chosen]), np.concatenate([one.x for one in chosen]))


def _train(parts: Mapping[str, Part], settings: Any, prepared: Prepared) -> Any:
    train, validation = ((parts[split].x, parts[split].target) for split in ("train", "validation"))
    if prepared.upper:
        return train_alone(prepared.plan, train, validation, prepared.upper)
    return train_head(((train[0],), train[1]), validation, settings)[0]


def _predict(head: Any, parts: Mapping[str, Part], chosen: Mapping[str, Any]) -> pd.DataFrame:
    asked = {split: positive_probability(predict(head, parts[split].x)) for split in ("validation", "test")}
    rows = parts["validation"].rows
    y, group = rows["y_true"].to_numpy(), rows["group"].to_numpy()
    temperature = fit_temperature(y, asked["validation"])
    scaled = {split: scale_probabilities(one, temperature) for split, one in asked.items()}
    rule = (chosen["rule"], chosen.get("target_sensitivity", 0.95), group)
    threshold = choose_threshold(y, scaled["validation"], *rule)
    found = build_predictions(parts["test"].rows, scaled["test"], threshold)
    return found.assign(threshold=threshold, temperature=temperature)


def describe_trained(plan: Plan) -> str:
    """Return what of the model is trained at the sites, in sentences."""
    if not plan.trained:
        return "What is trained is the head alone: the backbone stays frozen."
    count, epochs = len(plan.trained), plan.rounds * plan.local_epochs
    return (
        f"What is trained, and travels, is the head and {count} upper layers of the backbone, from "
        f"{plan.trained[0]} on; the local and the pooled model train the same for {epochs} epochs. Below "
        "these layers, and in its batch normalization, the backbone stays as pretrained, and no picture is "
        "augmented. The study's own model was trained by its own recipe."
    )


def kept_weights(folder: Path, record: Record) -> tuple[Weights, int]:
    """Return the weights of the round of lowest validation loss, and its number."""
    number = choose_round(record)
    return load_weights(folder / f"round_{number:03d}.npz"), number


def rounds_table(record: Record) -> pd.DataFrame:
    """Return the rounds: round, sites, left out (with the reason), MB sent and received, seconds."""
    return pd.DataFrame(
        [
            {
                "round": row["round"],
                "sites": ", ".join(row["sites"]),
                "left out": "; ".join(f"{site}: {reason}" for site, reason in row["left_out"].items()),
                "MB to sites": round(row["sent"] / 1e6, 2),
                "MB from sites": round(row["received"] / 1e6, 2),
                "seconds": row["seconds"],
            }
            for row in record.rounds
        ]
    )


def describe_rounds(record: Record, plan: Plan, kept: int) -> str:
    """Return how many rounds there were, what travelled, which round is kept, and who was left out."""
    sent, received = (sum(row[key] for row in record.rounds) / 1e6 for key in ("sent", "received"))
    seconds = sum(row["seconds"] for row in record.rounds)
    text = (
        f"{len(record.rounds)} rounds of {plan.local_epochs} local epochs took {seconds:.0f} s; {sent:.1f} "
        f"MB went to the sites and {received:.1f} MB came back. Round {kept} is kept: its mean validation "
        "loss over the sites, by images, is lowest."
    )
    if kept == 0:
        text += " **Round 0 is the network before any training: training made validation no better.**"
    lost: dict[str, list[int]] = {}
    for row in record.rounds:
        for site in row["left_out"]:
            lost.setdefault(site, []).append(row["round"])
    for site, rounds in lost.items():
        reason = record.rounds[rounds[-1] - 1]["left_out"][site]
        numbers = ", ".join(map(str, rounds))
        text += f" **{site} was left out of round{'s'[: len(rounds) > 1]} {numbers}** (last: {reason})."
    return text


def leaves_table(plan: Plan, record: Record, folder: Path) -> list[dict[str, str]]:
    """Return what leaves a site, how often, and how large it is."""
    weights = load_weights(folder / "round_000.npz")
    count, size = sum(one.size for one in weights), sum(one.nbytes for one in weights)
    hidden = {
        "none": "the server",
        "secure": "nobody: masked, the server reads the sum over sites alone",
        "noise": f"the server, which adds noise; their change is clipped to the norm {plan.clip:g}",
    }[plan.privacy]
    columns = ("what", "when", "size", "who can read it")
    what, how_large = "weights of the head", f"{count:,} numbers, {size / 1e6:.2f} MB"
    what += f" and of {len(plan.trained)} layers of the backbone" if plan.trained else ""
    rows = [
        (what, "each round", how_large, hidden),
        ("number of training and validation images", "each round", "2 numbers", "the server"),
        ("validation loss", "each round", "1 number", "the server, without noise"),
        ("name of the site, hash of its backbone", "once", "2 words", "the server"),
        ("images, features, maps, predictions, names of files", "never", "nothing", "nobody"),
    ]
    return [dict(zip(columns, row, strict=True)) for row in rows]


def measure_costs(
    prepared: Prepared,
    record: Record,
    folder: Path,
    sites: Sites,
    study: Path,
    chosen: Mapping[str, Any],
    scores: pd.DataFrame,
) -> list[dict[str, str]]:
    """Run the same rounds with neither masks nor noise, and return what privacy costs, as text.

    Parameters
    ----------
    prepared : Prepared
        Of the run with privacy.
    record : Record
    folder : Path
        Of the federation.
    sites, study, chosen
        As for `predict_sites`.
    scores : DataFrame
        Of `evaluation.score_sites`, with privacy.
    """
    plain = replace(prepared.plan, privacy="none")
    plain.write(folder / "rounds_open", load_weights(folder / RUN / "round_000.npz"))
    other = simulate(folder / "rounds_open", prepared.places)
    weights, _ = kept_weights(folder / "rounds_open", other)
    openly = score_sites(predict_sites(prepared, weights, study, sites, chosen, ways=(FEDERATED,)))
    rows = []
    for privacy, one, table in (("none", other, openly), (prepared.plan.privacy, record, scores)):
        size = sum(row["sent"] + row["received"] for row in one.rounds) / 1e6
        seconds = float(np.median([row["seconds"] for row in one.rounds]))
        row = {"privacy": privacy, "MB": f"{size:.1f}", "seconds a round, median": f"{seconds:.1f}"}
        mine = table[table["way"] == FEDERATED].to_dict("records")
        rows.append(row | {f"AUROC, {one['site']}": describe(unflatten_entry(one, "auroc")) for one in mine})
    return rows


def describe_privacy(plan: Plan, record: Record) -> str:
    """Return what the setting of privacy protects, and what it does not, in sentences."""
    if plan.privacy == "secure":
        return (
            "Secure aggregation (SecAgg+): the server learns the weighted sum of the sites' weights, not "
            "those of one site; of two sites, each can still compute the other's. Masks are whole numbers: "
            "weights are rounded to about 0.000004, and beyond 8 cut off."
        )
    epsilon = privacy_loss(plan.noise, len(record.rounds))
    spent = f"epsilon {epsilon:.1f} at delta 0.00001" if np.isfinite(epsilon) else "no epsilon, without noise"
    return (
        "Differential privacy of a whole site against who sees the shared head, not against the server: "
        f"{spent} after {len(record.rounds)} rounds. Every site counts the same. Counts and validation "
        "losses, by which the round is chosen, have no noise and are not covered."
    )
