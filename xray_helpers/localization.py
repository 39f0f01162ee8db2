"""Whether maps point at fractures, and what may be believed of them.

The pointing game (Zhang et al. 2018) asks whether a map's highest place lies in the fracture's box; the energy in the
box (Wang et al. 2020) which share of the map does. Both stand beside a blob in the middle that knows nothing.
"""

from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from xray_helpers.boxes import read_boxes
from xray_helpers.explain import PERMUTED, agree, is_flat, read_maps, scale_map, seen_size
from xray_helpers.intervals import grouped_mean, grouped_proportion
from xray_helpers.manifest import read_pictures
from xray_helpers.metrics import describe
from xray_helpers.pixels import resize
from xray_helpers.radiographs import ImageFolder

_BLOB = 0.2  # standard deviation of the centred blob, as a share of the side
_ALIKE = 0.5  # mean rank correlation from which maps count as the same
_SIDE = 224  # pixels of the longer side at which maps and boxes are laid over each other; maps are much coarser
_PLACES = ["map", "hit", "hit_low", "hit_high", "energy", "energy_low", "energy_high", "n", "n_groups", "area"]
_NOT = "**The maps must not be believed**"
_UNKNOWN = "Whether the maps may be believed **is not known**: "
_PHANTOM_BOX = ["box_left", "box_top", "box_right", "box_bottom"]

Boxes = list[np.ndarray]


class Judged(NamedTuple):
    """The outcome of `judge_maps`.

    Attributes
    ----------
    maps : dict
        Path to Grad-CAM map, float32 of shape (rows, columns).
    boxes : dict
        Path to boxes, shape (k, 4), in `frame`.
    places : DataFrame
        Of `judge_places`.
    agreement : dict
        Of `judge_agreement`.
    frame : (int, int)
        Of `frame_of`.
    """

    maps: dict[str, np.ndarray]
    boxes: dict[str, np.ndarray]
    places: pd.DataFrame
    agreement: dict[str, Any]
    frame: tuple[int, int]


class Verdict(NamedTuple):
    """The outcome of `weigh_maps`.

    Attributes
    ----------
    believed : bool or None
        True: as hints. False: they must not be believed, or show nothing. None: not known, or there are no maps.
    sentence : str
        Which says so, and why, in Markdown.
    """

    believed: bool | None
    sentence: str


def choose_controlled(test: pd.DataFrame, table: pd.DataFrame, count: int = 4) -> tuple[pd.DataFrame, dict[str, list]]:
    """Return at most `count` predictions of whose images all kinds of maps were made, and these maps.

    Parameters
    ----------
    test : DataFrame
        Predictions.
    table : DataFrame
        ``maps.csv``.
    count : int

    Returns
    -------
    rows : DataFrame
        As of `choose_shown`.
    maps : dict
        Grad-CAM, occlusion, the head permuted, all layers permuted: the maps of `rows`.
    """
    methods = {"Grad-CAM": "Grad-CAM", "occlusion": "occlusion", "the head permuted": f"{PERMUTED}the head",
               "all layers permuted": f"{PERMUTED}all layers"}  # fmt: skip
    known = {name: read_maps(table, method) for name, method in methods.items()}
    whole = {path: grid for path, grid in known["Grad-CAM"].items() if all(path in maps for maps in known.values())}
    rows = choose_shown(test, whole, count)
    return rows, {name: [maps[path] for path in rows["path"]] for name, maps in known.items()}


def frame_of(size: tuple[int, int] | None) -> tuple[int, int]:
    """Return height and width at which maps, boxes and pictures are laid over each other.

    It has the proportions of what the model sees, so that what was stretched or padded for the model lies the same here.
    """
    height, width = size or (_SIDE, _SIDE)
    return tuple(max(1, round(side * _SIDE / max(height, width))) for side in (height, width))


