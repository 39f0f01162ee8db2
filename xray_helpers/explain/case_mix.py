"""What is measured of images to compare those of two places: grey levels, and who made the device."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd

from xray_helpers.data.external import find_places, within_reach
from xray_helpers.evaluation.case_mix import NUMBERS, name_manufacturers
from xray_helpers.explain.shortcuts import measure_surface
from xray_helpers.images.dicom_maker import read_manufacturer
from xray_helpers.images.radiographs import ImageFolder


def measure_case_mix(part: pd.DataFrame, images: ImageFolder | None) -> pd.DataFrame:
    """Return rows of a manifest with the columns `case_mix.NUMBERS`, and manufacturer where files are DICOM.

    Parameters
    ----------
    part : DataFrame
        path, sha256, width, height, mode.
    images : ImageFolder or None
        What the paths are relative to; where its files are not on this machine, only width and height are
        known.
    """
    part = part.reset_index(drop=True)
    if images is None or not len(part) or not within_reach(images, part).all():
        return part
    measured = measure_surface(part, images)
    part = part.assign(**{name: measured[name] for name in NUMBERS})
    scanned = part["mode"].astype(str).str.startswith("DICOM")
    if scanned.any():
        places = pd.Series(find_places(images, part["path"]))
        with ThreadPoolExecutor() as pool:
            makers = pool.map(lambda place: read_manufacturer(Path(place)), places[scanned])
            named = pd.Series(list(makers), index=places.index[scanned], dtype="string")
        part["manufacturer"] = name_manufacturers(named.replace("", pd.NA)).reindex(part.index)
    return part
