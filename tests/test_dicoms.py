"""DICOM written from a phantom reads back as that phantom, whatever the file says of its values."""

from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.data import DATA_ROOT
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
    generate_uid,
)

from xray_helpers.anatomy import build_patient, render_view
from xray_helpers.radiographs import ImageFolder, UnreadableError, read_radiograph


@pytest.fixture(scope="module")
def phantom():
    """A picture of 0 to 255 that uses the whole range."""
    rng = np.random.default_rng(5)
    pixels, _ = render_view(rng, build_patient(rng, "displaced"))
    pixels = pixels.astype(float) - pixels.min()
    return np.round(pixels * (255 / pixels.max())).astype(np.uint8)


def build(stored, bits=8, kind="MONOCHROME2", syntax=ExplicitVRLittleEndian, **tags):
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.1"
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian if syntax.is_compressed else syntax
    ds = FileDataset("x", {}, file_meta=meta, preamble=b"\0" * 128, is_little_endian=syntax != ExplicitVRBigEndian)
    ds.SOPClassUID, ds.SOPInstanceUID, ds.Modality = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID, "DX"
    ds.Rows, ds.Columns, ds.SamplesPerPixel, ds.PhotometricInterpretation = *stored.shape[:2], 1, kind
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = 8 * stored.dtype.itemsize, bits, bits - 1
    ds.PixelRepresentation = int(stored.dtype.kind == "i")
    if stored.dtype.itemsize > 1 and syntax == ExplicitVRBigEndian:
        stored = stored.astype(stored.dtype.newbyteorder(">"))
    ds.PixelData = stored.tobytes()
    ds["PixelData"].VR = "OW" if stored.dtype.itemsize > 1 else "OB"
    for name, value in tags.items():
        setattr(ds, name, value)
    if syntax.is_compressed:
        ds.compress(syntax, generate_instance_uid=False)
    return ds


def read(ds, tmp_path, name="a.dcm", **reading):
    ds.save_as(tmp_path / name, enforce_file_format=True)
    return read_radiograph(tmp_path / name, ImageFolder(tmp_path, **reading))


@pytest.fixture(autouse=True)
def _root(root):
    """Salts are made in a folder of the test's own."""


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
def test_inversion_is_done_once(tmp_path, phantom, kind, shape):
    tags = {"PresentationLUTShape": shape} if shape else {}
    found = read(build(255 - phantom, kind=kind, WindowCenter=128, WindowWidth=256, **tags), tmp_path)
    assert (found.pixels == phantom).all()


def test_signed_values_and_a_negative_slope(tmp_path, phantom):
    signed = (phantom.astype(np.int16) - 128) * 16
    assert np.abs(read(build(signed, 16), tmp_path, depth="range").pixels.astype(int) - phantom).max() <= 1
    turned = build(-signed, 16, RescaleSlope=-0.0625, RescaleIntercept=128, WindowCenter=128, WindowWidth=256)
    assert np.abs(read(turned, tmp_path).pixels.astype(int) - phantom).max() <= 1


def test_a_window_is_hand_computed(tmp_path):
    stored = np.array([[0, 100, 150, 200, 300]], np.uint16)
    linear = read(build(stored, 12, WindowCenter=150, WindowWidth=101), tmp_path).pixels
    # black at 150 - 0.5 - 50 = 99.5, white at 199.5
    assert linear.tolist() == [[0, round(0.5 / 100 * 255), round(50.5 / 100 * 255), 255, 255]]
    exact = read(build(stored, 12, WindowCenter=150, WindowWidth=100, VOILUTFunction="LINEAR_EXACT"), tmp_path).pixels
    assert exact.tolist() == [[0, 0, 128, 255, 255]]
    curve = read(build(stored, 12, WindowCenter=150, WindowWidth=100, VOILUTFunction="SIGMOID"), tmp_path).pixels
    assert curve.tolist() == [[round(255 / (1 + np.exp(-4 * (v - 150) / 100))) for v in (0, 100, 150, 200, 300)]]


def test_a_voi_lut_comes_before_a_window(tmp_path):
    lut = pydicom.Dataset()
    lut.LUTDescriptor, lut.LUTData = [4, 0, 8], [0, 10, 200, 255]
    lut["LUTDescriptor"].VR, lut["LUTData"].VR = "US", "US"
    ds = build(np.array([[0, 1, 2, 3]], np.uint8), VOILUTSequence=Sequence([lut]), WindowCenter=1, WindowWidth=2)
    assert read(ds, tmp_path).pixels.tolist() == [[0, 10, 200, 255]]


def test_padding_is_black_and_sets_no_window(tmp_path, phantom):
    stored = np.clip(phantom.astype(np.uint16), 1, 255) * 16
    stored[:20] = 65535
    found = read(build(stored, 16, PixelPaddingValue=65535), tmp_path, depth="range").pixels
    assert (found[:20] == 0).all()
    low = int(stored[20:].min())
    assert (
        np.abs(found[20:].astype(int) - np.round((stored[20:].astype(int) - low) * 255 / (255 * 16 - low))).max() <= 1
    )
    dark = read(
        build(stored, 16, "MONOCHROME1", PixelPaddingValue=65000, PixelPaddingRangeLimit=65535), tmp_path
    ).pixels
    assert (dark[:20] == 0).all()


