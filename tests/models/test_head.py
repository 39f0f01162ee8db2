import json
import random
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from xray_helpers.settings import build_settings
from xray_helpers.study.folders import notebooks_folder

pytestmark = pytest.mark.slow


@pytest.fixture
def separable():
    rng = np.random.default_rng(0)
    y = np.arange(200) % 2
    return (rng.normal(0, 1, (2, 200, 12)) + 2.5 * y[:, None]).astype("float32"), y


def test_head_has_the_documented_layers():
    from xray_helpers.models.head import build_head

    head = build_head(12, build_settings(dropout_rate=0.4))
    kinds = [
        (type(layer).__name__, getattr(layer, "rate", getattr(layer, "units", None))) for layer in head.layers
    ]
    assert kinds == [("Dropout", 0.4), ("Dense", 128), ("Dropout", pytest.approx(0.24)), ("Dense", 1)]


def test_training_learns_repeats_and_keeps_the_best_epoch(separable):
    from xray_helpers.models.head import predict_head, train_head

    x, y = separable
    settings = build_settings(epochs=12, patience=3)
    head, history = train_head((x, y), (x[0, :60], y[:60]), settings)
    assert ((predict_head(head, x[0]) > 0.5) == y).mean() > 0.9
    assert list(history["epoch"]) == list(range(1, len(history) + 1))
    assert history["best"].sum() == 1
    best = history.loc[history["best"], "val_loss"].iloc[0]
    p = predict_head(head, x[0, :60])
    loss = -np.mean(np.where(y[:60] == 1, np.log(p), np.log(1 - p)))
    assert loss == pytest.approx(best, rel=1e-3)  # the weights kept are those of the best epoch
    again, same = train_head((x, y), (x[0, :60], y[:60]), settings)
    pd.testing.assert_frame_equal(history, same)
    assert (predict_head(again, x[0]) == predict_head(head, x[0])).all()


def test_a_bar_of_training_that_stopped_early_is_closed_and_not_red(separable, monkeypatch):
    from tqdm.notebook import tqdm

    from xray_helpers.models.head import train_head

    shown = []
    monkeypatch.setenv("JPY_SESSION_NAME", "notebook.ipynb")
    monkeypatch.setattr(tqdm, "display", lambda self, *args, **how: shown.append((self, how)))
    x, y = separable
    train_head((x, y), (x[0, :60], 1 - y[:60]), build_settings(epochs=50, patience=1))
    assert "danger" not in {how.get("bar_style") for _, how in shown}
    bar, last = shown[-1]
    assert last.get("close")
    assert bar.n < 50


def test_training_stops_early_and_lowers_the_rate_when_validation_gets_no_better(separable):
    from xray_helpers.models.head import train_head

    x, y = separable
    _, history = train_head(
        (x, y), (x[0, :60], 1 - y[:60]), build_settings(epochs=40, patience=2, learning_rate=0.01)
    )
    assert len(history) < 10
    assert history["learning_rate"].iloc[-1] < 0.01
    assert history["best"].iloc[0]


def test_each_epoch_draws_views_and_every_image_once():
    from xray_helpers.models.head import build_batches

    features = np.arange(2 * 10).reshape(2, 10, 1).astype("float32")
    batches, watched = build_batches((features, np.arange(10) % 2), None, build_settings(batch_size=4))
    assert watched is None
    epochs = []
    for _ in range(8):
        rows = np.concatenate([batches[i][0][:, 0] for i in range(len(batches))])
        assert sorted(rows % 10) == list(range(10))
        epochs.append(rows)
        batches.on_epoch_end()
    assert len({tuple(rows) for rows in epochs}) == 8
    assert {value >= 10 for rows in epochs for value in rows} == {True, False}


def test_a_saved_model_is_one_flat_graph_and_survives(root, tmp_path):
    import keras

    from xray_helpers.models.backbones import get_backbone
    from xray_helpers.models.head import build_head, join_model, predict_head, predict_pixels
    from xray_helpers.models.inference import EXACT, ForwardPass
    from xray_helpers.models.saved import load_model, save_model

    pixels = np.random.default_rng(0).integers(0, 255, (40, 64, 64), dtype=np.uint8)
    extractor = get_backbone("MobileNetV2").build((64, 64), "random")[0]
    features = ForwardPass(extractor, EXACT)(pixels)
    assert features.shape == (40, 1280)
    head = build_head(1280, build_settings())
    model = load_model(save_model(join_model(extractor, head), tmp_path / "model.keras"))
    assert not any(isinstance(layer, keras.Model) for layer in model.layers)
    assert model.input_shape == (None, 64, 64, 1)
    assert predict_pixels(model, pixels) == pytest.approx(predict_head(head, features), abs=1e-4)
    assert predict_pixels(model, pixels[:3]) == pytest.approx(predict_head(head, features[:3]), abs=1e-4)


