"""Results of made-up agents, for the tests of what is computed from them and how it is shown."""

from dataclasses import replace

import numpy as np

from ddpg_jax.algorithm.types import StepLog
from ddpg_jax.config import Config
from ddpg_jax.results.history import History
from ddpg_jax.results.summary import Finals, Seconds, summarize
from ddpg_jax.sweep import as_swept

CONFIG = Config(total_steps=20, eval_every=10, eval_episodes=4, final_episodes=8)
OPTIMUM = (-100.0,) * 4 + (-120.0,) * 4
"""The optimum's returns: -100 in the mean from the start states of evaluations, -110 from the final ones."""


def log(num_agents, num_steps, num_envs=1, **fields):
    """A chunk in which nothing happened, except in the given fields."""
    wide = ("episode_length", "episode_return")
    entries = {name: np.zeros((num_agents, num_steps * (num_envs if name in wide else 1)), np.float32)
               for name in StepLog._fields}  # fmt: skip
    return StepLog(**entries | {name: np.array(values, np.float32) for name, values in fields.items()})


def swept(**values):
    """Configurations that differ in one field, given as its values."""
    ((name, values),) = values.items()
    return as_swept([CONFIG.replace(**{name: value}) for value in values])


def trained(final, configs=None, *, diverged=(), seed=0, first_seed=0, clipped=0.0, optimum=OPTIMUM, solved=20.0,
            complete=True, at_bounds=()):  # fmt: skip
    """A run with two evaluations, the first 500 below and the second at the final returns [C, S].

    Returns:
        The history and the summary.
    """
    final = np.atleast_2d(np.asarray(final, float))
    configs, num = as_swept(CONFIG) if configs is None else configs, final.size
    seeds, agents = range(first_seed, first_seed + final.shape[1]), first_seed + np.arange(num)
    history, values = History(agents, noise_scale=np.ones(num)), final.ravel()
    for updates, offset in ((5, -500.0), (15, 0.0)):
        end = np.tile(np.arange(10) == 9, (num, 1))
        history.add_chunk(log(num, 10, episode_length=10 * end, episode_return=end * (values + offset)[:, None],
                              clipped_targets=np.full((num, 10), clipped * (5 if offset else 10) / 10)))  # fmt: skip
        history.add_evaluation(values + offset, updates)
    history.diverged |= {first_seed + agent: 15 for agent in diverged}
    final_return = np.where(history.is_finite(), values, np.nan)
    finals = Finals(final_return, -110 - final_return, final_return + 1, np.isin(np.arange(num), at_bounds) * 1.0)
    summary = summarize(
        history, finals if complete else Finals.unknown(num), configs, env_id="Pendulum-v1", optimal_returns=optimum,
        solved_shortfall=solved, preset="pendulum", seed=seed, seeds=seeds, num_updates=[15] * len(configs),
        device="1 x cpu", seconds=Seconds(4.0, 0.5, 0.25, 0.0), complete=complete,
    )  # fmt: skip
    return history, replace(summary, wall_seconds=6.0)
