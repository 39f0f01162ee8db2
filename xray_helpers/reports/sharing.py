"""What can be shared of a study: reports, index, tables, figures; no notebook, model or patient name."""

import html
import re
import shutil
from pathlib import Path

import pandas as pd

from xray_helpers.evaluation.subgroups import subgroup_columns
from xray_helpers.images.dicom import hash_identifier
from xray_helpers.reports.display import escape
from xray_helpers.reports.html import write_html
from xray_helpers.reports.pages import is_shown, write_index
from xray_helpers.reports.results import list_stale
from xray_helpers.settings import InputError
from xray_helpers.study.files import (
    atomic_write,
    list_complete_files,
    read_csv,
    read_json,
    write_csv,
    write_text,
)
from xray_helpers.study.folders import EXTERNAL, LAB
from xray_helpers.study.records import mark_stale
from xray_helpers.study.tables import MANIFEST

_MARKER = ".to-send"  # a file in each folder that `export_study` wrote
_PATHS = ["path", "path_a", "path_b", "source_group", "group"]  # columns of file names
_HASHES = ["sha256", "sha256_a", "sha256_b"]
_FILES = (
    "*.csv",
    "*/*.csv",
    "*/metrics*.json",
    "*/model_card.*",
    "*/export/*.csv",
    "reporting_checklist.html",
    "figures/*.png",
)
# of sets from elsewhere: what names no file
_EXTERNAL = tuple(
    f"{EXTERNAL}/*/{name}"
    for name in ("scores.csv", "differences.csv", "case_mix.csv", "recalibration.csv", "local_curve.csv")
)


def export_study(folder: Path, out: Path, *, images: bool = True, anonymous: bool = False) -> Path:
    """Write what can be shared of a study to another folder, and return its index.

    An earlier export in that folder is deleted. Of the manifest only the study's own columns and those that
    make subgroups are kept; patients and exams are replaced by salted hashes.

    Parameters
    ----------
    folder, out : Path
    images : bool
        Whether reports and figures with radiographs show them.
    anonymous : bool
        Whether file names are replaced by numbers, and hashes of files left out.

    Raises
    ------
    InputError
        When the folder holds anything but an earlier export.
    """
    empty_export(out)
    study = mark_stale(read_json(folder / "study.json"), folder)
    errors = {step["report"]: step.get("error", "") for step in study.get("steps", [])}
    for notebook in list_complete_files(folder, "[0-9]*.ipynb", "*/[0-9]*.ipynb", "*/*/[0-9]*.ipynb"):
        name = notebook.relative_to(folder).with_suffix("")
        if name.parts[0] != LAB:  # a person's own notebooks
            error = errors.get(name.as_posix(), "")
            write_html(notebook, out / name.with_suffix(".html"), error=error, images=images)
    stale = list_stale(study)
    for path in list_complete_files(folder, *_FILES, *_EXTERNAL):
        name = path.relative_to(folder)
        hidden = path.suffix == ".png" and not is_shown(path, images)
        if name.as_posix() in stale or name.parts[0] == LAB or hidden:
            continue
        if name.suffix == ".csv" and len(name.parts) == 1:
            write_csv(out / name, _select_columns(read_csv(path), drop_hashes=anonymous))
        else:
            with atomic_write(out / name) as partial:
                shutil.copyfile(path, partial)
    index = write_index(folder, target=out, images=images)
    if anonymous:
        tables = [folder / "manifest.csv", *list_complete_files(folder, f"{EXTERNAL}/*/manifest.csv")]
        names = _FileNames(pd.concat([read_csv(path)[["sha256", "path"]] for path in tables]))
        for path in list_complete_files(out, *_FILES, "*.html", "*/*.html", "*/*/*.html"):
            names.replace(path)
    return index


def empty_export(out: Path) -> None:
    """Empty a folder that `export_study` wrote and mark it as such; refuse one that holds anything else."""
    if out.exists() and any(out.iterdir()):
        if not (out / _MARKER).exists():
            raise InputError(
                f"{out.name} holds files that are not of an earlier export: give another folder with --out."
            )
        shutil.rmtree(out)
    write_text(out / _MARKER, "")


def _select_columns(table: pd.DataFrame, *, drop_hashes: bool) -> pd.DataFrame:
    """Return a manifest with the columns that are shared, patients and exams hashed; other tables as is."""
    if {"patient", "status"} <= set(table.columns):
        subgroups = subgroup_columns(table[table["status"] == "used"], table)
        table = table[
            [name for name in dict.fromkeys([*MANIFEST, "class_name", *subgroups]) if name in table]
        ]
        names = table.columns.intersection(["patient", "exam"])
        table = table.assign(**{n: table[n].map(hash_identifier, na_action="ignore") for n in names})
    return table.drop(columns=_HASHES if drop_hashes else [], errors="ignore")


class _FileNames:
    """The replacement of file names by numbers, which follow the order of the files' hashes."""

    def __init__(self, manifest: pd.DataFrame) -> None:
        paths = manifest.sort_values(["sha256", "path"])["path"]
        self._numbers = {path: f"{number:06d}" for number, path in enumerate(paths, 1)}
        names = {path.split("/")[-1]: number for path, number in self._numbers.items()} | self._numbers
        forms = {}
        for name, number in names.items():
            if "/" in name or re.search(r"\.[A-Za-z]\w*$", name):  # "12" or "hand" may be any word of a text
                for form in (name, html.escape(name), html.escape(name, quote=False), escape(name)):
                    forms[form] = number
        self._forms = dict(sorted(forms.items(), key=lambda item: -len(item[0])))  # paths before names

    def replace(self, path: Path) -> None:
        """Replace the names in a file of an export."""
        if path.suffix == ".png":
            self._replace_in_png(path)
            return
        if path.suffix == ".csv":
            table = read_csv(path)
            for column in table.columns.intersection(_PATHS):
                table[column] = table[column].map(
                    lambda name: self._numbers.get(name, name), na_action="ignore"
                )
            write_csv(path, table)
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".html":  # table cells that hold nothing but a file name
            cell = re.compile(r"(<t[dh][^>]*>)([^<]*)(?=</t[dh]>)")
            text = cell.sub(lambda m: m[1] + self._numbers.get(html.unescape(m[2]), m[2]), text)
        write_text(path, self._replace_in_text(text))

    def _replace_in_text(self, text: str) -> str:
        for form, number in self._forms.items():
            if form in text:
                text = re.sub(rf"(?<![\w.-]){re.escape(form)}(?![\w-])", number, text)
        return text

    def _replace_in_png(self, path: Path) -> None:
        from PIL import Image
        from PIL.PngImagePlugin import PngInfo

        with Image.open(path) as picture:
            info = PngInfo()
            for key, value in picture.info.items():
                if isinstance(value, str):
                    info.add_text(key, self._replace_in_text(value))
            with atomic_write(path) as partial:
                picture.save(partial, pnginfo=info)
