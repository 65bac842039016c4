"""Configurations check themselves and come back from JSON; presets know their task."""

import dataclasses
import json
import math
import re

import jax.numpy as jnp
import numpy as np
import pytest

from ddpg_jax.config import Config
from ddpg_jax.fields import annotations, checked, format_value, from_text
from ddpg_jax.presets import GIST, KERAS, PRESETS, tuning_note

NOT_NUMBERS = ["1", True, [1.0], math.inf, -math.inf, math.nan]
NOT_WHOLE = [2.5, *NOT_NUMBERS]
NOT_SIZES = [(0,), (64, -1), (65537,), (1,) * 65, 64, "64", (64.5,), (True,), ("64",), 1.5]
NOT_ARGUMENTS = [("length",), ("=3",), ("a=1", "b"), ["a=1", 3, (1,)], ("a=1", "a=2"), "a=1"]

# Each rule, values that break it, and its fields.
RULES = [
    ("a name", ["", "  ", 1, True], "env_id"),
    ("MODULE:CLASS, a flax.linen.Module", ["", "nets", "nets:", ":Own", "my nets:Own", 3], "actor critic"),
    ("words of the form NAME=VALUE, each name once", NOT_ARGUMENTS, "env_args"),
    ("a whole number >= 1 (at most 1000)", [1001, 0, *NOT_WHOLE], "action_repeat n_step"),
    ("a whole number >= 1 (at most 64)", [65, 0, *NOT_WHOLE], "num_critics"),
    ("a whole number >= 1 (at most 1001)", [1002, 0, *NOT_WHOLE], "critic_atoms"),
    ("a whole number >= 1 (at most 4096)", [4097, 0, *NOT_WHOLE], "num_envs"),
    ("a whole number >= 1 (at most 2147483647)", [0, -1, 2**31, *NOT_WHOLE],
     "total_steps max_episode_steps policy_delay batch_size replay_capacity train_every updates_per_train eval_every "
     "eval_episodes final_episodes"),
    ("a whole number >= 0", [-1, 2**31, *NOT_WHOLE], "learning_starts random_steps"),
    ("True or False", [0, 1, "True"],
     "time_limit_terminal final_init_biases normalize_observations adam_eps_hat decoupled_l2 sample_with_replacement "
     "noise_relative noise_reset clip_stored_action"),
    ("whole numbers >= 1", NOT_SIZES,
     "hidden_sizes critic_hidden_sizes critic_observation_sizes critic_action_sizes"),
    ("a finite number > 0", [0, 0.0, -1e-3, 1e31, 1e-31, *NOT_NUMBERS],
     "actor_final_init critic_final_init actor_lr critic_lr adam_eps max_grad_norm reward_scale target_noise_clip "
     "noise_dt"),
    ("a finite number >= 0", [-1e-9, -1, 1e31, *NOT_NUMBERS],
     "actor_l2 critic_l2 target_noise noise_theta noise_sigma noise_scale"),
    ("a finite number", [1e31, -1e31, 10**400, *NOT_NUMBERS], "value_min value_max noise_mean noise_initial"),
    ("a number in [0, 1)", [-1e-9, 1, 1.0, 2, *NOT_NUMBERS], "actor_dropout critic_dropout"),
    ("a number in [0, 1]", [-1e-9, 1.0001, 2, *NOT_NUMBERS], "gamma"),
    ("a number in (0, 1]", [0, 0.0, -0.5, 1.0001, 2, *NOT_NUMBERS], "lr_decay tau noise_decay ema_tau"),
    ("one of tanh, sigmoid", ["", "other", 1], "action_bound"),
    ("one of dense, residual", ["", "other", 1], "hidden_layers"),
    ("one of glorot_uniform, lecun_normal, fan_in_uniform, orthogonal", ["", "other", 1], "hidden_init"),
    ("one of none, layer, batch", ["", "other", 1], "actor_normalization critic_normalization"),
    ("one of float32, bfloat16", ["", "other", 1], "matmul_dtype"),
    ("one of critic_first, together", ["", "other", 1], "update_order"),
    ("one of ou, unaccumulated, gaussian", ["", "other", 1], "noise"),
]  # fmt: skip

OPTIONAL = {"max_episode_steps", "critic_hidden_sizes", "actor_final_init", "critic_final_init", "max_grad_norm",
            "eval_episodes", "final_episodes", "actor", "critic"}  # fmt: skip
