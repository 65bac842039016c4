"""Population-based training (Jaderberg et al. 2017, https://arxiv.org/abs/1711.09846).

N agents train side by side. At each evaluation the worst fifth take over what the best fifth have learned, networks,
targets, optimizers' states and replay, with hyperparameters near theirs. No program is compiled again.
"""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ddpg_jax.config import ANNOTATIONS
from ddpg_jax.fields import from_text
from ddpg_jax.search.batch import Batch, SearchFailedError
from ddpg_jax.search.options import TuneOptions
from ddpg_jax.search.space import Space, ends
from ddpg_jax.training.checkpoint import Checkpoints
from ddpg_jax.training.files import write_text
from ddpg_jax.training.plan import make_plan, stack_hyperparameters
from ddpg_jax.training.progress import Progress
from ddpg_jax.training.run import evaluation_steps
from ddpg_jax.training.setup_factory import make_setup

TABLE = "population.csv"
"""The table of a population in the folder of the search."""


class Row(NamedTuple):
    """An agent at an evaluation."""

    env_steps: int
    agent: int
    """Its number, counted from 0."""
    greedy_return: float
    """NaN if it has diverged."""
    source: int
    """The agent whose networks it continues with: itself, or another one from which it copied them."""
    values: dict[str, Any]
    """The hyperparameters with which it trained up to here."""


def require_arrays(space: Space, options: TuneOptions) -> None:
    """Raises a ValueError that names the fields whose values decide what is compiled, which cannot change."""
    environment = make_plan(options.train_options([space.base])).task.environment
    bad = [name for name, axis in space.axes.items()
           if len({make_setup(space.config({name: value}), environment) for value in ends(axis)}) > 1]  # fmt: skip
    if bad:
        raise ValueError(f"tune names {', '.join(bad)}, but must name with method pbt only hyperparameters that change "
                         f"no compiled program, such as actor_lr, tau or noise_sigma")  # fmt: skip


