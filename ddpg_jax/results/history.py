"""What a run has measured so far, on the host: the rows of `metrics.csv` and `episodes.csv`."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ddpg_jax.algorithm.types import StepLog
from ddpg_jax.config import Config

METRICS_COLUMNS = (
    "agent", "env_steps", "updates", "eval_return", "train_return", "critic_loss", "actor_loss", "q_mean"
)  # fmt: skip
PLACE_COLUMNS = ("point", "seed")
EPISODES_COLUMNS = ("agent", "episode", "env_steps", "return", "length", "noise_scale")


class Episodes(NamedTuple):
    """Training episodes that ended, one entry each."""

    agent: np.ndarray
    episode: np.ndarray
    """Counted from 0 in each agent."""
    env_steps: np.ndarray
    """The agent's environment steps when it ended."""
    episode_return: np.ndarray
    length: np.ndarray
    noise_scale: np.ndarray
    """Factor from the noise to the first action, in the environment's units."""


class History:
    """Measurements of the agents numbered `first_agent` on, in the order in which they were made."""

    def __init__(
        self,
        config: Config,
        num_agents: int,
        *,
        first_agent: int = 0,
        noise_scale: np.ndarray | None = None,
        noise_decay: np.ndarray | None = None,
    ) -> None:
        """Args:
        config: of the agents, which may differ in what shapes no array.
        num_agents: N.
        first_agent: the first one's number.
        noise_scale: [N] factors from the noise to the first action of the first episode, in the environment's units.
        noise_decay: [N] factors on it after each episode.
        """
        self.config = config
        self.agents = np.arange(first_agent, first_agent + num_agents)
        self.env_steps = 0
        self.diverged: dict[int, int] = {}
        """Agents whose losses, return or parameters were no longer finite, with the step at which it was seen."""
        self.evaluations: list[tuple[int, np.ndarray]] = []
        """(environment steps, returns [N]) of the evaluations so far."""
        self.metrics_lines: list[str] = []
        self.episodes: list[Episodes] = []
        self._noise_scale = np.full(num_agents, config.noise_scale) if noise_scale is None else noise_scale
        self._noise_decay = np.full(num_agents, config.noise_decay) if noise_decay is None else noise_decay
        self._num_episodes = np.zeros(num_agents, np.int64)
        self._interval: list[StepLog] = []

    def add_chunk(self, log: StepLog) -> Episodes:
        """Takes in a chunk of steps, [N, n] entries a field; returns the episodes that ended in it."""
        self._interval.append(log)
        for field, values in zip(StepLog._fields, log, strict=True):
            if field != "episode_length":
                self._look_for_divergence(values)
        step, agent = np.nonzero(np.asarray(log.episode_length).T)
        order = np.lexsort((step, agent))
        number = np.arange(len(agent)) - np.searchsorted(agent[order], agent[order])
        within = np.empty_like(number)
        within[order] = number
        episode = self._num_episodes[agent] + within
        ended = Episodes(
            agent=self.agents[agent],
            episode=episode,
            env_steps=self.env_steps + step + 1,
            episode_return=log.episode_return[agent, step],
            length=log.episode_length[agent, step].astype(np.int64),
            noise_scale=self._noise_scale[agent] * self._noise_decay[agent] ** episode.astype(float),
        )
        np.add.at(self._num_episodes, agent, 1)
        last_steps = np.array([self.diverged.get(int(agent), np.inf) for agent in self.agents])[agent]
        ended = Episodes(*(column[ended.env_steps <= last_steps] for column in ended))
        self.episodes.append(ended)
        self.env_steps += log.episode_return.shape[1]
        return ended

    def add_evaluation(self, returns: np.ndarray) -> None:
        """Takes in the mean greedy returns [N] of an evaluation now, and closes the interval since the last one."""
        for agent in np.flatnonzero(~np.isfinite(returns)):
            self.diverged.setdefault(int(self.agents[agent]), self.env_steps)
        self.evaluations.append((self.env_steps, returns))
        log = StepLog(
            *(np.concatenate(field, axis=1).astype(np.float64) for field in zip(*self._interval, strict=True))
        )
        updates = self.config.num_updates(self.env_steps)
        num_updates = updates - self.config.num_updates(self.env_steps - log.critic_loss.shape[1])
        with np.errstate(invalid="ignore", divide="ignore"):
            num_ended = np.count_nonzero(log.episode_length, axis=1)
            train_returns = np.sum(log.episode_return, axis=1, where=log.episode_length > 0) / num_ended
            losses = [np.sum(x, axis=1) / num_updates for x in (log.critic_loss, log.actor_loss, log.q_mean)]
        for agent, sound, *values in zip(self.agents, self.sound(), returns, train_returns, *losses, strict=True):
            cells = map(number, values) if sound else [""] * len(values)
            self.metrics_lines.append(",".join([str(agent), f"{self.env_steps},{updates}", *cells]))
        self._interval = []

    def last_rows(self) -> list[str]:
        """The rows of `metrics.csv` of the last evaluation."""
        return self.metrics_lines[len(self.metrics_lines) - len(self.agents) :]

    def greedy_returns(self) -> tuple[np.ndarray, np.ndarray]:
        """The steps [E] of the evaluations so far, and the agents' returns [E, N]; NaN from where an agent diverged."""
        steps = np.array([step for step, _ in self.evaluations], int)
        returns = np.array([returns for _, returns in self.evaluations]).reshape(len(steps), len(self.agents))
        diverged_at = np.array([self.diverged.get(int(agent), np.inf) for agent in self.agents])
        return steps, np.where(steps[:, None] < diverged_at, returns, np.nan)

    def sound(self) -> np.ndarray:
        """[N] bool: the agents that have not diverged."""
        return ~np.isin(self.agents, list(self.diverged))

    def frozen(self) -> np.ndarray:
        """Positions of the agents that no longer learn: those that were known to have diverged when last evaluated.

        That, unlike the chunk in which it was seen, does not depend on how fast the machine is.
        """
        last_step = self.evaluations[-1][0] if self.evaluations else -1
        return np.flatnonzero([self.diverged.get(int(agent), np.inf) <= last_step for agent in self.agents])

    def all_episodes(self) -> Episodes:
        """The training episodes that have ended so far."""
        if not self.episodes:
            return Episodes(*(np.zeros(0, dtype) for dtype in (int, int, int, np.float32, int, float)))
        return Episodes(*map(np.concatenate, zip(*self.episodes, strict=True)))

    def training_returns(self) -> list[np.ndarray]:
        """The returns of each sound agent's training episodes, in their order."""
        episodes = self.all_episodes()
        return [episodes.episode_return[episodes.agent == agent] for agent in self.agents[self.sound()]]

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Everything that is here, as arrays of numbers."""
        empty = np.zeros((len(self.agents), 0), np.float32)
        interval = [np.concatenate(field, axis=1) for field in zip(*self._interval, strict=True)] or [empty] * 5
        returns = [returns for _, returns in self.evaluations]
        return {
            "agents": self.agents,
            "env_steps": np.array(self.env_steps),
            "noise_scale": self._noise_scale,
            "noise_decay": self._noise_decay,
            "metrics": np.frombuffer("\n".join(self.metrics_lines).encode(), np.uint8),
            "evaluation_steps": np.array([step for step, _ in self.evaluations], np.int64),
            "evaluation_returns": np.stack(returns) if returns else np.zeros((0, len(self.agents))),
            "diverged": np.array(sorted(self.diverged.items()), np.int64).reshape(-1, 2),
            "num_episodes": self._num_episodes,
            **{f"episodes/{name}": column for name, column in self.all_episodes()._asdict().items()},
            **{f"interval/{name}": field for name, field in zip(StepLog._fields, interval, strict=True)},
        }

    @staticmethod
    def from_arrays(arrays: dict[str, np.ndarray], config: Config, *, first_agent: int | None = None) -> "History":
        """What `to_arrays` took apart; the first agent must be given where there may be none."""
        agents = arrays["agents"]
        noise = {name: arrays[name] for name in ("noise_scale", "noise_decay")}
        first_agent = int(agents[0]) if first_agent is None else first_agent
        history = History(config, len(agents), first_agent=first_agent, **noise)
        history.env_steps = int(arrays["env_steps"])
        text = arrays["metrics"].tobytes().decode()
        history.metrics_lines = text.split("\n") if text else []
        evaluations = zip(arrays["evaluation_steps"], arrays["evaluation_returns"], strict=True)
        history.evaluations = [(int(step), returns) for step, returns in evaluations]
        history.diverged = {int(agent): int(step) for agent, step in arrays["diverged"]}
        history._num_episodes = arrays["num_episodes"].copy()
        history.episodes = [Episodes(**{name: arrays[f"episodes/{name}"] for name in Episodes._fields})]
        interval = StepLog(**{name: arrays[f"interval/{name}"] for name in StepLog._fields})
        history._interval = [interval] if interval.critic_loss.size else []
        return history

    @staticmethod
    def join(histories: Sequence["History"]) -> "History":
        """The histories of agents that follow one another and have advanced together, as one."""
        histories = [history for history in histories if len(history.agents)]
        if len(histories) == 1:
            return histories[0]
        arrays = [history.to_arrays() for history in histories]
        joined = {}
        for name, array in arrays[0].items():
            parts = [other[name] for other in arrays]
            if name not in ("env_steps", "evaluation_steps"):
                array = np.concatenate(parts, axis=1 if name == "evaluation_returns" else 0)
            joined[name] = array
        rows = [row for history in histories for row in history.metrics_lines]
        rows.sort(key=_step_and_agent)
        joined["metrics"] = np.frombuffer("\n".join(rows).encode(), np.uint8)
        return History.from_arrays(joined, histories[0].config)

    def of(self, agents: range) -> "History":
        """What concerns some of the agents."""
        if len(agents) == len(self.agents):
            return self
        arrays, mine = self.to_arrays(), slice(agents.start - self.agents[0], agents.stop - self.agents[0])
        rows = [row for row in self.metrics_lines if int(row.split(",", 1)[0]) in agents]
        chosen = {
            "metrics": np.frombuffer("\n".join(rows).encode(), np.uint8),
            "evaluation_returns": arrays["evaluation_returns"][:, mine],
            "diverged": arrays["diverged"][np.isin(arrays["diverged"][:, 0], agents)],
        }
        ended = np.isin(arrays["episodes/agent"], agents)
        for name, array in arrays.items():
            if name.startswith("episodes/"):
                chosen[name] = array[ended]
            elif name.startswith("interval/") or name in ("agents", "noise_scale", "noise_decay", "num_episodes"):
                chosen[name] = array[mine]
        return History.from_arrays(arrays | chosen, self.config, first_agent=agents.start)

    def _look_for_divergence(self, values: np.ndarray) -> None:
        bad = ~np.isfinite(values)
        for agent in np.flatnonzero(bad.any(axis=1)):
            step = self.env_steps + int(np.argmax(bad[agent])) + 1
            known = self.diverged.get(int(self.agents[agent]), step)
            self.diverged[int(self.agents[agent])] = min(step, known)


def number(value: float) -> str:
    """A number as it stands in a table: nine digits, which is all that a float32 holds; empty if not finite."""
    return f"{value:.9g}" if np.isfinite(value) else ""


def metrics_csv(histories: list[History], num_seeds: int | None = None) -> str:
    """The text of `metrics.csv`: sorted by environment steps, then by agent.

    In a sweep with `num_seeds` agents of each point, two more columns tell an agent's place in it.
    """
    lines = [line for history in histories for line in history.metrics_lines]
    if len(histories) > 1:
        lines.sort(key=_step_and_agent)
    return _table(METRICS_COLUMNS, lines, num_seeds)


def _step_and_agent(line: str) -> list[int]:
    """By which the rows of `metrics.csv` are sorted."""
    return [int(cell) for cell in line.split(",", 2)[1::-1]]


def _table(columns: tuple[str, ...], lines: list[str], num_seeds: int | None) -> str:
    """A table whose first column is the agent; with the agent's point and seed behind it in a sweep."""
    if num_seeds is None:
        return "\n".join([",".join(columns), *lines]) + "\n"
    placed = []
    for line in lines:
        agent, rest = line.split(",", 1)
        point, seed = divmod(int(agent), num_seeds)
        placed.append(f"{agent},{point},{seed},{rest}")
    return _table((columns[0], *PLACE_COLUMNS, *columns[1:]), placed, None)


def episodes_csv(histories: list[History], num_seeds: int | None = None) -> str:
    """The text of `episodes.csv`: sorted by environment steps, then by agent; in a sweep as `metrics_csv`."""
    table = Episodes(*map(np.concatenate, zip(*(history.all_episodes() for history in histories), strict=True)))
    rows = zip(*(column[np.lexsort((table.agent, table.env_steps))] for column in table), strict=True)
    lines = [
        f"{agent},{episode},{env_steps},{number(value)},{length},{number(scale)}"
        for agent, episode, env_steps, value, length, scale in rows
    ]
    return _table(EPISODES_COLUMNS, lines, num_seeds)
