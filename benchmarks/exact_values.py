"""Says what bounds the last points of Pendulum: `python benchmarks/exact_values.py`.

Trains actors and critics by the package's own `update`, but with the exact optimal values Q*(s, a) as the critic's
targets, which dynamic programming gives: the reward of each transition is Q*, and gamma is 0. States and torques are
uniformly random, without exploration, bootstrapping or correlated data. What then is missing to the optimum is due to
the networks, the number of updates and the choice of states alone. Writes `results/exact_values.json` and the table in
`benchmarks/README.md`. It takes about 13 minutes on two cores.
"""

import argparse
import json
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from optimum import shipped
from record import RESULTS, commit, describe_machine, fill_readme, load_average, record_line

from ddpg_jax.algorithm.agent import Algorithm, init, update
from ddpg_jax.algorithm.types import AgentState, PRNGKey, Transition
from ddpg_jax.config import Config
from ddpg_jax.environments import optimum
from ddpg_jax.environments.registry import make
from ddpg_jax.population.assembly import make_hyperparameters, make_setup
from ddpg_jax.presets import PRESETS
from ddpg_jax.results.statistics import iqm, iqm_interval

PENDULUM = PRESETS["pendulum"]
GAMMA = PENDULUM.gamma
POINTS = (800, 801)
"""Angles and velocities of the table of exact values."""
TORQUES = np.linspace(-optimum.MAX_TORQUE, optimum.MAX_TORQUE, 41, dtype=np.float32)
"""Torques among which the critic chooses by itself."""
LAST_RATE = 0.1
"""Share of the learning rates that is left after the last update, about as in the preset."""


class Case(NamedTuple):
    """Networks and the updates that they get."""

    hidden_sizes: tuple[int, ...]
    updates: int
    batch_size: int
    critic_lr: float
    agents: int


CASES = (
    Case((128, 64), 5_500, 64, 5e-3, 16),  # the preset's networks, minibatches, rates and number of updates
    Case((128, 64), 20_000, 256, 2e-3, 8),
    Case((256, 256), 20_000, 256, 1e-3, 4),
)


def draw(key: PRNGKey, batch_size: int, values: jax.Array) -> Transition:
    """Returns uniformly random states and torques, with their exact optimal values as rewards."""
    low = jnp.array([-jnp.pi, -optimum.MAX_SPEED, -optimum.MAX_TORQUE])
    angle, velocity, torque = jax.random.uniform(key, (batch_size, 3), minval=low, maxval=-low).T
    after = optimum.step(angle, velocity, torque)
    exact = after[2] + GAMMA * optimum.interpolate(values, *after[:2])
    observation = optimum.observe(angle, velocity)
    return Transition(observation, torque[:, None], exact, jnp.zeros(batch_size), observation)


def train(case: Case, algorithm: Algorithm, config: Config, values: jax.Array, key: PRNGKey) -> AgentState:
    """Returns an agent whose critic has learnt the exact values, and whose actor has followed this critic."""
    constant = make_hyperparameters(config)._replace(gamma=0.0)

    def step(state: AgentState, number: jax.Array) -> tuple[AgentState, None]:
        rate = LAST_RATE ** (number / case.updates)
        now = constant._replace(actor_lr=rate * constant.actor_lr, critic_lr=rate * constant.critic_lr)
        draw_key, update_key = jax.random.split(jax.random.fold_in(learn_key, number))
        batch = draw(draw_key, case.batch_size, values)
        return update(update_key, state, batch, algorithm=algorithm, hyperparameters=now)[0], None

    init_key, learn_key = jax.random.split(key)
    state = init(init_key, jnp.zeros(3), algorithm=algorithm)
    return jax.lax.scan(step, state, jnp.arange(case.updates))[0]


