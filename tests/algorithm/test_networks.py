"""Compares the networks with their descriptions: layers, initialisation, normalisation, dropout, ReLU."""

import re
from dataclasses import replace
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from plain_update import flat, layers_forward, perturbed
from toy_environments import small_config

from ddpg_jax.algorithm import agent, networks
from ddpg_jax.algorithm.types import Transition
from ddpg_jax.presets import PRESETS
from ddpg_jax.training.setup_factory import make_algorithm, make_hyperparameters

KEY = jax.random.key(0)


def layers_of(params, *parts):
    return [f"{part}/{layer}" for part in parts for layer in sorted(params.get(part, {}))]


@pytest.mark.parametrize("sizes", [(), (16, 3), (17, 3)])
def test_networks_compute_their_layers_whether_narrow_or_wide(sizes):
    algorithm = make_algorithm(small_config(hidden_sizes=sizes, actor_final_init=None), (-1.0, 0.5), (3.0, 0.75))
    state = jax.tree.map(jnp.float32, perturbed(agent.init(KEY, jnp.zeros(3), algorithm=algorithm), 0.7))
    draw = np.random.default_rng(0)
    observation, action = (draw.normal(size=(7, size)).astype(np.float32) for size in (3, 2))
    values = jax.jit(algorithm.critic.apply)(state.critic, observation, action)
    layers = layers_of(state.critic["params"], "trunk", "final")
    inputs = np.concatenate([observation, action], axis=1)
    expected = layers_forward(flat(state.critic["params"]), layers, inputs)
    np.testing.assert_allclose(values, expected[:, 0], rtol=1e-4, atol=1e-5)
    actions = jax.jit(algorithm.actor.apply)(state.actor, observation)
    layers = layers_of(state.actor["params"], "hidden", "final")
    expected = layers_forward(flat(state.actor["params"]), layers, observation)
    np.testing.assert_allclose(actions, [1, 0.625] + np.tanh(expected) * [2, 0.125], rtol=1e-4, atol=1e-5)


def test_residual_layers_are_simbas():
    """Written out in NumPy: a linear layer, x + W2 relu(W1 LN(x)) twice, LN, a linear layer."""

    def normalized(x, layer):
        return (
            layer["scale"] * (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6) + layer["bias"]
        )

    def linear(x, layer):
        return x @ layer["kernel"] + layer["bias"]

    config = small_config(
        hidden_layers="residual", hidden_sizes=(8, 8), hidden_init="orthogonal", critic_final_init=1.0
    )
    critic = make_algorithm(config, (-2.0,), (2.0,)).critic
    draw = np.random.default_rng(0)
    observation, action = (draw.normal(size=(7, size)).astype(np.float32) for size in (3, 1))
    variables = critic.init(KEY, observation, action)
    first = variables["params"]["trunk"]["Dense_0"]["kernel"]
    np.testing.assert_allclose(first @ first.T, np.eye(4), atol=1e-5)
    variables = jax.tree.map(lambda x: x + 0.3 * draw.normal(size=x.shape), variables)
    layers = variables["params"]["trunk"]
    x = linear(np.concatenate([observation, action], axis=1), layers["Dense_0"])
    for block in range(2):
        wide = linear(normalized(x, layers[f"LayerNorm_{block}"]), layers[f"Dense_{2 * block + 1}"])
        assert wide.shape == (7, 32)
        x = x + linear(np.maximum(wide, 0), layers[f"Dense_{2 * block + 2}"])
    expected = linear(normalized(x, layers["LayerNorm_2"]), variables["params"]["final"]["Dense_0"])[:, 0]
    np.testing.assert_allclose(critic.apply(variables, observation, action), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("preset", "actor", "critic"),  # sizes of the sources' kernels on Pendulum; those of Keras are in its parity test
    [
        ("gist", {(3, 8), (8, 8), (8, 1)}, {(4, 8), (8, 8), (8, 1)}),
        ("paper", {(3, 400), (400, 300), (300, 1)}, {(3, 400), (401, 300), (300, 1)}),
    ],
)
def test_networks_have_the_sizes_of_their_source(preset, actor, critic):
    init = partial(agent.init, algorithm=make_algorithm(PRESETS[preset], (-2.0,), (2.0,)))
    state = jax.eval_shape(init, KEY, jnp.zeros(3))
    for variables, expected in ((state.actor, actor), (state.critic, critic)):
        assert {leaf.shape for leaf in jax.tree.leaves(variables["params"]) if leaf.ndim == 2} == expected


