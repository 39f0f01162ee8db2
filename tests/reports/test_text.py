import pandas as pd

from xray_helpers.reports.display import escape, show_table
from xray_helpers.reports.text import describe_border, describe_parts, describe_scores, describe_training
from xray_helpers.settings import build_settings


def test_text_is_shown_as_it_is():
    assert escape("<img src=x onerror=alert(1)> a_b*") == r"&lt;img src=x onerror=alert(1)&gt; a\_b\*"
    assert escape("one's [link](x)") == r"one's \[link\](x)"
    assert "<b>" not in show_table([{"path": "<b>x</b>"}]).data


def test_headings_of_tables_are_words_and_names_of_classes_stay():
    told = show_table([{"auroc_sd": 1, "latency_ms": 1, "Distal_radius": 1, "n": 1, "95 % interval": 1}]).data
    for heading in ("AUROC sd", "latency ms", "Distal_radius", "n", "95 % interval"):
        assert f"<th>{heading}</th>" in told


def test_a_border_that_predicts_the_label_is_called_a_shortcut():
    assert describe_border("keep", {"ci_low": 0.7}) == ""
    assert "the images hold a shortcut" in describe_border(
        "only", {"value": 0.7, "ci_low": 0.6, "ci_high": 0.8}
    )
    assert "not known" in describe_border("only", {"value": 0.5, "ci_low": 0.4, "ci_high": 0.6})
    assert "do not predict the label by more than 0.05" in describe_border(
        "only", {"value": 0.5, "ci_low": 0.48, "ci_high": 0.54}
    )
    assert "compare with a study that keeps them" in describe_border("blank", {"ci_low": 0.4})
    assert "not known" in describe_border("only", {"value": None, "ci_low": None, "ci_high": None})


def test_training_says_what_chose_epochs_and_threshold():
    history = pd.DataFrame({"epoch": [1, 2], "val_loss": [0.5, 0.6], "best": [False, True], "phase": "head"})
    chosen = {
        "threshold": 0.3,
        "rule": "youden",
        "target_sensitivity": 0.95,
        "sources": 80,
        "validation_sources": 14,
        "chosen_on": "train and validation, out of fold",
    }
    by = "The number of epochs, 2, is the median of the best ones over folds of train."
    text = describe_training("VGG16", history, build_settings(epochs=50), chosen, by)
    assert "trained for 2 of at most 50 epochs; epoch 2 is kept" in text
    assert by in text
    assert "from P = 0.300 upwards (Youden's J on train and validation, out of fold)" in text
    wide = chosen | {"uncertain": [0.0, 0.4]}
    text = describe_training("VGG16", history, build_settings(epochs=50), wide, by)
    assert text.endswith("It abstains on all images up to 0.400, and never answers Non-Fractured.")
    assert "on validation" not in text
    assert "on validation" in describe_training(
        "VGG16", history, build_settings(), chosen | {"chosen_on": "validation"}, by
    )


def test_scores_say_whether_the_model_is_better_than_chance():
    def entry(value, low, high):
        return {"value": value, "ci_low": low, "ci_high": high}

    scores = {
        "auroc": entry(0.6, 0.45, 0.75),
        "accuracy": entry(0.5, 0.4, 0.55),
        "recall": entry(0.5, 0.3, 0.7),
        **{"n": 40, "n_groups": 20, "threshold": 0.3, "threshold_rule": "Youden's J", "leak": 0.0},
        **{"tp": 10, "fn": 10},
    }
    text = describe_scores("VGG16", scores, 0.6, out_of_fold=entry(0.7, 0.6, 0.8))
    assert "may or may not be better than chance on test, and is shown to be better than chance on" in text
    assert "accuracy is 0.50 (0.40 to 0.55), which is shown not to be above the 0.60" in text
    assert "It finds 10 of 20 images that are Fractured: sensitivity 0.50" in text
    assert "inflated" not in text
    assert "12% of the test images have a sibling" in describe_scores("VGG16", scores | {"leak": 0.12}, 0.6)


def test_parts_are_disjoint_by_patient_or_source_or_leak():
    table = pd.DataFrame(
        {"path": list("abc"), "group": list("abc"), "patient": list("123"), "status": "used"}
    ).assign(split=["train", "validation", "test"])
    assert describe_parts(table) == "No group is in two parts: disjoint at patient level."
    some = table.assign(patient=["1", None, None])
    assert "patient level for 1 of 3 images, image-source level for the others" in describe_parts(some)
    assert "image-source level, patients unknown" in describe_parts(table.assign(patient=None))
    assert "The split leaks: 1 of 1 test images" in describe_parts(table.assign(group=["a", "b", "a"]))
