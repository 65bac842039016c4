"""Tests that the documentation's site is built without a warning, and leaves nothing out."""

import re
import subprocess
import sys

import command
import pytest

import ddpg_jax
from ddpg_jax import algorithm

DOCS = command.REPOSITORY / "docs"


def test_site_is_built_without_a_warning(tmp_path):
    """A broken link is a warning, and so is a docstring that cannot be parsed. This builder writes no pages."""
    pytest.importorskip("sphinx")
    build = [sys.executable, "-m", "sphinx", "--fail-on-warning", "--keep-going", "--quiet", "--builder", "dummy"]
    process = subprocess.run(
        [*build, "-c", DOCS, command.REPOSITORY, tmp_path], capture_output=True, text=True, cwd=command.REPOSITORY
    )
    assert (process.returncode, process.stderr) == (0, "")


def test_the_reference_shows_what_is_public_and_nothing_else():
    shown = set(
        re.findall(r"^   ddpg_jax(?:\.algorithm|\.results)?\.(\w+)$", (DOCS / "api.md").read_text(), re.MULTILINE)
    )
    assert shown == {*ddpg_jax.__all__, *algorithm.__all__, "statistics"} - {"PRESETS"}
