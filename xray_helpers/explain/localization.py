"""Whether maps point at fractures, and what may be believed of them.

The pointing game (Zhang et al. 2018) asks whether a map's highest place lies in the fracture's box; the
energy in the box (Wang et al. 2020) which share of the map does. Both stand beside what knows nothing of the
image: the box's share of the picture, a blob in the middle, and the maps of other images laid over this one.
"""

from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from xray_helpers.data.manifest import read_pictures
from xray_helpers.evaluation.intervals import describe
from xray_helpers.explain.maps import is_flat, mean_rank_agreement, read_maps, seen_size
from xray_helpers.explain.overlap import Boxes, pointing_game
from xray_helpers.explain.randomization import PERMUTED
from xray_helpers.images.annotations import read_boxes
from xray_helpers.images.pixels import resize
from xray_helpers.images.radiographs import ImageFolder
from xray_helpers.settings import MIN_GROUPS

_ALIKE = 0.5  # mean rank correlation from which maps count as the same
# of the boxes' share of the picture: as much more energy than by chance must lie in them to be worth a word
_MARGIN = 0.1
_SIDE = (
    224  # pixels of the longer side at which maps and boxes are laid over each other; maps are much coarser
)
_NOT = "**The maps must not be believed**"
_UNKNOWN = "Whether the maps may be believed **is not known**: "
_RIVALS = {  # what knows nothing of the image: the row and columns of the difference, and how it is told
    "area": (0, "over_area", "than by chance, which is the boxes' share of the picture"),
    "blob": (2, "energy", "than of a blob in the middle"),
    "others": (0, "over_others", "than of the maps of other images"),
}
_PHANTOM_BOX = ["box_left", "box_top", "box_right", "box_bottom"]


class EvaluatedMaps(NamedTuple):
    """The outcome of `evaluate_maps`.

    Attributes
    ----------
    maps : dict
        Path to Grad-CAM map, float32 of shape (rows, columns).
    boxes : dict
        Path to boxes, shape (k, 4), in `frame`.
    places : DataFrame
        Of `judge_places`.
    agreement : dict
        Of `evaluate_agreement`.
    frame : (int, int)
        Of `display_size`.
    """

    maps: dict[str, np.ndarray]
    boxes: dict[str, np.ndarray]
    places: pd.DataFrame
    agreement: dict[str, Any]
    frame: tuple[int, int]


class SaliencyVerdict(NamedTuple):
    """The outcome of `assess_saliency`.

    Attributes
    ----------
    believed : bool or None
        True: as hints. False: they must not be believed, or show nothing. None: not known, or there are no
        maps.
    sentence : str
        Which says so, and why, in Markdown.
    """

    believed: bool | None
    sentence: str


def choose_controlled(
    test: pd.DataFrame, table: pd.DataFrame, count: int = 4
) -> tuple[pd.DataFrame, dict[str, list]]:
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
    methods = {
        "Grad-CAM": "Grad-CAM",
        "occlusion": "occlusion",
        "the head permuted": f"{PERMUTED}the head",
        "all layers permuted": f"{PERMUTED}all layers",
    }
    known = {name: read_maps(table, method) for name, method in methods.items()}
    whole = {
        path: grid for path, grid in known["Grad-CAM"].items() if all(path in maps for maps in known.values())
    }
    rows = choose_shown(test, whole, count)
    return rows, {name: [maps[path] for path in rows["path"]] for name, maps in known.items()}


def display_size(size: tuple[int, int] | None) -> tuple[int, int]:
    """Return height and width at which maps, boxes and pictures are laid over each other.

    It has the proportions of what the model sees, so that what was stretched or padded for the model lies the
    same here.
    """
    height, width = size or (_SIDE, _SIDE)
    return tuple(max(1, round(side * _SIDE / max(height, width))) for side in (height, width))


def evaluate_maps(table: pd.DataFrame, part: pd.DataFrame, resize: str) -> EvaluatedMaps:
    """Judge the maps of a model's test images.

    Parameters
    ----------
    table : DataFrame
        ``maps.csv``.
    part : DataFrame
        The test part of the manifest.
    resize : {'stretch', 'pad'}
    """
    frame = display_size(seen_size(table))
    maps, boxes = read_maps(table), find_boxes(part, frame, resize)
    places = pointing_game(maps, part, boxes, frame)
    agreement = evaluate_agreement(table, part.set_index("path")["group"])
    return EvaluatedMaps(maps, dict(zip(part["path"], boxes, strict=True)), places, agreement, frame)


def choose_shown(test: pd.DataFrame, maps: dict[str, np.ndarray], count: int) -> pd.DataFrame:
    """Return at most `count` predictions that have maps: fractured and not in turn, one a group."""
    rows = test[test["path"].isin(maps)].drop_duplicates("group")
    turn = rows.groupby("y_true").cumcount()
    return rows.iloc[np.argsort(turn.to_numpy(), kind="stable")[:count]].reset_index(drop=True)


