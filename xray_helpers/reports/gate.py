"""The audit as a gate for others: its findings for machines, a badge, and a split without the leak."""

import os
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pandas as pd
from sklearn.model_selection import GroupShuffleSplit

from xray_helpers import __version__
from xray_helpers.settings import InputError, number_of
from xray_helpers.study.files import write_csv, write_json, write_text

_RULES = {
    "leak": ("error", "A file of one part derives from the same picture as a file of another part."),
    "two-labels": ("warning", "Files that derive from one picture carry different labels."),
    "doubtful": ("note", "Two files look alike, but not enough to be sure: a person should look at them."),
}
_COLOURS = {"leak": "#c0392b", "none": "#2e7d32", "one part": "#616161"}
_TEST, _VALIDATION = 0.2, 0.125  # shares of the groups, and of those that are left, where there are no parts
_BADGE = """<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="20" role="img" aria-label="{alt}">
<title>{alt}</title><rect width="{width}" height="20" rx="3" fill="#444"/>
<rect x="92" width="{right}" height="20" rx="3" fill="{colour}"/>
<g fill="#fff" text-anchor="middle" font-family="Verdana,DejaVu Sans,sans-serif" font-size="11">
<text x="46" y="14">leak audit</text><text x="{middle}" y="14">{text}</text></g></svg>
"""


def list_shared(table: pd.DataFrame) -> pd.DataFrame:
    """Return the files of the sources that are in two parts of the set's own folders.

    Parameters
    ----------
    table : DataFrame
        path, source_group, folder_split.

    Returns
    -------
    DataFrame
        source_group, folder_split and path, sorted.
    """
    known = table.dropna(subset=["source_group", "folder_split"])
    parts = known.groupby("source_group")["folder_split"].transform("nunique")
    columns = ["source_group", "folder_split", "path"]
    return known.loc[parts > 1, columns].sort_values(columns, ignore_index=True)


def write_findings(
    path: Path, facts: dict[str, str], leak: dict[str, Any], shared: pd.DataFrame, links: pd.DataFrame
) -> Path:
    """Write the audit as JSON: version, leaked, leak, facts, shared (files by source and part), doubtful."""
    by_source = {
        source: {part: rows["path"].tolist() for part, rows in files.groupby("folder_split")}
        for source, files in shared.groupby("source_group")
    }
    review = links.loc[links["decision"] == "for review", ["path_a", "path_b", "inliers", "correlation"]]
    doubtful = [
        {key: None if pd.isna(value) else value for key, value in row.items()}
        for row in review.to_dict("records")
    ]
    return write_json(
        path,
        {
            "version": __version__,
            "leaked": leak["groups"] > 0,
            "leak": leak,
            "facts": facts,
            "shared": by_source,
            "doubtful": doubtful,
        },
    )


def write_sarif(path: Path, shared: pd.DataFrame, conflicts: pd.DataFrame, links: pd.DataFrame) -> Path:
    """Write the findings in SARIF 2.1.0 (OASIS), which code hosts show; paths are relative to the data."""
    results = []
    for source, files in shared.groupby("source_group"):
        for row in files.itertuples():
            other = files[files["folder_split"] != row.folder_split].iloc[0]
            text = f"{row.path} ({row.folder_split}) is of the source of {other.path} ({other.folder_split})"
            results.append(_result("leak", text, row.path, str(source)))
    for row in conflicts.itertuples():
        text = f"Files of the source {row.source_group} carry {row.labels}: {row.paths}"
        results.append(_result("two-labels", text, row.source_group, row.source_group))
    for row in links[links["decision"] == "for review"].itertuples():
        text = f"{row.path_a} may be of the same source as {row.path_b} (correlation {row.correlation:.2f})"
        results.append(_result("doubtful", text, row.path_a, f"{row.sha256_a}-{row.sha256_b}"))
    rules = [
        {"id": name, "shortDescription": {"text": text}, "defaultConfiguration": {"level": level}}
        for name, (level, text) in _RULES.items()
    ]
    driver = {"name": "xray-helpers audit", "version": __version__, "rules": rules}
    schema = "https://json.schemastore.org/sarif-2.1.0.json"
    run = {"tool": {"driver": driver}, "columnKind": "utf16CodeUnits", "results": results}
    return write_json(path, {"$schema": schema, "version": "2.1.0", "runs": [run]})


