"""Files as folders really hold them, with what becomes of each."""

import io
import os
import struct
import zlib

import numpy as np
from PIL import Image, PngImagePlugin

GREY = np.kron(np.arange(16, dtype=np.uint8).reshape(4, 4) * 16, np.ones((8, 8), np.uint8))


def packed(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def png_of(width, height, rows=b"", kind=0, bits=8):
    """A PNG whose header claims what it likes."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(rows, 1)) + chunk(b"IEND", b"")


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
        ("one_pixel.png", packed(grey.crop((0, 0, 1, 1)), "PNG"), "one grey"),
        ("thin.png", packed(Image.fromarray(np.ones((1, 3000), np.uint8)), "PNG"), "one grey"),
        ("black.png", packed(Image.fromarray(np.zeros((9, 9), np.uint8)), "PNG"), "one grey"),
        ("flat16.png", packed(Image.fromarray(np.full((9, 9), 7, np.uint16)), "PNG"), "one grey"),
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
        (
            "nan.tif",
            packed(Image.fromarray(np.where(GREY > 99, np.nan, GREY).astype(np.float32)), "TIFF"),
            None,
        ),
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
        ("header.jpg", jpeg[:30], "get a complete copy"),
        ("cut.png", packed(noise, "PNG")[:900], "get a complete copy"),
        ("text.jpg", b"no picture", "no picture of a known format"),
        ("zeros.png", b"\0" * 5000, "no picture"),
        ("random.tif", np.random.default_rng(1).bytes(4000), "no picture"),
        ("html.png", b"<html><script>alert(1)</script>", "no picture"),
        ("vector.png", b"<svg xmlns='x'/>", "no picture"),
        ("postscript.jpg", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "no picture"),
        ("huge.png", png_of(60_000, 60_000), "too many"),
        ("wide.png", png_of(2**31 - 1, 1), ""),
        ("no_rows.png", png_of(0, 10), ""),
        ("half.png", png_of(2000, 2000, b"\0" * 1000), "get a complete copy"),
        ("bomb.png", packed(grey, "PNG", pnginfo=bomb), ""),
        ("bare.dcm", b"\0" * 128 + b"DICM", "DICOM"),
        ("junk.dcm", b"\0" * 128 + b"DICM" + b"\xff" * 3000, "DICOM"),
        ("text.dcm", b"no picture", "no picture"),
        ("only_magic.gif", b"GIF89a", ""),
        ("only_magic.bmp", b"BM", ""),
    ]


def write_hostile_folder(tmp_path):
    """Write them all below `tmp_path`, with links, a pipe, hidden files and a name that is no UTF-8; return
    the folder.
    """
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
