"""One DICOM file in; one picture out with what matters of its header, or the reason why not."""

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
from xray_helpers.images.dicom_display import Conversion, choose_display, read_modality, read_table
from xray_helpers.images.dicom_values import find_padding, find_stored_values, read_integer
from xray_helpers.images.errors import UnreadableError
from xray_helpers.images.patient_names import is_placeholder
from xray_helpers.study.folders import root

if TYPE_CHECKING:
    from pydicom import Dataset
_PROJECTION = ("CR", "DX", "RG")  # modalities of plain radiographs
_SCANNED = ("", "OT", "SC", "HC")  # modalities of secondary captures that do not name their source
_STORAGE = "1.2.840.10008.5.1.4.1.1."
# CR, and DX for presentation and for processing
_RADIOGRAPHS = (f"{_STORAGE}1", f"{_STORAGE}1.1", f"{_STORAGE}1.1.1")
_SECONDARY_CAPTURES = (f"{_STORAGE}7", *(f"{_STORAGE}7.{kind}" for kind in (1, 2, 3, 4)))
_PIXEL_BITS = {"PixelData": 0, "FloatPixelData": 32, "DoubleFloatPixelData": 64}  # 0: as BitsAllocated says
_SAMPLE = 200_000  # pixels by which windows are tried
_ignore_patients = ContextVar("ignore_patients", default=False)


class DicomImage(NamedTuple):
    """The picture of a DICOM file, before it is reduced to 8-bit grey.

    Attributes
    ----------
    values : ndarray of float32, shape (height, width), or of unsigned integers, shape (height, width, 3)
        Grey values after Modality LUT and VOI LUT or window; or colours as they are stored.
    limits : (float, float), optional
        The values of black and white, if the file says how it is to be displayed.
    masked : ndarray of bool, shape (height, width), optional
        Padding, and values that are not finite.
    invert : bool
        Whether low values are bright: MONOCHROME1, or PresentationLUTShape INVERSE, which mean the same.
    mode : str
        Such as ``DICOM MONOCHROME2 12 bit``.
    patient : str
        A salted hash of PatientID, or else of StudyInstanceUID; empty if both are missing or placeholders,
        and within `without_patient_id`.
    exam : str
        A salted hash of StudyInstanceUID; empty as patient is.
    note : str
        What a reader should know: more frames, burned-in annotation, elements that could not be used.
    """

    values: np.ndarray
    mode: str
    patient: str
    note: str
    limits: tuple[float, float] | None = None
    masked: np.ndarray | None = None
    invert: bool = False
    exam: str = ""


def is_dicom(head: bytes) -> bool:
    """Return whether a file with these first 132 bytes is DICOM, with a preamble or without."""
    first_element = head[:1] in (b"\x02", b"\x08") and head[1:2] == b"\0" and head[3:4] == b"\0"
    return head[128:132] == b"DICM" or first_element


def read_dicom(data: bytes, max_pixels: int, *, other_modalities: bool = False) -> DicomImage:
    """Read the first frame of a DICOM file.

    Parameters
    ----------
    data : bytes
        The complete file.
    max_pixels : int
        Larger pictures are refused before they are decoded.
    other_modalities : bool
        Whether to read other files than CR, DX, RG and secondary captures as well.

    Raises
    ------
    UnreadableError
    """
    import pydicom

    logging.getLogger("pydicom").setLevel(logging.CRITICAL)  # it reports unusual elements; see `note`
    syntax = ""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            ds = pydicom.dcmread(io.BytesIO(data), force=True)
            _check_size(ds, max_pixels)
            if not other_modalities:
                _check_modality(ds)
            _complete_syntax(ds)
            syntax = ds.file_meta.TransferSyntaxUID
            return _read_image(ds)._replace(exam=_hash_exam(ds))
        except UnreadableError:
            raise
        except Exception:  # pydicom and its decoders raise exceptions of any type on damaged files
            names = dict.fromkeys((syntax.name, str(syntax))) if syntax else ["its header is damaged"]
            raise UnreadableError(
                f"cannot be decoded ({', '.join(names)}): get a complete copy, or export it again, "
                "uncompressed"
            ) from None


@contextmanager
def without_patient_id() -> Iterator[None]:
    """Read DICOM files without hashing their patients' identifiers, which needs a secret on the disk."""
    token = _ignore_patients.set(True)
    try:
        yield
    finally:
        _ignore_patients.reset(token)


