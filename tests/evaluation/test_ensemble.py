import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from xray_helpers.evaluation.ensemble import build_ensembles, compare_ensemble, describe_ensembles
from xray_helpers.study.files import write_csv


def write(study, name, strength, seed):
    for part in ("val", "test"):
        rng = np.random.default_rng([seed, len(part)])
        y = np.arange(120) % 2
        p = 1 / (1 + np.exp(-(strength * (y - 0.5) + rng.normal(0, 1, 120))))
        table = pd.DataFrame(
            {
                "path": [f"{i}.png" for i in range(120)],
                "group": [str(i // 2) for i in range(120)],
                "y_true": y,
                "y_prob": p,
                "y_pred": (p >= 0.5).astype(int),
            }
        )
        write_csv(study / name / f"predictions_{part}.csv", table)


def test_models_with_independent_errors_are_better_together(tmp_path):
    for seed, name in enumerate(("A", "B", "C")):
        write(tmp_path, name, 1.2, seed)
    write(tmp_path, "Noise", 0.0, 9)
    predictions, scores = build_ensembles(
        tmp_path, ["A", "B", "C", "Noise"], {"rule": "sensitivity", "target_sensitivity": 0.9}
    )
    alone = pd.read_csv(tmp_path / "A" / "predictions_test.csv")
    best = roc_auc_score(alone["y_true"], alone["y_prob"])
    assert scores["Ensemble (mean)"]["auroc"]["value"] > best
    assert scores["Ensemble (stacked)"]["auroc"]["value"] > best
    validation = scores["Ensemble (stacked)"]["validation"]
    assert validation["recall"]["value"] >= 0.9
    tables = [pd.read_csv(tmp_path / name / "predictions_test.csv") for name in ("A", "B", "C", "Noise")]
    mean = np.mean([table["y_prob"] for table in tables], axis=0)
    assert predictions["Ensemble (mean)"]["y_prob"].to_numpy() == pytest.approx(mean)
    assert list(predictions["Ensemble (mean)"].columns) == ["path", "group", "y_true", "y_prob", "y_pred"]
    assert describe_ensembles(scores, "A", best).endswith("whether combining them helps was not tested.")
    tested = compare_ensemble(predictions, "A", alone)
    assert tested["difference"].iloc[0] == pytest.approx(scores["Ensemble (mean)"]["auroc"]["value"] - best)
    assert "combining them helps" in describe_ensembles(scores, "A", best, tested.assign(p=0.01))
    small = tested.assign(p=0.5, ci_low=-0.004, ci_high=0.006)
    assert "gains nothing that is worth" in describe_ensembles(scores, "A", best, small)
    assert "is not shown to help" in describe_ensembles(scores, "A", best, small.assign(ci_high=0.1))
    assert compare_ensemble({}, "A", alone).empty
    assert build_ensembles(tmp_path, ["A"], {"rule": "youden", "target_sensitivity": 0.95}) == ({}, {})
    assert describe_ensembles({}, "A", best) == ""


def test_the_stack_learns_nothing_from_test(tmp_path):
    for seed, name in enumerate(("A", "B")):
        write(tmp_path, name, 1.2, seed)
    _, scores = build_ensembles(tmp_path, ["A", "B"], {"rule": "youden", "target_sensitivity": 0.95})
    for name in ("A", "B"):
        path = tmp_path / name / "predictions_test.csv"
        table = pd.read_csv(path)
        write_csv(path, table.assign(y_true=1 - table["y_true"]))
    _, flipped = build_ensembles(tmp_path, ["A", "B"], {"rule": "youden", "target_sensitivity": 0.95})
    for name in scores:
        assert flipped[name]["threshold"] == scores[name]["threshold"]
        assert flipped[name]["auroc"]["value"] == pytest.approx(1 - scores[name]["auroc"]["value"])


def test_the_threshold_is_chosen_on_the_predictions_that_the_models_used(tmp_path):
    chosen = {
        "rule": "sensitivity",
        "target_sensitivity": 0.9,
        "chosen_on": "train and validation, out of fold",
        "sensitivity": {"value": 0.123, "ci_low": 0.1, "ci_high": 0.2},
    }
    for seed, name in enumerate(("A", "B")):
        write(tmp_path, name, 1.2, seed)
        base = pd.read_csv(tmp_path / name / "predictions_val.csv")
        more = base.assign(
            path="t" + base["path"], group="t" + base["group"].astype(str), y_prob=base["y_prob"] / 2
        )
        write_csv(
            tmp_path / name / "predictions_threshold.csv",
            pd.concat([base.assign(y_prob=base["y_prob"] / 2), more]),
        )
    _, scores = build_ensembles(tmp_path, ["A", "B"], chosen)
    for entry in scores.values():
        assert "train and validation, out of fold" in entry["threshold_rule"]
        assert "0.12" not in entry["threshold_rule"]
    assert scores["Ensemble (mean)"]["threshold"] < 0.25  # of probabilities that were halved
    (tmp_path / "B" / "predictions_threshold.csv").unlink()  # as with a fine-tuned model
    write_csv(
        tmp_path / "B" / "predictions_threshold.csv", pd.read_csv(tmp_path / "B" / "predictions_val.csv")
    )
    _, scores = build_ensembles(tmp_path, ["A", "B"], chosen)
    assert scores["Ensemble (mean)"]["threshold_rule"].startswith("sensitivity of 0.9 on validation")
