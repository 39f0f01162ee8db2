"""The numbers of a DICOM file: stored values, padding, the modality's scaling, and what is black and
white.
"""

from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from pydicom import Dataset
_BINARY = {"US": "u2", "SS": "i2", "US or SS": "u2", "UL": "u4", "SL": "i4", "FL": "f4", "FD": "f8"}
_OWN_RANGE = "scaled by the picture's own values"
_SAMPLE = 200_000  # pixels that are looked at to see whether a window shows anything
_LEVELS, _SHOWN, _FLAT = (
    16,
    4,
    2.0,
)  # values a picture has; grey levels, and their spread, of a window that shows nothing


class LookUpTable(NamedTuple):
    """A table of DICOM that maps values to others.

    Attributes
    ----------
    first : int
        The value that the first entry is for.
    entries : ndarray of uint8 or uint16, shape (n,)
    bits : int
        Of an entry, as the file says.
    """

    first: int
    entries: np.ndarray
    bits: int

    def apply(self, values: np.ndarray) -> np.ndarray:
        """Return the entries for values of any shape; those beyond the table get its first or last entry.

        Done here because pydicom 3.0 keeps the index in the type of the entries, where 8 bits are too few for
        a table of 4,096, and because it takes no first value of the wrong sign.
        """
        values = values.astype(np.float32)
        first = self._find_first(float(values.min()), float(values.max()))
        index = np.clip(np.rint(values) - first, 0, len(self.entries) - 1).astype(np.int32)
        return self.entries[index]

    def _find_first(self, low: float, high: float) -> int:
        """Return the first value, by the other sign where the table would lie beside all values: its VR is
        ambiguous.
        """
        for first in (self.first, self.first - 65536, self.first + 65536):
            if first <= high and first + len(self.entries) > low:
                return first
        return self.first

    def find_range(self) -> tuple[float, float]:
        """Return what is black and white: by the bits of an entry, or the entries' own range where they use
        others.
        """
        low, high = int(self.entries.min()), int(self.entries.max())
        if high.bit_length() == self.bits or high <= low:
            return 0.0, float(2 ** max(self.bits, 1) - 1)
        return float(low), float(high)


