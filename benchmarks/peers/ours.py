"""Measures this project with the trainer of its command: the preset `keras`, or a change of it."""

import jax
import numpy as np
from harness import Meter, options, versions

import ddpg_jax
from ddpg_jax.environments.registry import task_of
from ddpg_jax.training.devices import use_all_cores, use_compilation_cache
from ddpg_jax.training.host_trainer import HostTrainer
from ddpg_jax.training.programs import MAX_CHUNK
from ddpg_jax.training.setup_factory import make_hyperparameters, make_setup
from ddpg_jax.training.trainer import Trainer, agent_keys


def main() -> None:
    meter = Meter(options())
    use_all_cores()
    use_compilation_cache()
    config = ddpg_jax.PRESETS["keras"].replace(matmul_dtype=meter.options.matmul_dtype, env_id=meter.options.env_id)
    task = task_of(config)
    hyperparameters = jax.tree.map(lambda x: np.full(meter.options.agents, x, np.float32), make_hyperparameters(config))
    make = Trainer if task.environment.host_env is None else HostTrainer
    trainer = make(
        make_setup(config, task.environment),
        agent_keys(meter.options.seed, np.arange(meter.options.agents)),
        hyperparameters,
        starts=task.evaluation_starts(8),
    )
    chunk = 5
    trainer.advance(chunk)
    while not meter.advanced(chunk):
        chunk = min(MAX_CHUNK, 4 * chunk)
        trainer.advance(chunk)
    meter.report({"ddpg_jax": ddpg_jax.__version__} | versions("jax", "flax", "optax", "gymnax", "gymnasium"))


if __name__ == "__main__":
    main()
