"""Which images of another set derive from images of a study: the same search, over both sets."""

from typing import NamedTuple

import numpy as np
import pandas as pd

from xray_helpers.data.external import EXCLUDED_PARTS, find_places, within_reach
from xray_helpers.images.radiographs import ImageFolder
from xray_helpers.same_source.candidates import Embedder
from xray_helpers.same_source.search import find_same_source
from xray_helpers.settings import SPLITS
from xray_helpers.study.files import build_table
from xray_helpers.study.tables import LINKS

HERE, THERE = "study/", "external/"  # before the paths of both sets while they are searched together
_PAIRS = {"study": "string", "external": "string", "part": "string"} | {
    name: kind for name, kind in LINKS.items() if not name.startswith("path")
}


class Shared(NamedTuple):
    """What a set from elsewhere shares with a study.

    Attributes
    ----------
    source : Series of str
        For each row of the external set the smallest path of its source group in that set.
    corners : Series of float
        As `search.Search.corners`.
    shared : DataFrame
        For each row shared_part (the part of the study that holds an image of the same source, or the same
        patient by DICOM; train before validation before test; missing where there is none) and shared_with
        (a path of the study).
    pairs : DataFrame
        Pairs of an image of the study and an external one with their evidence: study, external, part, and the
        columns of `tables.LINKS`. Those whose decision is ``for review`` are for a person.
    searched : int
        Images of the study that were compared as pictures; the others, which are not on this machine, only
        by their hash.
    known : int
        Images of the study that were looked for.
    """

    source: pd.Series
    corners: pd.Series
    shared: pd.DataFrame
    pairs: pd.DataFrame
    searched: int
    known: int


def find_shared(
    manifest: pd.DataFrame,
    images: ImageFolder | None,
    external: pd.DataFrame,
    elsewhere: ImageFolder,
    embed: Embedder | None = None,
    embed_key: str = "",
    corrections: str = "",
) -> Shared:
    """Find the images of an external set that are, or derive from, images of a study.

    Parameters
    ----------
    manifest : DataFrame
        Of the study.
    images : ImageFolder or None
        Of the study; None where its images are not on this machine.
    external : DataFrame
        The manifest of the external set.
    elsewhere : ImageFolder
        Its folder.
    embed, embed_key, corrections
        As for `search.find_same_source`.
    """
    used = manifest[manifest["status"] == "used"].dropna(subset=["sha256"])
    present = within_reach(images, used)
    known = used[present]
    both, places = [], {}
    for prefix, table, folder in ((HERE, known, images), (THERE, external, elsewhere)):
        readable = table.dropna(subset=["sha256"])
        names = prefix + readable["path"]
        if len(readable):
            places |= dict(zip(names, find_places(folder, readable["path"]), strict=True))
        both.append(
            readable.reindex(columns=["sha256", "height", "width"]).assign(
                path=names, at=readable.index, prefix=prefix
            )
        )
    table = pd.concat(both, ignore_index=True)
    found = find_same_source(table, elsewhere._replace(places=places), embed, embed_key, corrections)
    table = table.assign(source=found.source, corners=found.corners)
    there = table[table["prefix"] == THERE].set_index("at").reindex(external.index)
    source = external["path"].groupby(there["source"]).transform("min").reindex(external.index)
    shared = _match(used, table[table["prefix"] == HERE], external, there["source"])
    return Shared(
        source.astype("string"),
        there["corners"].astype(float),
        shared,
        _select_pairs(found.links, used),
        int(present.sum()),
        len(used),
    )


