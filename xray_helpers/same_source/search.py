"""Which images come from the same source: copies, re-encodings, rotations, flips, crops.

Cheap to dear: equal bytes, equal pixels, then for each picture its nearest neighbours by signature, and for
each such pair local features (SIFT) that must agree on one affine map, under which the pictures must look
alike everywhere they overlap. Signatures only propose; the alignment decides. No TensorFlow here: the
embedder is an argument.
"""

import hashlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from tqdm import tqdm

from xray_helpers.images.pixels import load_pixels
from xray_helpers.images.radiographs import image_folder
from xray_helpers.same_source.candidates import Embedder, compute_signatures, propose_pairs
from xray_helpers.same_source.corrections import read_corrections
from xray_helpers.same_source.verification import MIN_CORRELATION, SIDE, VERSION, Aligner
from xray_helpers.study.cache import RowView, cache_folder, release
from xray_helpers.study.files import build_table, hash_of, read_json, write_json

DOUBTFUL_CORRELATION = 0.75
_BLACK = 8  # grey level up to which a corner is black; compression leaves a little
_NEEDED = (
    (25, 0.87),
    (15, MIN_CORRELATION),
    (12, 0.96),
    (0, 2.0),
)  # inliers from here on need this correlation
_FOUND = ("equal bytes", "equal pixels", "same source")  # kinds of links that the search itself is sure of
LINK_COLUMNS = (
    "path_a",
    "path_b",
    "kind",
    "decision",
    "inliers",
    "correlation",
    "mirrored",
    "transform",
    "sha256_a",
    "sha256_b",
)


class Search(NamedTuple):
    """The outcome of `find_same_source`.

    Attributes
    ----------
    source : Series of str
        For each row of the table the smallest path of its source group; missing for unreadable files.
    links : DataFrame
        A pair a row, `LINK_COLUMNS`: kind is ``equal bytes``, ``equal pixels``, ``same source``, ``doubtful``
        or ``correction``; decision is ``joined``, ``for review`` or ``separated``; correlation -1 to 1;
        transform is the 2 x 3 affine map of a (mirrored first, if so) onto b, at 256 x 256 pixels.
    unique : int
        Pictures that differ in their pixels.
    uncorrected : Series of str
        As source, had nobody corrected anything: parts are drawn by these, so that a correction moves no
        other image.
    corners : Series of float
        For each row the share of the picture's corners that is black, 0 to 1: what rotation within the frame
        leaves.
    """

    source: pd.Series
    links: pd.DataFrame
    unique: int
    uncorrected: pd.Series
    corners: pd.Series


def find_same_source(
    manifest: pd.DataFrame,
    folder: Path,
    embed: Embedder | None = None,
    embed_key: str = "",
    corrections: str = "",
) -> Search:
    """Find the groups of files that derive from one source picture.

    Parameters
    ----------
    manifest : DataFrame
        path, sha256 (missing for files that cannot be read).
    folder : Path
        What the paths are relative to.
    embed : callable, optional
        Of uint8 pictures (n, 96, 96), features (n, d): ImageNet MobileNetV2 was measured. Without it
        Fourier-Mellin signatures propose the pairs; single transforms are still found, combined crops and
        shears are missed more often.
    embed_key : str
        Names the embedder in the cache.
    corrections : str
        A CSV with the columns action (``join`` or ``separate``), sha256_a, sha256_b.

    Raises
    ------
    InputError
        When the corrections cannot be understood.
    """
    known = manifest.dropna(subset=["sha256"]).sort_values(["sha256", "path"])
    if known.empty:
        nothing = pd.Series(pd.NA, index=manifest.index, dtype="string")
        return Search(
            nothing, build_table([], LINK_COLUMNS), 0, nothing, nothing.astype("Float64").astype(float)
        )
    first = known.drop_duplicates("sha256").reset_index(drop=True)  # sorted by content: order-independent
    plain = image_folder(folder)._replace(
        depth="percentiles", resize="stretch"
    )  # so that what is cached is the same for all
    images = load_pixels(first, plain, (SIDE, SIDE)).array  # in the order of `first`
    wishes = read_corrections(corrections, set(first["sha256"]))
    digests = []
    for image in images:
        digests.append(hashlib.sha256(image.tobytes()).hexdigest())
        if len(digests) % 1000 == 0:
            release(images)
    content, representative = np.unique(digests, return_inverse=True)
    order = np.sort(np.unique(representative, return_index=True)[1])  # one file a picture, in sha256's order
    picture_of = np.empty(len(content), int)
    picture_of[representative[order]] = np.arange(len(order))
    pictures, shas = RowView(images, order), first["sha256"].to_numpy()[order]

    signatures = compute_signatures(pictures, shas, embed, embed_key)
    number = dict(zip(first["sha256"], picture_of[representative], strict=True))
    found = _verify(pictures, shas, propose_pairs(signatures), _separated(wishes, number))
    links = _describe_links(known, first, picture_of[representative], order, found, wishes)
    source = _group(manifest, first, links[links["decision"] == "joined"])
    uncorrected = _group(manifest, first, links[links["kind"].isin(_FOUND)])
    links = links[~_is_decided(links, first, wishes)].reset_index(drop=True)
    corners = manifest["sha256"].map(dict(zip(first["sha256"], _measure_corners(images), strict=True)))
    return Search(source, links, len(order), uncorrected, corners.astype(float))


