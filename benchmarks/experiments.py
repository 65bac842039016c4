"""Compares populations in turns, to measure the cost of capacity, number of agents, sampling, sweeps and rounding."""

import argparse
import gc
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from trainers import CASES, Machine, Trainer, choose_chunk, compile_trainer, new_population, seconds_of, trainer_of

from ddpg_jax.population.assembly import make_hyperparameters
from ddpg_jax.population.blocks import Population, agent_keys
from ddpg_jax.runs.plan import plan_part


def interleaved(populations: dict[str, Population], repeats: int, steps: int | None) -> dict[str, Any]:
    """Times the populations in turns; returns the seconds per step of all agents, and the steps per chunk."""
    chunks = {name: choose_chunk(population, steps) for name, population in populations.items()}
    seconds: dict[str, list[float]] = {name: [] for name in populations}
    for _ in range(repeats):
        for name, population in populations.items():
            length, num = chunks[name]
            seconds[name].append(seconds_of(population, length, num) / length)
    return {"seconds_a_step": seconds, "steps_a_chunk": {name: chunk[0] for name, chunk in chunks.items()}}


def ratio(seconds: dict[str, list[float]], over: str, under: str) -> float:
    """Returns the median of the ratios of neighbouring measurements."""
    return statistics.median(a / b for a, b in zip(seconds[over], seconds[under], strict=True))


def capacity(machine: Machine, options: argparse.Namespace) -> dict[str, Any]:
    """Compares the time of a step with full replays of 10^6 and of 10^4 rows."""
    found = {}
    for name in ("keras 64-64", "gist"):
        populations = {}
        for rows in (10_000, 1_000_000):
            trainer = trainer_of(CASES[name].replace(replay_capacity=rows), machine)
            populations[str(rows)] = new_population(trainer, options.together)
        result = interleaved(populations, options.repeats, options.steps)
        found[name] = result | {"ratio": ratio(result["seconds_a_step"], "1000000", "10000")}
        print(f"  {name}: 10^6 rows take {found[name]['ratio']:.2f} times as long as 10^4", flush=True)
        del populations
        gc.collect()
    return found


def linearity(machine: Machine, options: argparse.Namespace) -> dict[str, Any]:
    """Compares the time per agent of a step in populations of 2 to 1,000 agents with that in the first."""
    found = {}
    for name in ("keras 64-64", "keras"):
        trainer = trainer_of(CASES[name], machine)
        counts = [num for num in options.populations if fits(trainer, num + 100)]
        populations = {str(num): new_population(trainer, num) for num in counts}
        result = interleaved(populations, options.repeats, options.steps)
        seconds = {num: [s / int(num) for s in times] for num, times in result["seconds_a_step"].items()}
        ratios = {num: ratio(seconds, num, str(counts[0])) for num in seconds}
        found[name] = result | {"time_an_agent_against_the_first": ratios}
        words = ", ".join(f"{num}: {value:.2f}" for num, value in ratios.items())
        print(f"  {name}: time of a step per agent, relative to {counts[0]} agents: {words}", flush=True)
        del populations
        gc.collect()
    return found


def fits(trainer: Trainer, num_agents: int) -> bool:
    """Whether so many agents fit into memory."""
    return len(plan_part(trainer.config, trainer.setup, [trainer.programs.placement], range(num_agents)).waves) == 1


def start_up(machine: Machine, options: argparse.Namespace) -> dict[str, Any]:
    """Measures the seconds to compile, to create the agents and to take a first step, for few and many agents."""
    found: dict[str, Any] = {}
    for num_agents in (min(options.populations), max(options.populations)):
        trainer = compile_trainer(CASES["keras"], machine)
        start = time.perf_counter()
        hyperparameters = jax.tree.map(
            lambda x, n=num_agents: np.full(n, x, np.float32), make_hyperparameters(trainer.config)
        )
        population = Population(trainer.programs, agent_keys(0, np.arange(num_agents)), hyperparameters)
        jax.block_until_ready(population.states)
        made = time.perf_counter()
        population.advance(1)
        found[str(num_agents)] = {
            "compile_seconds": trainer.compile_seconds,
            "init_seconds": made - start,
            "first_step_seconds": time.perf_counter() - made,
        }
        words = ", ".join(
            f"{key.removesuffix('_seconds')} {value:.2f} s" for key, value in found[str(num_agents)].items()
        )
        print(f"  {num_agents} agents: {words}", flush=True)
        del population
    return found


