"""Image files whose samples Pillow would reduce to 8 bits or cannot read, with all their bits."""

import io
import logging
import re
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import ExifTags, Image

from xray_helpers.images.decoders import decode, read_header

if TYPE_CHECKING:
    import tifffile
_PNG, _TIFF = b"\x89PNG\r\n\x1a\n", (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_PNM = re.compile(rb"P[36](?:\s+|#[^\n]*\n)+(\d+)(?:\s+|#[^\n]*\n)+(\d+)(?:\s+|#[^\n]*\n)+(\d+)\s")
_DCT = (0xC0, 0xC1, 0xC2)  # the frame markers of JPEG that Pillow reads, in 8 bits


class Samples(NamedTuple):
    """The samples of an image.

    Attributes
    ----------
    values : ndarray of integers or floats, shape (height, width) or (height, width, 3)
    mode : str
        Such as ``RGB;16``, or ``L;32F`` for floats.
    alpha : ndarray, shape (height, width), optional
        Opacity, from 0 to the maximum of its type.
    invert : bool
        Whether low values are bright.
    orientation : int
        As numbered by EXIF; 1 is upright.
    pages : int
    """

    values: np.ndarray
    mode: str
    alpha: np.ndarray | None = None
    invert: bool = False
    orientation: int = 1
    pages: int = 1


class HighBitDepthFile(NamedTuple):
    """The size that a file's header claims, and a function that decodes it.

    `read` raises exceptions of any type if the file is damaged.
    """

    width: int
    height: int
    read: Callable[[], Samples]


def open_high_bit_depth(data: bytes) -> HighBitDepthFile | None:
    """Return a file of more than 8 bits per sample, not yet decoded, or None if Pillow reads it completely.

    These are 16-bit PNG and PPM in colour or with transparency, TIFF of other than 8 bits, JPEG 2000 of more
    than 8 bits, and JPEG other than 8-bit DCT.
    """
    if data.startswith(_TIFF):
        return _open_tiff(data)
    if data.startswith(_PNG):
        deep = data[24:25] == b"\x10" and data[25:26] in (b"\x02", b"\x04", b"\x06")
        size = int.from_bytes(data[16:20]), int.from_bytes(data[20:24])
        return HighBitDepthFile(*size, lambda: _read_png(data)) if deep else None
    netpbm = _PNM.match(data)
    if netpbm:
        width, height, largest = (int(number) for number in netpbm.groups())
        return HighBitDepthFile(width, height, lambda: _read_ppm(data, netpbm)) if largest > 255 else None
    header = read_header(data)
    if header is None or header.samples > 4 or (header.precision <= 8 and header.marker in (0, *_DCT)):
        return None
    return HighBitDepthFile(
        header.width, header.height, lambda: _split_channels(decode(data), _find_orientation(data))
    )


def _split_channels(samples: np.ndarray, orientation: int = 1) -> Samples:
    """Separate colours and alpha, known by the number of channels."""
    bits = f"{8 * samples.dtype.itemsize}{'F' if samples.dtype.kind == 'f' else ''}"
    if samples.ndim == 2:
        return Samples(samples, f"L;{bits}", orientation=orientation)
    count = samples.shape[2]
    colours = samples[..., :3] if count > 2 else samples[..., 0]
    alpha = samples[..., -1] if count in (2, 4) else None
    mode = ("L", "LA", "RGB", "RGBA")[min(count, 4) - 1]
    return Samples(colours, f"{mode};{bits}", alpha, orientation=orientation)


def _read_png(data: bytes) -> Samples:
    import imagecodecs

    return _split_channels(imagecodecs.png_decode(data), _find_orientation(data))


def _read_ppm(data: bytes, header: re.Match) -> Samples:
    """Read 16-bit colours, in binary (P6) or as text (P3)."""
    width, height, _ = (int(number) for number in header.groups())
    count = 3 * width * height
    if data.startswith(b"P6"):
        values = np.frombuffer(data, ">u2", count, header.end()).astype(np.uint16)
    else:
        numbers = data[header.end() :].split()
        if len(numbers) < count:
            raise ValueError("truncated: it ends before its last pixel")
        values = np.array(numbers[:count], dtype=np.uint16)
    return _split_channels(values.reshape(height, width, 3))


def _find_orientation(data: bytes) -> int:
    with suppress(Exception), Image.open(io.BytesIO(data)) as image:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    return 1


def _open_tiff(data: bytes) -> HighBitDepthFile | None:
    import tifffile

    logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # it reports unusual tags, which do not matter
    try:
        tiff = tifffile.TiffFile(io.BytesIO(data))
        page = tiff.pages[0]
        kinds = (tifffile.PHOTOMETRIC.MINISWHITE, tifffile.PHOTOMETRIC.MINISBLACK, tifffile.PHOTOMETRIC.RGB)
        eight_bit = page.bitspersample <= 8 and page.sampleformat == tifffile.SAMPLEFORMAT.UINT
        if eight_bit or page.photometric not in kinds or page.dtype is None:
            return None
    except Exception:  # Pillow reports what is wrong with it
        return None
    return HighBitDepthFile(page.imagewidth, page.imagelength, lambda: _read_tiff(tiff))


def _read_tiff(tiff: "tifffile.TiffFile") -> Samples:
    """Decode the first page, without channels other than colour and transparency."""
    from tifffile import EXTRASAMPLE, PHOTOMETRIC

    page = tiff.pages[0]
    values = page.asarray(maxworkers=1)
    if page.axes.startswith("S"):  # one plane per channel
        values = np.moveaxis(values, 0, -1)
    values = values.reshape(page.imagelength, page.imagewidth, -1)
    colours = 3 if page.photometric == PHOTOMETRIC.RGB else 1
    has_alpha = page.extrasamples[:1] == (EXTRASAMPLE.UNASSALPHA,)  # associated alpha is applied already
    values = values[..., : colours + has_alpha]
    orientation = page.tags.get("Orientation")
    return _split_channels(values.squeeze(axis=2) if values.shape[2] == 1 else values)._replace(
        invert=page.photometric == PHOTOMETRIC.MINISWHITE,
        orientation=int(orientation.value) if orientation else 1,
        pages=len(tiff.pages),
    )
