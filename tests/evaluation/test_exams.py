import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xray_helpers.evaluation.exam_pooling import Attention, fit_attention, pool_exams
from xray_helpers.evaluation.exams import (
    NO_EXAMS,
    compare_exams,
    describe_exams_of,
    evaluate_exams,
    kappa_table,
    score_kappa,
    show_compared_exams,
    show_exams,
)
from xray_helpers.evaluation.metrics import METRICS, compute_metrics, evaluate
from xray_helpers.evaluation.paired import compare_pairs
from xray_helpers.study.files import read_csv, read_json, write_csv, write_json

CHOSEN = {"threshold": 0.4, "rule": "youden", "target_sensitivity": 0.95}


def simulate(exams, seed, *, visible_in="all", effect=2.0):
    """Predictions of exams of one to three images, two exams a patient; a fracture shows in all or in one."""
    rng, rows = np.random.default_rng(seed), []
    for exam in range(exams):
        y, views = int(rng.random() < 0.4), int(rng.integers(1, 4))
        seen = np.full(views, y) if visible_in == "all" else y * (np.arange(views) == rng.integers(views))
        for view, logit in enumerate(rng.normal(size=views) + effect * seen - 1):
            rows.append((f"e{exam:04d}_{view}", f"p{exam // 2}", y, 1 / (1 + np.exp(-logit)), f"e{exam}"))
    table = pd.DataFrame(rows, columns=["path", "group", "y_true", "y_prob", "exam"])
    return table.drop(columns="exam"), table[["path", "exam"]]


@pytest.fixture(scope="module")
def parts():
    """Predictions of test, validation and the threshold's basis, and the manifest of all."""
    (test, one), (validation, two), (basis, three) = (simulate(80, seed) for seed in (1, 2, 3))
    tables = {"test": test, "validation": validation, "threshold": basis}
    for name, table in tables.items():
        table["path"], table["group"] = f"{name}/" + table["path"], f"{name}/" + table["group"]
    manifest = pd.concat([one, two, three], keys=tables).reset_index(level=0, names="part")
    manifest = manifest.assign(path=manifest["part"] + "/" + manifest["path"])
    parts_of_body = np.where(manifest["exam"].str[1:].astype(int) % 4 < 2, "wrist", "elbow")
    return tables, manifest.assign(exam=manifest["part"] + manifest["exam"], body_part=parts_of_body)


def test_images_are_pooled_by_hand():
    images = pd.DataFrame(
        {
            "path": ["d", "a", "b", "c", "e"],
            "group": ["p2", "p1", "p1", "p1", "p3"],
            "y_true": [0, 0, 1, 0, 1],
            "y_prob": [0.2, 0.1, 0.7, 0.4, 0.9],
        }
    )
    exam = pd.Series({"a": "x", "b": "x", "c": "y", "d": "z", "e": None})
    pooled = pool_exams(images, exam)
    assert pooled["path"].tolist() == ["a", "c", "d"]  # e belongs to no known exam
    assert pooled["group"].tolist() == ["p1", "p1", "p2"]
    assert pooled["images"].tolist() == [2, 1, 1]
    assert pooled["y_true"].tolist() == [1, 0, 0]  # positive as one image is
    assert pooled["y_prob"].to_numpy() == pytest.approx([0.4, 0.4, 0.2])
    assert pool_exams(images, exam, "max")["y_prob"].to_numpy() == pytest.approx([0.7, 0.4, 0.2])
    # log-odds of 0.1 and 0.7 are -ln 9 and ln 7/3; by their softmax the second image weighs 21 of 22
    heeded = pool_exams(images, exam, "attention", Attention(by_score=1.0))["y_prob"]
    assert heeded.to_numpy() == pytest.approx([(0.1 + 21 * 0.7) / 22, 0.4, 0.2])
    assert pool_exams(images, exam, "attention").equals(pooled)  # nothing was kept: the mean


