"""Leaks: test images whose source or patient is in train or validation as well, and the gate against them."""

from typing import Any

import pandas as pd
from sklearn.model_selection import train_test_split

from xray_helpers.data.splits import TEST_SHARE
from xray_helpers.settings import SPLITS, InputError, number_of
from xray_helpers.study.seeds import derive_seed


def draw_random_files(manifest: pd.DataFrame, seed: int) -> pd.Series:
    """Return the usual split of scripts: train and test drawn by file, stratified, groups ignored."""
    used = manifest[manifest["status"] == "used"]
    drawn = derive_seed(seed, "random files")
    _, test = train_test_split(used.index, test_size=TEST_SHARE, stratify=used["label"], random_state=drawn)
    parts = pd.Series(pd.NA, index=manifest.index, dtype="string")
    parts[used.index] = "train"
    parts[test] = "test"
    return parts


def measure_leak(manifest: pd.DataFrame, split: pd.Series, by: str = "group") -> dict[str, Any]:
    """Measure what the parts of a split share.

    Parameters
    ----------
    manifest : DataFrame
        path and the column `by`.
    split : Series
        train, validation or test, or missing.
    by : str
        Column whose values must not be in two parts.

    Returns
    -------
    dict
        ``test`` and ``test_leaked``: files in test, and those of them with a sibling in train or validation;
        ``share``, their ratio (None without test files); ``groups``: how many are in two parts;
        ``examples``: up to three pairs of paths, test first.
    """
    table = manifest[["path", by]].assign(split=split).dropna()
    parts = table.groupby(by)["split"].nunique()
    shared = sorted(parts.index[parts > 1])
    is_test = table["split"] == "test"
    test, leaked = is_test.sum(), table.loc[is_test, by].isin(table.loc[~is_test, by]).sum()
    examples = []
    for name in shared[:3]:
        members = table[table[by] == name].sort_values("path").drop_duplicates("split")
        members = members.set_index("split").reindex(SPLITS[::-1]).dropna()
        examples.append([f"{part}: {path}" for part, path in members["path"].items()][:2])
    return {
        "test": int(test),
        "test_leaked": int(leaked),
        "share": float(leaked / test) if test else None,
        "groups": len(shared),
        "examples": examples,
    }


def compare_leaks(manifest: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Measure the leak of the data set's own folders, of files drawn at random, and of the study's split.

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
    leaks = pd.DataFrame([measure_leak(manifest, split) for split in splits.values()])
    names = {
        "test": "test_files",
        "test_leaked": "leaked_files",
        "share": "leak",
        "groups": "groups_on_two_sides",
    }
    table = leaks[[*names]].rename(columns=names)
    table.insert(0, "split", [*splits])
    return table


def check_leak_gate(manifest: pd.DataFrame, *, accept_leak: bool = False) -> dict[str, Any]:
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
    """Return the leak in one sentence, with examples."""
    examples = "; ".join(" and ".join(pair) for pair in leak["examples"])
    return (
        f"The split leaks: {leak['test_leaked']} of {leak['test']} test images ({leak['share'] or 0:.0%}) "
        "have a sibling from the same source or patient in train or validation, "
        f"{number_of(leak['groups'], 'group')} in all (such as {examples})."
    )
