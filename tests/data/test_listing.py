import itertools

import pytest

from xray_helpers.data.listing import list_data
from xray_helpers.settings import NEGATIVE, POSITIVE, InputError


def by_class(listing):
    return listing.table["label"].value_counts().to_dict()


def test_two_class_folders(tmp_path, make_images):
    make_images(tmp_path / "Fractured", 12, seed=1)
    make_images(tmp_path / "Non-Fractured", 15, seed=2, suffix=".jpg")
    assert by_class(list_data(str(tmp_path))) == {POSITIVE: 12, NEGATIVE: 15}


def test_train_val_test_folders_are_recorded(tmp_path, make_images):
    for seed, (part, name) in enumerate(
        itertools.product(["train", "val", "test"], ["fractured", "not fractured"])
    ):
        make_images(tmp_path / part / name, 10, seed=seed)
    table = list_data(str(tmp_path)).table
    assert table["folder_split"].value_counts().to_dict() == {"train": 20, "validation": 20, "test": 20}


def test_originals_are_read_and_augmented_copies_are_not(tmp_path, make_images):
    for seed, (part, name) in enumerate(
        itertools.product(["Original Dataset", "Augmented Dataset"], ["Fractured", "Non-Fractured"])
    ):
        make_images(tmp_path / part / name, 10, seed=seed)
    listing = list_data(str(tmp_path))
    assert listing.table["path"].str.startswith("Original Dataset/").all()
    assert "its 20 files are augmented" in listing.notes[0]


def test_mura_paths_give_patients_and_studies_labels(tmp_path, make_images):
    for patient in range(10):
        sign = "positive" if patient % 2 else "negative"
        folder = tmp_path / "train" / "XR_ELBOW" / f"patient{patient:05d}" / f"study1_{sign}"
        make_images(folder, 3, seed=patient)
    listing = list_data(str(tmp_path))
    assert by_class(listing) == {POSITIVE: 15, NEGATIVE: 15}
    assert listing.table["patient"].nunique() == 10
    assert set(listing.table["body_part"]) == {"elbow"}
    assert "not the same as fractured" in listing.notes[0]


def test_bad_folders(tmp_path, make_images):
    with pytest.raises(InputError, match="There is no folder or CSV"):
        list_data(str(tmp_path / "nowhere"))
    with pytest.raises(InputError, match="No images in"):
        list_data(str(tmp_path))
    make_images(tmp_path / "Fractured", 12)
    with pytest.raises(InputError, match="none of class Non-Fractured"):
        list_data(str(tmp_path))
    make_images(tmp_path / "normal", 3)
    with pytest.raises(InputError, match="Only 3 images of class Non-Fractured"):
        list_data(str(tmp_path))


def test_studies_that_contradict_their_class_folder_are_refused(tmp_path, make_images):
    for label, sign in (("Fractured", "negative"), ("Normal", "positive")):
        for patient in range(6):
            make_images(tmp_path / label / f"patient{patient:05d}" / f"study1_{sign}", 2, seed=patient)
    with pytest.raises(InputError, match="name both classes"):
        list_data(str(tmp_path))


def test_numbered_studies_are_no_classes(tmp_path, make_images):
    for label in ("Fractured", "Normal"):
        for number in range(6):
            make_images(tmp_path / label / f"patient{number}" / f"study1_{number % 2}", 2, seed=number)
    table = list_data(str(tmp_path)).table
    assert (
        table["label"] == table["path"].str.startswith("Fractured").map({True: POSITIVE, False: NEGATIVE})
    ).all()


def test_folders_beside_originals_and_copies_stay(tmp_path, make_images):
    for seed, part in enumerate(["original_train", "original_test", "augmented_train", "Hospital2"]):
        for label in ("Fractured", "Normal"):
            make_images(tmp_path / part / label, 12, seed=seed)
    listing = list_data(str(tmp_path))
    assert len(listing.table) == 72
    assert "its 24 files are augmented copies" in listing.notes[0]


def test_one_abnormal_folder_renames_no_class(tmp_path, make_images):
    for seed, part in enumerate(["Fractured", "Normal", "Abnormal/Fractured"]):
        make_images(tmp_path / part, 12, seed=seed)
    assert list_data(str(tmp_path)).class_names == (NEGATIVE, POSITIVE)
    (tmp_path / "set").mkdir()
    for seed, part in enumerate(["Abnormal", "Normal"]):
        make_images(tmp_path / "set" / part, 12, seed=seed)
    assert list_data(str(tmp_path / "set")).class_names == ("Normal", "Abnormal")
