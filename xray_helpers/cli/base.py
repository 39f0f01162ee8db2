"""The group of commands, the options that several have, and how an input error ends."""

import sys

import click

from xray_helpers import __version__
from xray_helpers.runner.options import RunOptions
from xray_helpers.settings import InputError, Settings


class _Group(click.Group):
    """A group of commands whose input errors end in one sentence and exit status 2."""

    def parse_args(self, context: click.Context, args: list[str]) -> list[str]:
        context.obj = list(args)  # for the hint on an option that is a parameter
        return super().parse_args(context, args)

    def invoke(self, context: click.Context) -> object:
        try:
            return super().invoke(context)
        except InputError as error:
            click.echo(f"Error: {error}", err=True)
            sys.exit(getattr(error, "status", 2))
        except KeyboardInterrupt:
            sys.exit(130)
        except click.NoSuchOption as error:
            hint = _hint_at_parameter(error, context.obj)
            raise click.UsageError(hint, error.ctx) if hint else error from None


def _hint_at_parameter(error: click.NoSuchOption, args: list[str]) -> str:
    """Return how to write an option that is a parameter of a study or of a run; empty where it is none."""
    name = error.option_name.lstrip("-").replace("-", "_")
    takes_pairs = error.ctx and any("-p" in one.opts for one in error.ctx.command.params)
    if not takes_pairs or name not in {*Settings.model_fields, *RunOptions.model_fields}:
        return ""
    given = next((at for at, word in enumerate(args) if word.split("=")[0] == error.option_name), len(args))
    value = "".join(args[given : given + 1]).partition("=")[2] or "".join(args[given + 1 : given + 2])
    return f"{error.option_name} is no option, but a parameter: write -p {name}={value or 'VALUE'}."


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
ENGINE = click.option(
    "--engine", default="", metavar="FORMAT", help="Use an exported file, such as litert, not model.keras."
)
