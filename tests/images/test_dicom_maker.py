import numpy as np
import pytest
from dicom_files import build

from xray_helpers.images.dicom_maker import read_manufacturer

STORED = np.arange(64 * 48, dtype=np.uint16).reshape(64, 48)


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ("Alpha Medical", "ALPHA MEDICAL"),
        ("ALPHA^Medical 2003", "ALPHA MEDICAL"),
        ("ANONYMOUS", ""),
        ("", ""),
        ("Beta & Sons " + "y" * 40, "BETA & SONS " + "Y" * 20),
    ],
)
def test_of_a_header_the_company_is_kept_alone(tmp_path, said, kept):
    ds = build(STORED, 16, Manufacturer=said, PatientName="Planted^Name", InstitutionName="Planted")
    ds.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    assert read_manufacturer(tmp_path / "a.dcm") == kept


def test_other_files_name_none(tmp_path):
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n" + b"0" * 200)
    (tmp_path / "b.dcm").write_bytes(b"\0" * 128 + b"DICM" + b"broken")
    assert read_manufacturer(tmp_path / "a.png") == read_manufacturer(tmp_path / "b.dcm") == ""
    assert read_manufacturer(tmp_path / "gone.dcm") == ""
