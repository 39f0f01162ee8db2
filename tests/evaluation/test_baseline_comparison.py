"""A model beside a simple baseline: better, not better, or not known."""

import numpy as np
import pandas as pd
import pytest

from xray_helpers.evaluation.comparison import describe_baseline


def predictions(strength, images=120, seed=0):
    rng = np.random.default_rng(seed)
    y_true = np.arange(images) % 2
    y_prob = 1 / (1 + np.exp(-strength * (y_true - 0.5) - rng.normal(0, 1, images)))
    names = [f"{i}.png" for i in range(images)]
    table = pd.DataFrame({"path": names, "group": names, "y_true": y_true, "y_prob": y_prob})
    return table.assign(y_pred=(y_prob >= 0.5).astype(int))


@pytest.mark.parametrize(
    ("strength", "images", "verdict"),
    [
        (3.0, 120, "A is better than logistic regression"),
        (-2.0, 120, "A is worse than"),
        (0.0, 60, "is not known: AUROC"),
    ],
)
def test_the_verdict_has_its_interval(strength, images, verdict):
    text = describe_baseline("A", predictions(strength, images), predictions(0.0, images, seed=1))
    assert verdict in text
    assert "AUROC" in text
    assert " to " in text


def test_equal_predictions_rule_a_gain_out():
    one = predictions(1.0)
    assert "is not better than" in describe_baseline("A", one, one.assign(y_prob=one["y_prob"] ** 2))


def test_too_few_groups_are_not_tested():
    one = predictions(1.0, 6)
    assert "was not tested" in describe_baseline("A", one, predictions(0.0, 6, seed=1))
