"""Inputs that once failed, where they are at hand: each gives what its README says is right."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from xray_helpers.data.listing import list_data
from xray_helpers.images.radiographs import UnreadableError, read_radiograph
from xray_helpers.settings import NEGATIVE, POSITIVE, InputError


@pytest.fixture(scope="module")
def cases(shared):
    if not (shared / "cases").is_dir():
        pytest.skip("no ../shared/cases here")
    return shared / "cases"


def read(path):
    return read_radiograph(path).pixels.astype(float)


def correlation(one, other):
    return np.corrcoef(one.ravel(), other.ravel())[0, 1]


def test_series_folders_do_not_turn_labels(cases):
    table = list_data(str(cases / "series_folders")).table
    truth = table["path"].str.startswith("Fractured/").map({True: POSITIVE, False: NEGATIVE})
    assert (table["label"] == truth).all()


def test_uncertain_is_no_class(cases):
    listing = list_data(str(cases / "tables" / "minus_one.csv"))
    assert "with a label that is no class do not count: -1 (" in listing.notes[0]
    given = pd.read_csv(cases / "tables" / "minus_one.csv").set_index("path")["label"]
    found = listing.table.set_index("path")["label"]
    assert (found.eq(POSITIVE).fillna(False) == given.eq(1)).all()


def test_readers_who_disagree_are_a_conflict(cases):
    listing = list_data(str(cases / "tables" / "three_readers.csv"))
    assert len(listing.table) == 30
    assert listing.table["excluded"].str.contains("label conflict").any()
    assert any("label conflicts" in note for note in listing.notes)


def test_a_table_of_paths_with_spaces_is_refused_by_its_first_row(cases):
    with pytest.raises(
        InputError, match=r"none of its 30 files can be opened; the first is ' img/p00.png' in line 2"
    ):
        list_data(str(cases / "tables" / "spaces.csv"))


def test_a_table_in_latin_1_is_read_with_a_note(cases):
    listing = list_data(str(cases / "cp1252_table"))
    assert any("Windows-1252" in note for note in listing.notes)
    assert listing.table["körperteil"].dropna().tolist() == ["Schädel"]


@pytest.mark.parametrize(
    ("name", "reference"),
    [
        ("highbit15_stored12.dcm", "ref_12bit.dcm"),
        ("overlay_bit_j2k.dcm", "ref_12bit.dcm"),
        ("rgb16_of_12bit.png", "ref_grey16.png"),
    ],
)
def test_pictures_equal_their_reference(cases, name, reference):
    found, truth = read(cases / name), read(cases / reference)
    assert correlation(found, truth) > 0.999
    assert np.abs(found - truth).mean() < 3


def test_a_voi_lut_of_fewer_bits_spans_all_greys(cases):
    found = read(cases / "voi_lut_narrow.dcm")
    assert (found.min(), found.max()) == (0, 255)


def test_a_window_beside_all_values_falls_back_with_a_note(cases):
    found = read_radiograph(cases / "window_beside_values.dcm")
    assert len(np.unique(found.pixels)) > 50
    assert "window" in found.note


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("rgb_bytes_tagged_mono.dcm", "colour|sample"),
        ("photo_xc.dcm", "has modality XC, no plain radiograph"),
    ],
)
def test_what_is_no_radiograph_is_refused(cases, name, words):
    with pytest.raises(UnreadableError, match=words):
        read_radiograph(cases / name)


def test_unsigned_padding_of_signed_values_is_padding(cases):
    found = read(cases / "padding_us_of_signed.dcm")
    assert found.min() == 0
    assert found[found > 0].min() < 40  # not squeezed into the upper half


def test_min_is_white_is_inverted(cases):
    import imagecodecs  # noqa: F401  (its reader of TIFF is what is tried)
    from PIL import Image

    with Image.open(cases / "min_is_white16.tif") as image:
        stored = np.asarray(image, dtype=float)
    assert correlation(read(cases / "min_is_white16.tif"), stored) < -0.99


@pytest.mark.slow
@pytest.mark.parametrize(
    ("data", "options"),
    [
        ("all_different.csv", ()),
        ("contralateral.csv", ("-p", "seed=4294967295")),
        ("all_different.csv", ("--name", "a{b}", "-p", "seed=010")),
    ],
)
def test_tables_make_a_study(cases, root, data, options):
    command = [sys.executable, "-m", "xray_helpers", "run", "--models", "MobileNetV2", "--profile", "smoke"]
    command += ["-p", "img_size=64", "-p", "weights=random", "-p", "repeats=0", "-p", "maps=0", *options]
    done = subprocess.run(
        [*command, "--data", str(cases / "tables" / data)],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[1],
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "Complete in" in done.stderr


@pytest.mark.slow
def test_keras_own_224_file_alone_serves_a_study_and_an_audit(shared, root, phantom_csv):
    """At another size, with no other file at hand, and no network asked (other sizes are in test_weights)."""
    file = "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224_no_top.h5"
    (root / "keras" / "models").mkdir(parents=True)
    shutil.copyfile(
        shared / "weights" / "mobilenetv2_imagenet_notop.weights.h5", root / "keras" / "models" / file
    )
    env = os.environ | {
        "KERAS_HOME": str(root / "keras"),
        "XRAY_HELPERS_ROOT": str(root),
        "https_proxy": "http://127.0.0.1:9",
    }
    run = [
        "run",
        "--models",
        "MobileNetV2",
        "--profile",
        "smoke",
        "--data",
        str(phantom_csv),
        "-p",
        "img_size=96",
    ]
    run += ["-p", "repeats=0", "-p", "maps=0", "-p", "shortcuts=off"]
    for arguments, statuses in ((run, (0,)), (["audit", str(phantom_csv)], (0, 1))):
        command = [sys.executable, "-m", "xray_helpers", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, env=env, cwd=Path(__file__).parents[1])
        assert done.returncode in statuses, done.stderr[-3000:]
        assert "Traceback" not in done.stderr
    assert (root / "reports" / "smoke" / "index.html").exists()
    assert sorted(path.name for path in (root / "keras" / "models").iterdir()) == [file]
