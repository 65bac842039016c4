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
from ddpg_jax.presets import GIST, KERAS, PRESETS, preset, tuning_note

NOT_FINITE = [math.inf, -math.inf, math.nan]
NOT_NUMBERS = ["1", None, True, [1.0], *NOT_FINITE]
NOT_WHOLE = [2.5, *NOT_NUMBERS]
POSITIVE = ("a finite number > 0", [0, 0.0, -1e-3, 1e31, 1e-31, *NOT_NUMBERS])
NOT_NEGATIVE = ("a finite number >= 0", [-1e-9, -1, 1e31, *NOT_NUMBERS])
FINITE = ("a finite number", [1e31, -1e31, *NOT_NUMBERS])
COUNT = ("a whole number >= 1", [0, -1, 2**31, *NOT_WHOLE])
COUNT_OR_ZERO = ("a whole number >= 0", [-1, 2**31, *NOT_WHOLE])
SIZES = ("whole numbers >= 1", [(0,), (64, -1), (65537,), (1,) * 65, 64, "64", (64.5,), (True,), ("64",), 1.5])
DECAY = ("a number in (0, 1]", [0, 0.0, -0.5, 1.0001, 2, *NOT_NUMBERS])
FRACTION = ("a number in [0, 1]", [-1e-9, 1.0001, 2, *NOT_NUMBERS])
RATE = ("a number in [0, 1)", [-1e-9, 1, 1.0, 2, *NOT_NUMBERS])
SWITCH = ("True or False", [0, 1, "True", None])


def or_none(rule):
    """The same rule where None is a value, too."""
    return rule[0], [value for value in rule[1] if value is not None]


def one_of(*choices):
    return f"one of {', '.join(choices)}", ["", "other", None, 1]


# Every field: the rule, and values that break it.
RULES = {
    "env_id": ("a name", ["", "  ", 1, None, True]),
    "env_args": ("words of the form NAME=VALUE, each name once",
                 [("length",), ("=3",), ("a=1", "b"), ["a=1", 3, (1,)], ("a=1", "a=2"), "a=1"]),
    "action_repeat": ("at most 1000", [1001, 0, *NOT_WHOLE]),
    "total_steps": COUNT,
    "max_episode_steps": or_none(COUNT),
    "time_limit_terminal": SWITCH,
    "hidden_sizes": (SIZES[0], [*SIZES[1], None]),
    "critic_hidden_sizes": SIZES,
    "critic_observation_sizes": (SIZES[0], [*SIZES[1], None]),
    "critic_action_sizes": (SIZES[0], [*SIZES[1], None]),
    "action_bound": one_of("tanh", "sigmoid"),
    "hidden_init": one_of("glorot_uniform", "lecun_normal", "fan_in_uniform"),
    "actor_final_init": or_none(POSITIVE),
    "critic_final_init": or_none(POSITIVE),
    "final_init_biases": SWITCH,
    "actor_normalization": one_of("none", "layer", "batch"),
    "critic_normalization": one_of("none", "layer", "batch"),
    "actor_dropout": RATE,
    "critic_dropout": RATE,
    "num_critics": (COUNT[0], [65, *COUNT[1]]),
    "critic_atoms": (COUNT[0], [1002, *COUNT[1]]),
    "value_min": FINITE,
    "value_max": FINITE,
    "normalize_observations": SWITCH,
    "matmul_dtype": one_of("float32", "bfloat16"),
    "actor_lr": POSITIVE,
    "critic_lr": POSITIVE,
    "lr_decay": DECAY,
    "adam_eps": POSITIVE,
    "adam_eps_hat": SWITCH,
    "actor_l2": NOT_NEGATIVE,
    "critic_l2": NOT_NEGATIVE,
    "max_grad_norm": or_none(POSITIVE),
    "gamma": FRACTION,
    "n_step": (COUNT[0], [1001, *COUNT[1]]),
    "reward_scale": POSITIVE,
    "target_noise": NOT_NEGATIVE,
    "target_noise_clip": POSITIVE,
    "policy_delay": COUNT,
    "tau": DECAY,
    "batch_size": COUNT,
    "replay_capacity": COUNT,
    "sample_with_replacement": SWITCH,
    "learning_starts": COUNT_OR_ZERO,
    "train_every": COUNT,
    "updates_per_train": COUNT,
    "update_order": one_of("critic_first", "together"),
    "noise": one_of("ou", "unaccumulated", "gaussian"),
    "noise_theta": NOT_NEGATIVE,
    "noise_sigma": NOT_NEGATIVE,
    "noise_dt": POSITIVE,
    "noise_mean": FINITE,
    "noise_initial": FINITE,
    "noise_scale": NOT_NEGATIVE,
    "noise_relative": SWITCH,
    "noise_decay": DECAY,
    "noise_reset": SWITCH,
    "num_envs": (COUNT[0], [4097, *COUNT[1]]),
    "random_steps": COUNT_OR_ZERO,
    "clip_stored_action": SWITCH,
    "ema_tau": DECAY,
    "eval_every": COUNT,
    "eval_episodes": or_none(COUNT),
    "final_episodes": or_none(COUNT),
}  # fmt: skip

