"""Parameters as people give them: a YAML file, ``name=value``, or the first cell of a notebook."""

import ast
from pathlib import Path
from typing import Any

import yaml

from xray_helpers.settings import InputError, Settings, build_settings, check_names

_SHARD = ("shard", "shards")  # parameters of 02a alone


class _TextLoader(yaml.BaseLoader):
    """YAML whose values stay text, and in which a key stands once."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        keys = [key.value for key, _ in node.value]
        twice = next((key for key in keys if keys.count(key) > 1), None)
        if twice is not None:
            raise yaml.constructor.ConstructorError(
                problem=f"{twice} stands there twice", problem_mark=node.start_mark
            )
        return super().construct_mapping(node, deep)


def read_settings_file(path: str | Path) -> dict[str, Any]:
    """Read parameters from a YAML file of ``name: value`` lines; values stay text, or lists of text.

    `build_settings` gives each the type of its parameter, so that YAML guesses nothing: 010 is ten for a seed
    and three letters for a name, and 12:30 is no number of seconds.

    Raises
    ------
    InputError
        When the file is missing, is no YAML, or holds anything but names and values.
    """
    try:
        values = yaml.load(Path(path).read_text(encoding="utf-8"), _TextLoader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise InputError(f"The settings file {path} cannot be read: {reason}.") from None
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise InputError(f"The settings file {path} must hold lines of the form 'epochs: 5'.")
    return {key: value for key, value in values.items() if value not in ("null", "~")}


def parse_assignments(pairs: Any) -> dict[str, str]:
    """Turn ``["epochs=5", "models=[VGG16]"]`` into a dictionary; values stay text until `build_settings`
    reads them.

    Raises
    ------
    InputError
        For a pair without ``=``.
    """
    values = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals or not key.strip():
            raise InputError(f"{pair!r} is no parameter: write name=value, for example -p epochs=5.")
        text = text.strip()
        quoted = len(text) > 1 and text[0] == text[-1] and text[0] in "\"'"
        values[key.strip()] = text[1:-1] if quoted else text
    return values


def read_notebook_settings(namespace: dict[str, Any]) -> Settings:
    """Validate the parameters of a running notebook, typed in or injected by papermill.

    The names that the notebook's parameters cell assigns, as it was run last, and those of papermill's cell
    are checked, so that a misspelt ``-p`` is refused rather than ignored. What other cells assign is a
    person's own.

    Parameters
    ----------
    namespace : dict
        The notebook's ``globals()``, with IPython's ``In`` (the source of the cells run so far).

    Returns
    -------
    Settings
        Where the notebook has a parameter ``model``, ``models`` holds it alone.
    """
    history = [str(source) for source in namespace.get("In", [])]
    injected = [_assigned_names(source) for source in history if source.startswith("# Parameters\n")]
    cells = [
        found
        for source in history
        if not source.startswith("# Parameters\n") and (found := _assigned_names(source))
    ]
    first = next(
        (found for found in cells if len(found & _known_parameters()) > 1 and "name" in found), set()
    )
    own = [
        found for found in cells if first and len(found & first) > len(first) / 2
    ]  # as it was corrected and run again
    names = set().union(*own[-1:], *injected[-1:])
    if not names:
        raise InputError(
            "No cell of parameters was run in this notebook: run its first cell, then this one again."
        )
    values = {name: namespace[name] for name in names if name in namespace}
    check_names(values, known=["model", *_SHARD], where=" of this notebook")
    values = {name: value for name, value in values.items() if name not in _SHARD}
    if "model" in values:
        values["models"] = [values.pop("model")]
    return build_settings(**values)


def _known_parameters() -> set[str]:
    return {*Settings.model_fields, "model", *_SHARD}


def _assigned_names(source: str) -> set[str]:
    """Return the names that a cell assigns at its top level, whatever the values; none for what is no
    Python.
    """
    try:
        statements = ast.parse(source).body
    except SyntaxError:  # a magic
        return set()
    targets = [target for one in statements if isinstance(one, ast.Assign) for target in one.targets]
    targets += [one.target for one in statements if isinstance(one, ast.AnnAssign) and one.value is not None]
    return {target.id for target in targets if isinstance(target, ast.Name)}
