"""Train, validation and test, with no source or patient in two parts; and which images a subset takes."""

import numpy as np
import pandas as pd

from xray_helpers.data.parts import check_parts
from xray_helpers.settings import MIN_GROUPS, InputError, Settings
from xray_helpers.study.seeds import derive_seed

TEST_SHARE, VALIDATION_SHARE = 0.20, 0.15
MIN_SUBSET = 100  # images of a class that a subset keeps, if there are as many
_TRIES = 60  # random draws, of which the best balanced is taken
_DRAWN_BY = ["source_group", "group"]  # columns by which parts are drawn


def assign_splits(
    manifest: pd.DataFrame, settings: Settings, drawn_by: pd.DataFrame | None = None
) -> pd.DataFrame:
    """Return the manifest with ``split`` filled for the images used, and ``status`` for the others.

    Of the readable images a subset of whole groups is drawn (``used``; the rest is ``not sampled``). 20 % of
    its sources become test, and 15 % of the rest validation, as whole groups, stratified by class. A source
    counts once, however many files derive from it. With ``split = folders`` the data set's own parts are
    taken; only test or validation parts that are missing are drawn from its train part.

    Parameters
    ----------
    manifest : DataFrame
    settings : Settings
    drawn_by : DataFrame, optional
        source_group and group of each image before corrections, by which parts are drawn. A group that a
        correction joined across parts goes to test if any of it was there, else to validation. So no
        correction takes an image out of test, or moves other images.

    Raises
    ------
    InputError
        When there are too few groups of a class for three parts, or no folders for ``split = folders``.
    """
    manifest, corrected = manifest.copy(), manifest
    if drawn_by is not None:
        manifest[_DRAWN_BY] = drawn_by[_DRAWN_BY]
    readable = manifest["status"].isin(["readable", "used", "not sampled"])
    pool = manifest[readable]
    sampled = _sample(pool, settings.use_subset, settings.seed)
    manifest.loc[readable, "status"] = np.where(sampled, "used", "not sampled")
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
        parts[hold_out(used[parts == "train"], TEST_SHARE, derive_seed(settings.seed, "test"))] = "test"
    if not (parts == "validation").any():
        seed = derive_seed(settings.seed, "validation")
        parts[hold_out(used[parts == "train"], VALIDATION_SHARE, seed)] = "validation"
    if drawn_by is not None:
        manifest[_DRAWN_BY] = corrected[_DRAWN_BY]
    if settings.split == "grouped" and drawn_by is not None:
        parts = _reunite(parts, manifest.loc[used.index, "group"])
    manifest.loc[used.index, "split"] = parts
    check_parts(manifest)
    manifest["fold"] = assign_folds(manifest, settings.folds, settings.seed)
    return manifest


def _reunite(parts: pd.Series, group: pd.Series) -> pd.Series:
    """Put a group that is in several parts into one: test before validation before train."""
    order = dict(enumerate(["test", "validation", "train"]))
    rank = parts.map({part: rank for rank, part in order.items()}).groupby(group).transform("min")
    return rank.map(order).astype("string")


def assign_folds(manifest: pd.DataFrame, folds: int, seed: int) -> pd.Series:
    """Return a fold (0, 1, ...) for each image used, stratified by label, whole groups; missing for others.

    There are no more folds than groups of a class.
    """
    used = manifest[manifest["status"] == "used"]
    fold = pd.Series(pd.NA, index=manifest.index, dtype="Int64")
    count = min(folds, *used.groupby("label")["group"].nunique())
    sizes = _count_groups(used)
    sizes = sizes.iloc[np.random.default_rng(derive_seed(seed, "folds")).permutation(len(sizes))]
    sizes = sizes.iloc[np.argsort(-sizes.sum(axis=1).to_numpy(), kind="stable")]  # spread large groups evenly
    strata = _strata(sizes.to_numpy())
    dealt = pd.Series(strata, index=sizes.index).groupby(strata).cumcount() % max(2, count)
    fold[used.index] = used["group"].map(dealt).astype("Int64")
    return fold


