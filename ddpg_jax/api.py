"""Training from Python: what the command does, for any setup, in memory and without a run folder."""

import warnings
from functools import lru_cache

import jax
import numpy as np

from ddpg_jax.algorithm import averaging
from ddpg_jax.algorithm.loop import Setup
from ddpg_jax.algorithm.types import Hyperparameters
from ddpg_jax.config import Config
from ddpg_jax.environments.registry import make
from ddpg_jax.population.assembly import make_hyperparameters, make_setup
from ddpg_jax.population.blocks import agent_keys
from ddpg_jax.population.host import make_population
from ddpg_jax.population.programs import compile_programs
from ddpg_jax.processes.devices import own_settings, unused_cores, use_compilation_cache
from ddpg_jax.results.history import History
from ddpg_jax.runs.course import MAX_CHUNK, course
from ddpg_jax.runs.divergence import note_diverged
from ddpg_jax.runs.placement import choose_placement
from ddpg_jax.runs.policy import Policy

_compiled = lru_cache(maxsize=8)(compile_programs)  # configurations with equal setups compile once


@own_settings()
def train(
    config: Config,
    *,
    num_agents: int = 32,
    seed: int = 0,
    setup: Setup | None = None,
    hyperparameters: Hyperparameters | None = None,
) -> tuple[Policy, History]:
    """Trains agents and evaluates them as they learn, all of them in memory together.

    Equal arguments on an equal machine give the bits of `python -m ddpg_jax.run`. On a CPU, call
    `ddpg_jax.use_all_cores()` first: JAX itself starts with one device, and so trains on one core.

    Args:
        config: the task, its length and its evaluations, and all that the other arguments leave open.
        num_agents: N.
        seed: of the root key, >= 0; agent i's key is the root key with i folded in. So agents of two calls with the
            same seed share their random numbers, and can be compared in pairs.
        setup: what is compiled: `make_setup` of the configuration, with other parts where the algorithm is varied.
        hyperparameters: numbers that all agents share, or arrays [N] with one for each.

    Returns:
        The greedy policies of the N agents, and the measurements: `History.greedy_returns` has the learning curves.

    Raises:
        ValueError: if there are no agents, or an array of hyperparameters has not one number for each.
    """
    if num_agents < 1:
        raise ValueError(f"num_agents is {num_agents}, but must be a whole number >= 1")
    if note := unused_cores(num_agents):
        warnings.warn(note, stacklevel=3)  # the caller's line, behind the decorator
    use_compilation_cache()
    setup = make_setup(config, make(config.env_id, config.env_args)) if setup is None else setup
    scalars = make_hyperparameters(config) if hyperparameters is None else hyperparameters
    each = jax.tree.map(lambda value: np.broadcast_to(np.asarray(value, np.float32), num_agents), scalars)
    programs = _compiled(
        setup,
        choose_placement(num_agents, on_host=setup.environment.outside is not None),
        max_steps=MAX_CHUNK,
        num_starts=config.eval_episodes,
        hyperparameters=jax.tree.structure(scalars),
    )
    population = make_population(setup, programs, agent_keys(seed, np.arange(num_agents)), each)
    noise_scale = setup.exploration.noise_unit[0] * each.noise.scale
    history = History(config, num_agents, noise_scale=noise_scale, noise_decay=each.noise.decay)
    for _ in course(population, history, setup.environment.evaluation_starts(config.eval_episodes)):
        pass
    note_diverged(population, history, history.metrics.eval_return[-1, :, None])
    variables = population.agents(averaging.policy)
    environment, diverged = setup.environment, tuple(sorted(history.diverged))
    policy = Policy(environment.env_id, environment.observation_size, setup.algorithm.actor, variables, diverged)
    return policy, history
