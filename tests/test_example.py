"""`examples/ddpg.py`: it is short, needs only the algorithm and the environments, and learns."""

import ast
import importlib.util
import re

import pytest
from command import REPOSITORY
from test_layers import imports

EXAMPLE = REPOSITORY / "examples/ddpg.py"


@pytest.fixture(scope="module")
def example():
    spec = importlib.util.spec_from_file_location("example_ddpg", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_line_is_printed_for_each_episode_and_one_for_the_greedy_return(example, capsys):
    greedy_return = example.main(num_episodes=7, seed=3)
    *episodes, last = capsys.readouterr().out.splitlines()
    assert [int(re.match(r"episode +(\d+): return +-\d+\.\d in 100 steps", line)[1]) for line in episodes] == [
        *range(1, 8)
    ]
    assert last == f"greedy return: {greedy_return:.1f} in 200 steps, mean of 64 start states"
    assert -2_000 < greedy_return < -100


def test_it_is_about_a_hundred_lines_that_use_only_algorithm_and_environments():
    text = EXAMPLE.read_text()
    assert len(text.splitlines()) <= 120
    used = {name.split(".")[1] for name in imports(ast.parse(text)) if name.startswith("ddpg_jax.")}
    assert used == {"algorithm", "environments"}


def test_its_comments_name_the_lines_of_algorithm_1():
    text = EXAMPLE.read_text()
    for number in (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 15):
        assert re.search(rf"# .*\b{number}\b.*:", text), number


@pytest.mark.slow
def test_it_learns_for_every_one_of_four_seeds(example):
    """The optimum is about -137; an agent that does nothing gets about -1,200."""
    assert all(example.main(seed=seed) > -200 for seed in range(11, 15))
