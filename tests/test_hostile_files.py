"""Files as folders really hold them: each is read or has its reason, and nothing hangs or grows without bound."""

import io
import os
import resource
import struct
import time
import zlib

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from xray_helpers.manifest import build_manifest, inspect_files, list_data, read_pictures
from xray_helpers.radiographs import ImageFolder, UnreadableError, escape_name, find_file, read_radiograph
from xray_helpers.settings import build_settings

GREY = np.kron(np.arange(16, dtype=np.uint8).reshape(4, 4) * 16, np.ones((8, 8), np.uint8))


def packed(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def png_of(width, height, rows=b"", kind=0):
    """A PNG whose header claims what it likes."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, kind, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def pictures():
    """Name, bytes, and None where it is read, else a word of the reason."""
    grey, rgb = Image.fromarray(GREY), Image.fromarray(np.stack([GREY] * 3, axis=-1))
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8))
    jpeg, deep = packed(noise, "JPEG"), Image.fromarray(GREY.astype(np.uint16) * 200)
    alpha = rgb.convert("RGBA")
    palette = grey.convert("P")
    exif = Image.Exif()
    exif[0x0112] = 6
    bomb = PngImagePlugin.PngInfo()
    bomb.add_text("x", "0" * 30_000_000, zip=True)
    pages = {"save_all": True, "append_images": [grey, grey]}
    return [
        ("grey.png", packed(grey, "PNG"), None),
        ("one_bit.png", packed(grey.convert("1"), "PNG"), None),
        ("deep.png", packed(deep, "PNG"), None),
        ("palette.png", packed(palette, "PNG"), None),
        ("palette_alpha.png", packed(palette, "PNG", transparency=3), None),
        ("alpha.png", packed(alpha, "PNG"), None),
        ("grey_alpha.png", packed(grey.convert("LA"), "PNG"), None),
        ("rgb.png", packed(rgb, "PNG"), None),
        ("interlaced.png", packed(grey, "PNG", interlace=1), None),
        ("one_pixel.png", packed(grey.crop((0, 0, 1, 1)), "PNG"), None),
        ("thin.png", packed(Image.fromarray(np.ones((1, 3000), np.uint8)), "PNG"), None),
        ("black.png", packed(Image.fromarray(np.zeros((9, 9), np.uint8)), "PNG"), None),
        ("flat16.png", packed(Image.fromarray(np.full((9, 9), 7, np.uint16)), "PNG"), None),
        ("grey.jpg", packed(grey, "JPEG"), None),
        ("rgb.jpeg", packed(rgb, "JPEG"), None),
        ("upper.JPG", packed(grey, "JPEG"), None),
        ("cmyk.jpg", packed(rgb.convert("CMYK"), "JPEG"), None),
        ("progressive.jpg", packed(noise, "JPEG", progressive=True), None),
        ("sideways.jpg", packed(noise, "JPEG", exif=exif), None),
        ("ycbcr.jpg", packed(rgb.convert("YCbCr"), "JPEG"), None),
        ("is_a_png.jpg", packed(grey, "PNG"), None),
        ("is_a_jpeg.png", jpeg, None),
        ("grey.tif", packed(grey, "TIFF"), None),
        ("deep.tiff", packed(deep, "TIFF"), None),
        ("pages.tif", packed(grey, "TIFF", **pages), None),
        ("lzw.tif", packed(grey, "TIFF", compression="tiff_lzw"), None),
        ("float.tif", packed(Image.fromarray(GREY.astype(np.float32)), "TIFF"), None),
        ("nan.tif", packed(Image.fromarray(np.where(GREY > 99, np.nan, GREY).astype(np.float32)), "TIFF"), None),
        ("cmyk.tif", packed(rgb.convert("CMYK"), "TIFF"), None),
        ("grey.bmp", packed(grey, "BMP"), None),
        ("rgb.bmp", packed(rgb, "BMP"), None),
        ("grey.webp", packed(rgb, "WEBP"), None),
        ("lossless.webp", packed(rgb, "WEBP", lossless=True), None),
        ("grey.gif", packed(grey, "GIF"), None),
        ("moving.gif", packed(grey, "GIF", **pages), None),
        ("trailing.png", packed(grey, "PNG") + b"more" * 99, None),
        ("emoji 🦴 and 'quotes\".png", packed(grey, "PNG"), None),
        ("new\nline.png", packed(grey, "PNG"), None),
        ("{{7*7}} <img src=x onerror=alert(1)>.png", packed(grey, "PNG"), None),
        ("a%20b.png", packed(grey, "PNG"), None),
        ("-rf.png", packed(grey, "PNG"), None),
        (" spaces .png", packed(grey, "PNG"), None),
        ("tab\t.png", packed(grey, "PNG"), None),
        ("n" * 251 + ".png", packed(grey, "PNG"), None),
        ("empty.png", b"", "is empty"),
        ("cut.jpg", jpeg[: len(jpeg) // 2], "truncated"),
        ("header.jpg", jpeg[:30], "get a whole copy"),
        ("cut.png", packed(noise, "PNG")[:900], "get a whole copy"),
        ("text.jpg", b"no picture", "no picture of a known format"),
        ("zeros.png", b"\0" * 5000, "no picture"),
        ("random.tif", np.random.default_rng(1).bytes(4000), "no picture"),
        ("html.png", b"<html><script>alert(1)</script>", "no picture"),
        ("vector.png", b"<svg xmlns='x'/>", "no picture"),
        ("postscript.jpg", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "no picture"),
        ("huge.png", png_of(60_000, 60_000), "too many"),
        ("wide.png", png_of(2**31 - 1, 1), ""),
        ("no_rows.png", png_of(0, 10), ""),
        ("half.png", png_of(2000, 2000, b"\0" * 1000), "get a whole copy"),
        ("bomb.png", packed(grey, "PNG", pnginfo=bomb), ""),
        ("bare.dcm", b"\0" * 128 + b"DICM", "DICOM"),
        ("junk.dcm", b"\0" * 128 + b"DICM" + b"\xff" * 3000, "DICOM"),
        ("text.dcm", b"no picture", "no picture"),
        ("only_magic.gif", b"GIF89a", ""),
        ("only_magic.bmp", b"BM", ""),
    ]


def limits_kept(started):
    assert time.monotonic() - started < 120
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < 4 * 2**20  # KiB, of all tests of this process so far


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "set" / "Fractured"
    place.mkdir(parents=True)
    for name, data, _ in pictures():
        (place / name).write_bytes(data)
    (place / "folder.png").mkdir()
    (place / "folder.png" / "within.png").write_bytes(packed(Image.fromarray(GREY), "PNG"))
    (place / "broken_link.png").symlink_to(place / "nothing.png")
    (tmp_path / "outside.png").write_bytes(packed(Image.fromarray(GREY), "PNG"))
    (place / "link_out.png").symlink_to(tmp_path / "outside.png")
    (place / "link_in.png").symlink_to(place / "grey.png")
    (place / "loop").symlink_to(tmp_path / "set")
    (place / "round.png").symlink_to(place / "round.png")
    os.mkfifo(place / "pipe.png")
    (place / "locked.png").write_bytes(packed(Image.fromarray(GREY), "PNG"))
    (place / "locked.png").chmod(0)
    for name in (".DS_Store", "Thumbs.db", "a.png:Zone.Identifier", "._grey.png", "notes.txt", "sheet.xlsx"):
        (place / name).write_bytes(b"\0\1")
    with open(os.path.join(os.fsencode(place), b"latin-\xe9\xff.png"), "wb") as handle:
        handle.write(packed(Image.fromarray(GREY), "PNG"))
    return tmp_path / "set"


def test_every_file_is_read_or_has_its_reason(root, folder):
    started = time.monotonic()
    table = inspect_files(list_data(str(folder), labelled=False)).set_index("path")
    limits_kept(started)
    for name, _, reason in pictures():
        row = table.loc[f"Fractured/{escape_name(name)}"]
        if reason is None:
            assert row["status"] == "readable", (name, row["reason"])
            assert row["width"] > 0
        else:
            assert row["status"] == "unreadable" or reason == "", name
            assert row["status"] == "readable" or (reason in row["reason"] and ": " in row["reason"]), (
                name,
                row["reason"],
            )
    reasons = {
        "broken_link.png": "cannot be opened",
        "link_out.png": "link out of the data folder",
        "round.png": "cannot be opened",
        "pipe.png": "no ordinary file",
        "loop": "link to a folder",
        ".DS_Store": "is hidden",
        "Thumbs.db": "no image by its name",
        "a.png:Zone.Identifier": "no image by its name",
        "._grey.png": "is hidden",
    }
    for name, reason in reasons.items():
        assert reason in table.loc[f"Fractured/{name}", "reason"], name
        assert table.loc[f"Fractured/{name}", "status"] in ("unreadable", "no image")
    assert table.loc["Fractured/link_in.png", "status"] == "readable"
    assert table.loc["Fractured/folder.png/within.png", "status"] == "readable"
    assert table.loc["Fractured/pages.tif", "note"] == "first of 3 pages"
    if os.geteuid():
        assert "permissions" in table.loc["Fractured/locked.png", "reason"]
    assert "Fractured/latin-%E9%FF.png" in table.index
    assert len(pictures()) >= 60


def test_escaped_names_are_read_back(root, folder, tmp_path):
    table = inspect_files(list_data(str(folder), labelled=False))
    readable = table.loc[table["status"] == "readable", "path"]
    table.to_csv(tmp_path / "manifest.csv", index=False)
    again = pd.read_csv(tmp_path / "manifest.csv")["path"]
    assert set(readable) <= set(again)
    assert len(read_pictures(readable, folder)) == len(readable)


@given(st.text(min_size=1, max_size=30).filter(lambda t: "/" not in t and "\0" not in t and t not in (".", "..")))
def test_any_name_is_found_again(tmp_path_factory, name):
    folder = tmp_path_factory.mktemp("names")
    try:
        (folder / name).write_bytes(b"x")
    except (OSError, UnicodeEncodeError):
        return
    assert escape_name(name).isprintable()
    assert find_file(folder, escape_name(name)).read_bytes() == b"x"


def test_a_study_sees_through_such_a_folder(root, folder, make_images):
    make_images(folder / "normal", 12, seed=2)
    table, _ = build_manifest(build_settings(name="s", data="set"))
    assert set(table["status"]) <= {"readable", "unreadable", "no image", "excluded"}
    assert (table["status"] == "readable").sum() > 50


def test_a_truncated_jpeg_can_be_kept_and_is_flagged(tmp_path):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (256, 256), dtype=np.uint8))
    data = packed(noise, "JPEG", quality=95)
    (tmp_path / "a.jpg").write_bytes(data[: len(data) // 2])
    (tmp_path / "whole.jpg").write_bytes(data)
    with pytest.raises(UnreadableError, match="truncated"):
        read_radiograph(tmp_path / "a.jpg")
    found = read_radiograph(tmp_path / "a.jpg", ImageFolder(tmp_path, truncated="keep"))
    assert found.note == "truncated: what is missing is grey"
    whole = read_radiograph(tmp_path / "whole.jpg").pixels
    assert (found.pixels[:80] == whole[:80]).all()
    with pytest.raises(UnreadableError, match="truncated"):
        read_radiograph(tmp_path / "a.jpg")  # the switch is off again


def test_sixteen_bits_by_percentiles_or_range(tmp_path):
    values = np.linspace(1000, 2000, 10_000).astype(np.uint16).reshape(100, 100)
    values[0, 0] = 65535
    Image.fromarray(values).save(tmp_path / "a.png")
    wide = read_radiograph(tmp_path / "a.png", ImageFolder(tmp_path, depth="range")).pixels
    near = read_radiograph(tmp_path / "a.png", ImageFolder(tmp_path, depth="percentiles")).pixels
    assert wide[1:].max() <= 4
    assert near[1:].max() == 255
    assert int(near[50, 50]) == pytest.approx(128, abs=3)


def test_colour_is_measured(tmp_path):
    Image.fromarray(np.stack([GREY] * 3, axis=-1)).save(tmp_path / "grey.png")
    Image.new("RGB", (20, 20), (200, 80, 20)).save(tmp_path / "orange.png")
    assert read_radiograph(tmp_path / "grey.png").colour == 0
    assert read_radiograph(tmp_path / "orange.png").colour == pytest.approx(180, abs=1)


SEEDS = [packed(Image.fromarray(GREY), kind) for kind in ("PNG", "JPEG", "TIFF", "BMP", "GIF")]
SEEDS += [packed(Image.fromarray(GREY).convert("RGB"), "WEBP")]


def dicom_seed():
    import pydicom

    ds = pydicom.Dataset()
    ds.Modality, ds.SOPClassUID, ds.Rows, ds.Columns = "DX", "1.2.840.10008.5.1.4.1.1.1", 32, 32
    ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.PixelRepresentation = 1, "MONOCHROME2", 0
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelData = 8, 8, 7, GREY.tobytes()
    ds["PixelData"].VR = "OB"
    ds.file_meta = pydicom.dataset.FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    ds.file_meta.MediaStorageSOPClassUID, ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPClassUID, "1.2"
    buffer = io.BytesIO()
    ds.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


SEEDS.append(dicom_seed())


@pytest.mark.slow
@settings(max_examples=2000, deadline=20_000, suppress_health_check=list(HealthCheck))
@given(st.sampled_from(SEEDS), st.lists(st.tuples(st.integers(0, 2000), st.binary(min_size=1, max_size=8)), max_size=6),
       st.integers(0, 3000))  # fmt: skip
def test_mutated_files_neither_crash_nor_hang_nor_grow(tmp_path_factory, seed, changes, cut):
    data = bytearray(seed)
    for at, new in changes:
        data[at % len(data) : at % len(data) + len(new)] = new
    path = tmp_path_factory.getbasetemp() / "mutated.png"
    path.write_bytes(bytes(data[: max(1, cut)]))
    try:
        found = read_radiograph(path, ImageFolder(path.parent, other_modalities=True))
        assert found.pixels.dtype == np.uint8
        assert found.pixels.ndim == 2
    except UnreadableError as error:
        assert ": " in str(error)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < 6 * 2**20
