"""Which images come from the same source: copies, re-encodings, rotations, flips, crops.

Cheap to dear: equal bytes, equal pixels, then for each picture its nearest neighbours by signature, and for
each such pair local features (SIFT) that must agree on one affine map, under which the pictures must look
alike everywhere they overlap. Signatures only propose; the alignment decides. No TensorFlow here: the
embedder is an argument.
"""

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from os import cpu_count
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import pandas as pd
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from xray_helpers.cache import new_array, read_array, release
from xray_helpers.pixels import load_pixels
from xray_helpers.settings import InputError
from xray_helpers.signatures import Embedder, compute_signatures, propose_pairs
from xray_helpers.studies import from_root, hash_of

SIDE = 256  # pictures are compared at this size
MIN_INLIERS, MIN_CORRELATION, DOUBTFUL_CORRELATION = 10, 0.90, 0.75
_NEEDED = ((25, 0.87), (15, MIN_CORRELATION), (12, 0.96), (0, 2.0))  # inliers from here on need this correlation
MAYBE_CORRELATION = 0.70  # from here on the alignment is refined before the pair is judged
MIN_EXTENT = 0.22  # of the side: inliers crowded into a marker are no evidence
LINK_COLUMNS = (
    "path_a", "path_b", "kind", "decision", "inliers", "correlation", "mirrored", "transform", "sha256_a", "sha256_b",
)  # fmt: skip
_VERSION = 6  # of the local features that are cached
_POINTS, _FEW_POINTS, _RATIO, _REPROJECTION = 300, 150, 0.8, 4.0
_STRONGEST, _PROMISING = 96, 7  # points looked at first, and clear matches among them from which all are matched


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
    """

    source: pd.Series
    links: pd.DataFrame
    unique: int


def find_same_source(
    manifest: pd.DataFrame, folder: Path, embed: Embedder | None = None, embed_key: str = "", corrections: str = ""
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
        return Search(
            pd.Series(pd.NA, index=manifest.index, dtype="string"), pd.DataFrame(columns=list(LINK_COLUMNS)), 0
        )
    first = known.drop_duplicates("sha256").reset_index(drop=True)  # sorted by content: order-independent
    images = load_pixels(first, folder, (SIDE, SIDE))
    wishes = read_corrections(corrections, set(first["sha256"]))
    digests = [hashlib.sha256(image.tobytes()).hexdigest() for image in images]
    content, representative = np.unique(digests, return_inverse=True)
    order = np.sort(np.unique(representative, return_index=True)[1])  # one file a picture, in sha256's order
    picture_of = np.empty(len(content), int)
    picture_of[representative[order]] = np.arange(len(order))
    pictures, shas = _Rows(images, order), first["sha256"].to_numpy()[order]

    signatures = compute_signatures(pictures, shas, embed, embed_key)
    number = dict(zip(first["sha256"], picture_of[representative], strict=True))
    found = _verify(pictures, shas, propose_pairs(signatures), _separated(wishes, number))
    links = _describe_links(known, first, picture_of[representative], order, found, wishes)
    source = _group(manifest, first, links)
    return Search(source, links, len(order))


class _Rows:
    """Some rows of an array on disk, in an order, without a copy of them all."""

    def __init__(self, array: np.ndarray, rows: np.ndarray) -> None:
        self.array, self.rows = array, rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, i: int) -> np.ndarray:
        return np.array(self.array[self.rows[i]])


def read_corrections(path: str, known: set[str]) -> pd.DataFrame:
    """Return the corrections that concern files at hand: action, sha256_a, sha256_b; none without a file.

    Raises
    ------
    InputError
        When the file lacks a column or names another action.
    """
    empty = pd.DataFrame(columns=["action", "sha256_a", "sha256_b"])
    if not path or not from_root(path).exists():
        return empty
    try:
        table = pd.read_csv(from_root(path), dtype=str)
        table = table[["action", "sha256_a", "sha256_b"]]
    except (KeyError, ValueError) as error:
        raise InputError(
            f"The corrections {Path(path).name} need the columns action, sha256_a, sha256_b ({error})."
        ) from None
    bad = set(table["action"]) - {"join", "separate"}
    if bad:
        raise InputError(f"The corrections {Path(path).name} name the action {bad.pop()!r}: write join or separate.")
    return table[table["sha256_a"].isin(known) & table["sha256_b"].isin(known)].reset_index(drop=True)


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Leave the cores to the pool of workers: OpenCV and BLAS start no threads of their own meanwhile."""
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        with threadpool_limits(1):
            yield
    finally:
        cv2.setNumThreads(before)


# --- verification: are two pictures one source? -------------------------------------------------------


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


