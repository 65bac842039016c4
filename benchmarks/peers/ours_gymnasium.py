"""Measures this project with Gymnasium's Pendulum, which steps on the host, instead of gymnax's."""

from harness import options
from ours import main

from ddpg_jax.presets import PRESETS

if __name__ == "__main__":
    main(options(), PRESETS["keras"].replace(env_id="gymnasium:Pendulum-v1"))
