"""Train, validation and test, with no source or patient on two sides; and which images a subset takes."""

import hashlib
from typing import Any

import numpy as np
import pandas as pd
from sklearn.model_selection import train_test_split

from xray_helpers.settings import FEW, POSITIVE, SPLITS, InputError, Settings
from xray_helpers.studies import derive_seed

TEST_SHARE, VALIDATION_SHARE = 0.20, 0.15
MIN_SUBSET = 100  # images of a class that a subset keeps where there are as many
_TRIES = 60  # shuffles among which the best balanced is taken
_ROTATED = 0.02  # share of the corners by which a copy is blacker than another of its source when it was rotated
_DRAWN = ["source_group", "group"]  # columns by which parts are drawn
_KEY = ("path", "sha256", "label", "group", "split", "fold", "counted")  # columns that results hang on


def assign_splits(manifest: pd.DataFrame, settings: Settings, drawn_by: pd.DataFrame | None = None) -> pd.DataFrame:
    """Return the manifest with ``split`` filled for the images used, and ``status`` for the others.

    Of the readable images a subset of whole groups is drawn (``used``; the rest is ``not sampled``); of
    these 20 % of the sources become test, and 15 % of what is left validation, whole groups at a time, stratified by
    label. A source counts once, whatever number of files derive from it. With ``split = folders`` the set's own parts are
    taken instead; a validation part is drawn from its train part, and a test part too, only where it has none.

    Parameters
    ----------
    manifest : DataFrame
    settings : Settings
    drawn_by : DataFrame, optional
        source_group and group of each image before corrections. Parts are drawn by them; a group that a correction made
        of several parts goes to test if any of it lay there, else to validation: so no correction takes an image out of
        test, nor moves one that it does not concern.

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
    """Return a fold (0, 1, ...) for each image used: stratified by label, whole groups; missing for the others.

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


def draw_random_files(manifest: pd.DataFrame, seed: int) -> pd.Series:
    """Return what the usual script does: train and test drawn by file, stratified, groups ignored."""
    used = manifest[manifest["status"] == "used"]
    drawn = derive_seed(seed, "random files")
    _, test = train_test_split(used.index, test_size=TEST_SHARE, stratify=used["label"], random_state=drawn)
    parts = pd.Series(pd.NA, index=manifest.index, dtype="string")
    parts[used.index] = "train"
    parts[test] = "test"
    return parts


def measure_leak(manifest: pd.DataFrame, split: pd.Series, by: str = "group") -> dict[str, Any]:
    """Measure what a split shares between its parts.

    Parameters
    ----------
    manifest : DataFrame
        path and the column `by`.
    split : Series
        train, validation or test, or missing.
    by : str
        What must not be on two sides.

    Returns
    -------
    dict
        ``test`` and ``test_leaked``: files in test, and those with a sibling in train or validation;
        ``share``, their ratio (None without test files); ``groups``: how many are on two sides;
        ``examples``: up to three pairs of paths, test first.
    """
    table = manifest[["path", by]].assign(split=split).dropna()
    sides = table.groupby(by)["split"].nunique()
    shared = sides.index[sides > 1]
    test = table[table["split"] == "test"]
    outside = set(table.loc[table["split"] != "test", by])
    leaked = test[test[by].isin(outside)]
    examples = []
    for name in sorted(shared)[:3]:
        members = table[table[by] == name].sort_values("path").drop_duplicates("split")
        members = members.set_index("split").reindex(SPLITS[::-1]).dropna()
        examples.append([f"{part}: {path}" for part, path in members["path"].items()][:2])
    return {
        "test": len(test),
        "test_leaked": len(leaked),
        "share": len(leaked) / len(test) if len(test) else None,
        "groups": len(shared),
        "examples": examples,
    }


