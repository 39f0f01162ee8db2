"""Source groups of a manifest: their sizes, and labels that contradict each other within one."""

from collections.abc import Iterator

import pandas as pd

from xray_helpers.study.files import build_table
from xray_helpers.study.tables import LABEL_CONFLICTS


def find_label_conflicts(manifest: pd.DataFrame) -> pd.DataFrame:
    """Return the source groups whose files carry both labels, with the columns `LABEL_CONFLICTS`."""
    labelled = manifest.dropna(subset=["source_group", "label"])
    conflicts = labelled[labelled.groupby("source_group")["label"].transform("nunique") > 1]
    rows = []
    for name, group in conflicts.groupby("source_group"):
        counts = group["label"].value_counts().sort_index()
        rows.append(
            {
                "source_group": name,
                "files": len(group),
                "labels": ", ".join(f"{count} {label}" for label, count in counts.items()),
                "paths": ", ".join(group.drop_duplicates("label")["path"]),
            }
        )
    return build_table(rows, LABEL_CONFLICTS)


def iterate_groups(
    manifest: pd.DataFrame, minimum: int = 2, most: int | None = None
) -> Iterator[pd.DataFrame]:
    """Yield the rows of each source group of at least `minimum` files, the largest first, at most `most`."""
    sizes, rows = count_groups(manifest, minimum), manifest.groupby("source_group").indices
    for name in sizes.index[:most]:
        yield manifest.iloc[rows[name]]


def count_groups(manifest: pd.DataFrame, minimum: int = 2) -> pd.Series:
    """Return the number of files by source group of at least `minimum` files, the largest first."""
    sizes = manifest.groupby("source_group").size().sort_values(ascending=False, kind="stable")
    return sizes[sizes >= minimum]
