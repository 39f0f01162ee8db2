import warnings

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from xray_helpers.models.baseline import predict_baseline
from xray_helpers.settings import build_settings


@pytest.fixture
def parts(root):
    """Pictures with a bright spot where Fractured; two of each group, in five folds."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 200, (160, 48, 40), dtype=np.uint8)
    y = np.arange(160) // 2 % 2
    pixels[y == 1, 10:20, 10:20] += 55
    for number, picture in enumerate(pixels):
        Image.fromarray(picture).save(root / f"{number}.png")
    from xray_helpers.images.radiographs import read_radiograph

    names = [f"{number}.png" for number in range(160)]
    table = pd.DataFrame(
        {
            "path": names,
            "sha256": [read_radiograph(root / name).sha256 for name in names],
            "group": np.arange(160) // 2,
            "y_true": y,
            "fold": np.arange(160) // 2 % 5,
        }
    )
    return {"train": table[:100], "validation": table[100:130], "test": table[130:]}


def test_the_baseline_learns_from_train_and_predicts_the_other_parts(parts, root):
    settings = build_settings(img_size=(40, 48))
    found, chosen = predict_baseline(parts, root, settings)
    assert list(found) == ["validation", "test"]
    for split, table in found.items():
        assert list(table) == ["path", "group", "y_true", "y_prob", "y_pred"]
        assert table["path"].tolist() == parts[split]["path"].tolist()
        assert ((table["y_prob"] > 0.5) == table["y_true"]).mean() > 0.9
        assert table["y_prob"].between(0, 1).all()
    assert (found["test"]["y_pred"] == (found["test"]["y_prob"] >= chosen["threshold"])).all()
    assert (chosen["rule"], chosen["chosen_on"]) == (settings.threshold_rule, "validation")


def test_labels_of_validation_and_test_do_not_reach_its_probabilities(parts, root):
    settings = build_settings(img_size=(40, 48))
    first, _ = predict_baseline(parts, root, settings)
    flipped = {
        split: part if split == "train" else part.assign(y_true=1 - part["y_true"])
        for split, part in parts.items()
    }
    other, _ = predict_baseline(flipped, root, settings)
    for split in first:
        assert first[split]["y_prob"].tolist() == other[split]["y_prob"].tolist()


def test_groups_stay_together_when_c_is_chosen(parts, root, monkeypatch):
    from xray_helpers.models import baseline

    splits = []

    class Recorded(baseline.GridSearchCV):
        def fit(self, x, y):
            splits.extend(self.cv.split())
            return super().fit(x, y)

    monkeypatch.setattr(baseline, "GridSearchCV", Recorded)
    predict_baseline(parts, root, build_settings(img_size=(40, 48)))
    group = parts["train"]["group"].to_numpy()
    assert len(splits) == 5
    assert not any(set(group[fitted]) & set(group[scored]) for fitted, scored in splits)


def test_class_weights_are_those_of_the_settings(parts, root):
    train = parts["train"]
    rare = train[(train["y_true"] == 0) | (train["group"] % 10 == 1)]
    settings = build_settings(img_size=(40, 48))
    balanced = settings.model_copy(update={"class_weight": "balanced"})
    few = parts | {"train": rare.assign(fold=0)}  # one fold: nothing to choose C by
    tables = [predict_baseline(few, root, chosen)[0]["test"] for chosen in (settings, balanced)]
    means = [table["y_prob"].mean() for table in tables]
    assert means[1] > means[0] + 0.1


def test_folds_without_both_classes_choose_nothing(parts, root):
    """Folds that hold one class only, all of them or but one; scikit-learn would warn, or refuse to fit."""
    train = parts["train"]
    for fold in (train["y_true"], np.where(train.index < 40, 2, train["y_true"])):
        uneven = parts | {"train": train.assign(fold=np.asarray(fold))}
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            tables, _ = predict_baseline(uneven, root, build_settings(img_size=(40, 48)))
        assert ((tables["test"]["y_prob"] > 0.5) == tables["test"]["y_true"]).mean() > 0.9
