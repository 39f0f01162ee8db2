"""Pairs of sources that may show one patient: proposed to a person, never joined unseen."""

import re
from pathlib import Path

import numpy as np
import pandas as pd

from xray_helpers.images.pixels import load_pixels
from xray_helpers.images.radiographs import ImageFolder, image_folder
from xray_helpers.same_source.candidates import Embedder, compute_signatures, propose_pairs
from xray_helpers.same_source.local_features import SIDE
from xray_helpers.same_source.search import shapes_of
from xray_helpers.same_source.verification import Aligner
from xray_helpers.study.files import build_table
from xray_helpers.study.tables import PATIENTS

_KEPT = 3  # pairs a source whose points are compared
_LEAST = 5.5  # sum of evidence from which on a pair is proposed: see docs/explanation/leaks.md
_MOST = 40  # pairs proposed
_FAR = 99  # names that do not differ by one number alone


def propose_patients(
    manifest: pd.DataFrame,
    folder: ImageFolder | Path,
    links: pd.DataFrame,
    embed: Embedder | None = None,
    embed_key: str = "",
) -> pd.DataFrame:
    """Return pairs of sources, of no known patient, that look like two views or a follow-up of one patient.

    Of each source the largest picture is taken. A signal of a pair counts as evidence by how rare it is:
    minus the decimal logarithm of the share of pairs for which it is as strong, among all candidates and
    among those of the same two pictures (the mean of both). Candidates are nearest neighbours, so that two
    hands are compared with other pairs of hands. The signals are taken as independent, which they are not:
    the sum is an order, not a probability.

    Parameters
    ----------
    manifest : DataFrame
        path, sha256, height, width, source_group, patient.
    folder : ImageFolder or Path
        What the paths are relative to.
    links : DataFrame
        Of the search: pairs that a person separated are not proposed again.
    embed, embed_key
        As of `search.find_same_source`.

    Returns
    -------
    DataFrame
        The columns `PATIENTS`, most evidence first: path_a, sha256_a, path_b, sha256_b; evidence (the sum),
        and of it look (likeness by the network), exposure (distribution of grey levels), frame (size in
        pixels), name (names that differ by one number), points (local features on one affine map: implants,
        markers).
    """
    unknown = manifest.dropna(subset=["sha256", "source_group", "height"])
    unknown = unknown[unknown["patient"].isna()].assign(area=lambda table: table["height"] * table["width"])
    largest = unknown.sort_values(["area", "path"], ascending=[False, True]).drop_duplicates("source_group")
    sources = largest.sort_values("sha256").drop_duplicates("sha256").reset_index(drop=True)
    if len(sources) < 3:
        return build_table([], PATIENTS)
    as_searched = image_folder(folder)._replace(depth="percentiles", resize="stretch")
    view, shas = load_pixels(sources, as_searched, (SIDE, SIDE)), sources["sha256"].to_numpy()
    look, grey = compute_signatures(view, shas, embed, embed_key)[0], _accumulate(view.array)
    pairs = propose_pairs([look, grey])
    evidence = _weigh_appearance(pairs, look, grey, sources)
    kept = _keep_best(pairs, evidence.sum(axis=1).to_numpy())
    pairs, evidence = pairs[kept], evidence.iloc[kept].reset_index(drop=True)
    points = {
        (found["i"], found["j"]): found["inliers"]
        for found in Aligner(view, shapes_of(sources), shas).compare(pairs)
    }
    evidence["points"] = _rarity(np.array([points.get(pair, 0) for pair in map(tuple, pairs.tolist())]))
    evidence.insert(0, "evidence", evidence.sum(axis=1))
    for side, rows in zip("ab", pairs.T, strict=True):
        evidence[f"path_{side}"], evidence[f"sha256_{side}"] = sources["path"].to_numpy()[rows], shas[rows]
    found = evidence[(evidence["evidence"] >= _LEAST) & ~_are_separated(evidence, links, manifest)]
    return found.nlargest(_MOST, "evidence")[list(PATIENTS)].round(2).reset_index(drop=True)


def caption_pairs(patients: pd.DataFrame, most: int = 8) -> tuple[list[str], list[str]]:
    """Return the paths of the first pairs, one after the other, and a caption of each picture."""
    shown = patients.head(most)
    paths = shown[["path_a", "path_b"]].to_numpy(str).ravel().tolist()
    return paths, [f"pair {at // 2 + 1}: {path.split('/')[-1]}" for at, path in enumerate(paths)]


def describe_patients(patients: pd.DataFrame, manifest: pd.DataFrame) -> str:
    """Return in a sentence how many pairs were proposed, of how many sources without a known patient."""
    sources = manifest.loc[manifest["patient"].isna(), "source_group"].nunique()
    if not sources:
        return "The patients of all images are known, so that no pairs were looked for."
    if patients.empty:
        return (
            f"Among {sources} sources without a known patient no pair stands out. That does not show that "
            "each is of a patient of its own."
        )
    return (
        f"{len(patients)} pairs among {sources} sources without a known patient stand out ([patients.csv]"
        "(patients.csv)). They are proposals: none was joined."
    )


