"""Train, validation and test, with no source or patient on two sides; and which images a subset takes."""

import numpy as np
import pandas as pd

from xray_helpers.data.parts import check_parts
from xray_helpers.settings import MIN_GROUPS, InputError, Settings
from xray_helpers.study.seeds import derive_seed

TEST_SHARE, VALIDATION_SHARE = 0.20, 0.15
MIN_SUBSET = 100  # images of a class that a subset keeps where there are as many
_TRIES = 60  # shuffles among which the best balanced is taken
_DRAWN = ["source_group", "group"]  # columns by which parts are drawn


def assign_splits(
    manifest: pd.DataFrame, settings: Settings, drawn_by: pd.DataFrame | None = None
) -> pd.DataFrame:
    """Return the manifest with ``split`` filled for the images used, and ``status`` for the others.

    Of the readable images a subset of whole groups is drawn (``used``; the rest is ``not sampled``); of
    these 20 % of the sources become test, and 15 % of what is left validation, whole groups at a time,
    stratified by label. A source counts once, whatever number of files derive from it. With ``split =
    folders`` the set's own parts are taken instead; a validation part is drawn from its train part, and a
    test part too, only where it has none.

    Parameters
    ----------
    manifest : DataFrame
    settings : Settings
    drawn_by : DataFrame, optional
        source_group and group of each image before corrections. Parts are drawn by them; a group that a
        correction made of several parts goes to test if any of it lay there, else to validation: so no
        correction takes an image out of test, nor moves one that it does not concern.

    Raises
    ------
    InputError
        When there are too few groups of a class for three parts, or no folders where they are asked for.
    """
    manifest, corrected = manifest.copy(), manifest
    if drawn_by is not None:
        manifest[_DRAWN] = drawn_by[_DRAWN]
    readable = manifest["status"].isin(["readable", "used", "not sampled"])
    pool = manifest[readable]
    taken = _sample(pool, settings.use_subset, settings.seed)
    manifest.loc[readable, "status"] = np.where(taken, "used", "not sampled")
    manifest["split"] = pd.Series(pd.NA, index=manifest.index, dtype="string")
    used = manifest[manifest["status"] == "used"]
    if settings.split == "folders":
        parts = used["folder_split"].astype("string")
        if not (parts == "train").any() or parts.isna().any():
            raise InputError(
                "split = folders, but not every image lies in a folder named train, val or test "
                f"({int(parts.isna().sum())} of {len(parts)} do not): use split = grouped."
            )
    else:
        parts = pd.Series("train", index=used.index, dtype="string")
    if not (parts == "test").any():
        parts[_hold_out(used[parts == "train"], TEST_SHARE, derive_seed(settings.seed, "test"))] = "test"
    if not (parts == "validation").any():
        seed = derive_seed(settings.seed, "validation")
        parts[_hold_out(used[parts == "train"], VALIDATION_SHARE, seed)] = "validation"
    if drawn_by is not None:
        manifest[_DRAWN] = corrected[_DRAWN]
    if settings.split == "grouped" and drawn_by is not None:
        parts = _reunite(parts, manifest.loc[used.index, "group"])
    manifest.loc[used.index, "split"] = parts
    check_parts(manifest)
    manifest["fold"] = assign_folds(manifest, settings.folds, settings.seed)
    return manifest


def _reunite(parts: pd.Series, group: pd.Series) -> pd.Series:
    """Put a group that lies in several parts into one: test before validation before train."""
    rank = parts.map({"test": 0, "validation": 1, "train": 2}).groupby(group).transform("min")
    return rank.map({0: "test", 1: "validation", 2: "train"}).astype("string")


def assign_folds(manifest: pd.DataFrame, folds: int, seed: int) -> pd.Series:
    """Return a fold (0, 1, ...) for each image used: stratified by label, whole groups; missing for the
    others.

    With fewer groups of a class than `folds`, there are as many folds as groups.
    """
    used = manifest[manifest["status"] == "used"]
    fold = pd.Series(pd.NA, index=manifest.index, dtype="Int64")
    count = min(folds, *used.groupby("label")["group"].nunique())
    sizes = _count_groups(used)
    sizes = sizes.iloc[np.random.default_rng(derive_seed(seed, "folds")).permutation(len(sizes))]
    sizes = sizes.iloc[
        np.argsort(-sizes.sum(axis=1).to_numpy(), kind="stable")
    ]  # so that each fold gets large ones and small
    strata = (sizes > 0).to_numpy() @ (1 << np.arange(sizes.shape[1]))
    dealt = pd.Series(strata, index=sizes.index).groupby(strata).cumcount() % max(2, count)
    fold[used.index] = used["group"].map(dealt).astype("Int64")
    return fold


