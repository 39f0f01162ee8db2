"""Train, validation and test, with no source or patient on two sides; and which images a subset takes."""

import numpy as np
import pandas as pd
from sklearn.model_selection import StratifiedGroupKFold

from xray_helpers.settings import POSITIVE, SPLITS, InputError, Settings

TEST_SHARE, VALIDATION_SHARE = 0.20, 0.15
MIN_SUBSET = 100  # images of a class that a subset keeps where there are as many
_TRIES = 12  # shuffles among which the best balanced is taken


def assign_splits(manifest: pd.DataFrame, settings: Settings) -> pd.DataFrame:
    """Return the manifest with ``split`` filled for the images used, and ``status`` for the others.

    Of the readable images a subset of whole groups is drawn (``used``; the rest is ``not sampled``); of
    these 20 % become test, and 15 % of what is left validation, whole groups at a time, stratified by
    label. With ``split = folders`` the set's own parts are taken instead; a validation part is drawn from
    its train part, and a test part too, only where it has none.

    Raises
    ------
    InputError
        When there are too few groups of a class for three parts, or no folders where they are asked for.
    """
    manifest = manifest.copy()
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
        parts[_hold_out(used[parts == "train"], TEST_SHARE, settings.seed)] = "test"
    if not (parts == "validation").any():
        parts[_hold_out(used[parts == "train"], VALIDATION_SHARE, settings.seed + 1)] = "validation"
    manifest.loc[used.index, "split"] = parts
    check_parts(manifest)
    return manifest


def _sample(pool: pd.DataFrame, share: float, seed: int) -> np.ndarray:
    """Whole groups, in random order, until each class has its share (and no fewer than MIN_SUBSET)."""
    if share >= 1:
        return np.ones(len(pool), bool)
    positive = (pool["label"] == POSITIVE).groupby(pool["group"]).sum()
    size = pool.groupby("group").size()
    order = np.random.default_rng(seed).permutation(len(size))
    taken: set = set()
    for is_positive in (True, False):
        total = int(((pool["label"] == POSITIVE) == is_positive).sum())
        wanted = min(total, max(MIN_SUBSET, int(np.ceil(share * total))))
        have = sum((positive if is_positive else size - positive)[list(taken)]) if taken else 0
        for group in size.index[order]:
            count = positive[group] if is_positive else size[group] - positive[group]
            if have >= wanted:
                break
            if count and group not in taken:
                taken.add(group)
                have += count
    return pool["group"].isin(taken).to_numpy()


def _hold_out(table: pd.DataFrame, share: float, seed: int) -> pd.Index:
    """Return the rows of the group-aware, stratified part that comes nearest to `share` of each class."""
    labels, groups = table["label"].to_numpy(), table["group"].to_numpy()
    classes = np.unique(labels)
    total = np.array([(labels == c).sum() for c in classes])
    folds = round(1 / share)
    enough = min((table.loc[labels == c, "group"].nunique() for c in classes), default=0)
    if len(classes) < 2 or enough < 2:
        few = min(classes, key=lambda c: table.loc[labels == c, "group"].nunique(), default="either class")
        raise InputError(
            f"Too few independent images of class {few} to split: {enough} source or patient groups where at "
            "least 2 a part are needed; add images of other patients, or raise use_subset."
        )
    best, best_cost = None, np.inf
    for attempt in range(_TRIES):
        splitter = StratifiedGroupKFold(min(folds, enough), shuffle=True, random_state=seed * 1000 + attempt)
        for _, rows in splitter.split(labels, labels, groups):
            part = np.array([(labels[rows] == c).sum() for c in classes])
            one_sided = (part == 0).any() or (part == total).any()
            cost = np.abs(part - share * total).sum() / len(table) + 10 * one_sided
            if cost < best_cost:
                best, best_cost = rows, cost
    return table.index[best]


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
    """Count the images used, a row a part.

    Returns
    -------
    DataFrame
        split, n, groups, fractured, non_fractured, prevalence (share fractured), majority_accuracy (of
        always naming the commoner class).
    """
    used = manifest[manifest["status"] == "used"]
    rows = []
    for split in SPLITS:
        part = used[used["split"] == split]
        positive = int((part["label"] == POSITIVE).sum())
        if len(part):
            share = positive / len(part)
            rows.append(
                {
                    "split": split,
                    "n": len(part),
                    "groups": part["group"].nunique(),
                    "fractured": positive,
                    "non_fractured": len(part) - positive,
                    "prevalence": share,
                    "majority_accuracy": max(share, 1 - share),
                }
            )
    return pd.DataFrame(rows)


def used_part(manifest: pd.DataFrame, split: str) -> pd.DataFrame:
    """Return the rows used in one part, in path order, with ``y_true`` (1 = Fractured)."""
    part = manifest[(manifest["status"] == "used") & (manifest["split"] == split)]
    part = part.sort_values("path", ignore_index=True)
    return part.assign(y_true=(part["label"] == POSITIVE).astype(int))
