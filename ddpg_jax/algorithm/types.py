"""The arrays that flow through training, with their shapes.

`B` is the size of a minibatch, `O` of an observation, `A` of an action; `E` is the number of environments per agent.
Each type holds the state of one agent; `N` agents are the same tree with a leading axis `N`. Numbers are float32.
"""

from typing import Any, NamedTuple, TypeAlias

import jax
import optax

PRNGKey: TypeAlias = jax.Array
"""A typed key made by `jax.random.key`, shape []."""

Scalar: TypeAlias = jax.Array | float
"""A number, or an array [] of one."""

Params: TypeAlias = Any
"""A tree of arrays: the parameters of a Flax network."""

Variables: TypeAlias = dict[str, Any]
"""Flax's variables: {"params": …}, with batch normalisation "batch_stats", with normalised observations "obs_stats"."""


def is_key(leaf: Any) -> bool:
    """Returns whether an array holds random keys, which are saved and moved as their data."""
    return bool(jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key))


class Transition(NamedTuple):
    """One step of an environment, or, with a leading axis B, a minibatch of them."""

    observation: jax.Array
    """[..., O] the observation before the step."""
    action: jax.Array
    """[..., A] the action, in the environment's units."""
    reward: jax.Array
    """[...] the reward of the step."""
    discount: jax.Array
    """[...] 0 where the step ended in a terminal state, otherwise 1, also at a time limit (unless
    `Exploration.time_limit_terminal`); of an n-step window times gamma^(m-1) (`n_step.py`)."""
    next_observation: jax.Array
    """[..., O] the observation after the step, before any reset."""


class NoiseProcess(NamedTuple):
    """Exploration noise, x <- coefficient x + drift + innovation e with standard normal e (made by `noise.py`).

    The loop adds scale decay^episode x to the action, times `Exploration.noise_unit`.
    """

    coefficient: Scalar
    """Fraction of x that remains after a step: its lag-1 correlation."""
    drift: Scalar
    """Constant added in every step."""
    innovation: Scalar
    """Standard deviation of the random number added in every step."""
    initial: Scalar = 0.0
    """First value of x."""
    scale: Scalar = 1.0
    """Factor from x to the action, in the first episode."""
    decay: Scalar = 1.0
    """Factor on the scale after each episode."""


class Hyperparameters(NamedTuple):
    """Scalars that change no array shape: one compiled program serves all their values, and each agent has its own."""

    actor_lr: Scalar
    """Adam's learning rate for the actor."""
    critic_lr: Scalar
    """Adam's learning rate for the critic."""
    lr_decay: Scalar
    """Factor on both learning rates after each episode; applied by the loop, not by `update`."""
    adam_eps: Scalar
    """Adam's epsilon."""
    actor_l2: Scalar
    """L2 on the actor's kernels."""
    critic_l2: Scalar
    """L2 on the critic's kernels."""
    gamma: Scalar
    """Discount factor per step."""
    tau: Scalar
    """Step of the target networks towards the online ones."""
    noise: NoiseProcess
    """Exploration noise; added by the loop, not by `act`."""
    target_noise: Scalar | None = None
    """Standard deviation of the noise on the target's action, in halves of the action's range; None: no noise."""
    target_noise_clip: Scalar | None = None
    """Largest size of that noise, in the same units."""
    reward_scale: Scalar | None = None
    """Factor on the rewards that the critic learns from, applied by `Setup.reader` (not by `update`); None: 1."""
    ema_tau: Scalar | None = None
    """Step of the average of the actor's weights towards the actor, made by the loop; None: there is no average."""


def required(hyperparameters: Hyperparameters, name: str) -> Scalar:
    """Returns a hyperparameter that a part of the setup requires, or raises a ValueError if it is None."""
    value = getattr(hyperparameters, name)
    if value is None:
        rule = "must be a number, because a part of the setup requires it"
        raise ValueError(f"{name} is None, but {rule}: hyperparameters._replace({name}=...)")
    return value


class AgentState(NamedTuple):
    """Everything that `update` advances. The dtype of the parameters is the dtype of all computations."""

    actor: Variables
    """Variables of the actor mu."""
    critic: Variables
    """Variables of the critic Q."""
    target_actor: Variables
    """Variables of the target actor mu'."""
    target_critic: Variables
    """Variables of the target critic Q'."""
    actor_optimizer_state: optax.OptState
    """Moments and counter of the actor's optimizer."""
    critic_optimizer_state: optax.OptState
    """Moments and counter of the critic's optimizer."""
    step: jax.Array
    """[] int32: updates so far."""
    ema_actor: Variables | None = None
    """Variables of the average of the actor (`ema.py`); None: there is no average."""


class UpdateInfo(NamedTuple):
    """What an update measures on its minibatch, each [], with the weights from which each network makes its step."""

    critic_loss: jax.Array
    """Mean squared TD error, or the cross-entropy of a categorical critic; summed over several critics."""
    actor_loss: jax.Array
    """Mean of -Q(s, mu(s)). With a policy delay d, d times that at each d-th update, else 0: the mean is the same."""
    q_mean: jax.Array
    """Mean of Q(s, a) over the stored actions."""
    clipped_targets: jax.Array
    """Fraction of the target's probability outside the support of a categorical critic; 0 for others."""


class Replay(NamedTuple):
    """A ring buffer with one transition per row, so that a minibatch is one gather."""

    rows: jax.Array
    """[capacity, 2 O + A + 2]."""
    added: jax.Array
    """[] int32: transitions added so far; the next one is written to row added mod capacity."""


class Episode(NamedTuple):
    """Counters of the current episode."""

    number: jax.Array
    """[] int32: episodes completed before this one."""
    total_reward: jax.Array
    """[] sum of its rewards so far."""
    length: jax.Array
    """[] int32: its steps so far."""


class EnvState(NamedTuple):
    """What one environment carries from step to step; with E > 1 environments per agent, with a leading axis E."""

    state: Any
    """The environment's own state, a tree of arrays."""
    observation: jax.Array
    """[O] the latest observation."""
    noise: Any
    """State of the exploration noise; of an AR(1) process its value [A], before it is scaled."""
    episode: Episode
    """Counters of the current episode."""


class TrainState(NamedTuple):
    """Everything that an agent carries from step to step; training continues from it."""

    agent: AgentState
    """Networks, targets and optimizer states."""
    replay: Replay
    """The stored transitions."""
    env: EnvState
    """The agent's environments."""
    key: PRNGKey
    """[] the source of all random numbers; each step folds in its number (`rng.py`)."""
    step: jax.Array
    """[] int32: steps of the training loop so far; agents that advance together share it."""


class EpisodeStats(NamedTuple):
    """What a step did to its episode; with E > 1 environments per agent [E] for []."""

    length: jax.Array
    """[] int32: steps of the episode that the step ended; 0 if it ended none."""
    total_reward: jax.Array
    """[] sum of the episode's rewards, including this step."""


class StepLog(NamedTuple):
    """The log of N agents in n steps: sums over a step's updates (`UpdateInfo`) [N, n], and `EpisodeStats` [N, n E]."""

    critic_loss: Any
    actor_loss: Any
    q_mean: Any
    clipped_targets: Any
    episode_length: Any
    episode_return: Any
