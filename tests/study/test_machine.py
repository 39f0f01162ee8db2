import platform

from xray_helpers.study.machine import is_noise, provenance


def test_provenance_names_no_host(monkeypatch):
    monkeypatch.setattr(platform, "node", lambda: "a-hospital")
    record = provenance()
    assert set(record["machine"]) == {"system", "architecture", "processor", "cores", "memory_gib"}
    assert "a-hospital" not in str(record)
    assert record["machine"]["memory_gib"] > 0
    assert {"python", "numpy", "xray-helpers"} <= set(record["versions"])


def test_only_what_tensorflow_says_at_its_start_is_noise():
    assert is_noise("WARNING: All log messages before absl::InitializeLog() is called are written to STDERR")
    assert is_noise("I0000 00:00:1700000000.123456   12345 cpu_feature_guard.cc:182] This is optimized")
    assert not is_noise("W: 3 files are left out")
