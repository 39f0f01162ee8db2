"""Headers that are right, wrong or unusual: the phantom is read, and a note names what was not used."""

import numpy as np
import pytest
from dicom_files import SECONDARY, build, encode, read, read_whole_range, scale, table, words
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import uid
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.pixels import apply_color_lut, apply_modality_lut, apply_voi
from pydicom.sequence import Sequence
from pydicom.tag import Tag

from xray_helpers.images.dicom_display import LookUpTable
from xray_helpers.images.dicom_values import find_stored_values, read_numbers
from xray_helpers.images.radiographs import UnreadableError

SYNTAXES = [uid.ExplicitVRLittleEndian, uid.ImplicitVRLittleEndian, uid.ExplicitVRBigEndian]
ALL = np.arange(4096)


@pytest.fixture(scope="module")
def deep(phantom):
    """The phantom in 12 bits."""
    return np.round(phantom / 255 * 4095).astype(np.uint16)


@pytest.fixture(autouse=True)
def _root(root):
    """Write the salt of patients' hashes to a temporary folder."""


def add_text(ds, keyword, text):
    """Add an element with bytes that pydicom would not write."""
    tag = Tag(keyword)
    ds[tag] = RawDataElement(tag, "DS", len(text), text, 0, False, True)
    return ds


# Bits


@pytest.mark.parametrize("syntax", [*SYNTAXES, uid.RLELossless], ids=lambda syntax: syntax.name)
@pytest.mark.parametrize("high", [11, 12, 13, 15])
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("other_bits", [0, 0xFFFF], ids=["zeros around", "ones around"])
def test_values_end_at_high_bit(tmp_path, deep, syntax, high, signed, other_bits):
    lowest = high - 11
    values = deep.astype(np.int32) - (2048 if signed else 0)
    cells = ((values & 0xFFF) << lowest) | (other_bits & ~(0xFFF << lowest) & 0xFFFF)
    stored = cells.astype(np.uint16).view(np.int16 if signed else np.uint16)
    assert (read_whole_range(build(stored, 12, syntax=syntax, high=high), tmp_path) == scale(deep)).all()


@pytest.mark.parametrize(
    ("codec", "syntax"),
    [
        ("jpeg2k", uid.JPEG2000Lossless),
        ("htj2k", uid.HTJ2KLossless),
        ("jpegls", uid.JPEGLSLossless),
        ("ljpeg", uid.JPEGLosslessSV1),
    ],
)
@pytest.mark.parametrize("overlay", [0x8000, 0x1000, 0xF000])
def test_overlays_above_the_values_are_dropped_after_decoding(tmp_path, deep, codec, syntax, overlay):
    cells = deep.copy()
    cells[10:30, 10:80] |= overlay
    options = {
        "jpeg2k": {"level": 0, "codecformat": "j2k", "reversible": True},
        "ljpeg": {"bitspersample": 16},
    }
    codestream = encode(cells, codec, **options.get(codec, {}))
    assert (
        read_whole_range(build(cells, 12, syntax=syntax, codestream=codestream), tmp_path) == scale(deep)
    ).all()
    cells = (deep << 4).astype(np.uint16)
    codestream = encode(cells, codec, **options.get(codec, {}))
    ds = build(cells, 12, syntax=syntax, codestream=codestream, high=15)
    assert (read_whole_range(ds, tmp_path) == scale(deep)).all()


@pytest.mark.parametrize("precision", [12, 16])
@pytest.mark.parametrize("masked", [False, True])
def test_signed_values_in_lossless_jpeg_which_has_no_signs(tmp_path, deep, precision, masked):
    cells = (deep.astype(np.int16) - 2048).view(np.uint16) & (0xFFF if masked or precision == 12 else 0xFFFF)
    codestream = encode(cells, "ljpeg", bitspersample=precision)
    ds = build(cells.view(np.int16), 12, syntax=uid.JPEGLosslessSV1, codestream=codestream)
    assert (read_whole_range(ds, tmp_path) == scale(deep)).all()


def test_a_high_bit_that_contradicts_the_pixels_is_noted(tmp_path, deep):
    for stored, high in ((deep, 15), (deep << 4, 11)):
        found = read(build(stored.astype(np.uint16), 12, high=high), tmp_path, depth="range")
        assert (found.pixels == scale(deep)).all()
        assert "HighBit contradicts the pixels" in found.note