def _verify(pictures: _Rows, shas: np.ndarray, pairs: np.ndarray, apart: list[tuple[int, int]]) -> list[dict[str, Any]]:
    """Return the evidence of every pair that is joined or doubtful; pairs already joined are skipped."""
    forest, found = _Forest(len(pictures), apart), []
    points, descriptors, counts = _local_features(pictures, shas)

    def check(job: tuple[np.ndarray, np.ndarray]) -> dict[str, Any]:
        (i, j), promising = job[0].tolist(), job[1]
        a = (points[i, : counts[i]], descriptors[i, : counts[i]])
        b = (points[j, : counts[j]], descriptors[j, : counts[j]])
        return _compare(pictures[i], a, pictures[j], b, promising) | {"i": i, "j": j}

    blocks = tqdm(range(0, len(pairs), 256), "comparing", mininterval=1, leave=False, unit="block")
    with _one_thread_each(), ThreadPoolExecutor(cpu_count()) as pool:
        for start in blocks:
            todo = np.array([p for p in pairs[start : start + 256] if forest.find(p[0]) != forest.find(p[1])])
            parts = [todo[at : at + 32] for at in range(0, len(todo), 32)]
            promising = [*pool.map(lambda part: _find_promising(descriptors, part), parts)]
            jobs = [
                job for part in zip(parts, promising, strict=True) for job in zip(*part, strict=True) if job[1].any()
            ]
            for evidence in pool.map(check, jobs):
                if evidence["correlation"] >= DOUBTFUL_CORRELATION:
                    evidence["sure"] = _is_sure(evidence)
                    evidence["joined"] = evidence["sure"] and forest.join(evidence["i"], evidence["j"])
                    found.append(evidence)
            release(descriptors)
            release(pictures.array)
    return [e for e in found if e["joined"] or forest.find(e["i"]) != forest.find(e["j"])]


def _is_sure(evidence: dict[str, Any]) -> bool:
    """Whether the correlation is high enough for how many points say so.

    Saturated or cropped copies correlate less but share many points; plain limbs of two people can be aligned by
    a few points on their outlines and then look alike.
    """
    needed = next(correlation for points, correlation in _NEEDED if evidence["inliers"] >= points)
    return evidence["correlation"] >= needed


def _local_features(pictures: _Rows, shas: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return SIFT points (n, 300, 2), root descriptors as uint8 (n, 300, 128), both on disk, and counts (n,)."""
    name = f"sift-{hash_of(_VERSION, shas.tolist())}"
    names = {part: f"{name}-{part}" for part in ("points", "descriptors", "counts")}
    known = [read_array(name) for name in names.values()]
    if any(array is None for array in known):
        n = len(pictures)
        with (
            new_array(names["points"], (n, _POINTS, 2), np.float32) as points,
            new_array(names["descriptors"], (n, _POINTS, 128), np.uint8) as descriptors,
            new_array(names["counts"], (n,), np.int32) as counts,
        ):
            _fill_local_features(pictures, points, descriptors, counts)
        known = [read_array(name) for name in names.values()]
    return tuple(known)


def _fill_local_features(pictures: _Rows, points: np.ndarray, descriptors: np.ndarray, counts: np.ndarray) -> None:
    def fill(indices: range) -> None:
        detectors = [cv2.SIFT_create(_POINTS, contrastThreshold=threshold) for threshold in (0.02, 0.004)]
        clahe = cv2.createCLAHE(3, (8, 8))
        for i in indices:
            picture = clahe.apply(pictures[i])
            for detector in detectors:  # the second, keener one for plain pictures
                keypoints, found = detector.detectAndCompute(picture, None)
                if len(keypoints) >= _FEW_POINTS:
                    break
            if found is None:
                continue
            k = min(_POINTS, len(keypoints))
            strongest = np.argsort([-point.response for point in keypoints], kind="stable")[:k]
            keypoints, found = [keypoints[j] for j in strongest], found[strongest]
            rooted = np.sqrt(found[:k] / (found[:k].sum(axis=1, keepdims=True) + 1e-7))  # RootSIFT
            descriptors[i, :k] = np.minimum(np.round(rooted * 512), 255)
            points[i, :k] = [point.pt for point in keypoints[:k]]
            counts[i] = k

    blocks = [range(a, min(a + 64, len(pictures))) for a in range(0, len(pictures), 64)]
    with _one_thread_each(), ThreadPoolExecutor(cpu_count()) as pool:
        for _ in tqdm(pool.map(fill, blocks), "local features", len(blocks), mininterval=1, leave=False):
            release(descriptors)
            release(pictures.array)


_MIRRORED_BINS = np.array([(-i) % 8 for i in range(8)])


def _mirror(points: np.ndarray, descriptors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the local features of the mirrored picture."""
    return points * np.float32([-1, 1]) + np.float32([SIDE - 1, 0]), _mirror_descriptors(descriptors)


def _mirror_descriptors(descriptors: np.ndarray) -> np.ndarray:
    """Permute SIFT's cells and angles (last axis, 128) as if the picture had been mirrored."""
    cells = descriptors.reshape(*descriptors.shape[:-1], 4, 4, 8)[..., ::-1, :, :][..., _MIRRORED_BINS]
    return cells.reshape(descriptors.shape)


def _compare(x: np.ndarray, a: tuple, y: np.ndarray, b: tuple, promising: np.ndarray) -> dict[str, Any]:
    """Return inliers, correlation, mirrored and transform of the better of x and mirrored x onto y."""
    best: tuple[int, np.ndarray | None, bool] = (0, None, False)
    for mirrored in np.flatnonzero(promising):
        inliers, transform = _fit(_mirror(*a) if mirrored else a, b)
        if inliers > best[0]:
            best = (inliers, transform, bool(mirrored))
        if inliers >= 25:
            break
    inliers, transform, mirrored = best
    correlation = 0.0
    if inliers >= MIN_INLIERS and transform is not None:
        source, target = np.ascontiguousarray(x[:, ::-1]) if mirrored else np.asarray(x), np.asarray(y)
        correlation = _local_correlation(source, target, transform)
        if MAYBE_CORRELATION <= correlation < MIN_CORRELATION:  # the points may be right and the map still rough
            finer = _refine(source, target, transform)
            correlation = max(correlation, _local_correlation(source, target, finer))
    return {"inliers": inliers, "correlation": correlation, "mirrored": mirrored, "transform": transform}


def _refine(x: np.ndarray, y: np.ndarray, transform: np.ndarray) -> np.ndarray:
    """Return the map of x onto y after some steps of enhanced correlation (Evangelidis and Psarakis 2008)."""
    inverse = cv2.invertAffineTransform(transform).astype(np.float32)
    stop = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 30, 1e-4)
    inside = cv2.erode(((y > 2) * 255).astype(np.uint8), np.ones((5, 5), np.uint8))
    try:
        _, inverse = cv2.findTransformECC(y, x, inverse, cv2.MOTION_AFFINE, stop, inside, 5)
    except cv2.error:  # it does not converge: the rough map stands
        return transform
    return cv2.invertAffineTransform(inverse)


