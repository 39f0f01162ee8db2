"""Visual words: pictures that share many rare local features are candidates (Sivic and Zisserman 2003).

They find what is left of a picture in crops, on a canvas, mirrored, turned, or as a negative, where
signatures of the whole picture do not.
"""

import numpy as np
from scipy import sparse
from sklearn.cluster import KMeans

from xray_helpers.same_source.local_features import SCALE
from xray_helpers.study.cache import release

_SAMPLE, _CENTRES, _BLOCK = 10_000, 128, 512  # descriptors learned from; centres of each half; pictures


class Vocabulary:
    """Words learned from the descriptors of a set: pairs of centres, one for each half of a descriptor
    (the inverted multi-index of Babenko and Lempitsky 2012).

    Parameters
    ----------
    local : ndarray of `local_features.LOCAL`
    """

    def __init__(self, local: np.ndarray) -> None:
        rng = np.random.default_rng(0)
        rows = np.sort(rng.permutation(len(local))[: _SAMPLE // 20])
        sample, _ = _features(local[rows])
        sample = sample[rng.permutation(len(sample))[:_SAMPLE]]
        self._mean = sample.mean(axis=0) if len(sample) else np.zeros(128, np.float32)
        _, axes = np.linalg.eigh(np.cov((sample - self._mean).T) if len(sample) > 1 else np.eye(128))
        axes = axes[:, ::-1][:, :64].astype(np.float32)
        self._axes = np.concatenate([axes[:, ::2], axes[:, 1::2]], axis=1)
        halves = np.split((sample - self._mean) @ self._axes, 2, axis=1)
        fewest = min(_CENTRES, max(1, len(sample) // 20))
        self._centres = [
            KMeans(fewest, n_init=1, max_iter=8, random_state=0).fit(half).cluster_centers_
            if len(half)
            else np.zeros((1, 32), np.float32)
            for half in halves
        ]
        counts = self._count(local)
        shared = np.bincount(counts.indices, minlength=counts.shape[1])
        self._weights = np.log((len(local) + 1) / np.maximum(shared, 1)).astype(np.float32)
        self.rows = self._weigh(counts)

    def __call__(self, local: np.ndarray) -> sparse.csr_matrix:
        """Return one row per picture, of length 1: roots of its counts of words, weighted by rarity."""
        return self._weigh(self._count(local))

    def _count(self, local: np.ndarray) -> sparse.csr_matrix:
        size = len(self._centres[0])
        blocks = []
        for start in range(0, len(local), _BLOCK):
            found, picture = _features(local[start : start + _BLOCK])
            halves = np.split((found - self._mean) @ self._axes, 2, axis=1)
            first, second = (
                (half @ centres.T - 0.5 * (centres**2).sum(axis=1)).argmax(axis=1)
                for half, centres in zip(halves, self._centres, strict=True)
            )
            n = min(_BLOCK, len(local) - start)
            ones = np.ones(len(found), np.float32)
            blocks.append(sparse.csr_matrix((ones, (picture, first * size + second)), (n, size * size)))
            release(local)
        counts = sparse.vstack(blocks, "csr")
        counts.sum_duplicates()
        return counts

    def _weigh(self, counts: sparse.csr_matrix) -> sparse.csr_matrix:
        weighted = counts.sqrt().multiply(self._weights).tocsr()
        lengths = np.sqrt(np.asarray(weighted.multiply(weighted).sum(axis=1)).ravel())
        return (sparse.diags_array(1 / np.maximum(lengths, 1e-9)) @ weighted).tocsr().astype(np.float32)


def _features(local: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return all descriptors, alike in mirrored and negative pictures, and the picture of each."""
    descriptors = local["descriptors"]
    picture, row = np.nonzero(descriptors.any(axis=2))
    return np.abs(descriptors[picture, row].astype(np.float32)) / SCALE, picture