def test_extended_signs_are_not_a_contradiction(tmp_path, phantom):
    found = read(build((phantom.astype(np.int16) - 128) * 16, 12), tmp_path, depth="range")
    assert (found.pixels == phantom).all()
    assert found.note == ""


def test_lossy_values_beyond_their_bits_are_white_even_with_a_separate_overlay(tmp_path, deep):
    codestream = encode(deep, "jpegls", level=3)
    ds = build(deep, 12, syntax=uid.JPEGLSNearLossless, codestream=codestream)
    ds.add_new(0x60000102, "US", 0)
    ds.add_new(0x60003000, "OW", b"\0\0")
    assert np.abs(read_whole_range(ds, tmp_path).astype(int) - scale(deep)).max() <= 1


@settings(deadline=None)
@given(st.integers(1, 16), st.booleans(), st.data())
def test_stored_values_are_found_in_any_bits_of_a_cell(bits, signed, data):
    lowest = data.draw(st.integers(0, 16 - bits))
    low = -(2 ** (bits - 1)) if signed else 0
    values = np.array(data.draw(st.lists(st.integers(low, low + 2**bits - 1), min_size=1, max_size=9)))
    other_bits = data.draw(st.integers(0, 65535)) & ~((2**bits - 1) << lowest)
    cells = (((values & (2**bits - 1)) << lowest) | other_bits).astype(np.uint16)
    ds = Dataset()
    ds.BitsStored, ds.HighBit = bits, lowest + bits - 1
    ds.add_new(0x60000102, "US", 0)  # the other bits are an overlay, not a contradiction
    stored, note = find_stored_values(ds, cells.view(np.int16) if signed else cells, None)
    assert stored.tolist() == values.tolist()
    assert note == ""


# Look-up tables


@pytest.mark.parametrize("syntax", SYNTAXES, ids=lambda syntax: syntax.name)
@pytest.mark.parametrize("declared", [12, 16])
@pytest.mark.parametrize("used", [8, 10, 12])
@pytest.mark.parametrize("signed", [False, True])
def test_a_voi_lut_is_scaled_by_the_range_of_its_entries(
    tmp_path, phantom, deep, syntax, declared, used, signed
):
    order = ">" if syntax == uid.ExplicitVRBigEndian else "<"
    first = -2048 if signed else 0
    stored = deep.astype(np.int16) + first if signed else deep
    lut = table([4096, first, declared], words(ALL >> (12 - used), order), "SS" if signed else "US")
    found = read(build(stored, 12, syntax=syntax, VOILUTSequence=lut), tmp_path)
    assert np.abs(found.pixels.astype(int) - scale(deep >> (12 - used))).max() == 0
    assert found.note == ""


def test_entries_that_use_the_declared_bits_are_not_scaled_and_come_before_a_window(tmp_path):
    lut = table([4, 0, 8], words([10, 20, 130, 200]))
    ds = build(np.array([[0, 1, 2, 3]], np.uint8), VOILUTSequence=lut, WindowCenter=1, WindowWidth=2)
    assert read(ds, tmp_path).pixels.tolist() == [[10, 20, 130, 200]]


@pytest.mark.parametrize("given", ["words", "bytes", "bytes as OB", "numbers"])
def test_a_table_of_eight_bits_for_twelve(tmp_path, phantom, deep, given):
    """pydicom 3.0 wraps the indices of such a table."""
    entries = ALL >> 4
    data, vr = {
        "words": (words(entries), "OW"),
        "bytes": (entries.astype(np.uint8).tobytes(), "OW"),
        "bytes as OB": (entries.astype(np.uint8).tobytes(), "OB"),
        "numbers": (entries.tolist(), "US"),
    }[given]
    found = read(build(deep, 12, VOILUTSequence=table([4096, 0, 8], data, data_vr=vr)), tmp_path)
    assert (found.pixels == deep >> 4).all()


@pytest.mark.parametrize("syntax", SYNTAXES[:2], ids=lambda syntax: syntax.name)
@pytest.mark.parametrize("how", ["signed", "rescaled"])
@pytest.mark.parametrize(("first", "vr"), [(-2048, "SS"), (63488, "US")])
def test_a_first_value_of_either_sign(tmp_path, deep, syntax, how, first, vr):
    lut = table([4096, first, 12], words(ALL), vr)
    if how == "signed":
        ds = build(deep.astype(np.int16) - 2048, 12, syntax=syntax, VOILUTSequence=lut)
    else:
        ds = build(deep, 12, syntax=syntax, VOILUTSequence=lut, RescaleSlope=1, RescaleIntercept=-2048)
    assert (read(ds, tmp_path).pixels == scale(deep)).all()


