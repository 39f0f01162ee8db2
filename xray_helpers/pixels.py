"""The decoded, resized pictures of a study, made once; and their augmented views."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from tqdm import tqdm

from xray_helpers.cache import cached_array, release
from xray_helpers.radiographs import read_radiograph
from xray_helpers.studies import hash_of

ROTATION, SHIFT, SHEAR, ZOOM = 15.0, 0.10, 0.10, 0.10  # degrees; shares of the side


def resize(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Stretch a (height, width) uint8 picture to `size`; shrinking averages, so nothing aliases."""
    shrinks = pixels.shape[0] > size[0] or pixels.shape[1] > size[1]
    return cv2.resize(pixels, size[::-1], interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


def load_pixels(part: pd.DataFrame, folder: Path, size: tuple[int, int]) -> np.ndarray:
    """Return the pictures of the rows of a manifest, decoded the first time, then read from the cache.

    Parameters
    ----------
    part : DataFrame
        With path and sha256.
    folder : Path
        What the paths are relative to.
    size : (int, int)
        Height and width.

    Returns
    -------
    ndarray of uint8, shape (n, height, width), 0-255; memory-mapped, in the order of `part`
    """
    name = f"pixels-{hash_of('pixels', list(part['sha256']), size)}"
    return cached_array(name, (len(part), *size), np.uint8, lambda store: _decode(part, folder, store))


def _decode(part: pd.DataFrame, folder: Path, store: np.ndarray) -> None:
    def fill(job: tuple[int, str]) -> None:
        store[job[0]] = resize(read_radiograph(folder / job[1]).pixels, store.shape[1:])

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for done, _ in enumerate(
            tqdm(
                pool.map(fill, enumerate(part["path"])), "decoding", len(part), mininterval=1, leave=False, unit="image"
            )
        ):
            if done % 1000 == 999:
                release(store)


def augment(pixels: np.ndarray, seed: int) -> np.ndarray:
    """Return one randomly moved view of each picture.

    Rotation to 15 degrees, shifts, shear and zoom to 10 %, and a horizontal flip half of the time; what
    moves in from outside repeats the edge. View `seed` of a picture depends on its place and `seed` alone.

    Parameters
    ----------
    pixels : ndarray of uint8, shape (n, height, width)
    seed : int

    Returns
    -------
    ndarray of uint8, shape (n, height, width)
    """
    rng = np.random.default_rng([seed, 1])
    views = np.empty_like(pixels)
    height, width = pixels.shape[1:]
    centre = np.array([(width - 1) / 2, (height - 1) / 2])
    for index, picture in enumerate(pixels):
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
