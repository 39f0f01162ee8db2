"""Small manifests made by hand."""

import pandas as pd

from xray_helpers.settings import NEGATIVE, POSITIVE


def table_of(groups):
    """A manifest of groups given as (number of images, share fractured 0..1)."""
    rows = []
    for number, (size, share) in enumerate(groups):
        for i in range(size):
            label = POSITIVE if i < round(size * share) else NEGATIVE
            rows.append(
                {
                    "path": f"g{number:04d}/{i}",
                    "label": label,
                    "group": f"g{number:04d}",
                    "status": "readable",
                }
            )
    return pd.DataFrame(rows)


def plain(n, prevalence=0.4):
    return table_of([(1, float(i < n * prevalence)) for i in range(n)])


def with_copies(sources, copies, label):
    """A manifest of sources of one label, each with so many copies of its picture, smaller or turned."""
    rows = []
    for source in range(sources):
        for copy in range(copies + 1):
            name = f"{label[0]}{source:03d}"
            rows.append(
                {
                    "path": f"{name}/{copy}.png",
                    "label": label,
                    "group": name,
                    "source_group": name,
                    "status": "readable",
                    "sha256": f"{name}{9 - copy}",
                    "width": 200 - 10 * (copy == 1),
                    "height": 200,
                    "corners": 0.3 * (copy == 2),
                }
            )
    return pd.DataFrame(rows)
