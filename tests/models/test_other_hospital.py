"""Phantoms of another hospital: what falls, what would help, and how many images it takes."""

from types import SimpleNamespace

import cv2
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from xray_helpers.evaluation import case_mix, recalibration
from xray_helpers.evaluation.elsewhere import test_elsewhere as score_elsewhere
from xray_helpers.evaluation.external import split_loss
from xray_helpers.evaluation.intervals import encode_groups
from xray_helpers.evaluation.thresholds import choose_threshold
from xray_helpers.models.backbones import get_backbone
from xray_helpers.models.external import check_unchanged, join_predictions
from xray_helpers.settings import InputError
from xray_helpers.synthetic.dataset import HOSPITALS, demo_phantoms, write_phantoms

SIDE = 96
HOME_SUMS = [6513319, 6589927, 7827702]  # of grey levels, as before there were other hospitals


def read_set(folder, **options):
    table = pd.read_csv(write_phantoms(folder, planted=0, **options))
    pictures = [
        cv2.resize(np.asarray(Image.open(folder / path)), (SIDE, SIDE), interpolation=cv2.INTER_AREA)
        for path in table["path"]
    ]
    table["y_true"] = (table["label"] == "Fractured").astype(int)
    return table.rename(columns={"patient": "group"}), np.stack(pictures)


@pytest.fixture(scope="module")
def story(shared, tmp_path_factory):
    """A plain classifier on features of phantoms, its own test part, and another hospital's."""
    place = tmp_path_factory.mktemp("story")
    home, own = read_set(place / "home", images=260, seed=1)
    there, others = read_set(place / "b", images=260, seed=2, hospital=HOSPITALS["hospital-b"])
    network = get_backbone("MobileNetV2").build((SIDE, SIDE), str(shared / "weights"))[0]
    x, x_there = (network.predict(part[..., None].astype(np.float32), verbose=0) for part in (own, others))
    train = (encode_groups(home["group"]) % 2 == 0).astype(bool)
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.003, max_iter=1000)).fit(
        x[train], home["y_true"][train]
    )
    home["y_prob"], there["y_prob"] = model.predict_proba(x)[:, 1], model.predict_proba(x_there)[:, 1]
    rule = {"rule": "youden", "target_sensitivity": 0.95}
    rule["threshold"] = choose_threshold(home["y_true"][~train], home["y_prob"][~train], "youden")
    columns = ["path", "group", "y_true", "y_prob"]
    test, there = home.loc[~train, columns].reset_index(drop=True), there[columns].assign(excluded=False)
    return SimpleNamespace(test=test, there=there, rule=rule, features=(x[~train], x_there))


@pytest.mark.slow
def test_the_model_falls_and_the_fall_is_shown(story):
    found = {"M": SimpleNamespace(predictions=story.there)}
    result = score_elsewhere(found, {"M": story.test}, rules={"M": story.rule})
    gap = result.gaps("M").set_index("score").loc["auroc"]
    assert gap["ci_high"] < 0
    loss = split_loss(story.test, story.there, story.rule).set_index("what")
    assert loss.loc["lost", "balanced_accuracy_low"] > 0


@pytest.mark.slow
def test_the_model_sees_that_it_is_elsewhere(story):
    groups = (story.test["group"], story.there["group"])
    apart = case_mix.tell_apart(*zip(story.features, groups, strict=True))
    assert apart["value"] > 0.9


@pytest.mark.slow
def test_recalibration_helps_and_the_curve_rises(story):
    table, _ = recalibration.compare_recalibrations(story.there, 1.0)
    gains = table.set_index("way").loc["its own intercept and slope"]
    assert gains["gain_low"] > 0
    curve = recalibration.draw_local_curve(story.there, story.rule)
    line = curve[curve["way"] == "its own intercept and slope"]
    assert line["gain"].iloc[-1] > 0
    assert "pays on average from" in recalibration.describe_curve(curve, story.rule)


def test_the_preset_is_another_hospital_and_home_stays_as_it_was(tmp_path):
    home = pd.read_csv(write_phantoms(tmp_path / "a", images=6, planted=0, seed=7))
    there = write_phantoms(tmp_path / "b", images=40, planted=0, seed=7, hospital=HOSPITALS["hospital-b"])
    table = pd.read_csv(there)
    assert Image.open(tmp_path / "b" / table["path"][0]).size == (240, 320)
    assert (table["label"] == "Fractured").mean() < 0.45
    assert not set(home["patient"]) & set(table["patient"])
    pixels = [np.asarray(Image.open(tmp_path / "a" / path)) for path in home["path"]]
    assert [int(picture.sum()) for picture in pixels[:3]] == HOME_SUMS
    with pytest.raises(InputError, match=r"no phantoms of 'hospital-x'.*phantoms:hospital-b"):
        demo_phantoms("phantoms:hospital-x")


def test_what_was_recorded_is_compared_with_what_is_given_now():
    recorded = pd.DataFrame({"path": ["a", "b"], "y_prob": [0.2, 0.7]})
    assert "as recorded, within 0.004" in check_unchanged(recorded, recorded.assign(y_prob=[0.204, 0.7]))
    assert "NOT as recorded" in check_unchanged(recorded, recorded.assign(y_prob=[0.4, 0.7]))
    told = check_unchanged(recorded, recorded.assign(y_prob=[0.4, 0.7]), exported=True)
    assert told.startswith("2 of") and told.endswith("by at most 0.2.")
    assert "not on this machine" in check_unchanged(recorded, recorded.head(0))


def test_predictions_of_all_models_make_one_table():
    one = SimpleNamespace(predictions=pd.DataFrame({"path": ["a"], "y_true": [0], "y_prob": [0.5]}))
    table = join_predictions({"A": one, "B": one})
    assert table["model"].tolist() == ["A", "B"]
    assert "y_true" not in join_predictions({"A": one}, labelled=False)
