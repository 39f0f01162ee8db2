def test_each_use_of_a_seed_has_a_stream_of_its_own():
    from xray_helpers.study.seeds import derive_seed

    seeds = (0, 1, 2, 42, 4_294_967, 2**32 - 2, 2**32 - 1)
    keys = ("test", "validation", "folds", "subset", *(("repeat", n) for n in range(50)), ("attempt", 3))
    drawn = [derive_seed(seed, *([key] if isinstance(key, str) else key)) for seed in seeds for key in keys]
    assert all(0 <= value < 2**32 for value in drawn)
    assert len(set(drawn)) == len(seeds) * len(keys)
    assert derive_seed(42, "test") == derive_seed(42, "test")


def test_no_seed_is_made_by_arithmetic():
    """A sum leaves the allowed range at its end, and makes one study's stream another study's."""
    import re
    from pathlib import Path

    import xray_helpers

    folder = Path(xray_helpers.__file__).parent
    sources = [*folder.rglob("*.py"), *(folder.parent / "notebooks").glob("*.ipynb")]
    found = [
        f"{p.name}: {line.strip()}"
        for p in sources
        for line in p.read_text(encoding="utf-8").splitlines()
        if re.search(r"\bseed\)?\s*[-+*%^]\s*[\w(]", line)
    ]
    assert not found
