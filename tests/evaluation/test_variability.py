import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from xray_helpers.evaluation.variability import describe_all_images, describe_spread, summarise
from xray_helpers.settings import build_settings


def test_one_repeat_and_a_score_without_spread_are_described():
    one = pd.DataFrame({"seed": [1], "auroc_test": [0.61]})
    assert describe_spread(
        summarise(one, pd.DataFrame(), {"value": 0.6, "ci_low": None, "ci_high": None})
    ) == ("With one other seed AUROC on test is 0.61.")


@pytest.fixture
def study():
    rng = np.random.default_rng(0)
    y = np.arange(150) % 2
    x = (rng.normal(0, 1, (150, 12)) + 1.2 * y[:, None]).astype("float32")
    table = pd.DataFrame(
        {
            "path": [f"{i}.png" for i in range(150)],
            "group": [str(i // 2) for i in range(150)],
            "y_true": y,
            "fold": (np.arange(150) // 2) % 5,
        }
    )
    return x, table


@pytest.mark.slow
def test_a_head_that_is_trained_again_starts_from_new_weights(study):
    from xray_helpers.models.head import predict_head, train_head

    x, table = study
    y, settings = table["y_true"].to_numpy(), build_settings(epochs=4, patience=1)
    parts = (([x[:100]], y[:100]), (x[100:], y[100:]))
    head, history = train_head(*parts, settings)
    expected = predict_head(head, x)
    train_head(*parts, settings.model_copy(update={"seed": 9}), head)
    assert (predict_head(head, x) != expected).any()
    _, again = train_head(*parts, settings, head)
    pd.testing.assert_frame_equal(history, again)
    assert predict_head(head, x) == pytest.approx(expected, abs=1e-6)


@pytest.mark.slow
def test_seeds_and_folds_show_the_spread(study):
    from xray_helpers.models.resampling import cross_validate, repeat_seeds

    x, table = study
    y, settings = table["y_true"].to_numpy(), build_settings(epochs=4, repeats=2, seed=2**32 - 1)
    parts = {"validation": (x[80:110], y[80:110]), "test": (x[110:], y[110:])}
    seeds = repeat_seeds(([x[:80]], y[:80]), parts, settings)
    assert seeds["seed"].between(0, 2**32 - 1).all()
    assert len({settings.seed, *seeds["seed"]}) == 3
    assert seeds["auroc_test"].between(0.8, 1).all()
    out = cross_validate([x], table, settings)
    assert out["path"].tolist() == table["path"].tolist()
    assert roc_auc_score(out["y_true"], out["y_prob"]) > 0.85
    summary = summarise(seeds, out, {"value": 0.9, "ci_low": 0.8, "ci_high": 0.95})
    assert summary["runs"].tolist() == [1, 2, 5, 1]
    together = summary.iloc[-1]
    assert together["auroc"] == pytest.approx(roc_auc_score(out["y_true"], out["y_prob"]))
    assert (summary["low"] <= summary["auroc"]).all()
    text = describe_spread(summary)
    assert text.startswith("With 2 other seeds AUROC on test lies between")
    assert "Over 5 folds" in text
    assert f"out of fold: {together['auroc']:.2f}" in text


@pytest.mark.slow
def test_no_image_is_predicted_by_a_head_that_saw_its_group(study):
    """Features that only identify the group are useless out of fold."""
    from xray_helpers.models.resampling import cross_validate

    _, table = study
    rng = np.random.default_rng(3)
    label = pd.Series(rng.permutation(np.arange(75) % 2), index=[str(i) for i in range(75)])
    table = table.assign(y_true=table["group"].map(label))
    x = np.repeat(rng.normal(0, 3, (75, 60)), 2, axis=0).astype("float32")
    out = cross_validate([x], table, build_settings(epochs=15, patience=15))
    assert roc_auc_score(out["y_true"], out["y_prob"]) < 0.7


@pytest.mark.slow
def test_missing_repeats_are_reported(study):
    from xray_helpers.models.resampling import cross_validate, repeat_seeds

    x, table = study
    y = table["y_true"].to_numpy()
    seeds = repeat_seeds(([x], y), {"validation": (x, y), "test": (x, y)}, build_settings(repeats=0))
    out = cross_validate(
        [x], table.assign(fold=table["fold"] % 2), build_settings()
    )  # two folds leave none to validate
    assert out.empty
    summary = summarise(seeds, out, {"value": 0.9, "ci_low": 0.8, "ci_high": 0.95})
    assert len(summary) == 1
    assert describe_spread(summary) == "Nothing was repeated: the spread is not known."


@pytest.mark.slow
def test_with_few_validation_sources_folds_of_train_choose_the_epochs(study):
    from xray_helpers.models.head import train_head
    from xray_helpers.models.resampling import choose_schedule, describe_schedule

    x, table = study
    settings = build_settings(epochs=12, patience=2, learning_rate=0.01)
    train, few, many = table.iloc[:100], table.iloc[100:], table.assign(group=table["path"])
    assert few["group"].nunique() == 25
    schedule = choose_schedule([x[:100]], train, few, settings)
    flipped = choose_schedule([x[:100]], train, few.assign(y_true=1 - few["y_true"]), settings)
    assert schedule.tolist() == flipped.tolist()  # validation is not looked at
    best = []
    for fold in range(5):
        mine = (train["fold"] == fold).to_numpy()
        y = train["y_true"].to_numpy()
        _, history = train_head(([x[:100][~mine]], y[~mine]), (x[:100][mine], y[mine]), settings)
        best.append(int(history.loc[history["best"], "epoch"].iloc[0]))
    assert len(schedule) == np.median(best)
    assert "fewer than 50" in describe_schedule(schedule, few)
    assert choose_schedule([x[:100]], train, many, settings) is None
    assert describe_schedule(None, many) == "The epoch kept is the best on validation."
    assert choose_schedule([x[:100]], train.assign(fold=0), few, settings) is None  # nothing to train on
    assert "uncertain" in describe_schedule(None, few)


@pytest.mark.slow
def test_with_a_schedule_two_folds_are_enough_and_seeds_keep_to_it(study):
    from xray_helpers.models.resampling import cross_validate, repeat_seeds

    x, table = study
    schedule, settings = [0.001] * 6, build_settings(epochs=2, repeats=1)
    out = cross_validate([x], table.assign(fold=table["fold"] % 2), settings, schedule)
    assert len(out) == len(table)
    assert roc_auc_score(out["y_true"], out["y_prob"]) > 0.85
    y = table["y_true"].to_numpy()
    parts = {"validation": (x[80:110], y[80:110]), "test": (x[110:], y[110:])}
    flipped = parts | {"validation": (x[80:110], 1 - y[80:110])}
    one, other = (repeat_seeds(([x[:80]], y[:80]), p, settings, schedule) for p in (parts, flipped))
    assert one["auroc_test"].tolist() == other["auroc_test"].tolist()


def test_repeats_of_a_fine_tuned_model_are_attributed_to_heads():
    seeds = pd.DataFrame({"seed": [1, 2], "auroc_test": [0.7, 0.8], "auroc_out_of_fold": [0.74, 0.78]})
    rng, y = np.random.default_rng(0), np.arange(60) % 2
    out = pd.DataFrame(
        {
            "y_true": y,
            "y_prob": np.clip(0.4 * y + rng.uniform(0, 0.6, 60), 0, 1),
            "group": range(60),
            "fold": y,
        }
    )
    auroc = {"value": 0.9, "ci_low": 0.8, "ci_high": 0.95}
    own, tuned = (summarise(seeds, out, auroc, tuned=tuned) for tuned in (False, True))
    assert "not of the fine-tuned model itself" in describe_spread(tuned)
    assert "out of fold (of heads on frozen features)" in describe_all_images(tuned)
    assert "frozen" not in describe_spread(own)
    again = own.set_index("source").loc["other seeds and other folds, all images out of fold"]
    assert (again["auroc"], again["runs"]) == (0.76, 2)
    assert again["sd"] == pytest.approx(0.02828, abs=1e-4)
    assert "with a standard deviation of 0.028 from training and folds alone" in describe_spread(own)
