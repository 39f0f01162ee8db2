"""The opening of every notebook: the settings, the study and its files, in one object."""

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from IPython.display import HTML, display

from xray_helpers.data.leaks import check_leak_gate
from xray_helpers.data.manifest import data_folder
from xray_helpers.data.parts import check_made_with, used_part
from xray_helpers.explain.shortcut_verdicts import describe_controls
from xray_helpers.images.radiographs import ImageFolder
from xray_helpers.models.backbones import resolve_weights
from xray_helpers.plots.style import set_theme, show
from xray_helpers.reports.display import show_banner, show_table, show_text
from xray_helpers.settings import InputError, Settings
from xray_helpers.study.external import external_folder
from xray_helpers.study.federations import federation_folder
from xray_helpers.study.files import read_csv, read_json, write_csv, write_json
from xray_helpers.study.folders import local_path, open_study, with_local_sources
from xray_helpers.study.parameters import read_notebook_settings

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


class Run:
    """A notebook that runs: what it was given, and the files of its study.

    Attributes
    ----------
    settings : Settings
        Its parameters, validated.
    study : Path
        The folder of the study.
    model : str
        The backbone, where the notebook runs once per model; else empty.
    external : str
        The set from elsewhere that the study is tested on, where the notebook runs once per such set.
    folder : Path
        Where it writes: that of the model, of the external set or of the federation, else that of the study.
    seed : int
    """

    def __init__(self, namespace: Mapping[str, Any]) -> None:
        settings = read_notebook_settings(dict(namespace))
        self.study: Path = open_study(settings)
        self.settings: Settings = with_local_sources(self.study, settings)
        self.model: str = self.settings.models[0] if "model" in namespace else ""
        self.folder: Path = self.study / self.model
        self.external: str = str(namespace.get("external", "")) if "external_data" in namespace else ""
        if self.external:
            self.folder = external_folder(self.study, self.external)
        if "federated" in namespace and "site_column" in namespace:
            self.folder = federation_folder(self.study, str(namespace["federated"]))
        self.seed: int = self.settings.seed
        self._declared = self.settings.model_fields_set

    @cached_property
    def manifest(self) -> pd.DataFrame:
        """The table of all files, of ``manifest.csv``.

        Raises
        ------
        InputError
            When 01 has not run, or when the parts share sources or patients and the leak is not accepted.
        """
        table = read_csv(self.study / "manifest.csv")
        if "accept_leak" in self._declared:
            check_leak_gate(table, accept_leak=self.settings.accept_leak)
        return table

    @cached_property
    def images(self) -> ImageFolder:
        """The folder of the radiographs, and how its files are read."""
        return data_folder(self.study)

    @cached_property
    def recorded(self) -> Settings:
        """The settings with which the study was run, of ``study.json``; this notebook declares only some."""
        return Settings(**read_json(self.study / "study.json")["settings"])

    @cached_property
    def weights(self) -> str:
        """The weights of the backbone: ``imagenet``, ``random``, or a place on this machine."""
        return resolve_weights(self.local_path("weights"), self.settings.models, self.settings)

    @cached_property
    def control(self) -> str:
        """What this study is a control for, in a sentence; empty for an ordinary one."""
        return describe_controls(read_json(self.study / "study.json")["settings"])

    def local_path(self, key: str) -> str:
        """Return where ``data`` or ``weights`` lie on this machine, or the word that stands for them."""
        return local_path(self.study, key, getattr(self.settings, key))

    @cached_property
    def training(self) -> dict[str, Any]:
        """What 02 recorded of the model, of ``training.json``.

        Raises
        ------
        InputError
            When 02 has not run, or ran on another manifest.
        """
        record = self.read("training.json")
        check_made_with(self.manifest, record, self.model)
        return record

    def part(self, split: str, *, copies: bool = False) -> pd.DataFrame:
        """Return the images of a part that are used; see `parts.used_part`."""
        return used_part(self.manifest, split, copies=copies)

    def read(self, name: str, *, of_study: bool = False) -> Any:
        """Return what a notebook of this study wrote: a table of ``.csv``, or the content of ``.json``."""
        path = (self.study if of_study else self.folder) / name
        return read_json(path) if path.suffix == ".json" else read_csv(path)

    def save(self, name: str, value: pd.DataFrame | dict[str, Any]) -> None:
        """Write a table as ``.csv``, or a dictionary as ``.json``, completely or not at all."""
        path = self.folder / name
        if path.suffix == ".csv" and isinstance(value, pd.DataFrame):
            write_csv(path, value)
        elif path.suffix == ".json" and isinstance(value, dict):
            write_json(path, value)
        else:
            raise ValueError(
                f"{name} cannot hold a {type(value).__name__}: tables go to .csv, dictionaries to .json"
            )

    def show(self, *results: "Figure | Axes | pd.DataFrame | list | str", save: str = "") -> None:
        """Display figures, tables (DataFrames or lists of rows), paragraphs and HTML, in the order given.

        Parameters
        ----------
        *results
        save : str
            The name under which a figure is written to ``figures/`` as well, after that of the model.
        """
        for result in results:
            if isinstance(result, str):
                display(show_text(result))
            elif isinstance(result, pd.DataFrame | list):
                display(show_table(result))
            elif isinstance(result, HTML):
                display(result)
            elif result is not None:
                display(self.picture(result, save=save))

    def picture(self, figure: "Figure | Axes", *, save: str = "") -> Any:
        """Return a figure as the picture that `show` displays."""
        path = self.study / "figures" / f"{self.model or 'models'}_{save}.png" if save else None
        return show(figure, path)


def open_run(namespace: Mapping[str, Any]) -> Run:
    """Open a notebook: validate its parameters, set the theme, and display the warnings of its study.

    Parameters
    ----------
    namespace : mapping
        The notebook's ``globals()``.

    Raises
    ------
    InputError
        For a parameter that cannot be used, or a study whose parts share sources or patients.
    """
    _explain_errors()
    run = Run(namespace)
    set_theme()
    banner = show_banner(
        *_weights_of(run),
        manifest=_known_manifest(run),
        control="" if "weights" in run._declared else run.control,
        settings=read_json(run.study / "study.json")["settings"],
    )
    if banner is not None:
        display(banner)
    return run


def _explain_errors() -> None:
    """Let this kernel show an error that a user can mend as a sentence, not as a traceback.

    The error is still one to papermill, which ends the notebook there.
    """
    from IPython import get_ipython

    def show_sentence(shell: Any, kind: type, error: InputError, trace: Any, **_: Any) -> list[str]:
        sentence = [error.for_notebook()]
        shell._showtraceback(kind, error, sentence)
        return sentence

    if (shell := get_ipython()) is not None:
        shell.set_custom_exc((InputError,), show_sentence)


def _weights_of(run: Run) -> list[str]:
    if "weights" in run._declared:
        return [run.weights if run.model else run.settings.weights]
    trained = [run.study / model / "training.json" for model in run.settings.models]
    return [read_json(path)["weights"] for path in trained if path.exists()]


def _known_manifest(run: Run) -> pd.DataFrame | None:
    writes_it = "data" in run._declared
    return None if writes_it or not (run.study / "manifest.csv").exists() else run.manifest
