"""Upper layers that travel: where a backbone is cut, what is trained and sent, and the average of it."""

from dataclasses import replace

import numpy as np
import pytest

from xray_helpers.federated.averaging import check_update
from xray_helpers.federated.client import Site, build_network, initial_weights, plan_settings, train_alone
from xray_helpers.federated.client import _loss as loss_of
from xray_helpers.federated.outcome import describe_trained, leaves_table
from xray_helpers.federated.rounds import Plan, load_weights, run_rounds
from xray_helpers.models.cutting import UPPER_SHARE, cut_backbone
from xray_helpers.models.graphs import embed_network, list_layers, pool
from xray_helpers.settings import InputError, build_settings
from xray_helpers.study.files import read_json

SIZES = {"a": 24, "b": 12}


@pytest.fixture(scope="module")
def backbone():
    """Two residual blocks with batch normalization and a last convolution, as an extractor is built."""
    import keras

    keras.utils.set_random_seed(1)
    layers = keras.layers
    pixels = keras.Input((16, 16, 1), name="grey_pixels")
    x = layers.Rescaling(1 / 255, name="preprocessing")(pixels)
    x = layers.Conv2D(6, 3, strides=2, padding="same", activation="relu", name="stem")(x)
    for name in ("one", "two"):
        y = layers.Conv2D(6, 3, padding="same", name=f"{name}_conv")(x)
        y = layers.BatchNormalization(name=f"{name}_bn")(y)
        y = layers.Conv2D(6, 1, name=f"{name}_project")(layers.ReLU(name=f"{name}_relu")(y))
        x = layers.Add(name=f"{name}_add")([x, y])
    x = layers.Conv2D(8, 1, activation="relu", name="last")(x)
    network = keras.Model(pixels, pool(x), name="tiny")
    network.get_layer("two_bn").set_weights([np.full(6, v, "float32") for v in (1.5, 0.1, 0.2, 0.7)])
    network.trainable = False
    return network


@pytest.mark.parametrize(
    ("start", "at", "trained"),
    [
        ("last", "two_add", ("last",)),
        ("two_project", "one_add", ("two_project", "last")),  # within the block: cut below it
        ("one_conv", "stem", ("one_conv", "one_project", "two_conv", "two_project", "last")),
        ("stem", "preprocessing", ("stem", "one_conv", "one_project", "two_conv", "two_project", "last")),
    ],
)
def test_both_parts_give_what_the_whole_gives(backbone, start, at, trained):
    cut = cut_backbone(backbone, start)
    assert (cut.at, cut.trained) == (at, trained)
    assert sorted(one.name for one in list_layers(cut.upper) if one.trainable_variables) == sorted(trained)
    pictures = np.random.default_rng(0).uniform(0, 255, (5, 16, 16, 1)).astype("float32")
    maps = cut.lower.predict(pictures, verbose=0)
    assert maps.ndim == 2
    whole = backbone.predict(pictures, verbose=0)
    np.testing.assert_allclose(cut.upper.predict(maps, verbose=0), whole, atol=1e-5)
    half = cut.upper.predict(maps.astype("float16"), verbose=0)
    np.testing.assert_allclose(half, whole, atol=1e-2 * whole.std())


def test_the_whole_network_becomes_its_upper_fifth(backbone):
    assert (
        cut_backbone(backbone, 1.0)[2:] == cut_backbone(backbone, UPPER_SHARE)[2:] == ("two_add", ("last",))
    )


def test_what_cannot_be_cut_is_told(backbone):
    import keras

    picture = keras.Input((16, 16, 3))
    network = keras.Model(picture, keras.layers.Conv2D(4, 3)(picture))
    held, _ = embed_network(network, "preset", (16, 16), "keep", ([1.0] * 3, [0.0] * 3))
    with pytest.raises(InputError, match="held as one layer and cannot be cut"):
        cut_backbone(held, 1.0)
    with pytest.raises(InputError, match="leaves no layer"):
        cut_backbone(backbone, 0.01)


