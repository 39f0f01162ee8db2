"""Commands on data: the audit of a folder, and files classified by a trained model."""

import os
import sys
import traceback
from pathlib import Path

import click

from xray_helpers.cli.base import ENGINE, main
from xray_helpers.settings import InputError


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
@click.option("--json", "json", metavar="FILE", help="Also write the findings as JSON.")
@click.option("--sarif", metavar="FILE", help="Also write them in SARIF 2.1.0, which code hosts show.")
@click.option("--badge", metavar="FILE.svg", help="Also write a badge.")
@click.option("--write-split", "split", metavar="FILE.csv", help="Also write a split without the leak.")
def audit(
    data: str, out: str | None, weights: str, corrections: str, patient_pattern: str, **files: str | None
) -> None:
    """Find the copies and leaks in a folder; exit status 1 if its train and test parts share sources."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    from xray_helpers.reports.audit import Outputs, audit_folder
    from xray_helpers.study.folders import from_root

    place = from_root(out or f"reports/audit-{Path(data).name or 'data'}")
    try:
        found = audit_folder(
            data,
            place,
            weights=weights,
            corrections=corrections,
            patient_pattern=patient_pattern,
            outputs=Outputs(**{name: Path(file) for name, file in files.items() if file}),
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
    if found.letter:
        click.echo(f"{os.path.relpath(found.letter)}: to send to the owner of the data")
    if found.leaked:
        sys.exit(1)


@main.command()
@click.argument("study", metavar="STUDY")
@click.argument("model", metavar="MODEL")
@click.argument("files", nargs=-1, required=True)
@click.option("--csv", "csv", metavar="OUT", help="Also write the results to a file.")
@click.option("--boxes", metavar="OUT.json", help="Write where fractures were found, in COCO's form.")
@ENGINE
def predict(
    study: str, model: str, files: tuple[str, ...], csv: str | None, boxes: str | None, engine: str
) -> None:
    """Classify files, or those of a folder or table, by a trained model. For research only."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    from xray_helpers.export.engine import open_engine
    from xray_helpers.interactive.reading_room import describe_decision_rule
    from xray_helpers.models.prediction import guard_formulas, predict_and_score
    from xray_helpers.study.files import write_csv
    from xray_helpers.study.folders import find_study, read_class_names

    folder = find_study(study)
    positive = read_class_names(folder)[1]
    run, told = open_engine(folder, model, engine)
    table, score = predict_and_score(folder, model, files, Path(boxes) if boxes else None, run)
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
    for text in filter(None, (score, told)):
        click.echo(text)
    click.echo("For research. Not a medical device; not for diagnosis.")
    if boxes:
        click.echo(os.path.relpath(boxes))
    if csv:
        click.echo(os.path.relpath(write_csv(Path(csv), table.assign(file=guard_formulas(table["file"])))))
    if not table["probability"].notna().any():
        sys.exit(1)
