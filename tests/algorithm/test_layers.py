"""Tests which modules import which, and what is public, by reading the source of the package."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import ddpg_jax
from ddpg_jax import algorithm

PACKAGE = Path(ddpg_jax.__file__).parent
FILES = {".".join(path.relative_to(PACKAGE).with_suffix("").parts): path for path in sorted(PACKAGE.rglob("*.py"))}
SOURCES = {name: ast.parse(path.read_text()) for name, path in FILES.items()}

README = (PACKAGE.parent / "README.md").read_text()
LAYERS = [
    re.findall(r"(\w+)(?:/|\.py)(?= )", line)
    for line in README.split("```\nddpg_jax/\n")[1].split("```")[0].splitlines()
]
"""The folders and files of the package, as the README lists them: each imports only from lines above its own."""

INDEPENDENT = LAYERS[:3]
"""Lines that import nothing else of the package."""

CORE = [name for name in SOURCES if name.split(".")[0] in {"algorithm", "config", "presets", "population", "values"}]
"""The compiled core, and the values from which it is built."""

# Libraries of the host's side: files, processes, time, the command line, the terminal, figures.
HOST_LIBRARIES = {
    "argparse",
    "csv",
    "json",
    "logging",
    "matplotlib",
    "os",
    "pathlib",
    "pickle",
    "rich",
    "safetensors",
    "shutil",
    "signal",
    "subprocess",
    "sys",
    "time",
    "tyro",
}


def imports(tree: ast.AST) -> set[str]:
    """Returns the modules that a file imports anywhere, also within functions, or only for type checks."""
    found: set[str] = set()
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "imports name the package"
            module = node.module
            # `from ddpg_jax.algorithm import replay` names a module, `import add from …replay` does not
            found |= {module} | {f"{module}.{alias.name}" for alias in node.names}
        else:
            found |= imports(node)
    return found


def own(modules: set[str]) -> set[str]:
    """Returns those of the imported modules that belong to the package."""
    return {name.removeprefix("ddpg_jax.") for name in modules} & set(SOURCES)


def foreign(modules: set[str]) -> set[str]:
    """Returns the packages of those imported modules that do not belong to this package."""
    return {name.split(".")[0] for name in modules} - {"ddpg_jax"}


def cycle(graph: dict[str, set[str]]) -> list[str]:
    """Returns names that form a cycle, or an empty list."""

    def search(name: str, path: list[str]) -> list[str]:
        if name in path:
            return [*path[path.index(name) :], name]
        if name not in done:
            for other in sorted(graph[name]):
                if found := search(other, [*path, name]):
                    return found
            done.add(name)
        return []

    done: set[str] = set()
    return next((found for name in sorted(graph) if (found := search(name, []))), [])


def test_imports_are_seen_wherever_they_stand():
    source = """
import a.b
from ddpg_jax.algorithm import replay, noise as n
from ddpg_jax.algorithm.agent import init
if TYPE_CHECKING:
    import only_for_types
def f():
    def g():
        import c
    try:
        from d.e import f
    except ImportError:
        pass
"""
    found = imports(ast.parse(source))
    assert own(found) == {"algorithm.replay", "algorithm.noise", "algorithm.agent"}
    assert foreign(found) == {"a", "c", "d", "only_for_types"}


def test_cycle_is_seen():
    assert cycle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]
    assert cycle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


def test_no_module_imports_itself_round_a_corner():
    graph = {name: own(imports(tree)) for name, tree in SOURCES.items()}
    assert cycle(graph) == []


def test_gymnax_is_known_to_one_file():
    assert [name for name, tree in SOURCES.items() if "gymnax" in foreign(imports(tree))] == ["environments.gymnax"]


@pytest.mark.parametrize("name", CORE)
def test_compiled_core_knows_nothing_of_the_host(name):
    assert not foreign(imports(SOURCES[name])) & HOST_LIBRARIES


def line_of(name):
    """Returns the index of the README's line that lists a module."""
    (line,) = [index for index, line in enumerate(LAYERS) if name.split(".")[0] in line]
    return line


