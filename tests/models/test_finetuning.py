import os
import re
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


GAIN = {"value": 2.0, "ci_low": 1.0, "ci_high": 3.0}


@pytest.fixture
def any_gain(monkeypatch):
    """Every gain on validation counts, however small the part."""
    monkeypatch.setattr("xray_helpers.models.finetuning.measure_gain", lambda *args: GAIN)


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
    train, validation = (Images(pixels[at], names[at], y[at], names[at]) for at in (slice(32), slice(32, 48)))
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


def test_upper_layers_learn_and_normalization_does_not(root, any_gain):
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

    model, history, train, validation, settings = made(fine_tune_epochs=2)
    before = model.get_weights()
    table = fine_tune(model, history.assign(val_loss=1e-9), train, validation, settings, key="k")
    assert all((a == b).all() for a, b in zip(before, model.get_weights(), strict=True))
    assert table["best"].tolist() == [True, False, False]


def test_a_gain_within_chance_is_not_kept(root):
    from xray_helpers.models.finetuning import fine_tune

    model, history, train, validation, settings = made(fine_tune_epochs=1)
    before = model.get_weights()
    table = fine_tune(model, history.assign(val_loss=9.0), train, validation, settings, key="k")
    assert table["val_loss"].iloc[1] < 9
    assert table["best"].tolist() == [True, False]
    assert all((a == b).all() for a, b in zip(before, model.get_weights(), strict=True))


def test_a_gain_beyond_chance_is_kept_and_its_reverse_is_not(root, capsys):
    from xray_helpers.models.finetuning import _replace_weights

    model, _, _, validation, _ = made()
    undecided, certain = ([w * 0 for w in model.get_weights()] for _ in range(2))
    certain[-1] = certain[-1] + 6  # nearly every image is called fractured, and half of them are not
    model.set_weights(certain)
    assert _replace_weights(model, undecided, validation, None)
    assert re.fullmatch(r".* by 2\.\d\d \(.* to .*\), n = 16: kept\n", capsys.readouterr().out)
    assert model.get_weights()[-1] == 0
    assert not _replace_weights(model, certain, validation, None)
    assert model.get_weights()[-1] == 0


def test_the_gain_is_paired_and_its_interval_over_groups():
    from xray_helpers.evaluation.intervals import grouped_mean
    from xray_helpers.models.finetuning import Images, measure_gain

    y = np.arange(20) % 2
    rng = np.random.default_rng(0)
    before, after = rng.uniform(0.2, 0.8, (2, 20))
    groups = np.array([f"{i // 2:02d}" for i in range(20)])
    images = Images(np.zeros((20, 4, 4), np.uint8), groups, y, groups)
    fell = np.log(np.where(y == 1, after / before, (1 - after) / (1 - before)))
    assert measure_gain(images, before, after) == pytest.approx(grouped_mean(fell, groups))
    weights = np.array([0.5, 3.0])
    weighted = measure_gain(images, before, after, weights)
    assert weighted["value"] == pytest.approx(np.mean(fell * weights[y]))
    few = images._replace(group=np.repeat(["a", "b"], 10))
    assert measure_gain(few, before, after)["ci_low"] is None


def test_the_time_is_told_before_it_starts(root, capsys):
    from xray_helpers.models.finetuning import fine_tune

    told = []
    with_time = lambda row: told.append(capsys.readouterr().out)  # noqa: E731
    fine_tune(*made(fine_tune_epochs=1), key="k", on_epoch=with_time)
    assert re.fullmatch(r"fine-tuning on the CPU: about \d+ s for 1 epoch of 32 images\n", told[0])
    fine_tune(*made(fine_tune_epochs=1), key="k")  # all of it is there
    assert "about" not in capsys.readouterr().out


