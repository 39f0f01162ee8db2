"""Parameters as users give them: a YAML file, ``name=value``, or the first cell of a notebook."""

import ast
from collections import Counter
from pathlib import Path
from typing import Any

import yaml

from xray_helpers.settings import InputError, Settings, build_settings, check_names
from xray_helpers.study.files import read_json
from xray_helpers.study.folders import LOCAL, study_folder

# parameters of single notebooks, of 02a, 06, 08 and 09, that are not settings of a study
FEDERATED = ("rounds", "local_epochs", "proximal", "privacy", "clip", "noise", "timeout")
NOTEBOOK_ONLY = (
    *("shard", "shards", "external", "external_data", "keep_shared"),
    *("formats", "int8", "export_margin", "deployed"),
    *("federated", "sites", "site_column", *FEDERATED),
)
_INJECTED = "# Parameters\n"  # how papermill begins its cell


class _TextLoader(yaml.BaseLoader):
    """YAML whose values stay text, and in which duplicate keys are an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        counts = Counter(key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode))
        for key, count in counts.items():
            if count > 1:
                raise yaml.constructor.ConstructorError(problem=f"{key} stands there twice")
        return super().construct_mapping(node, deep)


def read_settings_file(path: str | Path) -> dict[str, Any]:
    """Read parameters from a YAML file of ``name: value`` lines; values stay text, or lists of text.

    `build_settings` converts each to the type of its parameter, so that YAML guesses nothing: 010 is ten
    for a seed and three letters for a name, and 12:30 is no number of seconds.

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


def read_settings_of(name: str) -> dict[str, Any]:
    """Return the parameters of the study of this name, to go on with it; its name alone if there is none."""
    folder = study_folder(name)
    if not (folder / "study.json").exists():
        return {"name": name}
    values, places = (
        read_json(folder / "study.json")["settings"],
        read_json(folder / "local.json", default={}),
    )
    return {key: places.get(key, value) if value == LOCAL else value for key, value in values.items()}


def parse_assignments(pairs: Any) -> dict[str, str]:
    """Convert ``["epochs=5", "models=[VGG16]"]`` to a dictionary; values stay text for `build_settings`.

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

    All names that the parameters cell and papermill's cell assign are checked, so that a misspelt ``-p`` is
    refused rather than ignored. Names assigned in other cells are the user's own.

    Parameters
    ----------
    namespace : dict
        The notebook's ``globals()``, with IPython's ``In`` (the source of the cells run so far).

    Returns
    -------
    Settings
        Where the notebook has a parameter ``model``, ``models`` holds it alone.
    """
    names = _parameter_names([str(source) for source in namespace.get("In", [])])
    if not names:
        raise InputError(
            "No cell of parameters was run in this notebook: run its first cell, then this one again."
        )
    values = {name: namespace[name] for name in names if name in namespace}
    check_names(values, known=["model", *NOTEBOOK_ONLY], where=" of this notebook")
    values = {name: value for name, value in values.items() if name not in NOTEBOOK_ONLY}
    if "model" in values:
        values["models"] = [values.pop("model")]
    return build_settings(**values)


def _parameter_names(sources: list[str]) -> set[str]:
    """Return the names in the last run of the parameters cell and in papermill's cell.

    The parameters cell is the first that assigns ``name`` and another parameter; a later cell that assigns
    most of its names is the same cell, corrected and run again.
    """
    known = {*Settings.model_fields, "model", *NOTEBOOK_ONLY}
    injected = [_assigned_names(source) for source in sources if source.startswith(_INJECTED)]
    cells = [_assigned_names(source) for source in sources if not source.startswith(_INJECTED)]
    first = next((names for names in cells if len(names & known) > 1 and "name" in names), set())
    versions = [names for names in cells if len(names & first) > len(first) / 2]
    return set().union(*versions[-1:], *injected[-1:])


def _assigned_names(source: str) -> set[str]:
    """Return the names that a cell assigns at its top level; none for a cell that is not Python."""
    try:
        statements = ast.parse(source).body
    except SyntaxError:  # such as a magic
        return set()
    targets = [target for one in statements if isinstance(one, ast.Assign) for target in one.targets]
    targets += [one.target for one in statements if isinstance(one, ast.AnnAssign) and one.value is not None]
    return {target.id for target in targets if isinstance(target, ast.Name)}
