"""What a training run is made of: plain Python values that check themselves.

Nothing here imports JAX, so that a command line can validate its input, and print its help, at once.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args, get_origin, get_type_hints


@dataclass(frozen=True)
class Config:
    """One DDPG agent's task, networks, optimisation, exploration and evaluation.

    Immutable and hashable. Creating one (also with `dataclasses.replace`) checks every field.

    Raises:
        ValueError: names the field, its value and the rule it breaks.
    """

    # Task
    env_id: str = "Pendulum-v1"
    """Name of a gymnax environment with continuous actions."""
    total_steps: int = 10_000
    """Environment steps of each agent; >= 1."""
    max_episode_steps: int | None = None
    """Cap on the steps of a training episode, a time limit; >= 1, or None for the environment's own alone."""
    time_limit_terminal: bool = False
    """Count a time limit as a terminal state (no bootstrapping there). The default bootstraps."""

    # Networks
    hidden_sizes: tuple[int, ...] = (64, 64)
    """Units of the actor's hidden layers, and of the critic's trunk; each >= 1."""
    critic_hidden_sizes: tuple[int, ...] | None = None
    """Units of the critic's trunk if they differ from hidden_sizes; each >= 1."""
    critic_observation_sizes: tuple[int, ...] = ()
    """Units of the critic's layers that see the observation alone, before it meets the action; each >= 1."""
    critic_action_sizes: tuple[int, ...] = ()
    """Units of the critic's layers that see the action alone, before it meets the observation; each >= 1."""
    action_bound: Literal["tanh", "sigmoid"] = "tanh"
    """Function that bounds the actor's output before it is scaled to the action space."""
    hidden_init: Literal["glorot_uniform", "lecun_normal", "fan_in_uniform"] = "glorot_uniform"
    """Initialisation of hidden layers; fan_in_uniform draws kernels and biases from U(+-1/sqrt(fan_in))."""
    actor_final_init: float | None = 0.003
    """The actor's last kernel is drawn from U(+- this); > 0, or None for hidden_init."""
    critic_final_init: float | None = None
    """The critic's last kernel is drawn from U(+- this); > 0, or None for hidden_init."""
    final_init_biases: bool = False
    """Draw the last layers' biases from the same interval as their kernels, instead of zeros."""
    actor_normalization: Literal["none", "layer", "batch"] = "none"
    """Normalisation in the actor: of each hidden layer; batch also normalises the observation."""
    critic_normalization: Literal["none", "layer", "batch"] = "none"
    """Normalisation in the critic; batch normalises only what the action has not yet entered."""
    actor_dropout: float = 0.0
    """Dropout rate behind the actor's hidden layers, in the losses only; in [0, 1)."""
    critic_dropout: float = 0.0
    """Dropout rate behind the critic's hidden layers, in the losses only; in [0, 1)."""
    matmul_dtype: Literal["float32", "bfloat16"] = "float32"
    """Operands of the hidden layers' matrix products; bfloat16 rounds those of 16 features or more, sums in float32."""

    # Optimisation
    actor_lr: float = 1e-3
    """Adam's learning rate for the actor; > 0."""
    critic_lr: float = 2e-3
    """Adam's learning rate for the critic; > 0."""
    lr_decay: float = 1.0
    """Factor on both learning rates after each episode; in (0, 1]."""
    adam_eps: float = 1e-8
    """Adam's epsilon; > 0."""
    adam_eps_hat: bool = False
    """Add epsilon to sqrt(v) before the bias correction, as TensorFlow and Keras do (Optax: after it)."""
    actor_l2: float = 0.0
    """L2 on the actor's kernels: this times the kernel is added to its gradient, before Adam; >= 0."""
    critic_l2: float = 0.0
    """L2 on the critic's kernels: this times the kernel is added to its gradient, before Adam; >= 0."""
    gamma: float = 0.99
    """Discount factor of a step; in [0, 1]."""
    tau: float = 0.005
    """Step of the target networks towards the online ones after an update; in (0, 1]."""
    batch_size: int = 64
    """Transitions in a minibatch; >= 1."""
    replay_capacity: int = 50_000
    """Transitions that the replay holds before it overwrites the oldest; >= batch_size."""
    sample_with_replacement: bool = True
    """Let a transition appear more than once in a minibatch."""
    learning_starts: int = 0
    """Transitions in the replay before the first update; >= 0 (without replacement at least batch_size)."""
    train_every: int = 1
    """Environment steps between updates; >= 1."""
    updates_per_train: int = 1
    """Updates each time; >= 1."""
    update_order: Literal["critic_first", "together"] = "critic_first"
    """Let the actor's loss see the new critic (critic_first) or the critic before its update (together)."""

    # Exploration
    noise: Literal["ou", "unaccumulated", "gaussian"] = "ou"
    """x <- x + theta (mean - x) dt + sigma sqrt(dt) e (ou); theta (mean - x) + sigma e (unaccumulated);
    mean + sigma e (gaussian); e is standard normal."""
    noise_theta: float = 0.15
    """Rate at which the noise returns to its mean, per unit of time; >= 0."""
    noise_sigma: float = 0.2
    """Volatility of the noise; >= 0."""
    noise_dt: float = 1.0
    """Time that passes in a step of the ou noise; > 0."""
    noise_mean: float = 0.0
    """Mean of the noise."""
    noise_initial: float = 0.0
    """Value of the noise at its start."""
    noise_scale: float = 1.0
    """Factor from the noise to the action; >= 0."""
    noise_relative: bool = False
    """Measure the noise in units of the action's range (high - low) instead of the environment's own."""
    noise_decay: float = 1.0
    """Factor on noise_scale after each episode; in (0, 1]."""
    noise_reset: bool = False
    """Start the noise anew in every episode."""
    clip_stored_action: bool = True
    """Store the action as it was executed, clipped to the bounds, instead of before clipping."""

    # Evaluation
    eval_every: int = 500
    """Environment steps of an agent between evaluations; >= 1."""
    eval_episodes: int = 64
    """Greedy episodes of an evaluation during training, from start states common to all agents; >= 1."""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = _checked_type(field.name, getattr(self, field.name), _TYPES[field.name])
            object.__setattr__(self, field.name, value)
            if field.name in _RULES:
                _RULES[field.name].check(field.name, value)
        if self.replay_capacity < self.batch_size:
            raise ValueError(
                f"replay_capacity is {self.replay_capacity}, but must be at least batch_size, {self.batch_size}"
            )
        if self.first_update > self.replay_capacity:
            raise ValueError(
                f"learning_starts is {self.learning_starts}, but must be at most replay_capacity, "
                f"{self.replay_capacity}: the replay never holds more"
            )

    @property
    def first_update(self) -> int:
        """The environment step after which the first update may happen, counted from 1."""
        needed = 1 if self.sample_with_replacement else self.batch_size
        return max(self.learning_starts, needed)

    def num_updates(self, num_steps: int) -> int:
        """Updates of an agent within its first `num_steps` environment steps."""
        return self.updates_per_train * max(
            0, _multiples(num_steps, self.train_every) - _multiples(self.first_update - 1, self.train_every)
        )

    def replace(self, **changes: Any) -> "Config":
        """A copy with the named fields changed, checked again."""
        return dataclasses.replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """The fields as values that JSON can hold."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(self).items()}

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> "Config":
        """The configuration that `to_dict` described; an unknown field is a ValueError."""
        unknown = sorted(set(values) - set(_TYPES))
        if unknown:
            raise ValueError(f"{unknown[0]} is not a field of the configuration; known are {', '.join(_TYPES)}")
        return Config(**values)


def _multiples(steps: int, every: int) -> int:
    """How many of the steps 1, 2, …, `steps` train: the first of every `every`, as in the gist."""
    return -(-steps // every)


class _Rule(NamedTuple):
    """A domain: its words, and what tells whether a value lies in it."""

    words: str
    holds: Callable[[Any], bool]

    def check(self, name: str, value: Any) -> None:
        if value is not None and not self.holds(value):
            shown = list(value) if isinstance(value, tuple) else repr(value)
            raise ValueError(f"{name} is {shown}, but must be {self.words}")


_LARGEST_COUNT = 2**31 - 1  # counters in the compiled program are 32-bit integers
_LARGEST_NUMBER = 1e30  # its numbers are 32-bit floats

_POSITIVE = _Rule("a finite number > 0 (at most 1e30, at least 1e-30)", lambda v: 1e-30 <= v <= _LARGEST_NUMBER)
_NOT_NEGATIVE = _Rule("a finite number >= 0 (at most 1e30)", lambda v: 0 <= v <= _LARGEST_NUMBER)
_FINITE = _Rule("a finite number (at most 1e30 in size)", lambda v: abs(v) <= _LARGEST_NUMBER)
_FRACTION = _Rule("in [0, 1]", lambda v: 0 <= v <= 1)
_DECAY = _Rule("in (0, 1]", lambda v: 0 < v <= 1)
_RATE = _Rule("in [0, 1)", lambda v: 0 <= v < 1)
_COUNT = _Rule("a whole number >= 1 (at most 2147483647)", lambda v: 1 <= v <= _LARGEST_COUNT)
_COUNT_OR_ZERO = _Rule("a whole number >= 0 (at most 2147483647)", lambda v: 0 <= v <= _LARGEST_COUNT)
_SIZES = _Rule("whole numbers >= 1 (at most 65536), at most 64 of them",
               lambda v: len(v) <= 64 and all(1 <= size <= 65536 for size in v))  # fmt: skip
_NAME = _Rule("a name", lambda v: bool(v.strip()))

_RULES: dict[str, _Rule] = {
    **dict.fromkeys(("actor_lr", "critic_lr", "adam_eps", "noise_dt", "actor_final_init", "critic_final_init"),
                    _POSITIVE),
    **dict.fromkeys(("actor_l2", "critic_l2", "noise_theta", "noise_sigma", "noise_scale"), _NOT_NEGATIVE),
    **dict.fromkeys(("noise_mean", "noise_initial"), _FINITE),
    **dict.fromkeys(("actor_dropout", "critic_dropout"), _RATE),
    **dict.fromkeys(("tau", "lr_decay", "noise_decay"), _DECAY),
    **dict.fromkeys(("total_steps", "max_episode_steps", "batch_size", "replay_capacity", "train_every",
                     "updates_per_train", "eval_every", "eval_episodes"), _COUNT),
    **dict.fromkeys(("hidden_sizes", "critic_hidden_sizes", "critic_observation_sizes", "critic_action_sizes"),
                    _SIZES),
    "gamma": _FRACTION,
    "learning_starts": _COUNT_OR_ZERO,
    "env_id": _NAME,
}  # fmt: skip

_TYPES: dict[str, Any] = get_type_hints(Config)


def _checked_type(name: str, value: Any, annotation: Any) -> Any:
    """`value` in the field's own type (an int given for a float becomes one, a list a tuple), or a ValueError."""
    if value is None and type(None) in get_args(annotation):
        return None
    if get_origin(annotation) is Literal:
        if value not in get_args(annotation):
            raise ValueError(f"{name} is {value!r}, but must be one of {', '.join(get_args(annotation))}")
        return value
    if tuple in (get_origin(annotation), *map(get_origin, get_args(annotation))):
        if not isinstance(value, tuple | list) or not all(_is_int(size) for size in value):
            raise ValueError(f"{name} is {value!r}, but must be whole numbers")
        return tuple(value)
    if annotation is bool or annotation is str:
        if not isinstance(value, annotation):
            raise ValueError(f"{name} is {value!r}, but must be {'True or False' if annotation is bool else 'a name'}")
        return value
    if float in (annotation, *get_args(annotation)):
        if not (_is_int(value) or isinstance(value, float)) or not abs(value) < math.inf:
            raise ValueError(f"{name} is {value!r}, but must be a finite number")
        return float(max(-(10**300), min(value, 10**300)))  # an int may be too large for a float; the rule refuses it
    if not _is_int(value):
        raise ValueError(f"{name} is {value!r}, but must be a whole number")
    return value


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
