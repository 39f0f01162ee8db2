"""The command line, ``python -m xray_helpers COMMAND``: a thin layer over the rooms of the package."""

import os
import sys
import traceback
from pathlib import Path

import click

from xray_helpers import __version__
from xray_helpers.runner.options import RunOptions, build_run_options, split_run_options
from xray_helpers.settings import PROFILES, InputError, build_settings
from xray_helpers.study.parameters import parse_assignments, read_settings_file


class _Group(click.Group):
    """A group of commands whose input errors end in one sentence and exit status 2."""

    def invoke(self, context: click.Context) -> object:
        try:
            return super().invoke(context)
        except InputError as error:
            click.echo(f"Error: {error}", err=True)
            sys.exit(getattr(error, "status", 2))
        except KeyboardInterrupt:
            sys.exit(130)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def main() -> None:
    """Honest, fast, shareable studies of bone-fracture X-ray classifiers."""


_PAIRS = click.option(
    "-p", "pairs", multiple=True, metavar="KEY=VALUE", help="Set a parameter; may be repeated."
)
_FILE = click.option("-f", "--file", "file", metavar="FILE.yaml", help="Read parameters from a YAML file.")
_JOBS = click.option("--jobs", metavar="N", help=f"{RunOptions.model_fields['jobs'].description}.")
_ON = click.option("--on", metavar="WHERE", help=f"{RunOptions.model_fields['on'].description}.")
_OVERWRITE = click.option(
    "--overwrite", is_flag=True, help="Continue in the folder of a study that has other settings."
)


def _run(
    profile: str,
    named: dict[str, object],
    pairs: tuple[str, ...],
    file: str | None,
    overwrite: bool,
    **running: object,
) -> None:
    values = read_settings_file(file) if file else {}
    values |= {key: value for key, value in (named | running).items() if value is not None}
    values, running = split_run_options(values | parse_assignments(pairs))
    settings, options = build_settings(profile, **values), build_run_options(**running)
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
    default="full",
    show_default=True,
    metavar="|".join(PROFILES),
    help="The parameters to start from.",
)
@click.option("--data", metavar="DIR|CSV", help="The radiographs.")
@click.option(
    "--name",
    metavar="STUDY",
    help="Name of the study, and of its folder under reports/; by default that of the profile.",
)
@click.option("--models", metavar="A,B", help="The backbones, separated by commas.")
@_PAIRS
@_FILE
@_JOBS
@_ON
@_OVERWRITE
def run(profile: str, data: str | None, name: str | None, models: str | None, **options: object) -> None:
    """Run a study: every notebook, every model, the reports."""
    _run(profile, {"data": data, "name": name, "models": models}, **options)


@main.command()
@click.argument("file", metavar="FILE.yaml")
@_PAIRS
@_JOBS
@_ON
@_OVERWRITE
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
@_PAIRS
@_FILE
@_JOBS
@_ON
@_OVERWRITE
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
@_PAIRS
@_JOBS
@_ON
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
@click.argument("data", metavar="DIR|CSV")
@click.option("--out", metavar="FOLDER", help="For the page and the tables; by default reports/audit-NAME.")
@click.option("--weights", default="auto", show_default=True, help="Of MobileNetV2: auto, random or a path.")
@click.option(
    "--corrections",
    default="data/corrections.csv",
    show_default=True,
    help="A CSV of files to join or separate.",
)
@click.option("--patient-pattern", default="", help="Regular expression on the path; group 1: the patient.")
def audit(data: str, out: str | None, weights: str, corrections: str, patient_pattern: str) -> None:
    """Find the copies and leaks in a folder; exit status 1 if its train and test parts share sources."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    from xray_helpers.reports.audit import audit_folder
    from xray_helpers.study.folders import from_root

    place = from_root(out or f"reports/audit-{Path(data).name or 'data'}")
    try:
        found = audit_folder(
            data, place, weights=weights, corrections=corrections, patient_pattern=patient_pattern
        )
    except InputError:
        raise
    except OSError as error:
        path = error.filename or place
        raise InputError(
            f"{path}: {error.strerror}; give another folder with --out, or check the disk."
        ) from None
    except Exception:  # exit status 1 would mean that a leak was found
        traceback.print_exc()
        sys.exit(2)
    width = max(len(key) for key in found.facts)
    for key, value in found.facts.items():
        click.echo(f"{key:<{width}}  {value}")
    click.echo(os.path.relpath(found.page))
    if found.leaked:
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


@main.command("list")
def list_() -> None:
    """List the studies and their state."""
    from xray_helpers.reports.overview import list_studies

    studies = list_studies()
    if not studies:
        click.echo("No studies under reports/ yet: start with `python -m xray_helpers demo`.")
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
        click.echo(f"Deleted {sum(clear_cache(kind) for kind in kinds or [''])} files.")
        return
    table = list_cache()
    table = table[table["kind"].isin(kinds)] if kinds else table
    if len(table):
        click.echo(table.to_string(index=False))
    limit = f"at most {cache_limit() / 2**30:g} GiB are kept (XRAY_HELPERS_CACHE_GIB)"
    click.echo(f"{table['mib'].sum():.1f} MiB in {os.path.relpath(cache_folder())}; {limit}.")


@main.command()
@click.argument("study", metavar="STUDY")
@click.argument("model", metavar="MODEL")
@click.argument("files", nargs=-1, required=True)
@click.option("--csv", "csv", metavar="OUT", help="Also write the results to a file.")
@click.option("--boxes", metavar="OUT.json", help="Write where fractures were found, in COCO's form.")
def predict(study: str, model: str, files: tuple[str, ...], csv: str | None, boxes: str | None) -> None:
    """Classify files, or those of a folder or table, by a trained model. For research only."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    from xray_helpers.interactive.reading_room import describe_decision_rule
    from xray_helpers.models.prediction import guard_formulas, predict_and_score
    from xray_helpers.study.files import write_csv
    from xray_helpers.study.folders import find_study, read_class_names

    folder = find_study(study)
    positive = read_class_names(folder)[1]
    table, score = predict_and_score(folder, model, files, Path(boxes) if boxes else None)
    for row in table.itertuples():
        if row.reason:
            click.echo(f"{row.file}: not read: it {row.reason}")
        else:
            decision = f"{row.decision or 'abstains'} (threshold {row.threshold:.3f})"
            line = f"{row.file}: P({positive}) = {row.probability:.3f}, {decision}"
            if hasattr(row, "most_probable"):
                line += f"; most probable: {row.most_probable}"
            click.echo(f"{line}. {row.warning}" if row.warning else line)
    if (folder / model / "metrics.json").exists():
        click.echo(describe_decision_rule(folder, model))
    if score:
        click.echo(score)
    click.echo("For research. Not a medical device; not for diagnosis.")
    if boxes:
        click.echo(os.path.relpath(boxes))
    if csv:
        click.echo(os.path.relpath(write_csv(Path(csv), table.assign(file=guard_formulas(table["file"])))))
    if not table["probability"].notna().any():
        sys.exit(1)


@main.command()
@click.argument("study", metavar="STUDY")
@click.argument("model", metavar="[MODEL]", default="")
@click.option(
    "--ip", default="127.0.0.1", show_default=True, help="Address to listen on; by default this machine only."
)
@click.option("--port", default=0, help="By default any free one.")
def app(study: str, model: str, ip: str, port: int) -> None:
    """Open the reading room: a page that classifies files dropped on it, in memory. For research only."""
    from xray_helpers.interactive.server import serve_room

    sys.exit(serve_room(study, model, ip=ip, port=port))


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