def test_lower_layers_learn_by_smaller_rates(root):
    from xray_helpers.models.finetuning import _trainable_copy

    model, *_, settings = made(recipe="finetune", fine_tune_learning_rate=0.5, layer_decay=0.5, warmup=0)
    layers = ["Conv1", "expanded_conv_project", "Conv_1", "dense", "p_fractured"]
    copy = _trainable_copy(model, layers, 32, settings)
    copy.optimizer.build(copy.trainable_variables)
    found = {}
    for optimizer in copy.optimizer.optimizers:
        for variable in optimizer._trainable_variables:
            found[variable.path] = float(optimizer.learning_rate)
    assert found == {
        "Conv1/kernel": 0.5**5,
        "expanded_conv_project/kernel": 0.5**4,
        "Conv_1/kernel": 0.5**3,
        "dense/kernel": 0.25,
        "dense/bias": 0.25,
        "p_fractured/kernel": 0.5,
        "p_fractured/bias": 0.5,
    }
    same = settings.model_copy(update={"layer_decay": 1.0})
    assert float(_trainable_copy(model, layers, 32, same).optimizer.learning_rate) == 0.5


@pytest.mark.parametrize("kind", ["convnet", "transformer"])
def test_a_network_within_the_model_is_trained_layer_by_layer(root, kind):
    import keras

    from xray_helpers.models.finetuning import _trainable_copy, trained_layers
    from xray_helpers.models.graphs import embed_network
    from xray_helpers.models.head import build_head, join_model
    from xray_helpers.models.preprocessing import PREPROCESSING

    if kind == "convnet":
        options = {"input_shape": (40, 40, 3), "include_top": False, "weights": None, "alpha": 0.35}
        network = keras.applications.MobileNetV2(**options)
    else:
        hub = pytest.importorskip("keras_hub")
        sizes = {"num_layers": 4, "num_heads": 2, "hidden_dim": 16, "mlp_dim": 32}
        network = hub.models.ViTBackbone(image_shape=(40, 40, 3), patch_size=8, **sizes)
    settings = build_settings(recipe="finetune")
    extractor, _ = embed_network(network, "net", (40, 40), "keep", PREPROCESSING["none"])
    model = join_model(extractor, build_head(extractor.output_shape[-1], settings))
    layers = trained_layers(model, 1.0)
    assert layers[-2:] == ["dense", "p_fractured"]
    assert len(layers) == (54 if kind == "convnet" else 8)
    copy = _trainable_copy(model, layers, 32, settings)
    x = np.random.default_rng(0).uniform(0, 255, (2, 40, 40, 1)).astype("float32")
    np.testing.assert_array_equal(np.array(model(x)), np.array(copy(x)))
    copy.optimizer.build(copy.trainable_variables)
    groups = [len(each._trainable_variables) for each in copy.optimizer.optimizers]
    assert sum(groups) == len(copy.trainable_variables) == (56 if kind == "convnet" else 74)
    assert len(groups) == 5
    assert not [each.path for each in copy.trainable_variables if "BN" in each.path]


def test_averages_are_validated_and_the_weights_themselves_go_on(root):
    """With 4 steps an epoch and an average over one epoch, each step moves it by a quarter."""
    import keras

    from xray_helpers.models.finetuning import _train_epoch, _trainable_copy

    model, _, train, validation, settings = made(recipe="finetune", layer_decay=1, warmup=0)
    copy = _trainable_copy(model, ["p_fractured"], 32, settings)
    seen = []
    kernel = lambda: np.array(copy.get_layer("p_fractured").kernel)  # noqa: E731
    fit = copy.fit
    watch = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: seen.append(kernel()))
    copy.fit = lambda *args, callbacks, **options: fit(*args, callbacks=[watch, *callbacks], **options)
    row, averaged = _train_epoch(copy, 0, train, validation, settings)
    expected = seen[0]
    for values in seen[1:]:
        expected = 0.75 * expected + 0.25 * values
    assert len(seen) == 4
    np.testing.assert_array_equal(kernel(), seen[-1])
    np.testing.assert_allclose(averaged[-2], expected, atol=1e-6)
    copy.set_weights(averaged)
    p = copy.predict(validation.pixels[..., None].astype("float32"), verbose=0)[:, 0]
    loss = np.mean(-np.log(np.where(validation.y_true == 1, p, 1 - p)))
    assert row["val_loss"] == pytest.approx(loss, abs=1e-5)  # of the averages, and of labels as they are


