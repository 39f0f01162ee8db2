import hashlib

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from xray_helpers.data.external import describe_refusal, group_external, read_external
from xray_helpers.images.radiographs import ImageFolder, read_radiograph
from xray_helpers.same_source.cross_set import count_shared, describe_shared, find_shared
from xray_helpers.same_source.known import KnownImages
from xray_helpers.settings import InputError
from xray_helpers.study.files import write_csv, write_json
from xray_helpers.synthetic.dataset import write_phantoms


@pytest.fixture
def sets(root, phantom_csv):
    """A manifest of phantoms, a third in each part, and a folder with copies of one of each, and others."""
    table = pd.read_csv(phantom_csv).query("copy_of.isna()").head(60).reset_index(drop=True)
    folder = phantom_csv.parent
    files = [folder / path for path in table["path"]]
    manifest = pd.DataFrame(
        {
            "path": table["path"].astype("string"),
            "sha256": [hashlib.sha256(file.read_bytes()).hexdigest() for file in files],
            "split": np.repeat(["train", "validation", "test"], 20),
            "status": "used",
            "patient": table["patient"].astype("string"),
            "mode": "L",
        }
    ).astype({"sha256": "string", "split": "string"})
    other = write_phantoms(root / "other", images=40, planted=0, seed=9).parent
    for row in (0, 20, 40):  # one of each part, darker and larger
        with Image.open(files[row]) as picture:
            larger = picture.resize((picture.width + 40, picture.height + 30))
            larger.point(lambda value: int(value * 0.8)).save(other / "Fractured" / f"copy{row}.png")
    return manifest, folder, other


def test_what_derives_from_the_study_is_found_with_its_part(sets):
    manifest, folder, other = sets
    found = read_external(str(other), {})
    shared = find_shared(manifest, ImageFolder(folder), found.table, found.images)
    table = group_external(found, shared.source, shared.corners, shared.shared, "sources").table
    table = table[table["status"] == "used"].set_index("path")
    assert found.refused == ""
    for row, part in ((0, "train"), (20, "validation"), (40, "test")):
        copy = table.loc[f"Fractured/copy{row}.png"]
        assert (copy["shared_part"], copy["shared_with"]) == (part, manifest["path"][row])
        assert copy["excluded"] == (part != "test")
    assert table["shared_part"].notna().sum() == 3
    assert count_shared(table) == {"images": 2, "sources": 2, "excluded": 2, "with_test": 1}
    assert set(shared.pairs.query("decision == 'joined'")["external"]) == {
        f"Fractured/copy{row}.png" for row in (0, 20, 40)
    }
    told = describe_shared(shared, table)
    assert told.startswith(f"2 of {len(table)} external images, from 2 sources")
    assert "1 are shared with the study's test part" in told


def test_where_the_studys_images_are_gone_equal_bytes_are_found_and_the_limit_is_told(sets):
    manifest, folder, other = sets
    (other / "Fractured" / "same.png").write_bytes((folder / manifest["path"][3]).read_bytes())
    found = read_external(str(other), {})
    shared = find_shared(manifest, None, found.table, found.images)
    assert (shared.searched, shared.known) == (0, 60)
    table = group_external(found, shared.source, shared.corners, shared.shared, "files").table
    assert table.set_index("path").loc["Fractured/same.png", "shared_part"] == "train"
    assert table["shared_part"].notna().sum() == 1
    assert "Only 0 of the study's 60 images are on this machine" in describe_shared(shared, table)


def test_all_images_of_a_patient_are_left_out_with_one(sets):
    manifest, folder, other = sets
    patient = min(path.name for path in (other / "Fractured").glob("p*.png")).split("_")[0]
    with Image.open(folder / manifest["path"][1]) as picture:
        picture.save(other / "Fractured" / f"{patient}_v9.png")
    found = read_external(str(other), {}, r"/(p\d+)_v")
    shared = find_shared(manifest, ImageFolder(folder), found.table, found.images)
    table = group_external(found, shared.source, shared.corners, shared.shared, "sources").table
    mine = table["patient"] == patient
    assert mine.sum() > 1
    assert table.loc[mine, "excluded"].all()
    counted = count_shared(table)
    assert counted["excluded"] - counted["images"] == mine.sum() - 1


def test_a_set_without_labels_is_read_and_refused(root, phantom_csv, make_images, tmp_path):
    paths = [phantom_csv.parent / path for path in pd.read_csv(phantom_csv)["path"].head(12)]
    pd.DataFrame({"path": paths}).to_csv(tmp_path / "list.csv", index=False)
    found = read_external(str(tmp_path / "list.csv"), {})
    assert (found.table["status"] == "used").sum() == 12
    assert found.refused.startswith("No score is given: none of the 12 readable images has a label")
    with pytest.raises(InputError, match="There is no folder or CSV"):
        read_external(str(tmp_path / "nowhere"), {})


def test_too_few_of_a_class_are_refused_with_their_numbers():
    assert describe_refusal(pd.Series(["Fractured"] * 12 + ["Non-Fractured"] * 12)) == ""
    told = describe_refusal(pd.Series(["Fractured"] * 12 + ["Non-Fractured"] * 3))
    assert "12 Fractured and 3 Non-Fractured are labelled among 15 readable images" in told


def test_a_file_is_recognised_by_its_bytes_and_by_what_it_shows(sets, root):
    manifest, folder, other = sets
    study = root / "reports" / "s"
    write_csv(study / "manifest.csv", manifest.assign(counted=True))
    write_json(study / "study.json", {"settings": {}})
    write_json(study / "local.json", {"data": str(folder)})
    known = KnownImages(study)
    assert len(known) == 40
    same = known.find(read_radiograph(folder / manifest["path"][0]))
    assert same == ("train", manifest["path"][0], True)
    assert "trained on this very file" in same.warning
    copy = known.find(read_radiograph(other / "Fractured" / "copy20.png"))
    assert copy == ("validation", manifest["path"][20], False)
    assert f"chosen on an image from which this derives ({manifest['path'][20]})" in copy.warning
    assert known.find(read_radiograph(other / "Fractured" / "copy40.png")) is None  # of test: no warning
    write_json(study / "local.json", {"data": str(root / "moved")})
    moved = KnownImages(study)
    assert moved.find(read_radiograph(folder / manifest["path"][0])) == same
    assert moved.find(read_radiograph(other / "Fractured" / "copy20.png")) is None