def judge_maps(table: pd.DataFrame, part: pd.DataFrame, resize: str, seed: int = 0) -> Judged:
    """Judge the maps of a model's test images.

    Parameters
    ----------
    table : DataFrame
        ``maps.csv``.
    part : DataFrame
        The test part of the manifest.
    resize : {'stretch', 'pad'}
    seed : int
    """
    frame = frame_of(seen_size(table))
    maps, boxes = read_maps(table), find_boxes(part, frame, resize)
    places = judge_places(maps, part, boxes, frame, seed)
    agreement = judge_agreement(table, part.set_index("path")["group"], seed)
    return Judged(maps, dict(zip(part["path"], boxes, strict=True)), places, agreement, frame)


def choose_shown(test: pd.DataFrame, maps: dict[str, np.ndarray], count: int) -> pd.DataFrame:
    """Return at most `count` predictions that have maps: fractured and not in turn, one a group."""
    rows = test[test["path"].isin(maps)].drop_duplicates("group")
    turn = rows.groupby("y_true").cumcount()
    return rows.iloc[np.argsort(turn.to_numpy(), kind="stable")[:count]].reset_index(drop=True)


def read_shown(rows: pd.DataFrame, folder: ImageFolder, frame: tuple[int, int]) -> list[np.ndarray]:
    """Return the pictures of predictions in the frame of `frame_of`, uint8: as models see them but for the size."""
    return [resize(picture, frame, folder.resize) for picture in read_pictures(rows["path"], folder)]


def find_boxes(part: pd.DataFrame, size: tuple[int, int], resize: str = "stretch") -> Boxes:
    """Return the fractures' boxes of each row of a manifest, as far as they are known.

    Parameters
    ----------
    part : DataFrame
        width, height, and ``boxes`` (of `boxes.read_boxes`, in pixels of the file) or phantoms' box_left, box_top,
        box_right, box_bottom.
    size : (int, int)
        Height and width, in the proportions of what models see.
    resize : {'stretch', 'pad'}

    Returns
    -------
    list of ndarray of float, shape (k, 4)
        left, top, right, bottom in pixels at `size`; k = 0 where none is known.
    """
    found, singles = [], part.reindex(columns=_PHANTOM_BOX).apply(pd.to_numeric, errors="coerce").to_numpy(float)
    for row, single in zip(part.to_dict("records"), singles, strict=True):
        boxes = read_boxes(row.get("boxes"))
        if not len(boxes) and np.isfinite(single).all():
            boxes = single[None]
        scale = np.array([size[1] / row["width"], size[0] / row["height"]])
        shift = np.zeros(2)
        if resize == "pad":
            scale[:] = scale.min()
            shift = (np.array(size[::-1]) - scale * (row["width"], row["height"])) / 2
        found.append(boxes * np.tile(scale, 2) + np.tile(shift, 2))
    return found


def judge_places(
    maps: dict[str, np.ndarray], part: pd.DataFrame, boxes: Boxes, size: tuple[int, int], seed: int = 0
) -> pd.DataFrame:
    """Measure whether maps point at the fractures, beside a blob in the picture's middle that knows nothing.

    Parameters
    ----------
    maps : dict
        Of `read_maps`.
    part : DataFrame
        Rows of the manifest with path and group.
    boxes : list
        Of `find_boxes`, for the same rows.
    size : (int, int)
    seed : int

    Returns
    -------
    DataFrame
        map (Grad-CAM, centred blob, Grad-CAM less blob), then for hit (the share of images whose highest place lies
        in a box) and energy (the share of the map's sum in boxes) the value, _low and _high (95 %, groups together),
        n, n_groups, area (mean share of the picture that is box). No row where no image has both map and box.
    """
    blob = _centred_blob(size)
    rows = []
    for path, group, known in zip(part["path"], part["group"], boxes, strict=True):
        if len(known) and path in maps:
            mask = _mask(known, size)
            measured = [_hit_and_energy(grid, mask) for grid in (scale_map(maps[path], size), blob)]
            rows.append([group, mask.mean(), *measured[0], *measured[1]])
    table = pd.DataFrame(rows, columns=["group", "area", "hit", "energy", "blob_hit", "blob_energy"])
    if table.empty:
        return pd.DataFrame(columns=_PLACES)
    shared = {"n": len(table), "n_groups": table["group"].nunique(), "area": float(table["area"].mean())}
    result = []
    for name, hit, energy in (
        ("Grad-CAM", table["hit"], table["energy"]),
        ("centred blob", table["blob_hit"], table["blob_energy"]),
        ("Grad-CAM less blob", table["hit"] - table["blob_hit"], table["energy"] - table["blob_energy"]),
    ):
        difference = name.endswith("less blob")
        entries = {
            "hit": grouped_mean(hit, table["group"], seed) if difference else grouped_proportion(hit, table["group"]),
            "energy": grouped_mean(energy, table["group"], seed),
        }
        row = {"map": name}
        for key, entry in entries.items():
            row |= {key: entry["value"], f"{key}_low": entry["ci_low"], f"{key}_high": entry["ci_high"]}
        result.append(row | shared)
    return pd.DataFrame(result)