def _count_groups(table: pd.DataFrame) -> pd.DataFrame:
    """Return how many sources of each class a group has: index group, a column per class.

    A source is counted once, whatever number of files derive from it, by the label of its first file.
    """
    sources = table.sort_values("path").drop_duplicates("source_group") if "source_group" in table else table
    counts = pd.crosstab(sources["group"], sources["label"])
    return counts.reindex(index=np.unique(table["group"]), fill_value=0)


def _sample(pool: pd.DataFrame, share: float, seed: int) -> np.ndarray:
    """Whole groups, in random order, until each class has its share of sources (and no fewer than
    MIN_SUBSET).
    """
    if share >= 1:
        return np.ones(len(pool), bool)
    counts = _count_groups(pool)
    counts = counts.iloc[np.random.default_rng(derive_seed(seed, "subset")).permutation(len(counts))]
    taken = np.zeros(len(counts), bool)
    for label in counts.columns:
        of_class = counts[label].to_numpy()
        wanted = min(of_class.sum(), max(MIN_SUBSET, int(np.ceil(share * of_class.sum()))))
        still = wanted - of_class[taken].sum()
        free = of_class * ~taken
        taken |= (free > 0) & (np.cumsum(free) - free < still)
    return pool["group"].isin(counts.index[taken]).to_numpy()


def _hold_out(table: pd.DataFrame, share: float, seed: int) -> pd.Index:
    """Return the rows of whole groups, drawn at random, that come nearest to `share` of the sources of each
    class.

    Parts with fewer than `MIN_GROUPS` groups of a class are passed over, as far as there are groups for more.
    """
    counts = _count_groups(table)
    members, sizes = (counts > 0).sum(), counts.to_numpy()
    enough = int(members.min()) if len(members) > 1 else 0
    if enough < 2:
        raise InputError(
            f"Too few independent images of class {members.idxmin() if len(members) else 'either'} to "
            f"split: {enough} source or "
            "patient groups where at least 2 a part are needed; add images of other patients, or raise "
            "use_subset."
        )
    wanted = np.minimum(MIN_GROUPS, share * members.to_numpy())
    strata = (sizes > 0) @ (1 << np.arange(sizes.shape[1]))  # groups of one class, of the other, of both
    best, best_cost = None, np.inf
    for attempt in range(_TRIES):
        chosen = _draw_groups(
            sizes, strata, share, np.random.default_rng(derive_seed(seed, "attempt", attempt))
        )
        part, total = sizes[chosen].sum(axis=0), sizes.sum(axis=0)
        one_sided = (part == 0).any() or (part == total).any()
        short = np.maximum(0, wanted - (sizes[chosen] > 0).sum(axis=0)).sum()
        cost = np.abs(part - share * total).sum() / total.sum() + 10 * one_sided + short
        if cost < best_cost:
            best, best_cost = chosen, cost
    return table.index[table["group"].isin(counts.index[best])]


def _draw_groups(sizes: np.ndarray, strata: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """Return which groups are drawn: of each stratum, in random order, as many as come nearest to its share.

    Never more than twice that share of the groups, or a giant group would be left alone with none of its
    class.
    """
    chosen, order = np.zeros(len(sizes), bool), rng.permutation(len(sizes))
    for stratum in np.unique(strata):
        rows = order[strata[order] == stratum]
        size = sizes[rows].sum(axis=1)
        middle = np.cumsum(size) - size / 2
        rank = np.arange(len(rows))
        near = (middle <= share * size.sum()) & (rank < np.ceil(2 * share * len(rows)))
        chosen[rows[near | (rank < (len(rows) > 1))]] = True
    return chosen