def replacement(machine: Machine, options: argparse.Namespace) -> dict[str, Any]:
    """Compares the time of a step of `gist` without and with replacement."""
    populations = {}
    for name, with_replacement in (("without", False), ("with", True)):
        trainer = trainer_of(CASES["gist"].replace(sample_with_replacement=with_replacement), machine)
        populations[name] = new_population(trainer, options.together)
    result = interleaved(populations, options.repeats, options.steps)
    found = result | {"ratio": ratio(result["seconds_a_step"], "without", "with")}
    print(f"  without replacement takes {found['ratio']:.2f} times as long as with", flush=True)
    return found


def sweep_cost(machine: Machine, options: argparse.Namespace) -> dict[str, Any]:
    """Compares a grid of 12 points x 8 seeds of `pendulum` with as many agents of one configuration."""
    trainer = trainer_of(CASES["pendulum"], machine)
    grid = [
        trainer.config.replace(actor_lr=actor_lr, tau=tau)
        for actor_lr in (1e-4, 3e-4, 1e-3, 3e-3)
        for tau in (0.005, 0.01, 0.02)
    ]
    populations = {"grid": new_population(trainer, 96, grid), "alike": new_population(trainer, 96)}
    result = interleaved(populations, options.repeats, options.steps)
    found = result | {"ratio": ratio(result["seconds_a_step"], "grid", "alike")}
    print(f"  a grid of 12 points takes {found['ratio']:.2f} times as long as agents of one configuration", flush=True)
    return found


def matmul_dtype(machine: Machine, options: argparse.Namespace) -> dict[str, Any]:
    """Compares the speed with products in bfloat16 and in float32."""
    found = {}
    for name in ("keras", "pendulum"):
        populations = {
            dtype: new_population(trainer_of(CASES[name].replace(matmul_dtype=dtype), machine), options.together)
            for dtype in ("float32", "bfloat16")
        }
        result = interleaved(populations, options.repeats, options.steps)
        found[name] = result | {"ratio": ratio(result["seconds_a_step"], "float32", "bfloat16")}
        print(f"  {name}: with products in bfloat16 {found[name]['ratio']:.2f} times as fast", flush=True)
        del populations
        gc.collect()
    return found


EXPERIMENTS: dict[str, Callable[[Machine, argparse.Namespace], dict[str, Any]]] = {
    "capacity": capacity,
    "linearity": linearity,
    "start_up": start_up,
    "replacement": replacement,
    "sweep_cost": sweep_cost,
    "matmul_dtype": matmul_dtype,
}


def experiment_lines(found: dict[str, Any]) -> list[str]:
    """Returns the results of the experiments as Markdown."""
    lines = []
    if "capacity" in found:
        words = _times(found["capacity"])
        lines.append(f"- With full replays of 10^6 rows, a step takes {words} as long as with 10^4 rows.")
    for name, result in found.get("linearity", {}).items():
        (first, _), *ratios = result["time_an_agent_against_the_first"].items()
        words = " and ".join(f"{value:.2f} with {int(num):,} agents" for num, value in ratios)
        lines.append(f"- `{name}`: the time of a step per agent, relative to {first} agents, is {words}.")
    if "start_up" in found:
        words = "; ".join(
            f"{int(num):,} agents {r['compile_seconds']:.1f} + {r['init_seconds']:.1f} + {r['first_step_seconds']:.2f}"
            for num, r in found["start_up"].items()
        )
        lines.append(f"- Seconds to compile `keras` + to create the agents + to take their first step: {words}.")
    if "replacement" in found:
        words = f"{found['replacement']['ratio']:.2f} times"
        lines.append(f"- Without replacement, a step of `gist` takes {words} as long as with replacement.")
    if "sweep_cost" in found:
        words = f"{found['sweep_cost']['ratio']:.2f} times as long as with 96 agents of one point"
        lines.append(f"- In a grid of 12 points x 8 seeds, a step of `pendulum` takes {words}.")
    if "matmul_dtype" in found:
        words = _times(found["matmul_dtype"])
        lines.append(f"- With `--matmul-dtype bfloat16`, 32 agents train {words} as fast as in float32.")
    return lines


def _times(found: dict[str, Any]) -> str:
    """Returns the ratio of each case as text."""
    return " and ".join(f"{result['ratio']:.2f} times (`{name}`)" for name, result in found.items())
