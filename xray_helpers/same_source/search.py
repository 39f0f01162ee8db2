"""Which images come from the same source: copies, re-encodings, rotations, flips, crops, negatives.

Cheap comparisons come first: equal bytes, then equal pixels, then for each picture its nearest neighbours by
signature and by visual words. For each such pair, local features (SIFT) must agree on one map, under which
the pictures, or one and the negative of the other, must look alike in most of their overlap. Signatures only
propose pairs; the alignment decides. TensorFlow is not needed here: the embedder is an argument.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy.cluster.hierarchy import DisjointSet

from xray_helpers.data.manifest import connected_components
from xray_helpers.images.pixels import load_pixels
from xray_helpers.images.radiographs import image_folder
from xray_helpers.same_source.candidates import Embedder, compute_signatures, propose_pairs
from xray_helpers.same_source.corrections import read_corrections
from xray_helpers.same_source.local_features import SIDE, one_thread_each
from xray_helpers.same_source.rules import RULES, is_sure, reaches
from xray_helpers.same_source.verification import VERSION, Aligner
from xray_helpers.same_source.words import Vocabulary
from xray_helpers.study.cache import RowView, cache_folder, release
from xray_helpers.study.files import build_table, hash_of, read_json, write_json
from xray_helpers.study.progress import progress
from xray_helpers.study.tables import LINKS

_DOUBTFUL = ((60, 0.30), (40, 0.75), (20, 0.92), (15, 0.96))  # from here on a pair is for review
_BLOCK = 128  # pairs compared at a time: fewer are skipped as already joined in larger ones
_BLACK = 8  # grey level up to which a corner is black; compression leaves a little
_FOUND = ("equal bytes", "equal pixels", "same source")  # kinds of links of which the search itself is sure


class Search(NamedTuple):
    """The outcome of `find_same_source`.

    Attributes
    ----------
    source : Series of str
        For each row of the table the smallest path of its source group; missing for unreadable files.
    links : DataFrame
        One row per pair, with the columns `LINKS`: kind is ``equal bytes``, ``equal pixels``, ``same
        source``, ``doubtful`` or ``correction``; decision is ``joined``, ``for review`` or ``separated``;
        correlation -1 to 1; transform is the 2 x 3 affine map of a (mirrored first, if mirrored) onto b, at
        256 x 256 pixels.
    unique : int
        Number of pictures that differ in their pixels.
    uncorrected : Series of str
        As source, without corrections. Parts are drawn by it, so that a correction moves no other image.
    corners : Series of float
        For each row the share of the picture's corners that is black, 0 to 1: what rotation within the frame
        leaves.
    """

    source: pd.Series
    links: pd.DataFrame
    unique: int
    uncorrected: pd.Series
    corners: pd.Series


class _Pictures(NamedTuple):
    """Files of different content, and which of them have the same pixels.

    Attributes
    ----------
    files : DataFrame
        path, sha256, height and width of the first file of each content, in order of sha256.
    picture : ndarray of int, shape (files,)
        Number of each file's picture.
    representative : ndarray of int, shape (pictures,)
        Row of the first file of each picture.
    """

    files: pd.DataFrame
    picture: np.ndarray
    representative: np.ndarray

    def rows_of(self, shas: Sequence[str]) -> np.ndarray:
        """Return the rows of the files with these contents."""
        return pd.Index(self.files["sha256"]).get_indexer(shas)


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
        path, sha256 (missing for files that cannot be read); height and width, without which pictures are
        taken as square and rotations of others may be missed.
    folder : Path
        What the paths are relative to.
    embed : callable, optional
        Maps uint8 pictures (n, 96, 96) to features (n, d), such as those of ImageNet MobileNetV2. Without it
        Fourier-Mellin signatures propose the pairs: single transforms are still found, combined crops and
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
        return Search(nothing, build_table([], LINKS), 0, nothing, pd.Series(np.nan, manifest.index))
    files = known.drop_duplicates("sha256").reset_index(drop=True)  # independent of the order of files
    same_for_all = image_folder(folder)._replace(depth="percentiles", resize="stretch")
    images = load_pixels(files, same_for_all, (SIDE, SIDE)).array  # in the order of `files`
    decided = read_corrections(corrections, set(files["sha256"]))
    pictures = find_equal_pixels(files, images)
    found = _search_similar(pictures, images, embed, embed_key, decided)
    links = _describe_links(known, pictures, found, decided)
    source = _name_groups(manifest, files, links[links["decision"] == "joined"])
    uncorrected = _name_groups(manifest, files, links[links["kind"].isin(_FOUND)])
    links = links[~_is_decided(links, pictures, decided)].reset_index(drop=True)
    corners = manifest["sha256"].map(dict(zip(files["sha256"], _measure_corners(images), strict=True)))
    return Search(source, links, len(pictures.representative), uncorrected, corners.astype(float))


def find_equal_pixels(files: pd.DataFrame, images: np.ndarray) -> _Pictures:
    """Return which of the files, in the order of `images`, have the same pixels."""
    digests = []
    for image in images:
        digests.append(hashlib.sha256(image.tobytes()).hexdigest())
        if len(digests) % 1000 == 0:
            release(images)
    picture, _ = pd.factorize(np.array(digests))  # numbered in the order of files
    return _Pictures(files, picture, np.unique(picture, return_index=True)[1])


def shapes_of(files: pd.DataFrame) -> np.ndarray:
    """Return height and width of each file, ints (n, 2); of squares where they are not known."""
    shapes = files.reindex(columns=["height", "width"]).astype("Float64").fillna(SIDE)
    return shapes.to_numpy(float).astype(int)


def _measure_corners(images: np.ndarray, block: int = 500) -> np.ndarray:
    """Return which share of the corners (triangles, an eighth of the side long) is black in each picture."""
    side = images.shape[1]
    y, x = np.ogrid[:side, :side]
    mask = np.minimum(x, side - 1 - x) + np.minimum(y, side - 1 - y) < side // 8
    shares = []
    for start in range(0, len(images), block):
        shares.append((images[start : start + block][:, mask] <= _BLACK).mean(axis=1))
        release(images)
    return np.concatenate(shares)


def _search_similar(
    pictures: _Pictures, images: np.ndarray, embed: Embedder | None, embed_key: str, decided: pd.DataFrame
) -> list[dict[str, Any]]:
    """Return the evidence of every pair of pictures that is joined or doubtful, cached."""
    view = RowView(images, pictures.representative)
    shas = pictures.files["sha256"].to_numpy()[pictures.representative]
    shapes = shapes_of(pictures.files)[pictures.representative]
    aligner = Aligner(view, shapes, shas)
    words = Vocabulary(aligner.local).rows
    pairs = propose_pairs([words, *compute_signatures(view, shas, embed, embed_key)])
    separate = decided.loc[decided["action"] == "separate", ["sha256_a", "sha256_b"]]
    separated = [pictures.picture[pictures.rows_of(pair)].tolist() for pair in separate.to_numpy()]
    proposed = hashlib.sha256(pairs.tobytes()).hexdigest()
    rules = (VERSION, RULES, _DOUBTFUL)
    path = cache_folder() / f"pairs-{hash_of(rules, shas.tolist(), proposed, separated)}.json"
    if not path.exists():
        write_json(path, _compare_all(aligner, len(view), pairs, separated))
    return read_json(path)


def _compare_all(
    aligner: Aligner, count: int, pairs: np.ndarray, separated: list[list[int]]
) -> list[dict[str, Any]]:
    """Compare the pairs, most alike first; pairs that are already joined are skipped."""
    groups = DisjointSet(range(count))
    found = []
    starts = progress(range(0, len(pairs), _BLOCK), "comparing", mininterval=1, leave=False, unit="block")
    with one_thread_each():
        for start in starts:
            block = pairs[start : start + _BLOCK]
            is_open = [not groups.connected(i, j) for i, j in block.tolist()]
            for evidence in aligner.compare(block[is_open]):
                evidence["sure"] = is_sure(evidence)
                evidence["joined"] = evidence["sure"] and _join(
                    groups, evidence["i"], evidence["j"], separated
                )
                if evidence["sure"] or reaches(_DOUBTFUL, evidence):
                    found.append(evidence | {"transform": evidence["transform"].ravel().tolist()})
    return [e for e in found if e["joined"] or not groups.connected(e["i"], e["j"])]


def _join(groups: DisjointSet, i: int, j: int, separated: list[list[int]]) -> bool:
    """Join the groups of two pictures unless a user separated them; return whether they are joined."""
    roots = {groups[i], groups[j]}
    if len(roots) == 2 and any({groups[a], groups[b]} == roots for a, b in separated):
        return False
    groups.merge(i, j)
    return True


def _describe_links(
    known: pd.DataFrame, pictures: _Pictures, found: list[dict[str, Any]], decided: pd.DataFrame
) -> pd.DataFrame:
    """Return the table of links, sorted; pairs that a user separated are marked so."""
    shas, paths = (pictures.files[name].to_numpy() for name in ("sha256", "path"))

    def files(a: int, b: int) -> dict[str, str]:
        return {"path_a": paths[a], "sha256_a": shas[a], "path_b": paths[b], "sha256_b": shas[b]}

    certain = {"decision": "joined", "correlation": 1.0, "mirrored": False, "negative": False}
    copies = known[known.duplicated("sha256")]
    rows = [
        files(a, a) | {"path_b": path, "kind": "equal bytes"} | certain
        for a, path in zip(pictures.rows_of(copies["sha256"]), copies["path"], strict=True)
    ]
    separate = decided[decided["action"] == "separate"]
    is_separated = np.zeros(len(shas), bool)
    is_separated[pictures.rows_of(pd.concat([separate["sha256_a"], separate["sha256_b"]]))] = True
    equal = _pair_equal_pixels(pictures, is_separated)
    rows += [files(a, b) | {"kind": "equal pixels"} | certain for a, b in equal]
    for evidence in found:
        rows.append(
            files(*pictures.representative[[evidence["i"], evidence["j"]]])
            | {
                "kind": "same source" if evidence["sure"] else "doubtful",
                "decision": "joined" if evidence["joined"] else "for review",
                "inliers": evidence["inliers"],
                "correlation": round(evidence["correlation"], 4),
                "mirrored": evidence["mirrored"],
                "negative": evidence["negative"],
                "transform": " ".join(f"{value:.3f}" for value in evidence["transform"]),
            }
        )
    for row in decided.itertuples():
        decision = "joined" if row.action == "join" else "separated"
        pair = pictures.rows_of([row.sha256_a, row.sha256_b])
        rows.append(files(*pair) | {"kind": "correction", "decision": decision})
    table = build_table(rows, LINKS)
    separated = set(_sha_pairs(separate))
    table.loc[[pair in separated for pair in _sha_pairs(table)], "decision"] = "separated"
    return table.sort_values(["decision", "kind", "path_a", "path_b"], ignore_index=True)


def _sha_pairs(links: pd.DataFrame) -> list[frozenset[str]]:
    return [frozenset(pair) for pair in zip(links["sha256_a"], links["sha256_b"], strict=True)]


def _pair_equal_pixels(pictures: _Pictures, separated: np.ndarray) -> list[tuple[int, int]]:
    """Return pairs of files of equal pixels that hold each picture's files together.

    Usually each file is paired with the first. A file that a user separated from another is paired with all
    others, so that those which are not separated stay together.
    """
    picture, first = pictures.picture, pictures.representative
    special = np.unique(picture[separated])
    pairs = [
        (first[number], file)
        for file, number in enumerate(picture)
        if file != first[number] and number not in special
    ]
    for number in special:
        files = np.flatnonzero(picture == number)
        rest = files[~separated[files]]
        pairs += [(rest[0], file) for file in rest[1:]]
        pairs += [
            (a, b) for a in files[separated[files]] for b in files if a < b or (a != b and not separated[b])
        ]
    return pairs


def _is_decided(links: pd.DataFrame, pictures: _Pictures, decided: pd.DataFrame) -> np.ndarray:
    """Return which of the doubtful pairs corrections have settled: their groups are joined, or separated."""
    group_of = _find_groups(pictures.files, links[links["decision"] == "joined"])

    def groups(table: pd.DataFrame) -> list[frozenset[int]]:
        return [frozenset(group_of[sha] for sha in pair) for pair in _sha_pairs(table)]

    separated = set(groups(decided[decided["action"] == "separate"]))
    is_decided = [len(pair) == 1 or pair in separated for pair in groups(links)]
    return np.array(is_decided, bool) & (links["decision"] == "for review").to_numpy(bool)


def _name_groups(manifest: pd.DataFrame, files: pd.DataFrame, links: pd.DataFrame) -> pd.Series:
    """Return for each row of the manifest the smallest path of the files that links join with it."""
    group = manifest["sha256"].map(_find_groups(files, links), na_action="ignore")
    return manifest.groupby(group)["path"].transform("min").astype("string")


def _find_groups(files: pd.DataFrame, links: pd.DataFrame) -> dict[str, int]:
    """Return the group of each content: contents that links join, directly or indirectly, are in one."""
    index = pd.Index(files["sha256"])
    pairs = np.column_stack([index.get_indexer(links[name]) for name in ("sha256_a", "sha256_b")])
    return dict(zip(index, connected_components(len(index), pairs).tolist(), strict=True))