def read_shown(rows: pd.DataFrame, folder: ImageFolder, frame: tuple[int, int]) -> list[np.ndarray]:
    """Return the pictures of predictions in the frame of `display_size`, uint8: as models see them but for
    the size.
    """
    return [resize(picture, frame, folder.resize) for picture in read_pictures(rows["path"], folder)]


def find_boxes(part: pd.DataFrame, size: tuple[int, int], resize: str = "stretch") -> Boxes:
    """Return the fractures' boxes of each row of a manifest, as far as they are known.

    Parameters
    ----------
    part : DataFrame
        width, height, and ``boxes`` (of `annotations.read_boxes`, in pixels of the file) or phantoms'
        box_left, box_top, box_right, box_bottom.
    size : (int, int)
        Height and width, in the proportions of what models see.
    resize : {'stretch', 'pad'}

    Returns
    -------
    list of ndarray of float, shape (k, 4)
        left, top, right, bottom in pixels at `size`; k = 0 where none is known.
    """
    found, singles = (
        [],
        part.reindex(columns=_PHANTOM_BOX).apply(pd.to_numeric, errors="coerce").to_numpy(float),
    )
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


def places_table(places: pd.DataFrame) -> pd.DataFrame:
    """Return `judge_places`'s table as text: map, pointing game, energy in box, what of it is above chance,
    n.
    """

    def text(row: pd.Series, key: str) -> str:
        ends = {"value": key, "ci_low": f"{key}_low", "ci_high": f"{key}_high"}
        entry = {
            name: None if pd.isna(row.get(column)) else float(row[column]) for name, column in ends.items()
        }
        return "" if entry["value"] is None else describe(entry)

    told = {
        "pointing game (hits)": "hit",
        "energy in the box": "energy",
        "more than by chance": "over_area",
        "more than maps of other images": "over_others",
    }
    rows = [
        {"map": row["map"]}
        | {words: text(row, key) for words, key in told.items()}
        | {"n": f"{row['n']} images of {row['n_groups']} groups"}
        for _, row in places.iterrows()
    ]
    return pd.DataFrame(rows)


def sanity_table(sanity: pd.DataFrame) -> pd.DataFrame:
    """Return ``sanity.csv`` as text: permuted, layers, rank correlation (with the maps before), n, empty,
    emptied.

    Columns that a table of an older study lacks stay blank.
    """
    share = sanity.reindex(columns=["emptied"])["emptied"].to_numpy()
    rows = [
        {
            "permuted": row["permuted"],
            "layers": int(row["layers"]),
            "rank correlation": describe(_entry(row)),
            "n": int(row["n"]),
            "empty": int(row["empty"]),
            "empty afterwards": "" if pd.isna(share[at]) else f"{share[at]:.0%}",
        }
        for at, row in sanity.reset_index(drop=True).iterrows()
    ]
    return pd.DataFrame(rows)


def evaluate_agreement(table: pd.DataFrame, group: pd.Series) -> dict[str, Any]:
    """Return the mean rank correlation of Grad-CAM and occlusion with its interval: value, ci_low, ci_high,
    n, empty.

    An image of which one of the two maps is empty counts as `empty`, not in n.

    Parameters
    ----------
    table : DataFrame
        Of `build_maps`, of both methods.
    group : Series
        By path.
    """
    one, other = read_maps(table), read_maps(table, "occlusion")
    paths = [path for path in other if path in one]
    cams, occluded = [one[path] for path in paths], [other[path] for path in paths]
    full = ~(is_flat(cams) | is_flat(occluded))
    counts = {"n": int(full.sum()), "empty": int((~full).sum())}
    return mean_rank_agreement(occluded, cams, full, [group[path] for path in paths]) | counts


def describe_maps(judged: EvaluatedMaps, sanity: pd.DataFrame) -> str:
    """Return whether the maps may be believed, in a sentence, and on what that rests.

    Parameters
    ----------
    judged : Judged
    sanity : DataFrame
        ``sanity.csv``.
    """
    verdict = assess_saliency(judged, sanity).sentence
    empty = int(is_flat(judged.maps.values()).sum())
    if sanity.empty or empty == len(judged.maps):
        return verdict
    places, agreement, last, words = judged.places, judged.agreement, sanity.iloc[-1], [verdict]
    if empty:
        words.append(
            f"{empty} of the {len(judged.maps)} maps are empty: in them nothing speaks for a fracture."
        )
    if not places.empty:
        shown = places_table(places).set_index("map")
        hits, cam = shown["pointing game (hits)"], shown.loc["Grad-CAM"]
        words.append(
            f"Pointing game: hits {hits['Grad-CAM']}, a centred blob {hits['centred blob']}; energy in the "
            "box "
            f"{shown.loc['Grad-CAM', 'energy in the box']}, blob "
            f"{shown.loc['centred blob', 'energy in the box']}"
            f"; n = {shown.loc['Grad-CAM', 'n']}; boxes cover {places['area'].iloc[0]:.0%} of a picture. "
            "Energy above that "
            f"share: {cam['more than by chance']}; above the maps of other images: "
            f"{cam['more than maps of other images'] or 'not known, as all are of one group'}."
        )
    words.append(
        f"Rank correlation with the maps after all weights were permuted: {describe(_entry(last))}, "
        f"{_told_n(last)}; "
        f"of Grad-CAM with occlusion: {describe(agreement)}, {_told_n(agreement)}: {_concord(agreement)}."
    )
    return " ".join(words)


