"""Configurations check themselves, describe themselves, and count updates."""

import dataclasses
import json
import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ddpg_jax.config import Config
from ddpg_jax.presets import (
    CONTINUOUS,
    D4PG,
    GIST,
    GIST_CORRECTED,
    KERAS,
    MOUNTAIN_CAR,
    PAPER,
    PENDULUM,
    PRESETS,
    TD3,
)

ABOVE_ZERO = ([0, 0.0, -1e-3, -1, 1e31, 1e-31], "a finite number > 0")
FROM_ZERO = ([-1e-9, -1, 1e31], "a finite number >= 0")
ANY_NUMBER = ([1e31, -1e31], "a finite number")
NOT_FINITE = ([math.inf, -math.inf, math.nan], "a finite number")
NOT_A_NUMBER = (["1", None, True, [1.0]], "a finite number")
COUNT = ([0, -1, 2**31], "a whole number >= 1")
COUNT_OR_ZERO = ([-1, 2**31], "a whole number >= 0")
NOT_WHOLE = ([1.0, 2.5, "1", True, [1], math.inf, math.nan], "a whole number")
SIZES = ([(0,), (64, -1), (65537,), (1,) * 65], "whole numbers >= 1")
NOT_SIZES = ([64, "64", (64.0,), (True,), ("64",), 1.5], "whole numbers")
DECAY = ([0, 0.0, -0.5, 1.0001, 2], "in (0, 1]")
FRACTION = ([-1e-9, 1.0001, 2], "in [0, 1]")
RATE = ([-1e-9, 1, 1.0, 2], "in [0, 1)")
TRUTH = ([0, 1, "True", None], "True or False")
NAME = (["", "  "], "a name")
NOT_A_NAME = ([1, None, True], "a name")

# Every field: the rules that values break, with the values that break them.
DOMAINS = {
    "env_id": [NAME, NOT_A_NAME],
    "env_args": [([("length",), ("=3",), ("a=1", "b")], "words of the form NAME=VALUE"), (["a=1", 3, (1,)], "texts")],
    "action_repeat": [COUNT, NOT_WHOLE, ([1001], "at most 1000")],
    "final_episodes": [COUNT, NOT_WHOLE],
    "total_steps": [COUNT, NOT_WHOLE],
    "max_episode_steps": [COUNT, NOT_WHOLE],
    "time_limit_terminal": [TRUTH],
    "hidden_sizes": [SIZES, NOT_SIZES, ([None], "whole numbers")],
    "critic_hidden_sizes": [SIZES, NOT_SIZES],
    "critic_observation_sizes": [SIZES, NOT_SIZES, ([None], "whole numbers")],
    "critic_action_sizes": [SIZES, NOT_SIZES, ([None], "whole numbers")],
    "action_bound": [(["relu", "", None, 1], "one of tanh, sigmoid")],
    "hidden_init": [(["zeros", None], "one of glorot_uniform, lecun_normal, fan_in_uniform")],
    "actor_final_init": [ABOVE_ZERO, NOT_FINITE, (["1", True], "a finite number")],
    "critic_final_init": [ABOVE_ZERO, NOT_FINITE, (["1", True], "a finite number")],
    "final_init_biases": [TRUTH],
    "num_critics": [COUNT, NOT_WHOLE],
    "critic_atoms": [COUNT, NOT_WHOLE, ([1002], "at most 1001")],
    "value_min": [ANY_NUMBER, NOT_FINITE, NOT_A_NUMBER],
    "value_max": [ANY_NUMBER, NOT_FINITE, NOT_A_NUMBER],
    "normalize_observations": [TRUTH],
    "max_grad_norm": [ABOVE_ZERO, NOT_FINITE, (["1", True], "a finite number")],
    "n_step": [COUNT, NOT_WHOLE],
    "reward_scale": [ABOVE_ZERO, NOT_FINITE, NOT_A_NUMBER],
    "target_noise": [FROM_ZERO, NOT_FINITE, NOT_A_NUMBER],
    "target_noise_clip": [ABOVE_ZERO, NOT_FINITE, NOT_A_NUMBER],
    "policy_delay": [COUNT, NOT_WHOLE],
    "num_envs": [COUNT, NOT_WHOLE, ([4097], "at most 4096")],
    "random_steps": [COUNT_OR_ZERO, NOT_WHOLE],
    "matmul_dtype": [(["float64", None], "one of float32, bfloat16")],
    "actor_normalization": [(["group", None], "one of none, layer, batch")],
    "critic_normalization": [(["group", None], "one of none, layer, batch")],
    "actor_dropout": [RATE, NOT_FINITE, NOT_A_NUMBER],
    "critic_dropout": [RATE, NOT_FINITE, NOT_A_NUMBER],
    "actor_lr": [ABOVE_ZERO, NOT_FINITE, NOT_A_NUMBER],
    "critic_lr": [ABOVE_ZERO, NOT_FINITE, NOT_A_NUMBER],
    "lr_decay": [DECAY, NOT_FINITE, NOT_A_NUMBER],
    "adam_eps": [ABOVE_ZERO, NOT_FINITE, NOT_A_NUMBER],
    "adam_eps_hat": [TRUTH],
    "actor_l2": [FROM_ZERO, NOT_FINITE, NOT_A_NUMBER],
    "critic_l2": [FROM_ZERO, NOT_FINITE, NOT_A_NUMBER],
    "gamma": [FRACTION, NOT_FINITE, NOT_A_NUMBER],
    "tau": [DECAY, NOT_FINITE, NOT_A_NUMBER],
    "average_tau": [DECAY, NOT_FINITE, NOT_A_NUMBER],
    "batch_size": [COUNT, NOT_WHOLE],
    "replay_capacity": [COUNT, NOT_WHOLE, ([63], "at least batch_size, 64")],
    "sample_with_replacement": [TRUTH],
    "learning_starts": [COUNT_OR_ZERO, NOT_WHOLE, ([50_001], "at most replay_capacity, 50000")],
    "train_every": [COUNT, NOT_WHOLE],
    "updates_per_train": [COUNT, NOT_WHOLE],
    "update_order": [(["actor_first", None], "one of critic_first, together")],
    "noise": [(["pink", None], "one of ou, unaccumulated, gaussian")],
    "noise_theta": [FROM_ZERO, NOT_FINITE, NOT_A_NUMBER],
    "noise_sigma": [FROM_ZERO, NOT_FINITE, NOT_A_NUMBER],
    "noise_dt": [ABOVE_ZERO, NOT_FINITE, NOT_A_NUMBER],
    "noise_mean": [ANY_NUMBER, NOT_FINITE, NOT_A_NUMBER],
    "noise_initial": [ANY_NUMBER, NOT_FINITE, NOT_A_NUMBER],
    "noise_scale": [FROM_ZERO, NOT_FINITE, NOT_A_NUMBER],
    "noise_relative": [TRUTH],
    "noise_decay": [DECAY, NOT_FINITE, NOT_A_NUMBER],
    "noise_reset": [TRUTH],
    "clip_stored_action": [TRUTH],
    "eval_every": [COUNT, NOT_WHOLE],
    "eval_episodes": [COUNT, NOT_WHOLE],
}
REFUSED = [
    pytest.param(field, value, words, id=f"{field}-{str(value)[:20]}")
    for field, rules in DOMAINS.items()
    for values, words in rules
    for value in values
]

