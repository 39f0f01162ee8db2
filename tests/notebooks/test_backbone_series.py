"""A whole study of networks from everywhere: keras.applications, KerasHub presets of two layouts, a file."""

import subprocess
import sys

import pandas as pd
import pytest
from hub_presets import make_preset, write_hugging_face

from xray_helpers.study.files import read_json

pytestmark = [pytest.mark.slow, pytest.mark.thorough]
APPLICATIONS = ("MobileNetV2", "ConvNeXtTiny", "EfficientNetV2B0")
HUB = ("vit", "dinov2", "vit-hf")
LOAD = """
import sys, keras, numpy as np
model = keras.saving.load_model(sys.argv[1], compile=False)
print(float(model(np.full((1, 64, 64, 1), 100, "float32"))[0, 0]))
"""


@pytest.fixture(scope="module")
def backbone_study(root_folder, phantom_csv, tmp_path_factory):
    hub = pytest.importorskip("keras_hub", reason="KerasHub is not installed: run `make hub`")
    place = tmp_path_factory.mktemp("presets-of-ward-7")
    for kind in ("vit", "dinov2"):
        make_preset(hub, kind).save_to_preset(str(place / kind))
    write_hugging_face(make_preset(hub, "vit"), place / "vit-hf")
    models = ",".join([*APPLICATIONS, *(f"hub:{place}/{kind}" for kind in HUB)])
    values = ["img_size=64", "weights=random", "epochs=3", "maps=12", "repeats=1", "use_subset=1.0"]
    pairs = [part for value in values for part in ("-p", value)]
    command = ["run", "--name", "everywhere", "--data", str(phantom_csv), "--models", models, *pairs]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XRAY_HELPERS_ROOT", str(root_folder))
        done = subprocess.run(
            [sys.executable, "-m", "xray_helpers", *command], capture_output=True, text=True, check=False
        )
    assert done.returncode == 0, done.stderr[-3000:]
    return root_folder / "reports" / "everywhere"


def test_every_network_is_trained_judged_and_explained(backbone_study):
    table = pd.read_csv(backbone_study / "comparison.csv")
    assert set(table["model"]) == {*APPLICATIONS, *HUB}
    for model in (*APPLICATIONS, *HUB):
        maps = pd.read_csv(backbone_study / model / "maps.csv")
        assert len(maps), model
        record = read_json(backbone_study / model / "training.json")
        assert record["engine"], model
        assert record["weights"] == ("own" if model in HUB else "random")
    licences = {model: read_json(backbone_study / model / "training.json")["licence"] for model in HUB}
    assert licences == {"vit": "", "dinov2": "", "vit-hf": "apache-2.0"}  # claimed only where it is stated
    card = (backbone_study / "vit-hf" / "model_card.md").read_text()
    assert "the KerasHub preset vit-hf" in card


def test_places_of_presets_are_in_no_page(backbone_study):
    for path in backbone_study.rglob("*"):
        if path.is_file() and path.name != "local.json":
            assert b"presets-of-ward-7" not in path.read_bytes(), path


def test_models_load_in_a_process_of_their_own(backbone_study):
    for model in ("ConvNeXtTiny", "vit", "dinov2"):
        file = backbone_study / model / "model.keras"
        done = subprocess.run(
            [sys.executable, "-c", LOAD, str(file)], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr[-2000:]
        assert 0 <= float(done.stdout) <= 1


@pytest.mark.parametrize("model", ["EfficientNetV2B0", "vit", "dinov2", "vit-hf"])
def test_new_files_have_the_probability_of_the_study(backbone_study, phantom_csv, model):
    from xray_helpers.interactive.reading_room import ReadingRoom
    from xray_helpers.models.prediction import predict_files

    known = pd.read_csv(backbone_study / model / "predictions_test.csv").head(5)
    table = predict_files(backbone_study, model, [str(phantom_csv.parent / path) for path in known["path"]])
    assert table["probability"].to_numpy() == pytest.approx(known["y_prob"].to_numpy(), abs=1e-3)
    assert ReadingRoom(backbone_study, model)


def test_asked_again_nothing_is_done_again_and_a_changed_preset_is(backbone_study, root_folder, monkeypatch):
    from xray_helpers.runner.graph import build_steps
    from xray_helpers.runner.steps import why_rerun
    from xray_helpers.settings import Settings

    monkeypatch.setenv("XRAY_HELPERS_ROOT", str(root_folder))
    settings = Settings(**read_json(backbone_study / "study.json")["settings"])
    steps = build_steps(settings.models)
    assert not [step.name for step in steps if why_rerun(step, steps, settings, backbone_study)]
    place = read_json(backbone_study / "local.json")["sources"]["vit"].removeprefix("hub:")
    with open(f"{place}/metadata.json", "a") as file:
        file.write(" ")
    due = {step.name for step in steps if why_rerun(step, steps, settings, backbone_study)}
    assert "vit/02_train_model" in due
    assert "dinov2/02_train_model" not in due
