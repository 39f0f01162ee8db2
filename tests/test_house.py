"""The plan of the package: which room may import from which, and how long a file may be."""

import ast
from pathlib import Path

import pytest

import xray_helpers

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
