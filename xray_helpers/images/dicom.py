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

from xray_helpers.images.decoders import LOSSY, PLUGIN, read_header, register
from xray_helpers.images.dicom_values import (
    apply_modality,
    choose_display,
    find_padding,
    find_stored_values,
    read_integer,
    read_table,
)
from xray_helpers.images.patient_names import is_placeholder
from xray_helpers.study.folders import root

if TYPE_CHECKING:
    from pydicom import Dataset
PROJECTION = ("CR", "DX", "RG")  # modalities of plain radiographs
_SCANNED = ("", "OT", "SC", "HC")  # and of secondary captures that do not say what they were captured from
_STORAGE = "1.2.840.10008.5.1.4.1.1."
_RADIOGRAPHS = (
    f"{_STORAGE}1",
    f"{_STORAGE}1.1",
    f"{_STORAGE}1.1.1",
)  # CR, DX for presentation and for processing
_SECONDARY_CAPTURES = (f"{_STORAGE}7", *(f"{_STORAGE}7.{kind}" for kind in (1, 2, 3, 4)))
_PIXELS = {
    "PixelData": 0,
    "FloatPixelData": 32,
    "DoubleFloatPixelData": 64,
}  # bits of a sample; as the tags say for 0
_nameless = ContextVar("nameless", default=False)


class DicomError(Exception):
    """Why a file gives no picture: a phrase for the manifest's column ``reason``."""


