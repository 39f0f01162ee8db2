"""An audit of a folder without a study: its copies and leaks, for those who own or receive a data set."""

from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from xray_helpers.data.leaks import describe_leak, measure_leak
from xray_helpers.data.listing import list_data
from xray_helpers.data.manifest import assign_groups, inspect_files, read_pictures
from xray_helpers.images.radiographs import ImageFolder
from xray_helpers.models.backbones import embedder_weights
from xray_helpers.models.features import build_embedder
from xray_helpers.models.inference import choose_backend
from xray_helpers.plots.images import plot_groups
from xray_helpers.plots.style import embed_picture, set_theme
from xray_helpers.reports.display import build_strips
from xray_helpers.reports.frame import render_page
from xray_helpers.same_source.groups import find_label_conflicts, iterate_groups
from xray_helpers.same_source.search import Search, find_same_source
from xray_helpers.settings import build_settings
from xray_helpers.study.files import write_csv, write_text

_MOST_GROUPS, _MOST_ROWS = 12, 50  # shown on the page: groups as pictures, rows of tables


class Audit(NamedTuple):
    """The result of `audit_folder`."""

    facts: dict[str, str]  # values by name, as text
    leaked: bool  # whether folders that look like parts of a split share sources
    page: Path  # index.html


def audit_folder(
    data: str, out: Path, *, weights: str = "auto", corrections: str = "", patient_pattern: str = ""
) -> Audit:
    """Search a folder or CSV for same-source images and write ``manifest.csv``, ``links.csv`` and a page.

    Parameters
    ----------
    data : str
        As for `listing.list_data`; labels are not needed.
    out : Path
        Folder to write to.
    weights : str
        ImageNet weights of MobileNetV2: a path, ``auto``, ``imagenet``, or ``random`` for none.
    corrections, patient_pattern : str
        As in a study.

    Raises
    ------
    InputError
        When there is no such folder, it has no images, or the corrections or the pattern are invalid.
    """
    build_settings(patient_pattern=patient_pattern)  # checks the pattern
    listing = list_data(data, patient_pattern, labelled=False)
    table = inspect_files(listing)
    place = embedder_weights(weights)
    embed, key = build_embedder(place, choose_backend(images=len(table)))
    folder = ImageFolder(listing.folder, places=listing.places)
    search = find_same_source(table, folder, embed, key, corrections)
    table = assign_groups(table, search.source)
    conflicts = find_label_conflicts(table)
    leak = measure_leak(table, table["folder_split"], by="source_group")
    facts = _collect_facts(table, search, conflicts, leak, place)
    write_csv(out / "manifest.csv", table)
    write_csv(out / "links.csv", search.links)
    doubtful = search.links[search.links["decision"] == "for review"]
    doubtful = doubtful.sort_values("correlation", ascending=False).head(_MOST_ROWS)
    verdict = describe_leak(leak).replace("The split leaks", "Its own folders leak") if leak["groups"] else ""
    page = render_page(
        "audit.html.j2",
        title="Same-source images: an audit",
        facts=facts,
        verdict=verdict,
        conflicts=conflicts.head(_MOST_ROWS).to_dict("records"),
        doubtful=doubtful.to_dict("records"),
        strips=_draw_groups(table, folder),
        notes=listing.notes,
    )
    return Audit(facts, leak["groups"] > 0, write_text(out / "index.html", page))


def _collect_facts(
    table: pd.DataFrame, search: Search, conflicts: pd.DataFrame, leak: dict[str, Any], place: str | None
) -> dict[str, str]:
    readable = table["status"] == "readable"
    sizes = table["source_group"].value_counts()
    facts = {
        "files found": len(table),
        "not readable": (~readable).sum(),
        "different pictures": search.unique,
        "sources": len(sizes),
        "files that share a source": sizes[sizes > 1].sum(),
        "largest group": f"{sizes.max() if len(sizes) else 0} files",
        "doubtful pairs, for a person": (search.links["decision"] == "for review").sum(),
        "sources with two labels": len(conflicts),
    }
    parts = set(table.loc[readable, "folder_split"].dropna())
    if len(parts) > 1:
        share = f" ({leak['share']:.1%})" if leak["share"] is not None else ""
        facts["sources on two sides of its own folders"] = leak["groups"]
        facts["test files with a sibling in train or val"] = f"{leak['test_leaked']} of {leak['test']}{share}"
    facts["pairs proposed by"] = (
        "MobileNetV2, ImageNet weights"
        if place
        else "Fourier-Mellin signatures: without ImageNet weights, combined crops and shears may be missed"
    )
    return {name: str(value) for name, value in facts.items()}


def _draw_groups(table: pd.DataFrame, folder: ImageFolder) -> list[dict[str, str]]:
    """Return the largest groups: picture (a data URI), alt (its alternative text) and paths."""
    set_theme()
    rows = []
    for group in iterate_groups(table, most=_MOST_GROUPS):
        group = group.assign(label=group["folder_split"].fillna(group["label"]))
        strip = build_strips([group], lambda paths: read_pictures(paths, folder))
        paths = ", ".join(group["path"])
        alt = f"{strip[0][0]}: {paths[:300]}"
        rows.append({"picture": embed_picture(plot_groups(strip)), "alt": alt, "paths": paths})
    return rows
