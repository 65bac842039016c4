"""Algorithm 1 of the paper, lines 1 to 15; imports nothing of the package outside this folder.

`init`, `act` and `update` are pure functions on an `AgentState`. A loop of your own also needs the modules `replay`,
`noise` and `losses`. An `Algorithm` is made of `networks` and `optimizers`. The variants of the family are parts of an
`Algorithm` or a `Setup`: `ensemble`, `categorical`, `smoothing`, `n_step`, `moments` and `averaging`.
"""

from ddpg_jax.algorithm import (
    averaging,
    categorical,
    ensemble,
    losses,
    moments,
    n_step,
    networks,
    noise,
    optimizers,
    replay,
    smoothing,
)
from ddpg_jax.algorithm.agent import Algorithm, act, init, update
from ddpg_jax.algorithm.setup import Exploration
from ddpg_jax.algorithm.types import (
    AgentState,
    Hyperparameters,
    NoiseProcess,
    Replay,
    TrainState,
    Transition,
    UpdateInfo,
)

__all__ = [
    "AgentState",
    "Algorithm",
    "Exploration",
    "Hyperparameters",
    "NoiseProcess",
    "Replay",
    "TrainState",
    "Transition",
    "UpdateInfo",
    "act",
    "averaging",
    "categorical",
    "ensemble",
    "init",
    "losses",
    "moments",
    "n_step",
    "networks",
    "noise",
    "optimizers",
    "replay",
    "smoothing",
    "update",
]