def assess_saliency(judged: EvaluatedMaps, sanity: pd.DataFrame) -> SaliencyVerdict:
    """Return whether the maps may be believed; what the intervals leave open is not known.

    They must follow the weights, and more of them must lie on the fractures than of all that knows nothing of
    the image, by a tenth of the boxes' share of the picture at least; each is to be shown by an interval of
    at least `MIN_GROUPS` groups.

    Parameters
    ----------
    judged : Judged
    sanity : DataFrame
        ``sanity.csv``.
    """
    if sanity.empty or not judged.maps:
        return SaliencyVerdict(None, "No maps were made (maps = 0): where the model looked is not known.")
    if is_flat(judged.maps.values()).all():
        told = f"all {len(judged.maps)} are the same everywhere, so where the model looked is not known."
        if not any(grid.any() for grid in judged.maps.values()):
            told = f"all {len(judged.maps)} are empty, so where the model looked is not known."
        return SaliencyVerdict(False, f"**The maps show nothing**: {told}")
    last, places = sanity.iloc[-1], judged.places
    enough = int(last.get("n_groups", last["n"])) >= MIN_GROUPS
    follows = compare_to_bound(_entry(last), _ALIKE) if enough else 0
    if follows == 1:
        return SaliencyVerdict(False, f"{_NOT}: they stay much the same when all weights are permuted.")
    beaten = _compare_rivals(places)
    lost = [name for name, side in beaten.items() if side == -1]
    if lost:
        row, key, words = _RIVALS[lost[0]]
        amount = "less" if places.iloc[row][f"{key}_high"] < 0 else "no more"
        return SaliencyVerdict(False, f"{_NOT}: {amount} of them lies on the fractures {words}.")
    if follows == 0:
        told = f"on {_count(last)} it is not shown that they change when all weights are permuted."
        return SaliencyVerdict(None, _UNKNOWN + told)
    if places.empty:
        told = "no boxes of fractures are known here, so whether they point at fractures was not measured."
        return SaliencyVerdict(None, f"{_UNKNOWN}they follow the weights, but {told}")
    left = [name for name in _RIVALS if beaten.get(name) != 1]
    if left:
        told = (
            f"on {_count(places.iloc[0])} it is not shown that more of them lies on the fractures "
            f"{_RIVALS[left[0]][2]}"
        )
        return SaliencyVerdict(
            None, f"{_UNKNOWN}they follow the weights, but {told}, nor that this is not so."
        )
    told = (
        "they follow the weights, and more of them lies on the fractures than by chance, than of a blob in "
        "the middle, and "
        "than of the maps of other images."
    )
    return SaliencyVerdict(True, f"**The maps may be believed as hints, not as outlines**: {told}")


def _compare_rivals(places: pd.DataFrame) -> dict[str, int]:
    """Return for each rival 1 where maps are shown to beat it by the margin, -1 where that is ruled out, 0 if
    neither.
    """
    if places.empty or places["n_groups"].iloc[0] < MIN_GROUPS:
        return {}
    margin, found = _MARGIN * places["area"].iloc[0], {}
    for name, (row, key, _) in _RIVALS.items():
        ends = places.iloc[row].reindex([f"{key}_low", f"{key}_high"])
        found[name] = compare_to_bound({"ci_low": ends.iloc[0], "ci_high": ends.iloc[1]}, margin)
    return found


def _count(row: Any) -> str:
    groups = int(row.get("n_groups", row["n"]))
    few = f", where {MIN_GROUPS} groups are needed," if groups < MIN_GROUPS else ""
    return f"{int(row['n'])} images of {groups} groups{few}"


def compare_to_bound(entry: dict[str, Any], border: float) -> int:
    """Return 1 where an interval lies above a border, -1 below, 0 where neither is shown."""
    low, high = entry["ci_low"], entry["ci_high"]
    if pd.isna(low) or pd.isna(high):
        return 0
    return int(low > border) - int(high < border)


def _concord(agreement: dict[str, Any]) -> str:
    words = {1: "they agree", 0: "it is not shown that they agree", -1: "they contradict each other"}
    return words[compare_to_bound(agreement, 0)]


def _told_n(counts: Any) -> str:
    empty = int(counts.get("empty", 0))
    emptied = counts.get("emptied", 0)
    more = f" and {empty} with an empty map" if empty else ""
    more += f", {emptied:.0%} of the maps empty afterwards" if pd.notna(emptied) and emptied > 0 else ""
    return f"n = {int(counts['n'])}{more}"


def _entry(row: pd.Series) -> dict[str, Any]:
    values = {
        name: None if pd.isna(row[key]) else float(row[key])
        for name, key in (("value", "correlation"), ("ci_low", "ci_low"), ("ci_high", "ci_high"))
    }
    return values if values["value"] is not None else values | {"reason": "no map with anything in it"}
