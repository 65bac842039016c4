"""Deep Deterministic Policy Gradient as `init`, `act` and `update`. Read it next to Algorithm 1 of the paper.

Comments name the lines of Algorithm 1 (Lillicrap et al. 2015, https://arxiv.org/abs/1509.02971), counted from the
first: 1-3 initialise, 4-6 begin an episode, 7 begins a step, 8-10 act, execute and store, 11-15 learn.
This file has lines 1, 2 and 12 to 15, and the policy of line 8; `loop.py` has the loop around them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import chex
import jax
import jax.numpy as jnp
import optax

from ddpg_jax.algorithm import losses
from ddpg_jax.algorithm.ensemble import Ensemble
from ddpg_jax.algorithm.networks import Actor, Critic
from ddpg_jax.algorithm.optimizers import Optimizer, adam
from ddpg_jax.algorithm.types import AgentState, Hyperparameters, Params, PRNGKey, Transition, UpdateInfo, Variables

TargetAction = Callable[[PRNGKey, jax.Array, tuple[float, ...], tuple[float, ...], Hyperparameters], jax.Array]
"""(key, actions [B, A], low [A], high [A], hyperparameters) -> actions [B, A] within the bounds; consumes the key."""


@dataclass(frozen=True)
class Algorithm:
    """The parts of DDPG. To vary it, replace a part by another one with the same signature.

    Hashable: equal algorithms share one compilation.
    """

    actor: Actor
    """Maps observations to actions."""
    critic: Critic | Ensemble
    """Maps observations and actions to values."""
    optimizer: Optimizer = adam
    """(learning_rate, eps, l2) -> an Optax transformation, for the actor and for the critic."""
    critic_first: bool = True
    """The actor's loss uses the critic after its step (True) or before it (False)."""
    policy_delay: int = 1
    """Updates of the critic per update of the actor and the targets."""
    target_action: TargetAction | None = None
    """Changes the target actor's action (`smoothing.smooth`); None: no change."""
    td_target: Callable[..., jax.Array] = losses.td_target
    """(reward [B], discount [B], next values, gamma as a keyword) -> the targets y."""
    critic_loss: Callable[[jax.Array, jax.Array], jax.Array] = losses.critic_loss
    """(values, targets y) -> the critic's loss []."""
    actor_loss: Callable[[jax.Array], jax.Array] = losses.actor_loss
    """(values of the actor's actions) -> the actor's loss []."""
    action_value: Callable[[jax.Array], jax.Array] = losses.action_value
    """(the critic's output) -> Q(s, a) [B]."""
    clipped_share: Callable[..., jax.Array] | None = None
    """(arguments of `td_target`) -> the fraction [] of the targets' probability outside the critic's support; None:
    always 0."""


@partial(jax.jit, static_argnames="algorithm")
def init(key: PRNGKey, observation: jax.Array, *, algorithm: Algorithm) -> AgentState:
    """Returns a new agent, whose parameters have the dtype of the example `observation` [O]. Consumes the key."""
    chex.assert_rank(observation, 1)
    observation = observation[None]
    action = jnp.zeros((1, len(algorithm.actor.low)), observation.dtype)
    actor_key, critic_key = jax.random.split(key)
    # Line 1: randomly initialise critic and actor.
    actor = dict(algorithm.actor.init(actor_key, observation))
    critic = dict(algorithm.critic.init(critic_key, observation, action))
    actor, critic = jax.tree.map(lambda x: x.astype(observation.dtype), (actor, critic))
    optimizer = algorithm.optimizer(1.0, 1.0, 0.0)  # the initial state does not depend on these three numbers
    return AgentState(
        actor=actor,
        critic=critic,
        # Line 2: initialise the targets as copies.
        target_actor=actor,
        target_critic=critic,
        actor_optimizer_state=optimizer.init(actor["params"]),
        critic_optimizer_state=optimizer.init(critic["params"]),
        step=jnp.int32(0),
    )


@partial(jax.jit, static_argnames="algorithm")
def act(state: AgentState, observation: jax.Array, *, algorithm: Algorithm) -> jax.Array:
    """Returns the greedy actions mu(s) [..., A] of line 8 for observations [..., O].

    They are in the environment's units, within its bounds, and in the dtype of the parameters.
    """
    observation = jnp.asarray(observation, dtype_of(state.actor))
    return jnp.asarray(algorithm.actor.apply(state.actor, observation))


@partial(jax.jit, static_argnames="algorithm")
def update(
    key: PRNGKey, state: AgentState, batch: Transition, *, algorithm: Algorithm, hyperparameters: Hyperparameters
) -> tuple[AgentState, UpdateInfo]:
    """Updates critic, actor and targets once (lines 12 to 15), on the minibatch [B, ...] of line 11. Consumes the key.

    `update` ignores `noise`, `lr_decay`, `reward_scale` and `ema_tau`; the loop and `Setup.reader` apply them.

    Raises:
        AssertionError: if the fields of the batch have wrong ranks, or differ in B.
        ValueError: if a part of the algorithm requires a hyperparameter that is None.
    """
    chex.assert_rank(list(batch), [2, 2, 1, 1, 2])
    chex.assert_equal_shape_prefix(list(batch), 1)
    dtype = dtype_of(state.critic)
    batch, hyperparameters = jax.tree.map(lambda x: jnp.asarray(x, dtype), (batch, hyperparameters))
    critic_key, actor_key, target_key = jax.random.split(key, 3)

    # Line 12: set y_i = r_i + gamma Q'(s_{i+1}, mu'(s_{i+1})).
    y, clipped_targets = _target(target_key, state, batch, algorithm, hyperparameters)
    # Line 13: update the critic by minimising the mean squared error to y.
    new, critic_loss, q_mean = _critic_step(critic_key, state, batch, y, algorithm, hyperparameters)

    def update_actor_and_targets(new: AgentState) -> tuple[AgentState, jax.Array]:
        # Line 14: update the actor by the sampled policy gradient.
        critic = new.critic if algorithm.critic_first else state.critic
        new, actor_loss = _actor_step(actor_key, new, critic, batch, algorithm, hyperparameters)
        # Line 15: update the targets, theta' <- tau theta + (1 - tau) theta', parameters and statistics alike.
        online, old = (new.actor, new.critic), (new.target_actor, new.target_critic)
        target_actor, target_critic = optax.incremental_update(online, old, hyperparameters.tau)
        return new._replace(target_actor=target_actor, target_critic=target_critic), actor_loss

    new, actor_loss = _every(algorithm.policy_delay, update_actor_and_targets, new)
    return new._replace(step=state.step + 1), UpdateInfo(critic_loss, actor_loss, q_mean, clipped_targets)


