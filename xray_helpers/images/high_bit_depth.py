"""Picture files whose samples Pillow would reduce to 8 bits or not read at all, as their own numbers."""

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
_DCT = (0xC0, 0xC1, 0xC2)  # the frame markers of JPEG that Pillow reads, at 8 bits


class DeepPicture(NamedTuple):
    """The numbers of a picture, before they are made 8 bits.

    Attributes
    ----------
    samples : ndarray of integers or floats, shape (height, width) or (height, width, 3)
    alpha : ndarray, shape (height, width), optional
        How opaque each pixel is, 0 to the largest that its type holds.
    invert : bool
        Whether low values are bright.
    mode : str
        Such as ``RGB;16``, or ``L;32F`` of floats.
    orientation : int
        As EXIF numbers it; 1 is upright.
    pages : int
    """

    samples: np.ndarray
    alpha: np.ndarray | None = None
    invert: bool = False
    mode: str = ""
    orientation: int = 1
    pages: int = 1


class DeepFile(NamedTuple):
    """A picture whose header is read.

    Attributes
    ----------
    width, height : int
        As the header claims.
    read : callable
        Returns the `DeepPicture`; raises nearly everything on damaged files.
    """

    width: int
    height: int
    read: Callable[[], DeepPicture]


def open_deep_picture(data: bytes) -> DeepFile | None:
    """Return a picture of more than 8 bits a sample, not decoded yet; None where Pillow reads all there is.

    These are 16-bit PNG and PPM in colour or with transparency, TIFF of other than 8 bits, JPEG 2000 of more
    than 8, and JPEG that is no 8-bit DCT.
    """
    if data.startswith(_TIFF):
        return _open_tiff(data)
    if data.startswith(_PNG):
        deep = data[24:25] == b"\x10" and data[25:26] in (b"\x02", b"\x04", b"\x06")
        size = int.from_bytes(data[16:20]), int.from_bytes(data[20:24])
        return DeepFile(*size, lambda: _read_png(data)) if deep else None
    netpbm = _PNM.match(data)
    if netpbm:
        width, height, largest = (int(number) for number in netpbm.groups())
        return DeepFile(width, height, lambda: _read_ppm(data, netpbm)) if largest > 255 else None
    header = read_header(data)
    if header is None or header.samples > 4 or (header.precision <= 8 and header.marker in (0, *_DCT)):
        return None
    return DeepFile(header.width, header.height, lambda: _from_samples(decode(data), _find_orientation(data)))


def _from_samples(samples: np.ndarray, orientation: int = 1) -> DeepPicture:
    """Part colours from alpha by the number of channels."""
    bits = f"{8 * samples.dtype.itemsize}{'F' if samples.dtype.kind == 'f' else ''}"
    if samples.ndim == 2:
        return DeepPicture(samples, mode=f"L;{bits}", orientation=orientation)
    count = samples.shape[2]
    alpha = samples[..., -1] if count in (2, 4) else None
    colours = samples[..., :3] if count > 2 else samples[..., 0]
    return DeepPicture(
        colours,
        alpha,
        mode=f"{('L', 'LA', 'RGB', 'RGBA')[min(count, 4) - 1]};{bits}",
        orientation=orientation,
    )


def _read_png(data: bytes) -> DeepPicture:
    import imagecodecs

    return _from_samples(imagecodecs.png_decode(data), _find_orientation(data))


def _read_ppm(data: bytes, header: re.Match) -> DeepPicture:
    """Read colours of 16 bits, in binary (P6) or in words (P3)."""
    width, height, _ = (int(number) for number in header.groups())
    if data.startswith(b"P6"):
        samples = np.frombuffer(data, ">u2", 3 * width * height, header.end()).astype(np.uint16)
    else:
        words = data[header.end() :].split()
        if len(words) < 3 * width * height:
            raise ValueError("truncated: it ends before its last pixel")
        samples = np.array(words[: 3 * width * height], dtype=np.uint16)
    return _from_samples(samples.reshape(height, width, 3))


def _find_orientation(data: bytes) -> int:
    with suppress(Exception), Image.open(io.BytesIO(data)) as image:  # without one it is upright
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    return 1


def _open_tiff(data: bytes) -> DeepFile | None:
    import tifffile

    logging.getLogger("tifffile").setLevel(
        logging.CRITICAL
    )  # it tells of odd tags; the pixels are what matters
    try:
        tiff = tifffile.TiffFile(io.BytesIO(data))
        page = tiff.pages[0]
        kinds = (tifffile.PHOTOMETRIC.MINISWHITE, tifffile.PHOTOMETRIC.MINISBLACK, tifffile.PHOTOMETRIC.RGB)
        plain = page.bitspersample <= 8 and page.sampleformat == tifffile.SAMPLEFORMAT.UINT
        if plain or page.photometric not in kinds or page.dtype is None:
            return None
    except Exception:  # Pillow says what is wrong with it
        return None
    return DeepFile(page.imagewidth, page.imagelength, lambda: _read_tiff(tiff))


def _read_tiff(tiff: "tifffile.TiffFile") -> DeepPicture:
    """Decode the first page. Channels beyond colour and transparency are left out."""
    from tifffile import EXTRASAMPLE, PHOTOMETRIC

    page = tiff.pages[0]
    samples = page.asarray(maxworkers=1)
    if page.axes.startswith("S"):  # a plane a channel
        samples = np.moveaxis(samples, 0, -1)
    samples = samples.reshape(page.imagelength, page.imagewidth, -1)
    colours = 3 if page.photometric == PHOTOMETRIC.RGB else 1
    see_through = page.extrasamples[:1] == (EXTRASAMPLE.UNASSALPHA,)  # the other kind lies on black already
    samples = samples[..., : colours + see_through]
    orientation = page.tags.get("Orientation")
    found = _from_samples(samples.squeeze(axis=2) if samples.shape[2] == 1 else samples)
    return found._replace(
        invert=page.photometric == PHOTOMETRIC.MINISWHITE,
        orientation=int(orientation.value) if orientation else 1,
        pages=len(tiff.pages),
    )
