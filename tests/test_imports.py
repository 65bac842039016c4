"""Tests that imports run one way: from the commands down to checked values and Algorithm 1."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "ddpg_jax"
ORDER = [
    {"fields"}, {"config", "command_line"}, {"presets"}, {"sweep"}, {"options"}, {"algorithm"}, {"environments"},
    {"results"}, {"training"}, {"pictures"}, {"api"}, {"run", "compare", "evaluate", "render", "export"}, {"merge"},
    {"cluster"}, {"__main__"},
]  # fmt: skip
"""Files and folders of the package; each imports only from those before its own, and from itself."""
LEVEL = {name: level for level, names in enumerate(ORDER) for name in names}
FILES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def place(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(path: Path) -> set[str]:
    """Returns the files and folders of the package from which a file imports, also inside of functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "ddpg_jax":
            rest = node.module.split(".")[1:]
            found |= {rest[0]} if rest else {alias.name for alias in node.names}
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("ddpg_jax.")}
    return found - {"__version__"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_file_imports_only_from_those_before_it(path):
    here = place(path)
    assert {name for name in imported(path) if name != here and LEVEL[name] >= LEVEL[here]} == set()


def test_within_a_folder_no_imports_are_circular():
    for folder in ("algorithm", "environments", "results", "training", "pictures"):
        files = {path.stem: path for path in (PACKAGE / folder).glob("*.py") if path.stem != "__init__"}
        left = {name: _neighbours(path, folder) & files.keys() for name, path in files.items()}
        while left:
            free = {name for name, needs in left.items() if not needs & left.keys()}
            assert free, f"{folder}: {sorted(left)} import one another"
            left = {name: needs for name, needs in left.items() if name not in free}


def _neighbours(path: Path, folder: str) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == f"ddpg_jax.{folder}":
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.startswith(f"ddpg_jax.{folder}."):
            found.add(node.module.split(".")[2])
    return found


def test_algorithm_imports_nothing_else_of_the_package():
    assert set().union(*(imported(path) for path in FILES if place(path) == "algorithm")) == {"algorithm"}
