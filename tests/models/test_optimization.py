import numpy as np
import pytest

from xray_helpers.settings import build_settings


def test_layers_are_parted_evenly_the_highest_first():
    from xray_helpers.models.optimization import group_layers

    names = [f"layer_{i}" for i in range(12)]
    groups = group_layers(names)
    assert [len(group) for group in groups] == [2, 2, 2, 3, 3]
    assert [name for group in reversed(groups) for name in group] == names
    assert group_layers(["a", "b"]) == [["b"], ["a"]]


@pytest.mark.parametrize(
    ("warmup", "rates"),
    [(0.2, {0: 0, 5: 0.25, 10: 0.5, 20: 1, 60: 0.5, 100: 0}), (0.0, {0: 1, 50: 0.5, 100: 0})],
)
def test_the_rate_rises_in_a_line_and_falls_by_a_cosine(warmup, rates):
    from xray_helpers.models.optimization import build_schedule

    schedule = build_schedule(1.0, 100, build_settings(warmup=warmup))
    for step, rate in rates.items():
        assert float(schedule(step)) == pytest.approx(rate, abs=1e-6)


def test_a_recipe_needs_no_other_parameter():
    assert build_settings().tuning_epochs == 0
    assert build_settings(recipe="finetune").tuning_epochs == 10
    assert build_settings(recipe="finetune", fine_tune_epochs=3).tuning_epochs == 3
    assert build_settings(fine_tune_epochs=3).tuning_epochs == 3


def test_a_network_of_nested_layers_is_read_back_with_all_its_rates(tmp_path):
    import keras

    from xray_helpers.models.optimization import build_optimizer

    inputs = keras.Input((4, 6))
    outputs = inputs
    for block in range(3):
        outputs = keras.layers.MultiHeadAttention(2, 3, name=f"block_{block}")(outputs, outputs)
    outputs = keras.layers.Dense(1)(keras.layers.GlobalAveragePooling1D()(outputs))
    model = keras.Model(inputs, outputs)
    layers = [layer.name for layer in model.layers if layer.weights]
    model.compile(build_optimizer(model, layers, 5, build_settings(recipe="finetune", warmup=0)), loss="mse")
    x, y = np.random.default_rng(0).normal(size=(8, 4, 6)), np.zeros((8, 1))
    model.fit(x, y, batch_size=4, verbose=0)
    model.save(tmp_path / "m.keras")
    again = keras.saving.load_model(tmp_path / "m.keras")
    for found, expected in zip(again.optimizer.variables, model.optimizer.variables, strict=True):
        assert found.path == expected.path
        np.testing.assert_array_equal(np.array(found), np.array(expected))
    rates = {float(each.learning_rate) for each in model.optimizer.optimizers}
    assert len(rates) == 4
    assert {float(each.learning_rate) for each in again.optimizer.optimizers} == rates
    for each in (model, again):
        each.fit(x, y, batch_size=4, shuffle=False, verbose=0)
    for found, expected in zip(again.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(found, expected)
