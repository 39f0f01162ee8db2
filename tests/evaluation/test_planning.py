import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest, norm

from xray_helpers.evaluation.metrics import compute_metrics
from xray_helpers.evaluation.planning import (
    auroc_half_width,
    describe_plan,
    find_uneven_parts,
    plan_test,
    proportion_half_width,
    show_plan,
)
from xray_helpers.settings import build_settings


def manifest(fractured, intact, per_group=1, train=200):
    """A manifest whose test part has so many images of each class, `per_group` of each patient."""
    rows = [
        (f"t{label}{i}", label, "test", f"g{label}{i // per_group}")
        for label, n in (("Fractured", fractured), ("Non-Fractured", intact))
        for i in range(n)
    ]
    for split, n in (("train", train), ("validation", train // 5)):
        rows += [
            (f"{split}{i}", ("Fractured", "Non-Fractured")[i % 2], split, f"{split}{i}") for i in range(n)
        ]
    table = pd.DataFrame(rows, columns=["path", "label", "split", "group"])
    return table.assign(status="used", source_group=table["path"], counted=True)


def actual_half_widths(positives, negatives, per_group, studies, seed=0):
    """Mean half widths of the intervals that studies of AUROC 0.85 and rates of 0.90 give."""
    rng, widths = np.random.default_rng(seed), []
    group = np.repeat(np.arange((positives + negatives) // per_group), per_group)
    y = (group < positives // per_group).astype(int)
    for _ in range(studies):
        each = rng.normal(size=group.max() + 1)[group]  # images of a group are alike: worth one
        p = norm.cdf(each + y * np.sqrt(2) * norm.ppf(0.85))
        row = [(s["ci_high"] - s["ci_low"]) / 2 for s in [compute_metrics(y, p, 0.5, group)["auroc"]]]
        for label in (1, 0):  # at a rate of 0.90 of this class
            score = np.where(y == label, each, 9.0 - 18 * label)
            cut = norm.cdf(-norm.ppf(0.9)) if label else norm.cdf(norm.ppf(0.9))
            s = compute_metrics(y, norm.cdf(score), cut, group)["recall" if label else "specificity"]
            row.append((s["ci_high"] - s["ci_low"]) / 2)
        widths.append(row)
    return np.mean(widths, axis=0)


@pytest.mark.parametrize(
    ("positives", "negatives", "per_group"),
    [(30, 30, 1), (150, 150, 1), (160, 40, 1), (120, 120, 3), (400, 100, 2)],
)
def test_expected_half_widths_are_those_of_simulated_studies(positives, negatives, per_group):
    plan = plan_test(manifest(positives, negatives, per_group)).set_index("score")["half_width"]
    actual = actual_half_widths(positives, negatives, per_group, 150)
    assert plan[["AUROC", "sensitivity", "specificity"]].to_numpy() == pytest.approx(actual, rel=0.2)


def test_wilson_agrees_with_scipy():
    interval = binomtest(45, 50).proportion_ci(method="wilson")
    assert proportion_half_width(0.9, 50) == pytest.approx((interval.high - interval.low) / 2)


def test_the_needed_number_is_the_smallest_that_is_enough():
    plan = plan_test(manifest(34, 9)).set_index("score")
    needed = plan.loc["sensitivity", "effective_needed"]
    assert proportion_half_width(0.9, needed) <= 0.05 < proportion_half_width(0.9, needed - 1)
    assert plan.loc["sensitivity", "more"] == needed - 34
    total, share = plan.loc["AUROC", "effective_needed"], 34 / 43
    assert auroc_half_width(0.85, total * share, total * (1 - share)) <= 0.05
    assert auroc_half_width(0.85, (total - 1) * share, (total - 1) * (1 - share)) > 0.05


def test_images_of_one_patient_count_as_one():
    alone, four = (plan_test(manifest(80, 80, n)).set_index("score") for n in (1, 4))
    assert four.loc["sensitivity", "effective"] == pytest.approx(20)
    assert four.loc["sensitivity", "half_width"] > 1.5 * alone.loc["sensitivity", "half_width"]
    assert four.loc["sensitivity", "more"] == 4 * (four.loc["sensitivity", "effective_needed"] - 20)


def test_copies_are_not_counted():
    table = manifest(60, 60)
    copies = table[table["split"] == "test"].assign(counted=False)
    pd.testing.assert_frame_equal(
        plan_test(table), plan_test(pd.concat([table, copies.assign(path="c" + copies["path"])]))
    )


def test_the_plan_is_described():
    few = manifest(34, 5)
    plan = plan_test(few)
    text = describe_plan(plan, few)
    assert "holds 34 Fractured and 5 Non-Fractured images" in text
    assert "It is not enough for an interval of AUROC" in text
    assert "more images of other patients" in text
    assert show_plan(plan)["95 % interval"].tolist()[2] == "no interval"
    many = manifest(2000, 2000)
    assert "known within ± 0.05" in describe_plan(plan_test(many), many)
    assert (plan_test(many)["more"] == 0).all()


def _parts(**counts):
    """A manifest of so many (fractured, intact) sources a part, each its own group."""
    rows = [
        (f"{split}{label}{i}", label, split)
        for split, pair in counts.items()
        for label, n in zip(("Fractured", "Non-Fractured"), pair, strict=True)
        for i in range(n)
    ]
    table = pd.DataFrame(rows, columns=["path", "label", "split"])
    return table.assign(
        status="used", group=table["path"], source_group=table["path"], counted=True, folder_split=pd.NA
    )


def test_parts_far_from_their_intended_size_are_reported():
    from xray_helpers.reports.banners import study_banners
    from xray_helpers.reports.display import show_banner

    assert find_uneven_parts(_parts(train=(68, 68), validation=(12, 12), test=(20, 20))) == []
    for test in (2, 9, 40):  # percent of 400 sources
        table = _parts(train=(170 - test * 2, 170 - test * 2), validation=(30, 30), test=(test * 2, test * 2))
        told = [text for text in find_uneven_parts(table) if text.startswith("The test part")]
        assert len(told) == 1
        assert f"{test}%" in told[0]
        assert "20% were asked for" in told[0]
        assert told[0] in show_banner("imagenet", manifest=table).data
        study = {"settings": {"weights": "imagenet", "normalization": "imagenet"}}
        assert ("warn", told[0]) in study_banners(study, table)
    told = find_uneven_parts(_parts(train=(78, 78), validation=(2, 2), test=(20, 20)))
    assert len(told) == 1
    assert told[0].startswith("The validation part holds 2%")
    assert find_uneven_parts(_parts(train=(6, 6), validation=(1, 2), test=(2, 3))) == []  # rounding of few
    given = _parts(train=(160, 160), validation=(20, 20), test=(20, 20))
    assert find_uneven_parts(given.assign(folder_split=given["split"])) == []  # the set's own parts


def test_another_prevalence_is_reported_where_it_is_significant():
    told = find_uneven_parts(_parts(train=(68, 68), validation=(12, 12), test=(36, 4)))
    assert len(told) == 1
    assert told[0].startswith("90% of the test part are Fractured, and 50% of train, more than chance")
    assert find_uneven_parts(_parts(train=(68, 68), validation=(12, 12), test=(24, 16))) == []  # chance
    assert (
        find_uneven_parts(_parts(train=(6800, 6800), validation=(1200, 1200), test=(2100, 1900))) == []
    )  # too little
    told = find_uneven_parts(_parts(train=(68, 68), validation=(2, 22), test=(20, 20)))
    assert "8% of the validation part" in told[0]


def test_giant_patients_who_unbalance_the_parts_are_reported():
    """Three patients with 40 pictures each leave too few for validation and take too many into test."""
    from xray_helpers.data.splits import assign_splits

    labels = ("Fractured", "Non-Fractured")
    rows = [(f"giant{k}", i, labels[0]) for k in range(3) for i in range(40)]
    rows += [(f"p{i}", 0, labels[i % 2]) for i in range(40)]
    table = pd.DataFrame(rows, columns=["group", "image", "label"])
    path = table["group"] + "_" + table["image"].astype(str)
    table = table.assign(path=path, source_group=path, sha256=path, status="readable", folder_split=pd.NA)
    told = find_uneven_parts(assign_splits(table, build_settings(use_subset=1.0)))
    assert [text.split(" of the images")[0] for text in told] == [
        "The test part holds 30%",
        "The validation part holds 7%",
    ]
    assert "not in test (8), where 15% were asked for" in told[1]
