"""Sets of synthetic radiographs (phantoms) with known patients, fractures, locations and planted copies."""

import shutil
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import pandas as pd
from PIL import Image

from xray_helpers.settings import NEGATIVE, POSITIVE, InputError, nearest
from xray_helpers.study.cache import cache_folder, new_array, read_array
from xray_helpers.study.files import hash_of, temporary_path, write_csv
from xray_helpers.study.folders import PHANTOMS
from xray_helpers.study.machine import cores
from xray_helpers.synthetic.limb import DEVICE, FRACTURE_TYPES, Device, build_patient, render_view

VERSION = 1  # part of the cache's name: raise it when the pictures change, here or in `limb`
DEMO_MIX = (0.03, 0.05, 0.06, 0.43, 0.43)  # of `FRACTURE_TYPES`: many that random features can detect
VIEW_COUNTS, VIEW_SHARES = (1, 2, 3, 4), (0.3, 0.4, 0.2, 0.1)
# harder rays, fewer of them, more scatter and blur, a brighter display, tight collimation
DEVICE_B = Device(0.7, 0.42, (1.1, 1.7), (0.3, 0.5), (2.7, 3.2), (0.55, 0.75), 0.12, (0.6, 0.85))
# softer rays, more of them, little scatter, a darker display
DEVICE_C = Device(1.35, 0.25, (0.6, 0.9), (0.05, 0.15), (2.2, 2.6), (0.9, 1.1), 0.03, (0.8, 1.0))
_BOX = ("box_left", "box_top", "box_right", "box_bottom")


class Hospital(NamedTuple):
    """Where phantoms come from: its device, its patients, and the size of its pictures.

    With `types` the classes are the types of fracture and ``none``, instead of fractured or not.
    """

    device: Device = DEVICE
    prevalence: float = 0.45
    mix: tuple[float, ...] = DEMO_MIX  # of `FRACTURE_TYPES`
    size: tuple[int, int] = (256, 208)  # height and width in pixels
    letter: str = "p"  # first of its patients' names
    images: int = 480
    planted: int = 40
    seed: int = 7
    types: bool = False


HOME = Hospital()
HOSPITALS = {
    "types": Hospital(prevalence=0.75, mix=(0, 0, 1 / 3, 1 / 3, 1 / 3), images=720, planted=20, types=True),
    "hospital-b": Hospital(DEVICE_B, 0.22, (0.16, 0.24, 0.2, 0.2, 0.2), (320, 240), "b", 420, 0, 11),
    "hospital-c": Hospital(DEVICE_C, 0.6, (0.05, 0.05, 0.1, 0.4, 0.4), (224, 224), "c", 90, 0, 13),
}
SEVERAL = "hospitals"  # the name of three of them as one set, with the column hospital; the last is small
_TOGETHER = {"hospital-a": HOME, "hospital-b": HOSPITALS["hospital-b"], "hospital-c": HOSPITALS["hospital-c"]}


def write_phantoms(
    folder: Path, *, images: int = 480, planted: int = 40, seed: int = 7, hospital: Hospital = HOME
) -> Path:
    """Write a set of phantoms as PNG files in class folders, with ``phantoms.csv`` beside them.

    Parameters
    ----------
    folder : Path
        Replaced if it exists.
    images : int
        Minimum number of exposures; all views of the last patient are kept.
    planted : int
        Number of additional files that are copies, rotations, flips or re-exposures of another file, which
        the search for same-source images has to find.
    seed : int
    hospital : Hospital
        Its device, prevalence, mix of fractures and size of pictures.

    Returns
    -------
    Path
        ``phantoms.csv``: path, label, patient, exam (of one or two views), body_part, side, view,
        fracture_type, site, box_left, box_top, box_right, box_bottom (pixels), and for planted files copy_of
        (a path) and planted (how).
    """
    shutil.rmtree(folder, ignore_errors=True)
    for label in ("none", *FRACTURE_TYPES) if hospital.types else (POSITIVE, NEGATIVE):
        (folder / label).mkdir(parents=True)
    rng = np.random.default_rng(seed)
    jobs, total = [], 0
    while total < images:
        views = int(rng.choice(VIEW_COUNTS, p=VIEW_SHARES))
        jobs.append((len(jobs), views, seed))
        total += views
    with ThreadPoolExecutor(cores()) as pool:
        written = pool.map(lambda job: _write_patient(job, folder, hospital), jobs)
        rows = [row for rows in written for row in rows]
    rows += [_write_copy(rng, folder, rows[int(i)]) for i in rng.choice(len(rows), planted, replace=False)]
    table = pd.DataFrame(rows).sort_values("path", ignore_index=True)
    return write_csv(folder / "phantoms.csv", table)


def write_hospitals(folder: Path, share: float = 1.0) -> Path:
    """Write the phantoms of three hospitals as one set, a folder each; return its table.

    Parameters
    ----------
    folder : Path
        Replaced if it exists.
    share : float
        Of the images of each.

    Returns
    -------
    Path
        ``phantoms.csv``: the columns of `write_phantoms`, and hospital.
    """
    shutil.rmtree(folder, ignore_errors=True)
    tables = []
    for name, hospital in _TOGETHER.items():
        options = {"images": int(share * hospital.images), "planted": int(share * hospital.planted)}
        csv = write_phantoms(folder / name, **options, seed=hospital.seed, hospital=hospital)
        table = pd.read_csv(csv)
        csv.unlink()
        joined = {column: f"{name}/" + table[column].astype("string") for column in ("path", "copy_of")}
        tables.append(table.assign(**joined, hospital=name))
    return write_csv(folder / "phantoms.csv", pd.concat(tables, ignore_index=True))


