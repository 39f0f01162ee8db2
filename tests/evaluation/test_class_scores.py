import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as reference

from xray_helpers.evaluation.class_predictions import (
    add_probabilities,
    one_against_rest,
    positive_probability,
)
from xray_helpers.evaluation.classes import (
    class_reliability,
    compare_classes,
    describe_classes,
    evaluate_classes,
    flatten_classes,
)
from xray_helpers.evaluation.metrics import METRICS, compute_metrics
from xray_helpers.evaluation.paired import compare_pairs
from xray_helpers.settings import Classes, set_classes
from xray_helpers.study.files import read_csv, write_csv

THREE = Classes(names=("none", "simple", "spiral"), positives=("simple", "spiral"), ordered=True)
TWO = Classes(names=("none", "spiral"), positives=("spiral",))


@pytest.fixture(autouse=True)
def _two_classes_afterwards():
    yield
    set_classes(Classes())


def predictions(classes, n=150, groups=60, seed=0, noise=1.0):
    set_classes(classes)
    rng, k = np.random.default_rng(seed), len(classes.names)
    label = np.arange(groups) % k
    group = np.sort(rng.integers(0, groups, n))
    y = label[group]
    p = rng.dirichlet(np.ones(k), n) * noise + 0.6 * np.eye(k)[y]
    part = pd.DataFrame({"path": [f"{i}.png" for i in range(n)], "group": group})
    part = part.assign(y_true=(y > 0).astype(int), class_name=np.array(classes.names)[y])
    return add_probabilities(part, p / p.sum(axis=1, keepdims=True)), y


@given(st.integers(0, 10_000))
@settings(max_examples=15, deadline=None)
def test_scores_agree_with_scikit_learn(seed):
    table, y = predictions(THREE, seed=seed)
    p = table[["p_none", "p_simple", "p_spiral"]].to_numpy()
    said, one_hot = p.argmax(axis=1), np.eye(3)[y]
    found = {name: entry["value"] for name, entry in evaluate_classes(table)["overall"].items()}
    expected = {
        "macro_auroc": reference.roc_auc_score(y, p / p.sum(axis=1, keepdims=True), multi_class="ovr"),
        "micro_auroc": reference.roc_auc_score(one_hot, p, average="micro"),
        "macro_average_precision": reference.average_precision_score(one_hot, p),
        "micro_average_precision": reference.average_precision_score(one_hot, p, average="micro"),
        "macro_f1": reference.f1_score(y, said, average="macro"),
        "accuracy": reference.accuracy_score(y, said),
        "balanced_accuracy": reference.balanced_accuracy_score(y, said),
        "kappa": reference.cohen_kappa_score(y, said),
        "weighted_kappa": reference.cohen_kappa_score(y, said, weights="quadratic"),
    }
    assert found == pytest.approx(expected, abs=1e-9)


def test_two_classes_have_the_scores_and_intervals_of_the_two_class_path():
    table, _ = predictions(TWO)
    y_prob = table["p_spiral"].to_numpy()
    binary = compute_metrics(table["y_true"].to_numpy(), y_prob, 0.5, table["group"])
    found = evaluate_classes(table)
    for name in METRICS:
        for end in ("value", "ci_low", "ci_high"):
            assert found["classes"]["spiral"][name][end] == pytest.approx(binary[name][end], abs=1e-9), name
    for several, two in (
        ("macro_auroc", "auroc"),
        ("accuracy",) * 2,
        ("kappa",) * 2,
        ("balanced_accuracy",) * 2,
    ):
        for end in ("value", "ci_low", "ci_high"):
            assert found["overall"][several][end] == pytest.approx(binary[two][end], abs=1e-9), several


def test_two_models_of_two_classes_are_compared_as_by_the_two_class_path():
    one, other = predictions(TWO)[0], predictions(TWO, noise=1.2)[0]
    tables = {
        name: table.assign(y_prob=table["p_spiral"], y_pred=(table["p_spiral"] >= 0.5).astype(int))
        for name, table in (("one", one), ("other", other))
    }
    several, two = compare_classes({"one": one, "other": other}).iloc[0], compare_pairs(tables).iloc[0]
    for column in ("difference", "ci_low", "ci_high", "p", "decisions_p", "only_first", "only_second"):
        assert several[column] == pytest.approx(two[column], abs=1e-9), column