def test_several_classes_are_pooled_and_the_last_in_order_is_the_exams():
    images = pd.DataFrame(
        {
            "path": ["a", "b", "c"],
            "group": "p",
            "class_true": ["none", "simple", "comminuted"],
            "p_none": [0.6, 0.2, 0.1],
            "p_simple": [0.3, 0.6, 0.1],
            "p_comminuted": [0.1, 0.2, 0.8],
        }
    )
    names = ["p_none", "p_simple", "p_comminuted"]
    exam = pd.Series({"a": "x", "b": "x", "c": "y"})
    pooled = pool_exams(images, exam, scores=names, truth="class_true")
    assert pooled["class_true"].tolist() == ["simple", "comminuted"]
    assert pooled[names].to_numpy() == pytest.approx(np.array([[0.4, 0.45, 0.15], [0.1, 0.1, 0.8]]))
    largest = pool_exams(images, exam, "max", scores=names, truth="class_true")[names].to_numpy()
    assert largest[0] == pytest.approx(np.array([0.6, 0.6, 0.2]) / 1.4)
    attention, evidence = fit_attention(images, exam, seed=0, scores=names, truth="class_true")
    assert attention == Attention()
    assert "too few" in evidence["sentence"]


images_of_exams = st.lists(
    st.tuples(st.integers(0, 5), st.integers(0, 1), st.floats(0, 1)), min_size=1, max_size=25
)
weights = st.floats(-5, 5)


@given(images_of_exams, st.sampled_from(["mean", "max", "attention"]), weights, weights, st.randoms())
def test_pooling_does_not_depend_on_the_order_and_stays_between_the_images(rows, how, first, second, random):
    table = pd.DataFrame(
        [(f"{i:02d}", f"p{exam}", y, p) for i, (exam, y, p) in enumerate(rows)],
        columns=["path", "group", "y_true", "y_prob"],
    )
    exam = pd.Series([f"e{row[0]}" for row in rows], index=table["path"])
    attention = Attention(first, second)
    pooled = pool_exams(table, exam, how, attention)
    order = list(range(len(rows)))
    random.shuffle(order)
    again = pool_exams(table.iloc[order], exam.iloc[order[::-1]], how, attention)
    pd.testing.assert_frame_equal(pooled, again)
    bounds = table.groupby(table["path"].map(exam))["y_prob"].agg(["min", "max"])
    bounds = bounds.loc[pooled["path"].map(exam)]
    assert (pooled["y_prob"].to_numpy() >= bounds["min"].to_numpy() - 1e-9).all()
    assert (pooled["y_prob"].to_numpy() <= bounds["max"].to_numpy() + 1e-9).all()


@given(images_of_exams, st.sampled_from(["mean", "max", "attention"]), weights)
def test_exams_of_one_image_are_the_images(rows, how, weight):
    table = pd.DataFrame(
        [(f"{i:02d}", f"p{group}", y, p) for i, (group, y, p) in enumerate(rows)],
        columns=["path", "group", "y_true", "y_prob"],
    )
    pooled = pool_exams(table, pd.Series(table["path"].to_numpy(), table["path"]), how, Attention(weight))
    pd.testing.assert_frame_equal(pooled[table.columns], table)
    assert pooled["images"].eq(1).all()


def test_attention_is_learned_where_one_view_shows_the_fracture():
    validation, manifest = simulate(300, 5, visible_in="one")
    test, of_test = simulate(1500, 6, visible_in="one")
    attention, evidence = fit_attention(validation, manifest.set_index("path")["exam"], seed=1)
    assert evidence["kept"]
    assert evidence["gain"]["ci_low"] > 0
    assert attention.by_score > 0.5
    assert (attention, evidence) == fit_attention(validation, manifest.set_index("path")["exam"], seed=1)
    exam = of_test.set_index("path")["exam"]
    auroc = {}
    for how in ("mean", "max", "attention"):
        pooled = pool_exams(test, exam, how, attention)
        auroc[how] = compute_metrics(pooled["y_true"], pooled["y_prob"], 0.5)["auroc"]["value"]
    assert auroc["attention"] > auroc["mean"] + 0.02
    assert auroc["attention"] > auroc["max"] - 0.005


@pytest.mark.parametrize(("exams", "words"), [(12, "too few"), (80, "no gain beyond chance")])
def test_attention_falls_back_to_the_mean(exams, words):
    validation, manifest = simulate(exams, 8, effect=0.0)
    attention, evidence = fit_attention(validation, manifest.set_index("path")["exam"], seed=1)
    assert attention == Attention()
    assert not evidence["kept"]
    assert words in evidence["sentence"]


