"""The one line that orders everything: each package imports only from those to its left."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LINE = ["console", "providers", "usage", "gateway", "playground", "config"]


def imported_packages(path):
    """Every project package that the module at ``path`` imports, wherever in it the import stands."""
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names = [node.module]
        for name in names:
            if name.split(".")[0] in LINE:
                yield name.split(".")[0], node.lineno


@pytest.mark.parametrize("package", LINE[:-1])
def test_a_package_imports_only_from_its_left_and_none_the_assembly(package):
    allowed = set(LINE[: LINE.index(package) + 1])
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for path in (ROOT / package).rglob("*.py")
        for name, line in imported_packages(path)
        if name not in allowed
    ]
    assert not wrong
