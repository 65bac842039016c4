"""The measurements of a run so far, kept on the host as arrays of numbers."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ddpg_jax.algorithm.types import StepLog, UpdateInfo
from ddpg_jax.config import Config


class Metrics(NamedTuple):
    """The measured columns of `metrics.csv`: float64 arrays, [N] of one evaluation or [E, N] of all.

    NaN stands where there is nothing to measure: the agent was known to have diverged, no training episode had ended,
    or no update had been made since the evaluation before.
    """

    eval_return: np.ndarray
    """Greedy return, averaged over the evaluation's start states."""
    train_return: np.ndarray
    """Return of the training episodes that ended since the evaluation before, averaged."""
    critic_loss: np.ndarray
    """`UpdateInfo.critic_loss`, averaged over the updates since the evaluation before, like the next two."""
    actor_loss: np.ndarray
    """`UpdateInfo.actor_loss`."""
    q_mean: np.ndarray
    """`UpdateInfo.q_mean`."""


class Episodes(NamedTuple):
    """Training episodes that have ended: arrays with one entry per episode."""

    agent: np.ndarray
    """The agent's number."""
    episode: np.ndarray
    """The episode's number, counted from 0 for each agent."""
    env_steps: np.ndarray
    """The agent's environment steps when the episode ended."""
    episode_return: np.ndarray
    """Undiscounted sum of the episode's rewards."""
    length: np.ndarray
    """Steps of the episode."""
    noise_scale: np.ndarray
    """Factor from the noise to the first action, in the environment's units."""


_NO_EPISODES = Episodes(
    agent=np.zeros(0, int),
    episode=np.zeros(0, int),
    env_steps=np.zeros(0, int),
    episode_return=np.zeros(0, np.float32),
    length=np.zeros(0, int),
    noise_scale=np.zeros(0),
)

_SHARED = ("env_steps", "evaluation_steps", "updates")
"""Arrays of `to_arrays` that agents which advance together have in common."""


