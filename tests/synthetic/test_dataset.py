import cv2
import numpy as np
import pandas as pd
import pytest

from xray_helpers.synthetic import dataset, limb
from xray_helpers.synthetic.dataset import calibration_phantoms, write_phantoms
from xray_helpers.synthetic.limb import FRACTURE_TYPES, build_patient, render_view


@pytest.mark.parametrize("kind", FRACTURE_TYPES)
def test_a_fracture_is_visible_within_its_box(kind):
    inside, hits = [], 0
    for seed in range(6):
        patient = build_patient(np.random.default_rng([seed, 8]), kind)
        shape = patient.bones[patient.fracture.bone]
        v, u = np.mgrid[-70:71, -40:41].astype(np.float32)
        whole = limb._intact_bone(shape, 0.0, u, v + patient.fracture.along, np.zeros_like(u))
        broken = limb._fractured_bone(
            shape, patient.fracture, 0.0, u, v + patient.fracture.along, np.zeros_like(u)
        )
        change = np.abs(broken - whole)
        assert change.max() > 0.02  # in units of attenuation: a visible difference
        rows = np.abs(v) < patient.fracture.gap / 2 + abs(patient.fracture.slope) * shape.shaft + 10
        inside.append(change[rows].sum() / change.sum())
        pixels, (left, top, right, bottom) = render_view(np.random.default_rng(seed), patient)
        assert 0 <= left < right <= pixels.shape[1]
        assert 0 <= top < bottom <= pixels.shape[0]
        hits += (right - left) * (bottom - top) < 0.5 * pixels.size
    assert hits >= 5  # the box is smaller than half the picture
    if kind == "hairline":  # in other types, the moved distal part differs everywhere
        assert min(inside) > 0.99


def test_bone_attenuates_more_than_soft_tissue_and_cortex_more_than_marrow():
    bone = build_patient(np.random.default_rng(0), None).bones[0]
    u = np.linspace(-40, 40, 801, dtype=np.float32)[None]
    profile = limb._intact_bone(bone, 0.0, u, np.zeros_like(u), np.zeros_like(u))[0]
    outside = np.abs(u[0] - limb._find_axis(bone, 0.0, 0.0)) > bone.shaft + 0.01
    assert (profile[outside] == 0).all()
    centre = profile[np.argmin(np.abs(u[0] - limb._find_axis(bone, 0.0, 0.0)))]
    assert profile.max() > 1.5 * centre > 0  # the cortex is brighter than the marrow


def test_pictures_are_eight_bit_and_repeatable():
    patient = build_patient(np.random.default_rng(1), "oblique")
    one, box = render_view(np.random.default_rng(2), patient)
    two, same_box = render_view(np.random.default_rng(2), patient)
    other, _ = render_view(np.random.default_rng(3), patient)
    assert one.dtype == np.uint8
    assert one.shape == (256, 208)
    assert (one == two).all()
    assert box == same_box
    assert (one != other).mean() > 0.5
    assert one.max() > 180
    assert one.min() < 30


def test_a_set_has_patients_types_boxes_and_planted_copies(phantom_csv):
    table = pd.read_csv(phantom_csv)
    own = table[table["planted"].isna()]
    assert len(own) >= 120
    assert len(table) == len(own) + 12
    assert own.groupby("patient").size().between(1, 4).all()
    assert own.groupby("patient")["label"].nunique().max() == 1
    broken = own["label"] == "Fractured"
    assert set(own.loc[broken, "fracture_type"]) <= set(FRACTURE_TYPES)
    assert own.loc[broken, "box_left"].notna().all()
    assert own.loc[~broken, ["box_left"]].isna().all(axis=None)
    planted = table[table["planted"].notna()]
    for row in planted.itertuples():
        assert (phantom_csv.parent / row.path).exists()
        assert row.copy_of in set(own["path"])
    copies = planted[planted["planted"] == "copy"]
    for row in copies.itertuples():
        assert (phantom_csv.parent / row.path).read_bytes() == (phantom_csv.parent / row.copy_of).read_bytes()


def test_the_same_seed_writes_the_same_set(tmp_path):
    one = write_phantoms(tmp_path / "a", images=6, planted=1, seed=5)
    two = write_phantoms(tmp_path / "b", images=6, planted=1, seed=5)
    assert one.read_text() == two.read_text()
    for path in pd.read_csv(one)["path"]:
        assert (tmp_path / "a" / path).read_bytes() == (tmp_path / "b" / path).read_bytes()


def test_exposure_does_not_reveal_the_label():
    difference = []
    for seed in range(30):
        kind = FRACTURE_TYPES[seed % 5]
        pair = [build_patient(np.random.default_rng([seed, 9]), kind) for kind in (kind, None)]
        grey = [render_view(np.random.default_rng(seed), patient)[0].mean() for patient in pair]
        difference.append(grey[0] - grey[1])
    assert abs(np.mean(difference)) < 8  # of 255; single limbs differ by 20


def test_an_incomplete_folder_of_phantoms_is_replaced(root, monkeypatch):
    small = dataset.write_phantoms
    monkeypatch.setattr(dataset, "write_phantoms", lambda folder, **_: small(folder, images=4, planted=0))
    csv = dataset.demo_phantoms()
    csv.unlink()
    assert dataset.demo_phantoms() == csv
    assert csv.exists()
    assert [path.name for path in csv.parent.parent.iterdir()] == [csv.parent.name]  # no temporary folder


def test_calibration_batch_is_fixed(root):
    one = calibration_phantoms((48, 40), 6)
    assert one.shape == (6, 48, 40)
    assert one.dtype == np.uint8
    cv2.setNumThreads(1)
    for file in (root / "data" / "cache").glob("calibration-*"):
        file.unlink()
    assert (calibration_phantoms((48, 40), 6) == one).all()
