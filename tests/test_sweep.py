"""Sweeps: the configurations of a grid, of a random search, and of a list from Python."""

import math
import re

import numpy as np
import pytest

from ddpg_jax.axes import COMMON
from ddpg_jax.config import Config
from ddpg_jax.presets import KERAS, PENDULUM, PRESETS
from ddpg_jax.sweep import SweptConfig, as_swept, expand, preset_of


def values_of(*sweeps, samples=None, seed=0, base=None):
    """The values of all configurations of a sweep, which their configurations have."""
    swept = expand(sweeps, samples, seed, lambda changes: (base or Config()).replace(**changes))
    assert all(getattr(each.config, name) == value for each in swept for name, value in each.values.items())
    return [each.values for each in swept]


def test_grid_has_every_combination():
    assert values_of("actor_lr=3e-4,1e-3", "tau=0.005,0.01,0.02") == [
        {"actor_lr": lr, "tau": tau} for lr in (3e-4, 1e-3) for tau in (0.005, 0.01, 0.02)
    ]
    assert values_of() == [{}]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("batch_size=32,64", [32, 64]),
        ("batch_size=1e2", [100]),
        ("hidden-sizes=64x64,128,none", [(64, 64), (128,), ()]),
        ("critic_hidden_sizes=None,8x8", [None, (8, 8)]),
        ("actor_final_init=None,0.003", [None, 0.003]),
        ("noise=ou,gaussian", ["ou", "gaussian"]),
        ("noise_reset=true,False", [True, False]),
        ("noise_mean=-1, 0.5", [-1.0, 0.5]),
    ],
)
def test_values_have_the_types_of_their_fields(text, expected):
    found = [next(iter(values.values())) for values in values_of(text)]
    assert found == expected
    assert [type(value) for value in found] == [type(value) for value in expected]


def test_random_search_draws_different_configurations_within_their_bounds():
    sweeps = ("actor_lr=loguniform:1e-4,1e-2", "batch_size=uniform:32,256", "tau=0.01,0.1")
    found = values_of(*sweeps, samples=30)
    assert len({tuple(values.items()) for values in found}) == 30
    for values in found:
        assert 1e-4 <= values["actor_lr"] <= 1e-2
        assert float(f"{values['actor_lr']:.4g}") == values["actor_lr"]  # short enough to be typed again
        assert isinstance(values["batch_size"], int)
        assert 32 <= values["batch_size"] <= 256
        assert values["tau"] in (0.01, 0.1)
    assert found == values_of(*sweeps, samples=30)
    assert found != values_of(*sweeps, samples=30, seed=1)


def assert_frequencies(counts, shares):
    """Checks counts against the shares of a multinomial distribution, within five standard deviations."""
    total = sum(counts)
    for found, share in zip(counts, shares, strict=True):
        assert abs(found - total * share) < 5 * math.sqrt(total * share * (1 - share))


@pytest.mark.parametrize(
    ("distribution", "shares"),
    [
        ("uniform:0.5,5.9", [1 / 5] * 5),
        ("loguniform:1,7", [math.log((k + 1) / k) / math.log(8) for k in range(1, 8)]),  # k has all of [k, k + 1)
    ],
)
def test_whole_numbers_are_drawn_alike_or_evenly_over_the_magnitudes(distribution, shares):
    found = [values["n_step"] for values in values_of(f"n_step={distribution}", "tau=uniform:0.1,1", samples=2000)]
    assert {*found} == {*range(1, len(shares) + 1)}
    assert_frequencies([found.count(k) for k in range(1, len(shares) + 1)], shares)


@pytest.mark.parametrize(
    ("field", "distribution", "transform"),
    [
        ("gamma", "uniform:0.99,0.9999", lambda gamma: (gamma - 0.99) / 0.0099),
        ("actor_lr", "loguniform:1e-6,1", lambda lr: math.log10(lr) / 6 + 1),
    ],
)
def test_ranges_are_drawn_evenly_and_finely(field, distribution, transform):
    found = [values[field] for values in values_of(f"{field}={distribution}", samples=800)]
    assert len(set(found)) == 800
    counts, _ = np.histogram([transform(value) for value in found], bins=8, range=(0, 1))
    assert_frequencies(counts.tolist(), [1 / 8] * 8)


