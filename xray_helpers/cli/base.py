"""The group of commands, the options that several have, and how an input error ends."""

import sys

import click

from xray_helpers import __version__
from xray_helpers.runner.options import RunOptions
from xray_helpers.settings import InputError


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


PAIRS = click.option(
    "-p", "pairs", multiple=True, metavar="KEY=VALUE", help="Set a parameter; may be repeated."
)
FILE = click.option("-f", "--file", "file", metavar="FILE.yaml", help="Read parameters from a YAML file.")
JOBS = click.option("--jobs", metavar="N", help=f"{RunOptions.model_fields['jobs'].description}.")
ON = click.option("--on", metavar="WHERE", help=f"{RunOptions.model_fields['on'].description}.")
OVERWRITE = click.option(
    "--overwrite", is_flag=True, help="Continue in the folder of a study that has other settings."
)