def exploit(
    returns: np.ndarray, values: Sequence[dict[str, Any]], space: Space, rng: np.random.Generator
) -> tuple[np.ndarray, list[dict[str, Any]]]:
    """Returns the agents [N] from which each one copies, and its new hyperparameters.

    The worst fifth, and all that have diverged, copy from agents of the best fifth that are drawn at random.

    Args:
        returns: [N] greedy returns, NaN for agents that have diverged.
        values: hyperparameters of the N agents.
        space: in which they move.
        rng: draws the sources and the moves.
    """
    order = np.argsort(np.where(np.isfinite(returns), returns, -np.inf), kind="stable")
    fifth, num_finite = max(1, len(returns) // 5), int(np.isfinite(returns).sum())
    best = order[len(order) - min(fifth, num_finite) :]
    sources, moved = np.arange(len(returns)), list(values)
    for agent in order[: max(fifth, len(returns) - num_finite)]:
        sources[agent] = rng.choice(best)
        moved[agent] = space.move(values[sources[agent]], rng)
    return sources, moved


def evolve(space: Space, options: TuneOptions, progress: Progress) -> list[Row]:
    """Trains a population, and returns its table; in a folder it continues where an earlier process was saved.

    Raises:
        SearchFailedError: if all agents have diverged.
    """
    total, seeds, rows = space.base.total_steps, options.population(), list[Row]()
    rng = np.random.default_rng([options.seed, 0])
    values = [space.draw(rng) for _ in seeds]
    configs = [space.config(each) for each in values]
    plan = make_plan(options.train_options(configs[:1], seeds), hyperparameters=stack_hyperparameters(configs))
    folder = options.out
    progress.compiling("compiling")
    checkpoints = Checkpoints(folder / "checkpoints", every=options.checkpoint_every) if folder else None
    with Batch(plan, progress, plan.task.selection_starts) as batch:
        (group,) = batch.groups
        if folder and checkpoints and (saved := checkpoints.load(lambda text: progress.message(f"note: {text}"))):
            saved.restore(group.trainer)
            group.history, done = saved.history, saved.history.env_steps
            rows = [row for row in read_table(folder / TABLE) if row.env_steps <= done]
            _, values = _exploit_rows(rows[-len(seeds) :], space, options)
            group.trainer.hyperparameters = stack_hyperparameters([space.config(each) for each in values])
            progress.message(f"resuming at step {done:,}")
            progress.advanced(done * len(seeds), resumed=True)
        for step in evaluation_steps(space.base):
            if step <= group.history.env_steps:
                continue
            batch.advance(step)
            (returns,) = batch.evaluate(final=step == total)
            if not np.isfinite(returns).any():
                raise SearchFailedError(f"all agents have diverged by step {step:,}: tune within other ranges")
            progress.evaluated(step, returns, None)
            now = [Row(step, i, float(returns[i]), i, each) for i, each in enumerate(values)]
            if step < total:
                sources, values = _exploit_rows(now, space, options)
                now = [row._replace(source=int(source)) for row, source in zip(now, sources, strict=True)]
                group.trainer.copy(sources, np.where(np.isfinite(returns), np.arange(len(seeds)), sources))
                group.trainer.hyperparameters = stack_hyperparameters([space.config(each) for each in values])
                for agent in group.history.agents[sources != np.arange(len(seeds))]:
                    group.history.diverged.pop(int(agent), None)  # it has the networks of another agent now
            rows += now
            if folder and checkpoints and (checkpoints.due() or step == total):
                write_text(folder / TABLE, table(rows))
                checkpoints.save(group.trainer, group.history, [], {})
    return rows


def _exploit_rows(rows: Sequence[Row], space: Space, options: TuneOptions) -> tuple[np.ndarray, list[dict[str, Any]]]:
    """Returns what `exploit` makes of an evaluation, the same each time."""
    rng = np.random.default_rng([options.seed, rows[0].env_steps])
    return exploit(np.array([row.greedy_return for row in rows]), [row.values for row in rows], space, rng)


def lineage(rows: Sequence[Row]) -> list[Row]:
    """Returns, at each evaluation, the row of the agent from which the best at the end descends."""
    steps, by_place = sorted({row.env_steps for row in rows}), {(row.env_steps, row.agent): row for row in rows}
    if not rows:
        return []
    last = [row for row in rows if row.env_steps == steps[-1] and np.isfinite(row.greedy_return)]
    path = [max(last, key=lambda row: row.greedy_return)]
    for step in reversed(steps[:-1]):
        path.insert(0, by_place[step, by_place[step, path[0].agent].source])
    return path


def follow(
    path: Sequence[Row], space: Space, options: TuneOptions, seeds: range, progress: Progress
) -> tuple[np.ndarray, np.ndarray]:
    """Trains new agents with the schedule of a lineage; returns greedy returns [E, S] and final ones [S]."""
    plan, returns = make_plan(options.train_options([space.config(path[0].values)], seeds)), []
    with Batch(plan, progress, plan.task.evaluation_starts) as batch:
        for row in path:
            batch.groups[0].trainer.hyperparameters = stack_hyperparameters([space.config(row.values)] * len(seeds))
            batch.advance(row.env_steps)
            returns.append(batch.evaluate()[0])
        return np.array(returns), batch.evaluate(final=True)[0]


def table(rows: Sequence[Row]) -> str:
    """Returns the text of `population.csv`: a row per agent per evaluation. Numbers read back as the same numbers."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow([*Row._fields[:-1], *rows[0].values])
    writer.writerows([*row[:-1], *row.values.values()] for row in rows)
    return file.getvalue()


def read_table(path: Path) -> list[Row]:
    """Returns the rows of a table that `table` wrote."""
    rows = []
    with open(path, newline="") as file:
        for each in csv.DictReader(file):
            steps, agent, greedy_return, source = (each.pop(name) for name in Row._fields[:-1])
            values = {name: from_text([text], ANNOTATIONS[name]) for name, text in each.items()}
            rows.append(Row(int(steps), int(agent), float(greedy_return), int(source), values))
    return rows
