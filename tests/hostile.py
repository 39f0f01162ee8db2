"""Unusual and damaged files as they occur in real folders, and whether each is read."""

import io
import os
import struct
import zlib

import numpy as np
from PIL import Image, PngImagePlugin

GREY = np.kron(np.arange(16, dtype=np.uint8).reshape(4, 4) * 16, np.ones((8, 8), np.uint8))


def encode_image(image, kind, **options):
    """Return the bytes of a Pillow image as a file."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def build_png(width, height, rows=b"", kind=0, bits=8, orientation=0):
    """Return a PNG with any header; `kind` is its colour type."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, 0))
    if orientation:
        exif = b"MM\0*\0\0\0\x08" + struct.pack(">HHHIHHI", 1, 0x112, 3, 1, orientation, 0, 0)
        head += chunk(b"eXIf", exif)
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(rows, 1)) + chunk(b"IEND", b"")


def pictures():
    """Return name, bytes, and None if it is read, or else a part of the reason, of each file."""
    grey, rgb = Image.fromarray(GREY), Image.fromarray(np.stack([GREY] * 3, axis=-1))
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8))
    jpeg, deep = encode_image(noise, "JPEG"), Image.fromarray(GREY.astype(np.uint16) * 200)
    alpha = rgb.convert("RGBA")
    palette = grey.convert("P")
    exif = Image.Exif()
    exif[0x0112] = 6
    bomb = PngImagePlugin.PngInfo()
    bomb.add_text("x", "0" * 30_000_000, zip=True)
    pages = {"save_all": True, "append_images": [grey, grey]}
    return [
        ("grey.png", encode_image(grey, "PNG"), None),
        ("one_bit.png", encode_image(grey.convert("1"), "PNG"), None),
        ("deep.png", encode_image(deep, "PNG"), None),
        ("palette.png", encode_image(palette, "PNG"), None),
        ("palette_alpha.png", encode_image(palette, "PNG", transparency=3), None),
        ("alpha.png", encode_image(alpha, "PNG"), None),
        ("grey_alpha.png", encode_image(grey.convert("LA"), "PNG"), None),
        ("rgb.png", encode_image(rgb, "PNG"), None),
        ("interlaced.png", encode_image(grey, "PNG", interlace=1), None),
        ("one_pixel.png", encode_image(grey.crop((0, 0, 1, 1)), "PNG"), "one grey"),
        ("thin.png", encode_image(Image.fromarray(np.ones((1, 3000), np.uint8)), "PNG"), "one grey"),
        ("black.png", encode_image(Image.fromarray(np.zeros((9, 9), np.uint8)), "PNG"), "one grey"),
        ("flat16.png", encode_image(Image.fromarray(np.full((9, 9), 7, np.uint16)), "PNG"), "one grey"),
        ("grey.jpg", encode_image(grey, "JPEG"), None),
        ("rgb.jpeg", encode_image(rgb, "JPEG"), None),
        ("upper.JPG", encode_image(grey, "JPEG"), None),
        ("cmyk.jpg", encode_image(rgb.convert("CMYK"), "JPEG"), None),
        ("progressive.jpg", encode_image(noise, "JPEG", progressive=True), None),
        ("sideways.jpg", encode_image(noise, "JPEG", exif=exif), None),
        ("ycbcr.jpg", encode_image(rgb.convert("YCbCr"), "JPEG"), None),
        ("is_a_png.jpg", encode_image(grey, "PNG"), None),
        ("is_a_jpeg.png", jpeg, None),
        ("grey.tif", encode_image(grey, "TIFF"), None),
        ("deep.tiff", encode_image(deep, "TIFF"), None),
        ("pages.tif", encode_image(grey, "TIFF", **pages), None),
        ("lzw.tif", encode_image(grey, "TIFF", compression="tiff_lzw"), None),
        ("float.tif", encode_image(Image.fromarray(GREY.astype(np.float32)), "TIFF"), None),
        (
            "nan.tif",
            encode_image(Image.fromarray(np.where(GREY > 99, np.nan, GREY).astype(np.float32)), "TIFF"),
            None,
        ),
        ("cmyk.tif", encode_image(rgb.convert("CMYK"), "TIFF"), None),
        ("grey.bmp", encode_image(grey, "BMP"), None),
        ("rgb.bmp", encode_image(rgb, "BMP"), None),
        ("grey.webp", encode_image(rgb, "WEBP"), None),
        ("lossless.webp", encode_image(rgb, "WEBP", lossless=True), None),
        ("grey.gif", encode_image(grey, "GIF"), None),
        ("moving.gif", encode_image(grey, "GIF", **pages), None),
        ("trailing.png", encode_image(grey, "PNG") + b"more" * 99, None),
        ("emoji 🦴 and 'quotes\".png", encode_image(grey, "PNG"), None),
        ("new\nline.png", encode_image(grey, "PNG"), None),
        ("{{7*7}} <img src=x onerror=alert(1)>.png", encode_image(grey, "PNG"), None),
        ("a%20b.png", encode_image(grey, "PNG"), None),
        ("-rf.png", encode_image(grey, "PNG"), None),
        (" spaces .png", encode_image(grey, "PNG"), None),
        ("tab\t.png", encode_image(grey, "PNG"), None),
        ("n" * 251 + ".png", encode_image(grey, "PNG"), None),
        ("empty.png", b"", "is empty"),
        ("cut.jpg", jpeg[: len(jpeg) // 2], "truncated"),
        ("header.jpg", jpeg[:30], "get a complete copy"),
        ("cut.png", encode_image(noise, "PNG")[:900], "get a complete copy"),
        ("text.jpg", b"no picture", "no picture of a known format"),
        ("zeros.png", b"\0" * 5000, "no picture"),
        ("random.tif", np.random.default_rng(1).bytes(4000), "no picture"),
        ("html.png", b"<html><script>alert(1)</script>", "no picture"),
        ("vector.png", b"<svg xmlns='x'/>", "no picture"),
        ("postscript.jpg", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "no picture"),
        ("huge.png", build_png(60_000, 60_000), "too many"),
        ("wide.png", build_png(2**31 - 1, 1), ""),
        ("no_rows.png", build_png(0, 10), ""),
        ("half.png", build_png(2000, 2000, b"\0" * 1000), "get a complete copy"),
        ("bomb.png", encode_image(grey, "PNG", pnginfo=bomb), ""),
        ("bare.dcm", b"\0" * 128 + b"DICM", "DICOM"),
        ("junk.dcm", b"\0" * 128 + b"DICM" + b"\xff" * 3000, "DICOM"),
        ("text.dcm", b"no picture", "no picture"),
        ("only_magic.gif", b"GIF89a", ""),
        ("only_magic.bmp", b"BM", ""),
    ]


def write_hostile_folder(tmp_path):
    """Write `pictures`, links, a pipe, hidden files and a name other than UTF-8; return their folder."""
    folder = tmp_path / "set" / "Fractured"
    folder.mkdir(parents=True)
    for name, data, _ in pictures():
        (folder / name).write_bytes(data)
    (folder / "folder.png").mkdir()
    (folder / "folder.png" / "within.png").write_bytes(encode_image(Image.fromarray(GREY), "PNG"))
    (folder / "broken_link.png").symlink_to(folder / "nothing.png")
    (tmp_path / "outside.png").write_bytes(encode_image(Image.fromarray(GREY), "PNG"))
    (folder / "link_out.png").symlink_to(tmp_path / "outside.png")
    (folder / "link_in.png").symlink_to(folder / "grey.png")
    (folder / "loop").symlink_to(tmp_path / "set")
    (folder / "round.png").symlink_to(folder / "round.png")
    os.mkfifo(folder / "pipe.png")
    (folder / "locked.png").write_bytes(encode_image(Image.fromarray(GREY), "PNG"))
    (folder / "locked.png").chmod(0)
    for name in (".DS_Store", "Thumbs.db", "a.png:Zone.Identifier", "._grey.png", "notes.txt", "sheet.xlsx"):
        (folder / name).write_bytes(b"\0\1")
    with open(os.path.join(os.fsencode(folder), b"latin-\xe9\xff.png"), "wb") as handle:
        handle.write(encode_image(Image.fromarray(GREY), "PNG"))
    return tmp_path / "set"