def test_with_flips_a_saved_model_gives_the_mean_of_both_ways_and_maps_one(root, tmp_path):
    import keras

    from xray_helpers.explain.gradcam import GradCam
    from xray_helpers.models.backbones import get_backbone
    from xray_helpers.models.head import average_flips, build_head, join_model, predict_pixels
    from xray_helpers.models.inference import EXACT, ForwardPass
    from xray_helpers.models.out_of_distribution import build_feature_model
    from xray_helpers.models.saved import load_model, save_model

    extractor, _ = get_backbone("MobileNetV2").build((40, 40), "random")
    joined = join_model(extractor, build_head(1280, build_settings()))
    pixels = np.random.default_rng(0).integers(0, 256, (5, 40, 40)).astype(np.uint8)
    both = load_model(save_model(average_flips(joined), tmp_path / "both.keras"))
    one = load_model(save_model(joined, tmp_path / "one.keras"))
    mean = (predict_pixels(one, pixels) + predict_pixels(one, pixels[:, :, ::-1])) / 2
    assert predict_pixels(both, pixels) == pytest.approx(mean, abs=1e-6)
    assert ForwardPass(both, EXACT)(pixels)[:, 0] == pytest.approx(mean, abs=1e-6)
    # features and maps, which the reading room shows, are of the picture as it is
    together = keras.Model(both.input, [both.output, build_feature_model(both).output])
    found = np.asarray(together(pixels[..., None].astype(np.float32))[1])
    np.testing.assert_allclose(found, ForwardPass(build_feature_model(one), EXACT)(pixels), atol=1e-3)
    np.testing.assert_allclose(GradCam(both)(pixels), GradCam(one)(pixels), atol=1e-6)