def _write_patient(job: tuple[int, int, int], folder: Path, hospital: Hospital) -> list[dict]:
    number, views, seed = job
    rng = np.random.default_rng([seed, number])
    fractured = rng.random() < hospital.prevalence
    kind = str(rng.choice(FRACTURE_TYPES, p=hospital.mix)) if fractured else None
    patient = build_patient(rng, kind)
    common = {
        "path": "",
        "label": (kind or "none") if hospital.types else POSITIVE if kind else NEGATIVE,
        "patient": f"{hospital.letter}{number:04d}",
        "exam": "",
        "body_part": patient.body_part,
        "side": patient.side,
        "view": 0,
        "fracture_type": kind or "none",
        "site": patient.fracture.site if kind else "none",
    }
    if hospital.types:
        common.pop("fracture_type")
    rows = []
    for view in range(1, views + 1):
        pixels, box = render_view(rng, patient, hospital.size, hospital.device)
        path = f"{common['label']}/{common['patient']}_v{view}.png"
        exam = f"{common['patient']}-{(view + 1) // 2}"
        Image.fromarray(pixels).save(folder / path)
        row = (
            common
            | {"path": path, "exam": exam, "view": view}
            | dict(zip(_BOX, box or (None,) * 4, strict=True))
        )
        rows.append(row | {"copy_of": None, "planted": None})
    return rows


def _write_copy(rng: np.random.Generator, folder: Path, row: dict) -> dict:
    how = str(rng.choice(["copy", "rotation", "flip", "re-encoding", "brightness"]))
    source = folder / row["path"]
    suffix = ".jpg" if how == "re-encoding" else ".png"
    path = row["path"].replace(".png", f"_{how}{suffix}")
    with Image.open(source) as image:
        if how == "copy":
            shutil.copyfile(source, folder / path)
        elif how == "rotation":
            image.rotate(float(rng.uniform(-90, 90)), Image.Resampling.BILINEAR).save(folder / path)
        elif how == "flip":
            image.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(folder / path)
        elif how == "re-encoding":
            image.save(folder / path, quality=60)
        else:
            image.point(lambda value: min(255, int(value * 0.75 + 25))).save(folder / path)
    copy = row | {"path": path, "copy_of": row["path"], "planted": how}
    return copy | dict.fromkeys(_BOX) if how in ("rotation", "flip") else copy


def demo_phantoms(data: str = PHANTOMS) -> Path:
    """Return the CSV of the demo's phantoms, written to ``data/cache`` when first needed.

    Parameters
    ----------
    data : str
        ``phantoms``, with types of fractures as classes ``phantoms:types``, those of another hospital:
        ``phantoms:hospital-b`` or ``-c``, or of three: ``phantoms:hospitals``.

    Raises
    ------
    InputError
        For a hospital that there is not.
    """
    name = data.partition(":")[2]
    known = [*HOSPITALS, SEVERAL]
    if name and name not in known:
        every = ", ".join(f"{PHANTOMS}:{hospital}" for hospital in known)
        raise InputError(f"There are no phantoms of {name!r}{nearest(name, known) or '.'} Known: {every}.")
    hospital = HOSPITALS.get(name, HOME)
    kind = [_TOGETHER] if name == SEVERAL else [hospital] if name else []
    folder = cache_folder() / f"phantoms-{hash_of(VERSION, 'with exams', np.__version__, *kind)[:8]}"
    if not (folder / "phantoms.csv").exists():
        partial = temporary_path(folder)
        try:
            options = {key: getattr(hospital, key) for key in ("images", "planted", "seed")}
            if name == SEVERAL:
                write_hospitals(partial)
            else:
                write_phantoms(partial, **options, hospital=hospital)
            with suppress(OSError):  # another process was faster
                partial.rename(folder)
            if not (folder / "phantoms.csv").exists():  # the folder is left from an incomplete deletion
                shutil.rmtree(folder)
                partial.rename(folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return folder / "phantoms.csv"


def calibration_phantoms(size: tuple[int, int], count: int = 48) -> np.ndarray:
    """Return the fixed batch on which randomly initialised backbones are calibrated.

    Returns
    -------
    ndarray of uint8, shape (count, height, width), 0-255
    """
    name = f"calibration-{hash_of(VERSION, np.__version__, size, count)}"
    if (cached := read_array(name)) is not None:
        return np.array(cached)
    with ThreadPoolExecutor(cores()) as pool:
        pictures = np.stack(list(pool.map(lambda number: _calibration_phantom(number, size), range(count))))
    with new_array(name, pictures.shape, np.uint8) as store:
        store[:] = pictures
    return pictures


def _calibration_phantom(number: int, size: tuple[int, int]) -> np.ndarray:
    rng = np.random.default_rng([20_000, number])
    kind = FRACTURE_TYPES[number % 5] if number % 2 else None
    pixels, _ = render_view(rng, build_patient(rng, kind))
    return cv2.resize(pixels, size[::-1], interpolation=cv2.INTER_AREA)
