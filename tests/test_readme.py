"""The README names every parameter and every command there is."""

import re
from pathlib import Path

from xray_helpers.cli import main
from xray_helpers.models.backbones import BACKBONES
from xray_helpers.runner.options import RunOptions
from xray_helpers.settings import PROFILES, Settings

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


def test_parameters_profiles_models_and_commands_are_documented():
    rows = re.findall(r"^\| `(\w+)` \| .* \| (.*) \|$", README, flags=re.MULTILINE)
    for name, field in (Settings.model_fields | RunOptions.model_fields).items():
        assert (name, field.description) in rows
    for word in [*PROFILES, *BACKBONES, *main.commands]:
        assert word in README, word