def test_transfer_learning_on_real_radiographs(root, shared, tmp_path):
    """MobileNetV2 with its ImageNet weights separates the classes better than chance on the real sample."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score

    from xray_helpers.data.listing import list_data
    from xray_helpers.images.pixels import resize
    from xray_helpers.images.radiographs import UnreadableError, read_radiograph
    from xray_helpers.models.backbones import get_backbone

    folder = shared / "data" / "fracture-multi-region-sample"
    source = pd.read_csv(shared / "data" / "fracture-multi-region-sample-sources.csv").set_index("path")[
        "source"
    ]
    table = list_data(str(folder)).table.assign(source=lambda t: t["path"].map(source))
    pixels, rows = [], []
    for row in table.drop_duplicates("source").itertuples():
        try:
            pixels.append(resize(read_radiograph(folder / row.path).pixels, (224, 224)))
            rows.append(row)
        except UnreadableError:
            pass
    y = np.array([row.label == "Fractured" for row in rows])
    extractor = get_backbone("MobileNetV2").build((224, 224), str(shared / "weights"))[0]
    batch = np.stack(pixels)[..., None].astype("float32")
    x = np.concatenate([extractor.predict_on_batch(batch[i : i + 32]) for i in range(0, len(batch), 32)])
    half = np.arange(len(y)) % 2 == 0
    model = LogisticRegression(C=0.01, max_iter=2000).fit(x[half], y[half])
    assert roc_auc_score(y[~half], model.decision_function(x[~half])) > 0.7


def test_a_schedule_is_kept_to_and_validation_decides_nothing(separable):
    from xray_helpers.models.head import predict_head, train_head

    x, y = separable
    schedule, settings = [0.01, 0.005, 0.001], build_settings(epochs=40, patience=1)
    one, history = train_head((x, y), (x[0, :60], y[:60]), settings, schedule=schedule)
    assert history["learning_rate"].tolist() == pytest.approx(schedule)
    assert history["best"].tolist() == [False, False, True]
    other, _ = train_head((x, y), (x[0, :60], 1 - y[:60]), settings, schedule=schedule)
    third, unwatched = train_head((x, y), None, settings, one, schedule=schedule)
    assert "val_loss" not in unwatched
    assert predict_head(other, x[0]) == pytest.approx(predict_head(third, x[0]), abs=1e-6)


def test_class_weights_find_the_rare_class():
    from xray_helpers.models.head import class_weights, predict_head, train_head

    rng = np.random.default_rng(1)
    y = (np.arange(440) % 11 == 0).astype(int)
    x = (rng.normal(0, 1, (440, 12)) + 0.35 * y[:, None]).astype("float32")
    settings = build_settings(epochs=15, patience=15)
    balanced = settings.model_copy(update={"class_weight": "balanced"})
    assert class_weights(y, settings) is None
    weights = class_weights(y, balanced)
    assert weights[1] * y.sum() == pytest.approx(weights[0] * (1 - y).sum())
    assert weights[y].sum() == pytest.approx(len(y))
    parts, found, shares = (([x[:330]], y[:330]), (x[330:], y[330:])), {}, {}
    for chosen in (settings, balanced):
        head, history = train_head(*parts, chosen)
        p = predict_head(head, x[330:])
        found[chosen.class_weight], shares[chosen.class_weight] = (p[y[330:] == 1] >= 0.5).mean(), p.mean()
        if chosen is balanced:  # the loss that is watched is weighted too
            w = class_weights(y[:330], chosen)[y[330:]]
            loss = np.average(-np.log(np.where(y[330:] == 1, p, 1 - p)), weights=w)
            assert history.loc[history["best"], "val_loss"].iloc[0] == pytest.approx(loss, rel=0.02)
    assert found["balanced"] > found["none"] + 0.3
    assert shares["none"] == pytest.approx(1 / 11, abs=0.05)  # and these stay calibrated
    assert shares["balanced"] > 0.2


def head_cells():
    """Return the source of the cells of 02 that build, compile and train the head."""
    book = notebooks_folder() / "02_train_model.ipynb"
    sources = ["".join(cell["source"]) for cell in json.loads(book.read_text(encoding="utf-8"))["cells"]]
    return [source for source in sources if "keras.Sequential(" in source or "head.fit(" in source]


@pytest.mark.parametrize("few", [False, True], ids=["validation decides", "folds of train decide"])
@pytest.mark.parametrize("class_weight", ["none", "balanced"])
def test_the_cells_of_the_notebook_train_the_head_of_train_head(separable, few, class_weight, monkeypatch):
    """They give the very weights and history of `train_head`, whether or not folds were trained before."""
    import keras

    import xray_helpers as xh
    from xray_helpers.models.head import copy_head, train_head

    views, y = separable
    settings, logs = build_settings(epochs=6, patience=2, class_weight=class_weight), []
    monkeypatch.setattr(xh.interactive, "watch_training", lambda model: logs.append, raising=False)
    table = pd.DataFrame({"group": range(200), "y_true": y, "fold": np.arange(200) // 2 % 4})
    parts = {"train": table, "validation": table[:40] if few else table[:61]}
    end = len(parts["validation"])
    notebook = {
        "xh": xh,
        "keras": keras,
        "settings": settings,
        "run": SimpleNamespace(seed=settings.seed, model="VGG16"),
        "forward": SimpleNamespace(features=12),
        "parts": parts,
        "x": {"train": views, "validation": [views[0, :end]]},
        "y": {"train": y, "validation": y[:end]},
    }
    cells = head_cells()
    assert len(cells) == 2
    for source in cells:
        exec(source, notebook)
    head, history, schedule = (notebook[name] for name in ("head", "history", "schedule"))
    assert (schedule is not None) == few
    assert logs[-1]["val_loss"] == history["val_loss"].iloc[-1]
    for template in (None, copy_head(head)):
        other, same = train_head((views, y), (views[0, :end], y[:end]), settings, template, schedule=schedule)
        pd.testing.assert_frame_equal(history, same, check_exact=True)
        assert all((a == b).all() for a, b in zip(head.get_weights(), other.get_weights(), strict=True))


def test_a_head_of_ones_own_is_what_repeats_train(separable):
    """A head that a notebook changed is trained again by seeds and folds, and stays as it was."""
    import keras

    from xray_helpers.models.head import build_batches, predict_head
    from xray_helpers.models.resampling import choose_schedule, cross_validate, repeat_seeds

    (x, _), y = separable
    settings = build_settings(epochs=3, repeats=1)
    head = keras.Sequential(
        [keras.Input((12,)), keras.layers.BatchNormalization(), keras.layers.Dense(1, activation="sigmoid")]
    )
    head.compile(keras.optimizers.SGD(0.5), loss="binary_crossentropy", metrics=["accuracy"])
    batches, watched = build_batches(([x], y), (x, y), settings)
    head.fit(batches, validation_data=watched, epochs=2, verbose=0)
    before = predict_head(head, x)
    table = pd.DataFrame(
        {"path": y.astype(str), "group": range(200), "y_true": y, "fold": np.arange(200) // 2 % 4}
    )
    parts = {"validation": (x[:60], y[:60]), "test": (x[60:], y[60:])}
    own = repeat_seeds(([x], y), parts, settings, head=head)
    default = repeat_seeds(([x], y), parts, settings)
    assert own["auroc_test"].item() != default["auroc_test"].item()
    assert len(cross_validate([x], table, settings, head=head)) == 200
    random.seed(5)
    chosen = [choose_schedule([x], table, table[:40], settings, template) for template in (head, None)]
    assert random.random() == random.Random(5).random()  # what is trained next does not depend on it
    assert chosen[0][0] == chosen[1][0] == pytest.approx(settings.learning_rate)
    few = settings.model_copy(update={"epochs": 40, "patience": 3})
    own, default = (choose_schedule([x], table, table[:40], few, template) for template in (head, None))
    assert own.tolist() != default.tolist()  # each head has a schedule of its own
    assert (predict_head(head, x) == before).all()