def _match(used: pd.DataFrame, here: pd.DataFrame, external: pd.DataFrame, source: pd.Series) -> pd.DataFrame:
    """Return shared_part and shared_with of each external image, by source, by content, or by patient."""
    by_source = used.loc[here["at"], ["path", "split"]].assign(key=here["source"].to_numpy())
    by_content = used[["path", "split"]].assign(key=used["sha256"])
    scanned = used[_is_dicom(used)]
    by_patient = scanned[["path", "split"]].assign(key=scanned["patient"])
    keys = (source, external["sha256"], external["patient"].where(_is_dicom(external)))
    part = pd.Series(pd.NA, external.index, dtype="string")
    other = part.copy()
    for known, key in zip((by_source, by_content, by_patient), keys, strict=True):
        rank = known["split"].map({name: order for order, name in enumerate(SPLITS)})
        first = known.assign(rank=rank).dropna(subset=["key"]).sort_values(["rank", "path"])
        first = first.drop_duplicates("key").set_index("key")
        part = part.fillna(key.map(first["split"]).astype("string"))
        other = other.fillna(key.map(first["path"]).astype("string"))
    return pd.DataFrame({"shared_part": part, "shared_with": other})


def _is_dicom(table: pd.DataFrame) -> pd.Series:
    """Return which patients are hashes of a DICOM header, with this machine's secret: names of others may
    only look alike.
    """
    hashed = table["patient"].astype("string").str.fullmatch("[0-9a-f]{16}").fillna(False).astype(bool)
    return hashed & table["mode"].astype("string").str.startswith("DICOM").fillna(False).astype(bool)


def _select_pairs(links: pd.DataFrame, used: pd.DataFrame) -> pd.DataFrame:
    """Return the links between both sets, with the image of the study first."""
    turned = links["path_a"].str.startswith(THERE).to_numpy(bool)
    first, second = (
        pd.Series(np.where(turned, links[b], links[a]), links.index, dtype="string")
        for a, b in (("path_a", "path_b"), ("path_b", "path_a"))
    )
    pairs = links.drop(columns=["path_a", "path_b"]).assign(study=first, external=second)
    crossing = first.str.startswith(HERE) & second.str.startswith(THERE)
    pairs = pairs[crossing.fillna(False).astype(bool)]
    pairs = pairs.assign(
        study=pairs["study"].str.removeprefix(HERE), external=pairs["external"].str.removeprefix(THERE)
    )
    parts = used.set_index("path")["split"]
    return build_table(pairs.assign(part=pairs["study"].map(parts)).to_dict("records"), _PAIRS)


def count_shared(external: pd.DataFrame) -> dict[str, int]:
    """Return how much an external set shares with a study, from the table of `external.group_external`.

    Returns
    -------
    dict
        images, sources (with an image in train or validation), excluded (images, with all of their groups),
        with_test (images shared with the test part alone).
    """
    used = external[external["status"] == "used"]
    seen = used[used["shared_part"].isin(EXCLUDED_PARTS)]
    return {
        "images": len(seen),
        "sources": int(seen["source_group"].nunique()),
        "excluded": int(used["excluded"].sum()),
        "with_test": int(((used["shared_part"] == "test") & ~used["excluded"]).sum()),
    }


def describe_shared(shared: Shared, external: pd.DataFrame) -> str:
    """Return what both sets share, in sentences.

    Parameters
    ----------
    shared : Shared
    external : DataFrame
        With groups, of `external.group_external`.
    """
    used = external[external["status"] == "used"]
    excluded, seen = used[used["excluded"]], used[used["shared_part"].isin(EXCLUDED_PARTS)]
    tested = used[(used["shared_part"] == "test") & ~used["excluded"]]
    review = (shared.pairs["decision"] == "for review").sum()
    text = (
        f"{len(seen)} of {len(used)} external images, from {seen['source_group'].nunique()} sources, are or "
        "derive from images of the study's train or validation part"
        if len(seen)
        else f"None of the {len(used)} external images is, or derives from, an image of the study's train or "
        "validation part"
    )
    if more := len(excluded) - len(seen):
        text += f"; {more} more are of the same patients"
    text += ". " + (f"These {len(excluded)} are left out of all scores below. " if len(excluded) else "")
    if len(tested):
        text += f"{len(tested)} are shared with the study's test part, and stay. "
    if review:
        text += f"{review} pairs are alike, but not enough to be sure: a person should look at them. "
    if shared.searched < shared.known:
        text += (
            f"Only {shared.searched} of the study's {shared.known} images are on this machine: copies of the "
            "others are found where their bytes are equal, and what derives from them is not. "
        )
    return text.strip()
