import pandas as pd

from xray_helpers.images.patient_names import without_placeholders


def test_placeholders_are_no_patients():
    def patients(*names):
        return without_placeholders(pd.Series(names)).fillna("-").tolist()

    assert patients("Unknown", "ANONYMOUS", "p1", "", None, "xxxx", "de-identified") == [*"--", "p1", *"----"]
    assert patients("0", "1", "2", "unknown") == ["0", "1", "2", "-"]
    assert patients("0", "0000", "p1") == ["-", "-", "p1"]