def test_a_first_value_of_unsigned_data_that_is_written_as_negative(tmp_path, deep):
    stored = (deep.astype(np.uint32) + 40000).astype(np.uint16)
    ds = build(stored, 16, VOILUTSequence=table([4096, 40000 - 65536, 12], words(ALL), "SS"))
    assert (read(ds, tmp_path).pixels == scale(deep)).all()


def test_a_table_of_all_values_of_sixteen_bits(tmp_path, deep):
    stored = (deep.astype(np.uint32) * 16).astype(np.uint16)
    ds = build(stored, 16, VOILUTSequence=table([0, 0, 16], words(65535 - np.arange(65536))))
    assert (read(ds, tmp_path).pixels == np.round((65535 - stored.astype(float)) * 255 / 65535)).all()


def test_pydicoms_own_tables_fail(deep):
    """Once this fails, `LookUpTable` can be replaced by pydicom's functions."""
    eight_bits = table([4096, 0, 8], (ALL >> 4).tolist(), data_vr="US")
    assert (apply_voi(deep, build(deep, 12, VOILUTSequence=eight_bits)) != deep >> 4).any()
    signed = deep.astype(np.int16) - 2048
    unsigned_first = table([4096, 63488, 12], ALL.tolist(), data_vr="US")
    with pytest.raises(OverflowError):
        apply_voi(signed, build(signed, 12, VOILUTSequence=unsigned_first))
    twelve_bits = table([4096, 0, 12], ALL.tolist(), data_vr="US")
    with pytest.raises(TypeError):
        apply_modality_lut(deep, build(deep, 12, ModalityLUTSequence=twelve_bits))
    palette = build_palette(deep, 12, (ALL >> 4).astype(np.uint8).tobytes(), 4096, 8)
    assert (apply_color_lut(deep, palette)[..., 0] != deep >> 4).any()


@pytest.mark.parametrize("vr", ["SS", "US"])
def test_a_modality_lut_may_be_signed_and_of_any_bits(tmp_path, deep, vr):
    first = -2048 if vr == "SS" else 63488
    lut = table([4096, first, 12], words(ALL[::-1]), vr)
    ds = build(deep.astype(np.int16) - 2048, 12, ModalityLUTSequence=lut)
    assert (read_whole_range(ds, tmp_path) == scale(4095 - deep)).all()


def test_values_beyond_a_table_get_its_first_or_last_entry():
    lut = LookUpTable(10, np.array([5, 6, 7], np.uint8), 8)
    assert lut.apply(np.array([-32768, 9, 10, 11, 12, 13, 32767], np.int16)).tolist() == [5, 5, 5, 6, 7, 7, 7]


@pytest.mark.parametrize("sequence", [[], [Dataset()]])
def test_an_empty_sequence_is_not_a_table(tmp_path, deep, sequence):
    found = read(
        build(deep, 12, VOILUTSequence=Sequence(sequence), WindowCenter=2048, WindowWidth=4096), tmp_path
    )
    assert (found.pixels == scale(deep)).all()


# Windows


@pytest.mark.parametrize(
    ("centre", "width", "function"),
    [
        (60000, 100, "LINEAR"),
        (-900, 200, "LINEAR_EXACT"),
        (60000, 10, "SIGMOID"),
        (2048, 10_000_000, "LINEAR"),
        (2048, 1, "LINEAR"),
        (2048, 2, "LINEAR"),
        (2048, 0.25, "LINEAR_EXACT"),
        (4096, 2, "LINEAR"),
    ],
)
@pytest.mark.parametrize("depth", ["range", "percentiles"])
def test_a_window_that_shows_nothing_is_not_used(tmp_path, deep, centre, width, function, depth):
    ds = build(deep, 12, WindowCenter=centre, WindowWidth=width, VOILUTFunction=function)
    found = read(ds, tmp_path, depth=depth)
    assert (found.pixels == read(build(deep, 12), tmp_path, depth=depth).pixels).all()
    assert found.note == (
        f"the window of centre {centre:g} and width {width:g} shows nothing: scaled by the picture's own "
        "values"
    )


