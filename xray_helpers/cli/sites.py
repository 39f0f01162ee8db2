"""Commands for sites that train together and share no images."""

import os
import sys
from pathlib import Path

import click

from xray_helpers.cli.base import JOBS, ON, PAIRS, main
from xray_helpers.runner.options import RunOptions, build_run_options
from xray_helpers.study.parameters import parse_assignments


@main.command()
@click.argument("study", metavar="STUDY")
@click.option("--site", "places", multiple=True, metavar="NAME=DIR", help="A site and its images; repeat it.")
@click.option("--name", metavar="NAME", default="", help="Of the federation; by default of its column.")
@click.option("--elsewhere", metavar="A,B", help="Only write the plan for these sites, on other machines.")
@PAIRS
@JOBS
@ON
def federated(
    study: str,
    places: tuple[str, ...],
    name: str,
    elsewhere: str | None,
    pairs: tuple[str, ...],
    **options: object,
) -> None:
    """Train at several sites that share no images; compare with each alone, and with all images together."""
    from xray_helpers.runner.federated import run_federated, write_plan

    values = parse_assignments(pairs)
    given = {key: value for key, value in options.items() if value is not None}
    given |= {key: values.pop(key) for key in RunOptions.model_fields if key in values}
    running = build_run_options(**given)
    if elsewhere:
        sites = [site.strip() for site in elsewhere.split(",")]
        click.echo(os.path.relpath(write_plan(study, sites, name or "sites", values)))
        return
    sites = parse_assignments(places)
    page, error = run_federated(study, sites, name, values, running)
    click.echo(os.path.relpath(page))
    if error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(1)


@main.command()
@click.argument("plan", metavar="PLAN", type=click.Path(exists=True, file_okay=False))
@click.option("--name", required=True, metavar="NAME", help="Of this site, one of the plan's.")
@click.option("--data", required=True, metavar="DIR|CSV", help="Its images, which stay where they are.")
@click.option("--to", "folder", required=True, metavar="DIR", help="What its SuperNode reads.")
@click.option("--weights", default="", metavar="DIR", help="Of the backbone, where they are not published.")
def site(plan: str, name: str, data: str, folder: str, weights: str) -> None:
    """Prepare this hospital for a federated training: its parts, and the features or maps of its images."""
    from xray_helpers.federated.preparation import prepare_site
    from xray_helpers.federated.rounds import Plan

    told = prepare_site(Plan.read(Path(plan)), name, data, Path(folder), weights)
    click.echo(f"{told} {folder} is ready.")


@main.command("site-test")
@click.argument("ready", metavar="READY", type=click.Path(exists=True, file_okay=False))
@click.argument("rounds", metavar="ROUNDS", type=click.Path(exists=True, file_okay=False))
def site_test(ready: str, rounds: str) -> None:
    """Score the shared model on this hospital's own test part, beside a model trained here alone."""
    from xray_helpers.federated.own_test import score_site

    click.echo(score_site(Path(ready), Path(rounds)))
