import itertools
import re

import pandas as pd
from click.testing import CliRunner

from xray_helpers.cli import main


def test_audit_tells_leaks_by_exit_status(root, tmp_path, make_images):
    for seed, (part, name) in enumerate(itertools.product(["train", "test"], ["fractured", "normal"])):
        make_images(tmp_path / "set" / part / name, 4, seed=seed)
    clean = CliRunner().invoke(main, ["audit", "set", "--weights", "random"])
    assert clean.exit_code == 0, clean.output
    original = tmp_path / "set" / "train" / "fractured" / "im0_000.png"
    (tmp_path / "set" / "test" / "normal" / "again<b>.png").write_bytes(original.read_bytes())
    leaky = CliRunner().invoke(main, ["audit", "set", "--weights", "random", "--out", "out"])
    assert leaky.exit_code == 1, leaky.output
    assert re.search(r"test files with a sibling in train or val +1 of 9", leaky.output)
    assert re.search(r"sources with two labels +1", leaky.output)
    links = pd.read_csv(tmp_path / "out" / "links.csv")
    assert links["kind"].tolist() == ["equal bytes"]
    page = (tmp_path / "out" / "index.html").read_text()
    assert "Its own folders leak: 1 of 9" in page
    assert "again&lt;b&gt;.png" in page
    assert "again<b>" not in page
    assert len(pd.read_csv(tmp_path / "out" / "manifest.csv")) == 17


def test_audit_needs_no_classes_but_a_folder(root, tmp_path, make_images):
    make_images(tmp_path / "pile", 5)
    (tmp_path / "pile" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    done = CliRunner().invoke(main, ["audit", "pile", "--weights", "random", "--out", "out"])
    assert done.exit_code == 0, done.output
    page = (tmp_path / "out" / "index.html").read_text()
    assert "<h1>Same-source images in pile</h1>" in page
    assert "<td>broken.png</td>" in page
    assert ">1 file<" in page  # the largest group
    missing = CliRunner().invoke(main, ["audit", "nowhere"])
    assert missing.exit_code == 2
    assert "There is no folder" in missing.output
