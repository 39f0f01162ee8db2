"""One DICOM file in; one grey picture out with what matters of its header, or the reason why not."""

import hashlib
import hmac
import io
import logging
import os
import secrets
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from xray_helpers.studies import root

if TYPE_CHECKING:
    from pydicom import Dataset

PROJECTION = ("CR", "DX", "RG")  # modalities of plain radiographs
_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
_nameless = ContextVar("nameless", default=False)


class DicomError(Exception):
    """Why a file gives no picture: a phrase for the manifest's column ``reason``."""


class Plane(NamedTuple):
    """The grey values of a DICOM file, before they are made 8 bits.

    Attributes
    ----------
    values : ndarray of float32 or uint8, shape (height, width) or (height, width, 3)
        After the modality's scaling; uint8 of three channels in colour.
    window : tuple of float, optional
        What is black and what is white, where the file says so.
    padding : ndarray of bool, shape (height, width), optional
        Where the file says that there is no picture.
    invert : bool
        Whether low values are bright.
    mode : str
        Such as ``DICOM MONOCHROME2 12 bit``.
    patient : str
        A salted hash of PatientID, or of StudyInstanceUID where there is none; empty without both, and in `nameless`.
    note : str
        What a reader should know: more frames, burned-in annotation.
    """

    values: np.ndarray
    window: tuple[float, float] | None
    padding: np.ndarray | None
    invert: bool
    mode: str
    patient: str
    note: str


def is_dicom(head: bytes) -> bool:
    """Return whether a file that begins so is DICOM, with its preamble or without."""
    bare = (
        head[:1] in (b"\x02", b"\x08") and head[1:2] == b"\0" and head[3:4] == b"\0"
    )  # a first element of group 2 or 8
    return head[128:132] == b"DICM" or bare


def read_plane(data: bytes, max_pixels: int, *, other_modalities: bool = False) -> Plane:
    """Read the first frame of a DICOM file.

    The modality's LUT or rescaling comes first, then the VOI LUT or the window (DICOM PS3.3 C.11.1 and C.11.2);
    `invert` is said once for MONOCHROME1 and PresentationLUTShape INVERSE, which mean the same.

    Parameters
    ----------
    data : bytes
        The whole file.
    max_pixels : int
        More are refused before they are decoded.
    other_modalities : bool
        Whether to read what is no CR, DX, RG or secondary capture as well.

    Raises
    ------
    DicomError
        With the reason.
    """
    import pydicom
    from pydicom.pixels import pixel_array

    with _quiet():
        try:
            ds = pydicom.dcmread(io.BytesIO(data), force=True)
            _check(ds, max_pixels, other_modalities)
            stored = pixel_array(ds, index=0)
            return _to_plane(ds, stored)
        except DicomError:
            raise
        except Exception as error:  # pydicom and its decoders raise nearly everything on damaged files
            words = (str(error).strip() or type(error).__name__).splitlines()[0][:150]
            raise DicomError(f"cannot be decoded ({words}): export it anew, uncompressed") from None


@contextmanager
def nameless() -> Iterator[None]:
    """Read DICOM files without telling their patients apart, for which a secret would be kept on the disk."""
    token = _nameless.set(True)
    try:
        yield
    finally:
        _nameless.reset(token)


@contextmanager
def _quiet() -> Iterator[None]:
    """pydicom warns of what is odd in a header; the manifest says what matters."""
    log = logging.getLogger("pydicom")
    before = log.level
    log.setLevel(logging.CRITICAL)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            log.setLevel(before)


def _check(ds: "Dataset", max_pixels: int, other_modalities: bool) -> None:
    if "PixelData" not in ds:
        raise DicomError("is DICOM without a picture (or no DICOM): remove it")
    if not getattr(ds.file_meta, "TransferSyntaxUID", None):  # no preamble, so nobody said how it is written
        from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

        implicit, little = ds.original_encoding
        ds.file_meta.TransferSyntaxUID = (
            ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian if little else ExplicitVRBigEndian
        )
    rows, columns = int(ds.get("Rows") or 0), int(ds.get("Columns") or 0)
    if rows * columns == 0:
        raise DicomError("is DICOM without rows or columns: export it anew")
    if rows * columns > max_pixels:
        raise DicomError(f"{columns} x {rows} pixels are too many: resize it")
    modality = str(ds.get("Modality") or "none")
    secondary = str(ds.get("SOPClassUID", "")).startswith(_SECONDARY_CAPTURE)
    if modality not in PROJECTION and not secondary and not other_modalities:
        raise DicomError(
            f"has modality {_plain(modality)}, no plain radiograph: this study reads radiographs only (other_modalities=false)"
        )


