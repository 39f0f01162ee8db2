import os
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest

from xray_helpers.settings import InputError, build_settings
from xray_helpers.study.cache import clear_cache
from xray_helpers.study.files import read_json

pytestmark = pytest.mark.slow

SETTINGS = {
    "batch_size": 8,
    "patience": 10,
    "fine_tune_from": 0.9,
    "fine_tune_learning_rate": 3e-5,
    "dropout_rate": 0.0,
}

PRELUDE = """
import sys, numpy as np, pandas as pd, tensorflow as tf
from test_finetuning import made
from xray_helpers.models.finetuning import fine_tune
"""


def made(**values):
    """A small joined model, the history of its head, and images whose class is their brightness."""
    from xray_helpers.models.backbones import get_backbone
    from xray_helpers.models.finetuning import Images
    from xray_helpers.models.head import build_head, join_model, prepare_tensorflow

    settings = build_settings(**(SETTINGS | values))
    prepare_tensorflow(settings)
    rng = np.random.default_rng(0)
    y = np.arange(48) % 2
    pixels = (rng.integers(0, 150, (48, 40, 40)) + 100 * y[:, None, None]).astype(np.uint8)
    names = np.array([f"{i:02d}" for i in range(48)])
    train, validation = Images(pixels[:32], names[:32], y[:32]), Images(pixels[32:], names[32:], y[32:])
    model = join_model(get_backbone("MobileNetV2").build((40, 40), "random")[0], build_head(1280, settings))
    history = pd.DataFrame(
        {
            "epoch": [1],
            "loss": [0.9],
            "accuracy": [0.5],
            "val_loss": [0.9],
            "val_accuracy": [0.5],
            "learning_rate": [0.001],
            "best": [True],
        }
    )
    return model, history, train, validation, settings


def test_upper_layers_learn_and_normalization_does_not(root):
    import keras

    from xray_helpers.models.finetuning import fine_tune, predict_images, trained_layers
    from xray_helpers.models.inference import EXACT, ForwardPass

    model, history, train, validation, settings = made(fine_tune_epochs=3)
    layers = trained_layers(model, 0.9)
    before = {layer.name: [np.array(w) for w in layer.get_weights()] for layer in model.layers}
    clear = lambda row: clear_cache()  # noqa: E731  # as a person may at any time
    table = fine_tune(
        model, history.assign(val_loss=9.0), train, validation, settings, key="k", on_epoch=clear
    )
    changed = set()
    for layer in model.layers:
        pairs = list(zip(before[layer.name], layer.get_weights(), strict=True))
        changed |= {layer.name} if any((a != b).any() for a, b in pairs) else set()
        assert not (isinstance(layer, keras.layers.BatchNormalization) and layer.name in changed)
    assert {"dense", "p_fractured", "Conv_1"} <= changed <= set(layers)  # all else is the same to the bit
    assert table["phase"].tolist() == ["head"] + ["fine-tuning"] * 3
    assert table["epoch"].tolist() == [1, 2, 3, 4]
    assert table["val_loss"].iloc[-1] < table["val_loss"].iloc[1]
    assert table["best"].sum() == 1
    best = table.loc[table["best"]].iloc[0]
    assert best["phase"] == "fine-tuning"
    p = predict_images(validation, ForwardPass(model, EXACT))
    loss = -np.mean(np.where(validation.y_true == 1, np.log(p), np.log(1 - p)))
    assert loss == pytest.approx(best["val_loss"], abs=1e-3)  # the weights kept are those of the best epoch


def test_what_is_no_better_than_the_head_is_not_kept(root):
    from xray_helpers.models.finetuning import fine_tune

    model, history, train, validation, settings = made(fine_tune_epochs=9, patience=2)
    before = model.get_weights()
    table = fine_tune(model, history.assign(val_loss=1e-9), train, validation, settings, key="k")
    assert all((a == b).all() for a, b in zip(before, model.get_weights(), strict=True))
    assert len(table) == 1 + 2  # patience
    assert table["best"].tolist() == [True, False, False]