def _every(
    delay: int, update: Callable[[AgentState], tuple[AgentState, jax.Array]], state: AgentState
) -> tuple[AgentState, jax.Array]:
    """Applies `update` at every `delay`-th update and returns `delay` times its loss.

    Otherwise changes nothing and returns a loss of 0.
    """
    if delay == 1:
        return update(state)

    def update_now(state: AgentState) -> tuple[AgentState, jax.Array]:
        state, loss = update(state)
        return state, delay * loss

    no_loss = jnp.zeros((), dtype_of(state.critic))
    return jax.lax.cond((state.step + 1) % delay == 0, update_now, lambda state: (state, no_loss), state)


def _target(
    key: PRNGKey, state: AgentState, batch: Transition, algorithm: Algorithm, hyperparameters: Hyperparameters
) -> tuple[jax.Array, jax.Array]:
    """Returns the targets y [B], without dropout in the target networks, and `UpdateInfo.clipped_targets`."""
    next_action = jnp.asarray(algorithm.actor.apply(state.target_actor, batch.next_observation))
    if algorithm.target_action is not None:
        bounds = algorithm.actor.low, algorithm.actor.high
        next_action = algorithm.target_action(key, next_action, *bounds, hyperparameters)
    next_value = algorithm.critic.apply(state.target_critic, batch.next_observation, next_action)
    inputs = batch.reward, batch.discount, next_value
    y = algorithm.td_target(*inputs, gamma=hyperparameters.gamma)
    if algorithm.clipped_share is None:
        return y, jnp.zeros((), y.dtype)
    return y, algorithm.clipped_share(*inputs, gamma=hyperparameters.gamma)


def _critic_step(
    key: PRNGKey,
    state: AgentState,
    batch: Transition,
    y: jax.Array,
    algorithm: Algorithm,
    hyperparameters: Hyperparameters,
) -> tuple[AgentState, jax.Array, jax.Array]:
    """Returns the state after a step of the critic, with the critic's loss and mean value before it."""

    def loss(params: Params) -> tuple[jax.Array, tuple[Variables, jax.Array]]:
        variables = state.critic | {"params": params}
        value, variables = _apply_in_loss(key, algorithm.critic, variables, batch.observation, batch.action)
        return algorithm.critic_loss(value, y), (variables, jnp.mean(algorithm.action_value(value)))

    params = state.critic["params"]
    (critic_loss, (variables, q_mean)), gradient = jax.value_and_grad(loss, has_aux=True)(params)
    optimizer = algorithm.optimizer(hyperparameters.critic_lr, hyperparameters.adam_eps, hyperparameters.critic_l2)
    updates, optimizer_state = optimizer.update(gradient, state.critic_optimizer_state, params)
    critic = variables | {"params": optax.apply_updates(params, updates)}
    return state._replace(critic=critic, critic_optimizer_state=optimizer_state), critic_loss, q_mean


def _actor_step(
    key: PRNGKey,
    state: AgentState,
    critic: Variables,
    batch: Transition,
    algorithm: Algorithm,
    hyperparameters: Hyperparameters,
) -> tuple[AgentState, jax.Array]:
    """Returns the state after a step of the actor along the gradient of `critic`, and the loss before it."""
    actor_key, critic_key = jax.random.split(key)

    def loss(params: Params) -> tuple[jax.Array, Variables]:
        variables = state.actor | {"params": params}
        action, variables = _apply_in_loss(actor_key, algorithm.actor, variables, batch.observation)
        value, _ = _apply_in_loss(critic_key, algorithm.critic, critic, batch.observation, action)
        return algorithm.actor_loss(value), variables

    params = state.actor["params"]
    (actor_loss, variables), gradient = jax.value_and_grad(loss, has_aux=True)(params)
    optimizer = algorithm.optimizer(hyperparameters.actor_lr, hyperparameters.adam_eps, hyperparameters.actor_l2)
    updates, optimizer_state = optimizer.update(gradient, state.actor_optimizer_state, params)
    actor = variables | {"params": optax.apply_updates(params, updates)}
    return state._replace(actor=actor, actor_optimizer_state=optimizer_state), actor_loss


def _apply_in_loss(
    key: PRNGKey, network: Actor | Critic | Ensemble, variables: Variables, *inputs: jax.Array
) -> tuple[jax.Array, Variables]:
    """Returns the output with dropout and the minibatch's statistics, and the variables with new running statistics."""
    output, changed = network.apply(variables, *inputs, train=True, rngs={"dropout": key}, mutable=["batch_stats"])
    return output, variables | dict(changed)


def dtype_of(variables: Variables) -> jnp.dtype:
    """Returns the dtype in which a network with these variables computes."""
    return jax.tree.leaves(variables)[0].dtype
