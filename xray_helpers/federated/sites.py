"""Which images belong to which site, with the parts of each; what sites share is found first."""

import re
from collections.abc import Mapping
from itertools import combinations
from typing import Any, NamedTuple

import pandas as pd

from xray_helpers.data.external import ExternalSet, find_places, read_external, within_reach
from xray_helpers.data.manifest import assign_groups
from xray_helpers.data.parts import mark_counted, used_part
from xray_helpers.data.splits import VALIDATION_SHARE, assign_splits, hold_out
from xray_helpers.images.radiographs import ImageFolder
from xray_helpers.same_source.candidates import Embedder
from xray_helpers.same_source.search import find_same_source
from xray_helpers.settings import SPLITS, InputError, Settings
from xray_helpers.study.seeds import derive_seed

_STUDY = "study"  # before the paths of the study's own images while all are searched together
_SEEN = ("train", "validation")  # of the study: its model was trained, or chosen, on them


class Sites(NamedTuple):
    """The images of several sites.

    Attributes
    ----------
    tables : dict
        By site a manifest: its images that are used, each with its part; paths begin with the site's name
        where sites are read from folders.
    images : dict
        By site where its files are; their paths are those of the column ``file``.
    left_out : dict
        Of each site that cannot take part the reason.
    notes : list of str
        What was found, one sentence each.
    """

    tables: dict[str, pd.DataFrame]
    images: dict[str, ImageFolder]
    left_out: dict[str, str]
    notes: list[str]

    def part(self, site: str, split: str, *, copies: bool = False) -> pd.DataFrame:
        """Return the images of a part of a site; see `parts.used_part`."""
        return used_part(self.tables[site], split, copies=copies)

    def table(self) -> pd.DataFrame:
        """Return one row per site: site, images, groups, fractured (share), and the images of each part."""
        rows = []
        for site, table in self.tables.items():
            counted = pd.concat(self.part(site, split) for split in SPLITS)
            row = {"site": site, "images": len(counted), "groups": counted["group"].nunique()}
            row["fractured"] = f"{counted['y_true'].mean():.0%}"
            for split in SPLITS:
                part = self.part(site, split)
                row[split] = (
                    f"{len(part)} ({part['group'].nunique()} groups, {part['y_true'].sum()} fractured)"
                )
            row["copies, train only"] = str(len(table) - len(counted))
            rows.append(row)
        return pd.DataFrame(rows)


def open_sites(
    places: Mapping[str, str],
    column: str,
    manifest: pd.DataFrame,
    images: ImageFolder,
    *embedder: Any,
    **search: Any,
) -> Sites:
    """Return the sites of folders or tables, or where none are given those of a column of the study.

    Parameters
    ----------
    places : mapping of str to str
        By site a folder or CSV.
    column : str
        Of the study's manifest.
    manifest : DataFrame
    images : ImageFolder
        Of the study.
    *embedder, **search
        As for `read_sites`.

    Raises
    ------
    InputError
        When fewer than two sites are left.
    """
    if places:
        found = read_sites(places, manifest, images, *embedder, **search)
    else:
        found = split_by_column(manifest, column, images, settings=search["settings"])
    if len(found.tables) < 2:
        reasons = "; ".join(f"{site}: {reason}" for site, reason in found.left_out.items())
        raise InputError(
            f"Federated training needs two sites or more, and {len(found.tables)} can take part"
            + (f" ({reasons})." if reasons else ".")
        )
    return found


def name_site(value: Any) -> str:
    """Return a value of a column as the name of a site, and of its folder."""
    return re.sub(r"[^\w.-]+", "-", str(value).strip()).strip("-.")[:60] or "site"


def split_by_column(manifest: pd.DataFrame, column: str, images: ImageFolder, *, settings: Settings) -> Sites:
    """Return the sites that a column of the study's own manifest names, each with its test part of the study.

    The study drew its parts by source and patient over all sites, so that no image has a copy in another
    site's test part, and its model has seen none of these. From the rest of each site its own validation part
    is drawn, with both classes; what two sites share goes to train.

    Raises
    ------
    InputError
        When there is no such column.
    """
    if column not in manifest:
        raise InputError(
            f"The study's images have no column {column!r} that names their site: give it in the study's CSV "
            "and run the study again, or give folders with --site NAME=DIR."
        )
    used = manifest[manifest["status"] == "used"]
    nameless = int(used[column].isna().sum())
    named = used.dropna(subset=[column])
    by_site = {site: rows for site, rows in named.groupby(named[column].map(name_site))}
    notes = [f"{nameless} images name no site in the column {column}: they take no part."] if nameless else []
    notes += _describe_shared(by_site)
    notes.append("Test parts are those of the study; validation is drawn anew from the rest of each site.")
    sites_of = named[column].map(name_site).groupby(named["group"]).nunique()
    tables, left_out = {}, {}
    for site, rows in by_site.items():
        rest, shared = rows[rows["split"] != "test"], rows["group"].isin(sites_of.index[sites_of > 1])
        try:
            held = hold_out(rest, VALIDATION_SHARE, derive_seed(settings.seed, "validation", site))
        except InputError as error:
            left_out[site] = str(error)
            continue
        part = rows["split"].where(rows["split"] == "test", "train").astype("string")
        part[held.difference(rows.index[shared])] = "validation"
        tables[site] = rows.assign(split=part, file=rows["path"])
    return _keep_able(Sites(tables, dict.fromkeys(tables, images), left_out, notes))