def _count_groups(table: pd.DataFrame) -> pd.DataFrame:
    """Return how many sources of each class a group has: index group, one column per class.

    A source counts once, however many files derive from it, by the label of its first file.
    """
    sources = table.sort_values("path").drop_duplicates("source_group") if "source_group" in table else table
    column = "class_name" if "class_name" in sources else "label"
    counts = pd.crosstab(sources["group"], sources[column])
    return counts.reindex(index=np.unique(table["group"]), fill_value=0)


def _strata(sizes: np.ndarray) -> np.ndarray:
    """Return a number for which classes each group holds: one, the other, or both."""
    return (sizes > 0) @ (1 << np.arange(sizes.shape[1]))


def _sample(pool: pd.DataFrame, share: float, seed: int) -> np.ndarray:
    """Return which rows are in a random subset of whole groups.

    Groups are added until each class has its share of sources, and no fewer than `MIN_SUBSET`.
    """
    if share >= 1:
        return np.ones(len(pool), bool)
    counts = _count_groups(pool)
    counts = counts.iloc[np.random.default_rng(derive_seed(seed, "subset")).permutation(len(counts))]
    taken = np.zeros(len(counts), bool)
    for label in counts.columns:
        of_class = counts[label].to_numpy()
        wanted = min(of_class.sum(), max(MIN_SUBSET, int(np.ceil(share * of_class.sum()))))
        missing = wanted - of_class[taken].sum()
        free = of_class * ~taken
        taken |= (free > 0) & (np.cumsum(free) - free < missing)
    return pool["group"].isin(counts.index[taken]).to_numpy()


def hold_out(table: pd.DataFrame, share: float, seed: int) -> pd.Index:
    """Return the rows of randomly drawn groups that come nearest to `share` of the sources of each class.

    Parts with fewer than `MIN_GROUPS` groups of a class are avoided if there are enough groups for more.
    """
    counts = _count_groups(table)
    members = table.groupby("label")[
        "group"
    ].nunique()  # of three or more classes, one may be missing in a part
    sizes = counts.to_numpy()
    enough = int(members.min()) if len(members) > 1 else 0
    if enough < 2:
        raise InputError(
            f"Too few independent images of class {members.idxmin() if len(members) else 'either'} to "
            f"split: {enough} source or patient groups where at least 2 per part are needed; add images of "
            "other patients, or raise use_subset."
        )
    wanted = np.minimum(MIN_GROUPS, share * (sizes > 0).sum(axis=0))
    total = sizes.sum(axis=0)
    best, best_cost = None, np.inf
    for attempt in range(_TRIES):
        chosen = _draw_groups(sizes, share, np.random.default_rng(derive_seed(seed, "attempt", attempt)))
        part = sizes[chosen].sum(axis=0)
        one_sided = ((part == 0) | (part == total)).sum()
        short = np.maximum(0, wanted - (sizes[chosen] > 0).sum(axis=0)).sum()
        cost = np.abs(part - share * total).sum() / total.sum() + 10 * one_sided + short
        if cost < best_cost:
            best, best_cost = chosen, cost
    return table.index[table["group"].isin(counts.index[best])]


def _draw_groups(sizes: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """Return which groups are drawn: of each stratum, in random order, as many as come nearest to its share.

    Never more than twice that share of the groups are drawn, lest a giant group is left alone of its class.
    """
    strata = _strata(sizes)
    chosen, order = np.zeros(len(sizes), bool), rng.permutation(len(sizes))
    for stratum in np.unique(strata):
        rows = order[strata[order] == stratum]
        size = sizes[rows].sum(axis=1)
        middle = np.cumsum(size) - size / 2
        rank = np.arange(len(rows))
        near = (middle <= share * size.sum()) & (rank < np.ceil(2 * share * len(rows)))
        chosen[rows[near | (rank < (len(rows) > 1))]] = True
    return chosen
