import pytest
import yaml

from xray_helpers.reports.facts import _facts_of_choices, collect_facts
from xray_helpers.reports.frame import TEMPLATES
from xray_helpers.study.files import write_json


@pytest.mark.parametrize(
    ("name", "settings", "sentence"),
    [
        (
            "training",
            {"epochs": 20},
            "Adam, learning rate 0.001, batch 16, binary cross-entropy, up to 20 epochs",
        ),
        ("training", {}, "on plateaus down to 1e-07."),
        ("training", {"fine_tune_epochs": 3}, "1e-07; then 3 epochs of fine-tuning from "),
        (
            "training",
            {"recipe": "finetune"},
            "1e-07; then 10 epochs of fine-tuning from 1.0, up to a learning ",
        ),
        ("architecture", {}, "P(Fractured) out."),
        ("architecture", {"flips": True}, "out, the mean of those of an image and its mirror image."),
        ("preprocessing", {"resize": "pad"}, "padded to 224 x 224 pixels"),
        ("preprocessing", {"border": "only"}, "own preprocessing. Only border and corners were kept."),
        ("imbalance", {"class_weight": "balanced"}, "Each class has the same weight"),
        ("threshold", {}, "upwards, chosen without test by the largest Youden's J, before test"),
        ("threshold", {"threshold_rule": "fixed"}, "upwards, fixed at 0.5, before test"),
        ("approach", {"border": "only"}, "Control study"),
        ("explanations", {"maps": 0}, "No maps were made."),
        ("subset", {"use_subset": 0.5}, "A share of 0.5 of the groups' images was used."),
    ],
)
def test_settings_are_facts(make_study, name, settings, sentence):
    assert sentence in collect_facts(make_study(**settings))[name]


def test_every_fact_of_the_settings_is_a_finished_sentence(make_study):
    facts = collect_facts(make_study(data="phantoms"))
    for name in yaml.safe_load((TEMPLATES / "facts.yaml").read_text()):
        assert facts[name].endswith("."), name
        assert not [text for text in ("{", "}", "\n", "  ", " .", " ;") if text in facts[name]], name


def test_the_choice_of_epochs_and_threshold_is_a_fact_of_each_model(make_study):
    folder = make_study()
    few = {
        "threshold": 0.3,
        "rule": "youden",
        "chosen_on": "train and validation, out of fold",
        "sources": 80,
        "validation_sources": 14,
    }
    for name, chosen in (("A", few), ("B", few), ("C", few | {"chosen_on": "validation"})):
        write_json(folder / name / "threshold.json", chosen)
        write_json(folder / name / "training.json", {"epochs_by": "The median over folds of train."})
    known = collect_facts(folder)
    facts = _facts_of_choices(folder, ["A", "B"], known)
    assert "on train and validation, out of fold (80 independent sources" in facts["threshold"]
    assert "on validation" not in facts["threshold"]
    assert facts["selection"].startswith("The median over folds of train. Among models")
    mixed = _facts_of_choices(folder, ["A", "B", "C"], known)["threshold"]
    assert "A, B: It was chosen on train and validation" in mixed
    assert "C: It was chosen on validation, and is uncertain" in mixed
