import pytest

from xray_helpers.settings import build_settings


def test_layers_are_parted_evenly_the_highest_first():
    from xray_helpers.models.optimization import group_layers

    names = [f"layer_{i}" for i in range(12)]
    groups = group_layers(names)
    assert [len(group) for group in groups] == [2, 2, 2, 3, 3]
    assert [name for group in reversed(groups) for name in group] == names
    assert group_layers(["a", "b"]) == [["b"], ["a"]]


@pytest.mark.parametrize(
    ("warmup", "rates"),
    [(0.2, {0: 0, 5: 0.25, 10: 0.5, 20: 1, 60: 0.5, 100: 0}), (0.0, {0: 1, 50: 0.5, 100: 0})],
)
def test_the_rate_rises_in_a_line_and_falls_by_a_cosine(warmup, rates):
    from xray_helpers.models.optimization import build_schedule

    schedule = build_schedule(1.0, 100, build_settings(warmup=warmup))
    for step, rate in rates.items():
        assert float(schedule(step)) == pytest.approx(rate, abs=1e-6)


def test_a_recipe_needs_no_other_parameter():
    assert build_settings().tuning_epochs == 0
    assert build_settings(recipe="finetune").tuning_epochs == 10
    assert build_settings(recipe="finetune", fine_tune_epochs=3).tuning_epochs == 3
    assert build_settings(fine_tune_epochs=3).tuning_epochs == 3
