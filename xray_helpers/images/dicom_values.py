"""The stored values of a DICOM file, where they are padding, and the numbers in its header."""

from contextlib import suppress
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from pydicom import Dataset
_BINARY = {"US": "u2", "SS": "i2", "US or SS": "u2", "UL": "u4", "SL": "i4", "FL": "f4", "FD": "f8"}


def read_numbers(ds: "Dataset", keyword: str) -> list[float | None]:
    """Return the numbers of an element, with None for each value that is empty or not a number.

    Decimal commas and elements without a value representation are understood; pydicom refuses the whole
    element if one of its values is not a number.
    """
    from pydicom.datadict import dictionary_VR

    element = ds.get_item(keyword)
    if element is None or element.value is None:
        return []
    value = element.value
    vr = dictionary_VR(element.tag) if element.VR in (None, "UN") else element.VR
    if isinstance(value, bytes) and vr in _BINARY:
        order = "<" if getattr(element, "is_little_endian", True) else ">"
        dtype = np.dtype(_BINARY[vr]).newbyteorder(order)
        return [float(number) for number in np.frombuffer(value, dtype, len(value) // dtype.itemsize)]
    if isinstance(value, bytes):
        value = value.decode("ascii", "replace")
    if isinstance(value, str):
        value = value.split("\\") if value.strip(" \0") else []
    several = isinstance(value, list) or hasattr(value, "append")  # pydicom's MultiValue is no list
    return [_read_number(part) for part in (value if several else [value])]


def _read_number(text: object) -> float | None:
    with suppress(ValueError, TypeError):
        number = float(str(text).strip(" \0").replace(",", "."))
        return number if np.isfinite(number) else None
    return None


def read_integer(ds: "Dataset", keyword: str, default: int) -> int:
    """Return an element's first number as an integer, or `default` if there is none."""
    numbers = read_numbers(ds, keyword)
    return default if not numbers or numbers[0] is None else int(numbers[0])


def find_stored_values(
    ds: "Dataset", raw: np.ndarray, precision: int | None, *, lossy: bool = False
) -> tuple[np.ndarray, str]:
    """Return the stored values of pixel cells (PS3.5 8.1.1), and a note if header and pixels disagree.

    Bits outside the stored ones, such as overlays, are removed, and signs are extended. pydicom's own
    correction assumes that values start at the lowest bit of their cell.

    Parameters
    ----------
    ds : Dataset
    raw : ndarray of integers
        Whole pixel cells.
    precision : int, optional
        Bits of a sample in the compressed frame. If these are no more than BitsStored, values start at the
        lowest bit, whatever HighBit says.
    lossy : bool
        Whether the compression may have moved values slightly beyond their range; they are clipped.
    """
    raw = raw.astype(raw.dtype.newbyteorder("="), copy=False)
    cell = 8 * raw.dtype.itemsize
    bits = read_integer(ds, "BitsStored", cell)
    bits = bits if 0 < bits <= cell else cell
    if precision is not None and precision <= bits:
        bits, shift, note = precision, 0, ""
    else:
        shift, note = _find_lowest_bit(ds, raw, bits)
    if bits == cell:
        return raw, note
    stored = (raw << (cell - bits - shift)) >> (cell - bits)
    if shift or _has_overlay_in_pixels(ds):
        return stored, note
    low, high = _find_limits(bits, raw.dtype.kind == "i")
    smallest, largest, error = int(raw.min()), int(raw.max()), 2**bits // 16
    if lossy and smallest >= low - error and largest <= high + error:
        return np.clip(raw, low, high), note
    if smallest < low or largest > high:
        if _count_jumps(stored, bits) > _count_jumps(raw, bits):  # values were cut off and wrap around
            return raw, "values use more bits than BitsStored says: all are read"
        note = note or "bits above those that BitsStored says are in use: they were dropped"
    return stored, note


def _find_lowest_bit(ds: "Dataset", raw: np.ndarray, bits: int) -> tuple[int, str]:
    """Return the lowest bit of the values in their cells: by HighBit, unless the pixels contradict it."""
    cell = 8 * raw.dtype.itemsize
    high_bit = read_integer(ds, "HighBit", bits - 1)
    lowest = high_bit + 1 - bits if bits - 1 <= high_bit < cell else 0
    if bits == cell or _has_overlay_in_pixels(ds):
        return lowest, ""
    used = int(np.bitwise_or.reduce(raw.view(f"u{raw.dtype.itemsize}"), axis=None))
    if lowest and used < 2**bits and used % 2**lowest:
        return 0, "HighBit contradicts the pixels, which lie in the lower bits"
    low, high = _find_limits(bits, raw.dtype.kind == "i")
    if not lowest and (raw.min() < low or raw.max() > high) and used % 2 ** (cell - bits) == 0:
        return cell - bits, "HighBit contradicts the pixels, which lie in the upper bits"
    return lowest, ""


def _has_overlay_in_pixels(ds: "Dataset") -> bool:
    """Return whether unused bits hold an overlay: group 60xx with a bit position and no data."""
    overlays = {
        tag.group for tag in list(ds.keys()) if tag.group & 0xFF00 == 0x6000 and tag.element == 0x0102
    }
    return any((group, 0x3000) not in ds for group in overlays)


def _find_limits(bits: int, signed: bool) -> tuple[int, int]:
    """Return the smallest and the largest integer of so many bits."""
    return (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)


def _count_jumps(values: np.ndarray, bits: int) -> int:
    """Count horizontal neighbours that differ by more than half the range of so many bits."""
    return int((np.abs(np.diff(values.astype(np.int64), axis=1)) > 2 ** (bits - 1)).sum())


def find_padding(ds: "Dataset", raw: np.ndarray, stored: np.ndarray) -> np.ndarray | None:
    """Return a mask of padding pixels (PS3.3 C.7.5.1.1.2), or None if the file names no padding values.

    Padding values that are written with the wrong sign are compared by their bits, and padding beyond the
    stored bits is searched for in the whole cells.
    """
    kind = "" if stored.dtype.kind in "iu" else "Float" if stored.dtype.itemsize == 4 else "DoubleFloat"
    ends = [n for n in read_numbers(ds, f"{kind}PixelPaddingValue")[:1] if n is not None]
    if not ends:
        return None
    ends += [n for n in read_numbers(ds, f"{kind}PixelPaddingRangeLimit")[:1] if n is not None]
    if kind:
        return (stored >= min(ends)) & (stored <= max(ends))
    bits = read_integer(ds, "BitsStored", 8 * stored.dtype.itemsize)
    cell = read_integer(ds, "BitsAllocated", 8 * stored.dtype.itemsize)
    signed = stored.dtype.kind == "i"
    ends, searched = [_wrap(int(end), cell, signed) for end in ends], stored
    low, high = _find_limits(bits, signed)
    if min(ends) < low or max(ends) > high:
        if signed:  # the sign may stand at the top of the stored bits or of the cell
            ends = [_wrap(end, bits, signed) for end in ends]
        else:
            searched = raw
    return (searched >= min(ends)) & (searched <= max(ends))


def _wrap(number: int, bits: int, signed: bool) -> int:
    """Return the integer that the lowest bits of a number stand for."""
    number %= 2**bits
    return number - 2**bits if signed and number >= 2 ** (bits - 1) else number
