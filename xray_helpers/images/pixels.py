"""The decoded, resized pictures of a study, made once; and their augmented views."""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from tqdm import tqdm

from xray_helpers.images.radiographs import ImageFolder, image_folder
from xray_helpers.settings import InputError
from xray_helpers.study.cache import RowView, new_rows, read_rows, release
from xray_helpers.study.files import hash_of
from xray_helpers.study.machine import cores

VERSION = 4  # of the cached pixels: raise it when they are read or resized differently
_CHUNK, _AHEAD = 64, 4  # pictures, and how many chunks decoding may run ahead
ROTATION, SHIFT, SHEAR, ZOOM = 15.0, 0.10, 0.10, 0.10  # degrees; shares of the side


def resize(pixels: np.ndarray, size: tuple[int, int], way: str = "stretch") -> np.ndarray:
    """Stretch a (height, width) uint8 picture to `size`, or ``pad`` it on black; shrinking averages, so
    nothing aliases.
    """
    if way == "pad":
        top, left, *inner = find_inner(pixels.shape, size)
        padded = np.zeros(size, np.uint8)
        padded[top : top + inner[0], left : left + inner[1]] = resize(pixels, (inner[0], inner[1]))
        return padded
    shrinks = pixels.shape[0] > size[0] or pixels.shape[1] > size[1]
    return cv2.resize(pixels, size[::-1], interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


def find_inner(shape: tuple[int, int], size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Return where a (height, width) picture lies in `size` once it is padded: top, left, height, width."""
    scale = min(size[0] / shape[0], size[1] / shape[1])
    height, width = (max(1, round(side * scale)) for side in shape)
    return (size[0] - height) // 2, (size[1] - width) // 2, height, width


def stream_pixels(
    part: pd.DataFrame, folder: ImageFolder | Path, size: tuple[int, int]
) -> Iterator[np.ndarray]:
    """Yield the pictures of the rows of a manifest in chunks, as they are decoded or from the cache.

    The first time, decoding runs ahead on its own threads while the caller computes; after the last chunk all
    pictures are in the cache. Memory does not grow with their number.

    Parameters
    ----------
    part : DataFrame
        With path and sha256, each content once, sorted by sha256.
    folder : ImageFolder or Path
        What the paths are relative to, and how they are read.
    size : (int, int)
        Height and width.

    Yields
    ------
    ndarray of uint8, shape (up to 64, height, width), 0-255
    """
    folder = image_folder(folder)
    kind = _kind(folder, size)
    known = read_rows(kind, part["sha256"])
    if known is not None:
        for start in range(0, len(part), _CHUNK):
            yield known[start : start + _CHUNK]
            release(known.array)
        return

    def decode(path: str, sha: str) -> np.ndarray:
        picture = folder.read(path)
        if picture.sha256 != sha:
            raise InputError(
                f"{path} is not the file that 01 read: run the study again, which the same command does."
            )
        return resize(picture.pixels, size, folder.resize)

    with (
        new_rows(kind, part["sha256"], size, np.uint8) as (store, missing),
        ThreadPoolExecutor(cores()) as pool,
    ):
        new = set(missing.tolist())
        ahead: deque[tuple[int, dict]] = deque()
        for start in range(0, len(part) + _AHEAD * _CHUNK, _CHUNK):
            rows = range(start, min(start + _CHUNK, len(part)))
            listed = part.iloc[start : rows.stop]
            files = zip(rows, listed["path"], listed["sha256"], strict=True)
            ahead.append(
                (start, {row: pool.submit(decode, path, sha) for row, path, sha in files if row in new})
            )
            if len(ahead) > _AHEAD:
                first, jobs = ahead.popleft()
                for row, job in jobs.items():
                    store[row] = job.result()
                yield np.array(store[first : first + _CHUNK])
                release(store)


def load_pixels(part: pd.DataFrame, folder: ImageFolder | Path, size: tuple[int, int]) -> RowView:
    """Return the pictures of the rows of a manifest, decoded the first time, then read from the cache.

    Parameters
    ----------
    part : DataFrame
        With path and sha256.
    folder, size
        As for `stream_pixels`.

    Returns
    -------
    Rows of uint8, shape (n, height, width), 0-255; memory-mapped, in the order of `part`
    """
    kind = _kind(image_folder(folder), size)
    while (known := read_rows(kind, part["sha256"])) is None:
        contents = unique_contents(part)
        chunks = stream_pixels(contents, folder, size)
        total = -(-len(contents) // _CHUNK)
        deque(tqdm(chunks, "decoding", total, mininterval=1, leave=False, unit="chunk"), maxlen=0)
    return known


def unique_contents(part: pd.DataFrame) -> pd.DataFrame:
    """Return one row a content, sorted by sha256: the order of rows in the cache."""
    return part.sort_values(["sha256", "path"]).drop_duplicates("sha256")


def _kind(folder: ImageFolder, size: tuple[int, int]) -> str:
    return f"pixels-{hash_of('pixels', VERSION, size, folder.depth, folder.resize, folder.truncated)}"


def augment(pixels: np.ndarray, contents: Sequence[str], view: int) -> np.ndarray:
    """Return one randomly moved view of each picture.

    Rotation to 15 degrees, shifts, shear and zoom to 10 %, and a horizontal flip half of the time; what
    moves in from outside repeats the edge. A view depends on the picture's content and the view's number
    alone.

    Parameters
    ----------
    pixels : ndarray of uint8, shape (n, height, width)
    contents : sequence of str
        The sha256 of each picture.
    view : int

    Returns
    -------
    ndarray of uint8, shape (n, height, width)
    """
    views = np.empty_like(pixels)
    height, width = pixels.shape[1:]
    centre = np.array([(width - 1) / 2, (height - 1) / 2])
    for index, (picture, content) in enumerate(zip(pixels, contents, strict=True)):
        rng = np.random.default_rng([view, int(hash_of(content), 16)])
        turn, shear = np.radians(rng.uniform(-ROTATION, ROTATION)), rng.uniform(-SHEAR, SHEAR)
        zoom, flip = rng.uniform(1 - ZOOM, 1 + ZOOM, 2), rng.choice([-1.0, 1.0])
        shift = rng.uniform(-SHIFT, SHIFT, 2) * (width, height)
        cos, sin = np.cos(turn), np.sin(turn)
        matrix = (
            np.array([[cos, -sin], [sin, cos]]) @ np.array([[1, shear], [0, 1]]) @ np.diag(zoom * (flip, 1))
        )
        affine = np.column_stack([matrix, centre + shift - matrix @ centre])
        views[index] = cv2.warpAffine(
            picture, affine, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
    return views
