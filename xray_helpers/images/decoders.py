"""Compressed frames of DICOM and of picture files, decoded by imagecodecs to the stored values."""

import struct
from threading import Lock
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from pydicom.pixels.decoders.base import DecodeRunner
PLUGIN = "imagecodecs"  # the name under which pydicom knows `decode_frame`
JPEG, JPEG_2000 = b"\xff\xd8\xff", b"\xff\x4f\xff\x51"  # how such codestreams begin
LOSSY = tuple(f"1.2.840.10008.1.2.4.{number}" for number in (50, 51, 81, 91, 203))  # transfer syntaxes
_LOSSLESS, _LS = 0xC3, 0xF7  # the frame markers of lossless JPEG and of JPEG-LS; others are DCT
_ADOBE = b"\xff\xee\x00\x0eAdobe"  # the whole segment; libjpeg takes no shorter one
_SCAN, _END = b"\xff\xda", b"\xff\xd9"  # neither occurs within coded data
_registering = Lock()
_FRAMES = {*range(0xC0, 0xD0), _LS} - {0xC4, 0xC8, 0xCC}


class FrameHeader(NamedTuple):
    """What a JPEG, JPEG-LS or JPEG 2000 codestream says of itself.

    Attributes
    ----------
    height, width : int
        Pixels.
    samples : int
        Channels.
    precision : int
        Bits of a sample.
    marker : int
        Of the JPEG frame, which tells its process; 0 for JPEG 2000.
    """

    height: int
    width: int
    samples: int
    precision: int
    marker: int


def read_header(codestream: bytes) -> FrameHeader | None:
    """Return what the head of a codestream says, decoding nothing; None where it is no JPEG of any kind."""
    try:
        if codestream.startswith(JPEG):
            return _read_jpeg_header(codestream)
        start = codestream.find(JPEG_2000, 0, 4096)  # behind the boxes of a JP2 file, if any
        if start < 0:
            return None
        right, bottom, left, top = struct.unpack_from(">4I", codestream, start + 8)
        samples, precision = struct.unpack_from(">HB", codestream, start + 40)
        return FrameHeader(bottom - top, right - left, samples, (precision & 0x7F) + 1, 0)
    except struct.error:
        return None


def _read_jpeg_header(codestream: bytes) -> FrameHeader:
    """Walk over the segments to the frame header (ISO/IEC 10918-1, B.2.2)."""
    place = 2
    while True:
        fill, marker, length = struct.unpack_from(">BBH", codestream, place)
        if marker in _FRAMES and fill == 0xFF:
            precision, height, width, samples = struct.unpack_from(">BHHB", codestream, place + 4)
            return FrameHeader(height, width, samples, precision, marker)
        place += 1 if marker == 0xFF else 2 + length


def decode(codestream: bytes, *, ybr: bool | None = None) -> np.ndarray:
    """Return what a codestream holds, unscaled: (height, width) or (height, width, channels), integers.

    Parameters
    ----------
    codestream : bytes
        JPEG of any process, JPEG-LS, JPEG 2000 or High-Throughput JPEG 2000.
    ybr : bool, optional
        Whether the three channels of a DCT-coded JPEG are luminance and chrominance; as the codestream says
        by default.

    Raises
    ------
    Exception
        What imagecodecs raises on damaged files.
    """
    import imagecodecs

    header = read_header(codestream)
    if header is None:
        raise ValueError("no JPEG of any kind")
    if not header.marker:
        return imagecodecs.jpeg2k_decode(codestream)
    if codestream.rfind(_END) < codestream.rfind(_SCAN):  # libjpeg would make up the rest
        raise ValueError("truncated")
    if header.marker == _LS:
        return imagecodecs.jpegls_decode(codestream)
    if header.marker == _LOSSLESS and header.samples > 1:
        return imagecodecs.jpegsof3_decode(codestream)  # never converts colours
    if header.samples != 3 or ybr is None:
        return imagecodecs.jpeg8_decode(codestream)
    return imagecodecs.jpeg8_decode(codestream, colorspace="YCBCR" if ybr else "RGB", outcolorspace="RGB")


def register() -> None:
    """Make imagecodecs known to pydicom for every kind of JPEG; from several threads at once, too."""
    from pydicom.pixels import get_decoder

    with _registering:  # pydicom refuses a plugin that is added twice
        for decoder in map(get_decoder, DECODER_DEPENDENCIES):
            if PLUGIN not in decoder.available_plugins:
                decoder.add_plugin(PLUGIN, (__name__, "decode_frame"))


def decode_frame(codestream: bytes, runner: "DecodeRunner") -> bytes:
    """Decode one frame for pydicom: the function of its plugin."""
    adobe = _ADOBE in codestream[:4096]  # then the codestream itself says how its colours are coded
    values = decode(codestream, ybr=None if adobe else "YBR" in runner.photometric_interpretation)
    header = read_header(codestream)
    converted = header.marker not in (0, _LOSSLESS, _LS)
    if runner.samples_per_pixel == 3 and (
        converted or runner.photometric_interpretation in ("YBR_ICT", "YBR_RCT")
    ):
        runner.set_option("photometric_interpretation", "RGB")
    runner.set_option("planar_configuration", 0)
    runner.set_option("bits_allocated", 8 * values.dtype.itemsize)
    return values.tobytes()


def is_available(syntax: str) -> bool:
    """Tell pydicom that a transfer syntax can be decoded."""
    return syntax in DECODER_DEPENDENCIES


DECODER_DEPENDENCIES = {  # pydicom asks for it by this name
    f"1.2.840.10008.1.2.4.{number}": ("imagecodecs",)
    for number in (50, 51, 57, 70, 80, 81, 90, 91, 201, 202, 203)
}