class Plane(NamedTuple):
    """The grey values of a DICOM file, before they are made 8 bits.

    Attributes
    ----------
    values : ndarray of float32, shape (height, width); or of uint8 or uint16, shape (height, width, 3), in
    colour
        After the modality's scaling; as they are stored in colour, of which more than 8 bits have no range of
        their own.
    window : tuple of float, optional
        What is black and what is white, where the file says so.
    padding : ndarray of bool, shape (height, width), optional
        Where the file says that there is no picture.
    invert : bool
        Whether low values are bright.
    mode : str
        Such as ``DICOM MONOCHROME2 12 bit``.
    patient : str
        A salted hash of PatientID, or of StudyInstanceUID where there is none, or a word such as ANONYMOUS;
        empty without both, and in `without_patient_id`.
    note : str
        What a reader should know: more frames, burned-in annotation, tags that could not be used.
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

    The modality's LUT or rescaling comes first, then the VOI LUT or the window (`dicom_values`);
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

    with _quiet():
        syntax = ""
        try:
            ds = pydicom.dcmread(io.BytesIO(data), force=True)
            _check(ds, max_pixels, other_modalities)
            syntax = ds.file_meta.TransferSyntaxUID
            return _read_pixels(ds)
        except DicomError:
            raise
        except Exception:  # pydicom and its decoders raise nearly everything on damaged files
            how = ", ".join(dict.fromkeys((syntax.name, str(syntax)))) if syntax else "its header is damaged"
            raise DicomError(
                f"cannot be decoded ({how}): get a whole copy, or export it anew, uncompressed"
            ) from None


@contextmanager
def without_patient_id() -> Iterator[None]:
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
    if not any(ds.get(name) for name in _PIXELS):
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
    if not other_modalities:
        _check_kind(ds)


def _check_kind(ds: "Dataset") -> None:
    """Refuse what is no plain radiograph by its SOP class, of which the modality must be one."""
    modality = str(ds.get("Modality") or "").strip().upper()
    sop = str(ds.get("SOPClassUID") or ds.file_meta.get("MediaStorageSOPClassUID") or "").strip(" \0")
    what = f"has modality {_plain(modality)}"
    if sop in _SECONDARY_CAPTURES:
        known = modality in (*PROJECTION, *_SCANNED)
    elif not sop or sop in _RADIOGRAPHS:
        known = modality in PROJECTION or (bool(sop) and not modality)
    else:
        known = False
        what = f"has SOP class {_name(sop)}" if modality in PROJECTION else what
    if not known:
        raise DicomError(
            f"{what}, no plain radiograph: this study reads radiographs only (other_modalities=false)"
        )


def _name(uid: str) -> str:
    from pydicom.uid import UID

    return "".join(c for c in UID(uid).name if c.isalnum() or c in " .-")[:64]


def _check_length(ds: "Dataset") -> None:
    """Refuse pixels that are not what rows, columns, samples and bits say, such as colour that is tagged as
    grey.
    """
    samples, frames = read_integer(ds, "SamplesPerPixel", 1), max(read_integer(ds, "NumberOfFrames", 1), 1)
    shape = (int(ds.Rows), int(ds.Columns), samples)
    if ds.file_meta.TransferSyntaxUID.is_encapsulated:
        header = read_header(_get_first_frame(ds))
        if header and (header.height, header.width, header.samples) != shape:
            raise DicomError(
                f"holds {header.width} x {header.height} pixels of {header.samples} channels where its "
                "tags say "
                f"{shape[1]} x {shape[0]} of {samples}: export it anew"
            )
        return
    keyword = next(name for name in _PIXELS if ds.get(name))
    bits = _PIXELS[keyword] or read_integer(ds, "BitsAllocated", 8)
    halved = str(ds.get("PhotometricInterpretation")) == "YBR_FULL_422"  # two of three samples are stored
    said = shape[0] * shape[1] * (2 if halved else samples) * frames * bits // 8
    if len(ds.get(keyword)) >= 2 * max(said, 2):
        raise DicomError(
            f"holds {len(ds.get(keyword)) / said:.3g} times the bytes that its tags say, like colour "
            "tagged as grey: "
            "export it anew"
        )


def _get_first_frame(ds: "Dataset") -> bytes:
    from pydicom.encaps import get_frame

    return get_frame(ds.PixelData, 0, number_of_frames=max(read_integer(ds, "NumberOfFrames", 1), 1))


def _plain(text: str) -> str:
    return "".join(c for c in text if c.isalnum())[:16] or "none"


def _read_pixels(ds: "Dataset") -> Plane:
    from pydicom.pixels import pixel_array
    from pydicom.uid import RLELossless

    register()
    _check_length(ds)
    syntax = ds.file_meta.TransferSyntaxUID
    header = read_header(_get_first_frame(ds)) if syntax.is_encapsulated else None
    plugin = PLUGIN if syntax.is_encapsulated else ""
    plugin = (
        "pydicom" if syntax == RLELossless else plugin
    )  # never what else is installed: GDCM may end the process
    raw = pixel_array(ds, index=0, correct_unused_bits=False, decoding_plugin=plugin)
    if raw.dtype.kind == "f":
        return _to_plane(ds, raw, raw)
    precision = header.precision if header else None
    stored, note = find_stored_values(ds, raw, precision, lossy=syntax in LOSSY)
    return _to_plane(ds, raw, stored, note)


def _to_plane(ds: "Dataset", raw: np.ndarray, stored: np.ndarray, *notes: str) -> Plane:
    kind = str(ds.get("PhotometricInterpretation") or "MONOCHROME2").strip().upper()
    bits = read_integer(ds, "BitsStored", 8 * stored.dtype.itemsize)
    common = {"mode": f"DICOM {_plain(kind)} {bits} bit", "patient": _patient(ds)}
    if kind == "PALETTE COLOR":
        stored = _apply_palette(ds, stored)
    if stored.ndim == 3:
        deep = stored.dtype.itemsize > 1
        colour = stored[..., :3].astype(np.uint16 if deep else np.uint8)
        return Plane(colour, None, None, False, note=_note(ds, *notes), **common)
    padding = find_padding(ds, raw, stored)
    values, scaled = apply_modality(ds, stored)
    unknown = ~np.isfinite(values)
    if unknown.any():
        padding = unknown if padding is None else padding | unknown
        values = np.where(unknown, 0, values)
    values, window, shown = choose_display(ds, values, padding)
    invert = kind == "MONOCHROME1" or str(ds.get("PresentationLUTShape", "")).upper() == "INVERSE"
    return Plane(values, window, padding, invert, note=_note(ds, *notes, scaled, shown), **common)


def _apply_palette(ds: "Dataset", stored: np.ndarray) -> np.ndarray:
    """Return colours of 8 bits, (height, width, 3), by the palette's tables of 8 or 16 bits an entry."""
    from pydicom.pixels import apply_color_lut

    names = [f"{colour}PaletteColorLookupTable" for colour in ("Red", "Green", "Blue")]
    tables = [read_table(ds, f"{name}Descriptor", f"{name}Data") for name in names]
    if None in tables and any(ds.get(f"{name}Data") for name in names):
        raise DicomError("has a palette that is not whole: export it anew")
    if None in tables:  # they are in segments
        rgb = apply_color_lut(stored, ds)[..., :3]
        largest = rgb.max()
    else:
        rgb = np.stack([table.apply(stored) for table in tables], axis=-1)
        largest = max(table.entries.max() for table in tables)
    top = max(2 ** int(largest).bit_length() - 1, 255)  # 16 bits may hold entries of fewer
    return np.round(rgb * (255 / top)).astype(np.uint8)


def _note(ds: "Dataset", *others: str) -> str:
    notes = []
    frames = read_integer(ds, "NumberOfFrames", 1)
    if frames > 1:
        notes.append(f"first of {frames} frames")
    if str(ds.get("BurnedInAnnotation", "")).upper() == "YES":
        notes.append("burned-in annotation: names may be readable in the picture")
    return "; ".join(filter(None, [*notes, *others]))


def _patient(ds: "Dataset") -> str:
    if _nameless.get():
        return ""
    for name in ("PatientID", "StudyInstanceUID"):
        text = str(ds.get(name) or "").strip()
        if not is_placeholder(text):
            return hash_identifier(f"{name}:{ds.get('IssuerOfPatientID') or ''}:{text}")
    return ""


def hash_identifier(text: str) -> str:
    """Return a short hash, salted by this machine's secret, that tells patients apart and names none."""
    return hmac.new(_salt(), text.encode(), hashlib.sha256).hexdigest()[:16]


def _salt() -> bytes:
    """Return this machine's secret, made at the first need: the same patient has the same hash in all its
    studies.
    """
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
