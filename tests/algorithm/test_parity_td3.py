"""Compares TD3's update with Fujimoto et al. 2018, Algorithm 1: twin critics, delayed actor, noise on the target."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from parity_data import pendulum_batches
from plain_update import (
    HIGH,
    LOW,
    Net,
    actor_and_critic,
    adam,
    largest_deviation,
    layers_forward,
    move_target,
    perturbed,
    unstacked,
)

from ddpg_jax.algorithm import agent
from ddpg_jax.config import Config
from ddpg_jax.training.setup_factory import make_algorithm, make_hyperparameters

DELAY, SIGMA, CLIP = 2, 0.2, 0.5
CONFIG = Config(
    hidden_sizes=(20, 16), hidden_init="fan_in_uniform", actor_final_init=None, actor_lr=1e-3, critic_lr=1e-3,
    num_critics=2, policy_delay=DELAY, target_noise=SIGMA, target_noise_clip=CLIP,
)  # fmt: skip
ADAM = {"learning_rate": 1e-3, "eps": 1e-8}
GAMMA, TAU, HALF = 0.99, 0.005, (HIGH - LOW) / 2
ACTOR = ("hidden/Dense_0", "hidden/Dense_1", "final/Dense_0")
CRITIC = ("trunk/Dense_0", "trunk/Dense_1", "final/Dense_0")


def act(p, observation):
    return HALF * jnp.tanh(layers_forward(p, ACTOR, observation)) + (LOW + HIGH) / 2


def value(p, k, observation, action):
    """Returns the value [B] of critic k, whose tensors are at k in those of the ensemble."""
    critic = {name.removeprefix("critic/"): tensor[k] for name, tensor in p.items()}
    return layers_forward(critic, CRITIC, jnp.concatenate([observation, action], axis=1))[:, 0]


@partial(jax.jit, static_argnames="moves_actor")
def td3_update(actor: Net, critic: Net, batch, noise, t: int, moves_actor: bool) -> tuple[Net, Net]:
    """Makes update t = 1, 2, … of Algorithm 1; the actor's optimizer counts its own steps.

    y = r + gamma d min_k Q'_k(s', a'), with a' = clip(mu'(s') + clip(e, -c, c)), where e is in units of half the range.
    """
    next_action = act(actor.target, batch.next_observation) + HALF * jnp.clip(noise, -CLIP, CLIP)
    next_action = jnp.clip(next_action, LOW, HIGH)
    next_values = [value(critic.target, k, batch.next_observation, next_action) for k in (0, 1)]
    y = batch.reward + GAMMA * batch.discount * jnp.minimum(*next_values)

    def critic_loss(p):
        return sum(((value(p, k, batch.observation, batch.action) - y) ** 2).mean() for k in (0, 1))

    critic = adam(critic, jax.grad(critic_loss)(critic.params), t, **ADAM)

    def actor_loss(p):
        return -value(critic.params, 0, batch.observation, act(p, batch.observation)).mean()

    if moves_actor:
        actor = adam(actor, jax.grad(actor_loss)(actor.params), t // DELAY, **ADAM)
        actor, critic = move_target(actor, TAU), move_target(critic, TAU)
    return actor, critic


def test_twenty_updates_end_where_td3s_formulas_end():
    """The noise on the target's action is drawn as the package draws it; all else is independent."""
    algorithm, hyperparameters = make_algorithm(CONFIG, (LOW,), (HIGH,)), make_hyperparameters(CONFIG)
    batches, clipped, second_is_smaller = pendulum_batches(20, 64, time_limit_terminal=True), 0, 0
    with jax.enable_x64(True):
        state = perturbed(agent.init(jax.random.key(3), np.zeros(3), algorithm=algorithm), 0.05)
        reference = actor_and_critic(state)
        for t, batch in enumerate(unstacked(batches), start=1):
            key = jax.random.key(t)
            noise = SIGMA * np.asarray(jax.random.normal(jax.random.split(key, 3)[2], (64, 1), float))
            clipped += (abs(noise) > CLIP).sum()
            first, second = (value(reference[1].target, k, batch.observation, batch.action) for k in (0, 1))
            second_is_smaller += int((second < first).sum())
            reference = td3_update(*reference, batch, noise, t, t % DELAY == 0)
            state, _ = agent.update(key, state, batch, algorithm=algorithm, hyperparameters=hyperparameters)
        deviations = largest_deviation(state, reference)
    assert min(clipped, second_is_smaller, 20 * 64 - second_is_smaller) > 10  # every branch has been taken
    assert max(deviations.values()) < 1e-9, deviations