def test_each_folder_and_file_stands_on_one_line_of_the_readme():
    there = {name.split(".")[0] for name in SOURCES} - {"__init__"}
    assert sorted(name for line in LAYERS for name in line) == sorted(there)


@pytest.mark.parametrize("name", [name for name in SOURCES if name != "__init__"])
def test_imports_run_one_way(name):
    own_line = line_of(name)
    lines = {other: line_of(other) for other in own(imports(SOURCES[name])) - {"__init__"}}
    assert {other: line for other, line in lines.items() if line > own_line} == {}
    if LAYERS[own_line] in INDEPENDENT:
        assert set(lines.values()) <= {own_line}


def test_configuration_needs_no_jax():
    for name in ("config", "presets"):
        assert not foreign(imports(SOURCES[name])) & {"jax", "jaxlib", "numpy", "flax", "optax"}
    script = "import sys, ddpg_jax, ddpg_jax.config, ddpg_jax.presets, ddpg_jax.run; print('jax' in sys.modules)"
    process = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=PACKAGE.parent
    )
    assert process.stdout == "False\n"


@pytest.mark.parametrize("name", SOURCES)
def test_files_and_functions_are_short(name):
    assert len(FILES[name].read_text().splitlines()) <= 400
    for node in ast.walk(SOURCES[name]):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            docstring = node.body[0] if ast.get_docstring(node) else None
            lines = node.end_lineno - node.lineno + 1
            if docstring is not None:
                lines -= docstring.end_lineno - docstring.lineno + 1
            assert lines <= 60, f"{name}.{node.name}"


def without_docstring(node: ast.AST, where: str) -> list[str]:
    """Returns the public modules, classes, functions and methods in a syntax tree that have no docstring."""
    found = [] if ast.get_docstring(node) else [where]
    for child in node.body:
        if isinstance(child, ast.ClassDef | ast.FunctionDef) and not child.name.startswith("_"):
            if isinstance(child, ast.ClassDef):
                found += without_docstring(child, f"{where}.{child.name}")
            elif not ast.get_docstring(child):
                found.append(f"{where}.{child.name}()")
    return found


@pytest.mark.parametrize("name", SOURCES)
def test_everything_public_says_what_it_is(name):
    assert without_docstring(SOURCES[name], name) == []


def undocumented_fields(body: list[ast.stmt], where: str) -> list[str]:
    """Returns the public constants or fields in a piece of source that no string below them describes."""
    found = []
    for node, below in zip(body, [*body[1:], None], strict=True):
        targets = [node.target] if isinstance(node, ast.AnnAssign) else getattr(node, "targets", [])
        described = isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant)
        names = [target.id for target in targets if isinstance(target, ast.Name) and not target.id.startswith("_")]
        found += [f"{where}.{name}" for name in names if not described]
    return found


def test_undescribed_fields_are_seen():
    source = 'a = 1\n"""A."""\n_b = 2\nc: int = 3\nd = 4\n'
    assert undocumented_fields(ast.parse(source).body, "module") == ["module.c", "module.d"]


@pytest.mark.parametrize("name", CORE)
def test_constants_of_the_core_are_described(name):
    assert undocumented_fields(SOURCES[name].body, name) == []


def test_fields_of_what_is_exported_are_described():
    classes = [
        node for tree in SOURCES.values() for node in tree.body
        if isinstance(node, ast.ClassDef) and node.name in {*ddpg_jax.__all__, *algorithm.__all__, "Episode"}
    ]  # fmt: skip
    assert len(classes) >= 12
    assert [field for node in classes for field in undocumented_fields(node.body, node.name)] == []


def test_public_functions_and_classes_are_documented():
    values = [getattr(package, name) for package in (ddpg_jax, algorithm) for name in package.__all__]
    for value in values:
        if callable(value):
            module = value.__module__.removeprefix("ddpg_jax.")
            (definition,) = [node for node in SOURCES[module].body if getattr(node, "name", None) == value.__name__]
            assert ast.get_docstring(definition), value