# The ends of each domain, which belong to it.
ACCEPTED = {
    "total_steps": [1, 2**31 - 1],
    "max_episode_steps": [None, 1],
    "hidden_sizes": [(), (1,), (65536,), [8, 8]],
    "critic_hidden_sizes": [None, (), (1, 2)],
    "actor_final_init": [None, 1e-30, 1e30],
    "actor_dropout": [0, 0.999],
    "actor_lr": [1e-30, 1],
    "lr_decay": [1e-9, 1],
    "critic_l2": [0, 0.0, 1e30],
    "gamma": [0, 1, 0.0, 1.0],
    "tau": [1e-9, 1],
    "batch_size": [1],
    "replay_capacity": [64],
    "learning_starts": [0, 50_000],
    "train_every": [1],
    "noise_theta": [0],
    "noise_mean": [-5, 1e30],
    "noise_scale": [0],
    "noise_decay": [1],
    "eval_every": [1],
}

# As Config() is written, so that this table does not depend on how the default preset is tuned.
BASE = {"batch_size": 64, "replay_capacity": 50_000}


@pytest.mark.parametrize(("field", "value", "words"), REFUSED)
def test_value_outside_the_domain_is_refused_with_field_value_and_rule(field, value, words):
    with pytest.raises(ValueError, match=f"^{field} is ") as caught:
        Config(**{**BASE, field: value})
    message = str(caught.value)
    # Sizes may be shown as a list, and a whole number where a float belongs as one.
    shown = {
        repr(value),
        str(list(value)) if isinstance(value, tuple) else "",
        repr(float(value)) if type(value) is int else "",
    }
    assert message.split(", but must be")[0].removeprefix(f"{field} is ") in shown - {""}
    assert words in message.split("but must be")[1]
    assert "\n" not in message


@pytest.mark.parametrize("value", [10**400, -(10**400)], ids=["positive", "negative"])
def test_whole_number_too_large_for_a_float_is_refused(value):
    with pytest.raises(ValueError, match=r"^noise_mean is .*, but must be a finite number"):
        Config(noise_mean=value)


