"""Sites of a column and of folders: their parts, what they share, and small ones."""

import shutil

import numpy as np
import pandas as pd
import pytest

from xray_helpers.federated.sites import name_site, open_sites, read_sites, split_by_column
from xray_helpers.settings import InputError, build_settings
from xray_helpers.study.tables import MANIFEST
from xray_helpers.synthetic.dataset import HOSPITALS, write_phantoms

SETTINGS = build_settings(seed=1, use_subset=1.0)
NOTHING = pd.DataFrame(columns=list(MANIFEST)).astype(MANIFEST)


def build_manifest(**sizes):
    """A study's manifest of groups of two images; every fifth group is test, every seventh validation."""
    rows = []
    for site, groups in sizes.items():
        for g in range(groups):
            split = "test" if g % 5 == 0 else "validation" if g % 7 == 0 else "train"
            label = "Fractured" if g % 2 else "Non-Fractured"
            for view in range(2):
                path = f"{site}/{g:03d}_{view}.png"
                rows.append(
                    {"path": path, "label": label, "group": f"{site}/{g:03d}", "split": split, "ward": site}
                )
    table = pd.DataFrame(rows)
    return table.assign(status="used", source_group=table["path"], sha256=table["path"], counted=True)


def test_sites_of_a_column_keep_the_studys_test_part_and_draw_their_own_validation():
    manifest = build_manifest(north=60, south=30, tiny=3)
    manifest.loc[manifest["group"] == "south/001", "group"] = "north/001"  # a patient of both
    manifest.loc[manifest.index[-1] + 1] = manifest.iloc[0].to_dict() | {"path": "x", "ward": None}
    found = split_by_column(manifest, "ward", None, settings=SETTINGS)
    assert sorted(found.tables) == ["north", "south"]
    assert "tiny" in found.left_out
    for site, table in found.tables.items():
        was = manifest.set_index("path")["split"].reindex(table["path"]).to_numpy()
        assert ((table["split"] == "test").to_numpy() == (was == "test")).all()
        assert table.groupby("group")["split"].agg(set).map(len).eq(1).all()
        validation = found.part(site, "validation")
        assert validation["y_true"].nunique() == 2
        assert 0.08 < len(validation) / len(table) < 0.25
        assert "north/001" not in set(validation["group"])
    assert any(
        "north and south share 1 sources or patients, of 2 and 2 images" in note for note in found.notes
    )
    assert any(note.startswith("1 images name no site") for note in found.notes)
    assert found.table()["images"].tolist() == [120, 60]


def test_one_site_is_no_federation_and_a_column_has_to_be_there():
    with pytest.raises(InputError, match="needs two sites or more, and 1 can take part"):
        open_sites({}, "ward", build_manifest(north=40), None, settings=SETTINGS)
    with pytest.raises(InputError, match="no column 'clinic'"):
        open_sites({}, "clinic", build_manifest(north=40), None, settings=SETTINGS)
    assert [name_site(value) for value in ("St. Mary's", 7, " a/b ", "..")] == [
        "St.-Mary-s",
        "7",
        "a-b",
        "site",
    ]


def test_sites_of_folders_share_no_source_between_train_and_test(tmp_path):
    a = write_phantoms(tmp_path / "a", images=80, planted=0, seed=1).parent
    b = write_phantoms(tmp_path / "b", images=80, planted=0, seed=2, hospital=HOSPITALS["hospital-b"]).parent
    (tmp_path / "c" / "Fractured").mkdir(parents=True)
    own = sorted(a.rglob("*.png"))
    for number, path in enumerate(own[::9]):
        shutil.copy(path, b / path.parent.name / f"copy{number}.png")
        shutil.copy(path, tmp_path / "c" / "Fractured" / f"{number}.png")
    places = {name: str(tmp_path / name) for name in "abc"}
    places["a"] = str(a / "phantoms.csv")
    found = read_sites(places, NOTHING, None, settings=SETTINGS)
    assert sorted(found.tables) == ["a", "b"]
    assert "0 Non-Fractured" in found.left_out["c"]
    copies = found.tables["b"]["file"].str.contains("copy")
    assert copies.sum() == len(own[::9])
    assert (found.tables["b"].loc[copies, "split"] == "train").all()
    parts = {site: table.groupby("group")["split"].agg(set) for site, table in found.tables.items()}
    both = parts["a"].index.intersection(parts["b"].index)
    assert len(both) > 0
    assert all(parts[site][group] == {"train"} for site in parts for group in both)
    assert any("a and b share" in note for note in found.notes)
    again = read_sites(places, NOTHING, None, settings=SETTINGS)
    assert all(np.array_equal(found.tables[s]["split"], again.tables[s]["split"]) for s in "ab")
