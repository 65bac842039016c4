"""Our own equivalent of CleanRL's `ddpg_continuous_action_jax.py`.

The newest release of CleanRL that Python 3.11 can install does not contain this script.

It has the same structure: a Python loop over Gymnasium, a NumPy replay, and three compiled functions, for acting, for
the critic's step, and for the step of actor and targets. The configuration is the tutorial's: one update of all
networks per step, the same learning rates and the same noise.
"""

from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import optax
from harness import Meter, Options, options, versions

GAMMA, TAU = 0.99, 0.005
CAPACITY, BATCH_SIZE = 50_000, 64
ACTOR_OPTIMIZER, CRITIC_OPTIMIZER = optax.adam(1e-3), optax.adam(2e-3)


class Network(nn.Module):
    """A network with two hidden layers of 256 units."""

    @nn.compact
    def __call__(self, *inputs: jax.Array) -> jax.Array:
        x = jnp.concatenate(inputs, axis=-1)
        for _ in range(2):
            x = nn.relu(nn.Dense(256)(x))
        return nn.Dense(1)(x)


NETWORK = Network()


def network(params: Any, *inputs: jax.Array) -> jax.Array:
    return jnp.asarray(NETWORK.apply(params, *inputs))


class Trained(NamedTuple):
    """A network's parameters, its target's, and the state of its optimizer."""

    params: Any
    target: Any
    moments: optax.OptState


@jax.jit
def act(params: Any, observation: jax.Array) -> jax.Array:
    return 2 * jnp.tanh(network(params, observation))


def value(params: Any, observation: jax.Array, action: jax.Array) -> jax.Array:
    return network(params, observation, action)[:, 0]


@jax.jit
def update_critic(critic: Trained, actor: Trained, batch: tuple[jax.Array, ...]) -> Trained:
    observation, action, reward, done, next_observation = batch
    next_value = value(critic.target, next_observation, act(actor.target, next_observation))
    target = reward + (1 - done) * GAMMA * next_value
    gradient = jax.grad(lambda p: jnp.mean((value(p, observation, action) - target) ** 2))(critic.params)
    step, moments = CRITIC_OPTIMIZER.update(gradient, critic.moments)
    return critic._replace(params=optax.apply_updates(critic.params, step), moments=moments)


@jax.jit
def update_actor(actor: Trained, critic: Trained, observation: jax.Array) -> tuple[Trained, Trained]:
    gradient = jax.grad(lambda p: -jnp.mean(value(critic.params, observation, act(p, observation))))(actor.params)
    step, moments = ACTOR_OPTIMIZER.update(gradient, actor.moments)
    params = optax.apply_updates(actor.params, step)
    move = partial(optax.incremental_update, step_size=TAU)
    return (
        Trained(params, move(params, actor.target), moments),
        critic._replace(target=move(critic.params, critic.target)),
    )


class Buffer:
    """A replay in NumPy arrays, sampled with replacement."""

    def __init__(self) -> None:
        self.count = 0
        self.arrays = tuple(np.zeros((CAPACITY, *shape), np.float32) for shape in ((3,), (1,), (), (), (3,)))

    def add(self, *transition: np.ndarray | float) -> None:
        for array, value in zip(self.arrays, transition, strict=True):
            array[self.count % CAPACITY] = value
        self.count += 1

    def sample(self, generator: np.random.Generator) -> tuple[np.ndarray, ...]:
        rows = generator.integers(0, min(self.count, CAPACITY), BATCH_SIZE)
        return tuple(array[rows] for array in self.arrays)


def main(options: Options) -> None:
    meter = Meter(options)
    generator = np.random.default_rng(options.seed)
    environments: Any = gymnasium.vector.SyncVectorEnv(
        [lambda: gymnasium.wrappers.RecordEpisodeStatistics(gymnasium.make("Pendulum-v1"))],
        autoreset_mode=gymnasium.vector.AutoresetMode.SAME_STEP,
    )
    observation, _ = environments.reset(seed=options.seed)
    actor_key, critic_key = jax.random.split(jax.random.key(options.seed))
    actor_params = NETWORK.init(actor_key, observation)
    critic_params = NETWORK.init(critic_key, observation, np.zeros((1, 1), np.float32))
    actor = Trained(actor_params, actor_params, ACTOR_OPTIMIZER.init(actor_params))
    critic = Trained(critic_params, critic_params, CRITIC_OPTIMIZER.init(critic_params))
    buffer, noise, enough = Buffer(), 0.0, False
    while not enough:
        noise += -0.15 * noise * 1e-2 + 0.2 * 0.1 * generator.normal()
        action = np.clip(np.asarray(act(actor.params, observation)) + noise, -2, 2).astype(np.float32)
        next_observation, reward, terminated, truncated, info = environments.step(action)
        last = info["final_obs"][0] if truncated[0] or terminated[0] else next_observation[0]
        buffer.add(observation[0], action[0], reward[0], float(terminated[0]), last)
        observation = next_observation
        batch = buffer.sample(generator)
        critic = update_critic(critic, actor, batch)
        actor, critic = update_actor(actor, critic, batch[0])
        enough = meter.advanced()
    meter.report(versions("jax", "flax", "optax", "gymnasium"))


if __name__ == "__main__":
    main(options())
