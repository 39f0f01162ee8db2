"""Whether the maps of a model may be believed: the decision, its sentence, and tables for display."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import pandas as pd

from xray_helpers.evaluation.intervals import describe, read_entry, unflatten_entry
from xray_helpers.evaluation.verdict import RULED_OUT, SHOWN, UNKNOWN, Verdict, compare_to_bound
from xray_helpers.explain.localization import NO_MAP, EvaluatedMaps
from xray_helpers.explain.maps import is_flat
from xray_helpers.settings import MIN_GROUPS, number_of

_SIMILAR = 0.5  # mean rank correlation above which maps count as unchanged
_MARGIN = 0.1  # of the boxes' share of the picture: by how much more energy the maps must beat each baseline
_REJECTED = "**The maps must not be believed**"
_UNDECIDED = "Whether the maps may be believed **is not known**"


class _Baseline(NamedTuple):
    """What maps must beat: row and column of their lead in `EvaluatedMaps.places`, and how it is called."""

    row: int
    column: str
    phrase: str


_BASELINES = (
    _Baseline(0, "over_area", "than by chance, which is the boxes' share of the picture"),
    _Baseline(2, "energy", "than of a blob in the middle"),
    _Baseline(0, "over_others", "than of the maps of other images"),
)


def assess_saliency(evaluated: EvaluatedMaps, sanity: pd.DataFrame) -> Verdict:
    """Decide whether the maps may be believed, as hints; the sentence is Markdown.

    They must change when the weights are permuted, and must have more energy on the fractures than each
    baseline, by at least a tenth of the boxes' share of the picture. An interval over at least `MIN_GROUPS`
    groups must show each of these. Empty maps are not to be believed; without maps nothing is known.

    Parameters
    ----------
    evaluated : EvaluatedMaps
    sanity : DataFrame
        ``sanity.csv``.
    """
    maps, places = evaluated.maps, evaluated.places
    if sanity.empty or not maps:
        return Verdict(UNKNOWN, "No maps were made (maps = 0): where the model looked is not known.")
    if is_flat(maps.values()).all():
        kind = "the same everywhere" if any(grid.any() for grid in maps.values()) else "empty"
        reason = f"all {len(maps)} are {kind}, so where the model looked is not known."
        return Verdict(RULED_OUT, f"**The maps show nothing**: {reason}")
    permuted = sanity.iloc[-1]
    enough = permuted.get("n_groups", permuted["n"]) >= MIN_GROUPS
    unchanged = compare_to_bound(read_entry(permuted, "correlation"), _SIMILAR) if enough else UNKNOWN
    if unchanged == SHOWN:
        return Verdict(RULED_OUT, f"{_REJECTED}: they stay much the same when all weights are permuted.")
    leads = {baseline: _compare_to_baseline(places, baseline) for baseline in _BASELINES}
    for baseline, state in leads.items():
        if state == RULED_OUT:
            amount = "less" if places.iloc[baseline.row][f"{baseline.column}_high"] < 0 else "no more"
            reason = f"{amount} of them lies on the fractures {baseline.phrase}."
            return Verdict(RULED_OUT, f"{_REJECTED}: {reason}")
    if unchanged == UNKNOWN:
        count = _describe_count(permuted)
        reason = f"on {count} it is not shown that they change when all weights are permuted."
        return Verdict(UNKNOWN, f"{_UNDECIDED}: {reason}")
    undecided = f"{_UNDECIDED}: they follow the weights, but"
    if places.empty:
        reason = "no boxes of fractures are known here, so whether they point at fractures was not measured."
        return Verdict(UNKNOWN, f"{undecided} {reason}")
    for baseline, state in leads.items():
        if state == UNKNOWN:
            count = _describe_count(places.iloc[0])
            reason = f"neither shown nor ruled out that more of them lies on the fractures {baseline.phrase}."
            return Verdict(UNKNOWN, f"{undecided} on {count} it is {reason}")
    reason = (
        "they follow the weights, and more of them lies on the fractures than by chance, than of a blob in "
        "the middle, and than of the maps of other images."
    )
    return Verdict(SHOWN, f"**The maps may be believed as hints, not as outlines**: {reason}")


def _compare_to_baseline(places: pd.DataFrame, baseline: _Baseline) -> str:
    if places.empty or places["n_groups"].iloc[0] < MIN_GROUPS:
        return UNKNOWN
    margin = _MARGIN * places["area"].iloc[0]
    return compare_to_bound(unflatten_entry(places.iloc[baseline.row], baseline.column), margin)


def _describe_count(row: Mapping[str, Any]) -> str:
    groups = int(row.get("n_groups", row["n"]))
    few = f", where {MIN_GROUPS} groups are needed," if groups < MIN_GROUPS else ""
    return f"{number_of(int(row['n']), 'image')} of {number_of(groups, 'group')}{few}"


def describe_maps(evaluated: EvaluatedMaps, sanity: pd.DataFrame) -> str:
    """Return whether the maps may be believed, and the numbers that this rests on, in sentences.

    Parameters
    ----------
    evaluated : EvaluatedMaps
    sanity : DataFrame
        ``sanity.csv``.
    """
    maps, places, agreement = evaluated.maps, evaluated.places, evaluated.agreement
    sentences = [assess_saliency(evaluated, sanity).sentence]
    empty = int(is_flat(maps.values()).sum())
    if sanity.empty or empty == len(maps):
        return sentences[0]
    if empty:
        sentences.append(f"{empty} of the {len(maps)} maps are empty: nothing in them speaks for a fracture.")
    if not places.empty:
        sentences.append(_describe_places(places))
    permuted = sanity.iloc[-1]
    sentences.append(
        f"Rank correlation with the maps after all weights were permuted: {_describe_correlation(permuted)}, "
        f"{_describe_n(permuted)}; of Grad-CAM with occlusion: {describe(agreement)}, "
        f"{_describe_n(agreement)}: {_describe_agreement(agreement)}."
    )
    return " ".join(sentences)


def _describe_places(places: pd.DataFrame) -> str:
    table = places_table(places).set_index("map")
    cam, blob = table.loc["Grad-CAM"], table.loc["centred blob"]
    others = cam["more than maps of other images"] or "not known, as all are of one group"
    return (
        f"Pointing game: hits {cam['pointing game (hits)']}, a centred blob {blob['pointing game (hits)']}; "
        f"energy in the box {cam['energy in the box']}, blob {blob['energy in the box']}; n = {cam['n']}; "
        f"boxes cover {places['area'].iloc[0]:.0%} of a picture. "
        f"Energy above that share: {cam['more than by chance']}; above the maps of other images: {others}."
    )


def _describe_correlation(row: pd.Series) -> str:
    return describe(
        read_entry(row, "correlation") | ({"reason": NO_MAP} if pd.isna(row["correlation"]) else {})
    )


def _describe_n(counts: Mapping[str, Any]) -> str:
    empty, emptied = int(counts.get("empty", 0)), counts.get("emptied", 0)
    text = f"n = {int(counts['n'])}"
    if empty:
        text += f" and {empty} with an empty map"
    return f"{text}, {emptied:.0%} of the maps empty afterwards" if emptied > 0 else text


def _describe_agreement(agreement: Mapping[str, Any]) -> str:
    sentences = {
        SHOWN: "they agree",
        UNKNOWN: "it is not shown that they agree",
        RULED_OUT: "they contradict each other",
    }
    return sentences[compare_to_bound(agreement, 0)]


def places_table(places: pd.DataFrame) -> pd.DataFrame:
    """Return the result of `pointing_game` as text, one row per map, for display."""
    columns = {
        "pointing game (hits)": "hit",
        "energy in the box": "energy",
        "more than by chance": "over_area",
        "more than maps of other images": "over_others",
    }
    rows = []
    for _, row in places.iterrows():
        texts = {
            title: "" if pd.isna(row.get(key)) else describe(unflatten_entry(row, key))
            for title, key in columns.items()
        }
        rows.append({"map": row["map"]} | texts | {"n": f"{row['n']} images of {row['n_groups']} groups"})
    return pd.DataFrame(rows)


def sanity_table(sanity: pd.DataFrame) -> pd.DataFrame:
    """Return ``sanity.csv`` as text for display: one row per stage of the permutation.

    Columns that older studies lack stay blank.
    """
    rows = [
        {
            "permuted": row["permuted"],
            "layers": int(row["layers"]),
            "rank correlation": _describe_correlation(row),
            "n": int(row["n"]),
            "empty": int(row["empty"]),
            "empty afterwards": "" if pd.isna(row.get("emptied")) else f"{row['emptied']:.0%}",
        }
        for _, row in sanity.iterrows()
    ]
    return pd.DataFrame(rows)
