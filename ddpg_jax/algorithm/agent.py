"""Deep Deterministic Policy Gradient: `init`, `act` and `update`, the paper's page.

The comments name the lines of Algorithm 1 (Lillicrap et al. 2015, https://arxiv.org/abs/1509.02971), counted from its
first: 1-3 initialise, 4-6 begin an episode, 7 begins a step, 8-10 act, execute and store, 11-15 learn.
This file has lines 1, 2 and 11 to 15, and the policy of line 8; `training.py` has the loop around them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import chex
import jax
import jax.numpy as jnp
import optax

from ddpg_jax.algorithm import losses
from ddpg_jax.algorithm.networks import Actor, Critic
from ddpg_jax.algorithm.optimizers import Optimizer, adam, polyak
from ddpg_jax.algorithm.types import AgentState, Hyperparameters, Params, PRNGKey, Transition, UpdateInfo


@dataclass(frozen=True)
class Algorithm:
    """The parts that DDPG is put together from. Hashable: equal algorithms share one compilation.

    Each part can be exchanged for one of the same signature, which is how the algorithm is varied.
    """

    actor: Actor
    """Observations to actions."""
    critic: Critic
    """Observations and actions to values."""
    optimizer: Optimizer = adam
    """(learning_rate, eps, l2) -> an Optax transformation, of the actor and of the critic."""
    critic_first: bool = True
    """Let the actor's loss see the critic after its step, instead of both steps starting from the same critic."""
    td_target: Callable[..., jax.Array] = losses.td_target
    """(reward [B], discount [B], next values, gamma by its name) -> the targets of the critic's values."""
    critic_loss: Callable[[jax.Array, jax.Array], jax.Array] = losses.critic_loss
    """(values, targets) -> what the critic minimises, []."""
    actor_loss: Callable[[jax.Array], jax.Array] = losses.actor_loss
    """(values of the actor's actions) -> what the actor minimises, []."""


@partial(jax.jit, static_argnames="algorithm")
def init(key: PRNGKey, observation: jax.Array, *, algorithm: Algorithm) -> AgentState:
    """A new agent, its targets equal to its online networks.

    Args:
        key: consumed.
        observation: an example [O]; only its size and dtype count, and the dtype becomes the parameters'.
        algorithm: its networks are initialised.

    Returns:
        A state whose `step` is 0.
    """
    chex.assert_rank(observation, 1)
    observation = observation[None]
    action = jnp.zeros((1, len(algorithm.actor.low)), observation.dtype)
    actor_key, critic_key = jax.random.split(key)
    # Line 1: randomly initialise critic and actor.
    actor = dict(algorithm.actor.init(actor_key, observation))
    critic = dict(algorithm.critic.init(critic_key, observation, action))
    actor, critic = jax.tree.map(lambda x: x.astype(observation.dtype), (actor, critic))
    actor_params, actor_stats = actor["params"], actor.get("batch_stats", {})
    critic_params, critic_stats = critic["params"], critic.get("batch_stats", {})
    optimizer = algorithm.optimizer(1.0, 1.0, 0.0)  # its state does not depend on these
    return AgentState(
        actor_params=actor_params,
        critic_params=critic_params,
        # Line 2: the targets start as copies.
        target_actor_params=actor_params,
        target_critic_params=critic_params,
        actor_stats=actor_stats,
        critic_stats=critic_stats,
        target_actor_stats=actor_stats,
        target_critic_stats=critic_stats,
        actor_optimizer_state=optimizer.init(actor_params),
        critic_optimizer_state=optimizer.init(critic_params),
        step=jnp.int32(0),
    )


@partial(jax.jit, static_argnames="algorithm")
def act(state: AgentState, observation: jax.Array, *, algorithm: Algorithm) -> jax.Array:
    """The greedy actions mu(s) of line 8, in the environment's units and within its bounds.

    Args:
        state: an agent.
        observation: [..., O].
        algorithm: the one that `state` was made with.

    Returns:
        [..., A] in the dtype of the parameters. Exploration noise is the caller's to add (`noise.py`).
    """
    observation = jnp.asarray(observation, dtype_of(state.actor_params))
    variables = {"params": state.actor_params, "batch_stats": state.actor_stats}
    return jnp.asarray(algorithm.actor.apply(variables, observation))


@partial(jax.jit, static_argnames="algorithm")
def update(
    key: PRNGKey, state: AgentState, batch: Transition, *, algorithm: Algorithm, hyperparameters: Hyperparameters
) -> tuple[AgentState, UpdateInfo]:
    """One update of critic, actor and targets: lines 12 to 15, on a minibatch of anyone's making (line 11).

    Args:
        key: consumed (by dropout, where there is any).
        state: the agent before.
        batch: B transitions.
        algorithm: the one that `state` was made with.
        hyperparameters: scalars; `noise` and `lr_decay` are not used here.

    Returns:
        The agent after, and the losses on this batch before the step.
    """
    chex.assert_rank(list(batch), [2, 2, 1, 1, 2])
    chex.assert_equal_shape_prefix(list(batch), 1)
    dtype = dtype_of(state.critic_params)
    batch, hyperparameters = jax.tree.map(lambda x: jnp.asarray(x, dtype), (batch, hyperparameters))
    critic_key, actor_key = jax.random.split(key)

    # Line 12: set y_i = r_i + gamma Q'(s_{i+1}, mu'(s_{i+1})).
    target = _target(state, batch, algorithm, hyperparameters)
    # Line 13: update the critic by minimising the mean squared error to y.
    new, critic_loss, q_mean = _critic_step(critic_key, state, batch, target, algorithm, hyperparameters)
    # Line 14: update the actor by the sampled policy gradient.
    critic = new if algorithm.critic_first else state
    new, actor_loss = _actor_step(actor_key, new, critic, batch, algorithm, hyperparameters)
    # Line 15: update the target networks.
    new = _target_step(new, hyperparameters)
    return new._replace(step=state.step + 1), UpdateInfo(critic_loss, actor_loss, q_mean)


