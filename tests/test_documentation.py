"""Executes what README and docs show: every Python block, and the flags of every command."""

import re
from pathlib import Path

import command
import pytest

from ddpg_jax import run

REPOSITORY = Path(__file__).parent.parent
PAGES = sorted([REPOSITORY / "README.md", *REPOSITORY.glob("docs/*.md"), *REPOSITORY.glob("benchmarks/*.md")])
FILLED = REPOSITORY / "docs/reliability.md"
"""Some of its commands are meant to be refused; `test_reliability_page.py` runs them."""
RUN = re.compile(r"python -m ddpg_jax\.run ([^\n`#]*)")


def _id(path):
    return path.name if path.parent == REPOSITORY else f"{path.parent.name}/{path.name}"


@pytest.fixture(scope="module")
def folder_of_a_finished_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("documentation")
    assert command.main("--seeds", 2, "--out", folder / "runs" / "my-run").status == 0
    return folder


@pytest.mark.parametrize("page", PAGES, ids=_id)
def test_python_blocks_run(page, folder_of_a_finished_run, monkeypatch):
    monkeypatch.chdir(folder_of_a_finished_run)
    names: dict = {}
    for block in re.findall(r"^```python\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL):
        exec(compile(block, str(page), "exec"), names)


@pytest.mark.parametrize("page", [page for page in PAGES if page != FILLED], ids=_id)
def test_shown_commands_are_understood(page):
    for arguments in RUN.findall(page.read_text()):
        words = arguments.replace("…", "").split()
        if not any(word in ("--resume", "--help") for word in words) and "…" not in arguments:
            run.parse(words)


@pytest.mark.parametrize("page", PAGES, ids=_id)
def test_links_lead_to_files(page):
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.mark.parametrize("page", PAGES, ids=_id)
def test_nothing_stands_there_twice(page):
    """Every heading and every longer paragraph once."""
    blocks = re.split(r"\n\s*\n", page.read_text())
    seen = [block for block in blocks if block.startswith("#") or len(block) > 80]
    assert [block for block in set(seen) if seen.count(block) > 1] == []


@pytest.mark.parametrize("page", PAGES, ids=_id)
def test_links_lead_to_headings(page):
    for path, anchor in re.findall(r"\]\(([^)#\s]*)#([^)]+)\)", page.read_text()):
        if not path.startswith("http"):
            text = (page.parent / path).read_text() if path else page.read_text()
            headings = [re.sub(r"[^\w\- ]", "", line.lower()).replace(" ", "-") for line in _headings(text)]
            assert anchor in headings, f"{page.name} links to {path}#{anchor}"


def _headings(text):
    return re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL), re.MULTILINE)
