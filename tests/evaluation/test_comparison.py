import numpy as np
import pandas as pd
import pytest

from xray_helpers.data.parts import manifest_key
from xray_helpers.evaluation.comparison import (
    choose_primary,
    compare_models,
    describe_comparison,
    evaluated_models,
)
from xray_helpers.evaluation.metrics import evaluate
from xray_helpers.evaluation.paired import compare_accuracies, compare_pairs, describe_pairs, pairs_table
from xray_helpers.models.localizer_study import choose_localized
from xray_helpers.plots.intervals import plot_ranking
from xray_helpers.plots.scores import plot_cost, plot_evaluation_grid
from xray_helpers.reports.text import headline_table
from xray_helpers.settings import InputError, Settings
from xray_helpers.study.files import read_csv, read_json, write_csv, write_json

MANIFEST = pd.DataFrame(
    {"path": ["a.png"], "sha256": "0", "label": "Fractured", "group": "g", "split": "test", "status": "used"}
)


def write_model(study, name, strength, *, seed=0, paths=None):
    rng = np.random.default_rng(seed)
    y = np.arange(80) % 2
    p = 1 / (1 + np.exp(-(strength * (y - 0.5) + rng.normal(0, 1, 80))))
    table = pd.DataFrame(
        {
            "path": paths or [f"{i}.png" for i in range(80)],
            "group": [f"g{i // 2}" for i in range(80)],
            "y_true": y,
            "y_prob": p,
            "y_pred": (p >= 0.5).astype(int),
        }
    )
    write_csv(study / name / "predictions_test.csv", table)
    write_json(
        study / name / "metrics.json",
        evaluate(table, table, {"threshold": 0.5, "rule": "fixed", "target_sensitivity": 0.95})
        | {"manifest": manifest_key(MANIFEST)},
    )


def test_a_head_is_taught_by_all_models_or_by_the_primary_one(tmp_path):
    models = ("VGG16", "ResNet50")
    for seed, (model, strength) in enumerate(zip(models, (0.0, 6.0), strict=True), 1):
        write_model(tmp_path, model, strength, seed=seed)
    for localizer, named, chosen in (
        ("head", "validation", list(models)),
        ("primary", "validation", ["ResNet50"]),
        ("primary", "VGG16", ["VGG16"]),
    ):
        settings = Settings(models=models, localizer=localizer, primary_model=named)
        assert choose_localized(tmp_path, settings, MANIFEST) == chosen


def test_ranked_by_auroc_with_intervals(tmp_path):
    write_model(tmp_path, "VGG16", 0.0, seed=1)
    write_model(tmp_path, "ResNet50", 6.0, seed=2)
    models = evaluated_models(tmp_path, ("VGG16", "MobileNetV2", "ResNet50"), MANIFEST)
    assert models == ["VGG16", "ResNet50"]
    table = compare_models(tmp_path, models)
    assert table["model"].tolist() == ["ResNet50", "VGG16"]
    assert table["rank"].tolist() == [1, 2]
    assert (table["auroc_low"] <= table["auroc"]).all()
    assert (table["auroc"] <= table["auroc_high"]).all()
    text = describe_comparison(table, 0.5, read_pairs(tmp_path, models))
    assert text.startswith("ResNet50, chosen on validation, has AUROC")
    assert text.endswith("the AUROC of ResNet50 differs from that of VGG16.")


def test_chance_and_ties_are_described(tmp_path):
    write_model(tmp_path, "VGG16", 0.0, seed=1)
    chance = describe_comparison(compare_models(tmp_path, ["VGG16"]), 0.5)
    assert chance.endswith(
        "The interval of AUROC includes 0.5: these images do not show that it is better than chance."
    )
    write_model(tmp_path, "VGG16", 2.0, seed=1)
    write_model(tmp_path, "ResNet50", 2.1, seed=3)
    models = ["VGG16", "ResNet50"]
    text = describe_comparison(compare_models(tmp_path, models), 0.5, read_pairs(tmp_path, models))
    assert "is not shown to differ from that of any other model" in text


def read_pairs(study, models):
    return compare_pairs({name: read_csv(study / name / "predictions_test.csv") for name in models})


def test_other_images_are_refused(tmp_path):
    write_model(tmp_path, "VGG16", 1.0)
    write_model(tmp_path, "ResNet50", 1.0, paths=[f"other{i}.png" for i in range(80)])
    with pytest.raises(InputError, match="other test images"):
        compare_models(tmp_path, ["VGG16", "ResNet50"])


def test_nothing_evaluated(tmp_path):
    with pytest.raises(InputError, match="No model"):
        evaluated_models(tmp_path, ("VGG16",), MANIFEST)


def test_models_of_another_manifest_are_refused(tmp_path):
    write_model(tmp_path, "VGG16", 1.0)
    with pytest.raises(InputError, match="run 02 and 03 again for VGG16"):
        evaluated_models(tmp_path, ("VGG16",), MANIFEST.assign(split="train"))