"""Fields that may be None."""


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule[2].split()[0])
def test_value_that_breaks_the_rule_is_refused_with_field_value_and_rule(rule):
    text, values, fields = rule
    for field in fields.split():
        for value in [*values, *([] if field in OPTIONAL else [None])]:
            shown = list(value) if isinstance(value, tuple) else value
            with pytest.raises(
                ValueError, match=f"^{re.escape(f'{field} is {shown!r}, but must be')} .*{re.escape(text)}"
            ):
                Config(**{field: value})


def test_every_field_has_its_rule_here():
    assert sorted(" ".join(fields for _, _, fields in RULES).split()) == sorted(vars(Config()))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_sizes": (8, 9)}, "hidden_sizes is (8, 9), but must be equal sizes: hidden_layers is residual"),
        ({"actor_normalization": "layer"}, "actor_normalization is layer, but must be none: hidden_layers is residual"),
        ({"critic_dropout": 0.1}, "critic_dropout is 0.1, but must be 0.0: hidden_layers is residual"),
    ],
)
def test_residual_layers_have_one_width_and_their_own_normalisation(changes, message):
    assert Config(hidden_layers="residual", hidden_sizes=(8, 8), critic_hidden_sizes=(9,)).critic_hidden_sizes == (9,)
    with pytest.raises(ValueError, match=re.escape(message)):
        Config(hidden_layers="residual", **changes)


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("total_steps", [1, 2**31 - 1]), ("max_episode_steps", [None, 1]), ("hidden_sizes", [(), (65536,), (8, 8)]),
        ("critic_hidden_sizes", [None, ()]), ("actor_final_init", [None, 1e-30, 1e30]), ("actor_dropout", [0, 0.999]),
        ("lr_decay", [1e-9, 1]), ("gamma", [0, 1]), ("noise_mean", [-5, 1e30]), ("learning_starts", [0, 50_000]),
    ],
)  # fmt: skip
def test_ends_of_the_rule_are_accepted(field, values):
    assert [getattr(Config(**{field: value}), field) for value in values] == values


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("batch_size", np.int64(64), 64),
        ("batch_size", np.array(64), 64),
        ("batch_size", jnp.int32(64), 64),
        ("total_steps", 1e5, 100_000),
        ("actor_lr", np.float32(1e-3), 1e-3),
        ("actor_lr", jnp.float32(1e-3), 1e-3),
        ("gamma", 1, 1.0),
        ("hidden_sizes", np.array([64, 32]), (64, 32)),
        ("hidden_sizes", [np.int32(64), 32.0], (64, 32)),
        ("noise_reset", np.bool_(True), True),
    ],
)
def test_numbers_of_numpy_and_jax_and_whole_floats_are_numbers(field, value, expected):
    kept = getattr(Config(**{field: value}), field)
    assert kept == expected
    assert type(kept) is type(expected)
    assert json.dumps(Config(**{field: value}).to_dict())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"replay_capacity": 63}, "replay_capacity is 63, but must be at least batch_size, 64"),
        ({"learning_starts": 50_001},
         "learning_starts is 50001, but must be at most replay_capacity, 50000: the replay never holds more"),
        ({"value_min": -5.0}, "value_min is -5.0, but must be 0 unless critic_atoms is above 1"),
        ({"critic_atoms": 51}, "value_max is 0.0, but must be above value_min, 0.0, where critic_atoms is above 1"),
        ({"num_envs": 3, "total_steps": 10, "eval_every": 3, "replay_capacity": 66},
         "total_steps is 10, but must be a multiple of num_envs, 3, which step side by side"),
        ({"n_step": 65, "replay_capacity": 64}, "n_step is 65, but must be at most replay_capacity, 64"),
    ],
)  # fmt: skip
def test_fields_that_contradict_each_other_are_refused(changes, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        Config(**changes)


def test_more_updates_than_can_be_counted_are_refused():
    """After 2**31 updates the steps that Adam counts are negative, and keras's and gist's weights are NaN."""
    most = 2**31 - 1
    assert KERAS.replace(total_steps=most).total_steps == most
    assert KERAS.replace(total_steps=most - 3, updates_per_train=4, train_every=4).total_steps == most - 3
    for changes in ({"updates_per_train": 2}, {"updates_per_train": 5, "train_every": 4}):
        with pytest.raises(ValueError, match=f"^total_steps is {most}, but must result in at most {most} updates"):
            KERAS.replace(total_steps=most, **changes)


def test_config_is_immutable_and_hashable_and_shows_what_was_changed():
    config = Config(hidden_sizes=[8, 8], gamma=1)
    assert hash(config) == hash(Config(hidden_sizes=(8, 8), gamma=1.0))
    assert repr(config) == "Config(hidden_sizes=(8, 8), gamma=1.0)"
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.gamma = 0.5
    with pytest.raises(ValueError, match=r"^tau is 0\.0, but must be a number in \(0, 1\]"):
        config.replace(tau=0.0)


def test_numbers_of_episodes_depend_on_where_environments_step():
    assert Config().resolved(on_host=False) == Config(eval_episodes=64, final_episodes=512)
    assert Config().resolved(on_host=True) == Config(eval_episodes=8, final_episodes=32)
    assert Config(final_episodes=4).resolved(on_host=True) == Config(eval_episodes=8, final_episodes=4)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"gamma": 2}', "gamma is 2, but must be a number in [0, 1]"),
        ('{"learning_rate": 1e-3}', "learning_rate is not a field of the configuration; known are env_id, "),
        ('{"batch_size": 100, "replay_capacity": 8}', "replay_capacity is 8, but must be at least batch_size, 100"),
        ("[0.9]", "it must be an object with fields of the configuration"),
        ("{'gamma'", "Expecting property name"),
        (None, "No such file or directory"),
    ],
)
def test_file_that_is_not_a_configuration_is_refused_with_its_name_and_the_field(tmp_path, text, message):
    path = tmp_path / "config.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ValueError, match=f"^{re.escape(f'{path} is not a configuration: {message}')}"):
        Config.from_json(path)


