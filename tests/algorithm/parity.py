"""Makes the same updates with the package and with plain formulas (`plain_update.py`), on transitions of Pendulum."""

from collections.abc import Callable
from functools import cache

import jax
import numpy as np
from plain_update import HIGH, LOW, Net, actor_and_critic, perturbed
from toy_environments import explored, small_config

from ddpg_jax.algorithm import agent
from ddpg_jax.algorithm.types import AgentState, Transition
from ddpg_jax.config import Config
from ddpg_jax.environments.registry import make_task
from ddpg_jax.training.setup_factory import make_algorithm, make_hyperparameters


def pendulum_batches(num: int, size: int, *, time_limit_terminal: bool = False) -> Transition:
    """Returns minibatches [num, size, ...] of 24 episodes under uniformly random actions, float32 NumPy arrays."""
    pool, rng = random_transitions(24 * 200, time_limit_terminal), np.random.default_rng(0)
    rows = np.stack([rng.choice(len(pool.reward), size, replace=False) for _ in range(num)])
    return Transition(*(field[rows] for field in pool))


@cache
def random_transitions(steps: int, time_limit_terminal: bool) -> Transition:
    """Returns the transitions [steps, ...] of uniformly random actions."""
    config = small_config(random_steps=steps, time_limit_terminal=time_limit_terminal)
    return explored(config, make_task("Pendulum-v1").environment, steps)[0]


def largest_deviations(
    config: Config, batches: Transition, plain_update: Callable
) -> tuple[dict[str, float], AgentState, tuple[Net, Net]]:
    """Makes an update in float64 per minibatch, number t with key t, and compares what both measure.

    `plain_update` is (actor, critic, minibatch, t = 1, 2, …) -> (actor, critic), the first entries of `UpdateInfo`.
    Returns, for each part of the state, the largest |difference| / max(1, |value|) at the end, and both states.
    """
    algorithm, hyperparameters = make_algorithm(config, (LOW,), (HIGH,)), make_hyperparameters(config)
    with jax.enable_x64(True):
        state = perturbed(agent.init(jax.random.key(0), np.zeros(3), algorithm=algorithm), 0.03)
        nets = actor_and_critic(state)
        for t in range(1, len(batches.reward) + 1):
            batch = Transition(*(field[t - 1].astype(np.float64) for field in batches))
            nets, expected = plain_update(*nets, batch, t)
            state, info = agent.update(
                jax.random.key(t), state, batch, algorithm=algorithm, hyperparameters=hyperparameters
            )
            np.testing.assert_allclose(info[: len(expected)], expected, rtol=1e-9)
        state, nets = jax.device_get((state, nets))
    deviations = {}
    for who, our_net, net in zip(("actor", "critic"), actor_and_critic(state), nets, strict=True):
        for part, ours, tensors in zip(Net._fields, our_net, net, strict=True):
            assert ours.keys() == tensors.keys()
            assert all(tensor.dtype == np.float64 for tensor in ours.values())
            errors = [abs(ours[name] - value) / np.maximum(1, abs(value)) for name, value in tensors.items()]
            deviations[f"{who} {part}"] = max((float(error.max()) for error in errors), default=0.0)
    return deviations, state, nets
