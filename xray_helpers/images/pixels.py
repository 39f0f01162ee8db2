"""The decoded and resized pictures of a study, cached, and their augmented views."""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from xray_helpers.images.radiographs import ImageFolder, image_folder
from xray_helpers.settings import InputError
from xray_helpers.study.cache import RowView, new_rows, read_rows, release
from xray_helpers.study.files import hash_of
from xray_helpers.study.machine import cores
from xray_helpers.study.progress import progress

VERSION = 4  # of the cached pixels: raise it when they are read or resized differently
_CHUNK, _AHEAD = 64, 4  # pictures per chunk, and chunks that are decoded ahead
ROTATION, SHIFT, SHEAR, ZOOM = 15.0, 0.10, 0.10, 0.10  # degrees; the others are shares of the side


def resize(pixels: np.ndarray, size: tuple[int, int], way: str = "stretch") -> np.ndarray:
    """Stretch a (height, width) uint8 picture to `size`, or ``pad`` it on black, without aliasing."""
    if way == "pad":
        top, left, height, width = find_padded_area(pixels.shape, size)
        padded = np.zeros(size, np.uint8)
        padded[top : top + height, left : left + width] = resize(pixels, (height, width))
        return padded
    shrinks = pixels.shape[0] > size[0] or pixels.shape[1] > size[1]
    return cv2.resize(pixels, size[::-1], interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


def find_padded_area(shape: tuple[int, int], size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Return top, left, height and width of a picture of this shape when it is padded to `size`."""
    scale = min(size[0] / shape[0], size[1] / shape[1])
    height, width = (max(1, round(side * scale)) for side in shape)
    return (size[0] - height) // 2, (size[1] - width) // 2, height, width


def stream_pixels(
    part: pd.DataFrame, folder: ImageFolder | Path, size: tuple[int, int]
) -> Iterator[np.ndarray]:
    """Yield the pictures of a manifest's rows in chunks, from the cache or as they are decoded.

    Decoding runs ahead in threads while the caller computes. After the last chunk, all pictures are in the
    cache. Memory does not grow with their number.

    Parameters
    ----------
    part : DataFrame
        Columns path and sha256; each content once, sorted by sha256 (`unique_contents`).
    folder : ImageFolder or Path
        What the paths are relative to, and how files are read.
    size : (int, int)
        Height and width.

    Yields
    ------
    ndarray of uint8, shape (up to 64, height, width), 0-255
    """
    folder = image_folder(folder)
    kind = _cache_kind(folder, size)
    chunks = [slice(start, start + _CHUNK) for start in range(0, len(part), _CHUNK)]
    cached = read_rows(kind, part["sha256"])
    if cached is not None:
        for chunk in chunks:
            yield cached[chunk]
            release(cached.array)
        return

    paths, hashes = part["path"].to_list(), part["sha256"].to_list()

    def decode(row: int) -> np.ndarray:
        picture = folder.read(paths[row])
        if picture.sha256 != hashes[row]:
            raise InputError(
                f"{paths[row]} is not the file that 01 read: run the study again, which the same command "
                "does."
            )
        return resize(picture.pixels, size, folder.resize)

    with (
        new_rows(kind, part["sha256"], size, np.uint8) as (store, missing),
        ThreadPoolExecutor(cores()) as pool,
    ):
        missing = set(missing.tolist())
        jobs: deque[dict] = deque()
        for position in range(len(chunks) + _AHEAD):
            if position < len(chunks):
                rows = range(len(part))[chunks[position]]
                jobs.append({row: pool.submit(decode, row) for row in rows if row in missing})
            if position >= _AHEAD:
                for row, job in jobs.popleft().items():
                    store[row] = job.result()
                yield np.array(store[chunks[position - _AHEAD]])
                release(store)


def load_pixels(part: pd.DataFrame, folder: ImageFolder | Path, size: tuple[int, int]) -> RowView:
    """Return the pictures of a manifest's rows, decoded the first time, then read from the cache.

    Parameters
    ----------
    part : DataFrame
        Columns path and sha256.
    folder, size
        As for `stream_pixels`.

    Returns
    -------
    RowView of uint8, shape (n, height, width), 0-255
        Memory-mapped, in the order of `part`.
    """
    kind = _cache_kind(image_folder(folder), size)
    while (cached := read_rows(kind, part["sha256"])) is None:
        contents = unique_contents(part)
        chunks = stream_pixels(contents, folder, size)
        total = -(-len(contents) // _CHUNK)
        options = {"mininterval": 1, "leave": False, "unit": "chunk", "disable": not total}
        deque(progress(chunks, "decoding", total, **options), maxlen=0)
    return cached


def unique_contents(part: pd.DataFrame) -> pd.DataFrame:
    """Return one row per content, sorted by sha256: the order of rows in the cache."""
    return part.sort_values(["sha256", "path"]).drop_duplicates("sha256")


def _cache_kind(folder: ImageFolder, size: tuple[int, int]) -> str:
    return f"pixels-{hash_of('pixels', VERSION, size, folder.depth, folder.resize, folder.truncated)}"


def augment(pixels: np.ndarray, contents: Sequence[str], view: int) -> np.ndarray:
    """Return one randomly transformed view of each picture.

    Rotation up to 15 degrees, shifts, shear and zoom up to 10 %, and a horizontal flip half of the time.
    Areas outside the picture repeat its edge. A view depends only on the picture's content and on `view`.

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
    for index, (picture, content) in enumerate(zip(pixels, contents, strict=True)):
        affine = find_view(content, view, (height, width))
        views[index] = cv2.warpAffine(
            picture, affine, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
    return views


def find_view(content: str, view: int, size: tuple[int, int]) -> np.ndarray:
    """Return the matrix, shape (2, 3), that takes centres of pixels of a picture to those of a view of it."""
    height, width = size
    centre = np.array([(width - 1) / 2, (height - 1) / 2])
    rng = np.random.default_rng([view, int(hash_of(content), 16)])
    turn, shear = np.radians(rng.uniform(-ROTATION, ROTATION)), rng.uniform(-SHEAR, SHEAR)
    zoom, flip = rng.uniform(1 - ZOOM, 1 + ZOOM, 2), rng.choice([-1.0, 1.0])
    shift = rng.uniform(-SHIFT, SHIFT, 2) * (width, height)
    cos, sin = np.cos(turn), np.sin(turn)
    matrix = np.array([[cos, -sin], [sin, cos]]) @ np.array([[1, shear], [0, 1]]) @ np.diag(zoom * (flip, 1))
    return np.column_stack([matrix, centre + shift - matrix @ centre])
