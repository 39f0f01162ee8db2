import numpy as np
import pandas as pd
import pytest

from xray_helpers.models.backbones import get_backbone
from xray_helpers.models.features import (
    backend_record,
    extract_features,
    extractor_key,
    load_features,
    load_study_features,
)
from xray_helpers.models.inference import EXACT, InferenceBackend
from xray_helpers.settings import Settings
from xray_helpers.study import cache
from xray_helpers.study.cache import clear_cache
from xray_helpers.study.files import write_json
from xray_helpers.study.folders import open_study


class MeanGrey:
    """Stands in for a forward pass: the feature of a picture is its mean; counts the pictures it sees."""

    shape, features, started, seen = (12, 10), 1, False, 0

    def submit(self, pictures, store, rows):
        self.started, self.seen = True, self.seen + len(pictures)
        store[rows] = pictures.mean(axis=(1, 2))[:, None]

    def wait(self):
        pass

    def record(self):
        return {"engine": "toy", "precision": "float32", "asked": "toy, float32", "difference": 0.0}


@pytest.fixture
def part(root, make_images):
    return make_images(root / "set", 70)


def test_features_are_computed_once_in_any_order_and_subset(root, part):
    forward = MeanGrey()
    (x,) = extract_features(part, root / "set", forward, "key")
    assert x.shape == (70, 1)
    assert forward.seen == 70
    assert backend_record("key")["engine"] == "toy"
    mixed = part.sample(frac=1, random_state=1).head(40)
    (again,) = extract_features(mixed, root / "set", forward, "key")
    assert forward.seen == 70
    assert (again[:] == x[mixed.index]).all()
    assert (load_features(mixed, "key")[:] == again[:]).all()
    extract_features(part, root / "set", forward, "another key")
    assert forward.seen == 140


def test_equal_files_take_one_pass(root, part):
    forward = MeanGrey()
    twice = pd.concat([part.head(5), part.head(5)], ignore_index=True)
    (x,) = extract_features(twice, root / "set", forward, "key")
    assert forward.seen == 5
    assert (x[:5] == x[5:]).all()


def test_views_differ_and_only_new_ones_are_computed(root, part):
    forward = MeanGrey()
    plain, first = extract_features(part, root / "set", forward, "key", views=1)
    assert (plain[:] != first[:]).mean() > 0.9
    three = extract_features(part, root / "set", forward, "key", views=2)
    assert forward.seen == 210
    assert (three[1][:] == first[:]).all()
    assert (three[2][:] != first[:]).any()
    half = part.head(10)
    extract_features(half, root / "set", forward, "other", views=0)
    seen = forward.seen
    extract_features(half, root / "set", forward, "other", views=1)  # the pictures as they are stay
    assert forward.seen == seen + 10


def test_what_another_process_drops_from_the_cache_is_computed_again(root, part, monkeypatch):
    wanted = [np.asarray(x) for x in extract_features(part, root / "set", MeanGrey(), "key", views=1)]
    clear_cache()
    neighbours = iter(range(7))  # busy while the arrays of the first pass are written

    def drop():
        if next(neighbours, None) is not None:
            clear_cache()

    monkeypatch.setattr(cache, "shrink_cache", drop)
    forward = MeanGrey()
    found = extract_features(part, root / "set", forward, "key", views=1)
    assert all((x == y).all() for x, y in zip(map(np.asarray, found), wanted, strict=True))
    assert forward.seen >= 210  # two views of 70 pictures, and one of them at least again


def test_what_was_extracted_in_parts_is_not_computed_again(root, part):
    parts = [MeanGrey() for _ in range(3)]
    for number, forward in enumerate(parts):
        extract_features(part.iloc[number::3], root / "set", forward, "key", views=1, shard=True)
    assert [forward.seen for forward in parts] == [48, 46, 46]
    whole = MeanGrey()
    plain, _ = extract_features(part, root / "set", whole, "key", views=1)
    assert whole.seen == 0
    alone, _ = extract_features(part, root / "set", MeanGrey(), "other", views=1)
    assert (plain[:] == alone[:]).all()


