"""Write the pages of docs/reference: parameters, commands, backbones."""

import inspect
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import click
from annotated_types import Ge, Gt, Le, Lt
from pydantic.fields import FieldInfo

from xray_helpers.cli import main
from xray_helpers.models.backbones import BACKBONES
from xray_helpers.runner.options import RunOptions
from xray_helpers.settings import PROFILES, Settings

REFERENCE = Path(__file__).parent / "reference"
_BOUNDS = {Ge: ("≥ ", "ge"), Gt: ("> ", "gt"), Le: ("≤ ", "le"), Lt: ("< ", "lt")}


def _table(head: Iterable[str], rows: Iterable[Iterable[Any]]) -> str:
    cells = [[str(cell).replace("|", r"\|").replace("\n", " ") for cell in row] for row in (head, *rows)]
    cells.insert(1, ["---"] * len(cells[0]))
    return "\n".join(f"| {' | '.join(row)} |" for row in cells) + "\n"


def _default(value: Any) -> str:
    if value in ("", (), {}):
        return "none"
    if isinstance(value, tuple):
        return ", ".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _values(field: FieldInfo) -> str:
    if get_origin(field.annotation) is Literal:
        return ", ".join(f"`{value}`" for value in get_args(field.annotation))
    found = [
        f"{sign}{getattr(m, name):g}"
        for m in field.metadata
        for kind, (sign, name) in _BOUNDS.items()
        if isinstance(m, kind)
    ]
    return ", ".join(found)


def _fields(fields: Mapping[str, FieldInfo]) -> str:
    rows = [(f"`{name}`", _default(f.default), _values(f), f.description) for name, f in fields.items()]
    return _table(("parameter", "default", "values", "meaning"), rows)


def write_parameters() -> str:
    """Return the page of parameters and profiles."""
    profiles = [
        (
            f"`{name}`",
            ", ".join(f"{key} = {_default(value)}" for key, value in values.items()) or "the defaults below",
        )
        for name, values in PROFILES.items()
    ]
    return f"""# Parameters

Each can be given with `-p name=value`, in a YAML file with `-f FILE.yaml`, as a literal in a notebook's \
first cell, or by papermill's own `-p` and `-f`. Unknown names, wrong types and values out of range are \
refused, naming the nearest known name. Relative paths start at the folder of the project.

## Profiles

`run` starts from `full`, and `--profile NAME` from another. What is given beside it goes before it.

{_table(("profile", "what it sets"), profiles)}
## Of a study

{_fields(Settings.model_fields)}
## Of how it is run

These change no result. `--jobs` and `--on` can be given by themselves, too.

{_fields(RunOptions.model_fields)}"""


def write_commands() -> str:
    """Return the page of commands."""
    parts = [
        """# Commands

`python -m xray_helpers COMMAND`, or `xray-helpers COMMAND` where the package is installed.

Exit status: 0 where everything succeeded; 1 where a step failed, `predict` could read none of the files, \
`audit` found a leak or an export loses too much; 2 where the input was refused before anything \
ran; 130 where it was interrupted.
"""
    ]
    for name, command in sorted(main.commands.items()):
        arguments = [
            p.make_metavar(click.Context(command)) for p in command.params if isinstance(p, click.Argument)
        ]
        rows = [
            (", ".join(f"`{text}`" for text in option.opts), _of_option(option))
            for option in command.params
            if isinstance(option, click.Option)
        ]
        parts.append(f"## {name}\n\n`python -m xray_helpers {' '.join([name, *arguments])}`\n")
        parts.append(f"{inspect.cleandoc(command.help or '')}\n")
        if rows:
            parts.append(_table(("option", "meaning"), rows))
    return "\n".join(parts)


def _of_option(option: click.Option) -> str:
    shown = (
        f" Default: {option.default}."
        if option.show_default and isinstance(option.default, str | int)
        else ""
    )
    return f"{(option.help or '').rstrip('.')}.{shown}"


def write_backbones() -> str:
    """Return the page of the backbones of keras.applications."""
    rows = [
        (f"`{name}`", f"{b.parameters / 1e6:.1f}", b.min_size, b.preprocessing.replace("_", " "), b.licence)
        for name, b in BACKBONES.items()
    ]
    head = (
        "name",
        "parameters (millions)",
        "smallest image (pixels)",
        "preprocessing",
        "licence of the weights",
    )
    return f"""# Backbones

What `--models` takes of keras.applications. Each gets the preprocessing it was trained with, inside the \
saved model. Networks of KerasHub, RadImageNet's weights and files of one's own: see \
[Any backbone](../how-to/backbones.md).

{_table(head, rows)}"""


PAGES = {"parameters.md": write_parameters, "commands.md": write_commands, "backbones.md": write_backbones}


if __name__ == "__main__":
    for page, write in PAGES.items():
        (REFERENCE / page).write_text(write(), encoding="utf-8")
