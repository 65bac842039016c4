"""What a run will train: configurations with equal setups, their agents, hyperparameters and devices."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import jax
import numpy as np

from ddpg_jax.algorithm.setup import Setup
from ddpg_jax.algorithm.types import Hyperparameters
from ddpg_jax.config import ANNOTATIONS, Config
from ddpg_jax.environments.registry import is_user_env, task_of
from ddpg_jax.environments.task import Task
from ddpg_jax.fields import checked
from ddpg_jax.options import TrainOptions
from ddpg_jax.training.logs import require_logs
from ddpg_jax.training.memory import format_bytes, measure, require_memory
from ddpg_jax.training.programs import Placement, Programs, choose_placement, compile_programs
from ddpg_jax.training.setup_factory import make_hyperparameters, make_noise, make_setup

MAX_EVALUATIONS = 100_000
"""The largest number of evaluations in a run."""

MAX_EVAL_EPISODES = 65_536
"""The largest number of greedy episodes per agent in an evaluation."""


@dataclass(frozen=True, eq=False)
class SetupPlan:
    """The agents that are compiled into the same programs."""

    setup: Setup
    configs: tuple[int, ...]
    """The numbers of their configurations."""
    agents: np.ndarray
    """[N] the agents' numbers."""
    seeds: np.ndarray
    """[N] the numbers of their seeds."""
    hyperparameters: Hyperparameters
    """Arrays [N]."""
    placement: Placement

    def compile(self, task: Task, num_episodes: int) -> Programs:
        """Returns the programs, which evaluate `num_episodes` at a time; kept where the environment cannot change."""
        make = _compile_cached if self.setup.environment.cacheable else _compile
        return make(self.setup, self.placement, task, num_episodes, jax.tree.structure(self.hyperparameters))


def _compile(setup: Setup, placement: Placement, task: Task, num_episodes: int, structure: Any) -> Programs:
    starts = task.evaluation_starts(num_episodes)
    return compile_programs(setup, placement, starts=starts, hyperparameters=structure)


_compile_cached = lru_cache(maxsize=8)(_compile)