def review_with(links: pd.DataFrame, patients: pd.DataFrame) -> pd.DataFrame:
    """Return links with the proposed pairs below them, for review, of the kind ``one patient?``."""
    pairs = patients[["path_a", "sha256_a", "path_b", "sha256_b"]]
    added = pairs.assign(kind="one patient?", decision="for review").reindex(columns=links.columns)
    return pd.concat([links, added.astype(links.dtypes)], ignore_index=True)


def _are_separated(found: pd.DataFrame, links: pd.DataFrame, manifest: pd.DataFrame) -> np.ndarray:
    """Return for which pairs a person separated files of their sources; bool, shape (n,)."""
    source = manifest.dropna(subset=["sha256"]).drop_duplicates("sha256").set_index("sha256")["source_group"]

    def sources(table: pd.DataFrame) -> list[frozenset[str]]:
        return [
            frozenset(pair) for pair in zip(*(table[f"sha256_{x}"].map(source) for x in "ab"), strict=True)
        ]

    separated = set(sources(links[links["decision"] == "separated"]))
    return np.array([pair in separated for pair in sources(found)], bool)


def _accumulate(images: np.ndarray) -> np.ndarray:
    """Return unit rows of the cumulative distribution of grey levels, float32 of shape (n, 256)."""
    rows = np.stack([np.cumsum(np.bincount(image.ravel(), minlength=256)) for image in images])
    rows = (rows / rows[:, -1:]).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def _weigh_appearance(
    pairs: np.ndarray, look: np.ndarray, grey: np.ndarray, sources: pd.DataFrame
) -> pd.DataFrame:
    """Return the evidence of likeness, exposure, frame and name of each pair."""
    i, j = pairs.T
    shape = pd.factorize(pd.Series(map(tuple, shapes_of(sources).tolist())))[0]
    share = np.bincount(shape)[shape] / len(shape)
    names = [_split_name(path) for path in sources["path"]]
    apart = np.array([_count_between(names[a], names[b]) for a, b in pairs.tolist()])
    signals = {
        "look": (look[i] * look[j]).sum(axis=1),
        "exposure": -np.abs(grey[i] - grey[j]).mean(axis=1),
        "name": -apart,
    }
    own = _pairs_of_each(pairs, len(sources))
    weighed = {key: (_rarity(value) + _rarity_among(value, pairs, own)) / 2 for key, value in signals.items()}
    return pd.DataFrame(weighed | {"frame": np.where(shape[i] == shape[j], -np.log10(share[i]), 0.0)})


def _rarity(values: np.ndarray) -> np.ndarray:
    """Return minus the decimal logarithm of the share of values that are at least as large as each."""
    at_least = len(values) - np.searchsorted(np.sort(values), values, side="left")
    return -np.log10((1 + at_least) / (1 + len(values)))


def _rarity_among(values: np.ndarray, pairs: np.ndarray, own: list[np.ndarray]) -> np.ndarray:
    """Return the same among the pairs that share a picture with each."""
    found = np.empty(len(values))
    for number, (i, j) in enumerate(pairs.tolist()):
        others = values[np.concatenate([own[i], own[j]])]  # each holds the pair itself
        found[number] = -np.log10(((others >= values[number]).sum() - 1) / (len(others) - 1))
    return found


def _pairs_of_each(pairs: np.ndarray, count: int) -> list[np.ndarray]:
    """Return the numbers of the pairs that each picture is in."""
    order = np.argsort(pairs.ravel(), kind="stable")
    return np.split(order // 2, np.searchsorted(pairs.ravel()[order], np.arange(1, count)))


def _keep_best(pairs: np.ndarray, total: np.ndarray) -> np.ndarray:
    """Return the numbers of the pairs that are among the best of either picture."""
    kept, used = [], np.zeros(pairs.max() + 1, int)
    for number in np.argsort(-total, kind="stable"):
        if (used[pairs[number]] < _KEPT).any():
            used[pairs[number]] += 1
            kept.append(number)
    return np.array(kept)


def _split_name(path: str) -> tuple[str, list[int]]:
    return re.sub(r"\d+", "#", path), [int(number) for number in re.findall(r"\d+", path)]


def _count_between(one: tuple[str, list[int]], other: tuple[str, list[int]]) -> int:
    """Return the difference of two names that differ in one number alone, `_FAR` at most."""
    between = [abs(a - b) for a, b in zip(one[1], other[1], strict=False) if a != b]
    return min(between[0], _FAR) if one[0] == other[0] and len(between) == 1 else _FAR
