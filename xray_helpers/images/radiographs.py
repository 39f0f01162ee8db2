"""One file in; one grey picture out, or the reason why not."""

import hashlib
import io
import os
import re
import stat
import threading
import warnings
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote, unquote_to_bytes

import cv2
import numpy as np
from PIL import ExifTags, Image, ImageFile, ImageOps, UnidentifiedImageError

from xray_helpers.images.dicom import DicomError, is_dicom, read_plane
from xray_helpers.images.high_bit_depth import DeepFile, open_deep_picture

SUFFIXES = (
    *(".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".tif", ".tiff", ".bmp", ".webp", ".gif"),
    *(".pgm", ".ppm", ".pnm", ".jp2", ".j2k", ".dcm", ".dicom", ".ima"),
)
MAX_PIXELS = 64_000_000  # more than any radiograph; a header that claims more is not decoded
MAX_BYTES = 500_000_000
_FORMATS = (
    "PNG",
    "JPEG",
    "TIFF",
    "BMP",
    "WEBP",
    "GIF",
    "PPM",
    "JPEG2000",
)  # others are no pictures to us, or a risk
_SIGNATURES = (
    b"\x89PNG\r\n",
    b"\xff\xd8\xff",
    b"GIF8",
    b"II*\0",
    b"MM\0*",
    b"II+\0",
    b"MM\0+",
    b"\0\0\0\x0cjP  ",
    b"\xff\x4f\xff\x51",
)
SMALLEST, LONGEST = (
    32,
    5,
)  # pixels of the shorter side; how many of it in the longer: what a radiograph keeps to
_ONE_GREY = 2.0  # standard deviation of grey levels, 0-255, under which there is nothing to see
COLOURED = 12.0  # mean difference of channels, 0-255, from which a picture is a colour photograph
_LARGE = 8_000_000  # pixels from which pictures are decoded one at a time, so that memory stays bounded
_one_large = threading.Lock()
_truncation = threading.Lock()


class UnreadableError(Exception):
    """Why a file gives no picture: a phrase for the manifest's column ``reason``."""


class Radiograph(NamedTuple):
    """A picture and what its file said.

    Attributes
    ----------
    pixels : ndarray of uint8, shape (height, width), 0-255
    mode : str
        How the file stores a pixel: Pillow's name (``L``, ``RGB``, ``I;16``, ...), ``RGB;16`` and the like of
        what Pillow does not read whole (`deep_pictures`), or ``DICOM MONOCHROME1 12 bit``.
    sha256 : str
        Of the file's bytes.
    patient : str
        A salted hash of the DICOM's patient or study; empty elsewhere.
    note : str
        What a reader should know of this picture; mostly empty.
    colour : float
        Mean difference of the largest and the smallest channel, 0-255: what a radiograph has next to none of.
    """

    pixels: np.ndarray
    mode: str
    sha256: str
    patient: str = ""
    note: str = ""
    colour: float = 0.0


class ImageFolder(NamedTuple):
    """Where images lie, and how they are read.

    Attributes
    ----------
    path : Path
    depth : {'percentiles', 'range'}
        What becomes black and white of more than 8 bits without a window: the 0.5th and 99.5th percentile, or
        the smallest and the largest value.
    truncated : {'exclude', 'keep'}
        Whether what is there of a truncated JPEG is read.
    other_modalities : bool
        Whether DICOM files are read that are no plain radiographs.
    resize : {'stretch', 'pad'}
        Whether a picture is stretched to the size that models see, or keeps its aspect ratio on black.
    places : mapping of str to str, optional
        Where each name lies, for files that have no folder in common.
    """

    path: Path
    depth: str = "percentiles"
    truncated: str = "exclude"
    other_modalities: bool = False
    resize: str = "stretch"
    places: Mapping[str, str] | None = None

    @property
    def how(self) -> tuple:
        """How files are read, without where they lie."""
        return self[1:-1]

    def read(self, name: str) -> Radiograph:
        """Read one file by its name in the manifest; raises as `read_radiograph`."""
        if self.places:
            place = Path(self.places[name])
            return read_radiograph(place, self._replace(path=place.parent))
        return read_radiograph(find_file(self.path, name), self)


def image_folder(folder: "ImageFolder | Path") -> ImageFolder:
    """Return how a folder is read: as told, or by the defaults."""
    return folder if isinstance(folder, ImageFolder) else ImageFolder(folder)


def looks_like_picture(head: bytes) -> bool:
    """Return whether a file that begins so (132 bytes or more) is of a format that is read, whatever its name
    is.
    """
    bitmap = head[:2] == b"BM" and head[6:10] == b"\0\0\0\0"
    webp = head[:4] == b"RIFF" and head[8:12] == b"WEBP"
    pnm = re.match(rb"P[1-6]\s+(#|\d)", head) is not None
    return head.startswith(_SIGNATURES) or bitmap or webp or pnm or is_dicom(head)


def check_picture(picture: Radiograph) -> Radiograph:
    """Return a picture, not yet resized, with what is plainly no radiograph's added to its note.

    Raises
    ------
    UnreadableError
        When there is nothing to judge in it: it is almost one grey.
    """
    if cv2.meanStdDev(picture.pixels)[1].item() < _ONE_GREY:  # NumPy would copy it as floats
        raise UnreadableError("is almost one grey: there is no picture in it")
    short, long = sorted(picture.pixels.shape)
    height, width = picture.pixels.shape
    words = ["a colour photograph, no radiograph"] if picture.colour > COLOURED else []
    words += [f"too small: {width} x {height} pixels"] if short < SMALLEST else []
    words += [f"very long and thin: {width} x {height} pixels"] if long > LONGEST * short else []
    return picture._replace(note="; ".join(filter(None, [*words, picture.note])))


def escape_name(name: str) -> str:
    """Return a relative path as text: bytes that are no UTF-8, and control characters, percent-escaped."""
    if name.isprintable() and not any("\ud800" <= c <= "\udfff" for c in name):
        return name
    return quote(os.fsencode(name), safe="/ !#$&'()*+,;=:@[]{}^~|<>\"?-_.")


def find_file(folder: Path, name: str) -> Path:
    """Return the place of a file by its name in a table, escaped or not."""
    place = folder / name
    if "%" in name and not os.path.lexists(place):
        return folder / os.fsdecode(unquote_to_bytes(name))
    return place


def read_radiograph(path: Path, reading: ImageFolder | None = None) -> Radiograph:
    """Read a PNG, JPEG, JPEG 2000, TIFF, BMP, WebP, GIF, PGM, PPM or DICOM file as 8-bit grey, whatever its
    name.

    Colour becomes luminance, transparency lies on black, EXIF orientation is applied, and of several pages or
    frames the first is taken. More than 8 bits are scaled by the file's own window, else as `reading` says.

    Raises
    ------
    UnreadableError
        With the reason: empty, too large, truncated, no plain radiograph, or no picture at all.
    """
    reading = reading or ImageFolder(path.parent)
    return decode_radiograph(_read_bytes(path, reading.path), reading)


def decode_radiograph(data: bytes, reading: ImageFolder) -> Radiograph:
    """Return the picture that a file's bytes hold; as `read_radiograph`, touching no disk."""
    if not data:
        raise UnreadableError("is empty: get a whole copy")
    if is_dicom(data[:132]):
        return _read_dicom(data, reading)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # odd metadata; whether the pixels are whole is what matters
            deep = open_deep_picture(data)
            return _read_deep(deep, data, reading) if deep else _read_picture(data, reading)
    except UnidentifiedImageError:
        raise UnreadableError("is no picture of a known format: replace or remove it") from None
    except Image.DecompressionBombError:
        raise UnreadableError("claims far too many pixels: resize it") from None
    except UnreadableError:
        raise
    except Exception as error:  # Pillow raises nearly everything on damaged files
        words = (str(error).strip() or type(error).__name__).splitlines()[0][:150]
        what = "truncated" if "truncated" in words.lower() else "damaged"
        raise UnreadableError(f"is {what} ({words}): get a whole copy") from None


def _read_picture(data: bytes, reading: ImageFolder) -> Radiograph:
    with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
        _check_size(image.width, image.height)
        notes = [f"first of {image.n_frames} pages"] if getattr(image, "n_frames", 1) > 1 else []
        mode = image.mode
        with _one_large if image.width * image.height > _LARGE else nullcontext():
            if not _load(image, keep=reading.truncated == "keep" and image.format == "JPEG"):
                notes.append("truncated: what is missing is grey")
            image = ImageOps.exif_transpose(image)
            pixels, colour = _to_grey(image, reading.depth)
    return Radiograph(pixels, mode, hashlib.sha256(data).hexdigest(), note="; ".join(notes), colour=colour)


def _check_size(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise UnreadableError(f"{width} x {height} pixels are too many: resize it")


def _read_deep(file: DeepFile, data: bytes, reading: ImageFolder) -> Radiograph:
    """Return a picture of more than 8 bits that Pillow does not read whole."""
    _check_size(file.width, file.height)
    with _one_large if file.width * file.height > _LARGE else nullcontext():
        deep = file.read()
        grey, colour = _scale_samples(deep.samples, reading.depth, deep.alpha, deep.invert)
    image = Image.fromarray(grey)
    image.getexif()[ExifTags.Base.Orientation] = deep.orientation
    grey = np.array(ImageOps.exif_transpose(image))
    note = f"first of {deep.pages} pages" if deep.pages > 1 else ""
    return Radiograph(grey, deep.mode, hashlib.sha256(data).hexdigest(), note=note, colour=colour)


def _scale_samples(
    samples: np.ndarray, depth: str, alpha: np.ndarray | None = None, invert: bool = False
) -> tuple[np.ndarray, float]:
    """Return 8-bit grey of grey or colour of any depth by its own range, and how much colour there was."""
    colour = 0.0
    if samples.ndim == 3:
        if samples.dtype not in (np.uint8, np.uint16):  # what OpenCV converts
            samples = samples.astype(np.float32)
        small = cv2.resize(samples, (64, 64), interpolation=cv2.INTER_AREA).astype(np.float32)
        spread = float((small.max(axis=-1) - small.min(axis=-1)).mean())
        top = 255.0 if samples.dtype == np.uint8 else max(float(small.max()), 1e-9)
        colour = spread * 255 / top
        samples = cv2.cvtColor(np.ascontiguousarray(samples), cv2.COLOR_RGB2GRAY)
    transparent = None
    if alpha is not None and alpha.min() < alpha.max():
        transparent = alpha == 0
        top = np.iinfo(alpha.dtype).max if alpha.dtype.kind in "iu" else 1.0
        samples = samples * (alpha.astype(np.float32) / np.float32(top))
    if samples.dtype == np.uint8:
        return samples, colour
    return _to_bytes(samples.astype(np.float32), depth, None, transparent, invert), colour


def _load(image: Image.Image, *, keep: bool) -> bool:
    """Decode; return whether the file was whole. What is truncated is an error unless it is to be kept."""
    try:
        image.load()
        return True
    except OSError:
        if not keep:
            raise
    with _truncation:  # Pillow's switch is one for all threads
        ImageFile.LOAD_TRUNCATED_IMAGES = True
        try:
            image.load()
        finally:
            ImageFile.LOAD_TRUNCATED_IMAGES = False
    return False


def _read_dicom(data: bytes, reading: ImageFolder) -> Radiograph:
    with _one_large if len(data) > 2 * _LARGE else nullcontext():
        try:
            plane = read_plane(data, MAX_PIXELS, other_modalities=reading.other_modalities)
        except DicomError as error:
            raise UnreadableError(str(error)) from None
        if plane.values.ndim == 3:
            grey, colour = _scale_samples(plane.values, reading.depth)
        else:
            grey, colour = (
                _to_bytes(plane.values, reading.depth, plane.window, plane.padding, plane.invert),
                0.0,
            )
    return Radiograph(grey, plane.mode, hashlib.sha256(data).hexdigest(), plane.patient, plane.note, colour)


def _read_bytes(path: Path, folder: Path) -> bytes:
    try:
        what = path.lstat()
        if stat.S_ISLNK(what.st_mode):
            if not os.path.realpath(path).startswith(os.path.join(os.path.realpath(folder), "")):
                raise UnreadableError(
                    "is a link out of the data folder, or to nothing: put the file itself there"
                )
            what = path.stat()
        if not stat.S_ISREG(what.st_mode):
            raise UnreadableError("is no ordinary file: remove it")
        if what.st_size == 0:
            raise UnreadableError("is empty: get a whole copy")
        if what.st_size > MAX_BYTES:
            raise UnreadableError(f"has {what.st_size / 1e6:.0f} MB, too many for a radiograph: convert it")
        return path.read_bytes()
    except (OSError, ValueError) as error:
        words = getattr(error, "strerror", None) or str(error)
        raise UnreadableError(
            f"cannot be opened ({words}): check that it is there, and its permissions"
        ) from None


def _to_grey(image: Image.Image, depth: str) -> tuple[np.ndarray, float]:
    """Return 8-bit grey, and how much colour there was."""
    if image.mode.startswith(("I", "F")):  # 16 and 32 bits: Pillow would clip, not scale
        return _to_bytes(np.asarray(image, dtype=np.float32), depth), 0.0
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, (0, 0, 0, 255)), image)
    if image.mode in ("1", "L"):
        return np.array(image.convert("L")), 0.0
    image = image.convert("RGB")
    small = np.asarray(image.resize((64, 64), Image.Resampling.BOX), dtype=np.int16)
    return np.array(image.convert("L")), float((small.max(axis=-1) - small.min(axis=-1)).mean())


def _to_bytes(
    values: np.ndarray,
    depth: str,
    window: tuple[float, float] | None = None,
    padding: np.ndarray | None = None,
    invert: bool = False,
) -> np.ndarray:
    """Scale to 0-255 by the window, or by the values that are no padding; padding becomes black."""
    unknown = ~np.isfinite(values)
    if unknown.any():
        values = np.where(unknown, np.float32(0), values)
        padding = unknown if padding is None else padding | unknown
    if window is None:
        shown = values if padding is None or padding.all() else values[~padding]
        low, high = (
            np.percentile(shown, (0.5, 99.5)) if depth == "percentiles" else (shown.min(), shown.max())
        )
        if high <= low:  # next to all values are one
            low, high = shown.min(), shown.max()
    else:
        low, high = window
    grey = np.clip((values - low) * (255 / max(float(high) - float(low), 1e-9)), 0, 255)
    grey = np.round(255 - grey if invert else grey).astype(np.uint8)
    if padding is not None:
        grey[padding] = 0
    return grey