def shortfalls(state: AgentState, algorithm: Algorithm, starts: np.ndarray, best: np.ndarray) -> dict[str, jax.Array]:
    """Returns how far the actor and the critic's own choice stay below the optimum, means over the start states []."""

    def by_actor(observation: jax.Array) -> jax.Array:
        return jnp.asarray(algorithm.actor.apply(state.actor, observation))[..., 0]

    def by_critic(observation: jax.Array) -> jax.Array:
        def value_of(torque: jax.Array) -> jax.Array:
            torques = jnp.broadcast_to(torque, (*observation.shape[:-1], 1))
            value = jnp.asarray(algorithm.critic.apply(state.critic, observation, torques))
            return algorithm.action_value(value)

        return jnp.asarray(TORQUES)[jnp.argmax(jax.vmap(value_of)(jnp.asarray(TORQUES)), axis=0)]

    def mean_return(choose: Callable[[jax.Array], jax.Array]) -> jax.Array:
        def step(place: tuple[jax.Array, jax.Array], _: None) -> tuple[tuple[jax.Array, jax.Array], jax.Array]:
            angle, velocity, reward = optimum.step(*place, choose(optimum.observe(*place)))
            return (angle, velocity), reward

        first = jnp.asarray(starts[:, 0], jnp.float32), jnp.asarray(starts[:, 1], jnp.float32)
        return jnp.sum(jax.lax.scan(step, first, length=optimum.HORIZON)[1], axis=0).mean()

    return {"actor": best.mean() - mean_return(by_actor), "critic": best.mean() - mean_return(by_critic)}


def measure(case: Case, seed: int, values: jax.Array) -> dict[str, Any]:
    """Trains the agents of a case; returns their shortfalls and the critics' errors on states of their own."""
    config = PENDULUM.replace(hidden_sizes=case.hidden_sizes, critic_lr=case.critic_lr)
    algorithm = make_setup(config, make("Pendulum-v1")).algorithm
    starts, best = shipped(1.0)
    assert best is not None
    held_out = draw(jax.random.key(seed + 1), 20_000, values)

    @jax.jit
    def one(key: PRNGKey) -> dict[str, jax.Array]:
        state = train(case, algorithm, config, values, key)
        fitted = jnp.asarray(algorithm.critic.apply(state.critic, held_out.observation, held_out.action))
        error = jnp.mean(jnp.square(fitted - held_out.reward))
        return {**shortfalls(state, algorithm, starts, best), "squared_error": error}

    began = time.perf_counter()
    agents = [jax.device_get(one(jax.random.key(seed + 1_000 * number))) for number in range(case.agents)]
    return {
        **case._asdict(),
        "seconds": time.perf_counter() - began,
        "variance": float(jnp.var(held_out.reward)),
        **{name: [float(each[name]) for each in agents] for name in agents[0]},
    }


def table(record: dict[str, Any]) -> str:
    """Returns the table of the README."""
    lines = [
        record_line(record),
        "",
        "| hidden layers | agents | updates x minibatch | unexplained variance of Q* "
        "| shortfall of the actors: IQM [95%] | shortfall of the critics' best torque: IQM [95%] |",
        "|---|---|---|---|---|---|",
    ]
    for case in record["cases"]:
        unexplained = float(np.mean(case["squared_error"])) / case["variance"]
        cells = [
            "-".join(map(str, case["hidden_sizes"])),
            str(case["agents"]),
            f"{case['updates']:,} x {case['batch_size']}",
            f"{unexplained:.2%}",
        ]
        for name in ("actor", "critic"):
            values = np.array(case[name])
            low, high = iqm_interval(values)
            cells.append(f"{float(iqm(values)):.1f} [{low:.1f}, {high:.1f}]")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0, help="of networks and states")
    seed = parser.parse_args().seed
    before, began = load_average(), datetime.now(UTC)
    values = optimum.infinite_horizon(POINTS, GAMMA)
    starts, best = shipped(1.0)
    own = optimum.episode_returns(values, jnp.asarray(starts[:, 0]), jnp.asarray(starts[:, 1]), GAMMA)[0]
    record: dict[str, Any] = {
        "machine": describe_machine(),
        "commit": commit(),
        "date": began.date().isoformat(),
        "gamma": GAMMA,
        "points": POINTS,
        "shortfall_of_the_table": float(np.mean(best - np.asarray(own))),
        "cases": [],
    }
    print(f"the table's own policy is {record['shortfall_of_the_table']:.2f} below the optimum", flush=True)
    for case in CASES:
        record["cases"].append(measure(case, seed, values))
        print(f"{case}: {record['cases'][-1]['seconds']:.0f} s", flush=True)
    record["load_average"] = [before, load_average()]
    (RESULTS / "exact_values.json").write_text(json.dumps(record, indent=1) + "\n")
    fill_readme("exact-values", table(record))
    print(table(record))


if __name__ == "__main__":
    main()
