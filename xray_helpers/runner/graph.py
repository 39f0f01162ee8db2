"""Which notebooks a study runs, how often and in which order: read from the metadata of the notebooks."""

import ast
import json
from collections.abc import Mapping
from graphlib import CycleError, TopologicalSorter
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

from xray_helpers.settings import InputError, Settings
from xray_helpers.study.folders import notebooks_folder, shareable
from xray_helpers.study.parameters import NOTEBOOK_ONLY

EXPLORE, EXTRACT, TRAIN = "01_data_exploration", "02a_extract_features", "02_train_model"
EVALUATE = "03_evaluate_model"
_ASKED = ("external", "export", "federated", "visit")  # what runs only when a person asks for it
_PER = ("study", "model", "shard", *_ASKED)
_OWN_PARAMETERS = ("model", *NOTEBOOK_ONLY)  # of a notebook, not of its study


class Notebook(NamedTuple):
    """A notebook of the series, as its metadata under ``xray_helpers`` describe it.

    Attributes
    ----------
    name : str
        Without its ending.
    per : {'study', 'model', 'shard', 'external', 'export', 'federated', 'visit'}
        How often it runs: once per study, once per model, once per model and part of a large data set; when a
        person asks for it, once per set from elsewhere, per model that is exported, or per federation; or
        only when a person opens it.
    needs : tuple of str
        Notebooks that run before it.
    any_need : bool
        Whether one successful step of those notebooks is enough.
    writes : tuple of str
        Files it writes, relative to the study; ``{model}``, ``{part}``, ``{parts}``, ``{external}`` and
        ``{place}`` (of what was asked for) are filled in.
    parameters : tuple of str
        The names that its cell tagged ``parameters`` assigns.
    """

    name: str
    per: str
    needs: tuple[str, ...]
    any_need: bool
    writes: tuple[str, ...]
    parameters: tuple[str, ...]


class Step(NamedTuple):
    """One execution of a notebook.

    Attributes
    ----------
    name : str
        Such as ``VGG16/02_train_model``; also where its notebook, HTML and record lie in the study.
    notebook : str
        Without its ending.
    parameters : dict
        In addition to the settings of the study.
    needs : tuple of str
        Names of the steps that come before: all of them must have succeeded, or, where `any_need`, one.
    writes : tuple of str
        Files it writes, relative to the study; they are removed before it runs.
    any_need : bool
    """

    name: str
    notebook: str
    parameters: dict[str, Any]
    needs: tuple[str, ...]
    writes: tuple[str, ...]
    any_need: bool = False


def read_notebooks(folder: Path | None = None) -> list[Notebook]:
    """Return the notebooks of a folder, each after those it needs; in alphabetical order where that is free.

    A notebook without metadata of its own runs once per model where it has a parameter ``model``, else once
    per study, after all numbered notebooks that sort before it. Without a cell tagged ``parameters`` that
    assigns ``name`` it belongs to no study and is ignored.

    Raises
    ------
    InputError
        When the metadata cannot be understood or name a notebook that is not there, when notebooks need each
        other in a circle, or when one has a parameter that no study has.
    """
    paths = sorted((folder or notebooks_folder()).glob("[0-9]*.ipynb"))
    found: dict[str, Notebook] = {}
    for path in paths:
        notebook = _read_notebook(path, [name for name, other in found.items() if other.per not in _ASKED])
        if notebook is not None:
            found[path.stem] = notebook
    for notebook in found.values():
        missing = [need for need in notebook.needs if need not in found]
        if missing:
            raise InputError(f"notebooks/{notebook.name}.ipynb needs {missing[0]}, which is not there.")
    try:
        order = TopologicalSorter({name: notebook.needs for name, notebook in found.items()}).static_order()
        return [found[name] for name in order]
    except CycleError as error:
        raise InputError(f"Notebooks need each other in a circle: {', '.join(error.args[1])}.") from None


