"""What can be sent of a study: reports, index, tables, figures; no notebook, no model, no patient's name."""

import html
import re
import shutil
from pathlib import Path

import pandas as pd

from xray_helpers.evaluation.subgroups import subgroup_columns
from xray_helpers.images.dicom import hash_identifier
from xray_helpers.reports.display import escape
from xray_helpers.reports.html import write_html
from xray_helpers.reports.pages import is_shown, list_stale, write_index
from xray_helpers.settings import InputError
from xray_helpers.study.files import (
    atomic_write,
    list_complete_files,
    read_csv,
    read_json,
    write_csv,
    write_text,
)
from xray_helpers.study.folders import LAB
from xray_helpers.study.records import mark_stale
from xray_helpers.study.tables import MANIFEST

_SENT = ".to-send"  # in a folder that holds what can be sent, and nothing else
_PATHS = ["path", "path_a", "path_b", "source_group", "group"]  # columns whose cells are files' names
_HASHES = ["sha256", "sha256_a", "sha256_b"]
_TABLES = (
    "*.csv",
    "*/*.csv",
    "*/metrics.json",
    "*/model_card.*",
    "reporting_checklist.html",
    "figures/*.png",
)


def export_study(folder: Path, out: Path, *, images: bool = True, anonymous: bool = False) -> Path:
    """Write what can be sent of a study into another folder: reports, index, tables, figures; no notebook, no
    model.

    What was put there before goes, so that nothing of it is sent. Of the manifest's columns those are sent
    that the study itself made and those that make subgroups; patients as salted hashes.

    Parameters
    ----------
    folder, out : Path
    images : bool
        Without them no file in `out` shows a radiograph.
    anonymous : bool
        Whether numbers stand for the files' names, and hashes of their contents are left out.

    Returns
    -------
    Path
        The index.

    Raises
    ------
    InputError
        Where the folder holds anything else.
    """
    empty_export(out)
    study = mark_stale(read_json(folder / "study.json"), folder)
    steps = {step["report"]: step for step in study.get("steps", [])}
    for notebook in list_complete_files(folder, "[0-9]*.ipynb", "*/[0-9]*.ipynb"):
        name = notebook.relative_to(folder).with_suffix("")
        if name.parent.name == LAB:  # a person's own
            continue
        error = steps.get(name.as_posix(), {}).get("error", "")
        write_html(notebook, out / name.with_suffix(".html"), error=error, images=images)
    stale = list_stale(study)
    for path in list_complete_files(folder, *_TABLES):
        name = path.relative_to(folder)
        if (
            name.as_posix() in stale
            or name.parts[0] == LAB
            or (path.suffix == ".png" and not is_shown(path, images))
        ):
            continue
        if name.suffix == ".csv" and len(name.parts) == 1:
            write_csv(out / name, _select_columns(read_csv(path), drop_hashes=anonymous))
        else:
            with atomic_write(out / name) as partial:
                shutil.copyfile(path, partial)
    index = write_index(folder, target=out, images=images)
    if anonymous:
        numbers = _Numbers(folder)
        for path in list_complete_files(
            out, "*.html", "*/*.html", "*.csv", "*/*.csv", "*/*.json", "*/*.md", "figures/*.png"
        ):
            _rename_within(path, numbers)
    return index


def empty_export(out: Path) -> None:
    """Empty a folder that `export_study` wrote, and mark it as such; refuse one that holds anything else."""
    if out.exists() and any(out.iterdir()):
        if not (out / _SENT).exists():
            raise InputError(
                f"{out.name} holds files that are not of an earlier export: give another folder with --out."
            )
        shutil.rmtree(out)
    write_text(out / _SENT, "")


def _select_columns(table: pd.DataFrame, *, drop_hashes: bool) -> pd.DataFrame:
    """Return of a manifest the columns that are used, patients hashed; any other table as it is."""
    if {"patient", "status"} <= set(table.columns):
        used = table[table["status"] == "used"]
        made = [name for name in MANIFEST if name in table.columns]
        table = table[[*made, *(name for name in subgroup_columns(used, table) if name not in made)]]
        table = table.assign(patient=table["patient"].map(hash_identifier, na_action="ignore"))
    return table.drop(columns=_HASHES if drop_hashes else [], errors="ignore")


class _Numbers:
    """What stands for each file's name: a number, in the order of the files' contents."""

    def __init__(self, folder: Path) -> None:
        manifest = read_csv(folder / "manifest.csv").sort_values(["sha256", "path"], ignore_index=True)
        self.by_path = {path: f"{number:06d}" for number, path in enumerate(manifest["path"], 1)}
        names = {path.split("/")[-1]: number for path, number in self.by_path.items()}
        forms = {}
        for name, number in (names | self.by_path).items():
            if "/" in name or re.search(r"\.[A-Za-z]\w*$", name):  # 12 or hand may be any word of a text
                forms |= dict.fromkeys(
                    (name, html.escape(name), html.escape(name, quote=False), escape(name)), number
                )
        self._forms = dict(
            sorted(forms.items(), key=lambda item: len(item[0]), reverse=True)
        )  # a path before its name

    def within_text(self, text: str) -> str:
        """Return a text in which whole names are replaced, none of them twice."""
        for form, number in self._forms.items():
            if form in text:
                text = re.sub(rf"(?<![\w.-]){re.escape(form)}(?![\w-])", number, text)
        return text

    def within_page(self, text: str) -> str:
        """Return HTML in which also table cells that are a file's name alone are replaced."""
        cell = re.compile(r"(<t[dh][^>]*>)([^<]*)(?=</t[dh]>)")
        return self.within_text(cell.sub(lambda m: m[1] + self.by_path.get(html.unescape(m[2]), m[2]), text))

    def within_table(self, path: Path) -> None:
        """Rewrite a CSV: whole cells of the columns that hold paths, and names within other texts."""
        table = read_csv(path)
        for column in table.columns.intersection(_PATHS):
            table[column] = table[column].map(lambda name: self.by_path.get(name, name), na_action="ignore")
        write_csv(path, table)
        write_text(path, self.within_text(path.read_text(encoding="utf-8")))


def _rename_within(path: Path, numbers: _Numbers) -> None:
    if path.suffix == ".csv":
        numbers.within_table(path)
        return
    if path.suffix != ".png":
        text = path.read_text(encoding="utf-8")
        write_text(path, numbers.within_page(text) if path.suffix == ".html" else numbers.within_text(text))
        return
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    with Image.open(path) as picture:
        told = PngInfo()
        for key, value in picture.info.items():
            if isinstance(value, str):
                told.add_text(key, numbers.within_text(value))
        with atomic_write(path) as partial:
            picture.save(partial, pnginfo=told)
