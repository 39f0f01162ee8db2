"""The manufacturer of the device that a DICOM file names: a company, and nothing else of its header."""

import io
import re
import warnings
from pathlib import Path

from xray_helpers.images.dicom import is_dicom
from xray_helpers.images.patient_names import is_placeholder

_HEAD = 2**20  # bytes in which the header is looked for
_LONGEST = 32  # letters of a name


def read_manufacturer(path: Path) -> str:
    """Return the manufacturer in a DICOM file's header; empty for other files, and where it says none."""
    import pydicom

    try:
        with open(path, "rb") as handle:
            head = handle.read(_HEAD)
    except OSError:
        return ""
    if not is_dicom(head[:132]):
        return ""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ds = pydicom.dcmread(
                io.BytesIO(head), force=True, stop_before_pixels=True, specific_tags=["Manufacturer"]
            )
        name = str(ds.get("Manufacturer") or "")
    except Exception:  # pydicom raises exceptions of any type on damaged files
        return ""
    name = re.sub(r"[^A-Za-z &.-]+", " ", name).strip()[:_LONGEST].strip()
    return "" if is_placeholder(name) else name.upper()
