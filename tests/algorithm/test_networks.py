"""Compares the networks with their descriptions: layers, initialisation, normalisation, dropout, ReLU."""

import re
from dataclasses import replace

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from parity_numpy import flat, layers_forward, perturbed
from toy_environments import small_config

from ddpg_jax.algorithm import agent, networks
from ddpg_jax.algorithm.types import AgentState, Transition
from ddpg_jax.presets import PRESETS
from ddpg_jax.training.setup_factory import make_algorithm, make_hyperparameters

KEY = jax.random.key(0)


def layers_of(params, *parts):
    return [f"{part}/{layer}" for part in parts for layer in sorted(params.get(part, {}))]


@pytest.mark.parametrize("sizes", [(), (16, 3), (17, 3)])
def test_networks_compute_their_layers_whether_narrow_or_wide(sizes):
    algorithm = make_algorithm(small_config(hidden_sizes=sizes, actor_final_init=None), (-2.0,), (2.0,))
    state = jax.tree.map(jnp.float32, perturbed(agent.init(KEY, jnp.zeros(3), algorithm=algorithm), 0.7))
    draw = np.random.default_rng(0)
    observation, action = (draw.normal(size=(7, size)).astype(np.float32) for size in (3, 1))
    values = jax.jit(algorithm.critic.apply)(state.critic, observation, action)
    layers = layers_of(state.critic["params"], "trunk", "final")
    inputs = np.concatenate([observation, action], axis=1)
    expected, _ = layers_forward(flat(state.critic["params"]), layers, inputs)
    np.testing.assert_allclose(values, expected[:, 0], rtol=1e-4, atol=1e-5)
    alone = jax.jit(algorithm.critic.apply)(state.critic, observation[0], action[0])
    np.testing.assert_allclose(alone, values[0], rtol=1e-4, atol=1e-5)
    actions = jax.jit(algorithm.actor.apply)(state.actor, observation)
    layers = layers_of(state.actor["params"], "hidden", "final")
    expected, _ = layers_forward(flat(state.actor["params"]), layers, observation)
    np.testing.assert_allclose(actions, 2 * np.tanh(expected), rtol=1e-4, atol=1e-5)


# The sources' networks on Pendulum, whose observation has 3 entries and whose action has 1.
SHAPES = {
    "keras": (
        {"hidden": [(3, 256), (256, 256)], "final": [(256, 1)]},
        {
            "observation_branch": [(3, 16), (16, 32)],
            "action_branch": [(1, 32)],
            "trunk": [(64, 256), (256, 256)],
            "final": [(256, 1)],
        },
    ),
    "gist": (
        {"hidden": [(3, 8), (8, 8), (8, 8)], "final": [(8, 1)]},
        {"trunk": [(4, 8), (8, 8), (8, 8)], "final": [(8, 1)]},
    ),
    "paper": (
        {"hidden": [(3, 400), (400, 300)], "final": [(300, 1)]},
        {"observation_branch": [(3, 400)], "trunk": [(401, 300)], "final": [(300, 1)]},
    ),
}


@pytest.fixture(scope="module")
def sources() -> dict[str, AgentState]:
    """A new agent with the preset of each source."""
    return {
        name: agent.init(KEY, jnp.zeros(3), algorithm=make_algorithm(PRESETS[name], (-2.0,), (2.0,))) for name in SHAPES
    }


@pytest.mark.parametrize("preset", SHAPES)
def test_networks_have_the_layers_of_their_source(sources, preset):
    for variables, expected in zip((sources[preset].actor, sources[preset].critic), SHAPES[preset], strict=True):
        shapes: dict[str, list] = {}
        for name, leaf in sorted(flat(variables["params"]).items()):
            if name.endswith("kernel"):
                shapes.setdefault(name.split("/")[0], []).append(leaf.shape)
        assert shapes == expected


# Initialisation


def assert_uniform(values, bound):
    """Asserts that values are within the bounds, have both signs, and the variance of a uniform one, bound^2 / 3."""
    values = np.ravel(values)
    assert np.abs(values).max() <= bound
    assert values.min() < -0.9 * bound
    assert values.max() > 0.9 * bound
    # The standard error of the variance of a uniform distribution is bound^2 / 3 sqrt(.8 / n).
    assert abs(np.mean(values**2) - bound**2 / 3) < 5 * bound**2 / 3 * np.sqrt(0.8 / len(values))


def test_last_kernel_is_drawn_from_both_signs_of_its_interval(sources):
    final = sources["keras"].actor["params"]["final"]["Dense_0"]
    assert_uniform(final["kernel"], 0.003)
    assert not final["bias"].any()


def test_glorot_uniform_has_its_variance_and_zero_biases(sources):
    """It draws from U(± sqrt(6 / (fan in + fan out))), also the last layer without an interval of its own."""
    params = sources["keras"].actor["params"]["hidden"], sources["keras"].critic["params"]["final"]
    layers = [(params[0]["Dense_0"], 3 + 256), (params[0]["Dense_1"], 256 + 256), (params[1]["Dense_0"], 256 + 1)]
    for layer, fans in layers:
        assert_uniform(layer["kernel"], np.sqrt(6 / fans))
        assert not layer["bias"].any()


