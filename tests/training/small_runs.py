"""Small runs for the tests: they compile in a second, train in less, and can be stopped after any chunk."""

import contextlib
import io
from pathlib import Path

from ddpg_jax.options import TrainOptions
from ddpg_jax.presets import PRESETS
from ddpg_jax.sweep import as_swept
from ddpg_jax.training.plan import make_plan
from ddpg_jax.training.progress import NullProgress, make_progress
from ddpg_jax.training.run import train_agents
from ddpg_jax.training.signals import StopSignals

SMALL = PRESETS["pendulum"].replace(
    hidden_sizes=(8,), batch_size=8, learning_starts=20, replay_capacity=100, max_episode_steps=25, eval_every=60,
    eval_episodes=16, final_episodes=16, total_steps=200,
)  # fmt: skip
"""A run whose length is not a multiple of `eval_every`, of about seven chunks."""


class StopAfter(StopSignals):
    """Asks a run to stop at the end of its n-th chunk, as a signal does."""

    def __init__(self, num_chunks: int):
        super().__init__(ends_process=False)
        self.left = num_chunks

    @property
    def requested(self):
        self.left -= 1
        return self.left <= 0


def train_small(config=SMALL, *, stop_after=10**9, setup=None, hyperparameters=None, callback=None, **options):
    """Trains in this process, and returns the result and the lines that were printed."""
    options = TrainOptions(**{"swept": as_swept(config), "preset": "pendulum", "seeds": range(3), "seed": 0} | options)
    plan = make_plan(options, setup, hyperparameters)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        progress = make_progress("lines", plan.num_agents * plan.config.total_steps, verbose=options.verbose)
        result = train_agents(plan, stop=StopAfter(stop_after), progress=progress, callback=callback)
    return result, printed.getvalue()


def quiet() -> NullProgress:
    """Returns a progress that shows nothing."""
    return NullProgress(1)


def files(folder: Path) -> dict[str, bytes]:
    """Returns the files of a run that must be the same after it was resumed: tables and policies."""
    names = [folder / "metrics.csv", folder / "episodes.csv", *sorted((folder / "policy").rglob("*"))]
    return {str(path.relative_to(folder)): path.read_bytes() for path in names if path.is_file()}
