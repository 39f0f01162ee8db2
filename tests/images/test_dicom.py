"""DICOM written from a phantom reads back as that phantom, however its values are stored and displayed."""

import re
from collections import Counter
from pathlib import Path

import numpy as np
import pydicom
import pytest
from dicom_files import build, read, scale
from pydicom.data import DATA_ROOT
from pydicom.pixels import apply_color_lut, apply_modality_lut, apply_windowing, pixel_array

from xray_helpers.data.manifest import assign_groups, build_manifest
from xray_helpers.images.radiographs import ImageFolder, UnreadableError, read_radiograph
from xray_helpers.settings import build_settings


@pytest.fixture(autouse=True)
def _root(root):
    """Write the salt of patients' hashes to a temporary folder."""


def test_eight_bits_are_read_by_their_window(tmp_path, phantom):
    found = read(build(phantom, WindowCenter=128, WindowWidth=256), tmp_path)
    assert (found.pixels == phantom).all()
    assert found.mode == "DICOM MONOCHROME2 8 bit"


@pytest.mark.parametrize("bits", [10, 12, 16])
@pytest.mark.parametrize("kind", ["MONOCHROME1", "MONOCHROME2"])
def test_many_bits_and_both_kinds(tmp_path, phantom, bits, kind):
    top = 2**bits - 1
    stored = np.round(phantom / 255 * top).astype(np.uint16)
    stored = top - stored if kind == "MONOCHROME1" else stored
    found = read(build(stored, bits, kind), tmp_path, depth="range")
    assert np.abs(found.pixels.astype(int) - phantom).max() <= 1


@pytest.mark.parametrize(
    ("kind", "shape"), [("MONOCHROME1", "INVERSE"), ("MONOCHROME1", ""), ("MONOCHROME2", "INVERSE")]
)
def test_inversion_is_applied_once(tmp_path, phantom, kind, shape):
    tags = {"PresentationLUTShape": shape} if shape else {}
    found = read(build(255 - phantom, kind=kind, WindowCenter=128, WindowWidth=256, **tags), tmp_path)
    assert (found.pixels == phantom).all()


def test_signed_values_and_a_negative_slope(tmp_path, phantom):
    signed = (phantom.astype(np.int16) - 128) * 16
    assert np.abs(read(build(signed, 16), tmp_path, depth="range").pixels.astype(int) - phantom).max() <= 1
    turned = build(-signed, 16, RescaleSlope=-0.0625, RescaleIntercept=128, WindowCenter=128, WindowWidth=256)
    assert np.abs(read(turned, tmp_path).pixels.astype(int) - phantom).max() <= 1


def test_windows_give_hand_computed_grey_levels(tmp_path):
    stored = np.array([[0, 100, 150, 200, 300]], np.uint16)
    linear = read(build(stored, 12, WindowCenter=150, WindowWidth=101), tmp_path).pixels
    # black at 150 - 0.5 - 50 = 99.5, white at 199.5
    assert linear.tolist() == [[0, round(0.5 / 100 * 255), round(50.5 / 100 * 255), 255, 255]]
    exact = read(
        build(stored, 12, WindowCenter=150, WindowWidth=100, VOILUTFunction="LINEAR_EXACT"), tmp_path
    ).pixels
    assert exact.tolist() == [[0, 0, 128, 255, 255]]
    curve = read(
        build(stored, 12, WindowCenter=150, WindowWidth=100, VOILUTFunction="SIGMOID"), tmp_path
    ).pixels
    assert curve.tolist() == [
        [round(255 / (1 + np.exp(-4 * (v - 150) / 100))) for v in (0, 100, 150, 200, 300)]
    ]


def test_padding_is_black_and_does_not_count_towards_the_range(tmp_path, phantom):
    stored = np.clip(phantom.astype(np.uint16), 1, 255) * 16
    stored[:20] = 65535
    found = read(build(stored, 16, PixelPaddingValue=65535), tmp_path, depth="range").pixels
    assert (found[:20] == 0).all()
    assert (found[20:] == scale(stored[20:])).all()
    dark = read(
        build(stored, 16, "MONOCHROME1", PixelPaddingValue=65000, PixelPaddingRangeLimit=65535), tmp_path
    ).pixels
    assert (dark[:20] == 0).all()


