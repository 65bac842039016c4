"""Measures the DDPG of Stable-Baselines3 (PyTorch), or of SBX (JAX) where it is installed, on the tutorial's task.

Both have the tutorial's configuration, as far as they have options for it. The input of their critics is observation
and action together. Stable-Baselines3 has one learning rate for both networks; here it is the actor's. The noise is
added to actions scaled to [-1, 1], so half of the tutorial's sigma is the same torque in N m.
"""

from typing import Any

import numpy as np
from harness import Meter, options, versions
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.noise import OrnsteinUhlenbeckActionNoise

try:
    from sbx import DDPG

    PACKAGES: tuple[str, ...] = ("sbx-rl", "jax", "flax", "optax", "stable-baselines3", "torch", "gymnasium")
    OWN: dict[str, Any] = {"qf_learning_rate": 2e-3}
except ImportError:
    from stable_baselines3 import DDPG

    PACKAGES, OWN = ("stable-baselines3", "torch", "gymnasium"), {"device": "cpu"}


class Count(BaseCallback):
    """Counts the steps, and stops the training when the measurement is complete."""

    def __init__(self, meter: Meter) -> None:
        super().__init__()
        self.meter = meter

    def _on_step(self) -> bool:
        return not self.meter.advanced()


def main() -> None:
    meter = Meter(options())
    model = DDPG(
        "MlpPolicy",
        "Pendulum-v1",
        learning_rate=1e-3,
        buffer_size=50_000,
        learning_starts=1,
        batch_size=64,
        tau=0.005,
        gamma=0.99,
        train_freq=1,
        gradient_steps=1,
        action_noise=OrnsteinUhlenbeckActionNoise(np.zeros(1), 0.1 * np.ones(1), theta=0.15, dt=1e-2),
        policy_kwargs={"net_arch": [256, 256]},
        seed=meter.options.seed,
        **OWN,
    )
    model.learn(10**9, callback=Count(meter))
    meter.report(versions(*PACKAGES))


if __name__ == "__main__":
    main()
