import inspect

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
    found = predict_baseline(parts, root, settings)
    assert list(found) == ["validation", "test"]
    for split, table in found.items():
        assert list(table) == ["path", "group", "y_true", "y_prob", "y_pred"]
        assert table["path"].tolist() == parts[split]["path"].tolist()
        assert ((table["y_prob"] > 0.5) == table["y_true"]).mean() > 0.9
        assert table["y_prob"].between(0, 1).all()
    threshold = found["test"].loc[found["test"]["y_pred"] == 1, "y_prob"].min()
    assert (found["test"]["y_pred"] == (found["test"]["y_prob"] >= threshold)).all()
    assert len(inspect.getsource(predict_baseline).splitlines()) < 40


def test_labels_of_validation_and_test_do_not_reach_its_probabilities(parts, root):
    settings = build_settings(img_size=(40, 48))
    first = predict_baseline(parts, root, settings)
    flipped = {
        split: part if split == "train" else part.assign(y_true=1 - part["y_true"])
        for split, part in parts.items()
    }
    other = predict_baseline(flipped, root, settings)
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
    means = [predict_baseline(few, root, chosen)["test"]["y_prob"].mean() for chosen in (settings, balanced)]
    assert means[1] > means[0] + 0.1