def _result(rule: str, text: str, path: str, fingerprint: str) -> dict[str, Any]:
    place = {"physicalLocation": {"artifactLocation": {"uri": quote(path)}}}
    return {
        "ruleId": rule,
        "ruleIndex": [*_RULES].index(rule),
        "level": _RULES[rule][0],
        "message": {"text": text},
        "locations": [place],
        "partialFingerprints": {"source/v1": fingerprint},
    }


def write_badge(path: Path, leak: dict[str, Any], parts: int) -> Path:
    """Write an SVG badge: the share of the test files that leak, none, or that there are no two parts."""
    if parts < 2:
        text, colour = "no parts to compare", _COLOURS["one part"]
    elif not leak["groups"]:
        text, colour = "no leak found", _COLOURS["none"]
    else:
        share = "" if leak["share"] is None else f"{leak['share']:.1%} of test"
        text, colour = share or number_of(leak["groups"], "source"), _COLOURS["leak"]
        text += " leaks" if share else " leak"
    right = 7 * len(text) + 12
    values = {"width": 92 + right, "right": right, "middle": 92 + right / 2, "colour": colour, "text": text}
    return write_text(path, _BADGE.format(alt=f"leak audit: {text}", **values))


def write_split(path: Path, table: pd.DataFrame, folder: Path) -> Path:
    """Write a split in which every group is in one part, a CSV that a study reads (``split = folders``).

    A group in several parts goes where most of its files are (of equal ones: test, then validation). Where no
    file is in a part, groups are drawn: 20 % test, 10 % validation.

    Parameters
    ----------
    path : Path
        The CSV: path (relative to its folder), label, patient, split, source_group, and moved_from (the part
        that a file was in, if it is another).
    table : DataFrame
        path, label, patient, group, source_group, folder_split, status; files not readable are left out.
    folder : Path
        What the paths of the table are relative to.

    Raises
    ------
    InputError
        When there are fewer than three groups to draw from.
    """
    used = table[table["status"] == "readable"].dropna(subset=["group"]).reset_index(drop=True)
    own = used["folder_split"].astype("string")
    part = _keep_parts(used["group"], own) if own.notna().any() else _draw_parts(used["group"])
    start = path.resolve().parent
    out = pd.DataFrame(
        {
            "path": [os.path.relpath(folder.resolve() / name, start) for name in used["path"]],
            "label": used["label"],
            "patient": used["patient"],
            "split": part,
            "source_group": used["source_group"],
            "moved_from": own.where(own != part),
        }
    )
    return write_csv(path, out.dropna(axis=1, how="all"))


def _keep_parts(group: pd.Series, own: pd.Series) -> pd.Series:
    """Return for each file the part in which most files of its group are; train where none is in any."""
    counts = pd.crosstab(group, own.fillna("none")).reindex(
        columns=["test", "validation", "train"], fill_value=0
    )
    best = counts.idxmax(axis=1).where(counts.sum(axis=1) > 0, "train")
    return group.map(best).astype("string")


def _draw_parts(group: pd.Series) -> pd.Series:
    """Return a part for each file, whole groups."""
    if group.nunique() < 3:
        raise InputError(
            f"--write-split: {group.nunique()} groups are too few for train, validation and test."
        )
    part = pd.Series("train", index=group.index, dtype="string")
    for name, share in (("test", _TEST), ("validation", _VALIDATION)):
        rest = part[part == "train"].index.to_numpy()
        draw = GroupShuffleSplit(1, test_size=share, random_state=0)
        _, held = next(draw.split(np.zeros(len(rest)), groups=group[rest]))
        part[rest[held]] = name
    return part
