"""Commands that run studies and tell how they stand."""

import os
import sys
from pathlib import Path

import click

from xray_helpers.cli.base import ENGINE, FILE, JOBS, ON, OVERWRITE, PAIRS, main
from xray_helpers.runner.options import build_run_options, split_run_options
from xray_helpers.settings import PROFILES, InputError, build_settings, number_of
from xray_helpers.study.parameters import parse_assignments, read_settings_file, read_settings_of


def _run(
    profile: str | None,
    named: dict[str, object],
    pairs: tuple[str, ...],
    file: str | None,
    overwrite: bool,
    **running: object,
) -> None:
    values = read_settings_file(file) if file else {}
    values |= {key: value for key, value in (named | running).items() if value is not None}
    values, running = split_run_options(values | parse_assignments(pairs))
    if not profile and set(values) == {"name"}:
        values = read_settings_of(str(values["name"]))
    settings, options = build_settings(profile or "full", **values), build_run_options(**running)
    from xray_helpers.runner.steps import find_complete

    index = find_complete(settings)
    if index is not None:
        click.echo(
            f"Nothing to do: every step of {settings.name} is done, and none of its inputs has changed.",
            err=True,
        )
    else:
        from xray_helpers.runner.series import run_study

        index = run_study(settings, running=options, overwrite=overwrite)
    _finish(index, [index.parent])


def _finish(index: Path, studies: list[Path]) -> None:
    """Print the path of the first page; exit with status 1 unless all studies are done."""
    from xray_helpers.study.files import read_json

    click.echo(os.path.relpath(index))
    if any(read_json(study / "study.json")["state"] != "done" for study in studies):
        sys.exit(1)


@main.command()
@click.option(
    "--profile",
    metavar="|".join(PROFILES),
    help="The parameters to start from; by default full, or with --name alone those of that study.",
)
@click.option("--data", metavar="DIR|CSV", help="The radiographs.")
@click.option(
    "--name",
    metavar="STUDY",
    help="Name of the study, and of its folder under reports/; by default that of the profile.",
)
@click.option("--models", metavar="A,B", help="The backbones, separated by commas.")
@PAIRS
@FILE
@JOBS
@ON
@OVERWRITE
def run(
    profile: str | None, data: str | None, name: str | None, models: str | None, **options: object
) -> None:
    """Run a study: every notebook, every model, the reports."""
    _run(profile, {"data": data, "name": name, "models": models}, **options)


@main.command()
@click.argument("file", metavar="FILE.yaml")
@PAIRS
@JOBS
@ON
@OVERWRITE
def sweep(file: str, pairs: tuple[str, ...], overwrite: bool, **running: object) -> None:
    """Run a study for every combination of the values in a file; validation chooses the best."""
    values = read_settings_file(file) | parse_assignments(pairs)
    values |= {key: value for key, value in running.items() if value is not None}
    from xray_helpers.runner.sweeps import find_complete_sweep, read_sweep, run_sweep

    asked = read_sweep(values)
    options, index = build_run_options(**asked.running), find_complete_sweep(asked)
    if index is not None:
        click.echo(f"Nothing to do: all {len(asked.studies)} studies of {asked.name} are complete.", err=True)
    else:
        index = run_sweep(asked, options, overwrite=overwrite)
    _finish(index, [index.parent.parent / study.name for study in asked.studies])


@main.command()
@PAIRS
@FILE
@JOBS
@ON
@OVERWRITE
@click.option(
    "--classes",
    type=click.Choice(["two", "types"]),
    default="two",
    show_default=True,
    help="Fractured or not, or the types of fracture as classes.",
)
def demo(classes: str, **options: object) -> None:
    """Run the five-model study on the embedded synthetic radiographs."""
    named = {"data": "phantoms:types", "name": "demo-types"} if classes == "types" else {}
    _run("demo", named, **options)


@main.command()
@click.argument("study", metavar="STUDY")
@click.option("--data", metavar="DIR|CSV", default="local", help="The set; phantoms:hospital-b to try it.")
@click.option("--name", metavar="NAME", default="", help="Of the set; by default that of its folder.")
@click.option("--patient-pattern", default="", help="Regular expression on the path; group 1: the patient.")
@click.option("--keep-shared", is_flag=True, help="Count images that the study was trained on as well.")
@ENGINE
@PAIRS
@JOBS
@ON
def external(study: str, pairs: tuple[str, ...], **options: object) -> None:
    """Test the trained models of a study, unchanged, on a set from elsewhere."""
    from xray_helpers.runner.external import run_external

    given = {key: value for key in ("jobs", "on") if (value := options.pop(key)) is not None}
    values, running = split_run_options(given | parse_assignments(pairs))
    if values:
        raise InputError(
            f"{next(iter(values))} is a parameter of the study, which an external test does not change: "
            "give -p only for how it is run."
        )
    page, error = run_external(study, running=build_run_options(**running), **options)
    click.echo(os.path.relpath(page))
    if error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(1)


