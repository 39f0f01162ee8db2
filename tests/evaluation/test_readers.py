import numpy as np
import pandas as pd
import pytest

from xray_helpers.evaluation.readers import compare_with_readers, describe_readers, load_reads, readers_table
from xray_helpers.settings import InputError


def study(seed, readers=5, n=100, gain=0.0, luck=0.25):
    """A model and readers of the same images; the model is better by `gain` than the average reader."""
    rng = np.random.default_rng(seed)
    y, hard = rng.integers(0, 2, n), rng.normal(size=n) * 0.6
    own = (1.2 + gain) * y + hard + rng.normal(size=n) * 0.8
    paths = [f"{i}.png" for i in range(n)]
    test = pd.DataFrame({"path": paths, "y_true": y, "y_prob": 1 / (1 + np.exp(-own)), "group": np.arange(n)})
    said = []
    for number in range(readers):
        score = rng.normal(1.2, luck) * y + hard + rng.normal(size=n) * 0.8
        said.append(
            pd.DataFrame(
                {"path": paths, "reader": number + 1, "score": score, "call": (score > 0.6).astype(float)}
            )
        )
    return test.assign(y_pred=(own > 0.6).astype(int)), pd.concat(said, ignore_index=True)


@pytest.mark.slow
@pytest.mark.parametrize("readers", [1, 4])
def test_equals_differ_in_few_studies_and_a_better_model_in_many(readers):
    luck = 0.0 if readers == 1 else 0.25
    equal = [
        compare_with_readers(*study(seed, readers, luck=luck)).set_index("score").loc["auroc"]
        for seed in range(200)
    ]
    assert sum(row["p"] < 0.05 for row in equal) <= 19  # 5 % of 200, and three standard errors
    assert all((row["p"] < 0.05) == (row["ci_low"] > 0 or row["ci_high"] < 0) for row in equal)
    better = [
        compare_with_readers(*study(seed, readers, n=300, gain=1.2, luck=luck)).set_index("score")
        for seed in range(20)
    ]
    assert sum(table.loc["auroc", "p"] < 0.05 for table in better) >= 17


def test_rates_by_hand():
    test = pd.DataFrame(
        {
            "path": list("abcd"),
            "y_true": [1, 1, 0, 0],
            "y_pred": [1, 0, 0, 0],
            "y_prob": 0.5,
            "group": range(4),
        }
    )
    reads = pd.DataFrame(
        {
            "path": list("abcd") * 2,
            "reader": [1] * 4 + [2] * 4,
            "call": [1, 1, 1, 0, 0, 1, 0, 0],
            "score": np.nan,
        }
    )
    table = compare_with_readers(test, reads).set_index("score")
    assert table.loc["recall", ["model_value", "reader_value", "difference"]].tolist() == [0.5, 0.75, -0.25]
    assert table.loc["specificity", "difference"] == 0.25
    assert "auroc" not in table.index
    assert table["ci_low"].isna().all()
    assert "not known" in describe_readers(compare_with_readers(test, reads), "VGG16")


def test_only_images_that_all_readers_have_read_count():
    test, reads = study(0)
    some = reads[~((reads["reader"] == 2) & reads["path"].isin(["3.png", "4.png"]))]
    assert set(compare_with_readers(test, some)["n"]) == {98}


def test_the_verdict_has_three_answers():
    def told(low, high, p):
        row = {
            "score": "recall",
            "readers": 3,
            "model_value": 0.8,
            "reader_value": 0.8,
            "difference": (low + high) / 2,
            "ci_low": low,
            "ci_high": high,
            "p": p,
            "n": 90,
            "n_groups": 90,
            "reason": "",
        }
        return describe_readers(pd.DataFrame([row]), "VGG16")

    assert "higher by 0.20" in told(0.1, 0.3, 0.001)
    assert "0.05 or more is ruled out" in told(-0.03, 0.04, 0.8)
    assert "not known" in told(-0.2, 0.3, 0.6)


def test_reads_are_read_or_refused(tmp_path):
    place, known = tmp_path / "reads.csv", pd.Series(["a.png", "b.png"])
    place.write_text(
        "path;reader;call\na.png;Dr. Jones;Fractured\nb.png;Dr. Jones;normal\nb.png;Dr. Adams;1\nz.png;Dr. "
        "Adams;0\n"
    )
    reads = load_reads(place, known)
    assert reads["reader"].tolist() == [2, 2, 1]  # numbers, no names
    assert reads["call"].tolist() == [1, 0, 1]
    assert len(readers_table(compare_with_readers(study(0)[0], study(0)[1]))) == 3
    refused = {
        "path,call\na.png,1\n": "needs the columns",
        "path,reader,call\na.png,1,broke\n": "line 2 is not understood",
        "path,reader,call\nz.png,1,1\n": "names a test image",
        "path,reader,call\na.png,1,1\na.png,1,0\n": "line 3 is a second read",
    }
    for text, words in refused.items():
        place.write_text(text)
        with pytest.raises(InputError, match=words):
            load_reads(place, known)
