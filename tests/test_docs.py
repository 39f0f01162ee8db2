"""The README and the pages of docs/: what is generated is up to date, and every link leads somewhere."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from xray_helpers.cli import main
from xray_helpers.models.backbones import BACKBONES
from xray_helpers.runner.options import RunOptions
from xray_helpers.settings import PROFILES, Settings

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))]
OF_THE_SITE = {"readme.md", "contributing.md", "gallery"}  # what docs/hooks.py adds


def load(name):
    spec = importlib.util.spec_from_file_location(name, DOCS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_first_page_is_short_and_names_every_command():
    text = PAGES[0].read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 150
    for command in main.commands:
        assert re.search(rf"\b{command}\b", text), command


@pytest.mark.parametrize("page", load("make_reference").PAGES)
def test_reference_pages_are_what_docs_make_reference_writes(page):
    written = (DOCS / "reference" / page).read_text(encoding="utf-8")
    assert written == load("make_reference").PAGES[page](), "run python docs/make_reference.py"


def test_reference_pages_hold_every_parameter_profile_command_and_backbone():
    text = "\n".join(page.read_text(encoding="utf-8") for page in (DOCS / "reference").glob("*.md"))
    for name, field in (Settings.model_fields | RunOptions.model_fields).items():
        assert f"| `{name}` |" in text
        assert field.description.replace("|", r"\|") in text
    for word in [*PROFILES, *BACKBONES, *main.commands]:
        assert word in text, word


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_and_pictures_of_a_page_exist(page):
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        path, _, anchor = link.partition("#")
        if path.startswith(("http://", "https://", "mailto:")):
            continue
        target = (page.parent / path).resolve() if path else page
        if page.is_relative_to(DOCS) and Path(os.path.relpath(target, DOCS)).parts[0] in OF_THE_SITE:
            continue
        assert target.exists(), f"{page.name} links to {link}"
        if anchor:
            headings = re.findall(r"^#+ (.+)$", target.read_text(encoding="utf-8"), flags=re.MULTILINE)
            slugs = [re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings]
            assert anchor in slugs, f"{page.name} links to {link}"


def test_pictures_say_what_they_show_to_those_who_cannot_see_them():
    for page in PAGES:
        for text, picture in re.findall(r"!\[([^\]]*)\]\(([^)]+)\)", page.read_text(encoding="utf-8")):
            assert len(text) > 30, f"{page.name}: {picture}"


def test_the_site_builds_and_has_no_dead_link(tmp_path):
    if importlib.util.find_spec("material") is None:
        pytest.skip("MkDocs is not installed: make docs")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "-d", str(tmp_path / "site")]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    home = (tmp_path / "site" / "index.html").read_text(encoding="utf-8")
    assert "labels that mean nothing" in home
    assert not re.findall(r'(?:src|href)="(?:https?:)?//[^"]+\.(?:js|css|woff2?)"', home)  # asks no host