def _plain(text: str) -> str:
    return "".join(c for c in text if c.isalnum())[:16] or "none"


def _to_plane(ds: "Dataset", stored: np.ndarray) -> Plane:
    from pydicom.pixels import apply_color_lut, apply_modality_lut

    kind = str(ds.get("PhotometricInterpretation", "MONOCHROME2"))
    mode = f"DICOM {_plain(kind)} {int(ds.get('BitsStored', 8))} bit"
    common = {"mode": mode, "patient": _patient(ds), "note": _note(ds)}
    if kind == "PALETTE COLOR":
        stored = apply_color_lut(stored, ds)
    if stored.ndim == 3:
        top = 2 ** int(ds.BitsAllocated) - 1 if stored.dtype.itemsize > 1 else 255
        return Plane(np.round(stored[..., :3] * (255.0 / top)).astype(np.uint8), None, None, False, **common)
    padding = _padding(ds, stored)
    values = np.asarray(apply_modality_lut(stored, ds), dtype=np.float32)
    values, window = _apply_voi(ds, values)
    invert = kind == "MONOCHROME1" or str(ds.get("PresentationLUTShape", "")).upper() == "INVERSE"
    return Plane(values, window, padding, invert, **common)


def _padding(ds: "Dataset", stored: np.ndarray) -> np.ndarray | None:
    """Return where stored values mean that there is no picture (PS3.3 C.7.5.1.1.2)."""
    if ds.get("PixelPaddingValue") is None:
        return None
    ends = [int(ds.PixelPaddingValue)]
    ends.append(int(ds.get("PixelPaddingRangeLimit") if ds.get("PixelPaddingRangeLimit") is not None else ends[0]))
    return (stored >= min(ends)) & (stored <= max(ends))


def _apply_voi(ds: "Dataset", values: np.ndarray) -> tuple[np.ndarray, tuple[float, float] | None]:
    """Return values and what is black and white in them, by the VOI LUT or the first window."""
    from pydicom.pixels import apply_voi

    if ds.get("VOILUTSequence"):
        bits = int(ds.VOILUTSequence[0].LUTDescriptor[2])
        whole = np.round(values).astype(np.int32)
        return np.asarray(apply_voi(whole, ds), dtype=np.float32), (0.0, float(2**bits - 1))
    centre, width = _first(ds.get("WindowCenter")), _first(ds.get("WindowWidth"))
    if centre is None or width is None:
        return values, None
    function = str(ds.get("VOILUTFunction") or "LINEAR").upper()
    if function == "SIGMOID" and width > 0:
        return 1 / (1 + np.exp(-4 * (values - np.float32(centre)) / np.float32(width))), (0.0, 1.0)
    if function == "LINEAR" and width >= 1:  # PS3.3 C.11.2.1.2: half a value off the exact one
        return values, (centre - 0.5 - (width - 1) / 2, centre - 0.5 + (width - 1) / 2)
    return (values, (centre - width / 2, centre + width / 2)) if width > 0 else (values, None)


def _first(value: object) -> float | None:
    if value is None or value == "":
        return None
    number = float(value[0] if isinstance(value, list | tuple) or hasattr(value, "append") else value)
    return number if np.isfinite(number) else None


def _note(ds: "Dataset") -> str:
    notes = []
    frames = int(ds.get("NumberOfFrames") or 1)
    if frames > 1:
        notes.append(f"first of {frames} frames")
    if str(ds.get("BurnedInAnnotation", "")).upper() == "YES":
        notes.append("burned-in annotation: names may be readable in the picture")
    return "; ".join(notes)


def _patient(ds: "Dataset") -> str:
    if _nameless.get():
        return ""
    for name in ("PatientID", "StudyInstanceUID"):
        text = str(ds.get(name) or "").strip()
        if text:
            return hash_identifier(f"{name}:{ds.get('IssuerOfPatientID') or ''}:{text}")
    return ""


def hash_identifier(text: str) -> str:
    """Return a short hash, salted by this machine's secret, that tells patients apart and names none."""
    return hmac.new(_salt(), text.encode(), hashlib.sha256).hexdigest()[:16]


def _salt() -> bytes:
    """Return this machine's secret, made at the first need: the same patient has the same hash in all its studies."""
    path = root() / "data" / "patients.salt"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        own = path.with_name(f".{secrets.token_hex(8)}.salt")
        with open(os.open(own, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as handle:
            handle.write(secrets.token_hex(32))
        with suppress(FileExistsError):  # another process was faster
            os.link(own, path)
        own.unlink()
    return path.read_bytes()
