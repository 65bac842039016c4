"""Joins results of disjoint seeds of the same configurations, as if one process had trained them."""

import itertools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from safetensors.numpy import load_file

from ddpg_jax.results.history import History
from ddpg_jax.results.summary import Finals, Seconds, Summary, summarize
from ddpg_jax.training.policy import Policy, write_weights
from ddpg_jax.training.result import Result

SAME = ("config", "configs", "preset", "seed", "custom")
"""Fields of `config.json` that must be equal."""


def merge(results: Sequence[Result]) -> Result:
    """Returns the result of all agents.

    Args:
        results: of disjoint ranges of seeds, which together are one range, in any order.

    Raises:
        ValueError: if they are not of the same configurations, or their seeds overlap or leave some out.
    """
    results = sorted(results, key=lambda result: result.seeds.start)
    first = results[0]
    for other in results[1:]:
        for name in SAME:
            here, there = other.details[name], first.details[name]
            if here != there:
                field, here, there = _first_difference(name, here, there)
                raise ValueError(f"{field} of {other.folder} is {here}, but must be {there}, as in {first.folder}")
    for before, after in itertools.pairwise(results):
        if before.seeds.stop != after.seeds.start:
            raise ValueError(
                f"seeds of {after.folder} are {after.seeds.start}:{after.seeds.stop}, but must begin at "
                f"{before.seeds.stop}, after those of {before.folder}"
            )
    seeds = range(first.seeds.start, results[-1].seeds.stop)
    numbers = [_new_numbers(result, seeds) for result in results]
    order = np.argsort(np.concatenate(numbers), kind="stable")
    histories = [
        result.history.select(np.arange(len(new)), new.tolist()) for result, new in zip(results, numbers, strict=True)
    ]
    history = History.join(histories)
    finals = Finals(*(column[order] for column in Finals.join([result.finals for result in results])))
    policies = tuple(
        _merge_policies([result.policies[i] for result in results], results, seeds, finals)
        for i in range(len(first.policies))
    )
    details = {**first.details, "seeds": [seeds.start, seeds.stop], "command": None, "resumed": [],
               "merged": [str(result.folder) for result in results]}  # fmt: skip
    summary = _summarize([result.summary for result in results], first, seeds, history, finals)
    return replace(first, seeds=seeds, history=history, finals=finals, policies=policies, summary=summary,
                   details=details, folder=None)  # fmt: skip


def merge_snapshots(results: Sequence[Result], merged: Result, folder: Path) -> None:
    """Writes the snapshots of all agents, where all folders have them."""
    results = sorted(results, key=lambda result: result.seeds.start)
    folders = [result.folder for result in results if result.folder is not None]
    for file in sorted(folders[0].glob("snapshots/**/weights.safetensors")) if len(folders) == len(results) else []:
        name = file.relative_to(folders[0])
        if not all((each / name).is_file() for each in folders):
            continue
        trees = [unflatten_dict(load_file(each / name), sep="/") for each in folders]
        shape = int(file.parent.name.removeprefix("shape-")) if file.parent.name.startswith("shape-") else 0
        numbers = [_renumbered(result.policies[shape].agents, result, merged.seeds) for result in results]
        write_weights(folder / name, _joined(trees, np.argsort(np.concatenate(numbers), kind="stable")))


def _new_numbers(result: Result, seeds: range) -> np.ndarray:
    return _renumbered(result.history.agents, result, seeds)


def _renumbered(agents: Sequence[int] | np.ndarray, result: Result, seeds: range) -> np.ndarray:
    """Returns the numbers that agents of a result have among all seeds."""
    config, seed = np.divmod(np.asarray(agents) - result.seeds.start, len(result.seeds))
    return np.asarray(seeds.start + config * len(seeds) + (result.seeds.start + seed - seeds.start))


def _merge_policies(policies: Sequence[Policy], results: Sequence[Result], seeds: range, finals: Finals) -> Policy:
    numbers = [_renumbered(policy.agents, result, seeds) for policy, result in zip(policies, results, strict=True)]
    agents = np.concatenate(numbers)
    order = np.argsort(agents, kind="stable")
    diverged = [new[list(policy.diverged_agents)] for policy, new in zip(policies, numbers, strict=True)]
    finite = ~np.isin(agents[order], np.concatenate(diverged))
    returns = np.where(finite, finals.selection_return[agents[order] - seeds.start], np.nan)
    return replace(
        policies[0],
        variables=_joined([policy.variables for policy in policies], order),
        agents=tuple(agents[order].tolist()),
        diverged_agents=tuple(np.flatnonzero(~finite).tolist()),
        best_agent=int(np.nanargmax(returns)) if np.isfinite(returns).any() else None,
    )


def _joined(trees: Sequence[Any], order: np.ndarray) -> Any:
    return jax.tree.map(lambda *leaves: np.concatenate(leaves)[order], *trees)


def _summarize(summaries: Sequence[Summary], first: Result, seeds: range, history: History, finals: Finals) -> Summary:
    """Returns the summary of all agents; the seconds are those of all processes together."""
    summary = summaries[0]
    optimum = summary.final_optimum is not None
    updates: list[int | None] = [summary.updates_per_agent]
    if summary.configs:
        updates = [each.updates_per_agent for each in summary.configs]
    merged = summarize(
        history,
        finals,
        first.configs,
        env_id=summary.env_id,
        optimal_returns=(0.0,) if optimum else None,
        solved_shortfall=summary.solved_shortfall,
        preset=summary.preset,
        seed=summary.seed,
        seeds=seeds,
        num_updates=[each or 0 for each in updates],
        device=", ".join(dict.fromkeys(each.device for each in summaries)),
        seconds=Seconds(*(sum(getattr(each, name) for each in summaries) for name in Seconds._fields)),
        complete=all(each.complete for each in summaries),
    )
    return replace(merged, eval_optimum=summary.eval_optimum, final_optimum=summary.final_optimum,
                   wall_seconds=sum(each.wall_seconds for each in summaries))  # fmt: skip


def _first_difference(name: str, here: Any, there: Any) -> tuple[str, Any, Any]:
    """Returns the first field in which two values of `config.json` differ."""
    if isinstance(here, dict) and isinstance(there, dict):
        here, there = flatten_dict(here, sep="."), flatten_dict(there, sep=".")
        name = next(key for key in {**here, **there} if here.get(key) != there.get(key))
        return name, here.get(name), there.get(name)
    return name, here, there