def _measure_corners(images: np.ndarray, block: int = 500) -> np.ndarray:
    """Return which share of the four corners' triangles, an eighth of the side long, is black in each
    picture.
    """
    side = images.shape[1]
    y, x = np.ogrid[:side, :side]
    across, down = np.minimum(x, side - 1 - x), np.minimum(y, side - 1 - y)
    mask = across + down < side // 8
    shares = []
    for start in range(0, len(images), block):
        shares.append((images[start : start + block][:, mask] <= _BLACK).mean(axis=1))
        release(images)
    return np.concatenate(shares)


class _Forest:
    """Union-find that never joins what a person separated."""

    def __init__(self, size: int, apart: list[tuple[int, int]]) -> None:
        self.parent = list(range(size))
        self.apart = apart

    def find(self, i: int) -> int:
        while self.parent[i] != i:
            self.parent[i] = self.parent[self.parent[i]]
            i = self.parent[i]
        return i

    def join(self, i: int, j: int) -> bool:
        a, b = sorted((self.find(i), self.find(j)))
        if any({self.find(p), self.find(q)} == {a, b} for p, q in self.apart if a != b):
            return False
        self.parent[b] = a
        return True


def _separated(wishes: pd.DataFrame, number: dict[str, int]) -> list[tuple[int, int]]:
    return [(number[w.sha256_a], number[w.sha256_b]) for w in wishes.itertuples() if w.action == "separate"]


def _verify(
    pictures: RowView, shas: np.ndarray, pairs: np.ndarray, apart: list[tuple[int, int]]
) -> list[dict[str, Any]]:
    """Return the evidence of every pair that is joined or doubtful, computed once for the same pictures."""
    proposed = hashlib.sha256(pairs.tobytes()).hexdigest()
    path = cache_folder() / f"pairs-{hash_of(VERSION, _NEEDED, shas.tolist(), proposed, apart)}.json"
    if not path.exists():
        write_json(path, _compare_all(pictures, shas, pairs, apart))
    return read_json(path)


def _compare_all(
    pictures: RowView, shas: np.ndarray, pairs: np.ndarray, apart: list[tuple[int, int]]
) -> list[dict[str, Any]]:
    """Compare the pairs, most alike first; pairs already joined are skipped."""
    forest, found, aligner = _Forest(len(pictures), apart), [], Aligner(pictures, shas)
    for start in tqdm(range(0, len(pairs), 256), "comparing", mininterval=1, leave=False, unit="block"):
        block = pairs[start : start + 256]
        apart_still = [forest.find(i) != forest.find(j) for i, j in block]
        for evidence in aligner.compare(block[apart_still]):
            if evidence["correlation"] >= DOUBTFUL_CORRELATION:
                evidence["sure"] = _is_sure(evidence)
                evidence["joined"] = evidence["sure"] and forest.join(evidence["i"], evidence["j"])
                found.append(evidence | {"transform": evidence["transform"].ravel().tolist()})
    return [e for e in found if e["joined"] or forest.find(e["i"]) != forest.find(e["j"])]


def _is_sure(evidence: dict[str, Any]) -> bool:
    """Whether the correlation is high enough for how many points say so.

    Saturated or cropped copies correlate less but share many points; plain limbs of two people can be aligned
    by a few points on their outlines and then look alike.
    """
    needed = next(correlation for points, correlation in _NEEDED if evidence["inliers"] >= points)
    return evidence["correlation"] >= needed


