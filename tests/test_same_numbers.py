"""The script that compares two studies finds what differs, and only that."""

import json

import pandas as pd
from same_numbers import main


def write(folder, probability=0.5, auroc=0.9):
    (folder / "VGG16").mkdir(parents=True)
    table = pd.DataFrame({"path": ["a.png"], "y_prob": [probability]})
    table.to_csv(folder / "VGG16" / "predictions_test.csv", index=False)
    scores = {"auroc": {"value": auroc}, "manifest": "a hash of more than numbers"}
    (folder / "VGG16" / "metrics.json").write_text(json.dumps(scores))
    return folder


def test_equal_studies_are_equal_and_others_are_named(tmp_path, capsys):
    one, same = write(tmp_path / "one"), write(tmp_path / "same")
    assert main(one, same) == 0
    assert main(one, write(tmp_path / "other", probability=0.5000001)) == 1
    assert "VGG16/predictions_test.csv: differs in y_prob" in capsys.readouterr().out
    assert main(one, write(tmp_path / "score", auroc=0.8)) == 1
    assert "VGG16/metrics.json: differs in auroc.value" in capsys.readouterr().out
    assert main(tmp_path / "nothing", tmp_path / "nothing") == 1  # no study is no proof