def test_layers_are_named_or_a_share_and_no_epochs_change_nothing(root):
    from xray_helpers.models.finetuning import fine_tune, trained_layers

    model, history, train, validation, settings = made()
    assert trained_layers(model, "Conv_1") == ["Conv_1", "dense", "p_fractured"]
    assert set(trained_layers(model, 0.1)) < set(trained_layers(model, 1.0))
    with pytest.raises(InputError, match="no layer 'Conv1_'; did you mean Conv1"):
        trained_layers(model, "Conv1_")
    assert fine_tune(model, history, train, validation, settings, key="k").equals(
        history.assign(phase="head")
    )


def run(root, code, **options):
    environment = os.environ | {"XRAY_HELPERS_ROOT": str(root)}
    here = os.path.dirname(os.path.abspath(__file__))
    return subprocess.Popen(
        [sys.executable, "-c", PRELUDE + code],
        env=environment,
        cwd=here,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def test_killed_in_its_second_epoch_it_goes_on_and_ends_alike(root, tmp_path, monkeypatch):
    from xray_helpers.models.finetuning import fine_tune

    code = """
model, history, train, validation, settings = made(fine_tune_epochs=3, dropout_rate=0.4)
fine_tune(model, history, train, validation, settings, key="k")
"""
    killed = run(root, code)
    while not list((root / "data" / "cache").glob("finetuning-*.json")):  # the first epoch is on disk
        assert killed.poll() is None, killed.stderr.read()
        time.sleep(0.02)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    done = len(read_json(next((root / "data" / "cache").glob("finetuning-*.json"))))
    assert 1 <= done < 3
    *images, settings = made(fine_tune_epochs=3, dropout_rate=0.4)
    resumed = fine_tune(*images, settings, key="k")
    monkeypatch.setenv("XRAY_HELPERS_ROOT", str(tmp_path / "elsewhere"))
    straight = fine_tune(*made(fine_tune_epochs=3, dropout_rate=0.4), key="k")
    assert len(resumed) == 4
    pd.testing.assert_frame_equal(resumed, straight, rtol=1e-4)


def test_a_damaged_network_in_the_cache_is_not_believed(root):
    from xray_helpers.models.finetuning import fine_tune

    first = fine_tune(*made(fine_tune_epochs=2), key="k")
    networks = list((root / "data" / "cache").glob("finetuning-*.keras"))
    assert networks
    for path in networks:
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    pd.testing.assert_frame_equal(fine_tune(*made(fine_tune_epochs=2), key="k"), first, rtol=1e-4)


def test_two_devices_give_the_losses_of_one(root):
    code = """
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
losses = []
for devices in (["CPU:0"], ["CPU:0", "CPU:1"]):
    table = fine_tune(*made(fine_tune_epochs=2), key=str(devices), devices=devices)
    losses.append(table[["loss", "val_loss"]].to_numpy())
np.testing.assert_allclose(*losses, rtol=2e-2)
"""
    done = run(root, code)
    assert done.wait() == 0, done.stderr.read()


def test_class_weights_reach_fine_tuning(root):
    """With few images of one class, the weighted loss differs from the plain one."""
    from xray_helpers.models.finetuning import fine_tune

    losses = {}
    for weight in ("none", "balanced"):
        model, history, train, validation, settings = made(fine_tune_epochs=1, class_weight=weight)
        rare = np.r_[np.arange(0, 32, 2), 1, 3]  # 16 of one class, 2 of the other
        some = type(train)(train.pixels[rare], train.contents[rare], train.y_true[rare])
        table = fine_tune(model, history.assign(val_loss=9.0), some, validation, settings, key="k")
        losses[weight] = table["loss"].iloc[-1]
        assert table["best"].iloc[-1]
    assert losses["balanced"] != pytest.approx(losses["none"], rel=0.01)


def test_fine_tuning_is_compared_with_the_epoch_of_the_head_that_is_kept(root):
    """After a schedule the head's last epoch is kept, not that of the lowest validation loss."""
    from xray_helpers.models.finetuning import fine_tune

    model, history, train, validation, settings = made(fine_tune_epochs=1)
    history = pd.concat([history.assign(val_loss=1e-9, best=False), history.assign(epoch=2, val_loss=9.0)])
    table = fine_tune(model, history, train, validation, settings, key="k")
    assert table["best"].tolist() == [False, False, True]
