"""Deep Deterministic Policy Gradient in JAX: many agents in one compiled program.

`train` trains agents in memory, `load_policy` reads the policies of a finished run, `python -m ddpg_jax.run` is the
command. `ddpg_jax.algorithm` has the pure functions `init`, `act` and `update`, to be driven by hand.

The public names stand in `__init__.pyi`. They are imported when they are first used, so that `--help` does not wait
for JAX.
"""

from typing import Any

import lazy_loader

__version__ = "0.1.0"

_public_name, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

_FORMERLY_HERE = ("AgentState", "Hyperparameters", "Replay", "TrainState", "Transition", "UpdateInfo",
                  "act", "init", "update")  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _FORMERLY_HERE:
        return _public_name(name)
    from ddpg_jax import algorithm

    return getattr(algorithm, name)
