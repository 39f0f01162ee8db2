import numpy as np
import pandas as pd
import pytest

from xray_helpers.evaluation.operating_point import (
    OUT_OF_FOLD,
    choose_operating_point,
    count_scarcer,
    describe_choice,
)
from xray_helpers.evaluation.thresholds import choose_threshold, describe_rule, threshold_band
from xray_helpers.models.resampling import predict_out_of_fold
from xray_helpers.settings import build_settings


def predictions(n, seed=0, name="v", per_group=1):
    rng = np.random.default_rng(seed)
    y = np.arange(n) // per_group % 2
    p = 1 / (1 + np.exp(-(2 * (y - 0.5) + rng.normal(0, 1, n))))
    return pd.DataFrame(
        {
            "path": [f"{name}{i}" for i in range(n)],
            "group": [f"{name}{i // per_group}" for i in range(n)],
            "y_true": y,
            "y_prob": p,
        }
    )


def test_a_small_validation_part_does_not_choose_alone():
    small, aside, settings = predictions(28), predictions(160, 1, "a"), build_settings()
    chosen, basis = choose_operating_point(small, aside, settings)
    assert chosen["chosen_on"] == OUT_OF_FOLD
    assert (chosen["sources"], chosen["validation_sources"]) == (80, 14)
    assert describe_rule(chosen) == f"Youden's J on {OUT_OF_FOLD}"
    assert "14 independent sources of its less frequent class, fewer than 30" in describe_choice(chosen)
    assert basis["path"].tolist() == aside["path"].tolist()
    assert chosen["uncertain"][0] <= chosen["threshold"] <= chosen["uncertain"][1]
    assert (basis["y_pred"] == (aside["y_prob"] >= chosen["threshold"])).all()
    alone, _ = choose_operating_point(small, aside.iloc[:0], settings)  # as for a fine-tuned model
    assert describe_rule(alone) == "Youden's J on validation"
    assert "is uncertain" in describe_choice(alone)


def test_a_large_validation_part_chooses_alone_and_fixed_is_fixed():
    large, settings = predictions(80), build_settings(threshold_rule="sensitivity", target_sensitivity=0.9)
    chosen, _ = choose_operating_point(large, large.iloc[:0], settings)
    assert describe_rule(chosen).startswith("sensitivity of 0.9 on validation")
    assert describe_choice(chosen) == "It was chosen on validation."
    assert chosen["sensitivity"]["value"] >= 0.9
    assert chosen["uncertain"][0] <= chosen["threshold"] <= chosen["uncertain"][1]
    fixed, _ = choose_operating_point(predictions(10), large.iloc[:0], build_settings(threshold_rule="fixed"))
    assert (fixed["threshold"], describe_choice(fixed)) == (0.5, "It is fixed: nothing was chosen.")
    of_older_study = {"rule": "youden", "threshold": 0.4}
    assert describe_choice(of_older_study) == "It was chosen on validation."


def test_images_of_one_patient_are_one_source():
    assert count_scarcer(predictions(120, per_group=4)) == 15


def test_the_threshold_varies_less_with_more_sources():
    """Thresholds from 28 validation images vary more than those from 160 images out of fold."""
    settings, spread = build_settings(), []
    for seed in range(40):
        small, aside = predictions(28, seed), predictions(160, seed + 100, "a")
        chosen = [choose_operating_point(small, part, settings)[0] for part in (aside.iloc[:0], aside)]
        spread.append([point["threshold"] for point in chosen])
    alone, both = np.std(spread, axis=0)
    assert both < 0.75 * alone


@pytest.fixture
def study():
    rng, parts, features = np.random.default_rng(0), {}, {}
    for split, n in (("train", 90), ("validation", 30), ("test", 40)):
        y = np.arange(n) % 2
        parts[split] = pd.DataFrame(
            {
                "path": [f"{split}{i}" for i in range(n)],
                "group": [f"{split}{i}" for i in range(n)],
                "y_true": y,
                "fold": np.arange(n) // 2 % 5,
                "counted": True,
            }
        )
        features[split] = [(rng.normal(0, 1, (n, 12)) + 1.2 * y[:, None]).astype("float32")]
    features["train"] *= 2  # an augmented view that validation does not have
    return features, parts


@pytest.mark.slow
def test_out_of_fold_predictions_do_not_use_test(study):
    features, parts = study
    settings, schedule = build_settings(epochs=4), [0.001, 0.001, 0.0005]
    found = predict_out_of_fold(features, parts, settings, schedule)
    assert found["path"].tolist() == [*parts["train"]["path"], *parts["validation"]["path"]]
    other = features | {"test": [np.full_like(features["test"][0], np.nan)]}
    flipped = parts | {"test": parts["test"].assign(y_true=1 - parts["test"]["y_true"], fold=0)}
    pd.testing.assert_frame_equal(found, predict_out_of_fold(other, flipped, settings, schedule))
    only = {name: features[name] for name in ("train", "validation")}
    pd.testing.assert_frame_equal(found, predict_out_of_fold(only, parts, settings, schedule))
    assert predict_out_of_fold(features, parts, build_settings(threshold_rule="fixed")).empty


def test_a_large_validation_part_needs_no_folds(study):
    features, parts = study
    many = parts | {"validation": predictions(200).assign(fold=0, counted=True)}
    assert predict_out_of_fold(features, many, build_settings()).empty


def test_the_threshold_band_contains_the_threshold_and_shrinks_with_images():
    rng = np.random.default_rng(0)
    widths = []
    for n in (60, 2000):
        y = rng.integers(0, 2, n)
        p = 1 / (1 + np.exp(-rng.normal(3 * y - 1.5, 1.5)))
        table = pd.DataFrame({"y_true": y, "y_prob": p, "group": range(n)})
        low, high = threshold_band(table, "youden")
        assert low <= choose_threshold(y, p, "youden") <= high
        widths.append(high - low)
    assert widths[1] < widths[0]
    assert threshold_band(table, "fixed") == (0.5, 0.5)  # nothing was chosen, so nothing is uncertain