def compare_leaks(manifest: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Measure the leak of the set's own folders, of files drawn at random, and of the study's split.

    Returns
    -------
    DataFrame
        split, test_files, leaked_files, leak (share of test files with a sibling in train or validation),
        groups_on_two_sides.
    """
    splits = {"random files": draw_random_files(manifest, seed), "this study": manifest["split"]}
    if (manifest["folder_split"] == "test").any() and (manifest["folder_split"] != "test").any():
        own = manifest["folder_split"].where(manifest["status"] == "used")
        splits = {"the set's own folders": own} | splits
    rows = []
    for name, split in splits.items():
        leak = measure_leak(manifest, split)
        rows.append(
            {
                "split": name,
                "test_files": leak["test"],
                "leaked_files": leak["test_leaked"],
                "leak": leak["share"],
                "groups_on_two_sides": leak["groups"],
            }
        )
    return pd.DataFrame(rows)


def check_gate(manifest: pd.DataFrame, *, accept_leak: bool = False) -> dict[str, Any]:
    """Stop a study whose parts share a source or patient; return `measure_leak` of its split.

    Raises
    ------
    InputError
        With the count and three examples, unless the leak is accepted.
    """
    leak = measure_leak(manifest, manifest["split"])
    if leak["groups"] and not accept_leak:
        raise InputError(
            f"{describe_leak(leak)} Use -p split=grouped, or -p accept_leak=true to go on, marked as leaky."
        )
    return leak


def describe_leak(leak: dict[str, Any]) -> str:
    """Return the leak in two sentences, with examples."""
    examples = "; ".join(" and ".join(pair) for pair in leak["examples"])
    return (
        f"The split leaks: {leak['test_leaked']} of {leak['test']} test images ({leak['share'] or 0:.0%}) have a sibling "
        f"from the same source or patient in train or validation, {leak['groups']} groups in all (such as {examples})."
    )


def _count_groups(table: pd.DataFrame) -> pd.DataFrame:
    """Return how many sources of each class a group has: index group, a column per class.

    A source is counted once, whatever number of files derive from it, by the label of its first file.
    """
    sources = table.sort_values("path").drop_duplicates("source_group") if "source_group" in table else table
    counts = pd.crosstab(sources["group"], sources["label"])
    return counts.reindex(index=np.unique(table["group"]), fill_value=0)


def _sample(pool: pd.DataFrame, share: float, seed: int) -> np.ndarray:
    """Whole groups, in random order, until each class has its share of sources (and no fewer than MIN_SUBSET)."""
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
    """Return the rows of whole groups, drawn at random, that come nearest to `share` of the sources of each class.

    Parts with fewer than `FEW` groups of a class are passed over, as far as there are groups for more.
    """
    counts = _count_groups(table)
    members, sizes = (counts > 0).sum(), counts.to_numpy()
    enough = int(members.min()) if len(members) > 1 else 0
    if enough < 2:
        raise InputError(
            f"Too few independent images of class {members.idxmin() if len(members) else 'either'} to split: {enough} source or "
            "patient groups where at least 2 a part are needed; add images of other patients, or raise use_subset."
        )
    wanted = np.minimum(FEW, share * members.to_numpy())
    strata = (sizes > 0) @ (1 << np.arange(sizes.shape[1]))  # groups of one class, of the other, of both
    best, best_cost = None, np.inf
    for attempt in range(_TRIES):
        chosen = _draw_groups(sizes, strata, share, np.random.default_rng(derive_seed(seed, "attempt", attempt)))
        part, total = sizes[chosen].sum(axis=0), sizes.sum(axis=0)
        one_sided = (part == 0).any() or (part == total).any()
        short = np.maximum(0, wanted - (sizes[chosen] > 0).sum(axis=0)).sum()
        cost = np.abs(part - share * total).sum() / total.sum() + 10 * one_sided + short
        if cost < best_cost:
            best, best_cost = chosen, cost
    return table.index[table["group"].isin(counts.index[best])]


def _draw_groups(sizes: np.ndarray, strata: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """Return which groups are drawn: of each stratum, in random order, as many as come nearest to its share.

    Never more than twice that share of the groups, or a giant group would be left alone with none of its class.
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


def mark_counted(manifest: pd.DataFrame, corners: pd.Series, count: str) -> pd.DataFrame:
    """Return the manifest with ``counted``: whether an image is judged where its part is; copies are for training only.

    Parameters
    ----------
    manifest : DataFrame
        With sources and parts.
    corners : Series of float
        Share of each picture's corners that is black, 0 to 1: what rotation within the frame leaves (`Search.corners`).
    count : {'sources', 'files'}
        ``sources``: of each source one picture, the nearest to the original: not rotated within black corners, then the
        largest, then the first by hash. ``files``: all.
    """
    used = manifest[manifest["status"] == "used"]
    counted = pd.Series(pd.NA, index=manifest.index, dtype="boolean")
    counted[used.index] = count == "files"
    if count == "sources":
        black = corners[used.index].fillna(0.0)
        turned = black > black.groupby(used["source_group"]).transform("min") + _ROTATED
        ranked = used.assign(turned=turned, area=-(used["width"] * used["height"]).astype(float))
        first = ranked.sort_values(["turned", "area", "sha256", "path"]).drop_duplicates("source_group")
        counted[first.index] = True
    return manifest.assign(counted=counted)


def manifest_key(manifest: pd.DataFrame) -> str:
    """Return a hash of which images are used, with what labels, groups and parts: what every result hangs on."""
    used = manifest.reindex(columns=_KEY)[manifest["status"] == "used"]
    text = used.astype("string").fillna("").sort_values("path").to_csv(index=False, lineterminator="\n")
    return hashlib.sha256(text.encode()).hexdigest()


def check_made_with(manifest: pd.DataFrame, record: dict[str, Any], model: str, notebook: str = "02") -> None:
    """Raise `InputError` where a record (``training.json`` or ``metrics.json``) was made with another manifest."""
    if record.get("manifest") != manifest_key(manifest):
        raise InputError(
            f"The results of {model} belong to another manifest.csv than the one in the study's folder (01 was run again since, "
            f"with other images, corrections or parts): run {notebook} again for {model}, and then what follows it."
        )


def check_parts(manifest: pd.DataFrame) -> None:
    """Raise `InputError` unless every part holds both classes."""
    table = class_balance(manifest)
    for split in SPLITS:
        row = table[table["split"] == split]
        if row.empty or row[["fractured", "non_fractured"]].eq(0).any(axis=None):
            raise InputError(
                f"The {split} part lacks a class ({row.to_dict('records')}): too few independent images; "
                "add images, or raise use_subset."
            )


def class_balance(manifest: pd.DataFrame) -> pd.DataFrame:
    """Count the images that are judged, or would be, one row per part.

    Returns
    -------
    DataFrame
        split, files (used; copies are for training only), n (images counted: one per source), groups, effective (number of
        groups of equal size that tell as much: (sum of sizes)^2 / sum of squared sizes, Kish 1965), fractured,
        non_fractured, prevalence (share fractured), majority_accuracy (of always naming the commoner class).
    """
    rows = []
    for split in SPLITS:
        part = used_part(manifest, split)
        if not len(part):
            continue
        positive, sizes = int(part["y_true"].sum()), part["group"].value_counts()
        share = positive / len(part)
        rows.append(
            {
                "split": split,
                "files": len(used_part(manifest, split, copies=True)),
                "n": len(part),
                "groups": len(sizes),
                "effective": round(float(sizes.sum() ** 2 / (sizes**2).sum()), 1),
                "fractured": positive,
                "non_fractured": len(part) - positive,
                "prevalence": share,
                "majority_accuracy": max(share, 1 - share),
            }
        )
    return pd.DataFrame(rows)


def weigh_copies(manifest: pd.DataFrame, split: str) -> np.ndarray | None:
    """Return 1 / the number of judged files of each row's source, in the order of `used_part`; None where each is judged once.

    Copies are judged with ``count = files`` only.
    """
    part = used_part(manifest, split)
    files = (
        part.groupby("source_group")["path"].transform("size") if "source_group" in part else pd.Series(1, part.index)
    )
    return None if (files == 1).all() else (1 / files).to_numpy()


def used_part(manifest: pd.DataFrame, split: str, *, copies: bool = False) -> pd.DataFrame:
    """Return the rows used in one part, in path order, with ``y_true`` (1 = Fractured).

    Of each source one row is returned (``counted`` in the manifest), or with `copies` every file.
    """
    part = manifest[(manifest["status"] == "used") & (manifest["split"] == split)]
    if not copies and "counted" in part:
        part = part[part["counted"].astype("boolean").fillna(True).astype(bool)]
    part = part.sort_values("path", ignore_index=True)
    return part.assign(y_true=(part["label"] == POSITIVE).astype(int))
