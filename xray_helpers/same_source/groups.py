"""What follows from source groups: their sizes, and labels that contradict each other within one."""

from collections.abc import Iterator

import pandas as pd

from xray_helpers.study.files import build_table


def find_label_conflicts(manifest: pd.DataFrame) -> pd.DataFrame:
    """Return the source groups whose files carry both labels: source_group, files, labels, paths (three)."""
    rows, known = [], manifest.dropna(subset=["source_group", "label"])
    torn = (
        known.groupby("source_group")["label"].transform("nunique") > 1
    )  # few: most sources are not looked at one by one
    for name, group in known[torn].groupby("source_group"):
        counts = group["label"].value_counts().sort_index()
        rows.append(
            {
                "source_group": name,
                "files": len(group),
                "labels": ", ".join(f"{count} {label}" for label, count in counts.items()),
                "paths": ", ".join(group.drop_duplicates("label")["path"]),
            }
        )
    return build_table(rows, ["source_group", "files", "labels", "paths"])


def iterate_groups(
    manifest: pd.DataFrame, minimum: int = 2, most: int | None = None
) -> Iterator[pd.DataFrame]:
    """Yield the rows of each source group of at least `minimum` files, the largest first; of `most` groups,
    where given.
    """
    sizes, rows = count_groups(manifest, minimum), manifest.groupby("source_group").indices
    for name in sizes.index[:most]:
        yield manifest.iloc[rows[name]]


def count_groups(manifest: pd.DataFrame, minimum: int = 2) -> pd.Series:
    """Return the files of each source group of at least `minimum` files, by its name, the largest first."""
    sizes = manifest.groupby("source_group").size().sort_values(ascending=False, kind="stable")
    return sizes[sizes >= minimum]