@pytest.fixture(scope="module")
def ready(backbone, tmp_path_factory):
    """Two sites of bright and dark pictures, ready, and a function that writes a plan for them."""
    folder, rng = tmp_path_factory.mktemp("upper"), np.random.default_rng(2)
    cut = cut_backbone(backbone, "two_conv")
    cut.upper.save(folder / "upper.keras")
    for name, size in SIZES.items():
        y = np.arange(size + 8) % 2
        pictures = rng.uniform(0, 120, (len(y), 16, 16, 1)) + 100 * y[:, None, None, None]
        x = cut.lower.predict(pictures.astype("float32"), verbose=0).astype("float16")
        site = Site(name, "backbone", (x[:size], y[:size]), (x[size:], y[size:]), folder / "upper.keras")
        site.write(folder / name)

    def write(place, **options):
        settings = build_settings(seed=3, batch_size=8, recipe="finetune", fine_tune_learning_rate=0.01)
        values = {key: value for key, value in settings.model_dump(mode="json").items() if key != "name"}
        facts = {"rounds": 2, "local_epochs": 1, "trained": cut.trained, **options}
        plan = Plan("M", "backbone", values, {}, x.shape[1], tuple(SIZES), **facts)
        return plan.write(place, initial_weights(plan, folder / "upper.keras"))

    return write, [folder / name for name in SIZES], cut


def test_rounds_change_upper_layers_alone_and_average_as_numpy_does(ready, direct, tmp_path):
    write, places, cut = ready
    plan = write(tmp_path)
    exchange = direct(plan, places)
    record = run_rounds(tmp_path, exchange)
    start, first, second = (load_weights(tmp_path / f"round_00{n}.npz") for n in range(3))
    assert sum(one.size for one in start) == 6 * 54 + 6 + 36 + 6 + 48 + 8 + 8 * 128 + 128 + 128 + 1
    np.testing.assert_array_equal(start[0], cut.upper.get_layer(index=-1).get_layer("two_conv").kernel)
    assert all(np.abs(a - b).max() > 1e-4 for a, b in zip(start, first, strict=True))
    local = exchange.train(2, first).updates  # the same round again
    share = np.array([SIZES["a"], SIZES["b"]]) / sum(SIZES.values())
    for k, found in enumerate(second):
        expected = share[0] * local["a"].weights[k] + share[1] * local["b"].weights[k]
        np.testing.assert_allclose(found, expected, atol=1e-6)
    assert check_update(local["a"], start) == ""
    assert "shapes" in check_update(local["a"]._replace(weights=local["a"].weights[1:]), start)
    assert len(record.losses) == 3
    assert "3 upper layers of the backbone, from two_conv on" in describe_trained(plan)
    what = leaves_table(plan, record, tmp_path)[0]
    assert what["what"] == "weights of the head and of 3 layers of the backbone"
    assert what["size"].startswith(f"{sum(one.size for one in start):,} numbers")


def test_training_leaves_batch_normalization_as_it_was_and_is_kept_where_best(ready, tmp_path):
    write, places, _ = ready
    plan = write(tmp_path, local_epochs=3)
    site, settings = Site.read(places[0]), plan_settings(plan)
    before = build_network(plan, settings, site.upper)
    after = train_alone(plan, site.train, site.validation, site.upper)
    fixed = [
        {one.name: one.get_weights() for one in list_layers(network) if one.name == "two_bn"}["two_bn"]
        for network in (before, after)
    ]
    np.testing.assert_array_equal(*fixed)
    losses = [loss_of(network, site.validation, settings) for network in (before, after)]
    assert losses[1] < losses[0]
    rates = [float(one.learning_rate) for one in after.optimizer.optimizers]
    np.testing.assert_allclose(rates, [0.01, 0.007, 0.0049, settings.learning_rate], rtol=1e-5)


def test_a_proximal_term_holds_upper_layers_too_and_a_site_without_them_is_told(ready, direct, tmp_path):
    write, places, _ = ready
    moved = []
    for strength in (0.0, 1000.0):
        plan = write(tmp_path / str(strength), proximal=strength)
        start = load_weights(tmp_path / str(strength) / "round_000.npz")
        trained = direct(plan, places).train(1, start).updates["a"].weights
        moved.append(np.abs(trained[0] - start[0]).max())
    assert moved[1] < moved[0]
    with pytest.raises(InputError, match=r"no upper\.keras"):
        build_network(plan, plan_settings(plan))
    assert Plan.parse(read_json(tmp_path / "0.0" / "plan.json")).trained == plan.trained
    assert replace(plan, trained=("conv2d_94",)).key == plan.key  # Keras numbers layers in each process anew
