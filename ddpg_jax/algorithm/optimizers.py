"""Adam in the two forms of the sources."""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import optax

from ddpg_jax.algorithm.types import Params, Scalar

Optimizer = Callable[..., optax.GradientTransformation]
"""(learning_rate, eps, l2) -> an Optax transformation, whose first state does not depend on the three numbers."""

_B1, _B2 = 0.9, 0.999  # Kingma & Ba 2015; the defaults of every framework here


def adam(learning_rate: Scalar, eps: Scalar, l2: Scalar) -> optax.GradientTransformation:
    """Returns Adam (Kingma & Ba 2015, Algorithm 1), where `l2` times a kernel is first added to its gradient.

    So L2 is not decoupled as in AdamW; biases and normalisation have none. `eps` is added to the square root of the
    bias-corrected second moment.
    """
    chain = optax.chain(
        optax.add_decayed_weights(l2, mask=_is_kernel),
        optax.scale_by_adam(_B1, _B2, eps),
        optax.scale_by_learning_rate(learning_rate),
    )

    def update(gradients: Params, state: optax.OptState, params: Params | None = None) -> tuple[Params, optax.OptState]:
        with jax.numpy_dtype_promotion("standard"):  # Optax 0.2 raises a float to the power of an integer array
            return chain.update(gradients, state, params)

    return optax.GradientTransformation(chain.init, update)


def adam_eps_hat(learning_rate: Scalar, eps: Scalar, l2: Scalar) -> optax.GradientTransformation:
    """Returns Adam as TensorFlow and Keras compute it: epsilon is added to sqrt(v) before the bias correction.

    That is Kingma & Ba's "epsilon hat" (end of section 2), equal to `adam` with eps / sqrt(1 - b2^t) at step t.
    """

    def update(gradients: Params, state: optax.OptState, params: Params | None = None) -> tuple[Params, optax.OptState]:
        # In Keras's order of operations: another order rounds differently, and Adam amplifies rounding.
        decay_state, adam_state, rate_state = state
        decay = optax.add_decayed_weights(l2, mask=_is_kernel)
        gradients, decay_state = decay.update(gradients, decay_state, params)
        count = adam_state.count + 1
        t = count.astype(jax.tree.leaves(gradients)[0].dtype)
        rate = learning_rate * jnp.sqrt(1 - _B2**t) / (1 - _B1**t)
        mu = jax.tree.map(lambda m, g: m + (g - m) * (1 - _B1), adam_state.mu, gradients)
        nu = jax.tree.map(lambda v, g: v + (jnp.square(g) - v) * (1 - _B2), adam_state.nu, gradients)
        step = jax.tree.map(lambda m, v: -(m * rate) / (jnp.sqrt(v) + eps), mu, nu)
        return step, (decay_state, adam_state._replace(count=count, mu=mu, nu=nu), rate_state)

    return optax.GradientTransformation(adam(learning_rate, eps, l2).init, update)


@dataclass(frozen=True)
class Clipped:
    """An optimizer whose gradients are scaled down to a global norm if theirs is larger; L2 is added afterwards.

    Pascanu et al. 2013, Algorithm 1 (https://arxiv.org/abs/1211.5063).
    """

    optimizer: Optimizer
    """Makes the steps from the gradients."""
    max_norm: float
    """The largest norm of a network's gradients, over all its parameters."""

    def __call__(self, learning_rate: Scalar, eps: Scalar, l2: Scalar) -> optax.GradientTransformation:
        """Returns the transformation (see `Optimizer`)."""
        return optax.chain(optax.clip_by_global_norm(self.max_norm), self.optimizer(learning_rate, eps, l2))


@dataclass(frozen=True)
class Decoupled:
    """An optimizer whose L2 is decoupled: in each step, kernels shrink by the learning rate times `l2`.

    With `adam` that is AdamW, Loshchilov & Hutter 2019, Algorithm 2 (https://arxiv.org/abs/1711.05101).
    """

    optimizer: Optimizer

    def __call__(self, learning_rate: Scalar, eps: Scalar, l2: Scalar) -> optax.GradientTransformation:
        """Returns the transformation (see `Optimizer`)."""
        decay = optax.add_decayed_weights(-learning_rate * l2, mask=_is_kernel)
        return optax.chain(self.optimizer(learning_rate, eps, 0.0), decay)


def _is_kernel(params: Params) -> Params:
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == "kernel", params)
