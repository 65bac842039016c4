"""The documentation as a site: it is built without a warning, and leaves nothing out."""

import re
import subprocess
import sys

import command
import pytest
from test_layers import SOURCES, imports, own

import ddpg_jax

DOCS = command.REPOSITORY / "docs"
MODULES = sorted(name for name in SOURCES if not name.endswith("__init__"))


def test_site_is_built_without_a_warning(tmp_path):
    """A link that leads nowhere is a warning, so is a docstring that cannot be read. This builder writes no pages."""
    pytest.importorskip("sphinx")
    build = [sys.executable, "-m", "sphinx", "--fail-on-warning", "--keep-going", "--quiet", "--builder", "dummy"]
    process = subprocess.run(
        [*build, "-c", DOCS, command.REPOSITORY, tmp_path], capture_output=True, text=True, cwd=command.REPOSITORY
    )
    assert (process.returncode, process.stderr) == (0, "")


def test_each_exported_name_stands_in_the_reference():
    shown = re.findall(r"^   ddpg_jax\.[\w.]+\.(\w+)$", (DOCS / "api.md").read_text(), re.MULTILINE)
    assert sorted([*shown, "PRESETS"]) == sorted(ddpg_jax.__all__)


def layers():
    """The rows of modules in the table of docs/design.md, from the values that a user writes to the commands."""
    table = (DOCS / "design.md").read_text().split("## The layers")[1].split("\n## ")[0]
    rows = [line.split("|")[2] for line in table.splitlines() if line.startswith("| ")][1:]
    return [re.findall(r"`([\w.]+)`", row) for row in rows]


def test_each_module_has_its_layer():
    assert sorted(name for row in layers() for name in row) == MODULES


def test_each_module_imports_from_its_layer_and_those_above():
    rows = layers()
    for level, row in enumerate(rows):
        above = {name for other in rows[: level + 1] for name in other}
        for name in row:
            assert own(imports(SOURCES[name])) - {"__init__"} <= above, name