def test_the_next_window_is_tried(tmp_path, deep):
    found = read(build(deep, 12, WindowCenter=[60000, 2048], WindowWidth=[10, 4096]), tmp_path)
    assert (found.pixels == scale(deep)).all()
    assert (
        "centre 60000 and width 10 shows nothing: the window of centre 2048 and width 4096 is used"
        in found.note
    )
    outside = table([9, 60000, 12], words(range(9)))
    found = read(build(deep, 12, VOILUTSequence=outside, WindowCenter=2048, WindowWidth=4096), tmp_path)
    assert (found.pixels == scale(deep)).all()
    assert found.note.startswith("the VOI LUT shows nothing")


def test_a_picture_of_few_values_is_shown_by_its_window(tmp_path):
    stored = np.random.default_rng(0).integers(100, 102, (64, 64), dtype=np.uint8)
    found = read(build(stored, 8, WindowCenter=128, WindowWidth=256), tmp_path)
    assert (found.pixels == stored).all()
    assert found.note == ""


@pytest.mark.parametrize(
    ("centre", "width", "note"),
    [
        (b"2047,5", b"4096,0", "decimal comma"),
        (b"\\2047.5 ", b"\\4096 ", "first window is incomplete"),
        (b"\\2047.5 ", b"4096", "first window is incomplete"),
        (b"NaN\\2047.5 ", b"4096\\4096 ", "first window is incomplete"),
        (b"2047.5\\60000", b"4096\\1 ", ""),
        (b"2047.5 ", b"4096\0", ""),
    ],
)
def test_usable_parts_of_a_window_are_used(tmp_path, deep, centre, width, note):
    ds = add_text(add_text(build(deep, 12), "WindowCenter", centre), "WindowWidth", width)
    found = read(ds, tmp_path, depth="percentiles")
    expected = np.round(np.clip((deep - (2047 - 4095 / 2)) * (255 / 4095), 0, 255))
    assert np.abs(found.pixels - expected).max() == 0
    assert note in found.note if note else found.note == ""


@pytest.mark.parametrize(
    ("centre", "width"),
    [
        (b"auto", b"auto"),
        (b"2048", b""),
        (b"", b"4096"),
        (b"NaN ", b"4096"),
        (b"2048", b"0 "),
        (b"2048", b"-5"),
    ],
)
def test_an_unusable_window_is_noted(tmp_path, deep, centre, width):
    ds = add_text(add_text(build(deep, 12), "WindowCenter", centre), "WindowWidth", width)
    found = read(ds, tmp_path, depth="range")
    assert (found.pixels == scale(deep)).all()
    assert found.note == "the window is incomplete, or not wider than 0: scaled by the picture's own values"


def test_rescaling_that_is_not_a_number_is_noted(tmp_path, deep):
    ds = add_text(
        add_text(build(deep, 12, WindowCenter=2048, WindowWidth=4096), "RescaleSlope", b"1,0 "),
        "RescaleIntercept",
        b"0 ",
    )
    assert (read(ds, tmp_path).pixels == scale(deep)).all()
    for text, note in ((b"one ", "RescaleSlope is not a number"), (b"0 ", "RescaleSlope is 0")):
        found = read(add_text(build(deep, 12), "RescaleSlope", text), tmp_path, depth="range")
        assert (found.pixels == scale(deep)).all()
        assert note in found.note


def test_numbers_are_read_in_any_form():
    ds = Dataset()
    assert read_numbers(ds, "WindowCenter") == []
    ds.WindowCenter = [1, 2.5]
    assert read_numbers(ds, "WindowCenter") == [1, 2.5]
    assert read_numbers(add_text(ds, "WindowCenter", b"1,5\\\\x\\3e2 "), "WindowCenter") == [
        1.5,
        None,
        None,
        300,
    ]


# Padding


@pytest.mark.parametrize("syntax", [*SYNTAXES[:2], uid.JPEG2000Lossless], ids=lambda syntax: syntax.name)
@pytest.mark.parametrize(
    ("value", "vr", "limit"),
    [
        (63536, "US", None),
        (-2000, "SS", None),
        (63536, "US", 63540),
        (-2000, "SS", -1996),
        (63540, "US", 63536),
    ],
)
def test_padding_of_signed_values_is_found_by_its_bits(tmp_path, phantom, syntax, value, vr, limit):
    stored = phantom.astype(np.int16) * 8 - 500
    expected = scale(stored[20:])
    stored[:20] = -2000
    ds = build(stored, 16, syntax=syntax)
    ds.add_new(0x00280120, vr, value)
    if limit is not None:
        ds.add_new(0x00280121, vr, limit)
    found = read_whole_range(ds, tmp_path)
    assert (found[:20] == 0).all()
    assert (found[20:] == expected).all()


