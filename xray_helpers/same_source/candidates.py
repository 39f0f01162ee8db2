"""Candidate pairs: nearest neighbours by signatures of whole pictures, and by any others given."""

from collections.abc import Callable

import cv2
import numpy as np
from scipy import fft, sparse

from xray_helpers.study.cache import RowView, new_rows, read_rows, release
from xray_helpers.study.files import hash_of
from xray_helpers.study.progress import progress

EMBED_SIDE = 96  # pixels at which pictures are embedded
NEIGHBOURS, MOST_NEIGHBOURS = 10, 18  # proposed per picture and signature; more in small sets
_MOST_SIMILARITIES = 25_000_000  # held at a time: 0.3 GB with the order of their columns
_VERSION = 7  # of the cached signatures
Embedder = Callable[[np.ndarray], np.ndarray]  # uint8 (n, side, side), 0-255 -> float (n, d)


def compute_signatures(
    pictures: RowView, shas: np.ndarray, embed: Embedder | None, key: str
) -> list[np.ndarray]:
    """Return matrices with one unit row per picture: of the network, and Fourier-Mellin.

    Those of the network outlast blur, noise and smaller copies; visual words (`words`) are invariant to more.

    Parameters
    ----------
    pictures : RowView of uint8, shape (n, side, side), 0-255
    shas : ndarray of str, shape (n,)
        SHA-256 under which each picture's signatures are cached, in rising order.
    embed : callable or None
        Without it, only Fourier-Mellin signatures are computed.
    key : str
        Names the embedder in the cache.
    """
    spectra = _unit(_cached(pictures, shas, "fourier-mellin", _fourier_mellin))
    if embed is None:
        return [spectra]
    raw = _cached(pictures, shas, f"embedding-{key}", lambda batch: embed(_shrink(batch)))
    return [_whiten(raw), spectra]


def _cached(
    pictures: RowView, shas: np.ndarray, name: str, compute: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray:
    """Return the rows of `compute` for each picture, computing only those whose content is new."""
    kind = f"signature-{hash_of(_VERSION, name)}"
    while (cached := read_rows(kind, shas)) is None:
        with new_rows(kind, shas, lambda: compute(pictures[:1]).shape[1:], np.float16) as (store, new):
            for start in progress(
                range(0, len(new), 64), "signatures", mininterval=1, leave=False, unit="batch"
            ):
                rows = new[start : start + 64]
                store[rows] = compute(pictures[rows])
                release(pictures.array)
    return np.asarray(cached)


def _shrink(batch: np.ndarray) -> np.ndarray:
    return np.stack([cv2.resize(x, (EMBED_SIDE, EMBED_SIDE), interpolation=cv2.INTER_AREA) for x in batch])


def _fourier_mellin(batch: np.ndarray) -> np.ndarray:
    """Return the spectrum of the log-polar spectrum (Reddy and Chatterji 1996).

    It is invariant to shift, rotation, zoom and mirroring.
    """
    side = 128
    window = np.outer(np.hanning(side), np.hanning(side)).astype(np.float32)
    out = []
    for picture in batch:
        small = cv2.resize(picture, (side, side), interpolation=cv2.INTER_AREA).astype(np.float32)
        spectrum = fft.fftshift(np.log1p(np.abs(fft.fft2((small - small.mean()) * window))))
        mode = cv2.INTER_LINEAR + cv2.WARP_POLAR_LOG
        polar = cv2.warpPolar(spectrum.astype(np.float32), (64, 180), (side / 2,) * 2, side / 2, mode)[:, 20:]
        full = np.abs(fft.fft2(polar - polar.mean(axis=0)))
        half = full[:45, :16]
        half[1:] += full[:-45:-1, :16]  # of the mirrored picture
        out.append(np.log1p(half).ravel())
    table = np.stack(out)
    return table - table.mean(axis=1, keepdims=True)


def sign_picture(picture: np.ndarray) -> np.ndarray:
    """Return the Fourier-Mellin signature of one picture, of length 1, as `compute_signatures` gives it.

    Parameters
    ----------
    picture : ndarray of uint8, shape (side, side), 0-255
    """
    return _unit(_fourier_mellin(picture[None]).astype(np.float16))[0]


def _unit(rows: np.ndarray) -> np.ndarray:
    rows = rows.astype(np.float32)  # the only copy: with 100,000 pictures there is no memory for more
    rows /= np.linalg.norm(rows, axis=1, keepdims=True) + 1e-9
    return rows


def _whiten(rows: np.ndarray) -> np.ndarray:
    """Rotate to principal axes of equal variance, so that what all radiographs share counts less."""
    rows = _unit(rows)
    rows -= rows.mean(axis=0)
    dimensions = max(1, min(256, len(rows) // 4, rows.shape[1]))
    values, vectors = np.linalg.eigh(rows.T @ rows / len(rows))
    kept = vectors[:, ::-1][:, :dimensions] / np.sqrt(values[::-1][:dimensions] + 1e-8)
    return _unit(rows @ kept)


def propose_pairs(signatures: list[np.ndarray | sparse.csr_matrix], block: int = 1000) -> np.ndarray:
    """Return pairs (i < j) of nearest neighbours, most similar first; exact, in blocks of rows."""
    n = signatures[0].shape[0]
    block = max(1, min(block, _MOST_SIMILARITIES // max(n, 1)))
    wanted = min(max(NEIGHBOURS, min(MOST_NEIGHBOURS, 15_000 // n)), n - 1)
    codes, values = [np.empty(0, np.int64)], [np.empty(0, np.float32)]
    for rows in signatures if wanted else []:
        for start in range(0, n, block):
            similarity = rows[start : start + block] @ rows.T
            if sparse.issparse(similarity):
                similarity = similarity.toarray()
            own = np.arange(len(similarity))
            similarity[own, start + own] = -2
            nearest = np.argpartition(similarity, n - wanted, axis=1)[:, n - wanted :]
            i, j = np.broadcast_arrays(start + own[:, None], nearest)
            codes.append((np.minimum(i, j) * n + np.maximum(i, j)).ravel())
            values.append(np.take_along_axis(similarity, nearest, axis=1).ravel())
    code, value = np.concatenate(codes), np.round(np.concatenate(values), 5)
    order = np.lexsort((code, -value))  # of repeated pairs the best comes first
    _, first = np.unique(code[order], return_index=True)
    return np.column_stack(np.divmod(code[order][np.sort(first)], max(n, 1)))
