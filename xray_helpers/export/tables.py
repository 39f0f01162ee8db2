"""What the report on an export shows: tables, the intervals of what is lost, and what it means."""

from pathlib import Path
from typing import Any

import pandas as pd

from xray_helpers.data.manifest import read_pictures
from xray_helpers.evaluation.external import TITLES, describe_signed
from xray_helpers.evaluation.intervals import unflatten_entry
from xray_helpers.export.bundle import EXPORT, read_bundle
from xray_helpers.export.formats import KERAS
from xray_helpers.export.proof import DO_NOT_USE, FINE, UNKNOWN
from xray_helpers.images.radiographs import ImageFolder
from xray_helpers.settings import class_names
from xray_helpers.study.records import sha256_of

_COLORS = {DO_NOT_USE: "#b2432f", FINE: "#2e7d4f", UNKNOWN: "#1f4e79"}
_MOST = 12  # pictures of flipped decisions


def cost_table(costs: pd.DataFrame) -> list[dict[str, str]]:
    """Return size, latency and memory of each format as text."""
    original = costs.set_index("format").loc[KERAS.name, "mib"]
    return [
        {
            "format": _name(row.format),
            "size": f"{row.mib:.1f} MiB",
            "of the original": f"{row.mib / original:.0%}",
            "one thread": f"{row.one_thread:.1f} ms",
            "all threads": f"{row.all_threads:.1f} ms",
            "memory": f"{row.memory:.0f} MiB",
        }
        for row in costs.itertuples()
    ]


def change_table(scores: pd.DataFrame) -> list[dict[str, str]]:
    """Return how far probabilities and decisions differ from those of the original, as text."""
    return [
        {
            "format": _name(row["format"]),
            "largest difference": f"{row['largest']:.2g}",
            "mean difference": f"{row['mean']:.2g}",
            "decisions that flip": f"{row['flips']} of {row['n']}",
            "warnings that differ": f"{row['unlike']} of {row['n']}",
            "calibration error": f"{row['calibration_error']:.3f}",
            "calibration slope": "not defined" if pd.isna(row["slope"]) else f"{row['slope']:.2f}",
        }
        for row in scores.to_dict("records")
    ]


def loss_table(scores: pd.DataFrame) -> list[dict[str, str]]:
    """Return what each format loses, with 95 % intervals, and the verdict, as text."""
    return [
        {
            "format": row["format"],
            **{f"loss of {title}": describe_signed(_entry(row, score)) for score, title in TITLES.items()},
            "verdict": row["verdict"],
            "why": row["why"],
        }
        for row in _exports(scores)
    ]


def loss_intervals(scores: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows of `intervals.plot_intervals`: the loss of each score by each format."""
    return [
        {"label": f"{row['format']}: {title}", "color": _COLORS[row["verdict"]]} | _entry(row, score)
        for score, title in TITLES.items()
        for row in _exports(scores)
    ]


def flip_pictures(flips: pd.DataFrame, images: ImageFolder) -> tuple[list, list[str]]:
    """Return pictures and captions of the images whose decision flips in any format, most changed first.

    Parameters
    ----------
    flips : DataFrame
        Of `proof.compare_formats`.
    images : ImageFolder
        What the paths are relative to.
    """
    names, captions = class_names(), []
    chosen = flips.assign(change=(flips["after"] - flips["before"]).abs())
    order = chosen.groupby("path")["change"].max().sort_values(ascending=False).index[:_MOST]
    for path in order:
        rows = chosen[chosen["path"] == path]
        told = [f"{row.format}: {row.before:.3f} to {row.after:.3f}" for row in rows.itertuples()]
        captions.append("\n".join([f"actual {names[rows['y_true'].iloc[0]]}", *told]))
    return read_pictures(order, images), captions


def flip_table(flips: pd.DataFrame) -> list[dict[str, str]]:
    """Return every decision that flips, as text."""
    names = class_names()
    return [
        {
            "format": row.format,
            "image": row.path,
            "actual": names[row.y_true],
            "P before": f"{row.before:.4f}",
            "P after": f"{row.after:.4f}",
            "called before": names[row.called_before],
            "called after": names[row.called_after],
        }
        for row in flips.itertuples()
    ]


def bundle_table(study: Path, model: str, names: list[str]) -> list[dict[str, str]]:
    """Return where each folder lies, relative to the study, and the checksum of its model."""
    rows = []
    for name in names:
        bundle = read_bundle(study / model / EXPORT / name)
        files = sum(path.is_file() for path in bundle.folder.rglob("*"))
        row = {"folder": f"{model}/{EXPORT}/{name}", "files": str(files), "model": bundle.form.file}
        rows.append(row | {"SHA-256": sha256_of(bundle.file)[:16]})
    return rows


def describe_reasons(reasons: dict[str, str]) -> str:
    """Return which formats were not made, and why; empty where all were."""
    failed = {name: reason for name, reason in reasons.items() if reason}
    return "**Not exported:** " + " ".join(failed.values()) if failed else ""


def describe_proof(scores: pd.DataFrame, reasons: dict[str, str], margin: float) -> str:
    """Return what the comparison means for each format, in sentences."""
    rows, told = list(_exports(scores)), []
    for verdict, words in (
        (DO_NOT_USE, "Do not use"),
        (FINE, "May be used"),
        (UNKNOWN, f"Whether {margin:g} or more is lost is not known of"),
    ):
        names = [row["format"] for row in rows if row["verdict"] == verdict]
        if names:
            told.append(f"**{words}:** {', '.join(names)}.")
    flips = ", ".join(f"{row['format']} {row['flips']}" for row in rows)
    if rows:
        told.append(f"Decisions that flip on {rows[0]['n']} test images: {flips}.")
    return " ".join([*told, describe_reasons(reasons)]).strip()


def _exports(scores: pd.DataFrame) -> list[dict[str, Any]]:
    return scores[scores["format"] != KERAS.name].to_dict("records")


def _entry(row: dict[str, Any], score: str) -> dict[str, Any]:
    entry = unflatten_entry(row, score)
    return {key: None if pd.isna(value) else value for key, value in entry.items()}


def _name(name: str) -> str:
    return "keras (the original)" if name == KERAS.name else name
