"""Measures this project with the programs and the placement of its command: the preset `keras`, or a change of it."""

import jax
import numpy as np
from harness import Meter, Options, options, versions

import ddpg_jax
from ddpg_jax.algorithm.agent import act
from ddpg_jax.config import Config
from ddpg_jax.environments.registry import make
from ddpg_jax.population.assembly import make_hyperparameters, make_setup
from ddpg_jax.population.blocks import agent_keys
from ddpg_jax.population.host import make_population
from ddpg_jax.population.programs import compile_programs
from ddpg_jax.presets import PRESETS
from ddpg_jax.processes import devices
from ddpg_jax.runs.course import MAX_CHUNK
from ddpg_jax.runs.placement import choose_placement


def main(options: Options, config: Config = PRESETS["keras"]) -> None:
    meter = Meter(options)
    devices.prepare(None)
    setup = make_setup(config, make(config.env_id))
    placement = choose_placement(options.agents, on_host=setup.environment.outside is not None)
    programs = compile_programs(setup, placement, max_steps=MAX_CHUNK, num_starts=config.eval_episodes)
    hyperparameters = jax.tree.map(lambda x: np.full(options.agents, x, np.float32), make_hyperparameters(config))
    population = make_population(setup, programs, agent_keys(options.seed, np.arange(options.agents)), hyperparameters)

    def advance(steps: int) -> bool:
        if options.total_steps is not None:
            steps = min(steps, options.total_steps - meter.steps)
        population.advance(steps)
        return meter.advanced(steps)

    chunk = 5
    while not advance(chunk):
        chunk = min(MAX_CHUNK, 4 * chunk)
    state = jax.tree.map(lambda x: x[0], population.states[0].agent)
    meter.report(
        {"ddpg_jax": ddpg_jax.__version__} | versions("jax", "flax", "optax", "gymnax", "gymnasium"),
        lambda observations: np.asarray(act(state, observations, algorithm=setup.algorithm)),
    )


if __name__ == "__main__":
    main(options())
