"""One file in; one grey picture out, or the reason why not."""

import hashlib
import io
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")
MAX_PIXELS = 100_000_000  # more than any radiograph; a header that claims more is not decoded
MAX_BYTES = 500_000_000


class UnreadableError(Exception):
    """Why a file gives no picture: a phrase for the manifest's column ``reason``."""


class Radiograph(NamedTuple):
    """A picture and what its file said.

    Attributes
    ----------
    pixels : ndarray of uint8, shape (height, width), 0-255
    mode : str
        Pillow's name for how the file stores a pixel (``L``, ``RGB``, ``I;16``, ...).
    sha256 : str
        Of the file's bytes.
    """

    pixels: np.ndarray
    mode: str
    sha256: str


def read_radiograph(path: Path) -> Radiograph:
    """Read a PNG, JPEG, TIFF or BMP file as 8-bit grey.

    Colour becomes luminance, transparency lies on black, EXIF orientation is applied, and 16 bits are
    scaled from the picture's own minimum and maximum.

    Raises
    ------
    UnreadableError
        With the reason: empty, too large, truncated, or no picture at all.
    """
    data = _read_bytes(path)
    try:
        with Image.open(io.BytesIO(data)) as image:
            if image.width * image.height > MAX_PIXELS:
                raise UnreadableError(f"{image.width} x {image.height} pixels are too many: resize it")
            mode = image.mode
            pixels = _to_grey(ImageOps.exif_transpose(image))
    except UnidentifiedImageError:
        raise UnreadableError("is no picture of a known format: replace or remove it") from None
    except Image.DecompressionBombError:
        raise UnreadableError("claims far too many pixels: resize it") from None
    except (OSError, SyntaxError, ValueError, EOFError, MemoryError) as error:
        what = "truncated" if "truncated" in str(error).lower() else "damaged"
        raise UnreadableError(f"is {what} ({error}): get a whole copy") from None
    return Radiograph(pixels, mode, hashlib.sha256(data).hexdigest())


def _read_bytes(path: Path) -> bytes:
    try:
        size = path.stat().st_size
        if not path.is_file():
            raise UnreadableError("is no ordinary file: remove it")
        if size == 0:
            raise UnreadableError("is empty: get a whole copy")
        if size > MAX_BYTES:
            raise UnreadableError(f"has {size / 1e6:.0f} MB, too many for a radiograph: convert it")
        return path.read_bytes()
    except OSError as error:
        raise UnreadableError(f"cannot be opened ({error.strerror}): check its permissions") from None


def _to_grey(image: Image.Image) -> np.ndarray:
    if image.mode.startswith(("I", "F")):  # 16 and 32 bits: Pillow would clip, not scale
        values = np.asarray(image, dtype=np.float64)
        low, high = values.min(), values.max()
        return np.round((values - low) * (255 / max(high - low, 1e-9))).astype(np.uint8)
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, (0, 0, 0, 255)), image)
    return np.array(image.convert("L"))
