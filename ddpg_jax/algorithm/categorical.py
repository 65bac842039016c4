"""A critic of distributions: the return's probabilities on fixed values (the atoms) instead of its expected value.

Bellemare et al. 2017, "A Distributional Perspective on Reinforcement Learning", section 4 and Algorithm 1
(https://arxiv.org/abs/1707.06887); with a deterministic policy as in D4PG, Barth-Maron et al. 2018, "Distributed
Distributional Deterministic Policy Gradients", section 3 (https://arxiv.org/abs/1804.08617).
"""

from functools import cache

import chex
import jax
import jax.numpy as jnp
import numpy as np

from ddpg_jax.algorithm.losses import CriticForm
from ddpg_jax.algorithm.types import Scalar


def project(probabilities: jax.Array, returns: jax.Array, atoms: jax.Array) -> jax.Array:
    """Projects probabilities [B, M] of returns [B, M] onto atoms [M], which increase in equal steps.

    Each probability is divided between the two atoms next to its return, which keeps the mean; returns beyond the
    outermost atoms are clipped to them. Returns the probabilities [B, M] of the atoms.
    """
    chex.assert_rank([probabilities, returns, atoms], [2, 2, 1])
    step = atoms[1] - atoms[0]
    inside = jnp.clip(returns, atoms[0], atoms[-1])
    # [B, M, M]: the fraction of a return's probability (second axis) for each atom (last axis) falls with distance.
    shares = jnp.maximum(0.0, 1.0 - jnp.abs(inside[:, :, None] - atoms[None, None, :]) / step)
    return jnp.einsum("bm,bma->ba", probabilities, shares)


@cache
def categorical(num_atoms: int, value_min: float, value_max: float) -> CriticForm:
    """Returns the form of a critic whose output is [..., M] logits of the atoms, from value_min to value_max.

    The target is a distribution [B, M] and the loss its cross-entropy; the value of an action is the mean.
    """
    numbers = np.linspace(value_min, value_max, num_atoms)

    def next_returns(
        reward: jax.Array, discount: jax.Array, next_logits: jax.Array, gamma: Scalar
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Returns probabilities [B, M], the returns [B, M] r + gamma d z that have them, and the atoms z [M]."""
        chex.assert_rank([reward, discount, next_logits], [1, 1, 2])
        atoms = jnp.asarray(numbers, next_logits.dtype)
        return jax.nn.softmax(next_logits), reward[:, None] + gamma * discount[:, None] * atoms[None, :], atoms

    def action_value(logits: jax.Array) -> jax.Array:
        atoms = jnp.asarray(numbers, logits.dtype)
        return jnp.sum(jax.nn.softmax(logits) * jax.lax.broadcast_to_rank(atoms, logits.ndim), axis=-1)

    def td_target(reward: jax.Array, discount: jax.Array, next_logits: jax.Array, *, gamma: Scalar) -> jax.Array:
        return project(*next_returns(reward, discount, next_logits, gamma))

    def critic_loss(logits: jax.Array, target: jax.Array) -> jax.Array:
        chex.assert_rank([logits, target], 2)
        chex.assert_equal_shape([logits, target])
        return -jnp.mean(jnp.sum(jax.lax.stop_gradient(target) * jax.nn.log_softmax(logits), axis=-1))

    def clipped_share(reward: jax.Array, discount: jax.Array, next_logits: jax.Array, *, gamma: Scalar) -> jax.Array:
        probabilities, returns, atoms = next_returns(reward, discount, next_logits, gamma)
        tolerance = 1e-3 * (atoms[1] - atoms[0])  # larger than rounding
        outside = (returns < atoms[0] - tolerance) | (returns > atoms[-1] + tolerance)
        return jnp.mean(jnp.sum(jnp.where(outside, probabilities, 0.0), axis=-1))

    def actor_loss(logits: jax.Array) -> jax.Array:
        return -jnp.mean(action_value(logits))

    return CriticForm(td_target, critic_loss, actor_loss, action_value, clipped_share)
