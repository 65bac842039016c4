"""Configurations that train together, and that can leave between two evaluations."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ddpg_jax.algorithm.evaluation import Starts
from ddpg_jax.results.history import History
from ddpg_jax.training.host_trainer import make_trainer
from ddpg_jax.training.plan import Plan
from ddpg_jax.training.programs import MAX_CHUNK
from ddpg_jax.training.progress import Progress
from ddpg_jax.training.trainer import Trainer, agent_keys


class SearchFailedError(RuntimeError):
    """The agents have diverged with all values that were tried."""


@dataclass
class Group:
    """The agents of a batch that share programs."""

    trainer: Trainer
    history: History


class Batch:
    """C configurations with S seeds each."""

    def __init__(self, plan: Plan, progress: Progress, starts: Callable[[int], Starts]) -> None:
        """Compiles the programs, unless an equal batch was compiled before, and makes new agents.

        Args:
            plan: of the agents.
            progress: counts their steps.
            starts: num -> the start states of evaluations.
        """
        self.config, self._progress, self._starts = plan.config, progress, starts
        self._shape, self._first = (len(plan.options.swept), len(plan.options.seeds)), plan.options.seeds.start
        self.groups: list[Group] = []
        num_episodes = plan.config.eval_episodes or 1
        for each in plan.setups:
            programs, keys = each.compile(plan.task, num_episodes), agent_keys(plan.options.seed, each.seeds)
            trainer = make_trainer(each.setup, keys, each.hyperparameters, starts=starts(num_episodes),
                                   placement=each.placement, programs=programs)  # fmt: skip
            self.groups.append(Group(trainer, History(each.agents, num_envs=each.setup.num_envs)))

    def __enter__(self) -> "Batch":
        return self

    def __exit__(self, *_: object) -> None:
        for group in self.groups:
            group.trainer.close()

    def advance(self, env_steps: int) -> None:
        """Trains all agents up to this number of environment steps each; raises the error of an environment."""
        for group in self.groups:
            history, num_envs = group.history, group.trainer.setup.num_envs
            while history.env_steps < env_steps:
                num_steps = min(MAX_CHUNK, (env_steps - history.env_steps) // num_envs)
                history.add_chunk(group.trainer.advance(num_steps, frozen=history.frozen()))
                self._progress.advanced(num_steps * num_envs * len(history.agents))
                if group.trainer.failure is not None:
                    raise group.trainer.failure

    def evaluate(self, *, final: bool = False) -> np.ndarray:
        """Returns greedy returns [C, S], averaged over the start states; NaN where an agent has diverged or left."""
        num = self.config.final_episodes if final else self.config.eval_episodes
        starts, returns = self._starts(num or 1), np.full(self._shape, np.nan)
        for group in self.groups:
            trainer, history = group.trainer, group.history
            found = trainer.evaluate(starts).returns.mean(axis=1, dtype=np.float64)
            history.add_evaluation(found, trainer.setup.num_updates(history.env_steps))
            returns.flat[history.agents - self._first] = np.where(history.is_finite(), found, np.nan)
        return returns

    def keep(self, configs: Sequence[int]) -> None:
        """Keeps only the agents of these configurations; their bits do not change."""
        groups, self.groups = self.groups, []
        for group in groups:
            stay = np.flatnonzero(np.isin((group.history.agents - self._first) // self._shape[1], configs))
            if len(stay) == 0:
                group.trainer.close()
                continue
            if len(stay) < len(group.history.agents):
                group.trainer.keep(stay)
                group.history = group.history.select(stay)
            self.groups.append(group)
