import numpy as np
import pandas as pd
import pytest

from xray_helpers.evaluation import case_mix


def images(seed, n=120, *, ap=0.5, grey=100.0, prevalence=0.4):
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "path": [f"{i}.png" for i in range(n)],
            "group": [str(i // 2) for i in range(n)],
            "y_true": (rng.random(n) < prevalence).astype(int),
            "status": "used",
            "projection": np.where(rng.random(n) < ap, "AP", "LAT"),
            "mean_grey": rng.normal(grey, 10, n),
        }
    )


def test_shares_and_means_are_compared_in_standard_deviations():
    here, there = images(1), images(2, ap=0.9, grey=120)
    mix = case_mix.compare_case_mix(here, there).set_index(["property", "value"])
    ap = mix.loc[("projection", "AP")]
    shares = [(part["projection"] == "AP").mean() for part in (here, there)]
    assert (ap["study"], ap["there"]) == pytest.approx(tuple(shares))
    spread = np.sqrt(np.mean([share * (1 - share) for share in shares]))
    assert ap["smd"] == pytest.approx((shares[1] - shares[0]) / spread)
    assert ap["study_low"] < ap["study"] < ap["study_high"]
    grey = mix.loc[("mean grey (0 to 255)", "mean")]
    assert grey["smd"] == pytest.approx(2, abs=0.4)
    told = case_mix.describe_case_mix(mix.reset_index())
    assert told.startswith("They differ most, in standard deviations, in mean grey")


def test_without_labels_classes_are_not_compared_and_columns_of_one_set_never():
    mix = case_mix.compare_case_mix(images(1).assign(view="a"), images(2), labelled=False)
    assert set(mix["property"]) == {"projection", "mean grey (0 to 255)"}
    rows = case_mix.case_mix_table(mix)
    assert list(rows[0]) == ["property", "study, n = 120", "there, n = 120", "standardised difference"]


def test_sets_alike_differ_in_nothing_notable():
    mix = case_mix.compare_case_mix(images(1), images(1))
    assert "do they differ notably" in case_mix.describe_case_mix(mix)


def test_manufacturers_of_few_images_are_not_named():
    found = pd.Series(["ALPHA"] * 6 + ["BETA"] * 2 + [None], dtype="string")
    assert case_mix.name_manufacturers(found).fillna("").tolist() == ["ALPHA"] * 6 + ["other"] * 2 + [""]


@pytest.mark.parametrize(("shift", "low", "high"), [(0.0, 0.35, 0.65), (3.0, 0.97, 1.0)])
def test_sets_are_told_apart_where_they_differ(shift, low, high):
    rng = np.random.default_rng(0)
    group = pd.Series(np.arange(150) // 2)
    first, second = rng.normal(size=(150, 20)), rng.normal(size=(150, 20))
    second[:, 0] += shift
    found = case_mix.tell_apart((first, group), (second, group))
    assert low <= found["value"] <= high
    assert (found["n"], found["n_groups"]) == (300, 150)


def test_where_one_set_is_missing_nothing_is_told_apart():
    features = np.zeros((10, 2))
    found = case_mix.tell_apart((features[:0], pd.Series(dtype=str)), (features, pd.Series(range(10))))
    assert found["value"] is None
    unlike = case_mix.compare_unlike(
        pd.DataFrame({"unlike": [], "group": []}), pd.DataFrame({"unlike": [True] * 10, "group": range(10)})
    )
    assert unlike["images"].tolist() == ["there"]
    assert "is not known" in case_mix.describe_domain(found, unlike)


def test_scores_are_given_by_thirds_of_the_distance():
    rng = np.random.default_rng(1)
    table = images(3, 240).assign(distance=rng.random(240))
    far = table["distance"].rank() > 160
    table["y_prob"] = np.where(far, rng.random(240), 0.2 + 0.6 * table["y_true"])
    found = case_mix.score_by_distance(table[["path", "group", "y_true", "y_prob", "distance"]], 0.5)
    assert found["value"].tolist() == ["all images", "near", "middle", "far"]
    assert found["n"].tolist() == [240, 80, 80, 80]
    assert found["auroc"].iloc[1] == 1
    assert found["auroc"].iloc[3] < 0.7
