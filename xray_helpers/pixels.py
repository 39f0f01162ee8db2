"""The decoded, resized pictures of a study, made once; and their augmented views."""

import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from tqdm import tqdm

from xray_helpers.cache import new_array, read_array, release
from xray_helpers.radiographs import read_radiograph
from xray_helpers.studies import hash_of

_CHUNK, _AHEAD = 64, 4  # pictures, and how many chunks decoding may run ahead
ROTATION, SHIFT, SHEAR, ZOOM = 15.0, 0.10, 0.10, 0.10  # degrees; shares of the side


def resize(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Stretch a (height, width) uint8 picture to `size`; shrinking averages, so nothing aliases."""
    shrinks = pixels.shape[0] > size[0] or pixels.shape[1] > size[1]
    return cv2.resize(pixels, size[::-1], interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


def stream_pixels(part: pd.DataFrame, folder: Path, size: tuple[int, int]) -> Iterator[tuple[int, np.ndarray]]:
    """Yield the pictures of the rows of a manifest in chunks, as they are decoded or from the cache.

    The first time, decoding runs ahead on its own threads while the caller computes; after the last chunk all
    pictures are in the cache. Memory does not grow with their number.

    Parameters
    ----------
    part : DataFrame
        With path and sha256.
    folder : Path
        What the paths are relative to.
    size : (int, int)
        Height and width.

    Yields
    ------
    start : int
        Row of the first picture of the chunk.
    pictures : ndarray of uint8, shape (up to 64, height, width), 0-255
    """
    name = _cache_name(part, size)
    known = read_array(name)
    starts = range(0, len(part), _CHUNK)
    if known is not None:
        for start in starts:
            yield start, known[start : start + _CHUNK]
            release(known)
        return
    paths = [folder / path for path in part["path"]]

    def decode(path: Path) -> np.ndarray:
        return resize(read_radiograph(path).pixels, size)

    with new_array(name, (len(part), *size), np.uint8) as store, ThreadPoolExecutor(os.cpu_count()) as pool:
        ahead: deque[tuple[int, list[Future]]] = deque()

        def take() -> tuple[int, np.ndarray]:
            start, jobs = ahead.popleft()
            chunk = np.stack([job.result() for job in jobs])
            store[start : start + len(chunk)] = chunk
            release(store)
            return start, chunk

        for start in starts:
            ahead.append((start, [pool.submit(decode, path) for path in paths[start : start + _CHUNK]]))
            if len(ahead) > _AHEAD:
                yield take()
        while ahead:
            yield take()


def load_pixels(part: pd.DataFrame, folder: Path, size: tuple[int, int]) -> np.ndarray:
    """Return the pictures of the rows of a manifest, decoded the first time, then read from the cache.

    Parameters
    ----------
    part, folder, size
        As for `stream_pixels`.

    Returns
    -------
    ndarray of uint8, shape (n, height, width), 0-255; memory-mapped, in the order of `part`
    """
    name = _cache_name(part, size)
    known = read_array(name)
    if known is None:
        chunks = tqdm(
            stream_pixels(part, folder, size),
            "decoding",
            len(part) // _CHUNK + 1,
            mininterval=1,
            leave=False,
            unit="chunk",
        )
        deque(chunks, maxlen=0)
        known = read_array(name)
    assert known is not None
    return known


def _cache_name(part: pd.DataFrame, size: tuple[int, int]) -> str:
    return f"pixels-{hash_of('pixels', list(part['sha256']), size)}"


def augment(pixels: np.ndarray, seed: int, first: int = 0) -> np.ndarray:
    """Return one randomly moved view of each picture.

    Rotation to 15 degrees, shifts, shear and zoom to 10 %, and a horizontal flip half of the time; what
    moves in from outside repeats the edge. View `seed` of a picture depends on its row and `seed` alone.

    Parameters
    ----------
    pixels : ndarray of uint8, shape (n, height, width)
    seed : int
    first : int
        Row of the first picture.

    Returns
    -------
    ndarray of uint8, shape (n, height, width)
    """
    views = np.empty_like(pixels)
    height, width = pixels.shape[1:]
    centre = np.array([(width - 1) / 2, (height - 1) / 2])
    for index, picture in enumerate(pixels):
        rng = np.random.default_rng([seed, first + index, 1])
        turn, shear = np.radians(rng.uniform(-ROTATION, ROTATION)), rng.uniform(-SHEAR, SHEAR)
        zoom, flip = rng.uniform(1 - ZOOM, 1 + ZOOM, 2), rng.choice([-1.0, 1.0])
        shift = rng.uniform(-SHIFT, SHIFT, 2) * (width, height)
        cos, sin = np.cos(turn), np.sin(turn)
        matrix = np.array([[cos, -sin], [sin, cos]]) @ np.array([[1, shear], [0, 1]]) @ np.diag(zoom * (flip, 1))
        affine = np.column_stack([matrix, centre + shift - matrix @ centre])
        views[index] = cv2.warpAffine(
            picture, affine, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
    return views