def read_sites(
    places: Mapping[str, str],
    manifest: pd.DataFrame,
    images: ImageFolder | None,
    embed: Embedder | None = None,
    embed_key: str = "",
    *,
    settings: Settings,
    corrections: str = "",
) -> Sites:
    """Read the sites of folders or tables, search sources over all of them and the study, and draw parts.

    Groups that several sites hold, or that the study trained its model on, go to train in each, so that no
    test image of a site has a copy on which a model was trained.

    Parameters
    ----------
    places : mapping of str to str
        By site a folder, a CSV or phantoms.
    manifest, images
        Of the study; images is None where they are not on this machine.
    embed, embed_key, corrections
        As for `search.find_same_source`.
    settings : Settings
        Of the study.
    """
    read, left_out, notes = {}, {}, []
    for site, place in places.items():
        found = read_external(place, settings.model_dump(), settings.patient_pattern)
        if found.refused:
            left_out[site] = found.refused.removeprefix("No score is given: ")
        else:
            read[site] = found
            notes += [f"{site}: {note}" for note in found.notes]
    joint = _join(read, manifest)
    table, corners = _find_groups(joint, read, manifest, images, embed, embed_key, corrections)
    tables = {}
    is_shared = table["group"].isin(_shared_groups(table))
    for site in read:
        rows = table[table["site"] == site].drop(columns="site")
        try:
            own = settings.model_copy(update={"use_subset": 1.0, "split": "grouped"})
            drawn = assign_splits(rows.assign(status="readable"), own)
        except InputError as error:
            left_out[site] = str(error)
            continue
        drawn = drawn.assign(split=drawn["split"].mask(is_shared[drawn.index], "train"))
        tables[site] = mark_counted(drawn, corners.reindex(drawn.index), settings.count)
    notes += _describe_shared({site: rows for site, rows in table.groupby("site")})
    return _keep_able(Sites(tables, {site: read[site].images for site in tables}, left_out, notes))


def _join(read: Mapping[str, ExternalSet], manifest: pd.DataFrame) -> pd.DataFrame:
    """Return the used images of the study and of all sites, with site, file, and paths that name the site."""
    own = manifest[manifest["status"] == "used"].assign(site=_STUDY)
    parts = [own, *(found.table.query("status == 'used'").assign(site=site) for site, found in read.items())]
    table = pd.concat(parts, ignore_index=True)
    prefix = table["site"] + "/"
    table = table.assign(file=table["path"], path=prefix + table["path"])
    for name in ("patient", "exam"):  # the same name is another person elsewhere, unless hashed from a DICOM
        hashed = table[name].str.fullmatch("[0-9a-f]{16}").fillna(False).astype(bool)
        table[name] = table[name].where(hashed, prefix + table[name]).astype("string")
    return table


def _find_groups(
    table: pd.DataFrame,
    read: Mapping[str, ExternalSet],
    manifest: pd.DataFrame,
    images: ImageFolder | None,
    embed: Embedder | None,
    embed_key: str,
    corrections: str,
) -> tuple[pd.DataFrame, pd.Series]:
    """Return the table with source_group and group over all sites, and the corners of `search.Search`."""
    present = table["site"] != _STUDY
    own = manifest[manifest["status"] == "used"]
    present |= pd.Series([*within_reach(images, own), *[False] * int(present.sum())], table.index)
    folders = {_STUDY: images} | {site: found.images for site, found in read.items()}
    places: dict[str, str] = {}
    for site, rows in table[present].groupby("site"):
        places |= dict(zip(rows["path"], find_places(folders[site], rows["file"]), strict=True))
    anywhere = next(iter(read.values())).images
    searched = table[present].reset_index()
    found = find_same_source(
        searched[["path", "sha256"]], anywhere._replace(places=places), embed, embed_key, corrections
    )
    source = pd.Series(found.source.to_numpy(), searched["index"]).reindex(table.index)
    source = source.fillna(table["path"])
    known = table["source_group"].where(table["site"] == _STUDY)  # as the study found, with its corrections
    first = source.groupby(known).transform("first")
    source = source.replace(dict(zip(source[first.notna()], first[first.notna()], strict=True)))
    grouped = assign_groups(table.assign(status="readable"), source).assign(status="used")
    corners = pd.Series(found.corners.to_numpy(), searched["index"]).reindex(table.index)
    return grouped, corners


def _shared_groups(table: pd.DataFrame) -> pd.Index:
    """Return the groups that several sites hold, or that the study's train or validation part holds too."""
    counts = table[(table["site"] != _STUDY) | table["split"].isin(_SEEN)]
    sites = counts.groupby("group")["site"].nunique()
    return sites[sites > 1].index


def _keep_able(sites: Sites) -> Sites:
    """Return the sites without those whose parts lack images or a class."""
    gaps = {site: _find_gap(table) for site, table in sites.tables.items()}
    kept = {site: table for site, table in sites.tables.items() if not gaps[site]}
    left_out = sites.left_out | {site: gap for site, gap in gaps.items() if gap}
    return sites._replace(tables=kept, left_out=left_out)


def _find_gap(table: pd.DataFrame) -> str:
    """Return why a site cannot take part; empty where it can."""
    for split in SPLITS:
        part = used_part(table, split)
        if not len(part):
            return f"it has no image for its {split} part"
        if split != "test" and part["y_true"].nunique() < 2:
            return f"its {split} part has images of one class only ({len(part)})"
    return ""


def _describe_shared(tables: Mapping[str, pd.DataFrame]) -> list[str]:
    """Return which sites share sources or patients, a sentence for each pair, or that none of several do."""
    groups = {site: set(rows["group"].dropna()) for site, rows in tables.items()}
    notes = []
    for one, other in combinations(groups, 2):
        both = groups[one] & groups[other]
        if both:
            counts = [int(tables[site]["group"].isin(both).sum()) for site in (one, other)]
            notes.append(
                f"{one} and {other} share {len(both)} sources or patients, of {counts[0]} and {counts[1]} "
                "images."
            )
    return notes or ["No source or patient is shared between sites."] * (len(tables) > 1)
