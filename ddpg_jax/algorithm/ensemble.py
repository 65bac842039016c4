"""Several critics in one; the target uses the smallest of their values.

Fujimoto et al. 2018, "Addressing Function Approximation Error in Actor-Critic Methods", section 4.2
(https://arxiv.org/abs/1802.09477).
"""

from collections.abc import Callable
from functools import cache

import flax.linen as nn
import jax
import jax.numpy as jnp

from ddpg_jax.algorithm.losses import CriticForm
from ddpg_jax.algorithm.networks import OBS_STATS, Critic


class Ensemble(nn.Module):
    """K critics of one form, each with its own parameters: outputs [..., K], the critics along the last axis."""

    critic: Critic
    """The form of each critic."""
    num_critics: int
    """K."""

    @nn.compact
    def __call__(self, observation: jax.Array, action: jax.Array, train: bool = False) -> jax.Array:
        each = nn.vmap(
            lambda critic, *inputs: critic(*inputs, train),
            in_axes=None,
            out_axes=-1,
            axis_size=self.num_critics,
            variable_axes={"params": 0, "batch_stats": 0, OBS_STATS: None},
            split_rngs={"params": True, "dropout": True},
        )
        return jnp.asarray(each(self.critic, observation, action))


@cache
def of_ensemble(form: CriticForm) -> CriticForm:
    """Returns the form of an ensemble whose critics have the given one.

    The target is from the critic with the smallest action value; losses are added; the actor follows the first critic.
    """

    def smallest(output: jax.Array) -> jax.Array:
        values = jax.vmap(form.action_value, in_axes=-1, out_axes=-1)(output)
        critic = jnp.argmin(values, axis=-1).reshape(-1, *(1,) * (output.ndim - 1))
        return jnp.take_along_axis(output, critic, axis=-1)[..., 0]

    def of_smallest(function: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
        return lambda reward, discount, output, *, gamma: function(reward, discount, smallest(output), gamma=gamma)

    return CriticForm(
        td_target=of_smallest(form.td_target),
        critic_loss=lambda output, target: jnp.sum(jax.vmap(form.critic_loss, in_axes=(-1, None))(output, target)),
        actor_loss=lambda output: form.actor_loss(output[..., 0]),
        action_value=lambda output: form.action_value(output[..., 0]),
        clipped_share=None if form.clipped_share is None else of_smallest(form.clipped_share),
    )
