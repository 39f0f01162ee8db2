"""Pictures of more than 8 bits in any format are scaled by their range and known by their first bytes."""

import io
import re
import struct

import imagecodecs
import numpy as np
import pytest
import tifffile
from dicom_files import scale
from hostile import build_png, encode_image
from PIL import Image

from xray_helpers.data.listing import list_data, list_files
from xray_helpers.data.manifest import inspect_files
from xray_helpers.images.radiographs import (
    SUFFIXES,
    ImageFolder,
    UnreadableError,
    looks_like_picture,
    read_radiograph,
)

Y, X = np.mgrid[0:64, 0:48]
GREY = np.round(127.5 + 127.5 * np.sin(X / 9) * np.cos(Y / 11)).astype(np.uint8)
DEEP = np.round(GREY / 255.0 * 4095).astype(np.uint16)
COLOURS = np.stack([DEEP] * 3, axis=-1)
OPAQUE = np.full_like(DEEP, 65535)
IMAGE = Image.fromarray(GREY)


def png(samples, orientation=0):
    """Return a PNG of 16 bits: grey, grey with alpha, colour or colour with alpha."""
    height, width = samples.shape[:2]
    kind = 0 if samples.ndim == 2 else {2: 4, 3: 2, 4: 6}[samples.shape[-1]]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in samples)
    return build_png(width, height, rows, kind, 16, orientation)


def tiff(samples, **options):
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, samples, **options)
    return buffer.getvalue()


def ppm(kind, samples, largest=65535):
    head = f"{kind}\n# a comment\n{samples.shape[1]} {samples.shape[0]}\n{largest}\n".encode()
    if kind in ("P2", "P3"):
        return head + " ".join(str(value) for value in samples.ravel()).encode()
    return head + samples.astype(">u2" if largest > 255 else "u1").tobytes()


def read(data, tmp_path, depth="range"):
    (tmp_path / "picture").write_bytes(data)
    return read_radiograph(tmp_path / "picture", ImageFolder(tmp_path, depth=depth))


@pytest.mark.parametrize("depth", ["range", "percentiles"])
@pytest.mark.parametrize(
    "samples",
    [COLOURS, np.dstack([COLOURS, OPAQUE]), np.dstack([DEEP, OPAQUE]), np.dstack([DEEP, OPAQUE >> 4])],
    ids=["RGB", "RGBA", "LA", "LA of 12 bits"],
)
@pytest.mark.parametrize("form", ["png", "tiff"])
def test_equal_channels_of_sixteen_bits_are_read_like_grey_of_sixteen_bits(tmp_path, samples, depth, form):
    if form == "tiff":
        extra = {"extrasamples": ["unassalpha"]} if samples.shape[2] in (2, 4) else {}
        kind = "rgb" if samples.shape[2] > 2 else "minisblack"
        data = tiff(samples, photometric=kind, planarconfig="contig", **extra)
    else:
        data = png(samples)
    found = read(data, tmp_path, depth)
    assert (found.pixels == read(png(DEEP), tmp_path, depth).pixels).all()
    assert (found.pixels == scale(DEEP)).all() or depth == "percentiles"
    assert found.mode == {2: "LA;16", 3: "RGB;16", 4: "RGBA;16"}[samples.shape[2]]
    assert found.colour == 0


def test_transparent_pixels_are_black_and_do_not_count_towards_the_range(tmp_path):
    alpha = OPAQUE.copy()
    alpha[:9] = 0
    for samples in (np.dstack([DEEP + 1000, alpha]), np.dstack([COLOURS + 1000, alpha])):
        found = read(png(samples), tmp_path).pixels
        assert (found[:9] == 0).all()
        assert (found[9:] == scale(DEEP[9:])).all()


