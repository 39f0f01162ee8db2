import numpy as np
import pytest

from xray_helpers.same_source.candidates import propose_pairs


def test_proposed_pairs_are_the_nearest_neighbours_best_first():
    rng = np.random.default_rng(1)
    n = 2_000  # more than a block, and so many that only ten neighbours are taken
    signatures = []
    for _ in range(2):
        rows = rng.normal(size=(n, 8)).astype(np.float32)
        signatures.append(rows / np.linalg.norm(rows, axis=1, keepdims=True))
    best = {}
    for rows in signatures:
        likeness = rows @ rows.T
        np.fill_diagonal(likeness, -2)
        for i in range(n):
            for j in np.argsort(-likeness[i])[:10]:
                pair = (min(i, j), max(i, j))
                best[pair] = max(best.get(pair, -2), likeness[i, j])
    pairs = propose_pairs(signatures)
    assert {tuple(pair) for pair in pairs.tolist()} == set(best)
    values = np.array([best[tuple(pair)] for pair in pairs.tolist()])
    assert (np.diff(values) < 2e-5).all()


def test_neighbours_among_many_pictures_are_looked_for_in_little_memory():
    rows = np.random.default_rng(2).normal(size=(60_000, 2)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    sizes = []

    class Watched(np.ndarray):
        def __matmul__(self, other):
            sizes.append(len(self) * other.shape[1])
            if len(sizes) > 3:
                raise InterruptedError
            return np.asarray(self) @ np.asarray(other)

    with pytest.raises(InterruptedError):
        propose_pairs([rows.view(Watched)])
    assert (
        max(sizes) <= 25_000_000
    )  # 0.1 GB; a thousand rows at a time would be 0.24, at 100,000 pictures 0.4


def test_a_single_picture_has_no_pairs():
    assert propose_pairs([np.ones((1, 4), np.float32)]).shape == (0, 2)