def test_the_first_frame_is_read_and_notes_are_joined(tmp_path, phantom):
    frames = np.stack([phantom, 255 - phantom])
    ds = build(phantom, WindowCenter=128, WindowWidth=256, BurnedInAnnotation="YES")
    ds.NumberOfFrames, ds.PixelData = 2, frames.tobytes()
    found = read(ds, tmp_path)
    assert (found.pixels == phantom).all()
    assert found.note.startswith("first of 2 frames; burned-in annotation")


REFUSED = "no plain radiograph: this study reads radiographs only \\(other_modalities=false\\)"
KINDS = "1.2.840.10008.5.1.4.1.1."


@pytest.mark.parametrize(
    ("sop", "modality"),
    [
        ("1", "CR"),
        ("1.1", "DX"),
        ("1.1.1", "DX"),
        ("1", "RG"),
        ("1.1", ""),
        ("7", "OT"),
        ("7", "CR"),
        ("7", "SC"),
        ("7", ""),
        ("7.1", "DX"),
        ("7.2", "DX"),
        ("7.3", "RG"),
        ("7.4", "OT"),
    ],
)
def test_radiographs_and_secondary_captures_are_read(tmp_path, phantom, sop, modality):
    ds = build(phantom, SOPClassUID=KINDS + sop, Modality=modality, WindowCenter=128, WindowWidth=256)
    assert (read(ds, tmp_path).pixels == phantom).all()


@pytest.mark.parametrize(
    ("sop", "modality", "reason"),
    [
        ("77.1.4", "XC", "has modality XC"),
        ("77.1.4.1", "XC", "has modality XC"),
        ("77.1.6", "SM", "has modality SM"),
        ("77.1.5.1", "OP", "has modality OP"),
        ("77.1.5.4", "OPT", "has modality OPT"),
        ("77.1.1", "ES", "has modality ES"),
        ("6.1", "US", "has modality US"),
        ("3.1", "US", "has modality US"),
        ("12.1", "XA", "has modality XA"),
        ("12.2", "RF", "has modality RF"),
        ("1.2", "MG", "has modality MG"),
        ("2", "CT", "has modality CT"),
        ("1", "CT", "has modality CT"),
        ("7", "US", "has modality US"),
        ("7.2", "CT", "has modality CT"),
        ("7", "XC", "has modality XC"),
        ("7.5", "OT", "has modality OT"),
        ("70", "OT", "has modality OT"),
        ("77.1.4", "DX", "has SOP class VL Photographic Image Storage"),
        ("12.2", "CR", "has SOP class X-Ray Radiofluoro"),
        ("11.1", "PR", "has modality PR"),
        ("4", "", "has modality none"),
    ],
)
def test_other_modalities_are_refused_unless_asked_for(tmp_path, phantom, sop, modality, reason):
    ds = build(phantom, SOPClassUID=KINDS + sop, Modality=modality, WindowCenter=128, WindowWidth=256)
    with pytest.raises(UnreadableError, match=f"^{reason}.*, {REFUSED}$"):
        read(ds, tmp_path)
    assert (read(ds, tmp_path, other_modalities=True).pixels == phantom).all()


def test_the_sop_class_may_be_in_the_file_meta_information_or_missing(tmp_path, phantom):
    ds = build(phantom, Modality="DX", WindowCenter=128, WindowWidth=256)
    del ds.SOPClassUID
    ds.file_meta.MediaStorageSOPClassUID = KINDS + "77.1.4"
    with pytest.raises(UnreadableError, match="has SOP class VL Photographic Image Storage"):
        read(ds, tmp_path)
    bare = pydicom.Dataset(dict(ds))
    bare.save_as(tmp_path / "bare", implicit_vr=True, little_endian=True, enforce_file_format=False)
    assert (read_radiograph(tmp_path / "bare").pixels == phantom).all()


def test_a_file_without_preamble_is_read(tmp_path, phantom):
    ds = build(phantom, WindowCenter=128, WindowWidth=256)
    bare = pydicom.Dataset(dict(ds))
    bare.save_as(tmp_path / "IM0001", implicit_vr=True, little_endian=True, enforce_file_format=False)
    assert (tmp_path / "IM0001").read_bytes()[:2] == b"\x08\x00"
    assert (read_radiograph(tmp_path / "IM0001").pixels == phantom).all()


