"""The types of the arrays that flow through training, with their shapes.

`B` is the minibatch, `O` the size of an observation, `A` of an action, `N` the number of agents. Everything is the
state of one agent; many agents are the same trees with a leading axis `N` (see `ddpg_jax/population`). Floating-point
arrays are float32 unless said otherwise.
"""

from typing import Any, NamedTuple, TypeAlias

import jax
import optax

PRNGKey: TypeAlias = jax.Array
"""A typed key made by `jax.random.key`, shape []."""

Params: TypeAlias = Any
"""A tree of arrays: the parameters of a Flax network."""

Variables: TypeAlias = dict[str, Any]
"""Flax's variables of a network: {"params": …}, and where there are any "batch_stats", the running statistics of batch
normalisation, and "moments", the mean and the variance of observations."""


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
    """[...] 0 where the step ended in a terminal state, otherwise 1, also at a time limit."""
    next_observation: jax.Array
    """[..., O] the observation after the step, before any reset."""


class NoiseProcess(NamedTuple):
    """The AR(1) form of every noise here: x <- coefficient x + drift + innovation e, with standard normal e.

    The loop adds scale decay^episode x to the action, times `Exploration.noise_unit`. The functions of `noise.py` make
    such processes.
    """

    coefficient: jax.Array | float
    """Share of x that remains after a step: its lag-1 correlation."""
    drift: jax.Array | float
    """Constant that is added in every step."""
    innovation: jax.Array | float
    """Standard deviation of the random number that is added in every step."""
    initial: jax.Array | float = 0.0
    """x at its start."""
    scale: jax.Array | float = 1.0
    """Factor from x to the action, in the first episode."""
    decay: jax.Array | float = 1.0
    """Factor on the scale after each episode."""


class Hyperparameters(NamedTuple):
    """Scalars that do not change array shapes: one compiled program serves all their values, for each agent."""

    actor_lr: jax.Array | float
    """Adam's learning rate for the actor."""
    critic_lr: jax.Array | float
    """Adam's learning rate for the critic."""
    lr_decay: jax.Array | float
    """Factor on both learning rates after each episode; the loop applies it, not `update`."""
    adam_eps: jax.Array | float
    """Adam's epsilon."""
    actor_l2: jax.Array | float
    """L2 on the actor's kernels."""
    critic_l2: jax.Array | float
    """L2 on the critic's kernels."""
    gamma: jax.Array | float
    """Discount factor per step."""
    tau: jax.Array | float
    """Step of the target networks towards the online ones."""
    noise: NoiseProcess
    """Exploration noise; the loop adds it, not `act`."""
    target_noise: jax.Array | float | None = None
    """Standard deviation of the noise on the target's action, in units of half the action's range; None: no noise."""
    target_noise_clip: jax.Array | float | None = None
    """The largest size of that noise, in the same units."""
    reward_scale: jax.Array | float | None = None
    """Factor on the rewards that the critic learns from; None: no factor. `Setup.reader` applies it, not `update`."""
    average_tau: jax.Array | float | None = None
    """Step of the average of the actor's weights towards them; None: no average. The loop takes it, not `update`."""


def needed(hyperparameters: Hyperparameters, name: str) -> jax.Array | float:
    """Returns a hyperparameter that a part of the setup needs.

    Raises:
        ValueError: if it is None, that is, switched off.
    """
    value = getattr(hyperparameters, name)
    if value is None:
        raise ValueError(
            f"{name} is None, but must be a number, because a part of the setup needs it: "
            f"hyperparameters._replace({name}=...)"
        )
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
    average_actor: Variables | None = None
    """Variables of the average of the actor (`averaging.py`); None: there is none."""


class UpdateInfo(NamedTuple):
    """The report of an update, each [], measured on its minibatch.

    `critic_loss` and `q_mean` are those of the critic before its step. `actor_loss` is that of the actor before its
    step, by the critic after its own (`Algorithm.critic_first`) or before.
    """

    critic_loss: jax.Array
    """Mean squared TD error; of several critics the sum, of a categorical one the cross-entropy."""
    actor_loss: jax.Array
    """Mean of -Q(s, mu(s)). With a policy delay d it is d times that at each d-th update, and 0 at the others, so that
    its average over updates is an average over the actor's."""
    q_mean: jax.Array
    """Mean of Q(s, a) over the stored actions."""


class Replay(NamedTuple):
    """A ring buffer of transitions, one per row, so that a minibatch is one gather."""

    rows: jax.Array
    """[capacity, 2 O + A + 2]."""
    added: jax.Array
    """[] int32: transitions added so far; the next one is written to row added mod capacity."""


class Episode(NamedTuple):
    """Counters of the episode that is running."""

    number: jax.Array
    """[] int32: episodes completed before this one."""
    total_reward: jax.Array
    """[] sum of its rewards so far."""
    length: jax.Array
    """[] int32: its steps so far."""


class TrainState(NamedTuple):
    """Everything that an agent carries from one step to the next; nothing else is needed to continue it.

    With E > 1 environments side by side, noise, environment, observation and episode have a leading axis E.
    """

    agent: AgentState
    """Networks, targets and optimizer states."""
    replay: Replay
    """The stored transitions."""
    noise: jax.Array
    """[A] value of the exploration noise, before it is scaled."""
    environment: Any
    """The environment's own state, a tree of arrays."""
    observation: jax.Array
    """[O] the latest observation."""
    episode: Episode
    """Counters of the episode that is running."""
    key: PRNGKey
    """[] the source of all random numbers of its training, with the number of each step folded in (`draws.py`)."""
    step: jax.Array
    """[] int32: steps of the training loop so far; agents that advance together share it."""


class StepLog(NamedTuple):
    """The report of a training step: scalars, or [E] for E > 1 environments in the last two fields.

    For N agents in a chunk of n steps they are NumPy arrays [N, n], and [N, n E], the environments in turn.
    """

    critic_loss: Any
    """Sum over the step's updates, like the next two fields; 0 if there was none."""
    actor_loss: Any
    q_mean: Any
    episode_length: Any
    """Steps of the episode that the step ended; 0 if it ended none."""
    episode_return: Any
    """Sum of the rewards of the running episode, or of the one that the step ended."""
