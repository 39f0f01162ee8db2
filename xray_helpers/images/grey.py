"""From samples of any depth, in grey or colour, to 8-bit grey."""

import cv2
import numpy as np
from PIL import Image


def scale_to_bytes(values: np.ndarray, low: float, high: float, *, invert: bool = False) -> np.ndarray:
    """Return uint8 that rises from 0 at `low` to 255 at `high`, or falls if inverted."""
    scaled = np.clip((values - low) * (255 / max(float(high) - float(low), 1e-9)), 0, 255)
    return np.round(255 - scaled if invert else scaled).astype(np.uint8)


def values_to_grey(
    values: np.ndarray,
    depth: str,
    *,
    limits: tuple[float, float] | None = None,
    masked: np.ndarray | None = None,
    invert: bool = False,
) -> np.ndarray:
    """Return 8-bit grey of values of any range.

    Parameters
    ----------
    values : ndarray of float32, shape (height, width)
    depth : {'percentiles', 'range'}
        What becomes black and white without `limits`: the 0.5th and 99.5th percentile, or the smallest and
        the largest value.
    limits : (float, float), optional
        The values of black and white.
    masked : ndarray of bool, shape (height, width), optional
        Pixels that show nothing: they become black and do not count towards the range. So do values that
        are not finite.
    invert : bool
        Whether low values are bright.
    """
    not_finite = ~np.isfinite(values)
    if not_finite.any():
        values = np.where(not_finite, np.float32(0), values)
        masked = not_finite if masked is None else masked | not_finite
    grey = scale_to_bytes(values, *(limits or _find_limits(values, depth, masked)), invert=invert)
    if masked is not None:
        grey[masked] = 0
    return grey


def _find_limits(values: np.ndarray, depth: str, masked: np.ndarray | None) -> tuple[float, float]:
    shown = values if masked is None or masked.all() else values[~masked]
    if depth == "percentiles":
        low, high = np.percentile(shown, (0.5, 99.5))
        if high > low:  # otherwise nearly all values are the same
            return low, high
    return shown.min(), shown.max()


def samples_to_grey(
    samples: np.ndarray, depth: str, *, alpha: np.ndarray | None = None, invert: bool = False
) -> tuple[np.ndarray, float]:
    """Return 8-bit grey of samples in grey or colour, and the mean spread of the channels (0-255).

    Parameters
    ----------
    samples : ndarray, shape (height, width) or (height, width, 3)
        Eight bits are not scaled.
    depth, invert
        As for `values_to_grey`.
    alpha : ndarray, shape (height, width), optional
        Opacity; transparent pixels become black.
    """
    spread = 0.0
    if samples.ndim == 3:
        samples, spread = _to_luminance(samples)
    transparent = None
    if alpha is not None and alpha.min() < alpha.max():
        transparent = alpha == 0
        opaque = np.iinfo(alpha.dtype).max if alpha.dtype.kind in "iu" else 1.0
        samples = samples * (alpha.astype(np.float32) / np.float32(opaque))
    if samples.dtype == np.uint8:
        return samples, spread
    return values_to_grey(samples.astype(np.float32), depth, masked=transparent, invert=invert), spread


def _to_luminance(colours: np.ndarray) -> tuple[np.ndarray, float]:
    if colours.dtype not in (np.uint8, np.uint16):  # OpenCV converts no other integers
        colours = colours.astype(np.float32)
    small = cv2.resize(colours, (64, 64), interpolation=cv2.INTER_AREA).astype(np.float32)
    largest = 255.0 if colours.dtype == np.uint8 else max(float(small.max()), 1e-9)
    spread = _measure_spread(small) * 255 / largest
    return cv2.cvtColor(np.ascontiguousarray(colours), cv2.COLOR_RGB2GRAY), spread


def image_to_grey(image: Image.Image, depth: str) -> tuple[np.ndarray, float]:
    """Return 8-bit grey of a Pillow image, and the mean spread of its channels (0-255).

    Pillow's own conversion is used for 8 bits; it would clip more bits instead of scaling them.
    """
    if image.mode.startswith(("I", "F")):
        return values_to_grey(np.asarray(image, dtype=np.float32), depth), 0.0
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, (0, 0, 0, 255)), image)
    if image.mode in ("1", "L"):
        return np.array(image.convert("L")), 0.0
    image = image.convert("RGB")
    small = np.asarray(image.resize((64, 64), Image.Resampling.BOX), dtype=np.int16)
    return np.array(image.convert("L")), _measure_spread(small)


def _measure_spread(colours: np.ndarray) -> float:
    return float((colours.max(axis=-1) - colours.min(axis=-1)).mean())