def _mask(boxes: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return which pixels, by their centres, lie in a box; at least the nearest one."""
    y, x = np.mgrid[: size[0], : size[1]] + 0.5
    mask = np.zeros(size, bool)
    for left, top, right, bottom in boxes:
        mask |= (x >= left) & (x <= right) & (y >= top) & (y <= bottom)
        mask[min(size[0] - 1, max(0, int((top + bottom) / 2))), min(size[1] - 1, max(0, int((left + right) / 2)))] = (
            True
        )
    return mask


def _hit_and_energy(grid: np.ndarray, mask: np.ndarray) -> tuple[float, float]:
    total = float(grid.sum())
    if total <= 0:
        return 0.0, 0.0  # a map of nothing points nowhere
    return float(mask.ravel()[int(np.argmax(grid))]), float(grid[mask].sum()) / total


def _centred_blob(size: tuple[int, int]) -> np.ndarray:
    y, x = ((np.arange(side) + 0.5) / side - 0.5 for side in size)
    return np.exp(-(y[:, None] ** 2 + x[None] ** 2) / (2 * _BLOB**2)).astype(np.float32)


def places_table(places: pd.DataFrame) -> pd.DataFrame:
    """Return `judge_places`'s table as text: map, pointing game, energy in box, n."""

    def text(row: Any, key: str) -> str:
        entry = {name: getattr(row, f"{key}{ending}") for name, ending in
                 (("value", ""), ("ci_low", "_low"), ("ci_high", "_high"))}  # fmt: skip
        return describe({k: None if pd.isna(v) else v for k, v in entry.items()})

    rows = [{"map": row.map, "pointing game (hits)": text(row, "hit"), "energy in the box": text(row, "energy"),
             "n": f"{row.n} images of {row.n_groups} groups"} for row in places.itertuples()]  # fmt: skip
    return pd.DataFrame(rows)


def sanity_table(sanity: pd.DataFrame) -> pd.DataFrame:
    """Return ``sanity.csv`` as text: permuted, layers, rank correlation (with the maps before), n, empty."""
    rows = [{"permuted": row["permuted"], "layers": int(row["layers"]),
             "rank correlation": describe(_entry(row)), "n": int(row["n"]),
             "empty": int(row["empty"])} for _, row in sanity.iterrows()]  # fmt: skip
    return pd.DataFrame(rows)


def judge_agreement(table: pd.DataFrame, group: pd.Series, seed: int = 0) -> dict[str, Any]:
    """Return the mean rank correlation of Grad-CAM and occlusion with its interval: value, ci_low, ci_high, n, empty.

    An image of which one of the two maps is empty counts as `empty`, not in n.

    Parameters
    ----------
    table : DataFrame
        Of `build_maps`, of both methods.
    group : Series
        By path.
    seed : int
    """
    one, other = read_maps(table), read_maps(table, "occlusion")
    paths = [path for path in other if path in one]
    cams, occluded = [one[path] for path in paths], [other[path] for path in paths]
    full = ~(is_flat(cams) | is_flat(occluded))
    counts = {"n": int(full.sum()), "empty": int((~full).sum())}
    return agree(occluded, cams, full, [group[path] for path in paths], seed) | counts


def describe_maps(judged: Judged, sanity: pd.DataFrame) -> str:
    """Return whether the maps may be believed, in a sentence, and on what that rests.

    Parameters
    ----------
    judged : Judged
    sanity : DataFrame
        ``sanity.csv``.
    """
    verdict = weigh_maps(judged, sanity).sentence
    empty = int(is_flat(judged.maps.values()).sum())
    if sanity.empty or empty == len(judged.maps):
        return verdict
    places, agreement, last, words = judged.places, judged.agreement, sanity.iloc[-1], [verdict]
    if empty:
        words.append(f"{empty} of the {len(judged.maps)} maps are empty: in them nothing speaks for a fracture.")
    if not places.empty:
        shown = places_table(places).set_index("map")
        hits = shown["pointing game (hits)"]
        words.append(
            f"Pointing game: hits {hits['Grad-CAM']}, a centred blob {hits['centred blob']}; energy in the box "
            f"{shown.loc['Grad-CAM', 'energy in the box']}, blob {shown.loc['centred blob', 'energy in the box']}; "
            f"n = {shown.loc['Grad-CAM', 'n']}; boxes cover {places['area'].iloc[0]:.0%} of a picture."
        )
    words.append(
        f"Rank correlation with the maps after all weights were permuted: {describe(_entry(last))}, {_told_n(last)}; "
        f"of Grad-CAM with occlusion: {describe(agreement)}, {_told_n(agreement)}: {_concord(agreement)}."
    )
    return " ".join(words)


def weigh_maps(judged: Judged, sanity: pd.DataFrame) -> Verdict:
    """Return whether the maps may be believed; what the intervals leave open is not known.

    Parameters
    ----------
    judged : Judged
    sanity : DataFrame
        ``sanity.csv``.
    """
    if sanity.empty or not judged.maps:
        return Verdict(None, "No maps were made (maps = 0): where the model looked is not known.")
    if is_flat(judged.maps.values()).all():
        told = f"all {len(judged.maps)} are empty, so where the model looked is not known."
        return Verdict(False, f"**The maps show nothing**: {told}")
    last, places, points = sanity.iloc[-1], judged.places, None
    if not places.empty:
        less = places.iloc[2]
        points = _side({"ci_low": less["energy_low"], "ci_high": less["energy_high"]}, 0)
    follows = _side(_entry(last), _ALIKE)
    if follows == 1:
        return Verdict(False, f"{_NOT}: they stay much the same when all weights are permuted.")
    if points == -1:
        return Verdict(False, f"{_NOT}: less of them lies on the fractures than of a blob in the middle.")
    if follows == 0:
        told = f"on {int(last['n'])} maps it is not shown that they change when all weights are permuted."
        return Verdict(None, _UNKNOWN + told)
    if points is None:
        told = "no boxes of fractures are known here, so whether they point at fractures was not measured."
        return Verdict(None, f"{_UNKNOWN}they follow the weights, but {told}")
    if points == 0:
        told = "that more of them lies on the fractures than of a blob in the middle, nor that less does."
        on = f"on {less['n']} images of {less['n_groups']} groups"
        return Verdict(None, f"{_UNKNOWN}they follow the weights, but {on} it is not shown {told}")
    told = "they follow the weights, and more of them lies on the fractures than of a blob in the middle."
    return Verdict(True, f"**The maps may be believed as hints, not as outlines**: {told}")


def _side(entry: dict[str, Any], border: float) -> int:
    """Return 1 where an interval lies above a border, -1 below, 0 where neither is shown."""
    low, high = entry["ci_low"], entry["ci_high"]
    if pd.isna(low) or pd.isna(high):
        return 0
    return int(low > border) - int(high < border)


def _concord(agreement: dict[str, Any]) -> str:
    words = {1: "they agree", 0: "it is not shown that they agree", -1: "they contradict each other"}
    return words[_side(agreement, 0)]


def _told_n(counts: Any) -> str:
    empty = int(counts.get("empty", 0))
    return f"n = {int(counts['n'])}" + (f" and {empty} with an empty map" if empty else "")


def _entry(row: pd.Series) -> dict[str, Any]:
    values = {
        name: None if pd.isna(row[key]) else float(row[key])
        for name, key in (("value", "correlation"), ("ci_low", "ci_low"), ("ci_high", "ci_high"))
    }
    return values if values["value"] is not None else values | {"reason": "no map with anything in it"}
