"""How a DICOM file's stored values become grey levels: Modality LUT or rescaling, then VOI LUT or window.

pydicom applies the windows. It does not apply the look-up tables: pydicom 3.0 fails on Modality LUTs of other
than 8 or 16 bits and on first values of the wrong sign, and wraps the indices of tables of 8 bits and more
than 256 entries (`test_pydicoms_own_tables_fail` in tests/images/test_dicom_values.py).
"""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from xray_helpers.images.dicom_values import read_numbers
from xray_helpers.images.grey import scale_to_bytes

if TYPE_CHECKING:
    from pydicom import Dataset
Conversion = Callable[[np.ndarray], np.ndarray]
_OWN_RANGE = "scaled by the picture's own values"
_MIN_VALUES = 16  # pictures of no more distinct values are shown as their file says
_MIN_GREYS, _MIN_SPREAD = 4, 2.0  # a window that leaves fewer grey levels, or less spread, shows nothing


class LookUpTable(NamedTuple):
    """A look-up table.

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
        """Return the entries for values of any shape; values beyond the table get its first or last entry."""
        values = values.astype(np.float32)
        first = self._find_first(float(values.min()), float(values.max()))
        index = np.clip(np.rint(values) - first, 0, len(self.entries) - 1).astype(np.int32)
        return self.entries[index]

    def _find_first(self, low: float, high: float) -> int:
        """Return the first value, read with the other sign if the table would not cover any value."""
        for first in (self.first, self.first - 65536, self.first + 65536):
            if first <= high and first + len(self.entries) > low:
                return first
        return self.first

    def to_grey(self, values: np.ndarray) -> np.ndarray:
        """Return grey levels of 0 to 255, float32, where the largest number of an entry's bits is white.

        If no entry needs all of the bits, the smallest entry is black and the largest is white.
        """
        low, high = int(self.entries.min()), int(self.entries.max())
        if high.bit_length() == self.bits or high <= low:
            low, high = 0, 2 ** max(self.bits, 1) - 1
        return np.clip((self.apply(values).astype(np.float32) - low) * (255 / (high - low)), 0, 255)


def read_table(ds: "Dataset", descriptor: str = "LUTDescriptor", data: str = "LUTData") -> LookUpTable | None:
    """Return a look-up table of 8 or 16 bits per entry, or None if the file holds no complete one."""
    numbers, element = read_numbers(ds, descriptor), ds.get_item(data)
    if len(numbers) != 3 or None in numbers or element is None or not element.value:
        return None
    count, first, bits = (int(number) for number in numbers)
    count = count % 65536 or 65536
    value = element.value
    if not isinstance(value, bytes):  # already numbers
        words = np.atleast_1d(np.asarray(value)).astype("<u2")
    elif len(value) % 2 or element.VR == "OB":
        words = np.frombuffer(value[: len(value) // 2 * 2], "<u2")
    else:
        little = getattr(element, "is_little_endian", True)
        words = np.frombuffer(value, "<u2" if little else ">u2").astype("<u2")
    two_per_word = 2 * len(words) in (count, count + 1)
    entries = words.view("u1") if two_per_word else words
    return LookUpTable(first, entries[:count], bits % 65536) if len(entries) >= count else None


def read_modality(ds: "Dataset") -> tuple[Conversion, str]:
    """Return a function from stored to modality values (PS3.3 C.11.1), float32, and a note.

    The rescaling is computed here because pydicom 3.0 ignores a slope without an intercept, and raises an
    exception if one of them is not a number.
    """
    sequence = ds.get("ModalityLUTSequence")
    if sequence and (table := read_table(sequence[0])):
        return lambda stored: table.apply(stored).astype(np.float32), ""
    notes = ["its Modality LUT is incomplete: not used"] if sequence else []
    numbers = []
    for keyword, default in (("RescaleSlope", 1.0), ("RescaleIntercept", 0.0)):
        number = next(iter(read_numbers(ds, keyword)), default)
        if number is None:
            notes.append(f"{keyword} is not a number: not used")
        elif keyword == "RescaleSlope" and number == 0:
            notes.append("RescaleSlope is 0: not used")
        numbers.append(number)
    slope, intercept = numbers[0] or 1.0, numbers[1] or 0.0
    return lambda stored: (stored * slope + intercept).astype(np.float32), "; ".join(notes)


def choose_display(ds: "Dataset", sample: np.ndarray) -> tuple[Conversion | None, str]:
    """Return the first VOI LUT or window that shows a picture (PS3.3 C.11.2), and a note.

    Parameters
    ----------
    ds : Dataset
    sample : ndarray
        Modality values of pixels that are not padding.

    Returns
    -------
    display : callable or None
        From modality values to grey levels of 0 to 255. None if nothing in the file can be used.
    note : str
    """
    tables = [table for item in ds.get("VOILUTSequence") or () if (table := read_table(item))]
    windows, note = _read_windows(ds)
    if note and not windows:
        note += ": not used" if tables else f": {_OWN_RANGE}"
    function = str(ds.get("VOILUTFunction") or "LINEAR").strip().upper()
    displays = [("the VOI LUT", table.to_grey) for table in tables]
    for centre, width in windows:
        window = partial(_apply_window, centre=centre, width=width, function=function)
        displays.append((f"the window of centre {centre:g} and width {width:g}", window))

    few_values = len(np.unique(sample)) <= _MIN_VALUES
    notes = [note] if note else []
    for number, (name, display) in enumerate(displays):
        if few_values or _shows_something(display(sample)):
            if number > 0:
                notes.append(f"{displays[0][0]} shows nothing: {name} is used")
            return display, "; ".join(notes)
    if displays:
        notes.append(f"{displays[0][0]} shows nothing: {_OWN_RANGE}")
    return None, "; ".join(notes)


def _shows_something(grey: np.ndarray) -> bool:
    grey = scale_to_bytes(grey, 0, 255)
    return bool(grey.std() >= _MIN_SPREAD and len(np.unique(grey)) > _MIN_GREYS)


def _apply_window(values: np.ndarray, centre: float, width: float, function: str) -> np.ndarray:
    """Return grey levels of 0 to 255, float32, by one window."""
    from pydicom.dataset import Dataset
    from pydicom.pixels import apply_windowing

    if function not in ("LINEAR", "SIGMOID") or (function == "LINEAR" and width < 1):
        function = "LINEAR_EXACT"
    ds = Dataset()
    ds.PhotometricInterpretation, ds.PixelRepresentation = "MONOCHROME2", 0
    ds.BitsStored = 8  # of the grey levels that are returned
    ds.VOILUTFunction = function
    ds.add_new("WindowCenter", "FD", centre)  # DS, the standard's type, limits the number of digits
    ds.add_new("WindowWidth", "FD", width)
    return apply_windowing(values, ds).astype(np.float32)


def _read_windows(ds: "Dataset") -> tuple[list[tuple[float, float]], str]:
    """Return the usable pairs of centre and width, and a note if the file gives others.

    If no pair is complete, the first usable centre and the first usable width are one.
    """
    centres, widths = read_numbers(ds, "WindowCenter"), read_numbers(ds, "WindowWidth")
    if not centres and not widths:
        return [], ""
    usable = [
        (c, w) for c, w in zip(centres, widths, strict=False) if c is not None and w is not None and w > 0
    ]
    if not usable:
        centre = next((c for c in centres if c is not None), None)
        width = next((w for w in widths if w is not None and w > 0), None)
        usable = [(centre, width)] if centre is not None and width is not None else []
    if not usable:
        return [], "the window is incomplete, or not wider than 0"
    if centres[0] is None or widths[0] is None:
        return usable, "the first window is incomplete: the next numbers are used"
    texts = [str(ds.get_item(keyword).value) for keyword in ("WindowCenter", "WindowWidth")]
    comma = any("," in text and "[" not in text for text in texts)
    return usable, "the window has a decimal comma" if comma else ""
