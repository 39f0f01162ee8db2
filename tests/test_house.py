"""The plan of the package: which room may import from which, and how long a file may be."""

import ast
import importlib
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import xray_helpers
from xray_helpers.study.folders import notebooks_folder

PACKAGE = Path(xray_helpers.__file__).parent
ROOMS = [line.split()[0] for line in xray_helpers.__doc__.split("\n\n")[-1].splitlines() if line.strip()]
MODULES = sorted(PACKAGE.rglob("*.py"))


def room_of(path):
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def test_the_package_lists_its_rooms():
    there = {
        path.stem for path in PACKAGE.glob("[!_]*") if path.suffix == ".py" or (path / "__init__.py").exists()
    }
    assert there == set(ROOMS)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_modules_import_only_from_rooms_above_theirs(path):
    if path.parent == PACKAGE and path.stem.startswith("__"):
        return
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("xray_helpers."):
            imported = node.module.split(".")[1]
            assert ROOMS.index(imported) <= ROOMS.index(room_of(path)), f"{path} imports {node.module}"


def test_no_module_imports_itself_by_way_of_others():
    imports = {}
    for path in MODULES:
        module = ".".join(["xray_helpers", *path.relative_to(PACKAGE).with_suffix("").parts])
        tree = ast.parse(path.read_text(encoding="utf-8"))
        imports[module] = {n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and n.module}
    done = set()

    def visit(module, above):
        assert module not in above, f"{module} imports itself by way of {above[above.index(module) :]}"
        if module not in done:
            for imported in imports.get(module, ()):
                visit(imported, [*above, module])
            done.add(module)

    for module in imports:
        visit(module, [])


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_file_is_longer_than_400_lines(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400


def test_importing_the_package_takes_no_heavy_library():
    code = "import sys, xray_helpers as xh; xh.evaluation; xh.plots; "
    code += "print(sorted({'tensorflow', 'keras', 'matplotlib', 'ipywidgets', 'pandas'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("path", sorted(notebooks_folder().glob("*.ipynb")), ids=lambda path: path.stem)
def test_notebooks_use_what_the_rooms_export(path):
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    source = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    for room, name in re.findall(r"\bxh\.(\w+)\.(\w+)", source):
        if room != "settings":
            assert name in getattr(xray_helpers, room).__all__, f"xh.{room}.{name}"


@pytest.mark.parametrize("room", [room for room in ROOMS if (PACKAGE / room).is_dir()])
def test_what_a_room_exports_is_there(room):
    module = importlib.import_module(f"xray_helpers.{room}")
    assert module.__doc__
    for name in getattr(module, "__all__", ()):
        assert getattr(module, name) is not None