def _check_size(ds: "Dataset", max_pixels: int) -> None:
    if not any(ds.get(keyword) for keyword in _PIXEL_BITS):
        raise UnreadableError("is DICOM without a picture (or not DICOM): remove it")
    rows, columns = int(ds.get("Rows") or 0), int(ds.get("Columns") or 0)
    if rows * columns == 0:
        raise UnreadableError("is DICOM without rows or columns: export it again")
    if rows * columns > max_pixels:
        raise UnreadableError(f"{columns} x {rows} pixels are too many: resize it")


def _check_modality(ds: "Dataset") -> None:
    """Refuse other files than plain radiographs, by their SOP class and modality."""
    from pydicom.uid import UID

    modality = str(ds.get("Modality") or "").strip().upper()
    sop = str(ds.get("SOPClassUID") or ds.file_meta.get("MediaStorageSOPClassUID") or "").strip(" \0")
    found = f"modality {_clean(modality)}"
    if sop in _SECONDARY_CAPTURES:
        accepted = modality in (*_PROJECTION, *_SCANNED)
    elif not sop or sop in _RADIOGRAPHS:
        accepted = modality in _PROJECTION or (bool(sop) and not modality)
    else:
        accepted = False
        found = f"SOP class {_clean(UID(sop).name, ' .-', 64)}" if modality in _PROJECTION else found
    if not accepted:
        raise UnreadableError(
            f"has {found}, no plain radiograph: this study reads radiographs only (other_modalities=false)"
        )


def _clean(text: str, allowed: str = "", length: int = 16) -> str:
    return "".join(c for c in text if c.isalnum() or c in allowed)[:length] or "none"


def _complete_syntax(ds: "Dataset") -> None:
    """Add the transfer syntax that pydicom has found in a file without a preamble."""
    from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

    if not getattr(ds.file_meta, "TransferSyntaxUID", None):
        implicit, little = ds.original_encoding
        explicit = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
        ds.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else explicit


def _read_image(ds: "Dataset") -> DicomImage:
    from pydicom.encaps import get_frame
    from pydicom.pixels import pixel_array
    from pydicom.uid import RLELossless

    register()
    syntax, header, plugin = ds.file_meta.TransferSyntaxUID, None, ""
    if syntax.is_encapsulated:
        header = read_header(get_frame(ds.PixelData, 0, number_of_frames=_count_frames(ds)))
        plugin = "pydicom" if syntax == RLELossless else PLUGIN  # no others: GDCM may end the process
        _check_frame(ds, header)
    else:
        _check_length(ds)
    raw = pixel_array(ds, index=0, correct_unused_bits=False, decoding_plugin=plugin)
    if raw.dtype.kind == "f":
        return _to_image(ds, raw, raw, "")
    precision = header.precision if header else None
    stored, note = find_stored_values(ds, raw, precision, lossy=syntax in LOSSY)
    return _to_image(ds, raw, stored, note)


def _count_frames(ds: "Dataset") -> int:
    return max(read_integer(ds, "NumberOfFrames", 1), 1)


def _check_frame(ds: "Dataset", header: tuple | None) -> None:
    """Refuse a compressed frame of another size, or of other channels, than the elements say."""
    expected = (int(ds.Rows), int(ds.Columns), read_integer(ds, "SamplesPerPixel", 1))
    if header and header[:3] != expected:
        height, width, samples = header[:3]
        raise UnreadableError(
            f"holds {width} x {height} pixels of {samples} channels where its tags say {expected[1]} x "
            f"{expected[0]} of {expected[2]}: export it again"
        )


def _check_length(ds: "Dataset") -> None:
    """Refuse uncompressed pixels of twice the expected bytes or more."""
    keyword = next(name for name in _PIXEL_BITS if ds.get(name))
    bits = _PIXEL_BITS[keyword] or read_integer(ds, "BitsAllocated", 8)
    halved = str(ds.get("PhotometricInterpretation")) == "YBR_FULL_422"  # two of three samples are stored
    samples = 2 if halved else read_integer(ds, "SamplesPerPixel", 1)
    expected = int(ds.Rows) * int(ds.Columns) * samples * _count_frames(ds) * bits // 8
    length = len(ds.get(keyword))
    if length >= 2 * max(expected, 2):
        raise UnreadableError(
            f"holds {length / expected:.3g} times the bytes that its tags say, like colour tagged as grey: "
            "export it again"
        )