def test_two_that_want_the_same_compute_it_once(root, part):
    from concurrent.futures import ThreadPoolExecutor

    forward = [MeanGrey(), MeanGrey()]
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda each: extract_features(part, root / "set", each, "key"), forward))
    assert sorted(each.seen for each in forward) == [0, 70]


def test_a_failure_leaves_nothing(root, part):
    forward = MeanGrey()

    def fail(pictures, store, rows):
        raise RuntimeError("out of memory")

    forward.submit = fail
    with pytest.raises(RuntimeError):
        extract_features(part, root / "set", forward, "key", views=1)
    assert load_features(part, "key") is None
    assert not [path for path in (root / "data" / "cache").iterdir() if path.name.startswith("features")]


def test_keys_differ_by_all_that_changes_features(tmp_path):
    (tmp_path / "MobileNetV2.h5").write_bytes(b"one")
    base = (get_backbone("MobileNetV2"), (64, 64), "random", "imagenet", EXACT)
    others = [
        (get_backbone("VGG16"), *base[1:]),
        (base[0], (64, 80), *base[2:]),
        (*base[:2], "imagenet", *base[3:]),
        (*base[:3], "unit", EXACT),
        (*base[:4], InferenceBackend("openvino", "bfloat16")),
        (*base[:2], str(tmp_path), *base[3:]),
    ]
    keys = {extractor_key(*arguments) for arguments in [base, *others]}
    assert len(keys) == 7
    (tmp_path / "MobileNetV2.h5").write_bytes(b"two")
    assert extractor_key(*others[-1]) not in keys
    assert extractor_key(*base) in keys


def test_keys_of_random_features_follow_all_that_makes_them(monkeypatch):
    from xray_helpers.models import random_weights

    arguments = (get_backbone("MobileNetV2"), (64, 64), "random", "imagenet", EXACT)
    keys = {extractor_key(*arguments)}
    for constant in ("_VERSION", "PHANTOM_VERSION", "INIT_SEED"):
        monkeypatch.setattr(random_weights, constant, getattr(random_weights, constant) + 1)
        keys.add(extractor_key(*arguments))
    assert len(keys) == 4


def test_features_of_a_study_are_those_its_model_was_given(root, part):
    study = open_study(Settings(name="s", data=str(root / "set"), weights=str(root / "nowhere")))
    write_json(study / "A" / "training.json", {"key": "a"})
    table = part.assign(
        status="used", split=["train"] * 40 + ["validation"] * 15 + ["test"] * 15, label="Fractured"
    )
    x, rows = load_study_features(study, "A", table)  # not cached, and the weights are gone
    assert (len(x), len(rows)) == (0, 0)
    for split in ("train", "validation", "test"):
        extract_features(table[table["split"] == split], root / "set", MeanGrey(), "a")
    x, rows = load_study_features(study, "A", table)
    assert x.shape == (70, 1)
    assert len(rows) == 70
    assert isinstance(x, np.ndarray)


def test_features_of_a_drawn_few_are_those_of_the_same_images(root, part):
    study = open_study(Settings(name="s", data=str(root / "set"), weights=str(root / "nowhere")))
    write_json(study / "A" / "training.json", {"key": "a"})
    table = part.assign(
        status="used", split=["train"] * 40 + ["validation"] * 15 + ["test"] * 15, label="Fractured"
    )
    for split in ("train", "validation", "test"):
        extract_features(table[table["split"] == split], root / "set", MeanGrey(), "a")
    whole, rows = load_study_features(study, "A", table)
    few, drawn = load_study_features(study, "A", table, 30, 1)
    by_path = dict(zip(rows["path"], whole[:, 0], strict=True))
    assert drawn["path"].nunique() == len(few) == 30
    assert set(drawn["split"]) == {"train", "validation", "test"}
    assert few[:, 0].tolist() == [by_path[path] for path in drawn["path"]]
    assert load_study_features(study, "A", table, 30, 1)[1].equals(drawn)
    assert not load_study_features(study, "A", table, 30, 2)[1].equals(drawn)
