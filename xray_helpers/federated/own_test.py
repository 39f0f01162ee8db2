"""How good the shared model is at one site: its own test part, which no round read, scored there."""

from pathlib import Path

import numpy as np
import pandas as pd

from xray_helpers.evaluation.site_scores import (
    FEDERATED,
    LOCAL,
    compare_sites,
    describe_gains,
    gains_table,
    score_sites,
    sites_table,
)
from xray_helpers.federated.averaging import Update, Weights, check_update
from xray_helpers.federated.client import Site, evaluate_weights, initial_weights, plan_settings
from xray_helpers.federated.outcome import describe_rounds, kept_weights, predict_sites
from xray_helpers.federated.preparation import Prepared, read_parts
from xray_helpers.federated.rounds import ROUNDS, Plan, Record, load_weights
from xray_helpers.models.head import prepare_tensorflow
from xray_helpers.settings import InputError
from xray_helpers.study.files import write_csv, write_json

RESULTS = "test"  # in the folder of a site: what `score_site` writes


def score_site(ready: Path, rounds: Path) -> str:
    """Score the shared model, and one trained here alone, on a site's test part; write what comes out.

    Threshold and temperature of both are those of the site's validation part, by the rule of the plan, as
    `outcome.predict_sites` takes them. ``predictions.csv``, ``scores.csv``, ``gains.csv`` and
    ``results.json`` are written to `RESULTS` in the site's folder; nothing is sent.

    Parameters
    ----------
    ready : Path
        The site's folder, as `preparation.prepare_site` wrote it before the rounds.
    rounds : Path
        The run: the plan, ``rounds.json``, and the weights of the round that is kept.

    Returns
    -------
    str
        The scores, the differences and what they show, as text.

    Raises
    ------
    InputError
        When a file is missing, or site, plan, rounds and weights do not belong together.
    """
    site, plan = Site.read(ready, test=True), Plan.read(rounds)
    settings, record = plan_settings(plan), Record.read(rounds, plan.key)
    prepare_tensorflow(settings)
    parts = read_parts(site, ready)
    if not record.rounds:
        raise InputError(
            f"{rounds} holds no finished round of its plan: ask the server's hospital for {ROUNDS} and the "
            "weights once a round is done."
        )
    _check_site(site, plan, record)
    weights, kept = kept_weights(rounds, record)
    _check_weights(site, plan, weights, kept)
    _check_loss(site, plan, record, rounds, kept)
    prepared = Prepared(plan, {site.name: parts}, [ready], site.upper)
    rule = {"rule": settings.threshold_rule, "target_sensitivity": settings.target_sensitivity}
    predictions = predict_sites(prepared, weights, None, None, rule, ways=(LOCAL, FEDERATED))
    scores, gains = score_sites(predictions), compare_sites(predictions)
    epochs = plan.rounds * plan.local_epochs if plan.trained else settings.epochs
    told = describe_gains(gains), describe_rounds(record, plan, kept)
    told += (
        f"The local model was trained on the images of {site.name} alone, from where the rounds start, for "
        f"at most {epochs} epochs; validation chose the epoch.",
    )
    for name, table in (("predictions", predictions), ("scores", scores), ("gains", gains)):
        write_csv(ready / RESULTS / f"{name}.csv", table)
    facts = {"site": site.name, "model": plan.model, "plan": plan.key, "rounds": len(record.rounds)}
    write_json(ready / RESULTS / "results.json", facts | {"kept": kept, "text": " ".join(told)})
    tables = (
        pd.DataFrame(rows).T.to_string(header=False) for rows in (sites_table(scores), gains_table(gains))
    )
    return "\n\n".join([*tables, *told])


def _check_site(site: Site, plan: Plan, record: Record) -> None:
    """Refuse a site of another plan, and one whose parts were drawn anew after the rounds."""
    plan.check_site(site.name)
    if site.backbone != plan.backbone or site.train[0].shape[1] != plan.features:
        raise InputError(
            f"The features of {site.name} are not of the plan's backbone: give the folder that was prepared "
            "for this plan."
        )
    mine = {"images": len(site.train[1]), "validation_images": len(site.validation[1])}
    if any(row["sites"].get(site.name, mine) != mine for row in record.rounds):
        raise _drawn_anew(site)


def _check_weights(site: Site, plan: Plan, weights: Weights, kept: int) -> None:
    """Refuse weights that the plan's network cannot have."""
    reason = check_update(Update(weights, 1, 0, 0.0), initial_weights(plan, site.upper))
    if reason:
        raise InputError(f"The weights of round {kept} cannot be used: {reason.replace('its', 'the', 1)}.")


def _check_loss(site: Site, plan: Plan, record: Record, rounds: Path, kept: int) -> None:
    """Refuse weights, or a site, that do not give the validation loss which the site told in the rounds.

    Where it told none of the round that is kept, as it was left out, the weights of the start are asked.
    """
    for number in (kept, 0):
        told, path = record.losses[number].get(site.name), rounds / f"round_{number:03d}.npz"
        if told is not None and path.exists():
            found = evaluate_weights(site, load_weights(path), plan).validation_loss
            if not np.isclose(found, told, rtol=1e-3):
                raise _drawn_anew(site, f"or {path.name} is of another run, ")
            return


def _drawn_anew(site: Site, other: str = "") -> InputError:
    return InputError(
        f"{site.name} has other training or validation images than in the rounds, {other}so that its test "
        "images may have been trained on: give the folder that its SuperNode read, with the run of that plan."
    )
