"""Algorithm 1 of the paper, lines 1 to 15. Imports nothing of the package outside this folder.

`init`, `act` and `update` are pure functions of an `AgentState`. If you write your own loop, you also need the modules
`replay`, `noise` and `losses`. An `Algorithm` is made of `networks` and `optimizers`. The variants of the family are
parts of an `Algorithm` or a `Setup`: `ensemble`, `categorical`, `smoothing`, `n_step`, `obs_normalization` and `ema`.
"""

from ddpg_jax.algorithm import (
    categorical,
    ema,
    ensemble,
    losses,
    n_step,
    networks,
    noise,
    obs_normalization,
    optimizers,
    replay,
    smoothing,
)
from ddpg_jax.algorithm.agent import Algorithm, act, init, update
from ddpg_jax.algorithm.setup import Exploration, Setup, with_parts
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
    "AgentState", "Algorithm", "Exploration", "Hyperparameters", "NoiseProcess", "Replay", "Setup", "TrainState",
    "Transition", "UpdateInfo", "act", "categorical", "ema", "ensemble", "init", "losses", "n_step", "networks",
    "noise", "obs_normalization", "optimizers", "replay", "smoothing", "update", "with_parts",
]  # fmt: skip
