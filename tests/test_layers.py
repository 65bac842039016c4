"""Tests which modules import which, by reading the source of the package."""

import ast
from pathlib import Path

import pytest

import ddpg_jax

PACKAGE = Path(ddpg_jax.__file__).parent
SOURCES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts): ast.parse(path.read_text())
    for path in sorted(PACKAGE.rglob("*.py"))
}

LAYERS = (
    ("fields", "axes", "config", "presets", "sweep", "options", "command_line"),
    ("algorithm",),
    ("environments",),
    ("results",),
    ("training",),
    ("pictures",),
    ("api", "search"),
    ("run", "compare", "evaluate", "render", "export", "merge", "cluster", "tune", "__main__", "__init__"),
)
"""The folders and files of the package: each imports only from its own line and from those above it."""

HOST_LIBRARIES = {"argparse", "csv", "json", "logging", "matplotlib", "os", "pathlib", "pickle", "rich", "safetensors",
                  "shutil", "signal", "subprocess", "sys", "time", "tyro"}  # fmt: skip
"""Libraries for files, processes, time, the command line, the terminal and figures."""


def imports(tree: ast.AST) -> set[str]:
    """Returns the modules that a file imports anywhere, also within functions or only for type checks."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            # `from ddpg_jax.algorithm import replay` names a module, `import add from …replay` does not.
            found |= {str(node.module)} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def inside(name: str) -> set[str]:
    """Returns the modules of the package that a module of it imports."""
    return {other.removeprefix("ddpg_jax.") for other in imports(SOURCES[name])} & set(SOURCES) - {name}


def outside(name: str) -> set[str]:
    """Returns the other packages that a module imports."""
    return {other.split(".")[0] for other in imports(SOURCES[name])} - {"ddpg_jax"}


def layer(name: str) -> int:
    return next(index for index, line in enumerate(LAYERS) if name.split(".")[0] in line)


@pytest.mark.parametrize("name", SOURCES)
def test_imports_run_one_way(name):
    assert [other for other in inside(name) if layer(other) > layer(name)] == []


def test_algorithm_imports_nothing_else_of_the_package_and_nothing_of_the_host():
    for name in SOURCES:
        if name.split(".")[0] == "algorithm":
            assert {other.split(".")[0] for other in inside(name)} <= {"algorithm"}
            assert not outside(name) & HOST_LIBRARIES


def test_no_module_imports_itself_through_others():
    waiting = {name: inside(name) for name in SOURCES}
    while ready := [name for name, others in waiting.items() if not others & set(waiting)]:
        for name in ready:
            del waiting[name]
    assert waiting == {}


def test_gymnax_is_imported_by_one_file():
    assert [name for name in SOURCES if "gymnax" in outside(name)] == ["environments.gymnax"]


def test_values_and_options_need_no_jax():
    for name in LAYERS[0]:
        assert not outside(name) & {"jax", "jaxlib", "flax", "optax"}
