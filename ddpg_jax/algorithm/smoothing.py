"""Noise on the target's action, so that the critic cannot have a narrow peak there.

Fujimoto et al. 2018, section 5.3 (https://arxiv.org/abs/1802.09477).
"""

import jax
import jax.numpy as jnp

from ddpg_jax.algorithm.types import Hyperparameters, PRNGKey, required


def smooth(
    key: PRNGKey, action: jax.Array, low: tuple[float, ...], high: tuple[float, ...], hyperparameters: Hyperparameters
) -> jax.Array:
    """Returns a' + clip(e, -c, c) [B, A] within the bounds, where e is normal with standard deviation sigma.

    sigma is `target_noise` and c `target_noise_clip`, in halves of the action's range; a ValueError if one is None.
    Consumes the key.
    """
    lower, upper = (jnp.asarray(bound, action.dtype)[None, :] for bound in (low, high))
    sigma, clip = (
        jnp.asarray(required(hyperparameters, name), action.dtype) for name in ("target_noise", "target_noise_clip")
    )
    noise = sigma * jax.random.normal(key, action.shape, action.dtype)
    return jnp.clip(action + jnp.clip(noise, -clip, clip) * ((upper - lower) / 2), lower, upper)
