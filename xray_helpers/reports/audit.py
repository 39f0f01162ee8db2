"""A folder's copies and leaks, alone, without a study: for who owns or receives a data set."""

from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from xray_helpers.data.leaks import measure_leak
from xray_helpers.data.listing import list_data
from xray_helpers.data.manifest import assign_groups, inspect_files, read_pictures
from xray_helpers.images.radiographs import ImageFolder
from xray_helpers.models.backbones import embedder_weights
from xray_helpers.models.features import build_embedder
from xray_helpers.models.inference import choose_backend
from xray_helpers.plots.images import plot_groups
from xray_helpers.plots.style import embed_picture, set_theme
from xray_helpers.reports.display import build_strips
from xray_helpers.reports.pages import write_audit
from xray_helpers.same_source.groups import find_label_conflicts, iterate_groups
from xray_helpers.same_source.search import Search, find_same_source
from xray_helpers.settings import build_settings
from xray_helpers.study.files import write_csv

SHOWN = 12  # groups as pictures


class Audit(NamedTuple):
    """What `audit_folder` found.

    Attributes
    ----------
    facts : dict
        A name to a value, as text.
    leaked : bool
        Whether folders that look like parts of a split share sources.
    page : Path
        ``index.html``.
    """

    facts: dict[str, str]
    leaked: bool
    page: Path


def audit_folder(
    data: str, out: Path, *, weights: str = "auto", corrections: str = "", patient_pattern: str = ""
) -> Audit:
    """Search a folder or CSV for same-source images and write what was found.

    Parameters
    ----------
    data : str
        As `manifest.list_data`; classes are welcome but not needed.
    out : Path
        Gets ``manifest.csv``, ``links.csv`` and ``index.html``.
    weights : str
        Where ImageNet weights of MobileNetV2 are: a path, ``auto``, ``imagenet``, or ``random`` for none.
    corrections, patient_pattern : str
        As in a study.

    Raises
    ------
    InputError
        No such place, no images, corrections that cannot be understood.
    """
    build_settings(patient_pattern=patient_pattern)  # refuses what is no pattern
    listing = list_data(data, patient_pattern, labelled=False)
    table = inspect_files(listing)
    place = embedder_weights(weights)
    embed, key = build_embedder(place, choose_backend(images=len(table)))
    folder = ImageFolder(listing.folder, places=listing.places)
    search = find_same_source(table, folder, embed, key, corrections)
    table = assign_groups(table, search.source)
    conflicts = find_label_conflicts(table)
    leak = measure_leak(table, table["folder_split"], by="source_group")
    facts = _facts(table, search, conflicts, leak, place)
    write_csv(out / "manifest.csv", table)
    write_csv(out / "links.csv", search.links)
    page = write_audit(out, facts, leak, conflicts, search.links, _strips(table, folder), listing.notes)
    return Audit(facts, leak["groups"] > 0, page)


def _facts(
    table: pd.DataFrame, search: Search, conflicts: pd.DataFrame, leak: dict, place: str | None
) -> dict[str, str]:
    readable = table["status"] == "readable"
    sizes = table["source_group"].value_counts()
    parts = table.loc[readable, "folder_split"].dropna().nunique()
    facts = {
        "files found": f"{len(table)}",
        "not readable": f"{int((~readable).sum())}",
        "different pictures": f"{search.unique}",
        "sources": f"{len(sizes)}",
        "files that share a source": f"{int(sizes[sizes > 1].sum())}",
        "largest group": f"{int(sizes.max()) if len(sizes) else 0} files",
        "doubtful pairs, for a person": f"{int((search.links['decision'] == 'for review').sum())}",
        "sources with two labels": f"{len(conflicts)}",
    }
    if parts > 1:
        share = f" ({leak['share']:.1%})" if leak["share"] is not None else ""
        facts["sources on two sides of its own folders"] = f"{leak['groups']}"
        facts["test files with a sibling in train or val"] = f"{leak['test_leaked']} of {leak['test']}{share}"
    facts["pairs proposed by"] = (
        "MobileNetV2, ImageNet weights"
        if place
        else ("Fourier-Mellin signatures: without ImageNet weights, combined crops and shears may be missed")
    )
    return facts


def _strips(table: pd.DataFrame, folder: ImageFolder) -> list[dict[str, Any]]:
    """The largest groups as pictures: title, picture (a data address), alternative text, paths."""
    set_theme()
    groups = list(iterate_groups(table, most=SHOWN))
    strips = []
    for group in groups:
        relabelled = group.assign(label=group["folder_split"].fillna(group["label"]))
        strip = build_strips([relabelled], lambda paths: read_pictures(paths, folder))
        paths = ", ".join(group["path"])
        title = strip[0][0]
        strips.append(
            {"picture": embed_picture(plot_groups(strip)), "alt": f"{title}: {paths[:300]}", "paths": paths}
        )
    return strips