def _target(state: AgentState, batch: Transition, algorithm: Algorithm, hyperparameters: Hyperparameters) -> jax.Array:
    """The targets y [B], from the target networks with their own, slowly moving, statistics and without dropout."""
    actor = {"params": state.target_actor_params, "batch_stats": state.target_actor_stats}
    critic = {"params": state.target_critic_params, "batch_stats": state.target_critic_stats}
    next_action = algorithm.actor.apply(actor, batch.next_observation)
    next_value = algorithm.critic.apply(critic, batch.next_observation, next_action)
    return algorithm.td_target(batch.reward, batch.discount, next_value, gamma=hyperparameters.gamma)


def _critic_step(
    key: PRNGKey,
    state: AgentState,
    batch: Transition,
    target: jax.Array,
    algorithm: Algorithm,
    hyperparameters: Hyperparameters,
) -> tuple[AgentState, jax.Array, jax.Array]:
    """The state with the critic one step further, the critic's loss, and the mean of its values before."""

    def loss(params: Params) -> tuple[jax.Array, tuple[Params, jax.Array]]:
        value, stats = _apply_in_training(
            key, algorithm.critic, params, state.critic_stats, batch.observation, batch.action
        )
        return algorithm.critic_loss(value, target), (stats, jnp.mean(value))

    (critic_loss, (stats, q_mean)), gradient = jax.value_and_grad(loss, has_aux=True)(state.critic_params)
    optimizer = algorithm.optimizer(hyperparameters.critic_lr, hyperparameters.adam_eps, hyperparameters.critic_l2)
    step, optimizer_state = optimizer.update(gradient, state.critic_optimizer_state, state.critic_params)
    new = state._replace(
        critic_params=optax.apply_updates(state.critic_params, step),
        critic_stats=stats,
        critic_optimizer_state=optimizer_state,
    )
    return new, critic_loss, q_mean


def _actor_step(
    key: PRNGKey,
    state: AgentState,
    critic: AgentState,
    batch: Transition,
    algorithm: Algorithm,
    hyperparameters: Hyperparameters,
) -> tuple[AgentState, jax.Array]:
    """The state with the actor one step further, judged by the critic of `critic`, and the actor's loss."""
    actor_key, critic_key = jax.random.split(key)

    def loss(params: Params) -> tuple[jax.Array, Params]:
        action, stats = _apply_in_training(actor_key, algorithm.actor, params, state.actor_stats, batch.observation)
        value, _ = _apply_in_training(
            critic_key, algorithm.critic, critic.critic_params, critic.critic_stats, batch.observation, action
        )
        return algorithm.actor_loss(value), stats

    (actor_loss, stats), gradient = jax.value_and_grad(loss, has_aux=True)(state.actor_params)
    optimizer = algorithm.optimizer(hyperparameters.actor_lr, hyperparameters.adam_eps, hyperparameters.actor_l2)
    step, optimizer_state = optimizer.update(gradient, state.actor_optimizer_state, state.actor_params)
    new = state._replace(
        actor_params=optax.apply_updates(state.actor_params, step),
        actor_stats=stats,
        actor_optimizer_state=optimizer_state,
    )
    return new, actor_loss


def _target_step(state: AgentState, hyperparameters: Hyperparameters) -> AgentState:
    """The state with its targets, parameters and statistics alike, moved by tau towards the online networks."""
    target = (
        state.target_actor_params, state.target_critic_params, state.target_actor_stats, state.target_critic_stats
    )  # fmt: skip
    online = (state.actor_params, state.critic_params, state.actor_stats, state.critic_stats)
    actor_params, critic_params, actor_stats, critic_stats = polyak(target, online, hyperparameters.tau)
    return state._replace(
        target_actor_params=actor_params,
        target_critic_params=critic_params,
        target_actor_stats=actor_stats,
        target_critic_stats=critic_stats,
    )


def _apply_in_training(
    key: PRNGKey, network: Actor | Critic, params: Params, stats: Params, *inputs: jax.Array
) -> tuple[jax.Array, Params]:
    """The network's output with dropout and the minibatch's statistics, and its running statistics after it."""
    variables = {"params": params, "batch_stats": stats}
    output, changed = network.apply(variables, *inputs, train=True, rngs={"dropout": key}, mutable=["batch_stats"])
    return output, changed.get("batch_stats", stats)


def dtype_of(params: Params) -> jnp.dtype:
    """The dtype in which a network with these parameters computes."""
    return jax.tree.leaves(params)[0].dtype
