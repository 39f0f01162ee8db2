import hashlib

import numpy as np
import pytest
from PIL import Image

from xray_helpers.images.radiographs import UnreadableError, read_radiograph

GREY = np.arange(60, dtype=np.uint8).reshape(6, 10) * 4


def save(path, image, **options):
    image.save(path, **options)
    return read_radiograph(path)


@pytest.mark.parametrize("suffix", [".png", ".tif", ".bmp"])
def test_grey_is_read_unchanged(tmp_path, suffix):
    read = save(tmp_path / f"a{suffix}", Image.fromarray(GREY))
    assert (read.pixels == GREY).all()
    assert read.pixels.dtype == np.uint8
    assert read.mode == "L"
    assert read.sha256 == hashlib.sha256((tmp_path / f"a{suffix}").read_bytes()).hexdigest()


def test_colour_of_equal_channels_is_that_grey(tmp_path):
    assert (save(tmp_path / "a.png", Image.fromarray(np.stack([GREY] * 3, axis=-1))).pixels == GREY).all()


def test_transparent_pixels_are_black(tmp_path):
    rgba = np.stack([GREY, GREY, GREY, np.full_like(GREY, 255)], axis=-1)
    rgba[0, :, 3] = 0
    read = save(tmp_path / "a.png", Image.fromarray(rgba))
    assert (read.pixels[0] == 0).all()
    assert (read.pixels[1:] == GREY[1:]).all()


def test_palette(tmp_path):
    image = Image.fromarray(GREY).convert("P", palette=Image.Palette.ADAPTIVE, colors=256)
    assert (save(tmp_path / "a.png", image).pixels == GREY).all()


def test_sixteen_bits_are_scaled_not_clipped(tmp_path):
    deep = np.linspace(1000, 5095, 60).astype(np.uint16).reshape(6, 10)
    read = save(tmp_path / "a.png", Image.fromarray(deep))
    assert read.pixels.min() == 0
    assert read.pixels.max() == 255
    assert (np.diff(read.pixels.ravel().astype(int)) >= 0).all()


def test_orientation_is_applied(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate by a quarter clockwise
    read = save(tmp_path / "a.png", Image.fromarray(GREY), exif=exif)
    assert (read.pixels == np.rot90(GREY, -1)).all()


def test_unreadable_files_have_a_reason(tmp_path):
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64), dtype=np.uint8)).save(
        tmp_path / "a.jpg"
    )
    whole = (tmp_path / "a.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "text.jpg").write_text("no picture")
    (tmp_path / "folder.png").mkdir()
    for name, reason in {
        "cut.jpg": "truncated",
        "empty.png": "empty",
        "text.jpg": "no picture",
        "folder.png": "not an ordinary file",
        "missing.png": "cannot be opened",
    }.items():
        with pytest.raises(UnreadableError, match=reason):
            read_radiograph(tmp_path / name)
