"""Compressed frames of DICOM and of image files, decoded by imagecodecs to their stored values."""

import struct
from threading import Lock
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from pydicom.pixels.decoders.base import DecodeRunner
PLUGIN = "imagecodecs"  # pydicom's name for `decode_frame`
LOSSY = tuple(f"1.2.840.10008.1.2.4.{number}" for number in (50, 51, 81, 91, 203))  # transfer syntaxes
DECODER_DEPENDENCIES = {  # the name that pydicom looks for in a plugin
    f"1.2.840.10008.1.2.4.{number}": ("imagecodecs",)
    for number in (50, 51, 57, 70, 80, 81, 90, 91, 201, 202, 203)
}
_JPEG, _JPEG_2000 = b"\xff\xd8\xff", b"\xff\x4f\xff\x51"  # the first bytes of codestreams
_LOSSLESS, _JPEG_LS = 0xC3, 0xF7  # frame markers; the others are DCT-coded
_FRAME_MARKERS = {*range(0xC0, 0xD0), _JPEG_LS} - {0xC4, 0xC8, 0xCC}
_ADOBE = b"\xff\xee\x00\x0eAdobe"  # the start of the complete segment; libjpeg ignores shorter ones
_START_OF_SCAN, _END_OF_IMAGE = b"\xff\xda", b"\xff\xd9"  # do not occur within coded data
_registration = Lock()


class FrameHeader(NamedTuple):
    """Size, channels and bits per sample of a JPEG, JPEG-LS or JPEG 2000 codestream.

    `marker` is that of the JPEG frame, which identifies the process; 0 for JPEG 2000.
    """

    height: int
    width: int
    samples: int
    precision: int
    marker: int


def read_header(codestream: bytes) -> FrameHeader | None:
    """Return the header of a codestream, without decoding it, or None if it is not any kind of JPEG."""
    try:
        if codestream.startswith(_JPEG):
            return _read_jpeg_header(codestream)
        start = codestream.find(_JPEG_2000, 0, 4096)  # a JP2 file has boxes before it
        if start < 0:
            return None
        right, bottom, left, top = struct.unpack_from(">4I", codestream, start + 8)
        samples, precision = struct.unpack_from(">HB", codestream, start + 40)
        return FrameHeader(bottom - top, right - left, samples, (precision & 0x7F) + 1, 0)
    except struct.error:
        return None


def _read_jpeg_header(codestream: bytes) -> FrameHeader:
    """Skip segments up to the frame header (ISO/IEC 10918-1, B.2.2)."""
    offset = 2
    while True:
        fill, marker, length = struct.unpack_from(">BBH", codestream, offset)
        if marker in _FRAME_MARKERS and fill == 0xFF:
            precision, height, width, samples = struct.unpack_from(">BHHB", codestream, offset + 4)
            return FrameHeader(height, width, samples, precision, marker)
        offset += 1 if marker == 0xFF else 2 + length


def decode(codestream: bytes, *, ybr: bool | None = None) -> np.ndarray:
    """Return the unscaled samples of a codestream.

    Parameters
    ----------
    codestream : bytes
        JPEG of any process, JPEG-LS, JPEG 2000 or High-Throughput JPEG 2000.
    ybr : bool, optional
        Whether the three channels of a DCT-coded JPEG are luminance and chrominance. By default, the
        codestream decides.

    Returns
    -------
    ndarray of integers, shape (height, width) or (height, width, channels)

    Raises
    ------
    Exception
        Of any type, from imagecodecs, if the codestream is damaged.
    """
    import imagecodecs

    header = read_header(codestream)
    if header is None:
        raise ValueError("not any kind of JPEG")
    if not header.marker:
        return imagecodecs.jpeg2k_decode(codestream)
    if codestream.rfind(_END_OF_IMAGE) < codestream.rfind(_START_OF_SCAN):  # libjpeg would invent the rest
        raise ValueError("truncated")
    if header.marker == _JPEG_LS:
        return imagecodecs.jpegls_decode(codestream)
    if header.marker == _LOSSLESS and header.samples > 1:
        return imagecodecs.jpegsof3_decode(codestream)  # never converts colours
    if header.samples != 3 or ybr is None:
        return imagecodecs.jpeg8_decode(codestream)
    return imagecodecs.jpeg8_decode(codestream, colorspace="YCBCR" if ybr else "RGB", outcolorspace="RGB")


def register() -> None:
    """Add `decode_frame` to pydicom's decoders for every kind of JPEG. Safe to call from several threads."""
    from pydicom.pixels import get_decoder

    with _registration:  # pydicom does not allow a plugin to be added twice
        for decoder in map(get_decoder, DECODER_DEPENDENCIES):
            if PLUGIN not in decoder.available_plugins:
                decoder.add_plugin(PLUGIN, (__name__, "decode_frame"))


def is_available(syntax: str) -> bool:
    """Return whether a transfer syntax can be decoded. pydicom calls this."""
    return syntax in DECODER_DEPENDENCIES


def decode_frame(codestream: bytes, runner: "DecodeRunner") -> bytes:
    """Decode one frame. pydicom calls this."""
    adobe = _ADOBE in codestream[:4096]  # then the codestream itself says how its colours are coded
    samples = decode(codestream, ybr=None if adobe else "YBR" in runner.photometric_interpretation)
    converted = read_header(codestream).marker not in (0, _LOSSLESS, _JPEG_LS)
    if runner.samples_per_pixel == 3 and (
        converted or runner.photometric_interpretation in ("YBR_ICT", "YBR_RCT")
    ):
        runner.set_option("photometric_interpretation", "RGB")
    runner.set_option("planar_configuration", 0)
    runner.set_option("bits_allocated", 8 * samples.dtype.itemsize)
    return samples.tobytes()
