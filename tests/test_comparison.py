import numpy as np
import pandas as pd
import pytest

from xray_helpers.comparison import compare_models, conclude, evaluated_models
from xray_helpers.metrics import judge
from xray_helpers.settings import InputError
from xray_helpers.studies import write_csv, write_json


def write_model(study, name, strength, *, seed=0, paths=None):
    rng = np.random.default_rng(seed)
    y = np.arange(80) % 2
    p = 1 / (1 + np.exp(-(strength * (y - 0.5) + rng.normal(0, 1, 80))))
    table = pd.DataFrame({"path": paths or [f"{i}.png" for i in range(80)], "group": [f"g{i // 2}" for i in range(80)],
                          "y_true": y, "y_prob": p, "y_pred": (p >= 0.5).astype(int)})  # fmt: skip
    write_csv(study / name / "predictions_test.csv", table)
    write_json(
        study / name / "metrics.json",
        judge(table, table, {"threshold": 0.5, "rule": "fixed", "target_sensitivity": 0.95}),
    )


def test_ranked_by_auroc_with_intervals(tmp_path):
    write_model(tmp_path, "VGG16", 0.0, seed=1)
    write_model(tmp_path, "ResNet50", 6.0, seed=2)
    models = evaluated_models(tmp_path, ("VGG16", "MobileNetV2", "ResNet50"))
    assert models == ["VGG16", "ResNet50"]
    table = compare_models(tmp_path, models)
    assert table["model"].tolist() == ["ResNet50", "VGG16"]
    assert table["rank"].tolist() == [1, 2]
    assert (table["auroc_low"] <= table["auroc"]).all()
    assert (table["auroc"] <= table["auroc_high"]).all()
    text = conclude(table, 0.5)
    assert text.startswith("ResNet50 ranks first with AUROC")
    assert "No other model's interval overlaps" in text


def test_conclusion_tells_chance_and_ties(tmp_path):
    write_model(tmp_path, "VGG16", 0.0, seed=1)
    assert "no model is told from chance" in conclude(compare_models(tmp_path, ["VGG16"]), 0.5)
    write_model(tmp_path, "VGG16", 2.0, seed=1)
    write_model(tmp_path, "ResNet50", 2.1, seed=1)
    assert "order is not settled" in conclude(compare_models(tmp_path, ["VGG16", "ResNet50"]), 0.5)


def test_other_images_are_refused(tmp_path):
    write_model(tmp_path, "VGG16", 1.0)
    write_model(tmp_path, "ResNet50", 1.0, paths=[f"other{i}.png" for i in range(80)])
    with pytest.raises(InputError, match="other test images"):
        compare_models(tmp_path, ["VGG16", "ResNet50"])


def test_nothing_evaluated(tmp_path):
    with pytest.raises(InputError, match="No model"):
        evaluated_models(tmp_path, ("VGG16",))
