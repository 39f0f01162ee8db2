"""Images of test whose source or patient is in train or validation too, and the gate that stops on them."""

from typing import Any

import pandas as pd
from sklearn.model_selection import train_test_split

from xray_helpers.data.splits import TEST_SHARE
from xray_helpers.settings import SPLITS, InputError
from xray_helpers.study.seeds import derive_seed


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
    """Return the leak in two sentences, with examples."""
    examples = "; ".join(" and ".join(pair) for pair in leak["examples"])
    return (
        f"The split leaks: {leak['test_leaked']} of {leak['test']} test images ({leak['share'] or 0:.0%}) "
        "have a sibling "
        f"from the same source or patient in train or validation, {leak['groups']} groups in all (such as "
        f"{examples})."
    )