# The ends of each rule, which it includes.
ACCEPTED = {
    "total_steps": [1, 2**31 - 1],
    "max_episode_steps": [None, 1],
    "hidden_sizes": [(), (1,), (65536,), [8, 8]],
    "critic_hidden_sizes": [None, (), (1, 2)],
    "actor_final_init": [None, 1e-30, 1e30],
    "actor_dropout": [0, 0.999],
    "lr_decay": [1e-9, 1],
    "critic_l2": [0, 0.0, 1e30],
    "gamma": [0, 1, 0.0, 1.0],
    "replay_capacity": [64],
    "learning_starts": [0, 50_000],
    "noise_mean": [-5, 1e30],
    "eval_episodes": [None, 1],
}


@pytest.mark.parametrize("field", RULES)
def test_value_that_breaks_the_rule_is_refused_with_field_value_and_rule(field):
    rule, values = RULES[field]
    for value in values:
        shown = list(value) if isinstance(value, tuple) else value
        with pytest.raises(ValueError, match=f"^{re.escape(f'{field} is {shown!r}, but must be')} .*{re.escape(rule)}"):
            Config(**{field: value})


def test_every_field_has_its_rule_here():
    assert set(RULES) == {field.name for field in dataclasses.fields(Config)}


@pytest.mark.parametrize(("field", "value"), [(field, value) for field in ACCEPTED for value in ACCEPTED[field]])
def test_ends_of_the_rule_are_accepted(field, value):
    kept = getattr(Config(**{field: value}), field)
    assert kept == (tuple(value) if isinstance(value, list) else value)


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("batch_size", np.int64(64), 64),
        ("batch_size", np.array(64), 64),
        ("batch_size", jnp.int32(64), 64),
        ("batch_size", 64.0, 64),
        ("total_steps", 1e5, 100_000),
        ("actor_lr", np.float32(1e-3), 1e-3),
        ("actor_lr", jnp.float32(1e-3), 1e-3),
        ("actor_lr", np.float64(1e-3), 1e-3),
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


@pytest.mark.parametrize("value", [10**400, -(10**400)], ids=["positive", "negative"])
def test_whole_number_too_large_for_a_float_is_refused(value):
    with pytest.raises(ValueError, match=r"^noise_mean is .*, but must be a finite number"):
        Config(noise_mean=value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"replay_capacity": 63}, "replay_capacity is 63, but must be at least batch_size, 64"),
        (
            {"learning_starts": 50_001},
            "learning_starts is 50001, but must be at most replay_capacity, 50000: the replay never holds more",
        ),
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


def test_replace_checks_again():
    with pytest.raises(ValueError, match=r"^tau is 0\.0, but must be a number in \(0, 1\]"):
        Config().replace(tau=0.0)
    assert Config().replace(tau=0.5).tau == 0.5


def test_config_is_immutable_and_hashable_and_shows_what_was_changed():
    config = Config(hidden_sizes=[8, 8], gamma=1)
    assert hash(config) == hash(Config(hidden_sizes=(8, 8), gamma=1.0))
    assert repr(config) == "Config(hidden_sizes=(8, 8), gamma=1.0)"
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.gamma = 0.5


def test_numbers_of_episodes_depend_on_where_environments_step():
    def numbers(config, on_host):
        resolved = config.resolved(on_host)
        return resolved.eval_episodes, resolved.final_episodes

    assert (numbers(Config(), False), numbers(Config(), True)) == ((64, 512), (8, 32))
    assert numbers(Config(eval_episodes=3, final_episodes=4), True) == (3, 4)
    assert numbers(Config(final_episodes=4), False) == (64, 4)


@pytest.mark.parametrize("name", PRESETS)
def test_preset_survives_json(name, tmp_path):
    config = PRESETS[name]
    assert Config.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    (tmp_path / "fields.json").write_text(json.dumps(config.to_dict()))
    (tmp_path / "config.json").write_text(json.dumps({"config": config.to_dict(), "seed": 3}))
    assert Config.from_json(tmp_path / "fields.json") == Config.from_json(tmp_path / "config.json") == config


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "null", '{"gama": 1}', '{"gamma": 2}', '{"config": 3}'])
def test_file_that_holds_no_configuration_is_refused_by_name(text, tmp_path):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ValueError, match=r"config\.json does not hold a configuration: "):
        Config.from_json(tmp_path / "config.json")


def test_missing_fields_have_their_default_and_unknown_fields_are_refused_by_name():
    assert Config.from_dict({"gamma": 0.5}) == Config(gamma=0.5)
    with pytest.raises(ValueError, match=r"^learning_rate is not a field of the configuration; known are env_id, "):
        Config.from_dict({"gamma": 0.5, "learning_rate": 1e-3})


def test_first_update_waits_for_a_minibatch_where_none_is_drawn_twice():
    assert (GIST.first_update, KERAS.first_update) == (1024, 1)
    assert Config(num_envs=4, eval_every=4, learning_starts=10).loop_steps(10) == 3


def test_unknown_preset_is_refused_by_name():
    assert preset("keras") is KERAS
    with pytest.raises(ValueError, match=r"^preset is 'kreas', but must be one of pendulum, keras, gist, "):
        preset("kreas")


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
        assert (tuning_note(name, PRESETS[name].replace(**other)) is None) == (name in ("paper", "continuous", "td3"))


@pytest.mark.parametrize("name", PRESETS)
def test_values_read_back_from_their_text(name):
    for field, annotation in annotations(Config).items():
        value = getattr(PRESETS[name], field)
        assert checked(field, from_text(format_value(value).split(), annotation), annotation) == value


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
