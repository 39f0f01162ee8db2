"""Pairs of sources that may show one patient, on synthetic patients that are not named."""

import numpy as np
import pandas as pd
import pytest

from xray_helpers.same_source import patients
from xray_helpers.same_source.patients import caption_pairs, describe_patients, propose_patients, review_with
from xray_helpers.study.files import build_table
from xray_helpers.study.records import sha256_of
from xray_helpers.study.tables import LINKS
from xray_helpers.synthetic.dataset import write_phantoms


@pytest.fixture(scope="module")
def unnamed(tmp_path_factory):
    """A manifest of phantoms without patients, its folder, and the patient of each path."""
    csv = write_phantoms(tmp_path_factory.mktemp("patients"), images=60, planted=4, seed=3)
    table = pd.read_csv(csv)
    table["sha256"] = [sha256_of(csv.parent / path) for path in table["path"]]
    known = table.set_index("path")["patient"]
    rows = table[["path", "sha256"]].assign(height=256, width=256, patient=pd.NA, source_group=table["path"])
    return rows, csv.parent, known


@pytest.fixture
def none():
    return build_table([], LINKS)


def test_what_is_proposed_is_mostly_of_one_patient(unnamed, none, root, monkeypatch):
    manifest, folder, known = unnamed
    monkeypatch.setattr(patients, "_LEAST", 3.0)  # in 60 images nothing is rarer than a share of 1 in 600
    pairs = propose_patients(manifest, folder, none)
    same = known[pairs["path_a"]].to_numpy() == known[pairs["path_b"]].to_numpy()
    by_chance = (known.value_counts() * (known.value_counts() - 1)).sum() / len(known) / (len(known) - 1)
    assert len(pairs) >= 5
    assert same.mean() > 5 * by_chance
    assert pairs["evidence"].is_monotonic_decreasing
    parts = pairs[["look", "exposure", "frame", "name", "points"]].sum(axis=1)
    np.testing.assert_allclose(parts, pairs["evidence"], atol=0.05)
    paths, captions = caption_pairs(pairs, 2)
    assert paths[:2] == pairs.loc[0, ["path_a", "path_b"]].tolist()
    assert captions[2].startswith("pair 2: ")
    assert "none was joined" in describe_patients(pairs, manifest)
    review = review_with(none, pairs)
    assert (review["decision"] == "for review").all()
    assert list(review.columns) == list(LINKS)

    first = pairs.iloc[0]
    decided = pd.DataFrame([{"sha256_a": first["sha256_b"], "sha256_b": first["sha256_a"]}])
    links = build_table(decided.assign(decision="separated").to_dict("records"), LINKS)
    again = propose_patients(manifest, folder, links).head(len(pairs) - 1)  # another pair may take its place
    assert (again["path_a"] + again["path_b"]).tolist() == (pairs["path_a"] + pairs["path_b"]).tolist()[1:]


def test_known_patients_and_tiny_sets_are_left_alone(unnamed, none, root):
    manifest, folder, known = unnamed
    named = manifest.assign(patient=manifest["path"].map(known))
    assert propose_patients(named, folder, none).empty
    assert "are known" in describe_patients(propose_patients(named, folder, none), named)
    nothing = propose_patients(manifest.head(2), folder, none)
    assert nothing.empty
    assert "does not show" in describe_patients(nothing, manifest.head(2))


def test_evidence_is_how_rare_a_signal_is():
    np.testing.assert_allclose(patients._rarity(np.array([3.0, 1.0, 2.0])), -np.log10([0.5, 1.0, 0.75]))
    pairs = np.array([[0, 1], [0, 2], [1, 2], [2, 3]])
    own = patients._pairs_of_each(pairs, 4)
    assert [sorted(each.tolist()) for each in own] == [[0, 1], [0, 2], [1, 2, 3], [3]]
    found = patients._rarity_among(np.array([5.0, 1.0, 2.0, 9.0]), pairs, own)
    np.testing.assert_allclose(found[0], -np.log10(1 / 3))  # of the pairs 01, 02, 12 the largest
    np.testing.assert_allclose(found[1], -np.log10(4 / 4))  # of 01, 02, 12, 23 the smallest


@pytest.mark.parametrize(
    ("one", "other", "apart"),
    [
        ("IMG_0012.png", "IMG_0013.png", 1),
        ("a/7_2.png", "a/7_4.png", 2),
        ("a1.png", "b2.png", 99),
        ("1_1.png", "2_2.png", 99),
    ],
)
def test_names_that_differ_by_one_number(one, other, apart):
    assert patients._count_between(patients._split_name(one), patients._split_name(other)) == apart