def _read_notebook(path: Path, earlier: list[str]) -> Notebook | None:
    content = json.loads(path.read_text(encoding="utf-8"))
    parameters = tuple(_assigned_names(content))
    if "name" not in parameters:
        return None
    unknown = [name for name in parameters if name not in {*Settings.model_fields, *_OWN_PARAMETERS}]
    if unknown:
        raise InputError(f"notebooks/{path.name} has the parameter {unknown[0]!r}, which no study has.")
    per_model = "model" in parameters
    default = {"per": "model" if per_model else "study", "needs": earlier, "any_need": not per_model}
    described = content["metadata"].get("xray_helpers", default)
    try:
        notebook = Notebook(
            name=path.stem,
            per=described["per"],
            needs=tuple(described.get("needs", ())),
            any_need=bool(described.get("any_need", False)),
            writes=tuple(described.get("writes", ())),
            parameters=parameters,
        )
    except (KeyError, TypeError, AttributeError):
        notebook = None
    if notebook is None or notebook.per not in _PER:
        raise InputError(
            f"The metadata xray_helpers of notebooks/{path.name} cannot be understood: write per (one of "
            f"{', '.join(_PER)}), needs (notebooks) and writes (files)."
        )
    return notebook


def _assigned_names(content: dict[str, Any]) -> list[str]:
    tagged = ("".join(c["source"]) for c in content["cells"] if "parameters" in c["metadata"].get("tags", []))
    return [node.targets[0].id for node in ast.parse(next(tagged, "")).body if isinstance(node, ast.Assign)]


def build_steps(models: tuple[str, ...], shards: Mapping[str, int] | None = None) -> list[Step]:
    """Return the steps of a study, each after those it needs.

    Parameters
    ----------
    models : tuple of str
    shards : mapping of str to int, optional
        In how many parts the features of a model are extracted before it is trained, by the model's name.
    """
    steps: list[Step] = []
    notebooks = [notebook for notebook in read_notebooks() if notebook.per not in _ASKED]
    for per_study, group in groupby(notebooks, key=lambda notebook: notebook.per == "study"):
        series = list(group)
        for model in [None] if per_study else models:
            for notebook in series:
                steps += _build_steps_of(notebook, model, (shards or {}).get(model, 0), steps)
    return steps


def build_asked_steps(steps: list[Step], per: str, place: str, values: Mapping[str, Any]) -> list[Step]:
    """Return the steps of a study that a person asks for.

    Parameters
    ----------
    steps : list of Step
        Of the study.
    per : str
        Which notebooks, by their metadata.
    place : str
        The folder of the steps, relative to the study.
    values : mapping
        Parameters of these notebooks that the study does not have; ``model`` is the one they are about.
    """
    found = []
    for notebook in read_notebooks():
        if notebook.per == per:
            needs = _find_needs(notebook, values.get("model"), steps)
            writes = tuple(file.format(place=place, **values) for file in notebook.writes)
            step = f"{place}/{notebook.name}"
            found.append(Step(step, notebook.name, dict(values), needs, writes, notebook.any_need))
    return found


def _find_needs(notebook: Notebook, model: str | None, earlier: list[Step]) -> tuple[str, ...]:
    own = [other for other in earlier if model is None or other.parameters.get("model", model) == model]
    return tuple(other.name for other in own if other.notebook in notebook.needs)


def _build_steps_of(notebook: Notebook, model: str | None, shards: int, earlier: list[Step]) -> list[Step]:
    needs = _find_needs(notebook, model, earlier)
    if notebook.per == "study":
        return [Step(notebook.name, notebook.name, {}, needs, notebook.writes, notebook.any_need)]
    values = {"model": model}
    if notebook.per == "model":
        writes = tuple(file.format(**values) for file in notebook.writes)
        return [Step(f"{model}/{notebook.name}", notebook.name, values, needs, writes, notebook.any_need)]
    steps = []
    for shard in range(shards):
        name = f"{model}/{notebook.name}_{shard + 1}_of_{shards}"
        writes = tuple(file.format(**values, part=shard + 1, parts=shards) for file in notebook.writes)
        parameters = values | {"shard": shard, "shards": shards}
        steps.append(Step(name, notebook.name, parameters, needs, writes, notebook.any_need))
    return steps


def notebook_parameters(step: Step, settings: Settings) -> dict[str, Any]:
    """Return every parameter that the notebook of a step declares, as a plain literal."""
    values = shareable(settings) | step.parameters
    path = notebooks_folder() / f"{step.notebook}.ipynb"
    names = _assigned_names(json.loads(path.read_text(encoding="utf-8")))
    if "model" in step.parameters:
        own = values["sources"].get(step.parameters["model"])
        values["sources"] = {step.parameters["model"]: own} if own else {}
    return {name: values[name] for name in names}
