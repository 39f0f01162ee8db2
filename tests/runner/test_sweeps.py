import json
import re
import subprocess
import sys

import pandas as pd
import pytest

from xray_helpers.runner.ranking import describe_best, rank
from xray_helpers.runner.sweeps import read_sweep
from xray_helpers.settings import InputError


def test_every_combination_is_a_study():
    values = {
        "name": "s",
        "profile": "demo",
        "epochs": 4,
        "jobs": 3,
        "models": ["VGG16"],
        "sweep": {"seed": [1, 2, 3], "learning_rate": [0.1, 0.01]},
    }
    name, points, studies, running = read_sweep(values)
    assert (name, len(points), running) == ("s", 6, {"jobs": 3})
    assert points[1] == {"seed": 1, "learning_rate": 0.01}
    assert studies[1].name == "s/seed=1,learning_rate=0.01"
    assert {(study.epochs, study.data, study.models) for study in studies} == {(4, "phantoms", ("VGG16",))}
    _, _, studies, _ = read_sweep(
        {"sweep": {"models": ["VGG16", "ResNet50"], "patient_pattern": ["(p/.)", ""]}}
    )
    assert [study.models for study in studies] == [("VGG16",), ("VGG16",), ("ResNet50",), ("ResNet50",)]
    sweep = read_sweep({"sweep": {"models": ["ConvNeXtTiny", "hub:/home/me/vit", "file:/home/me/net.keras"]}})
    assert [study.models for study in sweep.studies] == [("ConvNeXtTiny",), ("vit",), ("net",)]
    assert "/home/me" not in repr(sweep.points) + repr([study.name for study in sweep.studies])
    assert len({study.name for study in studies}) == 4
    assert all(study.name.count("/") == 1 for study in studies)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({}, "needs lines such as"),
        ({"sweep": {"seed": 3}}, "must be a list"),
        ({"sweep": {"seed": [1, 1]}}, "different values"),
        ({"sweep": {"sead": [1]}}, "did you mean seed"),
        ({"sweep": {"jobs": [1, 2]}}, "changes no result"),
        ({"sweep": {"data": ["a", "b"]}}, "run a study of each"),
        ({"sweep": {"weights": ["imagenet", "/home/me/w"]}}, "as words alone"),
        ({"seed": 7, "sweep": {"seed": [1, 2]}}, "both swept and given"),
        ({"sweep": {"epochs": [1, -1]}}, "epochs = -1"),
        ({"epoch": 3, "sweep": {"seed": [1]}}, "did you mean epochs"),
        ({"sweep": {"seed": list(range(40)), "epochs": list(range(1, 40))}}, "more than 1000"),
    ],
)
def test_a_file_that_cannot_be_used_is_a_sentence(values, words):
    with pytest.raises(InputError, match=words):
        read_sweep(values)


def test_the_best_is_a_mean_over_seeds_by_validation(tmp_path):
    rows = [
        ("a", "VGG16", 1, 0.1, 0.99),
        ("b", "VGG16", 2, 0.1, 0.51),
        ("c", "VGG16", 1, 0.2, 0.80),
        ("d", "VGG16", 2, 0.2, 0.84),
    ]
    table = pd.DataFrame(rows, columns=["study", "model", "seed", "learning_rate", "validation_auroc"])
    ranking, best = rank(table, ["seed", "learning_rate"])
    assert ranking["learning_rate"].tolist() == [0.2, 0.1]  # the luckiest seed does not win
    assert ranking["validation_auroc"].tolist() == pytest.approx([0.82, 0.75])
    assert ranking["sd"].iloc[0] == pytest.approx(0.0282843, rel=1e-4)
    assert best["study"].tolist() == ["c", "d"]
    for study, value in (("c", 0.7), ("d", 0.6)):
        (tmp_path / study / "VGG16").mkdir(parents=True)
        scores = {"n": 50, "auroc": {"value": value, "ci_low": 0.5, "ci_high": 0.9}}
        (tmp_path / study / "VGG16" / "metrics.json").write_text(json.dumps(scores))
    told = describe_best(ranking, best, tmp_path / "sweep")
    assert (
        "Validation prefers VGG16, learning_rate = 0.2: AUROC 0.82 (standard deviation 0.03 over 2 seeds)"
        in told
    )
    assert "On test it reaches 0.70 (0.50 to 0.90), n = 50; 0.60" in told
    told = describe_best(ranking, best, tmp_path / "sweep", ended=False)
    assert "0.70" not in told  # which is first may change yet
    assert describe_best(*rank(table.head(0), ["seed"]), tmp_path).startswith("No study")
    tied = rank(table.assign(validation_auroc=1.0), ["seed", "learning_rate"])
    assert "as 1 more of 2 do: it cannot tell them apart" in describe_best(*tied, tmp_path, ended=False)


@pytest.mark.slow
def test_a_sweep_of_the_real_series_explores_once_a_seed_and_sees_each_picture_once(root, phantom_csv):
    fixed = {
        "name": "heads",
        "data": str(phantom_csv),
        "weights": "random",
        "models": ["MobileNetV2"],
        "img_size": [64, 64],
        "use_subset": 1.0,
        "epochs": 2,
        "repeats": 0,
        "maps": 0,
    }
    (root / "heads.yaml").write_text(
        json.dumps(fixed | {"sweep": {"seed": [1, 2], "learning_rate": [0.01, 0.001]}})
    )
    command = [sys.executable, "-m", "xray_helpers", "sweep", "heads.yaml"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=root)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.strip() == "reports/heads/index.html"
    studies = sorted((root / "reports" / "heads").glob("seed=*"))
    assert len(studies) == 4
    used = pd.concat([pd.read_csv(study / "manifest.csv").query("status == 'used'") for study in studies])
    computed = [int(number) for number in re.findall(r"(\d+) pictures and views computed now", done.stderr)]
    assert len(computed) == 4
    assert sum(computed) == used["sha256"].nunique()
    assert done.stderr.count("01_data_exploration as in heads/seed=") == 2
    table = pd.read_csv(root / "reports" / "heads" / "sweep.csv")
    assert table["validation_auroc"].between(0, 1).all()
    assert not [column for column in table if "test" in column]
    assert (
        "Validation prefers MobileNetV2, learning_rate = 0.0"
        in (root / "reports" / "heads" / "index.html").read_text()
    )
    again = subprocess.run(command, capture_output=True, text=True, check=False, cwd=root)
    assert (again.returncode, again.stdout) == (0, done.stdout)
    assert "Nothing to do: all 4 studies of heads are complete." in again.stderr
    (studies[0] / "MobileNetV2" / "metrics.json").unlink()
    again = subprocess.run(command, capture_output=True, text=True, check=False, cwd=root)
    assert again.returncode == 0
    assert again.stderr.count(" kept: ") == 23
