"""What can be sent of a study: reports, index, tables, figures; no notebook, no model, no patient's name."""

import html
import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from xray_helpers.breakdown import subgroup_columns
from xray_helpers.dicoms import hash_identifier
from xray_helpers.listed_tables import COLUMNS
from xray_helpers.pages import is_shown, list_stale, write_index
from xray_helpers.records import mark_stale
from xray_helpers.render import write_html
from xray_helpers.reporting import escape
from xray_helpers.settings import InputError
from xray_helpers.studies import LAB, list_whole, read_csv, read_json, write_csv, write_text, write_whole

_SENT = ".to-send"  # in a folder that holds what can be sent, and nothing else
_HASHES = ["sha256", "sha256_a", "sha256_b"]
_TABLES = ("*.csv", "*/*.csv", "*/metrics.json", "*/model_card.*", "reporting_checklist.html", "figures/*.png")


def export_study(folder: Path, out: Path, *, images: bool = True, anonymous: bool = False) -> Path:
    """Write what can be sent of a study into another folder: reports, index, tables, figures; no notebook, no model.

    What was put there before goes, so that nothing of it is sent. Of the manifest's columns those are sent that the study
    itself made and those that make subgroups; patients as salted hashes.

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
    rename = _rename_files(folder) if anonymous else str
    steps = {step["report"]: step for step in study.get("steps", [])}
    for notebook in list_whole(folder, "[0-9]*.ipynb", "*/[0-9]*.ipynb"):
        name = notebook.relative_to(folder).with_suffix("")
        if name.parent.name == LAB:  # a person's own
            continue
        error = steps.get(name.as_posix(), {}).get("error", "")
        write_html(notebook, out / name.with_suffix(".html"), error=error, images=images)
    stale = list_stale(study)
    for path in list_whole(folder, *_TABLES):
        name = path.relative_to(folder)
        if name.as_posix() in stale or name.parts[0] == LAB or (path.suffix == ".png" and not is_shown(path, images)):
            continue
        if name.suffix == ".csv" and len(name.parts) == 1:
            write_csv(out / name, _select_columns(read_csv(path), drop_hashes=anonymous))
        else:
            write_whole(out / name, lambda partial, path=path: shutil.copyfile(path, partial))
    index = write_index(folder, target=out, images=images)
    if anonymous:
        for path in list_whole(out, "*.html", "*/*.html", "*.csv", "*/*.csv", "*/*.json", "*/*.md", "figures/*.png"):
            _rename_within(path, rename)
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
        made = [name for name in COLUMNS if name in table.columns]
        table = table[[*made, *(name for name in subgroup_columns(used, table) if name not in made)]]
        table = table.assign(patient=table["patient"].map(hash_identifier, na_action="ignore"))
    return table.drop(columns=_HASHES if drop_hashes else [], errors="ignore")


def _rename_files(folder: Path) -> Callable[[str], str]:
    """Return what replaces each file's path, and its name alone, in a text by a number; in the order of their contents."""
    manifest = read_csv(folder / "manifest.csv").sort_values(["sha256", "path"], ignore_index=True)
    numbers = {path: f"{number:06d}" for number, path in enumerate(manifest["path"], 1)}
    names = {path.split("/")[-1]: number for path, number in numbers.items()}
    forms = {}
    for name, number in (numbers | names).items():
        forms |= dict.fromkeys((name, html.escape(name), html.escape(name, quote=False), escape(name)), number)
    ordered = sorted(forms, key=len, reverse=True)  # a path before the name that ends it

    def rename(text: str) -> str:
        for form in ordered:
            if form in text:
                text = text.replace(form, forms[form])
        return text

    return rename


def _rename_within(path: Path, rename: Callable[[str], str]) -> None:
    if path.suffix != ".png":
        write_text(path, rename(path.read_text(encoding="utf-8")))
        return
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    with Image.open(path) as picture:
        told = PngInfo()
        for key, value in picture.info.items():
            if isinstance(value, str):
                told.add_text(key, rename(value))
        write_whole(path, lambda partial: picture.save(partial, pnginfo=told))
