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

from xray_helpers.images.dicom import is_dicom, read_dicom
from xray_helpers.images.errors import UnreadableError
from xray_helpers.images.grey import image_to_grey, samples_to_grey, values_to_grey
from xray_helpers.images.high_bit_depth import HighBitDepthFile, open_high_bit_depth

# Pillow's name of a format: endings of its files, and their first bytes. Others are a risk.
PILLOW_FORMATS = {
    "PNG": ((".png",), (b"\x89PNG\r\n",)),
    "JPEG": ((".jpg", ".jpeg", ".jpe", ".jfif"), (b"\xff\xd8\xff",)),
    "TIFF": ((".tif", ".tiff"), (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")),
    "BMP": ((".bmp",), ()),
    "WEBP": ((".webp",), ()),
    "GIF": ((".gif",), (b"GIF8",)),
    "PPM": ((".pgm", ".ppm", ".pnm"), ()),
    "JPEG2000": ((".jp2", ".j2k"), (b"\0\0\0\x0cjP  ", b"\xff\x4f\xff\x51")),
}
SUFFIXES = (*sum((endings for endings, _ in PILLOW_FORMATS.values()), ()), ".dcm", ".dicom", ".ima")
MAX_PIXELS = 64_000_000  # more than any radiograph; a header that claims more is not decoded
MAX_BYTES = 500_000_000
_FIRST_BYTES = sum((first for _, first in PILLOW_FORMATS.values()), ())
_MIN_SIDE, _MAX_ASPECT = 32, 5  # pixels of the shorter side, and longer by shorter side, of a radiograph
_MIN_DEVIATION = 2.0  # standard deviation of grey levels (0-255) of a picture that shows something
_COLOURED = 12.0  # mean spread of the channels (0-255) of a colour photograph
_LARGE = 8_000_000  # pixels from which pictures are decoded one at a time, so that memory stays bounded
_one_large = threading.Lock()
_truncation = threading.Lock()


class Radiograph(NamedTuple):
    """A picture, and what its file says.

    Attributes
    ----------
    pixels : ndarray of uint8, shape (height, width), 0-255
    mode : str
        How the file stores a pixel: Pillow's name (``L``, ``RGB``, ``I;16``, ...), ``RGB;16`` and the like
        for files of `high_bit_depth`, or ``DICOM MONOCHROME1 12 bit``.
    sha256 : str
        Of the file's bytes.
    patient : str
        A salted hash of the patient or study of a DICOM file; empty for other files.
    exam : str
        A salted hash of the study of a DICOM file (its StudyInstanceUID); empty for other files.
    note : str
        What a reader should know of this picture; mostly empty.
    colour : float
        Mean difference between the largest and the smallest channel, 0-255; close to 0 in radiographs.
    """

    pixels: np.ndarray
    mode: str
    sha256: str = ""
    patient: str = ""
    note: str = ""
    colour: float = 0.0
    exam: str = ""


class ImageFolder(NamedTuple):
    """Where images are, and how they are read.

    Attributes
    ----------
    path : Path
    depth : {'percentiles', 'range'}
        What becomes black and white if there are more than 8 bits and no window: the 0.5th and 99.5th
        percentile, or the smallest and the largest value.
    truncated : {'exclude', 'keep'}
        Whether the remaining part of a truncated JPEG is read.
    other_modalities : bool
        Whether DICOM files other than plain radiographs are read.
    resize : {'stretch', 'pad'}
        Whether a picture is stretched to the input size of the models, or keeps its aspect ratio on black.
    places : mapping of str to str, optional
        The path of each name, for files that have no folder in common.
    """

    path: Path
    depth: str = "percentiles"
    truncated: str = "exclude"
    other_modalities: bool = False
    resize: str = "stretch"
    places: Mapping[str, str] | None = None

    @property
    def how(self) -> tuple:
        """How files are read, without where they are."""
        return self[1:-1]

    def read(self, name: str) -> Radiograph:
        """Read one file by its name in the manifest; raises as `read_radiograph`."""
        if self.places:
            path = Path(self.places[name])
            return read_radiograph(path, self._replace(path=path.parent))
        return read_radiograph(find_file(self.path, name), self)


def image_folder(folder: "ImageFolder | Path") -> ImageFolder:
    """Return an `ImageFolder`, with the defaults if a path is given."""
    return folder if isinstance(folder, ImageFolder) else ImageFolder(folder)


def looks_like_picture(head: bytes) -> bool:
    """Return whether a file with these first 132 bytes has a format that is read, whatever its name."""
    bitmap = head[:2] == b"BM" and head[6:10] == b"\0\0\0\0"
    webp = head[:4] == b"RIFF" and head[8:12] == b"WEBP"
    pnm = re.match(rb"P[1-6]\s+(#|\d)", head) is not None
    return head.startswith(_FIRST_BYTES) or bitmap or webp or pnm or is_dicom(head)


def check_picture(picture: Radiograph) -> Radiograph:
    """Return a picture, not yet resized, with a note if it does not look like a radiograph.

    Raises
    ------
    UnreadableError
        If it is almost uniform.
    """
    if cv2.meanStdDev(picture.pixels)[1].item() < _MIN_DEVIATION:  # NumPy would copy the pixels as floats
        raise UnreadableError("is almost one grey: there is no picture in it")
    height, width = picture.pixels.shape
    shorter, longer = sorted((height, width))
    notes = [
        "a colour photograph, no radiograph" if picture.colour > _COLOURED else "",
        f"too small: {width} x {height} pixels" if shorter < _MIN_SIDE else "",
        f"very long and thin: {width} x {height} pixels" if longer > _MAX_ASPECT * shorter else "",
        picture.note,
    ]
    return picture._replace(note="; ".join(filter(None, notes)))


def escape_name(name: str) -> str:
    """Return a relative path as text, with control characters and bytes other than UTF-8 percent-encoded."""
    if name.isprintable() and not any("\ud800" <= c <= "\udfff" for c in name):
        return name
    return quote(os.fsencode(name), safe="/ !#$&'()*+,;=:@[]{}^~|<>\"?-_.")


def find_file(folder: Path, name: str) -> Path:
    """Return the path of a file by its name in a table, whether percent-encoded or not."""
    path = folder / name
    if "%" in name and not os.path.lexists(path):
        return folder / os.fsdecode(unquote_to_bytes(name))
    return path


def read_radiograph(path: Path, reading: ImageFolder | None = None) -> Radiograph:
    """Read a PNG, JPEG, JPEG 2000, TIFF, BMP, WebP, GIF, PGM, PPM or DICOM file as 8-bit grey.

    The format is known by the content, not by the name. Colour becomes luminance, transparent pixels become
    black, EXIF orientation is applied, and only the first of several pages or frames is read. More than 8
    bits are scaled by the file's own window, or else as `reading` says.

    Raises
    ------
    UnreadableError
        With the reason: empty, too large, truncated, not a plain radiograph, or not a picture at all.
    """
    reading = reading or ImageFolder(path.parent)
    return decode_radiograph(_read_bytes(path, reading.path), reading)


def decode_radiograph(data: bytes, reading: ImageFolder) -> Radiograph:
    """Return the picture in a file's bytes; as `read_radiograph`, without reading from disk."""
    return _decode(data, reading)._replace(sha256=hashlib.sha256(data).hexdigest())


def _decode(data: bytes, reading: ImageFolder) -> Radiograph:
    if not data:
        raise UnreadableError("is empty: get a complete copy")
    if is_dicom(data[:132]):
        return _decode_dicom(data, reading)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # unusual metadata; only the pixels matter
            file = open_high_bit_depth(data)
            return _decode_high_bit_depth(file, reading) if file else _decode_picture(data, reading)
    except UnidentifiedImageError:
        raise UnreadableError("is no picture of a known format: replace or remove it") from None
    except Image.DecompressionBombError:
        raise UnreadableError("claims far too many pixels: resize it") from None
    except UnreadableError:
        raise
    except Exception as error:  # Pillow raises exceptions of any type on damaged files
        message = (str(error).strip() or type(error).__name__).splitlines()[0][:150]
        state = "truncated" if "truncated" in message.lower() else "damaged"
        raise UnreadableError(f"is {state} ({message}): get a complete copy") from None


def _decode_dicom(data: bytes, reading: ImageFolder) -> Radiograph:
    with _one_large if len(data) > 2 * _LARGE else nullcontext():
        image = read_dicom(data, MAX_PIXELS, other_modalities=reading.other_modalities)
        if image.values.ndim == 3:
            grey, colour = samples_to_grey(image.values, reading.depth)
        else:
            grey = values_to_grey(
                image.values, reading.depth, limits=image.limits, masked=image.masked, invert=image.invert
            )
            colour = 0.0
    about = {"patient": image.patient, "exam": image.exam, "note": image.note}
    return Radiograph(grey, image.mode, colour=colour, **about)


def _decode_high_bit_depth(file: HighBitDepthFile, reading: ImageFolder) -> Radiograph:
    _check_size(file.width, file.height)
    with _one_large if file.width * file.height > _LARGE else nullcontext():
        samples = file.read()
        grey, colour = samples_to_grey(
            samples.values, reading.depth, alpha=samples.alpha, invert=samples.invert
        )
    image = Image.fromarray(grey)
    image.getexif()[ExifTags.Base.Orientation] = samples.orientation
    grey = np.array(ImageOps.exif_transpose(image))
    return Radiograph(grey, samples.mode, note=_note_pages(samples.pages), colour=colour)


def _decode_picture(data: bytes, reading: ImageFolder) -> Radiograph:
    with Image.open(io.BytesIO(data), formats=tuple(PILLOW_FORMATS)) as image:
        _check_size(image.width, image.height)
        mode, note = image.mode, _note_pages(getattr(image, "n_frames", 1))
        with _one_large if image.width * image.height > _LARGE else nullcontext():
            if not _load(image, keep=reading.truncated == "keep" and image.format == "JPEG"):
                note = "; ".join(filter(None, (note, "truncated: what is missing is grey")))
            grey, colour = image_to_grey(ImageOps.exif_transpose(image), reading.depth)
    return Radiograph(grey, mode, note=note, colour=colour)


def _check_size(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise UnreadableError(f"{width} x {height} pixels are too many: resize it")


def _note_pages(pages: int) -> str:
    return f"first of {pages} pages" if pages > 1 else ""


def _load(image: Image.Image, *, keep: bool) -> bool:
    """Decode, and return whether the file is complete. Raises on truncated files unless they are kept."""
    try:
        image.load()
        return True
    except OSError:
        if not keep:
            raise
    with _truncation:  # Pillow's switch applies to all threads
        ImageFile.LOAD_TRUNCATED_IMAGES = True
        try:
            image.load()
        finally:
            ImageFile.LOAD_TRUNCATED_IMAGES = False
    return False


def _read_bytes(path: Path, folder: Path) -> bytes:
    try:
        info = path.lstat()
        if stat.S_ISLNK(info.st_mode):
            if not os.path.realpath(path).startswith(os.path.join(os.path.realpath(folder), "")):
                raise UnreadableError(
                    "is a link out of the data folder, or to nothing: put the file itself there"
                )
            info = path.stat()
        if not stat.S_ISREG(info.st_mode):
            raise UnreadableError("is not an ordinary file: remove it")
        if info.st_size == 0:
            raise UnreadableError("is empty: get a complete copy")
        if info.st_size > MAX_BYTES:
            raise UnreadableError(f"has {info.st_size / 1e6:.0f} MB, too many for a radiograph: convert it")
        return path.read_bytes()
    except (OSError, ValueError) as error:
        message = getattr(error, "strerror", None) or str(error)
        raise UnreadableError(
            f"cannot be opened ({message}): check that it is there, and its permissions"
        ) from None
