"""Several critics in one, of which a target uses the smallest value.

Fujimoto et al. 2018, "Addressing Function Approximation Error in Actor-Critic Methods", section 4.2
(https://arxiv.org/abs/1802.09477).
"""

from functools import cache

import flax.linen as nn
import jax
import jax.numpy as jnp

from ddpg_jax.algorithm.losses import CriticForm
from ddpg_jax.algorithm.networks import MOMENTS, Critic


class Ensemble(nn.Module):
    """K critics of one form, each with parameters of its own: outputs [..., K], the critics along the last axis."""

    critic: Critic
    num_critics: int
    """K."""

    @nn.compact
    def __call__(self, observation: jax.Array, action: jax.Array, train: bool = False) -> jax.Array:
        each = nn.vmap(
            lambda critic, *inputs: critic(*inputs, train),
            in_axes=None,
            out_axes=-1,
            axis_size=self.num_critics,
            variable_axes={"params": 0, "batch_stats": 0, MOMENTS: None},
            split_rngs={"params": True, "dropout": True},
        )
        return jnp.asarray(each(self.critic, observation, action))


@cache
def of_ensemble(form: CriticForm) -> CriticForm:
    """Returns the form of an ensemble whose critics have the given one.

    The target is that of the critic whose action value is the smallest, so it overestimates less; the critics' losses
    are added; the actor follows the first critic.
    """

    def td_target(
        reward: jax.Array, discount: jax.Array, next_output: jax.Array, *, gamma: jax.Array | float
    ) -> jax.Array:
        values = jax.vmap(form.action_value, in_axes=-1, out_axes=-1)(next_output)
        smallest = jnp.argmin(values, axis=-1).reshape(-1, *(1,) * (next_output.ndim - 1))
        chosen = jnp.take_along_axis(next_output, smallest, axis=-1)[..., 0]
        return form.td_target(reward, discount, chosen, gamma=gamma)

    def critic_loss(output: jax.Array, target: jax.Array) -> jax.Array:
        return jnp.sum(jax.vmap(form.critic_loss, in_axes=(-1, None))(output, target))

    def actor_loss(output: jax.Array) -> jax.Array:
        return form.actor_loss(output[..., 0])

    def action_value(output: jax.Array) -> jax.Array:
        return form.action_value(output[..., 0])

    return CriticForm(td_target, critic_loss, actor_loss, action_value)