def _describe_links(
    known: pd.DataFrame,
    first: pd.DataFrame,
    picture: np.ndarray,
    order: np.ndarray,
    found: list,
    wishes: pd.DataFrame,
) -> pd.DataFrame:
    shas, paths = first["sha256"].to_numpy(), first["path"].to_numpy()
    by_sha = dict(zip(shas, paths, strict=True))
    copies = known[known.duplicated("sha256")]
    same = [
        ("equal bytes", by_sha[row.sha256], row.sha256, row.path, row.sha256) for row in copies.itertuples()
    ]
    judged = set(wishes.loc[wishes["action"] == "separate", ["sha256_a", "sha256_b"]].to_numpy().ravel())
    twins = _pair_twins(picture, order, np.isin(shas, list(judged)))
    same += [("equal pixels", paths[a], shas[a], paths[b], shas[b]) for a, b in twins]
    rows = [
        {
            "kind": kind,
            "path_a": path_a,
            "sha256_a": sha_a,
            "path_b": path_b,
            "sha256_b": sha_b,
            "decision": "joined",
            "correlation": 1.0,
            "mirrored": False,
        }
        for kind, path_a, sha_a, path_b, sha_b in same
    ]
    for evidence in found:
        a, b = order[evidence["i"]], order[evidence["j"]]
        rows.append(
            {
                "path_a": paths[a],
                "path_b": paths[b],
                "kind": "same source" if evidence["sure"] else "doubtful",
                "decision": "joined" if evidence["joined"] else "for review",
                "inliers": evidence["inliers"],
                "correlation": round(evidence["correlation"], 4),
                "mirrored": evidence["mirrored"],
                "transform": " ".join(f"{v:.3f}" for v in evidence["transform"]),
                "sha256_a": shas[a],
                "sha256_b": shas[b],
            }
        )
    for wish in wishes.itertuples():
        decision = "joined" if wish.action == "join" else "separated"
        rows.append(
            {
                "path_a": by_sha[wish.sha256_a],
                "path_b": by_sha[wish.sha256_b],
                "kind": "correction",
                "decision": decision,
                "sha256_a": wish.sha256_a,
                "sha256_b": wish.sha256_b,
            }
        )
    table = build_table(rows, LINK_COLUMNS)
    apart = {frozenset((w.sha256_a, w.sha256_b)) for w in wishes.itertuples() if w.action == "separate"}
    separated = [frozenset(pair) in apart for pair in zip(table["sha256_a"], table["sha256_b"], strict=True)]
    table.loc[separated, "decision"] = "separated"
    return table.sort_values(["decision", "kind", "path_a", "path_b"], ignore_index=True)


def _is_decided(links: pd.DataFrame, first: pd.DataFrame, wishes: pd.DataFrame) -> np.ndarray:
    """Return which pairs for review corrections have decided: their groups are one by now, or are kept
    apart.
    """
    joined = links[links["decision"] == "joined"]
    group = dict(zip(first["sha256"], _components(first, joined), strict=True))
    apart = {
        frozenset((group[w.sha256_a], group[w.sha256_b]))
        for w in wishes.itertuples()
        if w.action == "separate"
    }
    ends = [{group[a], group[b]} for a, b in zip(links["sha256_a"], links["sha256_b"], strict=True)]
    decided = np.array([len(both) == 1 or both in apart for both in ends], bool)
    return decided & (links["decision"] == "for review").to_numpy()


def _pair_twins(picture: np.ndarray, order: np.ndarray, judged: np.ndarray) -> list[tuple[int, int]]:
    """Return pairs of files of equal pixels that hold each picture's files together, also without those that
    are judged.

    Mostly each with the first; a file that a person separated from another is paired with every other one, so
    that those which are not separated stay together whichever it is.
    """
    pairs = [(order[number], i) for i, number in enumerate(picture) if order[number] != i]
    for number in np.unique(picture[judged]):
        files = np.flatnonzero(picture == number)
        rest = files[~judged[files]]
        pairs = [pair for pair in pairs if picture[pair[0]] != number]
        pairs += [(rest[0], file) for file in rest[1:]]
        pairs += [(a, b) for a in files[judged[files]] for b in files if a < b or (a != b and not judged[b])]
    return pairs


def _group(manifest: pd.DataFrame, first: pd.DataFrame, links: pd.DataFrame) -> pd.Series:
    component = dict(zip(first["sha256"], _components(first, links), strict=True))
    group = manifest["sha256"].map(component, na_action="ignore")
    return manifest.groupby(group)["path"].transform("min").astype("string")


def _components(first: pd.DataFrame, links: pd.DataFrame) -> np.ndarray:
    """Return the number of the group of each row of `first`: what the links join, by whatever way, is one."""
    number = {sha: i for i, sha in enumerate(first["sha256"])}
    ends = [links[column].map(number).to_numpy(int) for column in ("sha256_a", "sha256_b")]
    graph = coo_matrix((np.ones(len(links)), ends), shape=(len(first),) * 2)
    return connected_components(graph, directed=False)[1]