class History:
    """The measurements of N agents with consecutive numbers that advance together, in the order in which they came."""

    def __init__(
        self,
        config: Config,
        num_agents: int,
        *,
        first_agent: int = 0,
        noise_scale: np.ndarray | None = None,
        noise_decay: np.ndarray | None = None,
    ) -> None:
        """Begins without measurements.

        Args:
            config: the agents' configuration; they may differ in values that shape no array.
            num_agents: N.
            first_agent: the number of the first agent.
            noise_scale: [N] factors from the noise to the first action of the first episode, in the environment's
                units; None: the configuration's.
            noise_decay: [N] factors by which each episode multiplies it; None: the configuration's.
        """
        self.config = config
        self.agents = np.arange(first_agent, first_agent + num_agents)
        self.env_steps = 0
        self.diverged: dict[int, int] = {}
        """Agents whose losses, returns or parameters became infinite or NaN, and the step at which that was seen."""
        self._evaluation_steps: list[int] = []
        self._updates: list[int] = []
        self._evaluations: list[Metrics] = []
        self._episodes: list[Episodes] = []
        self._noise_scale = np.full(num_agents, config.noise_scale) if noise_scale is None else noise_scale
        self._noise_decay = np.full(num_agents, config.noise_decay) if noise_decay is None else noise_decay
        self._num_episodes = np.zeros(num_agents, np.int64)
        self._interval: list[StepLog] = []

    def add_chunk(self, log: StepLog) -> Episodes:
        """Adds a chunk of n steps, fields [N, n]; returns the training episodes that ended in it."""
        self._interval.append(log)
        self._note_divergence(log)
        ended = self._ended_episodes(log)
        self._episodes.append(ended)
        self.env_steps += log.episode_return.shape[1]
        return ended

    def add_evaluation(self, returns: np.ndarray) -> None:
        """Adds an evaluation at the present step, and averages what was logged since the evaluation before.

        Args:
            returns: [N] mean greedy returns. Agents without a finite one have diverged.
        """
        for agent in self.agents[~np.isfinite(returns)]:
            self.diverged.setdefault(int(agent), self.env_steps)
        log = StepLog(*(field.astype(np.float64) for field in self._interval_log()))
        updates = self.config.num_updates(self.env_steps)
        num_updates = updates - self.config.num_updates(self.env_steps - log.episode_return.shape[1])
        with np.errstate(invalid="ignore", divide="ignore"):
            num_ended = np.count_nonzero(log.episode_length, axis=1)
            train_return = np.sum(log.episode_return, axis=1, where=log.episode_length > 0) / num_ended
            means = {name: np.sum(getattr(log, name), axis=1) / num_updates for name in UpdateInfo._fields}
        finite = self.is_finite()
        columns = Metrics(eval_return=returns.astype(np.float64), train_return=train_return, **means)
        self._evaluations.append(Metrics(*(np.where(finite, column, np.nan) for column in columns)))
        self._evaluation_steps.append(self.env_steps)
        self._updates.append(updates)
        self._interval = []

    @property
    def evaluation_steps(self) -> np.ndarray:
        """[E] environment steps per agent at the evaluations."""
        return np.array(self._evaluation_steps, np.int64)

    @property
    def updates(self) -> np.ndarray:
        """[E] updates per agent at the evaluations."""
        return np.array(self._updates, np.int64)

    @property
    def metrics(self) -> Metrics:
        """All evaluations, columns [E, N]."""
        shape = len(self._evaluations), len(self.agents)
        columns = {name: [getattr(row, name) for row in self._evaluations] for name in Metrics._fields}
        return Metrics(**{name: np.array(rows, np.float64).reshape(shape) for name, rows in columns.items()})

    def last_rows(self) -> Metrics:
        """The last evaluation, columns [N]."""
        return self._evaluations[-1]

    def greedy_returns(self) -> tuple[np.ndarray, np.ndarray]:
        """The steps [E] of the evaluations, and the greedy returns [E, N]; NaN from where an agent diverged."""
        steps = self.evaluation_steps
        return steps, np.where(steps[:, None] < self._diverged_at(), self.metrics.eval_return, np.nan)

    def is_finite(self) -> np.ndarray:
        """[N] bool: whether each agent has not diverged."""
        return np.isinf(self._diverged_at())

    def stopped_positions(self) -> np.ndarray:
        """Positions of the agents that no longer learn: those known to have diverged at the last evaluation.

        The last evaluation decides, and not the last chunk, because the lengths of chunks depend on the machine's
        speed.
        """
        last_step = self._evaluation_steps[-1] if self._evaluation_steps else -1
        return np.flatnonzero(self._diverged_at() <= last_step)

    def all_episodes(self) -> Episodes:
        """All training episodes that have ended so far."""
        return Episodes(*map(np.concatenate, zip(_NO_EPISODES, *self._episodes, strict=True)))

    def training_returns(self) -> list[np.ndarray]:
        """The returns of the training episodes in their order, an array for each agent that has not diverged."""
        episodes = self.all_episodes()
        order = np.argsort(episodes.agent, kind="stable")
        agents = self.agents[self.is_finite()]
        first, end = (np.searchsorted(episodes.agent[order], agents, side) for side in ("left", "right"))
        returns = episodes.episode_return[order]
        return [returns[i:j] for i, j in zip(first, end, strict=True)]

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Everything that the history holds, except the configuration, as arrays of numbers."""
        return {
            "agents": self.agents,
            "env_steps": np.array(self.env_steps),
            "noise_scale": self._noise_scale,
            "noise_decay": self._noise_decay,
            "evaluation_steps": self.evaluation_steps,
            "updates": self.updates,
            "diverged": np.array(sorted(self.diverged.items()), np.int64).reshape(-1, 2),
            "num_episodes": self._num_episodes,
            **{f"metrics/{name}": column for name, column in self.metrics._asdict().items()},
            **{f"episodes/{name}": column for name, column in self.all_episodes()._asdict().items()},
            **{f"interval/{name}": field for name, field in self._interval_log()._asdict().items()},
        }

    @staticmethod
    def from_arrays(arrays: dict[str, np.ndarray], config: Config) -> "History":
        """The history that `to_arrays` took apart; `config` is its agents' configuration."""
        agents = arrays["agents"]
        noise = {name: arrays[name] for name in ("noise_scale", "noise_decay")}
        history = History(config, len(agents), first_agent=int(agents[0]) if len(agents) else 0, **noise)
        history.env_steps = int(arrays["env_steps"])
        history._evaluation_steps = arrays["evaluation_steps"].tolist()
        history._updates = arrays["updates"].tolist()
        columns = [arrays[f"metrics/{name}"] for name in Metrics._fields]
        history._evaluations = [Metrics(*rows) for rows in zip(*columns, strict=True)]
        history.diverged = {int(agent): int(step) for agent, step in arrays["diverged"]}
        history._num_episodes = arrays["num_episodes"].copy()
        history._episodes = [Episodes(**{name: arrays[f"episodes/{name}"] for name in Episodes._fields})]
        history._interval = [StepLog(**{name: arrays[f"interval/{name}"] for name in StepLog._fields})]
        return history

    @staticmethod
    def join(histories: Sequence["History"]) -> "History":
        """Joins the histories of consecutive agents that have advanced together."""
        histories = [history for history in histories if len(history.agents)]
        if len(histories) == 1:
            return histories[0]
        arrays = [history.to_arrays() for history in histories]
        joined = arrays[0] | {
            name: np.concatenate([other[name] for other in arrays], axis=_agent_axis(name))
            for name in arrays[0]
            if name not in _SHARED
        }
        return History.from_arrays(joined, histories[0].config)

    def of(self, agents: range) -> "History":
        """The history of some of the agents."""
        if len(agents) == len(self.agents):
            return self
        arrays = self.to_arrays()
        diverged, ended = (np.isin(column, agents) for column in (arrays["diverged"][:, 0], arrays["episodes/agent"]))
        positions = np.arange(agents.start, agents.stop) - self.agents[0]
        for name, array in arrays.items():
            if name == "diverged":
                arrays[name] = array[diverged]
            elif name.startswith("episodes/"):
                arrays[name] = array[ended]
            elif name not in _SHARED:
                arrays[name] = np.take(array, positions, axis=_agent_axis(name))
        return History.from_arrays(arrays, self.config)

    def _interval_log(self) -> StepLog:
        """What was logged since the last evaluation, fields [N, n]."""
        nothing = StepLog(*(np.zeros((len(self.agents), 0), np.float32) for _ in StepLog._fields))
        return StepLog(*(np.concatenate(field, axis=1) for field in zip(nothing, *self._interval, strict=True)))

    def _diverged_at(self) -> np.ndarray:
        """[N] the steps at which the agents were seen to have diverged; infinite for the others."""
        steps = np.full(len(self.agents), np.inf)
        for agent, step in self.diverged.items():
            steps[agent - self.agents[0]] = step
        return steps

    def _note_divergence(self, log: StepLog) -> None:
        """Notes the agents whose log [N, n] is not finite, with the first step at which it is not."""
        num_envs = max(1, log.episode_return.shape[1] // max(1, log.q_mean.shape[1]))
        widened = (np.repeat(field, num_envs, axis=1) if name in UpdateInfo._fields else field
                   for name, field in log._asdict().items())  # fmt: skip
        bad = ~np.logical_and.reduce([np.isfinite(field) for field in widened])
        for position in np.flatnonzero(bad.any(axis=1)):
            step = self.env_steps + int(np.argmax(bad[position])) + 1
            self.diverged.setdefault(int(self.agents[position]), step)

    def _ended_episodes(self, log: StepLog) -> Episodes:
        """Numbers the episodes that ended in a chunk [N, n]; those after an agent's divergence are left out."""
        step, position = np.nonzero(log.episode_length.T)
        order = np.lexsort((step, position))
        within = np.empty_like(order)
        within[order] = np.arange(len(order)) - np.searchsorted(position[order], position[order])
        episode = self._num_episodes[position] + within
        np.add.at(self._num_episodes, position, 1)
        rounds = episode // self.config.num_envs  # by which the loop's schedules go
        ended = Episodes(
            agent=self.agents[position],
            episode=episode,
            env_steps=self.env_steps + step + 1,
            episode_return=log.episode_return[position, step],
            length=log.episode_length[position, step].astype(np.int64),
            noise_scale=self._noise_scale[position] * self._noise_decay[position] ** rounds.astype(float),
        )
        before = ended.env_steps <= self._diverged_at()[position]
        return Episodes(*(column[before] for column in ended))


def _agent_axis(name: str) -> int:
    """The axis of an array of `to_arrays` along which agents (or their episodes) are lined up."""
    return 1 if name.startswith("metrics/") else 0
