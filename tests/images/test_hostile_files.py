"""Unusual and damaged files: each is read or has its reason, in bounded time and memory."""

import io
import os
import resource
import subprocess
import sys
from pathlib import Path

import imagecodecs
import numpy as np
import pandas as pd
import pytest
import tifffile
from dicom_files import build
from hostile import GREY, build_png, encode_image, pictures, write_hostile_folder
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from xray_helpers.data.listing import list_data
from xray_helpers.data.manifest import build_manifest, inspect_files, read_pictures
from xray_helpers.images.radiographs import (
    ImageFolder,
    UnreadableError,
    escape_name,
    find_file,
    read_radiograph,
)
from xray_helpers.settings import build_settings


@pytest.fixture
def folder(tmp_path):
    return write_hostile_folder(tmp_path)


def test_every_file_is_read_or_has_its_reason(root, folder):
    table = inspect_files(list_data(str(folder), labelled=False)).set_index("path")
    for name, _, reason in pictures():
        row = table.loc[f"Fractured/{escape_name(name)}"]
        if reason is None:
            assert row["status"] == "readable", (name, row["reason"])
            assert row["width"] > 0
        else:
            assert row["status"] == ("excluded" if reason == "one grey" else "unreadable") or reason == "", (
                name
            )
            assert row["status"] == "readable" or (reason in row["reason"] and ": " in row["reason"]), (
                name,
                row["reason"],
            )
    reasons = {
        "broken_link.png": "cannot be opened",
        "link_out.png": "link out of the data folder",
        "round.png": "cannot be opened",
        "pipe.png": "not an ordinary file",
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


@pytest.mark.slow
@pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="the peak of memory is read from Linux's /proc"
)
def test_reading_takes_bounded_memory_and_time(root, folder):
    """Two of the largest pictures that are accepted, in a separate process."""
    for number, kind in enumerate((0, 2)):  # grey of 16 bits, and colour
        half = 7_900 * (3 if kind else 1)
        rows = (b"\0" + b"\0" * half + b"\xff" * half) * 8_000
        (folder / "Fractured" / f"large{number}.png").write_bytes(build_png(7_900, 8_000, rows, kind, 16))
    code = (
        "import sys; from xray_helpers.data.manifest import *; "
        "t = inspect_files(list_data(sys.argv[1], labelled=False)).set_index('path'); "
        # ru_maxrss would include the parent's
        "peak = Path('/proc/self/status').read_text().split('VmHWM:')[1].split()[0]; "
        "print(int(peak) >> 10, *t.loc[['Fractured/large0.png', 'Fractured/large1.png'], 'status'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=True, timeout=300
    )
    mebibytes, *statuses = done.stdout.split()
    assert int(mebibytes) < 2048
    assert statuses == ["readable", "readable"]


def test_escaped_names_are_read_back(root, folder, tmp_path):
    table = inspect_files(list_data(str(folder), labelled=False))
    readable = table.loc[table["status"] == "readable", "path"]
    table.to_csv(tmp_path / "manifest.csv", index=False)
    again = pd.read_csv(tmp_path / "manifest.csv")["path"]
    assert set(readable) <= set(again)
    assert len(read_pictures(readable, folder)) == len(readable)


@given(
    st.text(min_size=1, max_size=30).filter(lambda t: "/" not in t and "\0" not in t and t not in (".", ".."))
)
def test_any_name_is_found_again(tmp_path_factory, name):
    folder = tmp_path_factory.mktemp("names")
    try:
        (folder / name).write_bytes(b"x")
    except (OSError, UnicodeEncodeError):
        return
    assert escape_name(name).isprintable()
    assert find_file(folder, escape_name(name)).read_bytes() == b"x"


def test_a_study_can_be_made_of_such_a_folder(root, folder, make_images):
    make_images(folder / "normal", 12, seed=2)
    table, _ = build_manifest(build_settings(name="s", data="set"))
    assert set(table["status"]) <= {"readable", "unreadable", "no image", "excluded"}
    assert (table["status"] == "readable").sum() > 50


def test_a_truncated_jpeg_can_be_kept_and_is_noted(tmp_path):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (256, 256), dtype=np.uint8))
    data = encode_image(noise, "JPEG", quality=95)
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


SEEDS = [encode_image(Image.fromarray(GREY), kind) for kind in ("PNG", "JPEG", "TIFF", "BMP", "GIF")]
SEEDS += [encode_image(Image.fromarray(GREY).convert("RGB"), "WEBP")]
DEEP = GREY.astype(np.uint16) * 16
COLOURS = np.stack([DEEP] * 3, axis=-1)
SEEDS += [build_png(32, 32, b"".join(b"\0" + row.astype(">u2").tobytes() for row in COLOURS), 2, 16)]
SEEDS += [imagecodecs.jpeg8_encode(DEEP, bitspersample=12), imagecodecs.ljpeg_encode(DEEP, bitspersample=12)]
SEEDS += [
    imagecodecs.jpegls_encode(DEEP),
    imagecodecs.jpeg2k_encode(DEEP),
    b"P6\n32 32\n4095\n" + COLOURS.tobytes(),
]
for options in ({}, {"compression": "lzw"}, {"photometric": "miniswhite", "tile": (16, 16)}):
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, DEEP, **options)
    SEEDS.append(buffer.getvalue())


buffer = io.BytesIO()
build(GREY).save_as(buffer, enforce_file_format=True)
SEEDS.append(buffer.getvalue())


@pytest.mark.slow
@settings(max_examples=2000, deadline=20_000, suppress_health_check=list(HealthCheck))
@given(
    st.sampled_from(SEEDS),
    st.lists(st.tuples(st.integers(0, 2000), st.binary(min_size=1, max_size=8)), max_size=6),
    st.integers(0, 3000),
)
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