def test_smoothed_labels_teach_and_are_not_measured(root):
    from xray_helpers.models.finetuning import fine_tune

    losses, kernels = [], []
    for smoothing in (0.0, 0.4):
        model, history, *images, settings = made(fine_tune_epochs=1, label_smoothing=smoothing, warmup=0)
        still = settings.model_copy(update={"fine_tune_learning_rate": 1e-12})
        losses.append(fine_tune(model, history, *images, still, key="k")[["loss", "val_loss"]].iloc[-1])
        copied = _train(model, images, settings)
        kernels.append(copied.get_layer("dense").get_weights()[0])
    np.testing.assert_allclose(*losses, rtol=1e-4)
    assert np.abs(kernels[0] - kernels[1]).max() > 1e-6


def _train(model, images, settings):
    from xray_helpers.models.finetuning import _train_epoch, _trainable_copy, trained_layers

    copy = _trainable_copy(model, trained_layers(model, 0.1), 32, settings)
    _train_epoch(copy, 0, *images, settings)
    return copy


@pytest.mark.parametrize(
    "values",
    [
        {"layer_decay": 0.6},
        {"warmup": 0.3},
        {"label_smoothing": 0.2},
        {"ema_epochs": 2},
        {"fine_tune_epochs": 4},
        {"recipe": "finetune"},
        {"class_weight": "balanced"},
    ],
)
def test_what_changes_the_result_changes_the_key(values):
    import keras

    from xray_helpers.models.finetuning import Images, _run_key

    def head(units=2, activation="relu"):
        keras.utils.set_random_seed(0)
        inputs = keras.Input((3,))
        return keras.Model(inputs, keras.layers.Dense(units, activation, name="dense")(inputs))

    images = Images(*[np.array(["a", "b"])] * 4)

    def key(model, **each):
        return _run_key("k", model, ["dense"], images, images, build_settings(**each))

    keys = {key(head(), **each) for each in ({}, values, {"epochs": 3})}
    assert len(keys) == 2  # 3 epochs of the head are the default
    others = [head(units=4), head(activation="gelu"), head()]
    others[2].set_weights([weight + 1 for weight in others[2].get_weights()])
    assert (
        len({key(head()), *(key(other) for other in others)}) == 4
    )  # another head, or another training of it


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


def test_killed_in_its_second_epoch_it_goes_on_and_ends_alike(root, tmp_path, monkeypatch, any_gain):
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
    weights = images[0].get_weights()
    monkeypatch.setenv("XRAY_HELPERS_ROOT", str(tmp_path / "elsewhere"))
    model, *images, settings = made(fine_tune_epochs=3, dropout_rate=0.4)
    straight = fine_tune(model, *images, settings, key="k")
    for found, expected in zip(weights, model.get_weights(), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-6)
    assert len(resumed) == 4
    pd.testing.assert_frame_equal(resumed, straight, rtol=1e-4)


def test_a_damaged_network_in_the_cache_is_not_believed(root):
    from xray_helpers.models.finetuning import fine_tune

    first = fine_tune(*made(fine_tune_epochs=2), key="k")
    networks = list((root / "data" / "cache").glob("finetuning-*.npz"))
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


def test_class_weights_reach_fine_tuning(root, any_gain):
    """With few images of one class, the weighted loss differs from the plain one."""
    from xray_helpers.models.finetuning import fine_tune

    losses = {}
    for weight in ("none", "balanced"):
        model, history, train, validation, settings = made(fine_tune_epochs=1, class_weight=weight)
        rare = np.r_[np.arange(0, 32, 2), 1, 3]  # 16 of one class, 2 of the other
        some = type(train)(*(values[rare] for values in train))
        table = fine_tune(model, history.assign(val_loss=9.0), some, validation, settings, key="k")
        losses[weight] = table["loss"].iloc[-1]
        assert table["best"].iloc[-1]
    assert losses["balanced"] != pytest.approx(losses["none"], rel=0.01)


def test_fine_tuning_is_compared_with_the_epoch_of_the_head_that_is_kept(root, any_gain):
    """After a schedule the head's last epoch is kept, not that of the lowest validation loss."""
    from xray_helpers.models.finetuning import fine_tune

    model, history, train, validation, settings = made(fine_tune_epochs=1)
    history = pd.concat([history.assign(val_loss=1e-9, best=False), history.assign(epoch=2, val_loss=9.0)])
    table = fine_tune(model, history, train, validation, settings, key="k")
    assert table["best"].tolist() == [False, False, True]
