"""Commands that open or send pages: the reading room, JupyterLab, HTML, PDF, the checklist."""

import os
import sys
from pathlib import Path

import click

from xray_helpers.cli.base import ENGINE, main
from xray_helpers.settings import InputError


@main.command()
@click.argument("study", metavar="STUDY")
@click.argument("model", metavar="[MODEL]", default="")
@click.option(
    "--ip", default="127.0.0.1", show_default=True, help="Address to listen on; by default this machine only."
)
@click.option("--port", default=0, help="By default any free one.")
@ENGINE
def app(study: str, model: str, ip: str, port: int, engine: str) -> None:
    """Open the reading room: a page that classifies files dropped on it, in memory. For research only."""
    from xray_helpers.interactive.server import serve_room

    sys.exit(serve_room(study, model, ip=ip, port=port, engine=engine))


@main.command(context_settings={"ignore_unknown_options": True})
@click.argument("study", metavar="STUDY")
@click.argument("model", metavar="[MODEL]", default="")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="[-- OPTIONS OF JUPYTERLAB]")
def lab(study: str, model: str, arguments: tuple[str, ...]) -> None:
    """Open the notebooks in JupyterLab with the parameters of a study, in reports/STUDY/lab."""
    from xray_helpers.interactive.server import open_lab

    if model.startswith("-"):  # an option of JupyterLab, and no model
        model, arguments = "", (model, *arguments)
    sys.exit(open_lab(study, model, arguments=arguments))


@main.command()
@click.argument("target", metavar="NOTEBOOK|STUDY|SWEEP")
@click.option("--no-images", is_flag=True, help="Leave every radiograph out.")
@click.option("--anonymous", is_flag=True, help="Replace file names by numbers.")
@click.option(
    "--out", metavar="FOLDER", help="Folder for the pages of a study; by default reports/STUDY-to-send."
)
def html(target: str, no_images: bool, anonymous: bool, out: str | None) -> None:
    """Export a notebook as one HTML file beside it, or what can be shared of a study to a folder."""
    from xray_helpers.reports.html import write_html
    from xray_helpers.reports.sharing import export_study
    from xray_helpers.study.folders import SWEEP, find_study, from_root, study_folder

    if target.endswith(".ipynb"):
        if not Path(target).is_file():
            raise InputError(f"There is no file {target}: give an executed notebook, or a study.")
        if anonymous:
            raise InputError(
                "--anonymous is for a whole study: give the study instead of one of its notebooks."
            )
        click.echo(os.path.relpath(write_html(Path(target), images=not no_images)))
        return
    if (study_folder(target) / SWEEP).exists():
        from xray_helpers.runner.sweeps import export_sweep as export

        folder = study_folder(target)
    else:
        export, folder = export_study, find_study(target)
    place = from_root(out or f"reports/{folder.name}-to-send")
    click.echo(os.path.relpath(export(folder, place, images=not no_images, anonymous=anonymous)))


@main.command()
@click.argument("study", metavar="STUDY")
def pdf(study: str) -> None:
    """Print every page of a study to a PDF beside it, with Chromium."""
    from xray_helpers.reports.pdf import write_pdfs
    from xray_helpers.study.folders import find_study

    for path in write_pdfs(find_study(study)):
        click.echo(os.path.relpath(path))


@main.command()
@click.argument("study", metavar="STUDY")
def checklist(study: str) -> None:
    """Fill in the reporting guidelines from the run and from study.yaml, which is created if missing."""
    from xray_helpers.reports.cards import write_model_card
    from xray_helpers.reports.checklist import blank_answers, fill_guidelines, read_answers, write_checklist
    from xray_helpers.reports.pages import write_index
    from xray_helpers.study.files import write_text
    from xray_helpers.study.folders import ANSWERS, find_study

    folder = find_study(study)
    if not (folder / ANSWERS).exists():
        blank = write_text(folder / ANSWERS, blank_answers())
        click.echo(f"Answer in {os.path.relpath(blank)}, then run this again.")
    read_answers(folder)
    page = write_checklist(folder)
    for guideline in fill_guidelines(folder):
        counts = ", ".join(f"{number} {state}" for state, number in guideline["counts"].items())
        click.echo(f"{guideline['name']}, {guideline['version']}: {counts}")
    for scores in folder.glob("*/metrics.json"):
        write_model_card(folder, scores.parent.name)
    write_index(folder)
    click.echo(os.path.relpath(page))
