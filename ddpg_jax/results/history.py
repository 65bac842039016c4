"""What has been measured of a set of agents so far, kept on the host as arrays of numbers."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ddpg_jax.algorithm.types import StepLog, UpdateInfo


class Metrics(NamedTuple):
    """The measured columns of `metrics.csv`: float64 arrays, [N] of one evaluation or [E, N] of all.

    NaN stands where there is nothing to measure: the agent was known to have diverged, no training episode had ended,
    or no update had been made since the evaluation before.
    """

    eval_return: np.ndarray  # greedy return, averaged over the evaluation's start states
    train_return: np.ndarray  # return of the training episodes that ended since the evaluation before, averaged
    critic_loss: np.ndarray  # as in `UpdateInfo`, averaged over the updates since then, like the next two
    actor_loss: np.ndarray
    q_mean: np.ndarray


class Episodes(NamedTuple):
    """Training episodes that have ended: arrays with one entry per episode."""

    agent: np.ndarray  # the agent's number
    episode: np.ndarray  # the episode's number, counted from 0 for each agent
    env_steps: np.ndarray  # the agent's environment steps when the episode ended
    episode_return: np.ndarray  # undiscounted sum of the episode's rewards
    length: np.ndarray  # steps of the episode
    noise_scale: np.ndarray  # factor from the noise to the first action, in the environment's units


_NO_EPISODES = Episodes(*(np.zeros(0, kind) for kind in (int, int, int, np.float32, int, float)))
_COLUMNS = {"updates": -1.0} | dict.fromkeys(Metrics._fields, np.nan)
"""What each evaluation has, [N] float64 each."""
_SUMS = (*UpdateInfo._fields, "train_return", "num_ended")
"""What is summed from one evaluation to the next, [N] float64 each."""


class History:
    """The measurements of N agents that advance together, in the order in which they came."""

    def __init__(
        self,
        agents: np.ndarray,
        *,
        num_envs: int = 1,
        noise_scale: np.ndarray | float = np.nan,
        noise_decay: np.ndarray | float = 1.0,
    ) -> None:
        """Begins without measurements.

        Args:
            agents: [N] the agents' numbers.
            num_envs: environments per agent.
            noise_scale: [N] `Episodes.noise_scale` of the first episode; default: unknown.
            noise_decay: [N] factors on noise_scale after each episode.
        """
        self.agents = np.asarray(agents, np.int64)
        num = len(self.agents)
        self.env_steps = 0
        self.diverged: dict[int, int] = {}
        """Agents whose losses, returns or parameters became infinite or NaN, and the step at which that was seen."""
        self._state = {name: np.zeros(num) for name in _SUMS} | {  # of each agent, [N]
            "num_envs": np.full(num, num_envs),
            "noise_scale": np.full(num, noise_scale, np.float64),
            "noise_decay": np.full(num, noise_decay, np.float64),
            "num_episodes": np.zeros(num, np.int64),
            "all_clipped_targets": np.zeros(num),
        }
        self._evaluation_steps: list[int] = []
        self._evaluations: list[dict[str, np.ndarray]] = []  # of `_COLUMNS`
        self._episodes: list[Episodes] = []

    def __repr__(self) -> str:
        num_agents, num_evaluations = len(self.agents), len(self._evaluations)
        return f"History({num_agents} agents, {self.env_steps:,} environment steps, {num_evaluations} evaluations)"

    def add_chunk(self, log: StepLog) -> Episodes:
        """Adds a chunk of n steps, fields [N, n]; returns the training episodes that ended in it.

        Sums for the next evaluation are added step by step, so that the lengths of chunks change no bit.
        """
        ended = log.episode_length > 0
        added = {name: getattr(log, name) for name in UpdateInfo._fields}
        added |= {"train_return": np.where(ended, log.episode_return, 0), "num_ended": ended}
        with np.errstate(invalid="ignore", over="ignore"):  # of agents that diverge
            for name, values in added.items():
                steps = np.concatenate([self._state[name][:, None], values], axis=1, dtype=np.float64)
                self._state[name] = np.cumsum(steps, axis=1)[:, -1]
        self._note_divergence(log)
        episodes = self._ended_episodes(log, ended)
        self._episodes.append(episodes)
        self.env_steps += log.episode_return.shape[1]
        return episodes

    def add_evaluation(self, returns: np.ndarray, updates: int) -> Metrics:
        """Adds an evaluation at the present step, and averages what was logged since the evaluation before.

        Args:
            returns: [N] mean greedy returns. Agents without a finite one have diverged.
            updates: updates per agent so far.
        """
        for agent in self.agents[~np.isfinite(returns)]:
            self.diverged.setdefault(int(agent), self.env_steps)
        state, finite = self._state, self.is_finite()
        before = self._evaluations[-1]["updates"] if self._evaluations else 0
        with np.errstate(invalid="ignore", divide="ignore"):
            means = [state[name] / (updates - before) for name in Metrics._fields[2:]]
            columns = [np.asarray(returns, np.float64), state["train_return"] / state["num_ended"], *means]
        metrics = Metrics(*(np.where(finite, column, np.nan) for column in columns))
        self._evaluations.append({"updates": np.full(len(finite), updates), **metrics._asdict()})
        self._evaluation_steps.append(self.env_steps)
        state["all_clipped_targets"] = state["all_clipped_targets"] + state["clipped_targets"]
        state |= {name: np.zeros(len(finite)) for name in _SUMS}
        return metrics

    @property
    def evaluation_steps(self) -> np.ndarray:
        """[E] environment steps per agent at the evaluations."""
        return np.array(self._evaluation_steps, np.int64)

    @property
    def updates(self) -> np.ndarray:
        """[E, N] updates of each agent at the evaluations; -1 where the agent has not been evaluated."""
        return self._column("updates").astype(np.int64)

    @property
    def metrics(self) -> Metrics:
        """All evaluations, columns [E, N]."""
        return Metrics(*map(self._column, Metrics._fields))

    def _column(self, name: str) -> np.ndarray:
        rows = [row[name] for row in self._evaluations]
        return np.array(rows, np.float64).reshape(len(rows), len(self.agents))

    @property
    def episodes(self) -> Episodes:
        """All training episodes that have ended so far."""
        return Episodes(*map(np.concatenate, zip(_NO_EPISODES, *self._episodes, strict=True)))

    def is_finite(self) -> np.ndarray:
        """[N] bool: whether each agent has not diverged."""
        return np.isinf(self._diverged_at())

    def frozen(self) -> np.ndarray:
        """Positions of the agents that no longer learn: those known to have diverged at the last evaluation.

        The last chunk does not decide that, because the lengths of chunks depend on the machine's speed.
        """
        return np.flatnonzero(self._diverged_at() <= self.evaluation_steps.max(initial=-1))

    def greedy_returns(self) -> tuple[np.ndarray, np.ndarray]:
        """The steps [E] of the evaluations, and the greedy returns [E, N]; NaN from where an agent diverged."""
        steps = self.evaluation_steps
        return steps, np.where(steps[:, None] < self._diverged_at(), self.metrics.eval_return, np.nan)

    def training_returns(self) -> list[np.ndarray]:
        """The returns of the training episodes in their order, an array for each agent that has not diverged."""
        episodes, agents = self.episodes, self.agents[self.is_finite()]
        order = np.argsort(episodes.agent, kind="stable")
        ends = (np.searchsorted(episodes.agent[order], agents, side) for side in ("left", "right"))
        return [episodes.episode_return[order[i:j]] for i, j in zip(*ends, strict=True)]

    def clipped_targets(self) -> np.ndarray:
        """[N] `UpdateInfo.clipped_targets`, averaged over all updates up to the last evaluation; NaN without any."""
        updates = self.updates.max(axis=0, initial=0)
        return self._state["all_clipped_targets"] / np.where(updates > 0, updates, np.nan)

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Everything that the history holds, as arrays of numbers."""
        return {
            "env_steps": np.array(self.env_steps),
            "evaluation_steps": self.evaluation_steps,
            "diverged": np.array(sorted(self.diverged.items()), np.int64).reshape(-1, 2),
            "agent/number": self.agents,
            **{f"agent/{name}": array for name, array in self._state.items()},
            **{f"evaluation/{name}": np.ascontiguousarray(self._column(name).T) for name in _COLUMNS},
            **{f"episode/{name}": column for name, column in self.episodes._asdict().items()},
        }

    @staticmethod
    def from_arrays(arrays: dict[str, np.ndarray]) -> "History":
        """Returns the history that `to_arrays` took apart."""
        history = History(arrays["agent/number"])
        history.env_steps = int(arrays["env_steps"])
        history.diverged = {int(agent): int(step) for agent, step in arrays["diverged"]}
        history._state = {name: arrays[f"agent/{name}"] for name in history._state}
        history._evaluation_steps = arrays["evaluation_steps"].tolist()
        columns = {name: arrays[f"evaluation/{name}"].T for name in _COLUMNS}
        history._evaluations = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
        history._episodes = [Episodes(**{name: arrays[f"episode/{name}"] for name in Episodes._fields})]
        return history

    @staticmethod
    def join(histories: Sequence["History"]) -> "History":
        """Joins the histories of disjoint sets of agents, evaluated at the same steps, sorted by their numbers.

        Agents that have not been evaluated as often as others have NaN there.
        """
        furthest = max(histories, key=lambda history: len(history.evaluation_steps))
        arrays, steps = [history.to_arrays() for history in histories], furthest.evaluation_steps
        for each in arrays:
            missing = ((0, 0), (0, len(steps) - len(each["evaluation_steps"])))
            for name in _COLUMNS:
                column = each[f"evaluation/{name}"]
                each[f"evaluation/{name}"] = np.pad(column, missing, constant_values=_COLUMNS[name])
        joined = {name: np.concatenate([each[name] for each in arrays]) for name in arrays[0] if name != "env_steps"}
        env_steps = np.array(max(history.env_steps for history in histories))
        history = History.from_arrays(joined | {"env_steps": env_steps, "evaluation_steps": steps})
        return history.select(np.argsort(history.agents, kind="stable"))

    def select(self, positions: Sequence[int] | np.ndarray, agents: Sequence[int] | None = None) -> "History":
        """Returns the history of the agents at these positions, perhaps with new numbers."""
        old = self.agents[np.asarray(positions, int)].tolist()
        numbers = dict(zip(old, old if agents is None else agents, strict=True))
        arrays, episodes = self.to_arrays(), np.isin(self.episodes.agent, old)
        for name, array in arrays.items():
            if "/" in name:
                arrays[name] = array[episodes if name.startswith("episode/") else np.asarray(positions, int)]
        for name in ("agent/number", "episode/agent"):
            arrays[name] = np.array([numbers[agent] for agent in arrays[name].tolist()], np.int64)
        diverged = [(numbers[agent], step) for agent, step in self.diverged.items() if agent in numbers]
        arrays["diverged"] = np.array(diverged, np.int64).reshape(-1, 2)
        return History.from_arrays(arrays)

    @staticmethod
    def from_tables(
        metrics_text: str, episodes_text: str, diverged: dict[int, int], clipped_targets: np.ndarray | None = None
    ) -> "History":
        """Returns the history of a run that has ended, from the contents of `metrics.csv` and `episodes.csv`.

        The agents in `diverged` diverged at these steps; `clipped_targets` [N] are shares, None if they are not known.
        Raises ValueError if a table is damaged.
        """
        metrics, episodes = _read_table(metrics_text, "metrics.csv"), _read_table(episodes_text, "episodes.csv")
        try:
            agents, row = np.unique(metrics["agent"].astype(int), return_inverse=True)
            steps, column = np.unique(metrics["env_steps"].astype(int), return_inverse=True)
            arrays = History(agents).to_arrays() | {"evaluation_steps": steps, "env_steps": steps.max(initial=0)}
            for name in _COLUMNS:
                table = np.full((len(agents), len(steps)), _COLUMNS[name])
                table[row, column] = metrics[name]
                arrays[f"evaluation/{name}"] = table
            for name, empty in _NO_EPISODES._asdict().items():
                column = episodes[name.removeprefix("episode_")]
                arrays[f"episode/{name}"] = column.astype(empty.dtype)
        except KeyError as error:
            raise ValueError(f"a table has no column {error}") from error
        arrays["diverged"] = np.array(list(diverged.items()), np.int64).reshape(-1, 2)
        updates = arrays["evaluation/updates"].max(axis=1, initial=0)
        arrays["agent/all_clipped_targets"] = (np.nan if clipped_targets is None else clipped_targets) * updates
        return History.from_arrays(arrays)

    def _diverged_at(self) -> np.ndarray:
        """[N] the steps at which the agents were seen to have diverged; infinite for the others."""
        return np.array([self.diverged.get(agent, np.inf) for agent in self.agents.tolist()], np.float64)

    def _note_divergence(self, log: StepLog) -> None:
        """Notes the agents whose log [N, n] is not finite, with the first step at which it is not."""
        num_steps = log.episode_return.shape[1]  # the losses have one entry for the steps of all of an agent's envs
        fields = [np.repeat(field, num_steps // max(1, field.shape[1]), axis=1) for field in log]
        bad = ~np.logical_and.reduce([np.isfinite(field) for field in fields])
        for position in np.flatnonzero(bad.any(axis=1)):
            step = self.env_steps + int(np.argmax(bad[position])) + 1
            self.diverged.setdefault(int(self.agents[position]), step)

    def _ended_episodes(self, log: StepLog, has_ended: np.ndarray) -> Episodes:
        """Numbers the episodes that ended in a chunk [N, n]; those after an agent's divergence are left out."""
        state = self._state
        step, position = np.nonzero(has_ended.T)
        number = (state["num_episodes"][:, None] + np.cumsum(has_ended, axis=1) - 1)[position, step]
        state["num_episodes"] = state["num_episodes"] + has_ended.sum(axis=1)
        rounds = (number // state["num_envs"][position]).astype(float)  # by which the loop's schedules go
        scale = state["noise_scale"][position] * state["noise_decay"][position] ** rounds
        length = log.episode_length[position, step].astype(np.int64)
        env_steps, returns = self.env_steps + step + 1, log.episode_return[position, step]
        ended = Episodes(self.agents[position], number, env_steps, returns, length, scale)
        return Episodes(*(column[env_steps <= self._diverged_at()[position]] for column in ended))


def _read_table(text: str, name: str) -> dict[str, np.ndarray]:
    """Returns the columns of a table of numbers; an empty cell is NaN."""
    header, *lines = text.splitlines() or [""]
    names = header.split(",")
    try:
        rows = [[float(cell or "nan") for cell in line.split(",")] for line in lines]
        table = np.array(rows, np.float64).reshape(len(rows), len(names))
    except ValueError as error:
        raise ValueError(f"{name} is damaged: {error}") from error
    return dict(zip(names, table.T, strict=True))
