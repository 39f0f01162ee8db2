"""What a step with named weights, and a study of an earlier version, are taken for."""

import json
from dataclasses import replace

import pytest
from weight_files import write_numbers

from xray_helpers.models.backbones import BACKBONES
from xray_helpers.runner.graph import build_steps
from xray_helpers.runner.preparation import _check_folder
from xray_helpers.runner.steps import step_inputs
from xray_helpers.settings import TUNING, InputError, build_settings
from xray_helpers.study.folders import open_study, shareable


def test_another_radimagenet_file_in_the_folder_of_keras_makes_the_step_due(root, tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setitem(BACKBONES, "ResNet50", replace(BACKBONES["ResNet50"], parameters=100))
    (tmp_path / "models").mkdir()
    file = tmp_path / "models" / "RadImageNet-ResNet50_notop.h5"
    settings = build_settings(
        name="s", data="phantoms", weights="imagenet", models="ResNet50@radimagenet, VGG16"
    )
    study, steps = open_study(settings), build_steps(settings.models)
    step, other = (
        next(step for step in steps if step.name == f"{model}/02_train_model") for model in settings.models
    )

    def reads(which):
        return step_inputs(which, steps, settings, study)["reads"]["weights"]

    found = []
    for seed in (1, 2):
        write_numbers(file, 100, seed=seed)
        found.append((reads(step), reads(other)))
    assert found[0][0] != found[1][0]
    assert found[0][1] == found[1][1] == "imagenet"  # VGG16 has nothing to do with it


def store(settings, changes):
    study = open_study(settings)
    stored = shareable(settings)
    for name, value in changes.items():
        stored.pop(name) if value is None else stored.update({name: value})
    (study / "study.json").write_text(json.dumps({"settings": stored}))
    return study


def test_a_study_of_an_earlier_version_goes_on(root):
    settings = build_settings(name="s", data="phantoms", weights="random")
    earlier = dict.fromkeys(("sources", "pooling", "recipe", "flips", *TUNING))
    earlier |= {"fine_tune_from": 0.2, "fine_tune_learning_rate": 1e-5}  # its defaults, which had no effect
    study = store(settings, earlier)
    _check_folder(study, settings, overwrite=False)
    for changed in ({"flips": True}, {"recipe": "finetune"}, {"seed": 7}):
        with pytest.raises(InputError, match=next(iter(changed))):
            _check_folder(study, settings.model_copy(update=changed), overwrite=False)


def test_the_rates_of_a_fine_tuned_study_count(root):
    settings = build_settings(name="s", data="phantoms", weights="random", recipe="finetune")
    study = store(settings, {"fine_tune_from": 0.2})
    with pytest.raises(InputError, match="fine_tune_from"):
        _check_folder(study, settings, overwrite=False)


def test_a_model_from_another_place_is_another_study_however_the_place_is_written(root, tmp_path):
    settings = build_settings(name="s", data="phantoms", models="vit=hub:nets/vit")
    study = store(settings, {})
    same = build_settings(name="s", data="phantoms", models=f"vit=hub:{root}/nets/vit")
    _check_folder(study, same, overwrite=False)
    other = build_settings(name="s", data="phantoms", models=f"vit=hub:{tmp_path}/vit")
    with pytest.raises(InputError, match="the source of vit"):
        _check_folder(study, other, overwrite=False)