def read_numbers(ds: "Dataset", keyword: str) -> list[float | None]:
    """Return the numbers of an element, None for each that is empty or no number.

    A decimal comma is understood, and so are elements of which the file does not say how they are written.
    pydicom itself refuses the whole element for one bad number.
    """
    from pydicom.datadict import dictionary_VR

    element = ds.get_item(keyword)
    if element is None or element.value is None:
        return []
    value = element.value
    vr = dictionary_VR(element.tag) if element.VR in (None, "UN") else element.VR
    if isinstance(value, bytes) and vr in _BINARY:
        kind = np.dtype(_BINARY[vr]).newbyteorder("<" if getattr(element, "is_little_endian", True) else ">")
        return [float(number) for number in np.frombuffer(value, kind, len(value) // kind.itemsize)]
    if isinstance(value, bytes):
        value = value.decode("ascii", "replace")
    if isinstance(value, str):
        value = value.split("\\") if value.strip(" \0") else []
    return [
        _read_number(part)
        for part in (value if isinstance(value, list) or hasattr(value, "append") else [value])
    ]


def _read_number(part: object) -> float | None:
    with suppress(ValueError, TypeError):
        number = float(str(part).strip(" \0").replace(",", "."))
        return number if np.isfinite(number) else None
    return None


def read_integer(ds: "Dataset", keyword: str, default: int) -> int:
    """Return an element's first number as an integer, or `default` where there is none."""
    numbers = read_numbers(ds, keyword)
    return default if not numbers or numbers[0] is None else int(numbers[0])


def find_stored_values(
    ds: "Dataset", raw: np.ndarray, precision: int | None, *, lossy: bool = False
) -> tuple[np.ndarray, str]:
    """Return the values in their bits (PS3.5 8.1.1), and a note where tags and pixels contradict each other.

    Bits outside of the stored ones, such as overlays, are dropped; signs are extended.

    Parameters
    ----------
    raw : ndarray of integers, any shape
        Whole pixel cells.
    precision : int, optional
        Bits of a sample in the compressed frame. What has no more than BitsStored lies at the bottom of its
        cell, whatever HighBit says.
    lossy : bool
        Whether the compression may have taken values a little beyond their bits; these are clipped.
    """
    raw = raw.astype(raw.dtype.newbyteorder("="), copy=False)
    cell = 8 * raw.dtype.itemsize
    bits = read_integer(ds, "BitsStored", cell)
    bits = bits if 0 < bits <= cell else cell
    lowest, note = 0, ""
    if precision is not None and precision <= bits:
        bits = precision
    else:
        lowest, note = _find_lowest_bit(ds, raw, bits)
    if bits == cell:
        return raw, note
    low, high = _find_limits(bits, raw.dtype.kind == "i")
    error = 2**bits // 16
    if (
        lossy
        and not lowest
        and not _has_overlay(ds)
        and raw.min() >= low - error
        and raw.max() <= high + error
    ):
        return np.clip(raw, low, high), note
    kept = (raw << (cell - bits - lowest)) >> (cell - bits)
    if not lowest and not _has_overlay(ds) and (raw.min() < low or raw.max() > high):
        if _count_jumps(kept, bits) > _count_jumps(raw, bits):  # values were cut, and wrap
            return raw, "values use more bits than BitsStored says: all are read"
        note = note or "bits above those that BitsStored says are in use: they were dropped"
    return kept, note


def _count_jumps(values: np.ndarray, bits: int) -> int:
    """Count neighbours that differ by more than half of what so many bits can hold."""
    return int((np.abs(np.diff(values.astype(np.int64), axis=1)) > 2 ** (bits - 1)).sum())


def _find_limits(bits: int, signed: bool) -> tuple[int, int]:
    """Return the smallest and the largest integer of so many bits."""
    return (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)


def _find_lowest_bit(ds: "Dataset", raw: np.ndarray, bits: int) -> tuple[int, str]:
    """Return where in its cell a value begins: by HighBit, unless the pixels show that it is wrong."""
    cell = 8 * raw.dtype.itemsize
    high = read_integer(ds, "HighBit", bits - 1)
    lowest = high + 1 - bits if bits - 1 <= high < cell else 0
    if bits == cell or _has_overlay(ds):
        return lowest, ""
    used = int(np.bitwise_or.reduce(raw.view(f"u{raw.dtype.itemsize}"), axis=None))
    if lowest and used < 2**bits and used % 2**lowest:
        return 0, "HighBit contradicts the pixels, which lie in the lower bits"
    smallest, largest = _find_limits(bits, raw.dtype.kind == "i")
    outside = raw.min() < smallest or raw.max() > largest
    if not lowest and outside and used % 2 ** (cell - bits) == 0:
        return cell - bits, "HighBit contradicts the pixels, which lie in the upper bits"
    return lowest, ""


def _has_overlay(ds: "Dataset") -> bool:
    """Return whether the file says that bits of its pixels are overlays: group 60xx with a place and no data
    of its own.
    """
    groups = {tag.group for tag in ds.keys() if tag.group & 0xFF00 == 0x6000 and tag.element == 0x0102}  # noqa: SIM118
    return any((group, 0x3000) not in ds for group in groups)


def find_padding(ds: "Dataset", raw: np.ndarray, stored: np.ndarray) -> np.ndarray | None:
    """Return where there is no picture (PS3.3 C.7.5.1.1.2), or None where the file names no such values.

    Padding that is written with the wrong sign is taken by its bits, and padding beyond the stored bits is
    looked for in the whole cells.
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
    ends = [_wrap(int(end), cell, signed) for end in ends]
    low, high = _find_limits(bits, signed)
    searched = stored if low <= min(ends) and max(ends) <= high else raw
    if searched is raw and signed:  # of fewer bits than the cell: the sign may stand in either place
        ends, searched = [_wrap(end, bits, signed) for end in ends], stored
    return (searched >= min(ends)) & (searched <= max(ends))


def _wrap(number: int, bits: int, signed: bool) -> int:
    """Return an integer as its lowest bits say."""
    number %= 2**bits
    return number - 2**bits if signed and number >= 2 ** (bits - 1) else number


def read_table(ds: "Dataset", descriptor: str = "LUTDescriptor", data: str = "LUTData") -> LookUpTable | None:
    """Return a look-up table of 8 or 16 bits an entry, in bytes or words; None where the file holds none that
    is whole.
    """
    numbers, element = read_numbers(ds, descriptor), ds.get_item(data)
    if len(numbers) != 3 or None in numbers or element is None or not element.value:
        return None
    count, first, bits = (int(number) for number in numbers)
    count = count % 65536 or 65536
    value = element.value
    if not isinstance(value, bytes):  # numbers already
        words = np.atleast_1d(np.asarray(value)).astype("<u2")
    elif len(value) % 2 or element.VR == "OB":
        words = np.frombuffer(value[: len(value) // 2 * 2], "<u2")
    else:
        little = getattr(element, "is_little_endian", True)
        words = np.frombuffer(value, "<u2" if little else ">u2").astype("<u2")
    packed = 2 * len(words) in (count, count + 1)  # two entries a word
    entries = words.view("u1") if packed else words
    if len(entries) < count:
        return None
    return LookUpTable(first, entries[:count], bits % 65536)


def apply_modality(ds: "Dataset", stored: np.ndarray) -> tuple[np.ndarray, str]:
    """Return stored values by the modality's table or rescaling (PS3.3 C.11.1), float32, and a note."""
    table = read_table(ds.ModalityLUTSequence[0]) if ds.get("ModalityLUTSequence") else None
    if table:
        return table.apply(stored).astype(np.float32), ""
    broken = "its Modality LUT is not whole: not used" if ds.get("ModalityLUTSequence") else ""
    given = {name: read_numbers(ds, name)[:1] for name in ("RescaleSlope", "RescaleIntercept")}
    slope, intercept = (next(iter(numbers), None) for numbers in given.values())
    values = stored.astype(np.float32)
    odd = [f"{name} is no number: not used" for name, numbers in given.items() if numbers == [None]]
    note = "; ".join(filter(None, [broken, *odd]))
    if slope == 0:
        slope, note = None, "; ".join(filter(None, [broken, "RescaleSlope is 0: not used"]))
    if slope is None and intercept is None:
        return values, note
    return (stored * (1.0 if slope is None else slope) + (intercept or 0.0)).astype(np.float32), note


class Display(NamedTuple):
    """One way in which a file says how its values are to be shown (PS3.3 C.11.2).

    Attributes
    ----------
    name : str
        For notes.
    table : LookUpTable, optional
        A VOI LUT; the window is not used then.
    centre, width : float
    function : str
        ``LINEAR``, ``LINEAR_EXACT`` or ``SIGMOID``.
    """

    name: str
    table: LookUpTable | None = None
    centre: float = 0.0
    width: float = 1.0
    function: str = "LINEAR"

    def apply(self, values: np.ndarray) -> np.ndarray:
        """Return float32 values that grow evenly from black to white."""
        from scipy.special import expit

        if self.table:
            return self.table.apply(values).astype(np.float32)
        if self.function == "SIGMOID":
            return expit(4 * (values - np.float32(self.centre)) / np.float32(self.width))
        return values

    def find_range(self) -> tuple[float, float]:
        """Return what is black and what is white in the values of `apply`."""
        if self.table:
            return self.table.find_range()
        if self.function == "SIGMOID":
            return 0.0, 1.0
        if self.function == "LINEAR" and self.width >= 1:  # PS3.3 C.11.2.1.2: half a value off the exact one
            return self.centre - 0.5 - (self.width - 1) / 2, self.centre - 0.5 + (self.width - 1) / 2
        return self.centre - self.width / 2, self.centre + self.width / 2


def choose_display(
    ds: "Dataset", values: np.ndarray, padding: np.ndarray | None
) -> tuple[np.ndarray, tuple[float, float] | None, str]:
    """Return values, what is black and white in them, and a note, by the first VOI LUT or window that shows a
    picture.

    None stands for black and white where the file gives nothing that can be used (PS3.3 C.11.2).
    """
    seen = values if padding is None or padding.all() else values[~padding]
    sample = seen.ravel()[:: max(1, seen.size // _SAMPLE)]
    rich = len(np.unique(sample)) > _LEVELS
    notes = _note_windows(ds)
    refused = ""
    for display in _read_displays(ds):
        if not rich or _shows_something(display, sample):
            notes += [f"{refused} shows nothing: {display.name} is used"] if refused else []
            return display.apply(values), display.find_range(), "; ".join(notes)
        refused = refused or display.name
    notes += [f"{refused} shows nothing: {_OWN_RANGE}"] if refused else []
    return values, None, "; ".join(notes)


def _shows_something(display: Display, sample: np.ndarray) -> bool:
    """Return whether more than one or a few greys are left of values that differ."""
    low, high = display.find_range()
    grey = np.round(np.clip((display.apply(sample) - low) / max(high - low, 1e-9), 0, 1) * 255)
    return bool(grey.std() >= _FLAT and len(np.unique(grey)) > _SHOWN)


def _read_displays(ds: "Dataset") -> Iterator[Display]:
    """Yield what the file offers: VOI LUTs first, then windows."""
    for item in ds.get("VOILUTSequence") or ():
        table = read_table(item)
        if table:
            yield Display("the VOI LUT", table)
    function = str(ds.get("VOILUTFunction") or "LINEAR").strip().upper()
    for centre, width in _read_windows(ds):
        yield Display(f"the window of centre {centre:g} and width {width:g}", None, centre, width, function)


def _read_windows(ds: "Dataset") -> list[tuple[float, float]]:
    """Return the pairs of centre and width that can be used; the first of each where none stand in one
    place.
    """
    centres, widths = read_numbers(ds, "WindowCenter"), read_numbers(ds, "WindowWidth")
    pairs = [
        (c, w) for c, w in zip(centres, widths, strict=False) if c is not None and w is not None and w > 0
    ]
    centre = next((c for c in centres if c is not None), None)
    width = next((w for w in widths if w is not None and w > 0), None)
    return pairs or ([(centre, width)] if centre is not None and width is not None else [])


def _note_windows(ds: "Dataset") -> list[str]:
    """Return what is to be said of windows that are given and are not as the standard wants them."""
    given = [read_numbers(ds, name) for name in ("WindowCenter", "WindowWidth")]
    if not any(given):
        return []
    if not _read_windows(ds):
        return [
            f"the window is not whole, or not wider than 0: {'not used' if _has_table(ds) else _OWN_RANGE}"
        ]
    if any(numbers[:1] == [None] for numbers in given):
        return ["the first window is not whole: the next numbers are used"]
    raw = [ds.get_item(name).value for name in ("WindowCenter", "WindowWidth")]
    return (
        ["the window has a decimal comma"]
        if any("," in str(value) and "[" not in str(value) for value in raw)
        else []
    )


def _has_table(ds: "Dataset") -> bool:
    return any(read_table(item) for item in ds.get("VOILUTSequence") or ())
