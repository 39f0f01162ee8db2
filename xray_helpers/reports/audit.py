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
from xray_helpers.reports.gate import list_shared, write_badge, write_findings, write_sarif, write_split
from xray_helpers.same_source.groups import find_label_conflicts, iterate_groups
from xray_helpers.same_source.search import Search, find_same_source
from xray_helpers.settings import build_settings, number_of
from xray_helpers.study.files import read_csv, write_csv, write_text

_MOST_GROUPS, _MOST_ROWS = 12, 50  # shown on the page: groups as pictures, rows of tables


class Audit(NamedTuple):
    """The result of `audit_folder`."""

    facts: dict[str, str]  # values by name, as text
    leaked: bool  # whether folders that look like parts of a split share sources
    page: Path  # index.html
    letter: Path | None  # for_the_owner.html: what to send to the owner of a set that leaks


class Outputs(NamedTuple):
    """Further files that `audit_folder` writes."""

    json: Path | None = None
    sarif: Path | None = None
    badge: Path | None = None  # SVG
    split: Path | None = None  # CSV


def audit_folder(
    data: str,
    out: Path,
    *,
    weights: str = "auto",
    corrections: str = "",
    patient_pattern: str = "",
    outputs: Outputs | None = None,
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
    outputs : Outputs, optional
        Files for machines, a badge, and a split without the leak.

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
        title=f"Same-source images in {Path(data).name or data}: an audit",
        name=Path(data).name or data,
        unreadable=table.loc[table["status"] == "unreadable", ["path", "reason"]]
        .head(_MOST_ROWS)
        .to_dict("records"),
        facts=facts,
        verdict=verdict,
        conflicts=conflicts.head(_MOST_ROWS).to_dict("records"),
        doubtful=doubtful.to_dict("records"),
        strips=_draw_groups(table, folder),
        notes=listing.notes,
    )
    page = write_text(out / "index.html", page)
    shared = list_shared(table)
    _write_outputs(outputs or Outputs(), table, listing.folder, search, conflicts, leak, facts, shared)
    letter = _write_letter(out, verdict, shared, outputs.split if outputs else None) if len(shared) else None
    return Audit(facts, leak["groups"] > 0, page, letter)


def _write_outputs(
    outputs: Outputs,
    table: pd.DataFrame,
    folder: Path,
    search: Search,
    conflicts: pd.DataFrame,
    leak: dict[str, Any],
    facts: dict[str, str],
    shared: pd.DataFrame,
) -> None:
    if outputs.json:
        write_findings(outputs.json, facts, leak, shared, search.links)
    if outputs.sarif:
        write_sarif(outputs.sarif, shared, conflicts, search.links)
    if outputs.badge:
        write_badge(outputs.badge, leak, table["folder_split"].nunique())
    if outputs.split:
        write_split(outputs.split, table, folder)


def _write_letter(out: Path, verdict: str, shared: pd.DataFrame, split: Path | None) -> Path:
    """Write the page to send to the owner of the set: all shared files, by source and part."""
    new = read_csv(split) if split else None
    page = render_page(
        "letter.html.j2",
        title="Files that the parts of this data set share",
        verdict=verdict,
        split=split.name if split else "",
        moved=int(new["moved_from"].notna().sum()) if new is not None and "moved_from" in new else 0,
        total=0 if new is None else len(new),
        files=len(shared),
        sources=[
            {part: rows["path"].tolist() for part, rows in files.groupby("folder_split")}
            for _, files in shared.groupby("source_group")
        ],
    )
    return write_text(out / "for_the_owner.html", page)


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
        "largest group": number_of(sizes.max() if len(sizes) else 0, "file"),
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