def _to_image(ds: "Dataset", raw: np.ndarray, stored: np.ndarray, note: str) -> DicomImage:
    photometric = str(ds.get("PhotometricInterpretation") or "MONOCHROME2").strip().upper()
    bits = read_integer(ds, "BitsStored", 8 * stored.dtype.itemsize)
    mode, patient = f"DICOM {_clean(photometric)} {bits} bit", _hash_patient(ds)
    if photometric == "PALETTE COLOR":
        stored = _apply_palette(ds, stored)
    if stored.ndim == 3:
        colours = stored[..., :3].astype(f"u{stored.dtype.itemsize}")
        return DicomImage(colours, mode, patient, _join_notes(ds, note))
    masked = find_padding(ds, raw, stored)
    if stored.dtype.kind == "f":
        not_finite = ~np.isfinite(stored)
        masked = not_finite if masked is None else masked | not_finite
        stored = np.where(not_finite, 0, stored)
    to_values, modality_note = read_modality(ds)
    shown = stored if masked is None or masked.all() else stored[~masked]
    display, display_note = choose_display(ds, to_values(shown.ravel()[:: max(1, shown.size // _SAMPLE)]))
    if display is None:
        values, limits = _convert(stored, to_values), None
    else:
        values, limits = _convert(stored, lambda levels: display(to_values(levels))), (0.0, 255.0)
    invert = photometric == "MONOCHROME1" or str(ds.get("PresentationLUTShape", "")).upper() == "INVERSE"
    note = _join_notes(ds, note, modality_note, display_note)
    return DicomImage(values, mode, patient, note, limits, masked, invert)


def _convert(stored: np.ndarray, function: Conversion) -> np.ndarray:
    """Apply a function to each value; only once to each level of integers of up to 16 bits."""
    if stored.dtype.kind == "f" or stored.dtype.itemsize > 2:
        return function(stored)
    lowest = int(stored.min())
    levels = np.arange(lowest, int(stored.max()) + 1)
    return function(levels)[stored.astype(np.int32) - lowest]


def _apply_palette(ds: "Dataset", stored: np.ndarray) -> np.ndarray:
    """Return 8-bit colours, shape (height, width, 3).

    pydicom expands palettes in segments. It is not used for others, because it wraps the indices of palettes
    of 8 bits and more than 256 entries.
    """
    from pydicom.pixels import apply_color_lut

    names = [f"{colour}PaletteColorLookupTable" for colour in ("Red", "Green", "Blue")]
    tables = [read_table(ds, f"{name}Descriptor", f"{name}Data") for name in names]
    if None not in tables:
        colours = np.stack([table.apply(stored) for table in tables], axis=-1)
        largest = max(table.entries.max() for table in tables)
    elif any(ds.get(f"{name}Data") for name in names):
        raise UnreadableError("has an incomplete palette: export it again")
    else:
        colours = apply_color_lut(stored, ds)[..., :3]
        largest = colours.max()
    white = max(2 ** int(largest).bit_length() - 1, 255)  # entries of 16 bits may use fewer
    return np.round(colours * (255 / white)).astype(np.uint8)


def _join_notes(ds: "Dataset", *notes: str) -> str:
    frames = _count_frames(ds)
    burned_in = str(ds.get("BurnedInAnnotation", "")).upper() == "YES"
    header_notes = (
        f"first of {frames} frames" if frames > 1 else "",
        "burned-in annotation: names may be readable in the picture" if burned_in else "",
    )
    return "; ".join(filter(None, (*header_notes, *notes)))


def _hash_patient(ds: "Dataset") -> str:
    if not _ignore_patients.get():
        for keyword in ("PatientID", "StudyInstanceUID"):
            text = str(ds.get(keyword) or "").strip()
            if not is_placeholder(text):
                return hash_identifier(f"{keyword}:{ds.get('IssuerOfPatientID') or ''}:{text}")
    return ""


def _hash_exam(ds: "Dataset") -> str:
    text = str(ds.get("StudyInstanceUID") or "").strip()
    return "" if _ignore_patients.get() or is_placeholder(text) else hash_identifier(f"exam:{text}")


def hash_identifier(text: str) -> str:
    """Return a short hash that distinguishes patients or exams, salted with a local secret."""
    return hmac.new(_salt(), text.encode(), hashlib.sha256).hexdigest()[:16]


def _salt() -> bytes:
    """Return this machine's secret, created when first needed, so that hashes agree between its studies."""
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