def test_lecun_normal_has_its_variance_and_zero_biases():
    variables = networks.Hidden((256,), "lecun_normal").init(KEY, jnp.zeros((1, 3)), False)
    layer = variables["params"]["Dense_0"]
    assert abs(np.std(layer["kernel"]) - 0.577) < 5 * 0.577 / np.sqrt(2 * 768)  # 1 / sqrt(3)
    assert not layer["bias"].any()


# Normalisation and dropout


@pytest.mark.parametrize(("normalization", "same"), [("layer", True), ("none", False)])
def test_layer_norm_removes_the_scale_of_a_layer(normalization, same):
    hidden = networks.Hidden((20,), normalization=normalization)
    x = jax.random.normal(jax.random.key(1), (5, 3))
    variables = hidden.init(KEY, x, False)
    scaled = jax.tree.map(lambda leaf: leaf, variables)
    scaled["params"]["Dense_0"]["kernel"] = 10 * variables["params"]["Dense_0"]["kernel"]
    before, after = hidden.apply(variables, x, False), hidden.apply(scaled, x, False)
    assert np.allclose(before, after, atol=1e-2) == same
    if same:  # normalised, then rectified: half of the mass above 0, its mean square about one half
        assert 0.2 < float(jnp.mean(before**2)) < 0.8


def test_paper_normalises_only_the_layers_before_the_action_enters(sources):
    layers = {name.rpartition("/")[0] for name in flat(sources["paper"].critic["batch_stats"])}
    assert layers == {"BatchNorm_0", "observation_branch/BatchNorm_0"}
    layers = {name.rpartition("/")[0] for name in flat(sources["paper"].actor["batch_stats"])}
    assert layers == {"BatchNorm_0", "hidden/BatchNorm_0", "hidden/BatchNorm_1"}


def test_dropout_acts_only_in_the_losses():
    """The critic's "loss" is here the mean of the targets, which have no dropout; the critic's own values have."""
    config = small_config(hidden_sizes=(32,), actor_dropout=0.5, critic_dropout=0.5, actor_final_init=None)
    algorithm = replace(make_algorithm(config, (-2.0,), (2.0,)), critic_loss=lambda value, target: jnp.mean(target))
    plain = make_algorithm(config.replace(actor_dropout=0.0, critic_dropout=0.0), (-2.0,), (2.0,))
    state = agent.init(KEY, jnp.zeros(3), algorithm=algorithm)
    draw = np.random.default_rng(0)
    batch = Transition(*(draw.normal(size=shape).astype(np.float32) for shape in ((4, 3), (4, 1), 4, 4, (4, 3))))
    hyperparameters = make_hyperparameters(config)
    infos = [
        agent.update(jax.random.key(i), state, batch, algorithm=algorithm, hyperparameters=hyperparameters)[1]
        for i in range(4)
    ]
    next_action = agent.act(state, batch.next_observation, algorithm=plain)
    np.testing.assert_array_equal(agent.act(state, batch.next_observation, algorithm=algorithm), next_action)
    next_value = plain.critic.apply(state.critic, batch.next_observation, next_action)
    expected = np.mean(batch.reward + 0.99 * batch.discount * next_value)
    np.testing.assert_allclose([info.critic_loss for info in infos], expected, rtol=1e-4)
    assert len({float(info.q_mean) for info in infos}) == 4
    assert len({float(info.actor_loss) for info in infos}) == 4


def test_dropout_zeroes_its_rate_of_units_and_keeps_the_mean():
    hidden = networks.Hidden((1000,), dropout=0.2)
    x = jnp.ones((10, 3))
    variables = hidden.init(KEY, x, False)
    whole = np.asarray(hidden.apply(variables, x, False))
    dropped = np.asarray(hidden.apply(variables, x, True, rngs={"dropout": jax.random.key(1)}))
    kept = dropped[whole > 0] > 0
    assert abs(kept.mean() - 0.8) < 5 * np.sqrt(0.8 * 0.2 / kept.size)
    np.testing.assert_allclose(dropped[dropped > 0], whole[dropped > 0] / 0.8, rtol=1e-5)


# ReLU


def test_relu_and_its_derivative_have_the_bits_of_flax():
    x = jnp.array([-3e38, -2.0, -1e-40, -0.0, 0.0, 1e-40, 0.5, 3e38])
    gradient = jnp.array([1.0, jnp.inf, -5.0, 2.0, -1e-40, 3.0, -0.7, 1e38])
    values, backward = jax.vjp(networks.relu, x)
    expected_values, expected_backward = jax.vjp(nn.relu, x)
    assert values.tobytes() == expected_values.tobytes()
    assert backward(gradient)[0].tobytes() == expected_backward(gradient)[0].tobytes()
    tangent, expected = (jax.jvp(relu, (x,), (gradient,))[1] for relu in (networks.relu, nn.relu))
    assert tangent.tobytes() == expected.tobytes()


def test_derivative_of_relu_selects_no_loaded_operand():
    def selected(relu) -> list[str]:
        program = jax.jit(lambda x, gradient: jax.vjp(relu, x)[1](gradient)).lower(jnp.ones(99), jnp.ones(99)).compile()
        return [line for line in program.as_text().splitlines() if re.search(r" select\(.*%(param|gradient)", line)]

    assert selected(networks.relu) == []
    assert len(selected(nn.relu)) == 1  # so that the expression finds one
