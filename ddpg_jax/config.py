"""The configuration of an agent: plain Python values that check themselves.

Nothing here imports JAX, so that commands check their input and print their help at once.
"""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from ddpg_jax.fields import (
    ARGUMENTS,
    CLASS,
    COUNT,
    COUNT_OR_ZERO,
    DECAY,
    FINITE,
    FRACTION,
    LARGEST_COUNT,
    NAME,
    NOT_NEGATIVE,
    POSITIVE,
    RATE,
    SIZES,
    annotations,
    check_fields,
    count,
)


@dataclass(frozen=True)
class Config:
    """One DDPG agent's task, networks, optimisation, exploration and evaluation.

    Immutable and hashable. Creating one (also with `replace`) checks every field; a ValueError names the field, its
    value and the rule that it breaks.
    """

    # Task
    env_id: Annotated[str, NAME] = "Pendulum-v1"
    """Environment with continuous actions: a gymnax name, LIBRARY:NAME, or your own MODULE:FUNCTION;
    --list-environments shows those available on this installation."""
    env_args: Annotated[tuple[str, ...], ARGUMENTS] = ()
    """Arguments passed to the environment, each of the form NAME=VALUE."""
    action_repeat: Annotated[int, count(1, 1000)] = 1
    """Environment steps for which each action is repeated; every other number of steps counts the agent's actions."""
    total_steps: Annotated[int, COUNT] = 10_000
    """Environment steps per agent."""
    max_episode_steps: Annotated[int | None, COUNT] = None
    """Limit on the steps of a training episode. With None, only the environment's own limit holds."""
    time_limit_terminal: bool = False
    """Treat a time limit as a terminal state, without bootstrapping."""

    # Networks
    hidden_sizes: Annotated[tuple[int, ...], SIZES] = (64, 64)
    """Units of the actor's hidden layers, and of the critic's trunk."""
    critic_hidden_sizes: Annotated[tuple[int, ...] | None, SIZES] = None
    """Units of the critic's trunk (default: hidden_sizes)."""
    critic_observation_sizes: Annotated[tuple[int, ...], SIZES] = ()
    """Units of the critic's layers that see only the observation, before it is joined with the action."""
    critic_action_sizes: Annotated[tuple[int, ...], SIZES] = ()
    """Units of the critic's layers that see only the action, before it is joined with the observation."""
    action_bound: Literal["tanh", "sigmoid"] = "tanh"
    """Function that bounds the actor's output before it is scaled to the action space."""
    hidden_layers: Literal["dense", "residual"] = "dense"
    """Hidden layers: dense ones, or SimBa's residual blocks with layer normalisation, one for each of the sizes, which
    must then be equal."""
    hidden_init: Literal["glorot_uniform", "lecun_normal", "fan_in_uniform", "orthogonal"] = "glorot_uniform"
    """Initialisation of hidden layers; fan_in_uniform draws kernels and biases from U(+-1/sqrt(fan_in))."""
    actor_final_init: Annotated[float | None, POSITIVE] = 0.003
    """The actor's last kernel is drawn from U(+- this). With None, it is drawn by hidden_init."""
    critic_final_init: Annotated[float | None, POSITIVE] = None
    """The critic's last kernel is drawn from U(+- this). With None, it is drawn by hidden_init."""
    final_init_biases: bool = False
    """Draw the last layers' biases from the same interval as their kernels, instead of zeros, where
    actor_final_init or critic_final_init sets one."""
    actor_normalization: Literal["none", "layer", "batch"] = "none"
    """Normalisation of the actor's hidden layers; batch also normalises the observation."""
    critic_normalization: Literal["none", "layer", "batch"] = "none"
    """Normalisation of the critic's hidden layers; batch also normalises the observation, and stops at the action."""
    actor_dropout: Annotated[float, RATE] = 0.0
    """Dropout rate after the actor's hidden layers, only in the losses."""
    critic_dropout: Annotated[float, RATE] = 0.0
    """Dropout rate after the critic's hidden layers, only in the losses."""
    num_critics: Annotated[int, count(1, 64)] = 1
    """Number of independent critics; the target uses the smallest of their values, the actor's loss the first."""
    critic_atoms: Annotated[int, count(1, 1001)] = 1
    """Number of atoms of the critic's return distribution, from value_min to value_max; 1: estimate only the mean."""
    value_min: Annotated[float, FINITE] = 0.0
    """Smallest discounted return that critic_atoms represent, after reward_scale."""
    value_max: Annotated[float, FINITE] = 0.0
    """Largest discounted return that critic_atoms represent, after reward_scale."""
    normalize_observations: bool = False
    """Standardise observations by mean and variance of those before learning_starts, at least the first 1,000."""
    matmul_dtype: Literal["float32", "bfloat16"] = "float32"
    """Operands of the hidden layers' matrix products; bfloat16 rounds those of 16 or more features, sums in float32."""

    actor: Annotated[str | None, CLASS] = None
    """Class of your own that is the actor, MODULE:CLASS (default: the network that the options above describe)."""
    critic: Annotated[str | None, CLASS] = None
    """Class of your own that is the critic, MODULE:CLASS (default: the network that the options above describe)."""

    # Optimisation
    actor_lr: Annotated[float, POSITIVE] = 1e-3
    """Adam's learning rate for the actor."""
    critic_lr: Annotated[float, POSITIVE] = 2e-3
    """Adam's learning rate for the critic."""
    lr_decay: Annotated[float, DECAY] = 1.0
    """Factor on both learning rates after each episode."""
    adam_eps: Annotated[float, POSITIVE] = 1e-8
    """Adam's epsilon."""
    adam_eps_hat: bool = False
    """Add epsilon to sqrt(v) before the bias correction, as TensorFlow and Keras do (Optax: after it)."""
    actor_l2: Annotated[float, NOT_NEGATIVE] = 0.0
    """L2 on the actor's kernels: this times the kernel is added to its gradient, before Adam."""
    critic_l2: Annotated[float, NOT_NEGATIVE] = 0.0
    """L2 on the critic's kernels: this times the kernel is added to its gradient, before Adam."""
    decoupled_l2: bool = False
    """Apply L2 as AdamW does: each step subtracts the learning rate times L2 times the kernel."""
    max_grad_norm: Annotated[float | None, POSITIVE] = None
    """Largest global norm of each network's gradients; larger gradients are scaled down to it (default: no limit)."""
    gamma: Annotated[float, FRACTION] = 0.99
    """Discount factor per step."""
    n_step: Annotated[int, count(1, 1000)] = 1
    """Rewards in the critic's target before it bootstraps; fewer at the end of an episode or of the stored data."""
    reward_scale: Annotated[float, POSITIVE] = 1.0
    """Factor on the rewards that the critic learns from; reported returns are not scaled."""
    target_noise: Annotated[float, NOT_NEGATIVE] = 0.0
    """Standard deviation of the noise on the target's action, in units of half the action's range."""
    target_noise_clip: Annotated[float, POSITIVE] = 0.5
    """Largest size of that noise, in the same units."""
    policy_delay: Annotated[int, COUNT] = 1
    """Updates of the critic for each update of the actor and the targets."""
    tau: Annotated[float, DECAY] = 0.005
    """Step of the target networks towards the online ones after each update."""
    batch_size: Annotated[int, COUNT] = 64
    """Transitions in a minibatch."""
    replay_capacity: Annotated[int, COUNT] = 50_000
    """Transitions that the replay holds before it overwrites the oldest; at least batch_size."""
    sample_with_replacement: bool = True
    """Let a transition appear more than once in a minibatch."""
    learning_starts: Annotated[int, COUNT_OR_ZERO] = 0
    """Transitions in the replay before the first update; at least batch_size if sampling is without replacement."""
    train_every: Annotated[int, COUNT] = 1
    """Steps of the training loop between updates; in each one, all environments of an agent take one step."""
    updates_per_train: Annotated[int, COUNT] = 1
    """Updates each time that the agent trains."""
    update_order: Literal["critic_first", "together"] = "critic_first"
    """The actor's loss uses the critic after its update (critic_first) or before it (together)."""

    # Exploration
    noise: Literal["ou", "unaccumulated", "gaussian"] = "ou"
    """Exploration noise: x <- x + theta (mean - x) dt + sigma sqrt(dt) e (ou), x <- theta (mean - x) + sigma e
    (unaccumulated) or x <- mean + sigma e (gaussian); e is standard normal."""
    noise_theta: Annotated[float, NOT_NEGATIVE] = 0.15
    """Rate at which the noise returns to its mean, per unit of time."""
    noise_sigma: Annotated[float, NOT_NEGATIVE] = 0.2
    """Volatility of the noise."""
    noise_dt: Annotated[float, POSITIVE] = 1.0
    """Time that passes in a step of the ou noise."""
    noise_mean: Annotated[float, FINITE] = 0.0
    """Mean of the noise."""
    noise_initial: Annotated[float, FINITE] = 0.0
    """Value of the noise at its start."""
    noise_scale: Annotated[float, NOT_NEGATIVE] = 1.0
    """Factor by which the noise is multiplied before it is added to the action."""
    noise_relative: bool = False
    """Measure the noise in units of the action's range (high - low) instead of the environment's units."""
    noise_decay: Annotated[float, DECAY] = 1.0
    """Factor on noise_scale after each episode."""
    noise_reset: bool = False
    """Start the noise anew in each episode."""
    num_envs: Annotated[int, count(1, 4096)] = 1
    """Environments that each agent steps side by side; environment steps are counted over all of them."""
    random_steps: Annotated[int, COUNT_OR_ZERO] = 0
    """Environment steps at the beginning with uniformly random actions."""
    clip_stored_action: bool = True
    """Store the action as it was executed, clipped to the bounds, instead of before clipping."""

    # Evaluation
    ema_tau: Annotated[float, DECAY] = 1.0
    """Step of a moving average of the actor's weights, which is evaluated and exported in its place (1: no average)."""
    eval_every: Annotated[int, COUNT] = 500
    """Environment steps per agent between evaluations."""
    eval_episodes: Annotated[int | None, COUNT] = None
    """Greedy episodes per evaluation during training, from start states common to all agents (default: 64; 8 where
    environments step on the host)."""
    final_episodes: Annotated[int | None, COUNT] = None
    """Greedy episodes after training for the reported results; the same number again, from other start states, selects
    the best agent (default: 512; 32 where environments step on the host)."""

    def __post_init__(self) -> None:
        check_fields(self)
        capacity, num_envs, atoms = self.replay_capacity, self.num_envs, self.critic_atoms

        def require(holds: bool, name: str, rule: str) -> None:
            if not holds:
                raise ValueError(f"{name} is {getattr(self, name)}, but must {rule}")

        require(capacity >= self.batch_size, "replay_capacity", f"be at least batch_size, {self.batch_size}")
        most = f"be at most replay_capacity, {capacity}"
        require(self.first_update <= capacity, "learning_starts", f"{most}: the replay never holds more")
        require(self.n_step <= capacity, "n_step", most)
        for name in ("total_steps", "eval_every", "replay_capacity"):
            rule = f"be a multiple of num_envs, {num_envs}, which step side by side"
            require(getattr(self, name) % num_envs == 0, name, rule)
        for name in ("value_min", "value_max"):
            require(atoms > 1 or getattr(self, name) == 0, name, "be 0 unless critic_atoms is above 1")
        rule = f"be above value_min, {self.value_min}, where critic_atoms is above 1"
        require(atoms == 1 or self.value_min < self.value_max, "value_max", rule)
        if self.hidden_layers == "residual":
            for name in ("hidden_sizes", "critic_hidden_sizes", "critic_observation_sizes", "critic_action_sizes"):
                require(len(set(getattr(self, name) or ())) <= 1, name, "be equal sizes: hidden_layers is residual")
            for name in ("actor_normalization", "critic_normalization", "actor_dropout", "critic_dropout"):
                rule = f"be {getattr(Config, name)}: hidden_layers is residual, whose layer normalisation is its own"
                require(getattr(self, name) == getattr(Config, name), name, rule)
        updates = self.updates_per_train * -(-self.loop_steps(self.total_steps) // self.train_every)
        because = f"updates_per_train is {self.updates_per_train}, train_every {self.train_every}"
        rule = f"result in at most {LARGEST_COUNT} updates, not {updates} ({because})"
        require(updates <= LARGEST_COUNT, "total_steps", rule)

    @property
    def first_update(self) -> int:
        """The environment step after which the first update may happen, counted from 1."""
        return max(self.learning_starts, 1 if self.sample_with_replacement else self.batch_size)

    def loop_steps(self, env_steps: int) -> int:
        """Returns the fewest steps of the training loop in which an agent makes `env_steps` environment steps."""
        return -(-env_steps // self.num_envs)

    def resolved(self, on_host: bool) -> "Config":
        """Returns the configuration with the default numbers of episodes; `on_host`: environments step on the host."""
        during, final = (8, 32) if on_host else (64, 512)
        return self.replace(eval_episodes=self.eval_episodes or during, final_episodes=self.final_episodes or final)

    def __repr__(self) -> str:
        changes = (f"{name}={value!r}" for name, value in vars(self).items() if value != getattr(Config, name))
        return f"Config({', '.join(changes)})"

    def replace(self, **changes: Any) -> "Config":
        """Returns a copy with the named fields changed, checked again."""
        return dataclasses.replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields as values that JSON can hold."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(self).items()}

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> "Config":
        """Returns the configuration that `to_dict` described; fields that are missing have their defaults."""
        if unknown := sorted(set(values) - set(ANNOTATIONS)):
            raise ValueError(f"{unknown[0]} is not a field of the configuration; known are {', '.join(ANNOTATIONS)}")
        return Config(**values)

    def to_json(self, path: str | Path) -> None:
        """Writes the fields as a JSON object into a file, for `from_json` and `python -m ddpg_jax.run --config`."""
        Path(path).write_text(json.dumps(self.to_dict(), indent=1) + "\n")

    @staticmethod
    def from_json(path: str | Path) -> "Config":
        """Returns the configuration in a JSON file; fields that are missing have their defaults.

        A ValueError names the file, and the field that is unknown or breaks its rule.
        """
        try:
            values = json.loads(Path(path).read_bytes())
            if not isinstance(values, dict):
                raise ValueError("it must be an object with fields of the configuration")
            return Config.from_dict(values)
        except (OSError, ValueError, RecursionError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise ValueError(f"{path} is not a configuration: {reason}") from error


ANNOTATIONS: dict[str, Any] = annotations(Config)
"""The types and rules of the fields, by their names."""

SECTIONS = {
    "env_id": "Task", "hidden_sizes": "Network", "actor_lr": "Optimisation", "noise": "Exploration",
    "ema_tau": "Evaluation",
}  # fmt: skip
"""The sections of `--help`, each with its first field."""
