import itertools
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pandas as pd
import pytest
import yaml
from click.testing import CliRunner

from xray_helpers.cli import main
from xray_helpers.data.leaks import measure_leak
from xray_helpers.data.listing import list_data
from xray_helpers.reports.gate import write_badge, write_split
from xray_helpers.settings import InputError
from xray_helpers.study.files import read_csv

REPOSITORY = Path(__file__).resolve().parents[2]


def make_set(folder, make_images, *, leaky, images=4):
    for seed, (part, name) in enumerate(itertools.product(["train", "test"], ["fractured", "normal"])):
        make_images(folder / part / name, images, seed=seed)
    if leaky:
        original = folder / "train" / "fractured" / "im0_000.png"
        (folder / "test" / "normal" / "again & again.png").write_bytes(original.read_bytes())


@pytest.fixture
def leaky(tmp_path, make_images):
    make_set(tmp_path / "set", make_images, leaky=True, images=5)
    return tmp_path / "set"


def test_a_leak_is_written_for_machines_and_for_the_owner(root, tmp_path, leaky, monkeypatch):
    monkeypatch.chdir(tmp_path)
    files = [
        "--json",
        "out/a.json",
        "--sarif",
        "out/a.sarif",
        "--badge",
        "out/a.svg",
        "--write-split",
        "out/s.csv",
    ]
    done = CliRunner().invoke(main, ["audit", "set", "--weights", "random", "--out", "out", *files])
    assert done.exit_code == 1, done.output
    both = {"train/fractured/im0_000.png", "test/normal/again & again.png"}
    found = json.loads((tmp_path / "out" / "a.json").read_text())
    assert found["leaked"] is True
    ((_, parts),) = found["shared"].items()
    assert {path for paths in parts.values() for path in paths} == both
    assert found["leak"]["test_leaked"] == 1
    sarif = json.loads((tmp_path / "out" / "a.sarif").read_text())
    assert sarif["version"] == "2.1.0"
    run = sarif["runs"][0]
    leaks = [result for result in run["results"] if result["ruleId"] == "leak"]
    assert [run["tool"]["driver"]["rules"][r["ruleIndex"]]["id"] for r in leaks] == ["leak", "leak"]
    places = [r["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] for r in leaks]
    assert sorted(places) == ["test/normal/again%20%26%20again.png", "train/fractured/im0_000.png"]
    assert [r["level"] for r in run["results"] if r["ruleId"] == "two-labels"] == ["warning"]
    badge = ElementTree.parse(tmp_path / "out" / "a.svg").getroot()
    assert "9.1% of test leaks" in badge.get("aria-label")
    letter = (tmp_path / "out" / "for_the_owner.html").read_text()
    assert "again &amp; again.png" in letter
    assert "1 of 21 files change theirs" in letter


def test_the_split_written_keeps_parts_and_is_read_by_a_study(root, tmp_path, leaky, monkeypatch):
    monkeypatch.chdir(tmp_path)
    CliRunner().invoke(main, ["audit", "set", "--weights", "random", "--write-split", "new/split.csv"])
    split = read_csv(tmp_path / "new" / "split.csv")
    assert split["moved_from"].notna().sum() == 1
    assert split.groupby("source_group")["split"].nunique().max() == 1
    listing = list_data(str(tmp_path / "new" / "split.csv"))
    assert len(listing.table) == 21
    assert set(listing.table["label"]) == {"Fractured", "Non-Fractured"}
    own = listing.table["folder_split"].tolist()
    wanted = dict(zip(split["path"].map(os.path.basename), split["split"], strict=True))
    assert own == [wanted[os.path.basename(path)] for path in listing.table["path"]]
    again = CliRunner().invoke(main, ["audit", "new/split.csv", "--weights", "random"])
    assert again.exit_code == 0, again.output


def test_a_group_goes_where_most_of_its_files_are():
    table = pd.DataFrame({"path": list("abcdef"), "group": [1, 1, 1, 2, 2, 3]})
    table["folder_split"] = ["train", "train", "test", "test", "validation", None]
    table = table.assign(label="x", patient=None, source_group=table["group"], status="readable")
    assert split_of(table) == ["train", "train", "train", "test", "test", "train"]


def split_of(table, place=Path("split_of.csv")):
    try:
        return read_csv(write_split(place, table, Path()))["split"].tolist()
    finally:
        place.unlink(missing_ok=True)


def test_where_there_are_no_parts_groups_are_drawn(root, tmp_path):
    table = pd.DataFrame({"path": [f"{i}.png" for i in range(200)], "group": [i // 2 for i in range(200)]})
    table = table.assign(
        label="x", patient=None, folder_split=None, source_group=table["group"], status="readable"
    )
    table["part"] = split_of(table, tmp_path / "s.csv")
    assert table.groupby("group")["part"].nunique().max() == 1
    assert table["part"].value_counts().to_dict() == {"train": 140, "test": 40, "validation": 20}
    assert measure_leak(table, table["part"])["groups"] == 0
    with pytest.raises(InputError, match="2 groups are too few"):
        split_of(table.head(4), tmp_path / "t.csv")


@pytest.mark.parametrize(
    ("groups", "share", "parts", "words"),
    [(0, 0.0, 2, "no leak found"), (3, None, 2, "3 sources leak"), (0, None, 1, "no parts to compare")],
)
def test_the_badge_says_what_was_found(tmp_path, groups, share, parts, words):
    path = write_badge(tmp_path / "b.svg", {"groups": groups, "share": share}, parts)
    assert words in ElementTree.parse(path).getroot().get("aria-label")


def run_entry(command, folder, **values):
    env = os.environ | {"PYTHONPATH": str(REPOSITORY), "XRAY_HELPERS_ROOT": str(folder)} | values
    env["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{env['PATH']}"
    return subprocess.run(
        command, cwd=folder, env=env, capture_output=True, text=True, check=False, timeout=300
    )


@pytest.mark.slow
@pytest.mark.parametrize("is_leaky", [True, False])
def test_the_action_and_the_hook_fail_on_a_leak_alone(tmp_path, make_images, is_leaky):
    make_set(tmp_path / "data", make_images, leaky=is_leaky)
    action = yaml.safe_load((REPOSITORY / "action.yml").read_text())
    step = action["runs"]["steps"][-1]
    defaults = {key: value.get("default", "data") for key, value in action["inputs"].items()}
    values = {
        name: defaults[text.removeprefix("${{ inputs.").removesuffix(" }}")]
        for name, text in step["env"].items()
    }
    done = run_entry(["bash", "-e", "-c", step["run"]], tmp_path, **values)
    assert done.returncode == int(is_leaky), done.stderr[-2000:]
    place = tmp_path / action["outputs"]["sarif"]["value"].replace("${{ inputs.out }}", defaults["out"])
    assert json.loads(place.read_text())["runs"][0]["results"] == [] or is_leaky
    (hook,) = yaml.safe_load((REPOSITORY / ".pre-commit-hooks.yaml").read_text())
    done = run_entry([*shlex.split(hook["entry"]), *hook["args"]], tmp_path)
    assert done.returncode == int(is_leaky), done.stderr[-2000:]
