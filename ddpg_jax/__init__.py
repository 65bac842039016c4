"""Deep Deterministic Policy Gradient in JAX: many agents in one compiled program.

The pure core, to be driven by hand: `init`, `act` and `update` on an `AgentState`, with `Algorithm` naming its parts.
`train` trains many of them in memory. `load_policy` gives back what a run has learned. The command is
`python -m ddpg_jax.run`.
"""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from ddpg_jax.algorithm.agent import Algorithm, act, init, update
    from ddpg_jax.algorithm.environment import Environment, Step, make
    from ddpg_jax.algorithm.training import Setup
    from ddpg_jax.algorithm.types import AgentState, Hyperparameters, Replay, TrainState, Transition, UpdateInfo
    from ddpg_jax.api import train
    from ddpg_jax.config import Config
    from ddpg_jax.population.assembly import make_algorithm, make_hyperparameters, make_setup
    from ddpg_jax.presets import PRESETS
    from ddpg_jax.runs.policy import Policy, load_policy

# Where each public name lives. They are imported when they are asked for, so that `--help` need not wait for JAX.
_HOMES = {
    "algorithm.agent": ("Algorithm", "act", "init", "update"),
    "api": ("train",),
    "population.assembly": ("make_algorithm", "make_hyperparameters", "make_setup"),
    "config": ("Config",),
    "algorithm.environment": ("Environment", "Step", "make"),
    "runs.policy": ("Policy", "load_policy"),
    "presets": ("PRESETS",),
    "algorithm.training": ("Setup",),
    "algorithm.types": ("AgentState", "Hyperparameters", "Replay", "TrainState", "Transition", "UpdateInfo"),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "PRESETS",
    "AgentState",
    "Algorithm",
    "Config",
    "Environment",
    "Hyperparameters",
    "Policy",
    "Replay",
    "Setup",
    "Step",
    "TrainState",
    "Transition",
    "UpdateInfo",
    "act",
    "init",
    "load_policy",
    "make",
    "make_algorithm",
    "make_hyperparameters",
    "make_setup",
    "train",
    "update",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
