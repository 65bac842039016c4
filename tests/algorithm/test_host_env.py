"""Compares training with an environment on the host with the compiled loop in the same environment."""

from dataclasses import replace
from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toy_environments import counter, setup_for, small_config, stored

from ddpg_jax.algorithm import host_env, loop, noise
from ddpg_jax.algorithm.environment import Step
from ddpg_jax.algorithm.setup import with_parts
from ddpg_jax.training.setup_factory import make_hyperparameters

NUM_STEPS = 25

SUM_OF_SHOCKS = noise.Noise(
    init=lambda process, num_actions: (jnp.ones(num_actions), jnp.int32(0)),
    after=lambda state, shock, process: (state[0] + process.innovation * shock, state[1] + 1),
    value=lambda state: state[0] / state[1],
)


class CounterOnHost:
    """The environment `counter` for E environments in NumPy."""

    def __init__(self, num: int, length: int, terminates: bool):
        self.count, self.length, self.terminates = np.zeros(num), length, terminates

    def step(self, actions: np.ndarray) -> tuple[Step, np.ndarray]:
        """Returns the results [E, ...], and the observations to continue from."""
        assert actions.shape == (len(self.count), 1)
        observation = self.count + 1
        end = observation >= self.length
        self.count = np.where(end, 0, observation)
        none = np.zeros_like(end)
        terminated, truncated = (end, none) if self.terminates else (none, end)
        return Step(observation[:, None], np.ones(len(end)), terminated, truncated), self.count[:, None]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"num_envs": 2, "terminates": True, "train_every": 2, "updates_per_train": 2, "ema_tau": 0.1,
         "normalize_observations": True, "noise_reset": True, "n_step": 2, "lr_decay": 0.9},
        {"noise": SUM_OF_SHOCKS, "noise_reset": True},
        {"noise": SUM_OF_SHOCKS, "num_envs": 2},
    ],
)  # fmt: skip
def test_training_is_that_of_the_compiled_loop(changes):
    terminates, form = changes.pop("terminates", False), changes.pop("noise", noise.AR1)
    config = small_config(learning_starts=10, noise_sigma=0.5, **changes)
    environment = counter(length=3, terminates=terminates)
    setup, hyperparameters = with_parts(setup_for(config, environment), noise=form), make_hyperparameters(config)
    compiled = loop.init(jax.random.key(0), hyperparameters, setup=setup)
    train = jax.jit(partial(loop.train, setup=setup, max_steps=NUM_STEPS))
    compiled, log = train(compiled, hyperparameters, jnp.int32(NUM_STEPS))

    reset = partial(host_env.reset, observation_size=1, action_size=1)
    setup = with_parts(setup, environment=replace(environment, reset=reset))
    state = loop.init(jax.random.key(0), hyperparameters, setup=setup)
    first = np.zeros((config.num_envs, 1) if config.num_envs > 1 else 1, np.float32)
    state, actions = host_env.begin(state, first, hyperparameters, setup=setup)
    environments, rows = CounterOnHost(config.num_envs, 3, terminates), []
    step = jax.jit(partial(host_env.step, setup=setup))
    for _ in range(NUM_STEPS):
        received = host_env.pack(*environments.step(np.asarray(actions)))
        state, actions, row = step(state, received, hyperparameters)
        rows.append(row)

    # On the host the next action has been sampled, for which the statistics have seen one observation more.
    for name, theirs in compiled.agent._asdict().items():
        pair = [tree["params"] if isinstance(tree, dict) else tree for tree in (getattr(state.agent, name), theirs)]
        chex.assert_trees_all_close(*pair, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(np.stack(rows), log, rtol=1e-4, atol=1e-6)
    chex.assert_trees_all_close(stored(state.replay, 1), stored(compiled.replay, 1), rtol=1e-4, atol=1e-6)
    assert int(state.agent.step) == setup.num_updates(NUM_STEPS * config.num_envs) > 0