def test_patients_are_hashed_and_one_person_has_one_hash(tmp_path, phantom):
    one, two = (
        read(build(phantom, PatientID=name, PatientName="Doe^Jane"), tmp_path).patient
        for name in ("p1", "p2")
    )
    assert one == read(build(255 - phantom, PatientID="p1"), tmp_path, "b.dcm").patient != two
    study = read(build(phantom, StudyInstanceUID="1.2.3"), tmp_path).patient
    assert len({one, two, study}) == 3
    assert all(len(text) == 16 and int(text, 16) >= 0 for text in (one, two, study))
    for word in ("ANONYMOUS", "unknown", " xxx "):
        assert read(build(phantom, PatientID=word, StudyInstanceUID="1.2.3"), tmp_path).patient == study
    assert read(build(phantom), tmp_path).patient == ""


def test_files_without_a_picture_are_refused(tmp_path, phantom):
    ds = build(phantom)
    del ds.PixelData
    with pytest.raises(UnreadableError, match="DICOM without a picture"):
        read(ds, tmp_path)
    huge = build(phantom)
    huge.Rows = huge.Columns = 60_000
    with pytest.raises(UnreadableError, match="60000 x 60000 pixels are too many"):
        read(huge, tmp_path)
    cut = build(phantom)
    cut.save_as(tmp_path / "cut.dcm", enforce_file_format=True)
    (tmp_path / "cut.dcm").write_bytes((tmp_path / "cut.dcm").read_bytes()[:-2000])
    with pytest.raises(UnreadableError, match="cannot be decoded"):
        read_radiograph(tmp_path / "cut.dcm")


def grey_by_pydicom(ds):
    """Return grey levels by pydicom's decoders, look-up tables and windows."""
    stored = pixel_array(ds, index=0)
    kind = str(ds.PhotometricInterpretation)
    if not kind.startswith("MONO"):
        colours = apply_color_lut(stored, ds) if kind == "PALETTE COLOR" else stored
        luminance = colours[..., :3] @ np.array([0.299, 0.587, 0.114])
        return luminance * (255 / np.iinfo(colours.dtype).max)
    values = apply_modality_lut(stored, ds).astype(np.float64)
    if ds.get("WindowCenter") in (None, ""):
        shown, black, white = values, values.min(), values.max()
    else:
        shown = apply_windowing(values, ds)
        black, white = apply_windowing(np.array([-1e9, 1e9]), ds)
    grey = (shown - black) * (255 / max(white - black, 1e-9))
    return 255 - grey if kind == "MONOCHROME1" else grey


def test_pydicoms_own_files_are_read_as_pydicom_reads_them():
    """All that are complete and have neither padding, nor a note other than of several frames."""
    compared = Counter()
    for path in sorted(Path(DATA_ROOT).rglob("*.dcm")):
        try:
            found = read_radiograph(path, ImageFolder(path.parent, depth="range", other_modalities=True))
        except UnreadableError as error:
            assert ": " in str(error), path
            continue
        ds = pydicom.dcmread(path, force=True)
        if "PixelPaddingValue" in ds or re.sub(r"first of \d+ frames", "", found.note):
            continue
        if getattr(ds.file_meta, "TransferSyntaxUID", None):
            assert np.abs(found.pixels - grey_by_pydicom(ds)).max() <= 1, path
            compared[found.mode.split()[1][:4]] += 1
    assert compared["MONO"] >= 20
    assert compared["RGB"] + compared["YBRF"] + compared["YBRR"] >= 30
    assert compared["PALE"] == 1


def test_views_of_one_person_form_one_group(tmp_path, phantom):
    for number in range(24):
        place = tmp_path / "set" / ("Fractured" if number % 2 else "normal")
        place.mkdir(parents=True, exist_ok=True)
        ds = build(np.roll(phantom, number), PatientID=f"p{number % 12}", PatientName="Doe^Jane")
        ds.save_as(place / f"IM{number:04d}", enforce_file_format=True)  # exports have no suffix
    table, _ = build_manifest(build_settings(name="s", data=str(tmp_path / "set")))
    table = assign_groups(table, table["path"])
    assert (table["status"] == "readable").all()
    assert table["group"].nunique() == table["patient"].nunique() == 12
    assert "Doe" not in table.to_csv()
    assert "p1," not in table.to_csv()