@pytest.mark.parametrize(
    ("sweeps", "samples", "message"),
    [
        (["tau"], None, "sweep is 'tau', but must have one of the forms FIELD=VALUE,VALUE,…, FIELD=uniform:LOW,HIGH"),
        (["tua=0.1,0.2"], None, "must name a field of the configuration; did you mean tau?"),
        (["total_steps=10,20"], None, "must not be over total_steps, which all configurations share"),
        (["tau=0.1,0.1"], None, "must give each value once"),
        (["tau=0.1,,0.2"], None, "must not have an empty value"),
        (["tau=0.1,x"], None, "sweep is 'tau=0.1,x': tau is 'x', but must be a number in (0, 1]"),
        (["tau=0.1", "tau=0.2"], None, "sweep is tau=0.1, tau=0.2, but must name each field once"),
        (["batch_size=8,1000"], None, "sweep has the configuration batch_size=1000: replay_capacity is 100, but must"),
        (["hidden_sizes=8xa"], None, "hidden_sizes is [8, 'a'], but must be whole numbers"),
        (["noise=uniform:0,1"], 1, "must list the values of noise, which is not a number"),
        (
            ["tau=normal:0,1"],
            1,
            "must have uniform:LOW,HIGH, loguniform:LOW,HIGH or int:LOW,HIGH with numbers LOW",
        ),
        (["tau=uniform:1,0"], 1, "LOW < HIGH"),
        (["tau=uniform:a,b"], 1, "LOW < HIGH"),
        (["tau=loguniform:0,1"], 1, "must have LOW > 0 for loguniform"),
        (["tau=int:0,1"], 1, "must not be over whole numbers, because tau is a fraction: use uniform"),
        (["n_step=uniform:1.2,1.8"], 1, "must have a whole number from LOW to HIGH"),
        (["tau=uniform:0.1,1"], None, "samples is not given, but must be: tau is drawn from a distribution"),
        (["tau=uniform:0.1,3"], 50, "sweep has the configuration tau="),
        (["tau=0.1,0.2"], 3, "samples is 3, but must be at most the number of different configurations; 2 were found"),
        (["tau=uniform:0.1,1"], 10_001, "sweep has 10,001 configurations, but must have at most 10,000"),
    ],
)
def test_bad_sweep_is_refused(sweeps, samples, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        values_of(*sweeps, samples=samples, base=Config(batch_size=8, replay_capacity=100))


# Configurations from Python


def test_configurations_are_known_by_the_fields_in_which_they_differ():
    configs = [Config(tau=tau, actor_lr=lr, gamma=0.9) for tau, lr in ((0.1, 1e-3), (0.2, 1e-3), (0.2, 1e-4))]
    assert as_swept(configs) == tuple(
        SweptConfig({"actor_lr": config.actor_lr, "tau": config.tau}, config) for config in configs
    )
    assert as_swept(as_swept(configs)) == as_swept(tuple(configs)) == as_swept(configs)


@pytest.mark.parametrize("configs", [PENDULUM, "pendulum", [PENDULUM], SweptConfig({}, PENDULUM)])
def test_one_configuration_is_not_a_sweep(configs):
    assert as_swept(configs) == (SweptConfig({}, PENDULUM),)


def test_presets_are_known_by_their_names():
    same = {name: getattr(PENDULUM, name) for name in COMMON}
    swept = as_swept(["pendulum", PRESETS["td3"].replace(**same), PRESETS["gist"].replace(**same)])
    assert [each.values for each in swept] == [{"preset": "pendulum"}, {"preset": "td3"}, {"preset": "gist"}]
    assert [each.values for each in as_swept([KERAS, KERAS.replace(tau=0.5)])] == [{"tau": KERAS.tau}, {"tau": 0.5}]
    assert {name: preset_of(config.replace(env_id="brax:ant")) for name, config in PRESETS.items()} == {
        name: name for name in PRESETS
    }
    assert preset_of(KERAS.replace(tau=0.5)) == "custom"


@pytest.mark.parametrize(
    ("configs", "message"),
    [
        (["pendulum", "keras"], "total_steps is 6000 and 20000, but must be the same in all configurations"),
        ([Config(), Config(env_args=("g=1",))], "env_args is () and ('g=1',), but must be the same"),
        ("kreas", "preset is 'kreas', but must be one of pendulum, keras"),
        ([], "config is [], but must be a list of at least one configuration"),
        (3, "config is 3, but must be a Config, the name of a preset, or a list of them"),
        ([KERAS, 3], "config is 3, but must be a Config, the name of a preset, or a list of them"),
        ([KERAS, "keras"], "config has equal configurations, but must have each of them once"),
    ],
)
def test_list_that_is_not_a_sweep_is_refused(configs, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        as_swept(configs)