@main.command()
@click.argument("study", metavar="STUDY")
@click.argument("model", metavar="MODEL")
@click.option(
    "--to",
    default="keras,litert,openvino,onnx",
    show_default=True,
    metavar="A,B",
    help="Kinds of files, or single formats such as litert-int8.",
)
@click.option("--int8", is_flag=True, help="Make formats in int8 as well.")
@click.option("--margin", default=0.01, show_default=True, help="Accepted loss of AUROC and other scores.")
@click.option("--page", is_flag=True, help="Also write one HTML page that runs the model in a browser.")
@click.option("--runtime", metavar="FILE.tgz", help="The page's onnxruntime-web, where there is no network.")
@ON
def export(
    study: str, model: str, to: str, on: str | None, page: bool, runtime: str | None, **options: object
) -> None:
    """Export a model to files for phones and other runtimes; exit status 1 if one is not to be used."""
    from xray_helpers.export.page import PROVEN, write_page
    from xray_helpers.reports.pages import write_index
    from xray_helpers.runner.export import run_export
    from xray_helpers.study.folders import find_study

    running, forms = build_run_options(**({"on": on} if on else {})), to.split(",")
    if page and not {"onnx", PROVEN} & set(forms):
        forms.append(PROVEN)
    report, error = run_export(study, model, forms, running=running, **options)
    click.echo(os.path.relpath(report))
    try:
        if page:
            folder = find_study(study)
            click.echo(os.path.relpath(write_page(folder, model, Path(runtime) if runtime else None)))
            write_index(folder)  # which links the page
    finally:  # the last line says what to do
        if error:
            click.echo(f"Error: {error}", err=True)
    if error:
        sys.exit(1)


@main.command()
@click.argument("study", metavar="STUDY")
def status(study: str) -> None:
    """Show the progress of a study or a sweep, also while another command or a cluster runs it."""
    from xray_helpers.runner.status import describe_status
    from xray_helpers.study.folders import SWEEP, find_study, study_folder

    if (study_folder(study) / SWEEP).exists():
        from xray_helpers.runner.sweeps import describe_sweep

        lines = describe_sweep(study_folder(study))
    else:
        lines = describe_status(find_study(study))
    click.echo("\n".join(lines))


@main.command()
@click.argument("folder", metavar="DIR")
def new(folder: str) -> None:
    """Lay out a folder of one's own: notebooks to edit, data/, reports/, a page that says how to go on."""
    from xray_helpers.study.layout import lay_out

    click.echo(f"{lay_out(Path(folder))}: read its README.md, then work in that folder.")


@main.command("list")
def list_() -> None:
    """List the studies and their state."""
    from xray_helpers.reports.overview import list_studies
    from xray_helpers.study.machine import command_name

    studies = list_studies()
    if not studies:
        click.echo(f"No studies under reports/ yet: start with `{command_name()} demo`.")
        return
    columns = ["study", "state", "steps", "models", "created"]
    if any(study["control"] for study in studies):
        columns.append("control")
    rows = [columns, *([study[column] for column in columns] for study in studies)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        click.echo("  ".join(map(str.ljust, row, widths)).rstrip())


@main.command()
@click.option("--clear", is_flag=True, help="Delete all files, or those of the given kinds.")
@click.argument("kinds", nargs=-1)
def cache(clear: bool, kinds: tuple[str, ...]) -> None:
    """List what data/cache keeps from being computed twice (pixels, features, …), or clear it."""
    from xray_helpers.study.cache import cache_folder, cache_limit, clear_cache, list_cache

    if clear:
        click.echo(f"Deleted {number_of(sum(map(clear_cache, kinds or [''])), 'file')}.")
        return
    table = list_cache()
    table = table[table["kind"].isin(kinds)] if kinds else table
    if len(table):
        click.echo(table.to_string(index=False))
    limit = f"at most {cache_limit() / 2**30:g} GiB are kept (XRAY_HELPERS_CACHE_GIB)"
    click.echo(f"{table['mib'].sum():.1f} MiB in {os.path.relpath(cache_folder())}; {limit}.")