@pytest.mark.parametrize(("field", "value"), [(field, value) for field in ACCEPTED for value in ACCEPTED[field]])
def test_ends_of_the_domain_are_accepted(field, value):
    kept = getattr(Config(**{**BASE, field: value}), field)
    assert kept == (tuple(value) if isinstance(value, list) else value)


def test_every_field_has_a_domain_here():
    assert set(DOMAINS) == {field.name for field in dataclasses.fields(Config)}


def test_whole_number_given_for_a_float_becomes_one():
    config = Config(gamma=1, noise_mean=-2)
    assert [type(value) for value in (config.gamma, config.noise_mean)] == [float, float]


def test_replace_checks_again():
    with pytest.raises(ValueError, match=r"^tau is 0\.0, but must be in \(0, 1\]"):
        Config().replace(tau=0.0)
    assert Config().replace(tau=0.5).tau == 0.5


def test_config_is_immutable_and_hashable():
    config = Config(**BASE, hidden_sizes=[8, 8])
    assert hash(config) == hash(Config(**BASE, hidden_sizes=(8, 8)))
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.gamma = 0.5


@pytest.mark.parametrize("preset", PRESETS)
def test_preset_survives_json(preset):
    config = PRESETS[preset]
    assert Config.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_presets_are_the_ones_that_are_documented():
    assert PRESETS == {
        "pendulum": PENDULUM,
        "keras": KERAS,
        "gist": GIST,
        "gist_corrected": GIST_CORRECTED,
        "paper": PAPER,
        "mountain_car": MOUNTAIN_CAR,
        "continuous": CONTINUOUS,
        "td3": TD3,
        "d4pg": D4PG,
    }


def test_fields_that_are_missing_get_their_default():
    assert Config.from_dict({"gamma": 0.5}) == Config(gamma=0.5)


def test_unknown_field_is_refused_by_name():
    with pytest.raises(ValueError, match=r"^learning_rate is not a field of the configuration; known are env_id, "):
        Config.from_dict({"gamma": 0.5, "learning_rate": 1e-3})


def test_wrong_value_in_a_dict_is_refused():
    with pytest.raises(ValueError, match=r"^gamma is 2\.0, but must be in \[0, 1\]"):
        Config.from_dict({"gamma": 2})


@st.composite
def schedules(draw):
    batch = draw(st.integers(1, 9))
    capacity = draw(st.integers(batch, 20))
    return Config(
        batch_size=batch,
        replay_capacity=capacity,
        sample_with_replacement=draw(st.booleans()),
        learning_starts=draw(st.integers(0, capacity)),
        train_every=draw(st.integers(1, 6)),
        updates_per_train=draw(st.integers(1, 4)),
    )


@given(schedules(), st.integers(0, 40))
def test_updates_are_counted_as_a_loop_over_the_steps_makes_them(config, num_steps):
    updates, allowed_from = 0, None
    for step in range(1, 41):
        held = min(step, config.replay_capacity)  # the step's own transition is stored before it learns
        enough = held >= config.learning_starts and (config.sample_with_replacement or held >= config.batch_size)
        if enough and allowed_from is None:
            allowed_from = step
        if enough and (step - 1) % config.train_every == 0 and step <= num_steps:
            updates += config.updates_per_train
    assert config.first_update == allowed_from
    assert config.num_updates(num_steps) == updates


def test_gist_learns_once_its_replay_holds_a_minibatch():
    assert (GIST.first_update, GIST.num_updates(1023), GIST.num_updates(1024), GIST.num_updates(1030)) == (
        1024,
        0,
        1,
        7,
    )


def test_keras_tutorial_learns_from_its_first_step():
    assert (KERAS.first_update, KERAS.num_updates(1), KERAS.num_updates(20_000)) == (1, 1, 20_000)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"value_max": 5.0}, "value_max is 5.0, but must be 0 unless critic_atoms is above 1"),
        ({"value_min": -5.0}, "value_min is -5.0, but must be 0 unless critic_atoms is above 1"),
        ({"critic_atoms": 51}, "value_max is 0.0, but must be above value_min, 0.0, where critic_atoms is above 1"),
        (
            {"num_envs": 3, "total_steps": 10, "eval_every": 3, "replay_capacity": 66},
            "total_steps is 10, but must be a multiple of num_envs, 3, which step side by side",
        ),
        ({"n_step": 65, "replay_capacity": 64}, "n_step is 65, but must be at most replay_capacity, 64"),
    ],
)
def test_switches_that_have_no_meaning_together_are_refused(changes, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        Config(**changes)