def test_colour_of_sixteen_bits_is_measured(tmp_path):
    found = read(png(np.dstack([DEEP, DEEP // 2, DEEP // 4])), tmp_path)
    luminance = DEEP * 0.299 + (DEEP // 2) * 0.587 + (DEEP // 4) * 0.114
    assert np.abs(found.pixels.astype(int) - scale(luminance)).max() <= 1
    assert 30 < found.colour < 150


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", ["u1", "u2", "i2", "u4", "i4", "f2", "f4", "f8"])
@pytest.mark.parametrize("white", [False, True])
def test_tiff_of_any_type_and_byte_order_is_inverted_as_its_tag_says(tmp_path, order, kind, white):
    values = (GREY if kind == "u1" else DEEP).astype(np.int64)
    top = 255 if kind == "u1" else 4095
    stored = (top - values if white else values).astype(order + kind)
    data = tiff(stored, photometric="miniswhite" if white else "minisblack", byteorder=order)
    assert data[:2] == (b"II" if order == "<" else b"MM")
    assert (read(data, tmp_path).pixels == (GREY if kind == "u1" else scale(DEEP))).all()


@pytest.mark.parametrize(
    "options",
    [
        {"compression": "zlib", "predictor": True},
        {"compression": "lzw"},
        {"compression": "zstd"},
        {"tile": (32, 32)},
        {"bigtiff": True},
        {"rowsperstrip": 7},
        {"compression": "packbits"},
    ],
    ids=str,
)
def test_tiff_of_any_compression_and_layout(tmp_path, options):
    assert (
        read(tiff(4095 - DEEP, photometric="miniswhite", **options), tmp_path).pixels == scale(DEEP)
    ).all()
    planes = tiff(np.moveaxis(COLOURS, -1, 0), photometric="rgb", planarconfig="separate", **options)
    assert (read(planes, tmp_path).pixels == scale(DEEP)).all()


def test_first_page_and_values_that_are_not_finite(tmp_path):
    found = read(tiff(np.stack([DEEP, DEEP[::-1]]), photometric="minisblack"), tmp_path)
    assert (found.pixels == scale(DEEP)).all()
    assert found.note == "first of 2 pages"
    floats = -DEEP.astype(np.float32)
    floats[:3], floats[3:6] = np.nan, np.inf
    found = read(tiff(floats, photometric="miniswhite"), tmp_path).pixels
    assert (found[:6] == 0).all()
    assert (found[6:] == scale(DEEP[6:])).all()


@pytest.mark.parametrize("turned", range(1, 9))
def test_orientation_is_applied_as_for_eight_bits(tmp_path, turned):
    exif = Image.Exif()
    exif[0x0112] = turned
    expected = read(encode_image(IMAGE, "PNG", exif=exif), tmp_path).pixels
    for data in (png(COLOURS, turned), tiff(DEEP, extratags=[(0x112, "H", 1, turned, True)])):
        assert (read(data, tmp_path).pixels == expected).all()


JPEG_2000 = {"level": 0, "reversible": True}


@pytest.mark.parametrize(
    "data",
    [
        ppm("P5", DEEP),
        ppm("P5", DEEP, 4095),
        ppm("P2", DEEP, 4095),
        ppm("P6", COLOURS),
        ppm("P6", COLOURS, 4095),
        ppm("P3", COLOURS),
        ppm("P5", GREY, 255),
        ppm("P6", np.stack([GREY] * 3, axis=-1), 255),
        imagecodecs.jpeg2k_encode(DEEP, codecformat="jp2", bitspersample=12, **JPEG_2000),
        imagecodecs.jpeg2k_encode(COLOURS, codecformat="jp2", **JPEG_2000),
        imagecodecs.jpeg2k_encode(COLOURS, codecformat="j2k", **JPEG_2000),
        imagecodecs.jpeg2k_encode(GREY, codecformat="jp2", **JPEG_2000),
        imagecodecs.htj2k_encode(DEEP),
        imagecodecs.jpeg8_encode(DEEP, lossless=True, bitspersample=12),
        imagecodecs.jpeg8_encode(GREY, lossless=True),
        imagecodecs.jpegls_encode(DEEP),
        imagecodecs.jpegls_encode(GREY),
    ],
)
def test_other_lossless_formats(tmp_path, data):
    assert (read(data, tmp_path).pixels == GREY).all()


def test_jpeg_of_twelve_bits(tmp_path):
    found = read(imagecodecs.jpeg8_encode(DEEP, level=95, bitspersample=12), tmp_path)
    assert np.abs(found.pixels.astype(int) - GREY).mean() < 1
    assert found.mode == "L;16"


@pytest.mark.parametrize(
    "data",
    [
        png(COLOURS),
        tiff(DEEP, compression="zlib"),
        tiff(DEEP),
        ppm("P6", COLOURS),
        ppm("P5", DEEP),
        imagecodecs.jpeg2k_encode(DEEP, codecformat="jp2", **JPEG_2000),
        imagecodecs.jpegls_encode(DEEP),
        imagecodecs.jpeg8_encode(DEEP, level=95, bitspersample=12),
        imagecodecs.ljpeg_encode(DEEP, bitspersample=12),
    ],
)
def test_truncated_files_are_refused(tmp_path, data):
    for share in (0.6, 0.95):
        with pytest.raises(UnreadableError, match=r"^is (truncated|damaged) \(.*\): get a complete copy$"):
            read(data[: int(share * len(data))], tmp_path)


def test_sizes_are_checked_before_decoding(tmp_path):
    wide = re.sub(rb"48 64", b"60000 60000", ppm("P6", COLOURS))
    with pytest.raises(UnreadableError, match="60000 x 60000 pixels are too many"):
        read(wide, tmp_path)
    frame = imagecodecs.jpegls_encode(DEEP).replace(
        struct.pack(">HH", 64, 48), struct.pack(">HH", 60000, 60000)
    )
    with pytest.raises(UnreadableError, match="60000 x 60000 pixels are too many"):
        read(frame, tmp_path)


FILES = {
    "PNG": encode_image(IMAGE, "PNG"),
    "JPEG": encode_image(IMAGE, "JPEG"),
    "TIFF": encode_image(IMAGE, "TIFF"),
    "big-endian TIFF": tiff(DEEP, byteorder=">"),
    "BigTIFF": tiff(DEEP, bigtiff=True),
    "BMP": encode_image(IMAGE, "BMP"),
    "WebP": encode_image(IMAGE.convert("RGB"), "WEBP"),
    "GIF": encode_image(IMAGE, "GIF"),
    "PGM": ppm("P5", DEEP),
    "PPM": ppm("P6", COLOURS),
    "JP2": encode_image(IMAGE, "JPEG2000"),
    "J2K": imagecodecs.jpeg2k_encode(DEEP, codecformat="j2k", **JPEG_2000),
    "JPEG-LS": imagecodecs.jpegls_encode(DEEP),
}


@pytest.mark.parametrize("suffix", [".jfif", ".jpe", ".pgm", ".ppm", ".pnm", ".jp2", ".j2k", ".JPE"])
def test_known_suffixes(suffix):
    assert suffix.lower() in SUFFIXES


@pytest.mark.parametrize(
    "name", ["picture", "picture.001", "picture.jpg_large", "1.2.840.113", "picture.jpx", "a b."]
)
def test_pictures_are_known_by_their_first_bytes(tmp_path, name):
    for number, (kind, data) in enumerate(FILES.items()):
        place = tmp_path / "set" / f"{number:02d}" / name
        place.parent.mkdir(parents=True)
        place.write_bytes(data)
        assert looks_like_picture(data[:132]), kind
    table = inspect_files(list_data(str(tmp_path / "set"), labelled=False))
    assert (table["status"] == "readable").all()
    assert len(table) == len(FILES) == len(list_files(tmp_path / "set"))
    assert not any(reason for _, _, reason in list_files(tmp_path / "set"))


@pytest.mark.parametrize(
    "text",
    [
        b"Python notes\n",
        b"P5 is what they call it\n",
        b"BMW\n",
        b"BM 2024, page 12 and more",
        b"RIFF of a WAVE file",
        b"II* but no TIFF"[:3],
        b"path,label\n",
        b"",
    ],
)
def test_other_files_are_not_images(tmp_path, text):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "notes").write_bytes(text)
    (tmp_path / "set" / "a.png").write_bytes(FILES["PNG"])
    table = inspect_files(list_data(str(tmp_path / "set"), labelled=False)).set_index("path")
    assert table.loc["notes", "status"] == "no image"
    assert table.loc["notes", "reason"] == "is no image by its name, nor by its first bytes: nothing to do"


def test_a_study_notes_unusual_pictures_as_prediction_does(tmp_path):
    """Uniform pictures are excluded; tiny, thin and coloured ones are noted."""
    rng = np.random.default_rng(0)
    place = tmp_path / "set" / "Fractured"
    place.mkdir(parents=True)
    pictures = {
        "white.png": np.full((90, 90), 255, np.uint8),
        "nearly.png": rng.integers(100, 102, (90, 90), dtype=np.uint8),
        "tiny.png": rng.integers(0, 256, (20, 24), dtype=np.uint8),
        "thin.png": rng.integers(0, 256, (40, 400), dtype=np.uint8),
        "photo.png": rng.integers(0, 2, (90, 90, 1), dtype=np.uint8) * np.array([200, 100, 20], np.uint8),
        "plain.png": rng.integers(0, 256, (90, 90), dtype=np.uint8),
    }
    for name, pixels in pictures.items():
        Image.fromarray(pixels).save(place / name)
    table = inspect_files(list_data(str(tmp_path / "set"), labelled=False)).set_index("path")
    table.index = table.index.str.removeprefix("Fractured/")
    for name in ("white.png", "nearly.png"):
        assert table.loc[name, "status"] == "excluded"
        assert table.loc[name, "reason"] == "is almost one grey: there is no picture in it"
        assert (table.loc[name, "width"], len(table.loc[name, "sha256"])) == (90, 64)
    notes = table["note"].fillna("")
    assert (table.loc[["tiny.png", "thin.png", "photo.png", "plain.png"], "status"] == "readable").all()
    assert notes["tiny.png"] == "too small: 24 x 20 pixels"
    assert notes["thin.png"] == "very long and thin: 400 x 40 pixels"
    assert notes["photo.png"] == "a colour photograph, no radiograph"
    assert notes["plain.png"] == ""


def test_a_truncated_ppm_of_text_is_refused(tmp_path):
    rng = np.random.default_rng(0)
    numbers = " ".join(map(str, rng.integers(0, 4096, 3 * 40 * 50)))
    (tmp_path / "a.ppm").write_text(f"P3\n50 40\n4095\n{numbers}\n")
    assert read_radiograph(tmp_path / "a.ppm").pixels.shape == (40, 50)
    (tmp_path / "b.ppm").write_text(f"P3\n50 40\n4095\n{numbers[: len(numbers) // 2]}\n")
    with pytest.raises(UnreadableError, match="truncated"):
        read_radiograph(tmp_path / "b.ppm")
