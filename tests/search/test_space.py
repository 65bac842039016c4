"""The space of a search: how it is read, what Optuna sees of it, and how values move in it."""

import re

import numpy as np
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from ddpg_jax.config import Config
from ddpg_jax.search.space import parse_space

BASE = Config(batch_size=8, replay_capacity=100)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("actor_lr=loguniform:1e-4,1e-2", FloatDistribution(1e-4, 1e-2, log=True)),
        ("--noise-sigma=uniform:0,2", FloatDistribution(0, 2)),
        ("n_step=int:1,5", IntDistribution(1, 5)),
        ("batch_size=loguniform:4,64", IntDistribution(4, 64, log=True)),
        ("hidden-sizes=64x64,128,none", CategoricalDistribution(["64x64", "128", "none"])),
        ("noise=ou,gaussian", CategoricalDistribution(["ou", "gaussian"])),
        ("tau=0.02,0.01", CategoricalDistribution([0.01, 0.02])),
        ("max_grad_norm=None,1", CategoricalDistribution([None, 1.0])),
    ],
)
def test_texts_become_distributions_of_optuna(text, expected):
    (found,) = parse_space(BASE, [text]).distributions().values()
    assert found == expected


def test_values_of_optuna_become_those_of_the_configuration():
    space = parse_space(BASE, ["hidden_sizes=64x64,8", "tau=0.01,0.1", "noise_reset=true,false"])
    config = space.config({"hidden_sizes": "64x64", "tau": 0.1, "noise_reset": True})
    assert config == BASE.replace(hidden_sizes=(64, 64), tau=0.1, noise_reset=True)


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ([], "tune is not given, but must name what to tune"),
        (["tua=0.1,0.2"], "tune is 'tua=0.1,0.2', but must name a field of the configuration; did you mean tau?"),
        (["tau=0.1"], "tune is 'tau=0.1', but must list at least two values"),
        (["tau=uniform:0.1,3"], "tune is 'tau=uniform:0.1,3': tau is 3.0, but must be a number in (0, 1]"),
        (["batch_size=int:8,1000"], "tune is 'batch_size=int:8,1000': replay_capacity is 100, but must be at least"),
    ],
)
def test_bad_texts_are_refused(texts, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        parse_space(BASE, texts)


def test_values_are_multiplied_by_four_fifths_or_five_fourths_or_drawn_again_within_their_range():
    space, rng = parse_space(BASE, ["tau=loguniform:0.009,0.1"]), np.random.default_rng(0)
    moved = np.array([space.move({"tau": 0.01}, rng)["tau"] for _ in range(4000)])
    assert moved.min() == 0.009  # 0.8 x 0.01 is below the range
    assert moved.max() <= 0.1
    shares = [np.mean(moved == 0.009), np.mean(np.isclose(moved, 0.0125))]
    np.testing.assert_allclose(shares, 3 / 8, atol=0.03)  # a quarter is drawn again


def test_choices_move_to_their_neighbours():
    space, rng = parse_space(BASE, ["tau=0.01,0.02,0.03,0.04,0.05"]), np.random.default_rng(0)
    moved = [space.move({"tau": 0.01}, rng)["tau"] for _ in range(2000)]
    counts = [moved.count(value) / 2000 for value in (0.01, 0.02, 0.03, 0.04, 0.05)]
    np.testing.assert_allclose(counts, [3 / 8 + 1 / 20] * 2 + [1 / 20] * 3, atol=0.04)