def test_kappa_is_that_of_a_hand_computed_table():
    """20, 10, 5 and 15 exams: observed agreement 0.7, by chance 0.5, kappa 0.4."""
    cells = [(1, 0.9, 20), (1, 0.1, 10), (0, 0.8, 5), (0, 0.2, 15)]
    exams = pd.DataFrame(
        [(y, p) for y, p, count in cells for _ in range(count)], columns=["y_true", "y_mean"]
    )
    exams["group"] = [f"p{i}" for i in range(len(exams))]
    exams["y_pred"] = 1
    exams["body_part"] = "wrist"
    kappa = score_kappa(exams)
    assert kappa["body_part"].tolist() == ["wrist", "overall"]
    assert kappa["kappa_mean"].to_numpy() == pytest.approx([0.4, 0.4])
    assert kappa["n"].tolist() == [50, 50]
    low, high = kappa.loc[1, ["kappa_mean_low", "kappa_mean_high"]]
    # its standard error by Cohen (1960) is 0.13; the interval is near 0.4 +- 1.96 of it
    assert (low, high) == pytest.approx((0.4 - 1.96 * 0.13, 0.4 + 1.96 * 0.13), abs=0.04)
    assert kappa.loc[1, "kappa"] == 0
    assert np.isnan(kappa.loc[1, "kappa_low"])  # all called fractured: no interval of width 0
    table = kappa_table(kappa, 0.25)
    assert table.iloc[1, 3].startswith("0.400 (0.")
    assert "all calls are the same" in table.iloc[1, 4]


def test_kappas_interval_counts_the_exams_of_a_patient_together():
    rng = np.random.default_rng(0)
    y, called = rng.integers(0, 2, 60), rng.integers(0, 2, 60)
    exams = pd.DataFrame({"y_true": y, "y_mean": called * 1.0, "y_pred": called, "body_part": None})
    alone = score_kappa(exams.assign(group=np.arange(60).astype(str))).iloc[-1]
    copies = pd.concat([exams.assign(group=np.arange(60).astype(str))] * 4)
    grouped = score_kappa(copies).iloc[-1]
    assert grouped["kappa"] == pytest.approx(alone["kappa"])
    assert grouped["kappa_high"] == pytest.approx(alone["kappa_high"], abs=0.02)


def test_exams_of_single_images_have_the_scores_of_images(parts):
    tables, _ = parts
    paths = pd.concat([table["path"] for table in tables.values()])
    found = evaluate_exams(tables, pd.DataFrame({"path": paths, "exam": paths}), CHOSEN, seed=0)
    threshold = found.scores["threshold"]
    images = evaluate(tables["test"], tables["validation"], CHOSEN | {"threshold": threshold})
    for name in METRICS:
        assert found.scores[name] == images[name]
        assert found.scores["validation"][name] == images["validation"][name]


@pytest.mark.parametrize("how", ["mean", "max", "attention"])
def test_a_model_is_evaluated_by_exam(parts, how):
    tables, manifest = parts
    found = evaluate_exams(tables, manifest, CHOSEN, how, seed=3)
    scores, exams = found.scores, found.predictions
    assert (scores["exams"], scores["n"], len(exams)) == (80, 80, 80)
    assert scores["images"] == len(tables["test"])
    assert scores["n_groups"] == 40
    assert scores["auroc"] == compute_metrics(exams["y_true"], exams["y_prob"], 0.5, exams["group"])["auroc"]
    assert exams["y_pred"].equals((exams["y_prob"] >= scores["threshold"]).astype(int))
    assert found.kappa["body_part"].tolist() == ["elbow", "wrist", "overall"]
    assert found.kappa["n"].tolist() == [40, 40, 80]
    assert scores["kappa_mean"]["value"] == found.kappa["kappa_mean"].iloc[-1]
    shown = show_exams("VGG16", found, evaluate(tables["test"], tables["validation"], CHOSEN))
    assert "fracture" in " ".join(text for text in shown if isinstance(text, str)).lower()
    assert len(shown) == 5


