"""Compares TD3's update with Fujimoto et al. 2018, Algorithm 1: twin critics, delayed actor, noise on the target."""

from functools import partial

import jax
import jax.numpy as jnp
from parity import largest_deviations, pendulum_batches
from plain_update import HIGH, LOW, Net, adam, layers_forward, move_target

from ddpg_jax.algorithm.types import Transition
from ddpg_jax.config import Config

DELAY, SIGMA, CLIP = 2, 0.2, 0.3
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
def td3_update(actor: Net, critic: Net, batch: Transition, t: int, *, moves_actor: bool):
    """Makes update t = 1, 2, … of Algorithm 1; the actor's optimizer counts its own steps.

    y = r + gamma d min_k Q'_k(s', a'), with a' = clip(mu'(s') + clip(e, -c, c)), where e is in units of half the range.
    """
    noise_key = jax.random.split(jax.random.key(t), 3)[2]  # drawn as the package draws it; all else is independent
    noise = SIGMA * jax.random.normal(noise_key, batch.action.shape, float)
    next_action = act(actor.target, batch.next_observation) + HALF * jnp.clip(noise, -CLIP, CLIP)
    next_action = jnp.clip(next_action, LOW, HIGH)
    next_values = [value(critic.target, k, batch.next_observation, next_action) for k in (0, 1)]
    y = batch.reward + GAMMA * batch.discount * jnp.minimum(*next_values)

    def critic_loss(p):
        return sum(((value(p, k, batch.observation, batch.action) - y) ** 2).mean() for k in (0, 1))

    loss, gradient = jax.value_and_grad(critic_loss)(critic.params)
    critic = adam(critic, gradient, t, **ADAM)
    if not moves_actor:
        return (actor, critic), (loss, 0.0)

    def actor_loss(p):
        return -value(critic.params, 0, batch.observation, act(p, batch.observation)).mean()

    negative_value, gradient = jax.value_and_grad(actor_loss)(actor.params)
    actor = adam(actor, gradient, t // DELAY, **ADAM)
    return (move_target(actor, TAU), move_target(critic, TAU)), (loss, DELAY * negative_value)


def test_twenty_updates_end_where_td3s_formulas_end():
    batches = pendulum_batches(20, 64, time_limit_terminal=True)
    deviations, _, (_, critic) = largest_deviations(
        CONFIG, batches, lambda *inputs: td3_update(*inputs, moves_actor=inputs[-1] % DELAY == 0)
    )
    assert max(deviations.values()) < 1e-9, deviations
    with jax.enable_x64(True):
        first, second = (value(critic.target, k, batches.observation[0], batches.action[0]) for k in (0, 1))
    assert 5 < (second < first).sum() < 59  # the smaller value is sometimes that of one critic, sometimes of the other