def test_models_evaluated_on_few_sources_are_compared_without_intervals(tmp_path):
    """With a handful of patients no interval is invented, and tables, sentences and figures still work."""
    rng, y = np.random.default_rng(0), np.repeat([0, 1], 30)
    group = np.r_[np.zeros(30), 1 + np.arange(30) // 6]  # one source of one class
    predictions = {}
    for model, skill in (("VGG16", 0.4), ("ResNet50", 0.2)):
        p = np.clip(skill * y + rng.uniform(0, 0.6, 60), 0, 1)
        table = pd.DataFrame(
            {
                "path": [f"{i}.png" for i in range(60)],
                "group": group,
                "y_true": y,
                "y_prob": p,
                "y_pred": (p >= 0.5).astype(int),
            }
        )
        predictions[model] = table
        scores = evaluate(table, table, {"threshold": 0.5, "rule": "fixed", "target_sensitivity": 0.95})
        write_json(tmp_path / model / "metrics.json", scores)
        write_csv(tmp_path / model / "predictions_test.csv", table)
    table = compare_models(tmp_path, ["VGG16", "ResNet50"])
    assert table["auroc_low"].isna().all()
    text = describe_comparison(table, 0.5)
    assert "(no interval: not enough independent sources)" in text
    assert "too few sources or patients to conclude anything" in text
    assert "(" not in headline_table(table)[0]["AUROC"]
    pairs = compare_pairs(predictions)
    assert pairs[["ci_low", "p_holm", "delong_p_holm", "decisions_p_holm"]].isna().all(axis=None)
    assert compare_accuracies(predictions) is None
    assert describe_pairs(pairs, "VGG16").startswith("Nothing was tested: a class has fewer than 8 sources")
    shown = pairs_table(pairs).iloc[0]
    assert shown["p, groups"] == shown["p, DeLong"] == shown["p, decisions"] == "not tested"
    assert "(" not in shown["AUROC difference"]
    plot_ranking(table, pairs)
    costs = pd.DataFrame({"model": ["VGG16", "ResNet50"], "latency_ms": [9.0, 5.0], "parameters": [1e7, 2e7]})
    plot_cost(table, costs)
    plot_evaluation_grid(table)


def test_the_primary_model_is_chosen_on_validation_whatever_its_rank_on_test(tmp_path):
    write_model(tmp_path, "VGG16", 3.0, seed=1)
    write_model(tmp_path, "ResNet50", 1.0, seed=2)
    scores = {name: read_json(tmp_path / name / "metrics.json") for name in ("VGG16", "ResNet50")}
    validation = [scores[name]["validation"] for name in ("ResNet50", "VGG16")]  # swapped
    for (name, entry), other in zip(scores.items(), validation, strict=True):
        write_json(tmp_path / name / "metrics.json", entry | {"validation": other})
    table = compare_models(tmp_path, ["VGG16", "ResNet50"])
    assert table["model"].iloc[0] == "VGG16"  # of the ranking by test
    assert choose_primary(table) == "ResNet50"
    assert describe_comparison(table, 0.5).startswith("ResNet50, chosen on validation, has AUROC")
    named = describe_comparison(table, 0.5, primary="recall", model="VGG16")
    assert named.startswith("VGG16, chosen in advance, has Recall (sensitivity)")
    assert "AUROC" in named
    assert choose_primary(table, "MobileNetV2") == "ResNet50"  # it was not evaluated


def test_intervals_that_overlap_do_not_contradict_a_paired_test(tmp_path):
    """Two models whose scores nearly agree: their intervals overlap by far, and yet one is better."""
    rng, y = np.random.default_rng(0), np.arange(300) % 2
    own = 1.5 * y + rng.normal(0, 1, 300)
    for name, shift in (("VGG16", 0.0), ("ResNet50", 0.35)):
        p = 1 / (1 + np.exp(-(own + shift * y + rng.normal(0, 0.02, 300))))
        rows = pd.DataFrame(
            {
                "path": [f"{i}.png" for i in range(300)],
                "group": np.arange(300),
                "y_true": y,
                "y_prob": p,
                "y_pred": (p >= 0.5).astype(int),
            }
        )
        write_csv(tmp_path / name / "predictions_test.csv", rows)
        rule = {"threshold": 0.5, "rule": "fixed", "target_sensitivity": 0.95}
        write_json(tmp_path / name / "metrics.json", evaluate(rows, rows, rule))
    table = compare_models(tmp_path, ["VGG16", "ResNet50"])
    assert table["auroc_high"].min() > table["auroc_low"].max()
    text = describe_comparison(table, 0.5, read_pairs(tmp_path, ["VGG16", "ResNet50"]))
    assert "the AUROC of ResNet50 differs from that of VGG16" in text
