"""The documentation: its Python blocks run, its commands exist, its links lead somewhere, and its site is complete."""

import contextlib
import importlib
import io
import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from unittest import mock

import pytest

import ddpg_jax
from ddpg_jax import algorithm

REPOSITORY = Path(__file__).parent.parent
PAGES = sorted([*REPOSITORY.glob("*.md"), *REPOSITORY.glob("docs/*.md"), *REPOSITORY.glob("benchmarks/*.md")])
WITH_PYTHON = [
    pytest.param(page, marks=pytest.mark.slow if page.name == "extending.md" else ())
    for page in PAGES
    if "```python" in page.read_text()
]
REFUSED = re.compile(r"^\$ python -m ddpg_jax\.(\w+) (.*)\n(error: .*)$", re.MULTILINE)
COMMAND = re.compile(r"(?:python -m ddpg_jax\.)(run|merge|cluster|compare|evaluate|render|export)\b([^\n`#]*)")


def name_of(page):
    return str(page.relative_to(REPOSITORY))


@pytest.mark.parametrize("page", WITH_PYTHON, ids=name_of)
def test_python_blocks_run_in_order(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    for block in re.findall(r"^```python\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL):
        few = block if page.name == "extending.md" else block.replace("seeds=8", "seeds=2")
        exec(compile(few, str(page), "exec"), names)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_flags_in_commands_are_those_of_the_command(page):
    for command, words in COMMAND.findall(REFUSED.sub("", page.read_text())):
        flags = set(re.findall(r"(?<=\s)--[a-z][a-z-]*", words)) - {"--help"}
        assert flags <= flags_of(command), f"{page.name}: {command} {words}"


def ended(command, words):
    """Returns the status of a command that ends before it does anything, and all that it prints."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed), pytest.raises(SystemExit) as stop:
        importlib.import_module(f"ddpg_jax.{command}").main(words)
    return stop.value.code, printed.getvalue()


def test_refused_commands_print_what_the_page_shows(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shown = REFUSED.findall((REPOSITORY / "docs/reliability.md").read_text())
    for command, words, message in shown:
        assert ended(command, words.split()) == (2, f"{message}\n")
    assert shown
    assert not list(tmp_path.iterdir())


@cache
def flags_of(command):
    """Returns the flags that the help of a command names; those of `cluster` are also those of `run`."""
    with mock.patch.dict("os.environ", COLUMNS="200"):
        status, shown = ended(command, ["--help"])
    assert status == 0
    return set(re.findall(r"--[a-z][a-z-]*", shown)) | (flags_of("run") if command == "cluster" else set())


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_to_files_and_headings(page):
    for path, anchor in re.findall(r"\]\(([^)#\s]*)#?([^)\s]*)\)", page.read_text()):
        if not path.startswith("http"):
            target = (page.parent / path) if path else page
            assert target.exists(), f"{page.name} links to {path}"
            assert not anchor or anchor in anchors(target.read_text()), f"{page.name} links to {path}#{anchor}"


def anchors(text):
    lines = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL).splitlines()
    return [re.sub(r"[^\w\- ]", "", line.lstrip("# ").lower()).replace(" ", "-") for line in lines if line[:1] == "#"]


def test_site_is_built_without_a_warning(tmp_path):
    """A broken link is a warning, and so is a docstring that cannot be parsed. This builder writes no pages."""
    pytest.importorskip("sphinx")
    build = [sys.executable, "-m", "sphinx", "--fail-on-warning", "--keep-going", "--quiet", "--builder", "dummy"]
    words = [*build, "-c", str(REPOSITORY / "docs"), str(REPOSITORY), str(tmp_path)]
    process = subprocess.run(words, capture_output=True, text=True, cwd=REPOSITORY)
    assert (process.returncode, process.stderr) == (0, "")


def test_the_reference_shows_what_is_public_and_nothing_else():
    text = (REPOSITORY / "docs/api.md").read_text()
    shown = set(re.findall(r"^   ddpg_jax(?:\.algorithm|\.results)?\.(\w+)$", text, re.MULTILINE))
    assert shown == {*ddpg_jax.__all__, *algorithm.__all__, "statistics"} - {"PRESETS"}
