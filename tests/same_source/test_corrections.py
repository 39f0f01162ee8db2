import pytest

from xray_helpers.same_source.corrections import read_corrections, remove_correction
from xray_helpers.settings import InputError


def test_a_correction_is_taken_back_whichever_file_is_named_first(root, tmp_path):
    file = tmp_path / "c.csv"
    file.write_text("action,sha256_a,sha256_b,why\njoin,a,b,seen\nseparate,b,c,\njoin,,b,\n")
    remove_correction("c.csv", "c", "b")
    assert file.read_text() == "action,sha256_a,sha256_b,why\njoin,a,b,seen\njoin,,b,\n"
    remove_correction("c.csv", "a", "b")
    assert file.read_text() == "action,sha256_a,sha256_b,why\njoin,,b,\n"
    assert read_corrections("c.csv", {"a", "b"}).empty
    file.write_text("action,sha256_a,sha256_b\njoin,a,b\n")
    remove_correction("c.csv", "a", "b")
    assert file.read_text() == "action,sha256_a,sha256_b\n"
    with pytest.raises(InputError, match="corrections is empty"):
        remove_correction("", "a", "b")
    file.write_text("sha256_a\nx\n")
    with pytest.raises(InputError, match="need the columns"):
        remove_correction("c.csv", "a", "b")
    assert file.read_text() == "sha256_a\nx\n"
