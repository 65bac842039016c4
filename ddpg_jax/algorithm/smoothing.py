"""Noise on the target's action, so that the critic cannot have a narrow peak there.

Fujimoto et al. 2018, section 5.3 (https://arxiv.org/abs/1802.09477).
"""

import jax
import jax.numpy as jnp

from ddpg_jax.algorithm.types import Hyperparameters, PRNGKey, needed


def smooth(
    key: PRNGKey,
    action: jax.Array,
    low: tuple[float, ...],
    high: tuple[float, ...],
    hyperparameters: Hyperparameters,
) -> jax.Array:
    """Returns a' + clip(e, -c, c) within the bounds, where e is normal with standard deviation sigma.

    Args:
        key: consumed.
        action: [B, A] of the target actor.
        low: the bounds of the actions, A numbers each.
        high: the upper ones.
        hyperparameters: `target_noise` is sigma and `target_noise_clip` c, in units of half the range of an action.

    Raises:
        ValueError: if one of the two is None.
    """
    lower, upper = (jnp.asarray(bound, action.dtype)[None, :] for bound in (low, high))
    sigma, clip = (
        jnp.asarray(needed(hyperparameters, name), action.dtype) for name in ("target_noise", "target_noise_clip")
    )
    noise = sigma * jax.random.normal(key, action.shape, action.dtype)
    return jnp.clip(action + jnp.clip(noise, -clip, clip) * ((upper - lower) / 2), lower, upper)