@dataclass(frozen=True, eq=False)
class Plan:
    """A run that has been checked."""

    options: TrainOptions
    """With what the environment decides filled in."""
    task: Task
    setups: tuple[SetupPlan, ...]
    custom: bool
    """Whether setup or hyperparameters are the caller's, not those of the configurations."""

    @property
    def config(self) -> Config:
        """The first configuration; task, steps and evaluations are those of all."""
        return self.options.swept[0].config

    @property
    def num_agents(self) -> int:
        """The number of all agents."""
        return len(self.options.swept) * len(self.options.seeds)

    @property
    def device(self) -> str:
        """The devices as text, such as "2 x cpu"."""
        return str(max((each.placement for each in self.setups), key=lambda placement: len(placement.devices)))

    def config_of(self, agent: int) -> Config:
        """Returns an agent's configuration."""
        return self.options.swept[(int(agent) - self.options.seeds.start) // len(self.options.seeds)].config

    def shape_name(self, index: int) -> str:
        """Returns the name of the folder of a setup's weights; empty if there is only one setup."""
        return f"shape-{index}" if len(self.setups) > 1 else ""

    def lines(self) -> list[str]:
        """Returns the task, the agents and their devices as text, as a run announces them."""
        env, options = self.task.environment, self.options
        bounds = ", ".join(f"[{low:g}, {high:g}]" for low, high in zip(env.low, env.high, strict=True))
        actions = f"{len(env.low)} action{'s' * (len(env.low) > 1)} in {bounds}"
        lines = [f"{env.env_id}: {env.observation_size} observations, {actions}, episodes of at most "
                 f"{env.max_steps:,} steps"]  # fmt: skip
        if len(options.swept) > 1:
            programs = f", compiled {len(self.setups)} times" if len(self.setups) > 1 else ""
            lines.append(f"{len(options.swept):,} configurations x {len(options.seeds):,} seeds{programs}")
        lines.append(f"{self.num_agents:,} agents x {self.config.total_steps:,} steps on {self.device}")
        return lines

    def memory_lines(self) -> list[str]:
        """Returns what the run holds in memory."""
        return [
            f"memory: {len(each.agents):,} agents need {format_bytes(needed)} of {format_bytes(available)} available; "
            f"one agent holds a replay of {format_bytes(replay)}, and parameters, targets and moments of "
            f"{format_bytes(parameters)}"
            for each in self.setups
            for replay, parameters, needed, available in [measure(each.setup, each.placement, len(each.agents))]
        ]


def make_plan(
    options: TrainOptions, setup: Setup | None = None, hyperparameters: Hyperparameters | None = None
) -> Plan:
    """Checks everything that can be checked before a run starts, and divides the configurations by their setups.

    Args:
        options: of the run.
        setup: of all agents; default: that of each configuration.
        hyperparameters: of all agents, scalars or arrays [N]; default: those of the configurations.

    Raises:
        ValueError: if the run is not possible here; it names the field, the value and the rule.
    """
    if options.log and options.out is None:
        raise ValueError(f"log is {options.log}, but must be given with out, the folder of the run")
    require_logs(options.log)
    task = _task(options.swept[0].config, setup)
    on_host = task.environment.host_env is not None
    swept = tuple(each._replace(config=each.config.resolved(on_host)) for each in options.swept)
    options = replace(options, swept=swept)
    _require_evaluations(swept[0].config, task)
    by_setup: dict[Setup, list[int]] = {}
    custom = hyperparameters is not None
    for index, each in enumerate(swept):
        made = make_setup(each.config, task.environment)
        if setup is not None:
            _require_agreement(made, setup)
            custom |= setup != made
        by_setup.setdefault(setup or made, []).append(index)
    plans = tuple(_plan_setup(options, *item, hyperparameters) for item in by_setup.items())
    for plan in plans:
        config = swept[plan.configs[0]].config
        require_memory(plan.setup, plan.placement, config, seeds=options.seeds, num_configs=len(plan.configs))
    return Plan(options, task, plans, custom)


def _task(config: Config, setup: Setup | None) -> Task:
    """Returns the task that agents are evaluated on: the setup's, where the caller has one."""
    if setup is None:
        return task_of(config)
    try:
        task = task_of(config)
    except ValueError:
        return Task(setup.environment)
    if task.environment == setup.environment:
        return task
    # A user's function is called anew each time, and what it returns is never equal to what it returned before.
    again = replace(task.environment, reset=setup.environment.reset, step=setup.environment.step)
    is_same = is_user_env(config.env_id) and again == setup.environment
    return replace(task, environment=setup.environment) if is_same else Task(setup.environment)


def _require_evaluations(config: Config, task: Task) -> None:
    least = -(-config.total_steps // MAX_EVALUATIONS)
    if config.eval_every < least:
        raise ValueError(
            f"eval_every is {config.eval_every}, but must be at least {least}: a run of {config.total_steps:,} steps "
            f"is evaluated at most {MAX_EVALUATIONS:,} times"
        )
    for name in ("eval_episodes", "final_episodes"):
        num = getattr(config, name)
        if num > MAX_EVAL_EPISODES:
            raise ValueError(f"{name} is {num}, but must be at most {MAX_EVAL_EPISODES}")
        if task.optimal_returns is not None and num > len(task.optimal_returns):
            raise ValueError(f"{name} is {num}, but must be at most {len(task.optimal_returns)}, the start states of "
                             f"evaluations of {task.environment.env_id}")  # fmt: skip


_EQUAL = ("batch_size", "replay_capacity", "first_update", "train_every", "updates_per_train", "num_envs")
"""Fields of a setup that a configuration has as well."""


def _require_agreement(made: Setup, given: Setup) -> None:
    """Refuses a setup of the caller's that has other numbers than the configuration says."""
    for name in _EQUAL:
        here, there = getattr(given, name), getattr(made, name)
        if here != there:
            raise ValueError(f"{name} of the setup is {here}, but must be that of the configuration, {there}: change "
                             f"it with config.replace(...), and make the setup from that")  # fmt: skip
    limits = [each.exploration.max_steps or each.environment.max_steps for each in (given, made)]
    if limits[0] != limits[1]:
        raise ValueError(f"max_steps of the setup is {limits[0]}, but must be max_episode_steps of the configuration, "
                         f"{limits[1]}")  # fmt: skip


def _plan_setup(
    options: TrainOptions, setup: Setup, configs: list[int], hyperparameters: Hyperparameters | None
) -> SetupPlan:
    """Plans the agents of some configurations: every seed of the first, then every seed of the next."""
    num_seeds = len(options.seeds)
    agents = np.concatenate([options.seeds.start + c * num_seeds + np.arange(num_seeds) for c in configs])
    if hyperparameters is None:
        stacked = stack_hyperparameters([options.swept[c].config for c in configs])
        arrays = jax.tree.map(lambda x: np.repeat(x, num_seeds), stacked)
    else:
        arrays = _given_hyperparameters(hyperparameters, len(agents))
    placement = choose_placement(
        len(agents),
        on_host=setup.environment.host_env is not None,
        devices=options.devices,
        group_size=options.group_size,
    )
    seeds = np.tile(np.asarray(options.seeds), len(configs))
    return SetupPlan(setup, tuple(configs), agents, seeds, arrays, placement)


def stack_hyperparameters(configs: Sequence[Config]) -> Hyperparameters:
    """Returns the hyperparameters of N configurations with equal setups, arrays [N]."""
    trees: list[Any] = [make_hyperparameters(config) for config in configs]
    stacked: Hyperparameters = jax.tree.map(lambda *leaves: np.asarray(leaves, np.float32), *trees)
    return stacked


def _given_hyperparameters(hyperparameters: Hyperparameters, num_agents: int) -> Hyperparameters:
    """Returns the caller's hyperparameters as arrays [N], checked as a configuration's are."""
    for name, value in hyperparameters._asdict().items():
        if value is not None and name in ANNOTATIONS and name != "noise":
            for extreme in (np.min(value), np.max(value)):
                checked(name, float(extreme), ANNOTATIONS[name])
    for path, value in jax.tree_util.tree_leaves_with_path(hyperparameters):
        name = jax.tree_util.keystr(path, simple=True, separator=".")
        if np.shape(value) not in ((), (num_agents,)):
            raise ValueError(f"{name} has shape {np.shape(value)}, but must be a number or [{num_agents}], one per "
                             f"agent")  # fmt: skip
        if not np.isfinite(np.asarray(value, float)).all():
            raise ValueError(f"{name} is {value}, but must be finite")
    return jax.tree.map(lambda x: np.broadcast_to(np.asarray(x, np.float32), num_agents), hyperparameters)


def noise_scales(plan: Plan, each: SetupPlan) -> dict[str, Any]:
    """Returns, for the table of episodes, the noise's factors on the first action [N] and their decay [N]."""
    if plan.custom:
        noise = each.hyperparameters.noise
        scale, decay = np.asarray(noise.scale, float), np.asarray(noise.decay, float)
    else:
        noises, num = [make_noise(plan.options.swept[c].config) for c in each.configs], len(plan.options.seeds)
        scale, decay = (np.repeat([getattr(noise, name) for noise in noises], num) for name in ("scale", "decay"))
    return {"noise_scale": each.setup.exploration.noise_unit[0] * scale, "noise_decay": decay}