@pytest.mark.parametrize(
    "syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian, RLELossless, JPEG2000Lossless, JPEGLSLossless]
)
def test_transfer_syntaxes_without_loss(tmp_path, phantom, syntax):
    stored = phantom.astype(np.uint16) * 16
    assert (
        np.abs(read(build(stored, 12, syntax=syntax), tmp_path, depth="range").pixels.astype(int) - phantom).max() <= 1
    )


def test_jpeg_lossless_as_hospitals_use_it(tmp_path, phantom):
    gdcm = pytest.importorskip("gdcm")
    build(phantom.astype(np.uint16) * 16, 12).save_as(tmp_path / "plain.dcm", enforce_file_format=True)
    reader = gdcm.ImageReader()
    reader.SetFileName(str(tmp_path / "plain.dcm"))
    assert reader.Read()
    change = gdcm.ImageChangeTransferSyntax()
    change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.JPEGLosslessProcess14_1))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer = gdcm.ImageWriter()
    writer.SetFileName(str(tmp_path / "lossless.dcm"))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    assert writer.Write()
    assert pydicom.dcmread(tmp_path / "lossless.dcm").file_meta.TransferSyntaxUID == "1.2.840.10008.1.2.4.70"
    found = read_radiograph(tmp_path / "lossless.dcm", ImageFolder(tmp_path, depth="range"))
    assert np.abs(found.pixels.astype(int) - phantom).max() <= 1


def test_frames_colour_and_notes(tmp_path, phantom):
    frames = np.stack([phantom, 255 - phantom])
    ds = build(phantom, WindowCenter=128, WindowWidth=256, BurnedInAnnotation="YES")
    ds.NumberOfFrames, ds.PixelData = 2, frames.tobytes()
    found = read(ds, tmp_path)
    assert (found.pixels == phantom).all()
    assert found.note.startswith("first of 2 frames; burned-in annotation")
    colour = build(phantom)
    colour.SOPClassUID, colour.Modality, colour.SamplesPerPixel = "1.2.840.10008.5.1.4.1.1.7", "OT", 3
    colour.PhotometricInterpretation, colour.PlanarConfiguration = "RGB", 0
    colour.PixelData = np.stack([phantom] * 3, axis=-1).tobytes()
    assert np.abs(read(colour, tmp_path).pixels.astype(int) - phantom).max() <= 1


def test_other_modalities_are_left_out_unless_asked_for(tmp_path, phantom):
    ds = build(phantom, Modality="CT")
    with pytest.raises(
        UnreadableError, match="has modality CT, no plain radiograph: this study reads radiographs only"
    ):
        read(ds, tmp_path)
    assert read(ds, tmp_path, other_modalities=True).pixels.shape == phantom.shape


def test_a_missing_preamble_is_no_hindrance(tmp_path, phantom):
    ds = build(phantom, WindowCenter=128, WindowWidth=256)
    bare = pydicom.Dataset(dict(ds))
    bare.save_as(tmp_path / "IM0001", implicit_vr=True, little_endian=True, enforce_file_format=False)
    assert (tmp_path / "IM0001").read_bytes()[:2] == b"\x08\x00"
    assert (read_radiograph(tmp_path / "IM0001").pixels == phantom).all()


def test_patients_are_hashes_that_are_alike_for_one_person(tmp_path, phantom):
    one, two = (read(build(phantom, PatientID=name, PatientName="Doe^Jane"), tmp_path).patient for name in ("p1", "p2"))
    assert one == read(build(255 - phantom, PatientID="p1"), tmp_path, "b.dcm").patient != two
    study = read(build(phantom, StudyInstanceUID="1.2.3"), tmp_path).patient
    assert len({one, two, study}) == 3
    assert all(len(text) == 16 and int(text, 16) >= 0 for text in (one, two, study))
    assert read(build(phantom), tmp_path).patient == ""


def test_what_holds_no_picture_says_so(tmp_path, phantom):
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


def test_pydicoms_own_files_are_read_or_give_a_reason(tmp_path):
    places = sorted(Path(DATA_ROOT, "test_files").rglob("*.dcm"))
    assert len(places) > 40
    read_whole = 0
    for path in places:
        try:
            found = read_radiograph(path, ImageFolder(path.parent, other_modalities=True))
            assert found.pixels.dtype == np.uint8
            assert found.pixels.ndim == 2
            read_whole += 1
        except UnreadableError as error:
            assert ": " in str(error), path
    assert read_whole > 20


def test_views_of_one_person_are_one_group(tmp_path, phantom):
    from xray_helpers.manifest import assign_groups, build_manifest
    from xray_helpers.settings import build_settings

    for number in range(24):
        place = tmp_path / "set" / ("Fractured" if number % 2 else "normal")
        place.mkdir(parents=True, exist_ok=True)
        ds = build(np.roll(phantom, number), PatientID=f"p{number % 12}", PatientName="Doe^Jane")
        ds.save_as(place / f"IM{number:04d}", enforce_file_format=True)  # exports have no ending
    table, _ = build_manifest(build_settings(name="s", data=str(tmp_path / "set")))
    table = assign_groups(table, table["path"])
    assert (table["status"] == "readable").all()
    assert table["group"].nunique() == table["patient"].nunique() == 12
    assert "Doe" not in table.to_csv()
    assert "p1," not in table.to_csv()