@pytest.mark.parametrize(
    ("cell", "value", "vr"), [(-2000, 2096, "US"), (-2000, 63536, "US"), (-2000, -2000, "SS")]
)
def test_padding_of_twelve_signed_bits(tmp_path, phantom, cell, value, vr):
    stored = phantom.astype(np.int16) * 8 - 500
    expected = scale(stored[20:])
    stored[:20] = cell
    ds = build(stored, 12)
    ds.add_new(0x00280120, vr, value)
    found = read_whole_range(ds, tmp_path)
    assert (found[:20] == 0).all()
    assert (found[20:] == expected).all()


@pytest.mark.parametrize(("value", "vr"), [(0xFFFF, "US"), (-1, "SS"), (0xF830, "US"), (-2000, "SS")])
def test_padding_beyond_the_stored_bits_is_searched_for_in_the_whole_cell(tmp_path, deep, value, vr):
    stored = deep.copy()
    expected = scale(stored[20:])
    stored[:20] = value % 65536
    ds = build(stored, 12)
    ds.add_new(0x00280120, vr, value)
    found = read_whole_range(ds, tmp_path)
    assert (found[:20] == 0).all()
    assert (found[20:] == expected).all()


# Palettes, colour and floats


def build_palette(stored, bits, entries, count, declared):
    """Return a data set with the same entries for all colours, or a list of those for each."""
    ds = build(stored, bits, "PALETTE COLOR", SOPClassUID=SECONDARY, Modality="OT")
    for number, data in enumerate(entries if isinstance(entries, list) else [entries] * 3):
        ds.add_new(0x00281101 + number, "US", [count % 65536, 0, declared])
        ds.add_new(0x00281201 + number, "OW", data)
    return ds


@pytest.mark.parametrize(
    ("entries", "declared", "off"),
    [
        (words(np.arange(256) * 257), 16, 0),
        (words(np.arange(256) * 256), 16, 1),
        (words(np.arange(256)), 16, 0),
        (np.arange(256, dtype=np.uint8).tobytes(), 8, 0),
        (words(np.arange(256)), 8, 0),
    ],
)
def test_palettes_of_eight_bit_pictures(tmp_path, phantom, entries, declared, off):
    found = read(build_palette(phantom, 8, entries, 256, declared), tmp_path)
    assert np.abs(found.pixels.astype(int) - phantom).max() <= off
    assert (found.mode, found.colour) == ("DICOM PALETTECOLOR 8 bit", 0)


@pytest.mark.parametrize(
    ("entries", "declared"), [((ALL >> 4).astype(np.uint8).tobytes(), 8), (words(ALL * 16), 16)]
)
def test_palettes_of_twelve_bit_pictures(tmp_path, deep, entries, declared):
    found = read(build_palette(deep, 12, entries, 4096, declared), tmp_path)
    assert np.abs(found.pixels.astype(int) - (deep >> 4)).max() <= 1