@pytest.mark.parametrize(
    ("module", "deviation"),
    [
        (networks.Final(256, bound=0.003), 0.003 / 3**0.5),  # uniform in both signs of the interval
        (networks.Final(256, "glorot_uniform"), (2 / (30 + 256)) ** 0.5),  # of U(± sqrt(6 / (fan in + fan out)))
        (networks.Final(256, "lecun_normal"), 30**-0.5),
        (networks.Final(256, "he_normal"), (2 / 30) ** 0.5),
    ],
)
def test_kernels_have_the_variance_of_their_initialiser_and_zero_biases(module, deviation):
    layer = module.init(KEY, jnp.zeros((1, 30)))["params"]["Dense_0"]
    assert not layer["bias"].any()
    assert abs(np.mean(layer["kernel"])) < 5 * deviation / np.sqrt(30 * 256)
    assert abs(np.std(layer["kernel"]) - deviation) < 5 * deviation / np.sqrt(2 * 30 * 256)


def test_dropout_acts_only_in_the_losses():
    """The critic's "loss" is here the mean of the targets, which have no dropout; the critic's own values have."""
    config = small_config(hidden_sizes=(32,), actor_dropout=0.5, critic_dropout=0.5, actor_final_init=None)
    algorithm = replace(make_algorithm(config, (-2.0,), (2.0,)), critic_loss=lambda value, target: jnp.mean(target))
    plain = make_algorithm(config.replace(actor_dropout=0.0, critic_dropout=0.0), (-2.0,), (2.0,))
    state = agent.init(KEY, jnp.zeros(3), algorithm=algorithm)
    draw = np.random.default_rng(0)
    batch = Transition(*(draw.normal(size=shape).astype(np.float32) for shape in ((4, 3), (4, 1), 4, 4, (4, 3))))
    hyperparameters = make_hyperparameters(config)
    update = partial(agent.update, algorithm=algorithm, hyperparameters=hyperparameters)
    infos = [update(jax.random.key(i), state, batch)[1] for i in range(4)]
    next_action = agent.act(state, batch.next_observation, algorithm=plain)
    np.testing.assert_array_equal(agent.act(state, batch.next_observation, algorithm=algorithm), next_action)
    next_value = plain.critic.apply(state.critic, batch.next_observation, next_action)
    expected = np.mean(batch.reward + 0.99 * batch.discount * next_value)
    np.testing.assert_allclose([info.critic_loss for info in infos], expected, rtol=1e-4)
    assert len({float(info.q_mean) for info in infos}) == 4
    assert len({float(info.actor_loss) for info in infos}) == 4


# ReLU


def test_relu_and_its_derivative_have_the_bits_of_flax():
    x = jnp.array([-3e38, -2.0, -1e-40, -0.0, 0.0, 1e-40, 0.5, 3e38])
    gradient = jnp.array([1.0, jnp.inf, -5.0, 2.0, -1e-40, 3.0, -0.7, 1e38])
    values, backward = jax.vjp(networks.relu, x)
    expected_values, expected_backward = jax.vjp(nn.relu, x)
    assert values.tobytes() == expected_values.tobytes()
    assert backward(gradient)[0].tobytes() == expected_backward(gradient)[0].tobytes()


def test_derivative_of_relu_selects_no_loaded_operand():
    def selected(relu) -> list[str]:
        program = jax.jit(lambda x, gradient: jax.vjp(relu, x)[1](gradient)).lower(jnp.ones(99), jnp.ones(99)).compile()
        return [line for line in program.as_text().splitlines() if re.search(r" select\(.*%(param|gradient)", line)]

    assert selected(networks.relu) == []
    assert len(selected(nn.relu)) == 1  # so that the expression finds one
