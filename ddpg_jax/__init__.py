"""Deep Deterministic Policy Gradient in JAX: many agents in one compiled program.

`train` trains agents and returns a `Result`, `load` reads one from a folder, `compare` compares them;
`python -m ddpg_jax.run` is the command. `ddpg_jax.algorithm` has the pure functions `init`, `act` and `update`.

The public names are in `__init__.pyi`. They are imported when they are first used, so that `--help` does not wait for
JAX.
"""

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