def test_palettes_in_colour_become_luminance(tmp_path, phantom):
    levels = np.arange(256)
    colours = np.stack([levels, levels // 2, 255 - levels], axis=-1)
    found = read(
        build_palette(phantom, 8, [words(entries * 257) for entries in colours.T], 256, 16), tmp_path
    )
    luminance = (colours @ np.array([0.299, 0.587, 0.114]))[phantom]
    assert np.abs(found.pixels - luminance).max() <= 0.6
    spread = (colours.max(axis=-1) - colours.min(axis=-1))[phantom].mean()
    assert found.colour == pytest.approx(spread, abs=3)


def test_palettes_in_segments_are_expanded(tmp_path, phantom):
    ds = build(phantom, 8, "PALETTE COLOR", SOPClassUID=SECONDARY, Modality="OT")
    for colour in ("Red", "Green", "Blue"):
        setattr(ds, f"{colour}PaletteColorLookupTableDescriptor", [256, 0, 16])
        segments = words([0, 1, 0, 1, 255, 65535])  # one discrete entry, then a line to white
        setattr(ds, f"Segmented{colour}PaletteColorLookupTableData", segments)
    assert np.abs(read(ds, tmp_path).pixels.astype(int) - phantom).max() <= 1


def test_a_dark_picture_of_a_palette_stays_dark(tmp_path):
    stored = np.random.default_rng(0).integers(0, 60, (40, 40), dtype=np.uint8)
    found = read(build_palette(stored, 8, words(np.arange(256) * 257), 256, 16), tmp_path)
    assert (found.pixels == stored).all()


@pytest.mark.parametrize(("bits", "dtype"), [(8, "u1"), (12, "u2"), (16, "u2"), (20, "u4")])
def test_colour_of_many_bits_is_scaled_by_its_own_range(tmp_path, phantom, bits, dtype):
    grey = np.round(phantom / 255 * (2**bits - 1)).astype(dtype)
    colour = np.stack([grey] * 3, axis=-1)
    found = read(build(colour, bits, "RGB", SOPClassUID=SECONDARY, Modality="OT"), tmp_path, depth="range")
    assert (found.pixels == phantom).all()
    assert found.colour == 0


@pytest.mark.parametrize("keyword", ["FloatPixelData", "DoubleFloatPixelData"])
@pytest.mark.parametrize("kind", ["MONOCHROME1", "MONOCHROME2"])
def test_floats(tmp_path, phantom, keyword, kind):
    ds = build(phantom, 8, kind)
    del ds.PixelData, ds.BitsStored, ds.HighBit, ds.PixelRepresentation
    values = phantom / 255.0
    values = (1 - values if kind == "MONOCHROME1" else values).astype("<f4" if keyword[0] == "F" else "<f8")
    values[:5] = np.nan
    values[5:9] = -1e30
    ds.BitsAllocated = 8 * values.itemsize
    setattr(ds, keyword, values.tobytes())
    setattr(ds, keyword.replace("Data", "PaddingValue"), float(values[5, 0]))
    found = read_whole_range(ds, tmp_path)
    assert (found[:9] == 0).all()
    assert np.abs(found[9:].astype(int) - scale(phantom[9:])).max() <= 1


@pytest.mark.parametrize("times", [2, 3, 4])
def test_more_bytes_than_the_tags_say_are_refused(tmp_path, phantom, times):
    ds = build(phantom, 8, WindowCenter=128, WindowWidth=256)
    ds.PixelData = np.stack([phantom] * times, axis=-1).tobytes()
    with pytest.raises(UnreadableError, match=f"holds {times} times the bytes that its tags say"):
        read(ds, tmp_path)
    ds.NumberOfFrames = times
    assert read(ds, tmp_path).note == f"first of {times} frames"


def test_a_few_bytes_more_are_accepted(tmp_path, phantom):
    ds = build(phantom, 8, WindowCenter=128, WindowWidth=256)
    ds.PixelData += b"\0" * 12
    assert (read(ds, tmp_path).pixels == phantom).all()


@pytest.mark.parametrize("bits", [9, 10, 12, 14])
def test_palettes_are_scaled_by_the_bits_that_their_entries_use(tmp_path, phantom, bits):
    entries = np.round(np.arange(256) / 255 * (2**bits - 1)).astype("<u2")
    ds = build_palette(phantom, 8, entries.tobytes(), 256, 16)
    found = read(ds, tmp_path).pixels
    assert np.abs(found.astype(int) - phantom).max() <= 2
    ds.RedPaletteColorLookupTableData = entries[:100].tobytes()
    with pytest.raises(UnreadableError, match="an incomplete palette"):
        read(ds, tmp_path, "short.dcm")


@pytest.mark.parametrize("stored", [9, 10, 11])
def test_values_of_more_bits_than_bits_stored_are_read_with_a_note(tmp_path, deep, stored):
    ds = build(deep, 12)
    ds.BitsStored, ds.HighBit = stored, stored - 1
    found = read(ds, tmp_path)
    assert np.corrcoef(found.pixels.ravel(), deep.ravel())[0, 1] > 0.999
    assert "more bits than BitsStored says" in found.note


def test_a_table_that_is_cut_short_is_not_used(tmp_path, deep):
    for keyword, words_ in (("ModalityLUTSequence", "Modality LUT is incomplete"), ("VOILUTSequence", "")):
        ds = build(deep, 12)
        setattr(ds, keyword, table([4096, 0, 12], np.arange(2000).astype("<u2").tobytes()))
        found = read(ds, tmp_path, f"{keyword}.dcm")
        assert np.corrcoef(found.pixels.ravel(), deep.ravel())[0, 1] > 0.99
        assert words_ in found.note