def test_kappa_by_hand():
    set_classes(THREE)
    true, said = [0, 0, 0, 1, 1, 1, 2, 2, 2, 2], [0, 0, 1, 1, 1, 2, 2, 2, 0, 2]
    part = pd.DataFrame(
        {"path": list("abcdefghij"), "group": range(10), "class_name": np.array(THREE.names)[true]}
    )
    table = add_probabilities(part.assign(y_true=np.sign(true)), 0.1 + 0.7 * np.eye(3)[said])
    overall = evaluate_classes(table)["overall"]
    # 7 of 10 agree; by chance .3 × .3 + .3 × .3 + .4 × .4 = .34
    assert overall["kappa"]["value"] == pytest.approx((0.7 - 0.34) / 0.66)
    # squared distances: 0→1, 1→2 (1 each), 2→0 (4): 0.6; by chance 2 × (.09 + .12 + 4 × .12)
    assert overall["weighted_kappa"]["value"] == pytest.approx(1 - 0.6 / 1.38)


def test_a_class_without_images_has_no_scores_and_the_reason():
    table, _ = predictions(THREE)
    table = table[table["class_true"] != "spiral"]
    found = evaluate_classes(table)
    assert found["overall"]["macro_auroc"] == {
        "value": None,
        "ci_low": None,
        "ci_high": None,
        "reason": "no image of class spiral",
    }
    assert found["classes"]["spiral"]["recall"]["value"] is None
    assert found["classes"]["spiral"]["recall"]["reason"] == "no image of class spiral"
    assert found["overall"]["accuracy"]["value"] is not None
    text = describe_classes("M", flatten_classes(found), len(table))
    assert "macro AUROC not defined (no image of class spiral)" in text


def test_order_of_images_and_of_classes_does_not_matter():
    table, _ = predictions(THREE)
    before = evaluate_classes(table)["overall"]
    turned = evaluate_classes(table.sample(frac=1, random_state=1))["overall"]
    set_classes(THREE._replace(names=THREE.names[::-1]))
    other = evaluate_classes(table)["overall"]
    for name, entry in before.items():
        for end in ("value", "ci_low", "ci_high"):
            assert turned[name][end] == pytest.approx(entry[end], abs=1e-9)
            assert other[name][end] == pytest.approx(entry[end], abs=1e-9)


def test_the_binary_question_sums_the_positive_classes():
    table, y = predictions(THREE)
    assert table["y_prob"].to_numpy() == pytest.approx(1 - table["p_none"].to_numpy())
    assert (table["y_true"] == (y > 0)).all()
    assert positive_probability(np.array([0.2, 0.7])).tolist() == [0.2, 0.7]
    assert one_against_rest(table, "simple")["y_true"].sum() == (y == 1).sum()


def test_predictions_are_written_with_names_and_read_back(tmp_path):
    table, _ = predictions(THREE)
    table = table.assign(y_pred=(table["y_prob"] >= 0.4).astype(int), group=table["group"].astype("string"))
    file = write_csv(tmp_path / "predictions_test.csv", table)
    written = pd.read_csv(file)
    assert set(written["y_true"]) == set(THREE.names) and set(written["y_pred"]) <= set(THREE.names)
    assert list(written.columns[:4]) == ["path", "group", "y_true", "y_pred"]
    pd.testing.assert_frame_equal(read_csv(file)[table.columns], table, check_dtype=False)


def test_reliability_is_a_table_per_class():
    table, y = predictions(THREE)
    found = class_reliability(table)
    assert set(found["class"]) == set(THREE.names)
    assert found.groupby("class")["n"].sum().tolist() == [len(y)] * 3
    by_class = found.assign(true=found["share"] * found["n"]).groupby("class")["true"].sum()
    assert by_class["simple"] == pytest.approx((y == 1).sum())