def _find_promising(descriptors: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """Return for each pair (n, 2), as it is and mirrored, whether enough of the strongest points match clearly.

    A pair of one source passes, most others do not; many pairs at once, for they are many.
    """
    a, b = (descriptors[pairs[:, side], :_STRONGEST].astype(np.float32) / 512 for side in (0, 1))
    promising = np.empty((len(pairs), 2), bool)
    for mirrored in (0, 1):
        likeness = (_mirror_descriptors(a) if mirrored else a) @ b.transpose(0, 2, 1)
        top = likeness.max(axis=2)
        likeness[likeness == top[..., None]] = -1
        clear = 1 - top < _RATIO**2 * (1 - likeness.max(axis=2))
        promising[:, mirrored] = clear.sum(axis=1) >= _PROMISING
    return promising


def _fit(a: tuple[np.ndarray, np.ndarray], b: tuple[np.ndarray, np.ndarray]) -> tuple[int, np.ndarray | None]:
    """Return how many distinct points one affine map explains, and the map; none where it is implausible."""
    (points_a, features_a), (points_b, features_b) = a, b
    likeness = (features_a.astype(np.float32) @ features_b.astype(np.float32).T) / 512**2
    rows = np.arange(len(likeness))
    match = likeness.argmax(axis=1)
    top = likeness[rows, match].copy()
    likeness[rows, match] = -1
    clear = 1 - top < _RATIO**2 * (1 - likeness.max(axis=1))
    from_a, to_b = points_a[clear], points_b[match[clear]]
    if len(from_a) < MIN_INLIERS:
        return 0, None
    transform, mask = cv2.estimateAffine2D(
        from_a, to_b, method=cv2.RANSAC, ransacReprojThreshold=_REPROJECTION, maxIters=500, confidence=0.99
    )
    if transform is None:
        return 0, None
    large, small = np.linalg.svd(transform[:, :2], compute_uv=False)
    if small < 0.4 or large > 2.5 or large > 2 * small:  # a collapse, a wild zoom, a wild shear
        return 0, None
    kept = mask.ravel() > 0
    if not kept.any():
        return 0, None
    spread = min(np.ptp(side[kept], axis=0).max() for side in (from_a, to_b))
    if spread < MIN_EXTENT * SIDE:
        return 0, None
    return min(len(np.unique(np.round(side[kept]), axis=0)) for side in (from_a, to_b)), transform


def _local_correlation(x: np.ndarray, y: np.ndarray, transform: np.ndarray, window: int = 21) -> float:
    """Mean normalised correlation in windows of x, mapped onto y, over the textured part of the overlap."""

    def mean(image: np.ndarray) -> np.ndarray:
        return cv2.boxFilter(image, -1, (window, window))

    mapped = cv2.GaussianBlur(cv2.warpAffine(x, transform, (SIDE, SIDE)), (0, 0), 1).astype(np.float32)
    y = cv2.GaussianBlur(y, (0, 0), 1).astype(np.float32)
    outside = cv2.dilate(((mapped < 2) | (y < 2)).astype(np.uint8), np.ones((window // 2,) * 2, np.uint8)) > 0
    mean_x, mean_y = mean(mapped), mean(y)
    var_x, var_y = mean(mapped * mapped) - mean_x**2, mean(y * y) - mean_y**2
    textured = (var_x > 9) & (var_y > 9) & ~outside
    if textured.sum() < 300:
        return 0.0
    covariance = (mean(mapped * y) - mean_x * mean_y)[textured]
    return float((covariance / np.sqrt(var_x[textured] * var_y[textured])).mean())


# --- links and groups ---------------------------------------------------------------------------------


def _describe_links(
    known: pd.DataFrame, first: pd.DataFrame, picture: np.ndarray, order: np.ndarray, found: list, wishes: pd.DataFrame
) -> pd.DataFrame:
    shas, paths = first["sha256"].to_numpy(), first["path"].to_numpy()
    by_sha = dict(zip(shas, paths, strict=True))
    copies = known[known.duplicated("sha256")]
    same = [("equal bytes", by_sha[row.sha256], row.sha256, row.path, row.sha256) for row in copies.itertuples()]
    twins = [(order[number], i) for i, number in enumerate(picture) if order[number] != i]
    same += [("equal pixels", paths[a], shas[a], paths[b], shas[b]) for a, b in twins]
    rows = [
        {"kind": kind, "path_a": path_a, "sha256_a": sha_a, "path_b": path_b, "sha256_b": sha_b,
         "decision": "joined", "correlation": 1.0, "mirrored": False}
        for kind, path_a, sha_a, path_b, sha_b in same
    ]  # fmt: skip
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
                "transform": " ".join(f"{v:.3f}" for v in evidence["transform"].ravel()),
                "sha256_a": shas[a],
                "sha256_b": shas[b],
            }
        )
    for wish in wishes.itertuples():
        decision = "joined" if wish.action == "join" else "separated"
        rows.append({"path_a": by_sha[wish.sha256_a], "path_b": by_sha[wish.sha256_b], "kind": "correction",
                     "decision": decision, "sha256_a": wish.sha256_a, "sha256_b": wish.sha256_b})  # fmt: skip
    table = pd.DataFrame(rows, columns=list(LINK_COLUMNS))
    apart = {frozenset((w.sha256_a, w.sha256_b)) for w in wishes.itertuples() if w.action == "separate"}
    separated = [frozenset(pair) in apart for pair in zip(table["sha256_a"], table["sha256_b"], strict=True)]
    table.loc[separated, "decision"] = "separated"
    return table.sort_values(["decision", "kind", "path_a", "path_b"], ignore_index=True)


def _group(manifest: pd.DataFrame, first: pd.DataFrame, links: pd.DataFrame) -> pd.Series:
    number = {sha: i for i, sha in enumerate(first["sha256"])}
    joined = links[links["decision"] == "joined"]
    ends = [joined[column].map(number).to_numpy(int) for column in ("sha256_a", "sha256_b")]
    graph = coo_matrix((np.ones(len(joined)), ends), shape=(len(first),) * 2)
    component = connected_components(graph, directed=False)[1]
    group = manifest["sha256"].map(lambda sha: component[number[sha]], na_action="ignore")
    return manifest.groupby(group)["path"].transform("min").astype("string")


# --- what follows from groups -------------------------------------------------------------------------


def find_label_conflicts(manifest: pd.DataFrame) -> pd.DataFrame:
    """Return the source groups whose files carry both labels: source_group, files, labels, paths (three)."""
    rows = []
    for name, group in manifest.dropna(subset=["source_group", "label"]).groupby("source_group"):
        if len(set(group["label"])) > 1:
            counts = group["label"].value_counts().sort_index()
            rows.append(
                {
                    "source_group": name,
                    "files": len(group),
                    "labels": ", ".join(f"{count} {label}" for label, count in counts.items()),
                    "paths": ", ".join(group.drop_duplicates("label")["path"]),
                }
            )
    return pd.DataFrame(rows, columns=["source_group", "files", "labels", "paths"])


def iterate_groups(manifest: pd.DataFrame, minimum: int = 2) -> Iterator[pd.DataFrame]:
    """Yield the rows of each source group of at least `minimum` files, the largest first."""
    sizes = manifest.groupby("source_group").size().sort_values(ascending=False, kind="stable")
    for name in sizes.index[sizes >= minimum]:
        yield manifest[manifest["source_group"] == name]
