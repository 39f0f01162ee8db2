import pytest
import yaml

from xray_helpers.reports.checklist import blank_answers, fill_guidelines, read_answers, read_guidelines
from xray_helpers.reports.facts import collect_facts
from xray_helpers.settings import InputError, build_settings
from xray_helpers.study.files import write_json
from xray_helpers.study.folders import shareable
from xray_helpers.study.machine import provenance


@pytest.fixture
def folder(tmp_path):
    write_json(
        tmp_path / "s" / "study.json", {"settings": shareable(build_settings(name="s")), **provenance()}
    )
    return tmp_path / "s"


def test_every_item_asks_for_something_that_can_be_known():
    book = read_guidelines()
    sizes = {g["name"]: len(g["items"]) for g in book["guidelines"]}
    assert sizes == {"CLAIM": 44, "STARD-AI": 48, "TRIPOD+AI": 52}
    asked = {row[3] for g in book["guidelines"] for row in g["items"]} - {""}
    assert asked == set(book["questions"])
    assert all(row[2] or row[3] for g in book["guidelines"] for row in g["items"])


def test_numbers_of_items_are_those_of_the_guidelines():
    for guideline in read_guidelines()["guidelines"]:
        numbers = [row[0] for row in guideline["items"]]
        assert len(set(numbers)) == len(numbers)
        plain = sorted({int("".join(filter(str.isdigit, number))) for number in numbers})
        assert plain == list(range(1, {"CLAIM": 44, "STARD-AI": 40, "TRIPOD+AI": 27}[guideline["name"]] + 1))


def test_a_study_that_has_not_run_knows_its_settings_only(folder):
    facts = collect_facts(folder)
    assert "Adam, learning rate 0.001" in facts["training"]
    assert "flow" not in facts
    claim = {item.number: item for item in fill_guidelines(folder)[0]["items"]}
    assert claim["25"].state == "filled"
    assert claim["20"].state == "blank"
    assert claim["31"].state == "filled"  # maps are among the settings
    assert claim["44"].state == "blank"
    assert claim["44"].known == []


def test_a_person_fills_and_declines(folder):
    before = fill_guidelines(folder)[0]["counts"]
    (folder / "study.yaml").write_text("funding: none\nregistration: 'n/a: not a trial'\nethics:\n")
    items = {item.number: item for item in fill_guidelines(folder)[0]["items"]}
    assert items["44"].state == "filled"
    assert items["44"].answer == "none"
    assert items["34"].state == "not applicable"
    after = fill_guidelines(folder)[0]["counts"]
    assert after["filled"] == before["filled"] + 1
    assert after["blank"] == before["blank"] - 2
    assert sum(after.values()) == 44


def test_a_blank_form_asks_everything_and_answers_nothing(folder):
    (folder / "study.yaml").write_text(blank_answers())
    assert set(yaml.safe_load(blank_answers())) == set(read_guidelines()["questions"])
    assert read_answers(folder) == {}


@pytest.mark.parametrize(
    ("text", "words"),
    [("fundng: x", "did you mean funding"), ("- a\n", "has no entries"), ("a: [", "is not YAML at line")],
)
def test_what_cannot_be_an_answer_is_told(folder, text, words):
    (folder / "study.yaml").write_text(text)
    with pytest.raises(InputError, match=words):
        read_answers(folder)


def test_how_pictures_are_fitted_is_told_as_it_was(tmp_path):
    settings = build_settings(name="s", resize="pad")
    write_json(tmp_path / "study.json", {"settings": shareable(settings), **provenance()})
    assert "padded to 224 x 224" in collect_facts(tmp_path)["preprocessing"]


def test_what_chose_epochs_and_threshold_is_told_of_each_model(folder):
    from xray_helpers.reports.facts import _facts_of_choices

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
    known = {"selection": "Among models.", "threshold": "Output is P."}
    facts = _facts_of_choices(folder, ["A", "B"], known)
    assert "on train and validation, out of fold (80 independent sources" in facts["threshold"]
    assert "on validation" not in facts["threshold"]
    assert facts["selection"].startswith("The median over folds of train. Among models")
    mixed = _facts_of_choices(folder, ["A", "B", "C"], known)["threshold"]
    assert "A, B: It was chosen on train and validation" in mixed
    assert "C: It was chosen on validation, and is uncertain" in mixed


def test_class_weights_are_told(tmp_path):
    settings = shareable(build_settings(name="w", class_weight="balanced"))
    write_json(tmp_path / "w" / "study.json", {"settings": settings, **provenance()})
    assert "Each class has the same weight" in collect_facts(tmp_path / "w")["imbalance"]