def test_test_informs_neither_threshold_nor_attention(parts):
    tables, manifest = parts
    other = tables["test"].assign(y_prob=1 - tables["test"]["y_prob"], y_true=1 - tables["test"]["y_true"])
    for how in ("max", "attention"):
        before, after = (
            evaluate_exams(tables | {"test": test}, manifest, CHOSEN, how, seed=3).scores
            for test in (tables["test"], other)
        )
        assert before["auroc"]["value"] != after["auroc"]["value"] or how == "attention"
        for name in ("threshold", "threshold_rule", "pooling", "validation"):
            assert before[name] == after[name]


def test_the_studys_rule_chooses_the_threshold_on_validation_exams(parts):
    tables, manifest = parts
    fixed = evaluate_exams(tables, manifest, CHOSEN | {"rule": "fixed"}, "max", seed=0).scores
    assert (fixed["threshold"], fixed["threshold_rule"]) == (0.5, "fixed")
    sensitive = evaluate_exams(tables, manifest, CHOSEN | {"rule": "sensitivity"}, "max", seed=0).scores
    assert sensitive["validation"]["recall"]["value"] >= 0.95
    assert sensitive["threshold_rule"].startswith("sensitivity of 0.95 on")


def test_without_exams_there_is_one_sentence(parts):
    tables, manifest = parts
    images = evaluate(tables["test"], tables["validation"], CHOSEN)
    for unknown in (manifest.drop(columns="exam"), manifest.assign(exam=pd.NA)):  # the first: earlier studies
        found = evaluate_exams(tables, unknown, CHOSEN, seed=0)
        assert found.scores == {"exams": 0, "reason": NO_EXAMS}
        assert found.predictions.empty
        assert show_exams("VGG16", found, images) == [NO_EXAMS]
    positive = tables["test"].loc[tables["test"]["y_true"] == 1, "path"]
    few = manifest.assign(exam=manifest["exam"].where(manifest["path"].isin(positive)))
    found = evaluate_exams(tables, few, CHOSEN, seed=0)
    assert "known exams of test are not of both classes" in found.scores["reason"]


def test_models_are_compared_by_exam(parts, tmp_path):
    tables, manifest = parts
    rng = np.random.default_rng(4)
    predictions = {}
    for model in ("VGG16", "ResNet50"):
        noisy = {
            name: t.assign(y_prob=0.6 * t["y_prob"] + 0.4 * rng.random(len(t))) for name, t in tables.items()
        }
        found = evaluate_exams(noisy, manifest, CHOSEN, seed=0)
        write_json(tmp_path / model / "metrics_exams.json", found.scores)
        write_csv(tmp_path / model / "predictions_exams.csv", found.predictions)
        images = evaluate(noisy["test"], noisy["validation"], CHOSEN)
        write_json(tmp_path / model / "metrics.json", images)
        predictions[model] = found.predictions
    table, pairs = compare_exams(tmp_path, [*predictions])
    assert table["level"].tolist() == ["exams", "images"] * 2
    assert table["n"].tolist() == [80, len(tables["test"])] * 2
    stored = read_json(tmp_path / "VGG16" / "metrics_exams.json")
    assert table.loc[0, "auroc"] == stored["auroc"]["value"]
    assert table.loc[0, "kappa_mean"] == stored["kappa_mean"]["value"]
    pd.testing.assert_frame_equal(pairs, compare_pairs(predictions))
    shown = show_compared_exams(table, pairs, "VGG16")
    assert shown[1]["by"].tolist() == ["exam", "image"] * 2
    assert "the AUROC of VGG16" in shown[-1]
    assert describe_exams_of(tmp_path, "VGG16").startswith("By exam, on 80 test exams in 40 groups")
    write_csv(tmp_path / "exams.csv", table)
    assert read_csv(tmp_path / "exams.csv")["kappa_mean"].isna().sum() == 2


def test_models_of_a_study_without_exams_are_not_compared(tmp_path):
    write_json(tmp_path / "VGG16" / "metrics_exams.json", {"exams": 0, "reason": NO_EXAMS})
    table, pairs = compare_exams(tmp_path, ["VGG16", "evaluated-before-there-were-exams"])
    assert table.empty
    assert pairs.empty
    assert show_compared_exams(table, pairs, "VGG16") == [NO_EXAMS]
    assert describe_exams_of(tmp_path, "VGG16") == ""
