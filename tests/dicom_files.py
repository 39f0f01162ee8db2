"""DICOM files for tests, built from an array of stored values, elements and a transfer syntax."""

import imagecodecs
import numpy as np
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, generate_uid

from xray_helpers.images.radiographs import ImageFolder, read_radiograph

CR, DX = "1.2.840.10008.5.1.4.1.1.1", "1.2.840.10008.5.1.4.1.1.1.1"
SECONDARY = "1.2.840.10008.5.1.4.1.1.7"


def build(
    stored,
    bits=None,
    kind="MONOCHROME2",
    syntax=ExplicitVRLittleEndian,
    *,
    codestream=None,
    high=None,
    **tags,
):
    """Return a data set. In a compressed syntax, `codestream` is the frame; else pydicom compresses."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = tags.get("SOPClassUID", CR)
    meta.MediaStorageSOPInstanceUID = generate_uid()
    compress = codestream is None and syntax.is_encapsulated
    meta.TransferSyntaxUID = ExplicitVRLittleEndian if compress else syntax
    ds = FileDataset(
        "x", {}, file_meta=meta, preamble=b"\0" * 128, is_little_endian=syntax != ExplicitVRBigEndian
    )
    ds.SOPClassUID, ds.SOPInstanceUID, ds.Modality = (
        meta.MediaStorageSOPClassUID,
        meta.MediaStorageSOPInstanceUID,
        "DX",
    )
    ds.Rows, ds.Columns = stored.shape[:2]
    ds.SamplesPerPixel = 1 if stored.ndim == 2 else stored.shape[2]
    ds.PhotometricInterpretation = kind
    ds.BitsAllocated = 8 * stored.dtype.itemsize
    ds.BitsStored = bits or ds.BitsAllocated
    ds.HighBit = ds.BitsStored - 1 if high is None else high
    ds.PixelRepresentation = int(stored.dtype.kind == "i")
    if stored.ndim == 3:
        ds.PlanarConfiguration = 0
    if stored.dtype.itemsize > 1 and syntax == ExplicitVRBigEndian:
        stored = stored.astype(stored.dtype.newbyteorder(">"))
    ds.PixelData = encapsulate([codestream]) if codestream is not None else stored.tobytes()
    ds["PixelData"].VR = "OW" if stored.dtype.itemsize > 1 and codestream is None else "OB"
    ds["PixelData"].is_undefined_length = codestream is not None
    for name, value in tags.items():
        setattr(ds, name, value)
    if compress:
        ds.compress(syntax, generate_instance_uid=False)
    return ds


def write(ds, path):
    ds.save_as(path, enforce_file_format=True)
    return path


def read(ds, tmp_path, name="a.dcm", **reading):
    return read_radiograph(write(ds, tmp_path / name), ImageFolder(tmp_path, **reading))


def read_whole_range(ds, tmp_path):
    """Return pixels without clipping, for comparison with `scale`."""
    return read(ds, tmp_path, depth="range").pixels


def scale(values):
    """Return values scaled by their own range, as the reader does."""
    values = np.asarray(values, np.float32)
    return np.round((values - values.min()) * (255 / (values.max() - values.min()))).astype(np.uint8)


def table(descriptor, data, vr="US", data_vr="OW"):
    """Return a sequence of one look-up table; `data` are bytes, or numbers for ``US``."""
    item = Dataset()
    item.add_new(0x00283002, vr, descriptor)
    item.add_new(0x00283006, data_vr, data)
    return Sequence([item])


def words(data, order="<"):
    return np.asarray(data).astype(f"{order}u2").tobytes()


def encode(values, codec, **options):
    """Return a codestream of one frame."""
    return getattr(imagecodecs, f"{codec}_encode")(values, **options)
