"""Evaluations in TensorBoard's event files, and in runs of Weights & Biases that are offline."""

import numpy as np

from ddpg_jax.results.history import Metrics

AGENTS = np.array([4, 5, 6])
NAN = np.full(3, np.nan)
METRICS = Metrics(np.array([-3.0, np.nan, -1.0]), NAN, np.array([0.5, np.nan, 0.25]), np.array([1.0, 2.0, 3.0]), NAN)
EXPECTED = {
    "eval_return/agent-000004": -3.0, "eval_return/agent-000006": -1.0,
    "eval_return/iqm": -2.0, "eval_return/median": -2.0, "eval_return/worst": -3.0,
    "critic_loss/agent-000004": 0.5, "critic_loss/agent-000006": 0.25,
    "critic_loss/iqm": 0.375, "critic_loss/median": 0.375,
    "actor_loss/agent-000004": 1.0, "actor_loss/agent-000005": 2.0, "actor_loss/agent-000006": 3.0,
    "actor_loss/iqm": 2.0, "actor_loss/median": 2.0,
}  # fmt: skip


def scalars(folder):
    """Returns {(name, step): value} of each event file, the earliest first."""
    return [
        {
            (value.tag, event.step): value.simple_value
            for event in map(Event.FromString, records(path))
            for value in event.summary.value
            if not value.HasField("tensor")
        }
        for path in sorted((folder / "tensorboard").iterdir())
    ]