def test_fields_that_are_missing_in_a_file_have_their_default(tmp_path):
    (tmp_path / "config.json").write_text('{"gamma": 0.5, "hidden_sizes": [8]}')
    assert Config.from_json(str(tmp_path / "config.json")) == Config(gamma=0.5, hidden_sizes=(8,))


@pytest.mark.parametrize("name", PRESETS)
def test_preset_survives_json_and_the_command_line(name, tmp_path):
    config = PRESETS[name]
    config.to_json(tmp_path / "config.json")
    assert Config.from_json(tmp_path / "config.json") == config
    for field, annotation in annotations(Config).items():
        value = getattr(config, field)
        assert checked(field, from_text(format_value(value).split(), annotation), annotation) == value


def test_first_update_waits_for_a_minibatch_where_none_is_drawn_twice():
    assert (GIST.first_update, KERAS.first_update) == (1024, 1)
    assert Config(num_envs=4, eval_every=4, learning_starts=10).loop_steps(10) == 3


def test_preset_that_is_tuned_for_another_task_says_so():
    """The default preset cuts training episodes after 100 steps, which hides most of an episode of 1,000."""
    other = {"env_id": "brax:ant"}
    note = tuning_note("pendulum", PRESETS["pendulum"].replace(**other))
    assert note.startswith("preset pendulum is tuned for Pendulum-v1, not for brax:ant; ")
    assert "training episodes end after 100 steps (--max-episode-steps)" in note
    assert "from -1000 to 0" in tuning_note("d4pg", PRESETS["d4pg"].replace(**other))
    assert "episodes" not in tuning_note("pendulum", PRESETS["pendulum"].replace(**other, max_episode_steps=None))
    for name in PRESETS:
        assert tuning_note(name, PRESETS[name]) is None
        not_tuned = name in ("paper", "continuous", "td3", "simba")
        assert (tuning_note(name, PRESETS[name].replace(**other)) is None) == not_tuned


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.001, "0.001"), (5e-7, "5e-07"), (1.0, "1"), (0.99012345, "0.99012345"), (64, "64"), ((64, 32), "64x32"),
        ((), "none"), (None, "None"), (("a=1", "b=2"), "a=1 b=2"), (True, "True"), (range(32), "32"),
        (range(512, 1024), "512:1024"),
    ],
)  # fmt: skip
def test_values_are_written_as_the_command_line_takes_them(value, text):
    assert format_value(value) == text
