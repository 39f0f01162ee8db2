import re

import pytest
import yaml

from xray_helpers.reports.checklist import (
    blank_answers,
    fill_guidelines,
    read_answers,
    read_guidelines,
    write_checklist,
)
from xray_helpers.reports.facts import collect_facts
from xray_helpers.settings import InputError


@pytest.fixture
def new_study(make_study):
    """A study of which no step has run."""
    return make_study(data="local")


def test_every_item_asks_for_something_that_can_be_known(new_study):
    book = read_guidelines()
    rows = [row for guideline in book["guidelines"] for row in guideline["items"]]
    assert {guideline["name"]: len(guideline["items"]) for guideline in book["guidelines"]} == {
        "CLAIM": 44,
        "STARD-AI": 48,
        "TRIPOD+AI": 52,
    }
    assert {row[3] for row in rows} - {""} == set(book["questions"])
    assert all(row[2] or row[3] for row in rows)


def test_numbers_of_items_are_those_of_the_guidelines():
    for guideline in read_guidelines()["guidelines"]:
        numbers = [row[0] for row in guideline["items"]]
        assert len(set(numbers)) == len(numbers)
        plain = sorted({int("".join(filter(str.isdigit, number))) for number in numbers})
        assert plain == list(range(1, {"CLAIM": 44, "STARD-AI": 40, "TRIPOD+AI": 27}[guideline["name"]] + 1))


def test_a_study_that_has_not_run_knows_only_its_settings(new_study):
    assert "flow" not in collect_facts(new_study)
    claim = {item.number: item for item in fill_guidelines(new_study)[0]["items"]}
    assert claim["25"].state == "filled"
    assert claim["20"].state == "blank"
    assert claim["31"].state == "filled"  # maps are among the settings
    assert claim["44"].state == "blank"
    assert claim["44"].known == []


def test_a_person_answers_and_declines(new_study):
    before = fill_guidelines(new_study)[0]["counts"]
    (new_study / "study.yaml").write_text("funding: none\nregistration: 'n/a: not a trial'\nethics:\n")
    items = {item.number: item for item in fill_guidelines(new_study)[0]["items"]}
    assert items["44"].state == "filled"
    assert items["44"].answer == "none"
    assert items["34"].state == "not applicable"
    after = fill_guidelines(new_study)[0]["counts"]
    assert after["filled"] == before["filled"] + 1
    assert after["blank"] == before["blank"] - 2
    assert sum(after.values()) == 44


def test_a_blank_form_asks_everything_and_answers_nothing(new_study):
    (new_study / "study.yaml").write_text(blank_answers())
    assert set(yaml.safe_load(blank_answers())) == set(read_guidelines()["questions"])
    assert read_answers(new_study) == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [("fundng: x", "did you mean funding"), ("- a\n", "has no entries"), ("a: [", "is not YAML at line")],
)
def test_invalid_answers_are_refused(new_study, text, message):
    (new_study / "study.yaml").write_text(text)
    with pytest.raises(InputError, match=message):
        read_answers(new_study)


def test_the_page_counts_items_and_shows_what_is_wrong_with_answers(folder):
    page = write_checklist(folder).read_text()
    row = re.search(r"STARD-AI, 2025</a></th><td>(\d+)</td><td>(\d+)</td><td>(\d+)</td><td>48</td>", page)
    assert sum(map(int, row.groups())) == 48
    assert "found: 8" in page
    assert "&lt;img src=x onerror=alert(1)&gt; 8" in page  # the mode of the files
    (folder / "study.yaml").write_text("fundng: me")
    assert "did you mean funding" in write_checklist(folder).read_text()
